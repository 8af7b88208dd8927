"""`kvctl simulate --mode strong`: every key is judged as a register, and a store that is none is found.

kvctl simulate --seed 1..100 --mode strong --profile hostile          # more of them, on all cores
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from kvctl.cli import run as kvctl
from kvnode.core.consensus import Register
from tests.test_strong_seeds import a_write_is_made_again, reads_do_not_complete_what_they_show

SHORT = ["simulate", "--mode", "strong", "--minutes", "1", "-o", "json"]


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_the_command_says_whether_it_was_linearizable(capsys: pytest.CaptureFixture[str]) -> None:
    """True, in the JSON of the contract; null in other modes, where nobody asked."""
    assert kvctl([*SHORT, "--seed", "3", "--profile", "rough"]) == 0
    said = told(capsys)
    assert (said["linearizable"], said["verdict"]) == (True, "pass")
    assert said["acked"] == said["survivors"]
    assert kvctl([*SHORT, "--seed", "3", "--profile", "calm", "--mode", "quorum"]) == 0
    assert told(capsys)["linearizable"] is None


def promises_bind_nobody(patch: pytest.MonkeyPatch) -> None:
    """An acceptor takes whatever comes, under whatever ballot."""
    patch.setattr("kvnode.core.acceptor.promise", lambda mine, ballot: Register(ballot, mine.accepted, mine.value))
    patch.setattr("kvnode.core.acceptor.accept", lambda mine, ballot, value: Register(ballot, ballot, value))


PLANTED: dict[Callable[[pytest.MonkeyPatch], None], tuple[range, int]] = {
    reads_do_not_complete_what_they_show: (range(4, 14), 200),
    a_write_is_made_again: (range(1, 6), 60),
    promises_bind_nobody: (range(1, 6), 60),
}
"""Each bug, seeds of which one at least shows it, and at how many operations a second."""


@pytest.mark.parametrize("plant", PLANTED)
def test_a_store_that_is_no_register_fails(
    plant: Callable[[pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit 1, `"linearizable": false`, the key and what its clients were told; the replay says the same."""
    seeds, rate = PLANTED[plant]
    plant(monkeypatch)
    for seed in seeds:
        if kvctl([*SHORT, "--seed", str(seed), "--profile", "hostile", "--rate", str(rate)]) == 1:
            break
        capsys.readouterr()
    else:
        raise AssertionError(f"not found by {seeds}")
    said = told(capsys)
    assert (said["linearizable"], said["verdict"]) == (False, "fail")
    claims = {violation["claim"] for violation in said["other"]}  # type: ignore[attr-defined]
    assert claims == {"linearizable"}
    assert kvctl([*str(said["replay"]).split()[1:], "-o", "json"]) == 1
    assert told(capsys)["trace_hash"] == said["trace_hash"]


MINE = """
about = "mine"
seconds = 20
[workload]
mode = "strong"
keys = 3
[[fault]]
every = "3s"
kind = "kill"
node = "any"
for = "1s"
"""


def test_a_scenario_may_be_of_mode_strong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same checker, the same JSON."""
    path = tmp_path / "mine.toml"
    path.write_text(MINE)
    assert kvctl(["scenario", "run", str(path), "--on", "sim", "-o", "json"]) == 0
    said = told(capsys)
    assert (said["linearizable"], said["verdict"]) == (True, "pass")
    assert said["faults"]["kill"] >= 4  # type: ignore[index]
