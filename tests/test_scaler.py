"""The autoscaler at work on a cluster that is a value: rings are planned for real, and moved in a turn or two."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import msgspec
import pytest

from kvctl.autoscale import Do, Limits
from kvctl.client import Client
from kvctl.errors import Invalid, KvError, Unavailable
from kvctl.launchers import CommandLauncher, command_words
from kvctl.local import LaunchFailed
from kvctl.scaler import Scaler, Turn, candidate
from kvnode.core.plan import plan_of, without
from kvnode.protocol.messages import Change, ChangeKind, ClusterReport, Outsider, Plan
from kvnode.protocol.ring import Member
from kvnode.protocol.types import NodeId
from tests.harness import N1, ring_of
from tests.reports import report
from tests.test_shape import moves

MB = 10**6
LIMITS = Limits(least=3, most=5, high_bytes=20 * MB, low_bytes=5 * MB, cooldown_s=30)


class Small:
    """A cluster of as many bytes as it is told, whose moves take one turn."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.ring = ring_of()
        self.bytes = 300 * MB
        self.outside: list[Member] = []
        self.staged: list[Change] = []
        self.lost_majority = False
        self.log: list[str] = []

    # ---- a client ------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """There is nothing to close."""

    def status(self) -> ClusterReport:
        each = self.bytes // len(self.ring.members)
        told = tuple(report(m.id, value_bytes=each, peers=(), moves=moves()) for m in self.ring.members)
        waiting = tuple(Outsider(m, report(m.id, keys=0, peers=())) for m in self.outside)
        return ClusterReport(1, self.ring, told, N1, waiting)

    def plan(self) -> Plan:
        return plan_of(self.ring, self.staged)

    def stage(self, kind: ChangeKind, node: str, new: str = "") -> None:
        member = next((m for m in self.outside if m.id == node), None)
        self.staged.append(Change(kind, NodeId(node), member if kind == ChangeKind.JOIN else None))

    def clear_staged(self) -> None:
        self.staged = []

    def commit(self, plan: Plan, timeout: float) -> int:
        if self.lost_majority:
            raise Unavailable("1 of 3 members can be reached, 2 are needed")
        self.ring, self.staged = plan.ring, []
        self.outside = [m for m in self.outside if self.ring.member(m.id) is None]
        return plan.ring.epoch

    # ---- a launcher ------------------------------------------------------------------------

    def grow(self, told: ClusterReport) -> None:
        name = f"n{len(told.ring.members) + len(told.ring.removed) + 1}"
        self.log.append(f"start {name}")
        self.outside.append(Member(NodeId(name), f"127.0.0.1:{7000 + int(name[1:])}", name))

    def retire(self, told: ClusterReport) -> tuple[str, ...]:
        gone = tuple(f"stop {m.id}" for m in told.ring.removed if f"stop {m.id}" not in self.log)
        self.log += gone
        return gone

    # ---- what happens by itself ---------------------------------------------------------------

    def settle(self) -> None:
        """The moves are done, and who leaves is gone."""
        owners = list(self.ring.owners)
        for move in self.ring.moves:
            owners[move.partition] = move.owners
        still = msgspec.structs.replace(self.ring, owners=tuple(owners), moves=())
        self.ring = msgspec.structs.replace(without(still, set(still.leaving)), leaving=())


def scaler(small: Small, *, apply: bool = True) -> Scaler:
    client = cast("Client", small)
    return Scaler(lambda: client, LIMITS, small if apply else None, lambda: small.now_s)


def run(small: Small, scaling: Scaler, turns: int) -> list[Turn]:
    """So many turns, five seconds apart; moves are done by the next but one."""
    found = []
    for i in range(turns):
        found.append(scaling.turn())
        small.now_s += 5
        if i % 2:
            small.settle()
    return found


def test_it_grows_to_the_most_and_shrinks_back_one_at_a_time() -> None:
    """Each node is started, joined, waited for; each leaver is ended when it is gone."""
    small = Small()
    scaling = scaler(small)

    grown = run(small, scaling, 40)
    assert [m.id for m in small.ring.members] == ["n1", "n2", "n3", "n4", "n5"]
    assert small.log == ["start n4", "start n5"]
    assert sum(turn.plan is not None for turn in grown) == 2
    assert grown[-1].decision.cause == "at-max"
    assert {turn.decision.cause for turn in grown} >= {"high", "moving", "cool-down"}

    small.bytes = 0
    run(small, scaling, 40)
    assert [m.id for m in small.ring.members] == ["n1", "n2", "n3"]
    assert small.log[2:] == ["stop n5", "stop n4"]
    assert scaling.turn().decision.cause == "at-min"


def test_without_apply_it_only_says_what_it_would_do() -> None:
    """Nothing is started, staged or committed."""
    small = Small()
    turns = run(small, scaler(small, apply=False), 5)
    assert {turn.decision.do for turn in turns} == {Do.GROW}
    assert not small.log and not small.staged and small.ring.epoch == 1


def test_what_could_not_be_committed_is_taken_back_and_not_tried_again_at_once() -> None:
    """A lost majority: the node that was started waits, and the next try comes after the cool-down."""
    small = Small()
    small.lost_majority = True
    scaling = scaler(small)

    first = scaling.turn()
    assert "2 are needed" in first.problem and first.plan is None
    assert not small.staged
    assert scaling.turn().decision.cause == "cool-down"
    small.lost_majority = False
    small.now_s += 31
    assert scaling.turn().plan is not None
    assert small.log == ["start n4"], "the node that waits outside already is taken"


def test_it_does_not_mix_its_change_with_somebody_elses() -> None:
    """An operator who stages while it works finds his changes not committed by it."""
    small = Small()
    small.staged.append(Change(ChangeKind.LEAVE, N1))
    assert scaler(small).turn().decision.cause == "staged"
    assert len(small.staged) == 1 and not small.log


def test_a_cluster_that_does_not_answer_is_waited_for() -> None:
    """It is told, and nothing ends."""

    def nobody() -> Client:
        raise Unavailable("nobody answers")

    turn = Scaler(nobody, LIMITS, None).turn()
    assert (turn.decision.do, turn.decision.cause) == (Do.WAIT, "unreachable")


def test_only_an_empty_node_that_answers_and_never_was_a_member_is_taken() -> None:
    """What waits outside may be a stranger, or a former member."""
    small = Small()
    told = small.status()
    waiting = [Member(NodeId(f"n{i}"), f"h:{i}", f"n{i}") for i in range(6, 10)]
    outside = (
        Outsider(waiting[0], None), Outsider(waiting[1], report(NodeId("n7"), keys=3)),
        Outsider(waiting[2], report(NodeId("n8"), keys=0)), Outsider(waiting[3], report(NodeId("n9"), keys=0)),
    )  # fmt: skip
    ring = msgspec.structs.replace(small.ring, removed=(waiting[2],))
    assert candidate(msgspec.structs.replace(told, ring=ring, outside=outside)) == "n9"
    assert candidate(told) == ""


# ---- a command of the user's ---------------------------------------------------------------------------


def script(path: Path, code: str) -> list[str]:
    path.write_text(code)
    return [sys.executable, str(path), "{action}", "{replicas}", "{node}"]


def test_a_command_is_told_how_many_nodes_there_should_be(tmp_path: Path) -> None:
    """In its words and in its environment; once for each change, when it is due."""
    out = tmp_path / "out"
    told = "' '.join(sys.argv[1:]) + os.environ['KVCTL_REPLICAS'] + ';'"
    code = f"import os, sys; open({str(out)!r}, 'a').write({told})"
    small = Small()
    launcher = CommandLauncher(script(tmp_path / "scale.py", code), 3)

    launcher.grow(small.status())
    small.grow(small.status())
    small.stage(ChangeKind.JOIN, "n4")
    small.commit(small.plan(), 1.0)
    assert not launcher.retire(small.status())
    small.settle()
    assert not launcher.retire(small.status()), "four are wanted and four are there"
    small.stage(ChangeKind.LEAVE, "n4")
    small.commit(small.plan(), 1.0)
    assert not launcher.retire(small.status()), "it has not left yet"
    small.settle()
    assert launcher.retire(small.status()) == ("n4",)
    assert not launcher.retire(small.status())
    assert out.read_text() == "grow 4 4;shrink 3 n43;"


def test_a_command_that_fails_is_told_with_what_it_said(tmp_path: Path) -> None:
    """Its exit code and its last words."""
    launcher = CommandLauncher(script(tmp_path / "no.py", "import sys; sys.exit('no quota')"), 3)
    with pytest.raises(LaunchFailed, match=r"ended with 1: no quota"):
        launcher.grow(Small().status())
    with pytest.raises(LaunchFailed):
        CommandLauncher([os.devnull], 3).grow(Small().status())


@pytest.mark.parametrize("text", ["remote", "command", "command=", "command='", "other=x"])
def test_a_launcher_that_is_none_is_refused(text: str) -> None:
    """With the two there are."""
    with pytest.raises(Invalid):
        command_words(text)
    assert issubclass(Invalid, KvError)
    assert command_words("command='a b' {replicas}") == ["a b", "{replicas}"]
