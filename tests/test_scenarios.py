"""Declared scenarios: what a file may say, what is wrong with nonsense, and those that are shipped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from kvctl.cli import run as kvctl
from kvctl.scenarios import shipped
from kvctl.scenarios.running import run_in_sim, unmet
from kvnode.protocol.faults import problem_of
from kvnode.sim.campaign import run
from kvnode.sim.case import INSIDE, SHARES
from kvnode.sim.scenario import ScenarioWrong, case_of, parse

EXAMPLE = """
about = "A node is killed, then the cluster is cut"
nodes = 5
seconds = 20
quiet = 5
[workload]
rate = 20
[[fault]]
at = "2s"
kind = "kill"
node = "n2"
for = "3s"
[[fault]]
every = "4s..6s"
kind = "partition"
from = "any 2"
for = "1s"
[expect]
acked_percent_min = 50
"""


def test_a_file_is_a_case() -> None:
    """Times and nodes that are named are as named; the others come from the seed, and none in the quiet end."""
    case = case_of(parse(EXAMPLE), "example")
    kill = next(fault for fault in case.faults if fault.kind == "kill")
    assert (kill.at_ms, kill.lasts_ms, kill.nodes) == (2_000, 3_000, ("n2",))
    cuts = [fault for fault in case.faults if fault.kind == "partition"]
    assert 2 <= len(cuts) <= 3
    assert all(len(cut.nodes) == 2 and len(cut.others) == 3 and cut.at_ms < 15_000 for cut in cuts)
    assert len(case.ops) == 400

    assert case_of(parse(EXAMPLE), "example") == case
    assert case_of(parse(EXAMPLE), "example", seed=2).faults != case.faults


@pytest.mark.parametrize(
    ("was", "becomes", "told"),
    [
        ("nodes = 5", "nodes = five", "it is no TOML"),
        ("nodes = 5", 'nodes = "five"', "nodes: Expected `int`"),
        ("seconds = 20", "seconds = 20.5", "seconds: Expected `int`"),
        ("seconds = 20", "seconds = -1", "seconds must be 1..86400, not -1"),
        ("nodes = 5", "nodes = 5\nspeed = 3", "unknown key `speed`"),
        ("about =", "story =", "`story`"),
        ('about = "A node is killed, then the cluster is cut"', 'about = "two\\nlines"', "about is one line"),
        ("nodes = 5", "nodes = 0", "nodes must be 1..64"),
        ("nodes = 5", "nodes = 5\nn = 9", "n must be 1..5"),
        ("rate = 20", "speed = 20", "workload: unknown key `speed`"),
        ("rate = 20", 'timeout = "soon"', "workload.timeout: 'soon' is no time"),
        ("rate = 20", 'via = "here"', "workload.via"),
        ("rate = 20", 'mode = "sometimes"', "workload.mode"),
        ("rate = 20", "gets = 0\nputs = 0\ndeletes = 0\nscans = 0", "shares"),
        ('kind = "kill"', 'kind = "explode"', "line 8, fault 1 (explode): no such kind"),
        ('kind = "kill"', "kind = 7", "line 8, fault 1, kind: Expected `str`"),
        ('kind = "kill"', 'knid = "kill"', "line 8, fault 1: unknown key `knid`"),
        ('node = "n2"', 'node = "n9"', "fault 1 (kill): 'n9' is none of n1"),
        ('node = "n2"', 'node = "any 6"', "there are 5 nodes to choose from"),
        ('node = "n2"', 'node = "n2,n2"', "names a node twice"),
        ('node = "n2"', 'peer = "n2"', "it has no peer"),
        ('node = "n2"', "one_way = true", "it has no one_way"),
        ('at = "2s"', 'at = "-2s"', "'-2s' is no time"),
        ('at = "2s"', 'at = "15s"', "too late: faults begin before 15s"),
        ('for = "3s"', 'for = "2000m"', "a fault lasts from 1ms to 24h"),
        ('at = "2s"', 'at = "soon"', "'soon' is no time"),
        ('at = "2s"', "", "give it a time"),
        ('every = "4s..6s"', 'every = "6s..4s"', "from the longer to the shorter"),
        ('from = "any 2"', "", "line 13, fault 2 (partition): say from which nodes"),
        ('from = "any 2"', 'from = "n1"\nto = "n1"', "'n1' is none of n2"),
        ("acked_percent_min = 50", "acked_percent_min = 101", "must be 0..100"),
        ('from = "any 2"', 'from = "all"', "two sides"),
        ('for = "3s"', 'amount = "3s"', "it has no amount"),
        ('kind = "kill"', 'kind = "drop"', "it needs an amount"),
        ('kind = "kill"', 'kind = "drop"\namount = "0%"', "above 0"),
        ('kind = "kill"', 'kind = "delay"\namount = "1s"\njitter = "2s"', "the jitter is at most the delay"),
        ('kind = "kill"', 'kind = "slow-disk"\namount = "5m"', "a slow disk takes up to"),
        ('kind = "kill"', 'kind = "drop"\namount = "3s"', "is no share"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(was: str, becomes: str, told: str) -> None:
    """One sentence a mistake."""
    assert was in EXAMPLE
    with pytest.raises(ScenarioWrong) as wrong:
        parse(EXAMPLE.replace(was, becomes, 1))
    assert told in str(wrong.value)


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_scenario_passes(name: str) -> None:
    """With the seed of its file."""
    verdict = run_in_sim(name, None)
    assert verdict.passed, verdict.explain()
    planned = len(case_of(shipped()[name], name).faults)
    if name not in ("everything", "flapping-node"):  # a fault that meets a node already down is not done
        assert sum(verdict.report.faults.values()) == planned


def test_a_scenario_may_change_the_shape(capsys: pytest.CaptureFixture[str]) -> None:
    """Two join, one leaves, one is replaced while others are killed and cut off; on real nodes it is refused."""
    path = str(Path(__file__).with_name("reshaped.toml"))
    assert kvctl(["scenario", "run", path, "-o", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["verdict"], told["lost"]) == ("pass", [])
    assert kvctl(["scenario", "run", path, "--on", "cluster"]) == 9
    assert "simulator" in capsys.readouterr().err


def test_each_side_of_a_partition_is_counted_apart() -> None:
    """In `eventual` both sides of a cut take writes; in `quorum`, with five owners, the smaller takes none."""
    both = run_in_sim("split-writeable", 3).report.sides
    assert [side.minor for side in both] == [True, False]
    assert all(side.puts > 100 and side.acked >= 0.99 * side.puts for side in both)

    small, large = run_in_sim("split-majority", 3).report.sides
    assert (small.nodes, small.acked, large.acked) == (("n1", "n2"), 0, large.puts)
    assert small.puts > 50


def test_expectations_of_sides_fail_a_run_too() -> None:
    """Those of every side for one, those of the smaller for the other; and no puts at all are no pass."""
    text = EXAMPLE.replace("acked_percent_min = 50", "each_side_acked_percent_min = 90\nminority_acked_max = 0")
    scenario = parse(text)
    report = run(case_of(scenario, "example"))
    side = report.sides[0]
    for changed, told in (
        (replace(side, minor=False, puts=10, acked=8), ["90 %"]),
        (replace(side, minor=True, puts=10, acked=10), ["at most 0"]),
        (replace(side, minor=True, puts=0, acked=0), ["90 %", "at most 0"]),
        (replace(side, minor=False, puts=10, acked=9), []),
    ):
        found = unmet(scenario, replace(report, sides=[changed]), writes=0)
        assert len(found) == len(told)
        assert all(word in text for word, text in zip(told, found, strict=True))


def test_a_bridge_hears_both_sides() -> None:
    """Nodes that are on neither side of a cut are left alone."""
    assert all(len({*cut.nodes, *cut.others}) == 4 for cut in case_of(shipped()["bridge"], "bridge").faults)


def test_faults_are_told_to_real_nodes_as_the_file_has_them() -> None:
    """Shares and milliseconds; what a node would refuse is refused when the file is read."""
    for name, scenario in shipped().items():
        for fault in case_of(scenario, name).faults:
            if fault.kind in INSIDE:
                order = fault.as_order("x")
                assert not problem_of(order, [f"n{i + 1}" for i in range(scenario.nodes)]), (name, fault)
                assert order.amount == (fault.amount / 100 if fault.kind in SHARES else fault.amount)


def test_an_expectation_that_is_not_met_fails_the_run() -> None:
    """Beside the promises, which always hold."""
    scenario = parse(EXAMPLE.replace("acked_percent_min = 50", "acked_percent_min = 100\nmax_siblings = 0"))
    told = unmet(scenario, run(case_of(scenario, "example")), writes=10_000)
    assert len(told) == 2
    assert "acknowledged" in told[0]
    assert "siblings" in told[1]


def test_the_command_runs_a_file_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 0 and the JSON of the contract; a wrong file, one that is not there, a place that is not built."""
    path = tmp_path / "mine.toml"
    path.write_text(EXAMPLE)
    assert kvctl(["scenario", "run", str(path), "--on", "sim", "--seed", "3", "-o", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["verdict"], told["seed"], told["schema"]) == ("pass", 3, "kvctl.scenario-run/v1")

    path.write_text("nodes = 5")
    assert kvctl(["scenario", "run", str(path)]) == 9
    assert "`about`" in capsys.readouterr().err
    assert kvctl(["scenario", "run", "nowhere"]) == 5
    assert kvctl(["scenario", "run", str(path), "--on", "moon"]) == 2
    assert kvctl(["scenario", "run", str(path), "--name", "local"]) == 2
    assert kvctl(["scenario", "run", str(path), "--seed", "-1"]) == 2


def test_what_is_no_text_file_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A directory, bytes, a file too long, one that is not there: each is told apart, none is a bug."""
    binary, long, directory = tmp_path / "binary.toml", tmp_path / "long.toml", tmp_path / "directory.toml"
    binary.write_bytes(bytes(range(256)))
    long.write_bytes(b"#" * (1 << 21))
    directory.mkdir()
    for path, code, told in (
        (binary, 9, "no UTF-8"), (long, 9, "at most"), (directory, 9, "is a directory"),
        (tmp_path / "none.toml", 5, "no scenario"), (Path("/dev/null"), 9, "no regular file"),
    ):  # fmt: skip
        assert kvctl(["scenario", "run", f"{path.parent}/{path.name}"]) == code
        assert told in capsys.readouterr().err


def test_a_dry_run_tells_what_it_would_do(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is started."""
    assert (
        kvctl(["scenario", "run", "wiped-node", "--on", "cluster", "--name", "any", "--dry-run", "-o", "json"])
        == 0
    )
    told = json.loads(capsys.readouterr().out)
    assert "1 partition, 1 wipe" in told["would"]
    assert told["risks"] == ["the data directory of n1 is deleted"]


def test_the_shipped_ones_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """At least twelve, each with a line about it; each takes a real cluster less than half a minute of work."""
    assert kvctl(["scenario", "ls", "-o", "json"]) == 0
    told = json.loads(capsys.readouterr().out)["scenarios"]
    assert len(told) >= 12
    assert all(20 < len(scenario["about"]) < 120 and scenario["seconds"] <= 30 for scenario in told)
    assert {
        "rolling-kill", "split-majority", "split-writeable", "bridge", "one-way-link", "flapping-node",
        "long-pause", "slow-disk", "full-disk", "clock-jump", "wiped-node", "message-chaos", "everything",
    } <= {scenario["name"] for scenario in told}  # fmt: skip
