"""The steward: proposes what is due: flips of partitions that are ready, members that may go, operators' plans.

Promises: a step of a move is proposed only when everyone who takes the partition over has said, as of its present
epoch, that all of it is there; all that are ready at one time share one epoch; a member goes only when it owns
nothing, keeps no hint and has no copy left, or was replaced and is down.
Never: decides: that takes a majority (`decree.py`), so two stewards at a time do no harm.
Input: CommitPlan, CancelMoves, StageChange, ClearStaged, AskPlan, MovesReady, ticks.

The first member that is up, in the order of the ring, is the steward; whoever an operator asks proposes plans.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from msgspec.structs import replace

from kvnode.core.local import Local
from kvnode.core.plan import newcomer_problem, plan_of
from kvnode.core.ports import Chooser, Newcomers, StagedSet
from kvnode.core.shape import cancelled, departed, flipped, idle
from kvnode.protocol.messages import (
    AskPlan,
    CancelMoves,
    Change,
    ChangeKind,
    ClearStaged,
    CommitPlan,
    Committed,
    Error,
    Failed,
    MovesReady,
    Plan,
    Planned,
    StageChange,
    StagedNow,
)
from kvnode.protocol.ring import Member, Ring, majority
from kvnode.protocol.types import Address, Millis, NodeId

LOOK_MS = 100
GATHER_MS, GATHER_PARTITIONS = 10_000, 16
"""What becomes ready within so long flips together, and all that is left at once; a millisecond longer for each so
many partitions there are. An epoch makes some fifteen requests of a busy cluster wait for tens of milliseconds."""
DECIDE_MS = 10_000
"""An operator waits for a decision no longer."""
BRANCH_BITS = 31


class Word(NamedTuple):
    """What a member said of itself last, as far as this node has heard."""

    epoch: int
    oldest_hint: int
    """0 while it keeps none, and has no copy it does not own."""
    up: bool
    down: bool


class Steward:
    """What one node proposes."""

    def __init__(self, local: Local, decree: Chooser, staging: StagedSet, outsiders: Newcomers) -> None:
        self._local = local
        self._outbox = local.outbox
        self._decree = decree
        self._staging = staging
        self._outsiders = outsiders
        self._ready: dict[NodeId, dict[int, int]] = {}
        """Taker -> partition -> as of which epoch of it all is there."""
        self._first_ready: Millis = 0
        self._planned: tuple[Ring, tuple[Change, ...], Plan] | None = None
        self._next: Millis = 0
        self._absent: frozenset[NodeId] = frozenset()
        """Those that are to receive something and are down, as it was told last."""
        self.word: Callable[[NodeId], Word] = lambda _: Word(0, 0, up=False, down=False)
        """What a member said of itself last, this one too."""
        self.force: Callable[[Ring], None] = lambda _: None
        """Has everyone it names hold a ring that nobody chose."""

    # ---- what operators ask ----------------------------------------------------------------

    def on_stage(self, client: Address, ask: StageChange) -> None:
        """Stage a change, if it could be made."""
        ring = self._local.routes.ring
        named = self._outsiders.named(ask.new if ask.kind == ChangeKind.REPLACE else ask.node)
        change = Change(ask.kind, ask.node, named if ask.kind in (ChangeKind.JOIN, ChangeKind.REPLACE) else None)
        problem = self._problem_with(ring, ask, named)
        if problem:
            return self._refuse(client, ask.rid, Error.INVALID, problem, "kvctl node ls")
        self._staging.stage(change)
        return self._tell_staged(client, ask.rid)

    def _problem_with(self, ring: Ring, ask: StageChange, named: Member | None) -> str:
        if not self._local.routes.is_member:
            return f"{self._local.me} is no member of this cluster: ask one that is"
        if ask.kind == ChangeKind.JOIN or ask.kind == ChangeKind.REPLACE:
            new = ask.new if ask.kind == ChangeKind.REPLACE else ask.node
            known = ring.member(NodeId(new)) or next((m for m in ring.removed if m.id == new), None)
            if known is None and named is None:
                return f"{new} is not known here: start it with --join, and see that it is up"
            problem = newcomer_problem(ring, known or named)
            if problem:
                return problem
        if ask.kind != ChangeKind.JOIN and ring.member(ask.node) is None:
            return f"{ask.node} is no member"
        if ask.kind in (ChangeKind.LEAVE, ChangeKind.REPLACE) and ask.node in ring.leaving:
            return f"{ask.node} is leaving already"
        return ""

    def on_clear(self, client: Address, ask: ClearStaged) -> None:
        """Forget what is staged."""
        self._staging.clear()
        self._tell_staged(client, ask.rid)

    def _tell_staged(self, client: Address, rid: int) -> None:
        self._outbox.ack(client, StagedNow(rid, self._local.routes.epoch, self._staging.changes()))

    def _plan(self) -> Plan:
        """The plan of now; made once for a ring and a staged set: of a thousand members it takes a second."""
        ring, changes = self._local.routes.ring, self._staging.changes()
        if self._planned is None or self._planned[0] is not ring or self._planned[1] != changes:
            self._planned = ring, changes, plan_of(ring, changes)
        return self._planned[2]

    def on_ask_plan(self, client: Address, ask: AskPlan) -> None:
        """What would be done."""
        self._outbox.send(client, Planned(ask.rid, self._plan()))

    def on_commit(self, client: Address, ask: CommitPlan) -> None:
        """Have the plan decided, if it is still the plan."""
        plan = self._plan()
        if plan.id != ask.plan:
            text = f"plan {ask.plan} is not what would be done now: the epoch, or what is staged, is another"
            return self._refuse(client, ask.rid, Error.CONFLICT, text, "kvctl cluster plan")
        problem = plan.problem or next(filter(None, map(self._not_yet, plan.changes)), "")
        if problem:
            return self._refuse(client, ask.rid, Error.REFUSED, problem, "kvctl cluster plan")
        if any(change.kind == ChangeKind.FORCE_REMOVE for change in plan.changes):
            return self._force(client, ask.rid, plan.ring)
        return self._propose(client, ask.rid, plan.ring, ask.timeout_ms)

    def _not_yet(self, change: Change) -> str:
        return self._outsiders.problem_with(change.member) if change.member is not None else ""

    def on_cancel(self, client: Address, ask: CancelMoves) -> None:
        """Have what is pending given up."""
        ring = self._local.routes.ring
        if not ring.moves and not ring.leaving:
            return self._refuse(client, ask.rid, Error.CONFLICT, "nothing is pending", "kvctl status")
        return self._propose(client, ask.rid, cancelled(ring), ask.timeout_ms)

    def _propose(self, client: Address, rid: int, ring: Ring, timeout_ms: int) -> None:
        def then(error: Error | None, why: str) -> None:
            if error is None:
                self._outbox.ack(client, Committed(rid, ring.epoch))
            else:
                self._refuse(client, rid, error, why, "kvctl status")

        self._decree.propose(ring, min(timeout_ms or DECIDE_MS, DECIDE_MS), then)

    def _refuse(self, client: Address, rid: int, error: Error, why: str, hint: str) -> None:
        maybe = error == Error.INDETERMINATE
        self._outbox.send(client, Failed(rid, self._local.routes.epoch, error, why, hint, maybe))

    def _force(self, client: Address, rid: int, ring: Ring) -> None:
        """Begin a new branch with those who are left: the way out once a majority is lost, and no other way."""
        local = self._local
        out = local.peers.suspected
        members = local.routes.members
        reach = sum(member not in out for member in members)
        if reach >= majority(len(members)):
            text = f"{reach} of {len(members)} members can be reached, a majority: use leave or replace"
            return self._refuse(client, rid, Error.REFUSED, text, "kvctl cluster clear")
        stay = [member.id for member in ring.members]
        silent = [m for m in stay if m in out or self.word(m).epoch != local.routes.epoch]
        if silent or local.me not in stay:
            who = ", ".join(silent) or local.me
            text = f"{who} would stay, and cannot be reached or is on another epoch: remove it too, or wait for it"
            return self._refuse(client, rid, Error.UNAVAILABLE, text, "kvctl status")
        branch = local.rng.getrandbits(BRANCH_BITS) or 1
        # Others may have gone further than this node knows: no epoch of theirs is to look like one of ours.
        forced = replace(ring, branch=branch)
        local.event("branch", f"an operator removed members by force: branch {branch} begins")
        self.force(forced)
        return self._outbox.ack(client, Committed(rid, forced.epoch))

    # ---- what is due -----------------------------------------------------------------------

    def on_moves_ready(self, sender: NodeId, told: MovesReady) -> None:
        """A member holds all of these partitions, and of no other that it is to own next."""
        if not any(self._ready.values()):
            self._first_ready = self._local.now
        self._ready[sender] = self._current(dict(told.partitions))

    def _current(self, told: dict[int, int]) -> dict[int, int]:
        """Those that are of the present epoch of their partition."""
        since = self._local.routes.since
        return {p: epoch for p, epoch in told.items() if p < len(since) and since[p] == epoch}

    def is_steward(self) -> bool:
        """Whether this node is to propose what is due: the first member that is up."""
        return self.steward() == self._local.me

    def steward(self) -> NodeId:
        """Who is to propose what is due, as this node sees it."""
        local = self._local
        up = [m for m in local.routes.members if m == local.me or m not in local.peers.suspected]
        staying = [m for m in up if m not in local.routes.leaving]
        return (staying or up or [local.me])[0]

    def on_ring(self) -> None:
        """Another ring is held: what was ready for the last one, is not by that for this one."""
        ready = {taker: self._current(told) for taker, told in self._ready.items()}
        self._ready = {taker: told for taker, told in ready.items() if told}
        if not self._local.routes.pending:
            self._absent = frozenset()

    @property
    def timed(self) -> bool:
        """Whether something may be due."""
        ring = self._local.routes.ring
        return bool(ring.moves or ring.leaving)

    def on_tick(self, now: Millis) -> None:
        """Propose what is due."""
        if now < self._next or not self.timed:
            return
        self._next = now + LOOK_MS
        if not self._local.routes.is_member or not self.is_steward():
            return
        self._tell_absent()
        if self._decree.busy:
            return
        ring = self._local.routes.ring
        flips = self._flips()
        if flips and (len(flips) == len(ring.moves) or now - self._first_ready >= self._gather_ms):
            self._decree.propose(flipped(ring, flips), DECIDE_MS, self._decided)
        elif not flips:
            gone = [node for node in idle(ring) if self._may_go(ring, node)]
            if gone:
                self._local.event("leave", f"{', '.join(gone)} owns nothing and keeps nothing: it goes")
                self._decree.propose(departed(ring, gone), DECIDE_MS, self._decided)

    def _tell_absent(self) -> None:
        """Say whom transfers wait for, once; and once it is over."""
        routes = self._local.routes
        takers = [taker for p in routes.pending for taker in routes.takers(p)]
        absent = frozenset(taker for taker in takers if self.word(taker).down)
        for node in sorted(absent - self._absent):
            text = f"{takers.count(node)} partitions wait for {node}, which is to own them next and is down"
            self._local.event("moves", f"{text}: start it, or `cluster cancel`")
        for node in sorted(self._absent - absent):
            self._local.event("moves", f"{node} is waited for no more")
        self._absent = absent

    @property
    def _gather_ms(self) -> int:
        return GATHER_MS + self._local.routes.ring.q // GATHER_PARTITIONS

    def _flips(self) -> set[int]:
        routes = self._local.routes
        return {
            p
            for p in routes.pending
            if all(self._ready.get(taker, {}).get(p) == routes.since[p] for taker in routes.takers(p))
        }

    def _may_go(self, ring: Ring, node: NodeId) -> bool:
        word = self.word(node)
        if word.up and word.epoch == ring.epoch and not word.oldest_hint:
            return True
        return node in ring.lost and word.down

    def _decided(self, error: Error | None, why: str) -> None:
        if error not in (None, Error.CONFLICT):
            self._local.event("decree", why)
