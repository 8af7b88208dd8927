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
from kvnode.protocol.messages import Condition, Error, Written
from kvnode.sim.campaign import run
from kvnode.sim.case import Kind
from kvnode.sim.profiles import draw
from kvnode.sim.strong import judge_keys
from kvnode.sim.world import World
from tests.test_strong_seeds import a_write_is_made_again, reads_do_not_complete_what_they_show


@pytest.mark.parametrize("profile", ["calm", "rough", "hostile"])
def test_a_minute_of_each_profile_is_linearizable(profile: str) -> None:
    """Some seeds of each: every key is one register, its owners agree in the end, and writes were acknowledged."""
    for seed in range(1, 4):
        case = draw(seed, profile, minutes=1, mode="strong")
        report = run(case)
        judged = report.judgement
        assert report.passed, (seed, profile, judged.violations[:3], judged.unjudged[:3])
        assert judged.linearizable is True
        writes = sum(op.kind in (Kind.PUT, Kind.DELETE) for op in case.ops)
        assert judged.acknowledged > 0.15 * writes, report.outcomes
        assert report.outcomes["conflict"] > 0, "some condition failed"


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


PLANTED: dict[Callable[[pytest.MonkeyPatch], None], tuple[int, int]] = {
    reads_do_not_complete_what_they_show: (10, 200),
    a_write_is_made_again: (5, 60),
    promises_bind_nobody: (5, 60),
}
"""Each bug, within how many seeds it shows, and at how many operations a second."""


@pytest.mark.parametrize("plant", PLANTED)
def test_a_store_that_is_no_register_fails(
    plant: Callable[[pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit 1, `"linearizable": false`, the key and what its clients were told; the replay says the same."""
    seeds, rate = PLANTED[plant]
    plant(monkeypatch)
    for seed in range(1, seeds + 1):
        if kvctl([*SHORT, "--seed", str(seed), "--profile", "hostile", "--rate", str(rate)]) == 1:
            break
        capsys.readouterr()
    else:
        raise AssertionError(f"not found by {seeds} seeds")
    said = told(capsys)
    assert (said["linearizable"], said["verdict"]) == (False, "fail")
    claims = {violation["claim"] for violation in said["other"]}  # type: ignore[attr-defined]
    assert claims == {"linearizable"}
    assert kvctl([*str(said["replay"]).split()[1:], "-o", "json"]) == 1
    assert told(capsys)["trace_hash"] == said["trace_hash"]


def test_what_cannot_be_judged_is_no_pass(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`"linearizable": null`, and exit 1."""
    monkeypatch.setattr("kvnode.sim.strong.linearizable", lambda ops: None)
    assert kvctl([*SHORT, "--seed", "1", "--profile", "calm"]) == 1
    said = told(capsys)
    assert (said["linearizable"], said["verdict"]) == (None, "fail")
    assert "too long" in str(said["unjudged"])


def test_what_a_conditional_write_expected_is_in_its_context() -> None:
    """Two compare-and-set writes from one read: one of them conflicts, and that is part of the history."""
    world = World(seed=1)
    world.wait(world.put("k", "a", "n1", mode="strong"))
    seen = world.wait(world.get("k", "n2", mode="strong"))
    first, second = (
        world.wait(world.put("k", value, "n1", mode="strong", condition=Condition.MATCH, context=seen))
        for value in ("b", "c")
    )
    calls = world.clients.calls
    assert isinstance(first.result, Written)
    assert second.failed.error == Error.CONFLICT
    assert judge_keys(calls).linearizable is True
    second.result = first.result
    assert judge_keys(calls).linearizable is False


MINE = """
title = "mine"
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
