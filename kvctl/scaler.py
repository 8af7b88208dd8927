"""The autoscaler's hand: looks, lets the policy decide, and carries one change out.

Promises: what it staged and could not commit is taken back; a failure costs a cool-down, so it is never
repeated at once. Never: decides; that is `autoscale.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from msgspec import Struct

from kvctl.autoscale import Decision, Do, Eyes, Limits, Seen, decide
from kvctl.client import Client
from kvctl.errors import KvError
from kvctl.launchers import Launcher
from kvctl.local import LaunchFailed
from kvnode.protocol.messages import ChangeKind, ClusterReport

COMMIT_S = 15.0
SHOWS_UP_S = 120.0
"""Longest a node that was launched may take to be known."""
LOOK_S = 0.2


class Turn(Struct, frozen=True):
    """What one look came to."""

    decision: Decision
    members: int
    bytes: int
    ops_per_s: float | None
    plan: str | None = None
    """That was committed."""
    retired: tuple[str, ...] = ()
    """Nodes that had left, and were ended."""
    problem: str = ""
    """Why what was decided could not be done."""


class Scaler:
    """One cluster, watched."""

    def __init__(
        self,
        connect: Callable[[], Client],
        limits: Limits,
        launcher: Launcher | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Without a launcher it only says what it would do."""
        self._connect = connect
        self._limits = limits
        self._launcher = launcher
        self._clock = clock
        self._eyes = Eyes()
        self._changed_s = float("-inf")

    def turn(self) -> Turn:
        """Look once, and act if that is called for."""
        try:
            with self._connect() as client:
                return self._look(client)
        except KvError as error:
            decision = Decision(Do.WAIT, "unreachable", error.message)
            return Turn(decision, 0, 0, None, problem=error.message)

    def _look(self, client: Client) -> Turn:
        told = client.status()
        seen = self._eyes.see(told, client.plan().changes, self._clock())
        if seen.moving:
            # The cool-down begins when the last of it is done.
            self._changed_s = seen.now_s
        decision = decide(seen, self._limits, self._changed_s)
        if self._launcher is None:
            return _turn(decision, seen)
        try:
            retired = tuple(self._launcher.retire(told))
            plan = self._act(client, told, decision, self._launcher)
        except KvError as error:
            self._changed_s = self._clock()
            return _turn(decision, seen, problem=error.message)
        return _turn(decision, seen, plan=plan, retired=retired)

    def _act(self, client: Client, told: ClusterReport, decision: Decision, launcher: Launcher) -> str | None:
        """Carry a decision out. The plan that was committed."""
        if decision.do == Do.GROW:
            node = candidate(told)
            if not node:
                launcher.grow(told)
                node = self._shows_up(client)
            return self._commit(client, ChangeKind.JOIN, node)
        if decision.do == Do.SHRINK and decision.node is not None:
            return self._commit(client, ChangeKind.LEAVE, decision.node)
        return None

    def _shows_up(self, client: Client) -> str:
        """The node that was launched, once it is known and empty. Raises `LaunchFailed`."""
        deadline = self._clock() + SHOWS_UP_S
        while not (node := candidate(client.status())):
            if self._clock() > deadline:
                raise LaunchFailed(f"no node showed up within {SHOWS_UP_S:.0f} s of the launch", "kvctl node ls")
            time.sleep(LOOK_S)
        return node

    def _commit(self, client: Client, kind: ChangeKind, node: str) -> str:
        client.stage(kind, node)
        try:
            plan = client.plan()
            if plan.problem or [change.node for change in plan.changes] != [node]:
                raise LaunchFailed(plan.problem or "someone else has staged a change as well")
            client.commit(plan, COMMIT_S)
        except KvError:
            client.clear_staged()
            raise
        self._changed_s = self._clock()
        return plan.id


def candidate(told: ClusterReport) -> str:
    """A node outside that is up, empty, and has never been a member; empty when there is none."""
    former = {member.id for member in told.ring.removed}
    return next(
        (
            o.member.id
            for o in told.outside
            if o.report is not None and not o.report.keys and o.member.id not in former
            and told.ring.member(o.member.id) is None
        ),
        "",
    )  # fmt: skip


def _turn(
    decision: Decision, seen: Seen, plan: str | None = None, retired: tuple[str, ...] = (), problem: str = ""
) -> Turn:
    return Turn(decision, len(seen.members), seen.bytes, seen.ops_per_s, plan, retired, problem)
