"""Campaigns: whole cases drawn from a seed and a profile, run, judged, shrunk, replayed; and `kvctl simulate`.

kvctl simulate --seed 1..100 --profile hostile          # more of them, on all cores
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from kvctl.cli import run as kvctl
from kvctl.scenarios.simulating import Wanted, run_all, shrunk
from kvnode import config
from kvnode.core.outbox import Outbox
from kvnode.core.proposal import Round
from kvnode.sim.campaign import run
from kvnode.sim.case import KINDS, Case
from kvnode.sim.profiles import draw
from kvnode.sim.shrink import numbers, shrink, spans


def acks_leave_at_once(patch: pytest.MonkeyPatch) -> None:
    """Plant a bug: a reply no longer waits for the commit."""
    patch.setattr(Outbox, "ack", Outbox.send)


@pytest.mark.parametrize("mode", ["eventual", "quorum", "strong"])
@pytest.mark.parametrize("profile", ["calm", "rough", "hostile"])
def test_a_minute_of_each_profile_keeps_every_promise(profile: str, mode: str) -> None:
    """Some seeds of each, whatever breaks; most writes are acknowledged, for a silent store loses nothing."""
    for seed in range(1, 4):
        case = draw(seed, profile, minutes=1, mode=mode)
        report = run(case)
        judged = report.judgement
        assert report.passed, (seed, profile, mode, judged.violations[:3], judged.unjudged[:3])
        assert judged.acknowledged > 0.1 * len(case.ops), (seed, report.outcomes)
        assert report.sim_ms >= 60_000
        assert judged.linearizable is (True if mode == "strong" else None)
        if mode == "quorum" and profile == "calm":
            assert judged.stale_reads == 0


def test_a_register_that_is_none_turns_a_strong_run_red(monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that was outbid is proposed anew, whatever came after it."""
    monkeypatch.setattr(Round, "maybe_applied", False)
    report = run(draw(1, "hostile", minutes=1, mode="strong"))
    assert report.claims == {"linearizable"}
    assert report.judgement.linearizable is False
    assert not report.passed


def test_a_past_that_lost_what_is_settled_still_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a pruned past covers only by way of versions that are gone is not lost."""
    monkeypatch.setattr(config, "CLOCK_ENTRIES_FREE", 0)
    report = run(draw(1, "calm", minutes=3))
    assert report.passed, report.judgement.violations[:3]


def test_a_history_that_is_too_much_to_judge_is_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unknown is not true."""
    monkeypatch.setattr("kvnode.sim.strong.linearizable", lambda ops: None)
    report = run(draw(1, "calm", minutes=1, mode="strong"))
    assert not report.judgement.violations
    assert report.judgement.unjudged
    assert report.judgement.linearizable is None
    assert not report.passed


def test_the_profiles_differ_as_they_say() -> None:
    """Nothing breaks in calm; every kind of fault is in some hostile seed; no seed has them all."""
    assert not draw(1, "calm").faults
    cases = [draw(seed, "hostile", minutes=1) for seed in range(60)]
    kinds = [{fault.kind for fault in case.faults} for case in cases]
    assert set.union(*kinds) == set(KINDS)
    assert all(len(some) < len(KINDS) - 2 for some in kinds)
    rough = {fault.kind for seed in range(60) for fault in draw(seed, "rough", minutes=1).faults}
    assert not rough & {"wipe", "fail-fsync"}


def test_a_seed_is_one_run_in_any_process() -> None:
    """Same seed, other process, other hash seed: the same trace."""
    script = (
        "from kvnode.sim.profiles import draw; from kvnode.sim.campaign import run;"
        "print(run(draw(5, 'hostile', minutes=1)).trace_hash)"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", script], env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True, text=True, check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }  # fmt: skip
    assert len(told) == 1


def test_processes_change_no_verdict() -> None:
    """Two at a time or one after another: the same verdicts, in the order of the seeds."""
    wanted = Wanted(minutes=1, rate=5)
    apart = [(v.seed, v.report.trace_hash) for v in run_all(range(1, 4), wanted, 2)]
    assert apart == [(v.seed, v.report.trace_hash) for v in run_all(range(1, 4), wanted, 1)]
    assert [seed for seed, _ in apart] == [1, 2, 3]


# ---- shrinking ---------------------------------------------------------------------------------


def test_shrinking_keeps_what_matters() -> None:
    """A case fails if two of its faults and one operation are in it: just those are left."""
    case = draw(3, "hostile", minutes=1)
    places = {fault: place for place, fault in enumerate(case.faults)}
    assert len(places) > 9

    def fails(some: Case) -> bool:
        left = {places[fault] for fault in some.faults}
        return {2, 7} <= left and any(op.number == 40 for op in some.ops)

    small = shrink(case, fails, runs_max=1_000)
    assert (small.faults, small.ops) == ([2, 7], [40])


def test_a_planted_bug_is_shrunk_to_a_few_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    """One write is enough to be told of what no disk holds yet."""
    acks_leave_at_once(monkeypatch)
    wanted = Wanted(minutes=1, profile="calm", rate=5)
    told = shrunk(1, wanted)
    assert "0 faults" in told
    ops = told.split("--ops '")[1].split("'")[0]
    assert len(numbers(ops)) < 20, told  # of 300
    assert not run(Wanted(minutes=1, profile="calm", rate=5, faults="", ops=ops).case(1)).passed


def test_lists_of_numbers_go_both_ways() -> None:
    """As a command line has them."""
    for some in ([], [3], [1, 2, 3, 7], [0, 1, 5, 6, 7, 8, 20]):
        assert sorted(numbers(spans(some))) == some
    assert spans([1, 2, 3, 7, 9, 10]) == "1-3,7,9-10"


# ---- the command -------------------------------------------------------------------------------

SHORT = ["simulate", "--minutes", "1", "--rate", "5", "--profile", "calm"]


def test_one_seed_tells_everything(capsys: pytest.CaptureFixture[str]) -> None:
    """The fields of the contract."""
    assert kvctl([*SHORT, "--seed", "7", "-o", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    fields = (
        "scenario seed ops acked indeterminate failed survivors lost resurrected diverged stale_reads "
        "max_siblings linearizable took_s verdict trace_hash sim_s events faults nodes keys"
    )
    assert set(fields.split()) <= told.keys()
    assert (told["verdict"], told["seed"], told["nodes"], told["schema"]) == ("pass", 7, 5, "kvctl.simulate/v1")
    assert told["ops"] == 300
    assert told["acked"] == told["survivors"] > 100


def test_a_range_is_a_summary_or_a_line_a_seed(capsys: pytest.CaptureFixture[str]) -> None:
    """`-o json` sums up, `-o jsonl` tells all."""
    assert kvctl([*SHORT, "--seed", "1..3", "-o", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {"seeds": 3, "passed": 3, "failed": []}.items() <= told.items()
    assert kvctl([*SHORT, "--seed", "1..3", "-o", "jsonl"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["seed"] for line in lines] == [1, 2, 3]


def test_a_failure_exits_1_and_prints_how_to_see_it_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one command that replays it does."""
    acks_leave_at_once(monkeypatch)
    assert kvctl([*SHORT, "--seed", "1", "-o", "json"]) == 1
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert told["verdict"] == "fail"
    assert {violation["claim"] for violation in told["other"]} == {"told_is_durable"}
    assert told["replay"] in err
    assert kvctl([*told["replay"].split()[1:], "-o", "json"]) == 1
    assert json.loads(capsys.readouterr().out)["trace_hash"] == told["trace_hash"]


@pytest.mark.parametrize(
    "words",
    [
        ["--seed", "x"], ["--seed", "3..1"], ["--profile", "wild"], ["--mode", "loud"], ["--nodes", "0"],
        ["--minutes", "0"], ["--jobs", "0"], ["--ops", "a"], ["--seed", "1..2", "--faults", "1"],
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_a_usage_error(words: list[str]) -> None:
    """Exit 2."""
    assert kvctl(["simulate", *words]) == 2
