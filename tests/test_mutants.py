"""The list of planted bugs and its runner: every entry still applies, and a verdict means what it says.

`make mutants` runs them all; here one is caught and one gets through, for real, in seconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil
import pytest

from tests.mutants.listing import Ended, Fate, Mutant, Wrong, catcher_problem, chosen, fate_of, load, planted
from tests.mutants.runner import ROOT, Bench, longest

MUTANTS = load()
TESTS = {str(path.relative_to(ROOT)): path.read_text() for path in (ROOT / "tests").glob("*.py")}
QUICK = Mutant(
    name="quick", breaks="nothing", file="kvnode/core/clock.py", old="COUNTER_BITS = 16", new="COUNTER_BITS = 17",
    caught_by=("tests/test_clock.py::test_a_time_is_the_wall_clock_with_a_counter_below_it",),
)  # fmt: skip


# ---- the list ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_applies_and_its_catchers_are_there(mutant: Mutant) -> None:
    """Its text stands once in the source, the rest is Python and another program; no catcher was renamed."""
    planted(mutant, (ROOT / mutant.file).read_text())
    assert mutant.caught_by
    problems = [problem for catcher in mutant.caught_by if (problem := catcher_problem(catcher, TESTS))]
    assert not problems


def test_the_list_is_long_and_one_line_an_entry() -> None:
    """What is broken fits a row of the table."""
    assert len(MUTANTS) > 100
    assert [m.name for m in MUTANTS if len(m.breaks) > 120 or "\n" in m.breaks or len(m.name) > 40] == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"old": "COUNTER_BITS"}, "times in"),
        ({"old": "no such text"}, "stands 0 times"),
        ({"new": "COUNTER_BITS = ("}, "no Python"),
        ({"new": "COUNTER_BITS = 16  # as ever"}, "the same program"),
    ],
)
def test_what_cannot_be_planted_is_refused(change: dict[str, str], says: str) -> None:
    """Not there, there more than once, no Python, or no change."""
    with pytest.raises(Wrong, match=says):
        planted(msgspec.structs.replace(QUICK, **change), (ROOT / QUICK.file).read_text())


def test_a_name_is_one_mutants(tmp_path: Path) -> None:
    """Two of one name, a field nobody knows, and a name that is none are each said."""
    entry = '[[mutant]]\nname = "a"\nbreaks = "b"\nfile = "f"\nold = "o"\nnew = "n"\ncaught_by = ["t"]\n'
    (tmp_path / "one.toml").write_text(entry + entry)
    with pytest.raises(Wrong, match="two mutants of one name: a"):
        load(tmp_path)
    (tmp_path / "one.toml").write_text(entry + "caugth_by = []\n")
    with pytest.raises(Wrong, match=r"one\.toml"):
        load(tmp_path)
    with pytest.raises(Wrong, match="no mutant is called nobody"):
        chosen(MUTANTS, ["nobody"])


@pytest.mark.parametrize(
    "catcher", ["tests/none.py", "tests/test_clock.py::test_none", "short", "short 1", "simulate wild 1..3"]
)
def test_a_catcher_that_cannot_be_run_is_named(catcher: str) -> None:
    """A file, a test or a run of seeds that there is not."""
    assert catcher_problem(catcher, TESTS)


# ---- verdicts ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "said", "fate"),
    [
        (0, "1 passed", "survived"),
        (1, "FAILED tests/t.py::t - assert 0 == 1", "caught"),
        (1, "FAILED tests/t.py::t - AssertionError: NameError: was expected", "caught"),
        (1, "FAILED tests/t.py::t - NameError: name 'x' is not defined", "broken"),
        (1, "FAILED tests/t.py::t - Failed: Timeout (>9.0s) from pytest-timeout.", "timeout"),
        (None, "", "timeout"),
        (2, "ERROR tests/t.py\nInterrupted", "broken"),
        (5, "no tests ran", "broken"),
        (-9, "", "broken"),
    ],
)
def test_only_a_test_that_ran_and_failed_has_caught_something(code: int | None, said: str, fate: Fate) -> None:
    """A mutant that trips over its own text, a catcher that is gone, and a hang are no catches."""
    assert fate_of(QUICK, "tests/t.py::t", Ended(code, said))[0] == fate


def test_a_hang_is_a_catch_only_of_what_makes_things_hang() -> None:
    """Said so in the entry."""
    patient = msgspec.structs.replace(QUICK, liveness=True)
    for ended in (Ended(None, ""), Ended(1, "FAILED t - Failed: Timeout (>9.0s) from pytest-timeout.")):
        assert fate_of(patient, "t", ended)[0] == "caught"


def test_of_runs_of_seeds_the_longest_is_enough_for_all() -> None:
    """Unmutated, seeds 1..40 pass if 1..80 do; those of another kind are run apart."""
    assert longest(["short 1..40", "short 1..80", "strong 1..9", "t"]) == ["short 1..80", "strong 1..9"]


# ---- the runner, for real ----------------------------------------------------------------------


def test_one_is_caught_one_survives_one_hangs_and_the_tree_stays_as_it_is(tmp_path: Path) -> None:
    """A wrong constant, one that its test does not look at, and a test that never ends."""
    before = (ROOT / QUICK.file).read_bytes()
    bench = Bench(tmp_path)
    slow = bench.base / "tests" / "test_slow.py"
    slow.write_text("def test_slow():\n    while True:\n        pass\n")
    mutants = [
        QUICK,
        msgspec.structs.replace(QUICK, name="unseen", old='"""One per node and boot.', new='"""One.'),
        msgspec.structs.replace(QUICK, name="slow", caught_by=("tests/test_slow.py",), deadline_s=2),
        msgspec.structs.replace(QUICK, name="stale", old="not there"),
    ]
    fates = [(result.name, result.fate) for result in bench.try_all(mutants, 2, lambda _: None)]
    assert fates == [("quick", "caught"), ("unseen", "survived"), ("slow", "timeout"), ("stale", "stale")]
    assert (ROOT / QUICK.file).read_bytes() == before
    assert list(tmp_path.iterdir()) == [bench.base]


def test_nothing_is_proven_where_the_unmutated_tree_fails(tmp_path: Path) -> None:
    """A catcher that fails anyway catches everything."""
    bench = Bench(tmp_path)
    (bench.base / "tests" / "test_wrong.py").write_text("def test_wrong():\n    assert False\n")
    assert bench.baseline([QUICK], 1) == []
    (wrong,) = bench.baseline([msgspec.structs.replace(QUICK, caught_by=("tests/test_wrong.py",))], 1)
    assert "test_wrong" in wrong


def test_a_run_that_is_interrupted_leaves_neither_a_process_nor_a_copy(tmp_path: Path) -> None:
    """SIGTERM in the middle of it: exit 130, and nothing is left."""
    command = [sys.executable, "-m", "tests.mutants", "--only", "promise-not-kept", "--survey", "-o", "json"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL) as running:

        def children() -> list[psutil.Process]:
            return psutil.Process(running.pid).children(recursive=True)

        def looks() -> bool:
            found = psutil.process_iter(["ppid", "cmdline"])  # those that end meanwhile are passed over
            mine = (child.info["cmdline"] or [] for child in found if child.info["ppid"] == running.pid)
            return any("tests.mutants.seeds" in words for words in mine)

        try:
            wait_for(looks)
            left = children()
            running.terminate()
            assert running.wait(30) == 130
        finally:
            running.kill()
    assert left
    wait_for(lambda: not any(child.is_running() for child in left))
    assert list(tmp_path.iterdir()) == []


def wait_for(true: Callable[[], bool], seconds: float = 60) -> None:
    """Within this time it comes true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_the_command_tells_in_json_who_caught_what() -> None:
    """`--only` one, `-o json`: exit 0; a name that is none: exit 2."""
    command = [sys.executable, "-m", "tests.mutants", "--only", "burnt-actor-is-used", "-o", "json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["fates"] == {"caught": 1}
    (result,) = told["results"]
    assert result["by"].endswith("test_a_record_that_names_our_actor_beyond_what_we_minted_burns_it")
    assert subprocess.run([*command[:4], "nobody"], cwd=ROOT, capture_output=True, check=False).returncode == 2
