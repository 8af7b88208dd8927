"""Declared scenarios: what a file may say, what is wrong with nonsense, and those that are shipped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kvctl.cli import run as kvctl
from kvctl.scenarios import shipped
from kvctl.scenarios.running import run_in_sim, unmet
from kvnode.sim.scenario import ScenarioWrong, case_of, parse

EXAMPLE = """
title = "A node is killed, then the cluster is cut"
nodes = 5
seconds = 20
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
        ("nodes = 5", 'nodes = "five"', "$.nodes"),
        ("nodes = 5", "nodes = 0", "nodes must be 1..64"),
        ("nodes = 5", "nodes = 5\nn = 9", "n must be 1..5"),
        ("rate = 20", "speed = 20", "`speed`"),
        ("rate = 20", 'mode = "sometimes"', "workload.mode"),
        ("rate = 20", "gets = 0\nputs = 0\ndeletes = 0\nscans = 0", "shares"),
        ('kind = "kill"', 'kind = "explode"', "fault 1 (explode): no such kind"),
        ('node = "n2"', 'node = "n9"', "fault 1 (kill): 'n9' is none of n1"),
        ('at = "2s"', 'at = "soon"', "'soon' is no time"),
        ('at = "2s"', "", "give it a time"),
        ('every = "4s..6s"', 'every = "6s..4s"', "from the longer to the shorter"),
        ('from = "any 2"', "", "fault 2 (partition): say from which nodes"),
        ('from = "any 2"', 'from = "all"', "two sides"),
        ('for = "3s"', 'amount = "3s"', "it has no amount"),
        ('kind = "kill"', 'kind = "drop"', "it needs an amount"),
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
    assert sum(verdict.report.faults.values()) == len(case_of(shipped()[name], name).faults) or name in (
        "everything", "flapping-node", "slow-disk",
    ), "faults that meet a node already down are not done"  # fmt: skip


def test_an_expectation_that_is_not_met_fails_the_run() -> None:
    """Beside the promises, which always hold."""
    scenario = parse(EXAMPLE.replace("acked_percent_min = 50", "acked_percent_min = 100\nmax_siblings = 0"))
    from kvnode.sim.campaign import run

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
    assert "title" in capsys.readouterr().err
    assert kvctl(["scenario", "run", "nowhere"]) == 5
    assert kvctl(["scenario", "run", str(path), "--on", "cluster"]) == 2


def test_the_shipped_ones_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """At least six."""
    assert kvctl(["scenario", "ls", "-o", "json"]) == 0
    told = json.loads(capsys.readouterr().out)["scenarios"]
    assert len(told) >= 6
    assert {"everything", "rolling-kill", "split-majority"} <= {scenario["name"] for scenario in told}
