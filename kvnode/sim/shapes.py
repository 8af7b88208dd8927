"""Operators that change the shape of a world, and a watch over what must hold whatever its shape.

Promises: each change is staged, planned and committed as an operator would, by way of any member that is up, and
tried again until the ring has it; only what was committed is counted. The watch looks at each change of ring, and
once a simulated second. Never: helps a node, or waits for one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from kvnode.core.versions import Held
from kvnode.protocol.messages import (
    AskPlan,
    CancelMoves,
    ChangeKind,
    ClientRequest,
    CommitPlan,
    Committed,
    Message,
    Planned,
    Put,
    StageChange,
    StagedNow,
    Written,
)
from kvnode.protocol.ring import Ring, majority, partition_of
from kvnode.protocol.types import NodeId, Past, Record, Version
from kvnode.sim.case import Reshape
from kvnode.sim.check import Violation
from kvnode.sim.client import Call
from kvnode.sim.clock import START, derive, tenths
from kvnode.sim.history import Dot
from kvnode.sim.story import covers
from kvnode.sim.world import World

AGAIN_MS = (300, 900)
PATIENCE_MS = 3_000
"""An answer that has not come after so long is not waited for: the whole change is tried again."""
TRIES_MAX = 40
WATCH_MS = 1_000
OPERATOR = b"operator"
KINDS = {"join": ChangeKind.JOIN, "leave": ChangeKind.LEAVE, "replace": ChangeKind.REPLACE}


class Operators:
    """The changes of one run."""

    def __init__(self, world: World, changes: Sequence[Reshape]) -> None:
        self._world = world
        self._rng = derive(world.seed, "operators")
        self._over = False
        self.counts: Counter[str] = Counter()
        """How many of each kind were committed."""
        for change in changes:
            world.timeline.at(START + tenths(change.at_ms), self._begin, change)

    def stop(self) -> None:
        """Ask for nothing more."""
        self._over = True

    def _begin(self, change: Reshape) -> None:
        added = change.new if change.kind == "replace" else change.node
        if change.kind in ("join", "replace") and NodeId(added) not in self._world.nodes:
            self._world.add(added)
        self._try(change, TRIES_MAX)

    def _try(self, change: Reshape, tries: int) -> None:
        """One attempt, from the beginning: what is done already is seen in the ring."""
        world, ring = self._world, self._world.ring
        if self._over or not tries or self._done(ring, change):
            return
        self._later(change, tries - 1)
        members = [member.id for member in ring.members if world.serves(member.id)]
        if not members or not self._bearable(ring, change):
            return
        via = self._rng.choice(members)
        if change.kind == "cancel":
            self._ask(via, CancelMoves(self._rid(), PATIENCE_MS), lambda told: self._told(change, told))
            return
        stage = StageChange(self._rid(), KINDS[change.kind], NodeId(change.node), change.new)
        self._ask(via, stage, lambda told: self._staged(via, change, told))

    def _done(self, ring: Ring, change: Reshape) -> bool:
        gone = change.node in ring.leaving or ring.member(NodeId(change.node)) is None
        if change.kind == "join":
            return ring.member(NodeId(change.node)) is not None
        return self.counts["cancel"] > 0 if change.kind == "cancel" else gone

    def _bearable(self, ring: Ring, change: Reshape) -> bool:
        return change.kind != "leave" or len(ring.members) - len(ring.leaving) > ring.n

    def _later(self, change: Reshape, tries: int) -> None:
        self._world.timeline.after(tenths(self._rng.randint(*AGAIN_MS)), self._try, change, tries)

    def _rid(self) -> int:
        return self._world.clients.next_number()

    def _ask(self, via: NodeId, ask: ClientRequest, then: Callable[[Message], None]) -> None:
        self._world.clients.question(OPERATOR, via, ask, then)

    def _staged(self, via: NodeId, change: Reshape, told: Message) -> None:
        if isinstance(told, StagedNow):
            self._ask(via, AskPlan(self._rid()), lambda told: self._planned(via, change, told))

    def _planned(self, via: NodeId, change: Reshape, told: Message) -> None:
        if isinstance(told, Planned) and not told.plan.problem:
            commit = CommitPlan(self._rid(), told.plan.id, PATIENCE_MS)
            self._ask(via, commit, lambda told: self._told(change, told))

    def _told(self, change: Reshape, told: Message) -> None:
        if isinstance(told, Committed):
            self.counts[change.kind] += 1


Copies = dict[tuple[NodeId, NodeId], Held]
"""Of one key, by place and holder.

A place is an owner's, or that of whom a hint is kept for: a node that came in the place of one owner while it
stands in for another holds two (seed 600135).
"""

Places = dict[NodeId, list[Record]]
"""Of one key, the copies in each place."""


class Watch:
    """Copies are owned: looked at while everything goes on."""

    def __init__(self, world: World, *, lost: int = 0) -> None:
        """`lost`: how many copies of a write may be gone for good: a disk was wiped, a node replaced."""
        self._world = world
        self._lost = lost
        # A write that is older may be covered by a tombstone that is gone itself.
        self._forgotten = tenths(world.settings.grace_ms * 4 // 5)
        self._looked = self._asked = 0
        self._acked: dict[bytes, list[Call]] = {}
        self._fine: dict[bytes, Copies] = {}
        """What was held of a key at the last look: unless that or its acknowledgements change, it is well."""
        self._pasts: dict[bytes, dict[Dot, Past]] = {}
        """Of each version that was acknowledged or seen: a past that was pruned is told by those in between."""
        self._deleted: set[bytes] = set()
        """Keys that someone asked to delete: once reaped, nothing is left of them, nor of what that covered."""
        self.found: list[Violation] = []
        self._rings: dict[int, Ring] = {}
        self._coming: dict[int, NodeId] = {}
        """Who is to own a partition next."""
        world.on_ring = self._on_ring
        world.timeline.after(tenths(WATCH_MS), self._each_second)

    def _each_second(self) -> None:
        self.look()
        self._world.timeline.after(tenths(WATCH_MS), self._each_second)

    def _on_ring(self, ring: Ring) -> None:
        for partition, owners in enumerate(ring.owners):
            if len(set(owners)) != len(owners) or not owners:
                self._tell(b"", f"epoch {ring.epoch}: the owners of partition {partition} are {owners}")
        before = self._rings.setdefault(ring.epoch, ring)
        if before != ring:
            self._tell(b"", f"two rings of epoch {ring.epoch} were chosen")
        self.look()

    def _tell(self, key: bytes, text: str) -> None:
        if len(self.found) < 20:
            self.found.append(Violation("copies_are_owned", key, text))

    def look(self) -> None:
        """Every acknowledged write is in W places: with its owners, kept for them, or not handed to them yet."""
        world = self._world
        calls = world.clients.calls
        moves = world.ring.moves
        self._coming = {m.partition: step.gained for m in moves if (step := world.ring.step(m)).gained}
        puts = (call.ask for call in calls[self._asked :] if isinstance(call.ask, Put))
        self._deleted.update(ask.key for ask in puts if ask.value is None or ask.ttl_ms)
        self._asked = len(calls)
        for call in calls[self._looked :]:
            if not call.done():
                break
            self._looked += 1
            if isinstance(call.result, Written) and call.ask.rid == call.result.rid:
                self._acked.setdefault(call.written_key, []).append(call)
                self._fine.pop(call.written_key, None)
                self._saw(call.written_key, (call.written,))
        kept = self._kept()
        for key, acked in self._acked.items():
            there = self._owned(key) | kept.get(key, {})
            if self._fine.get(key) == there:
                continue
            if key in self._deleted and not there:
                continue  # reaped; an owner whose clock is ahead may do so early
            del acked[:-8]  # the others are covered by these, or beside them
            self._fine[key] = there
            places = self._places(key, there)
            for call in acked:
                if call.replied is None or world.timeline.now - call.replied <= self._forgotten:
                    self._judge(key, call.written, there, places)

    def _judge(self, key: bytes, told: Written, there: Copies, places: Places) -> None:
        """Whether a write is in as many places as it is owed."""
        need, have = self._owed(key, told), self._count(key, told, places)
        if have < need and told.acked < majority(self._world.ring.n):
            # The place of a node that was down was given away by a majority, none of which knew of this. Its copy
            # counts until it is dropped, for by then it has been handed over: to be looked at again.
            self._fine.pop(key, None)
            have = self._count(key, told, self._places(key, there | self._left_over(key)))
        if have < need:
            self._tell(key, f"{told} is in {have} places, at epoch {self._world.ring.epoch}")

    def _owed(self, key: bytes, told: Written) -> int:
        """In how many places a write is to be: as many as acknowledged it, or as few as its key had owners since.

        Operators may leave fewer members than n, and are warned (seed 7006017).
        """
        partition = partition_of(key, self._world.ring.q)
        owners = (len(ring.owners[partition]) for ring in self._rings.values() if ring.epoch >= told.epoch)
        return min((told.acked, *owners)) - self._lost

    def _places(self, key: bytes, there: Copies) -> Places:
        """The copies by place."""
        places: Places = {}
        for (place, _), held in there.items():
            record = held.record()
            places.setdefault(place, []).append(record)
            self._saw(key, record)
        return places

    def _count(self, key: bytes, told: Written, places: Places) -> int:
        """In how many places a write is, or is covered."""
        dot = Dot(told.actor, told.time)
        return sum(any(self._shows(key, record, dot) for record in copies) for copies in places.values())

    def _left_over(self, key: bytes) -> Copies:
        """What members that are no owners of a key durably hold of it."""
        owners = self._world.owners(key)
        names = (member.id for member in self._world.ring.members if member.id not in owners)
        disks = {name: self._world.nodes[name].disk for name in names}
        return {(name, name): held for name, disk in disks.items() if (held := disk.holds_as(key)) is not None}

    def _kept(self) -> dict[bytes, Copies]:
        """All hints that are durable, by key."""
        kept: dict[bytes, Copies] = {}
        for member in self._world.ring.members:
            for (owner, key), hint in self._world.nodes[member.id].disk.hinted.items():
                kept.setdefault(key, {})[owner, member.id] = hint.held
        return kept

    def _owned(self, key: bytes) -> Copies:
        """What its owners, of now and next, durably hold of a key."""
        ring, nodes = self._world.ring, self._world.nodes
        partition = partition_of(key, ring.q)
        owners = ring.owner_ids(partition)
        if partition in self._coming:
            owners += (self._coming[partition],)
        return {(owner, owner): held for owner in owners if (held := nodes[owner].disk.holds_as(key)) is not None}

    def _saw(self, key: bytes, versions: Iterable[Version | Written]) -> None:
        pasts = self._pasts.setdefault(key, {})
        for version in versions:
            pasts[Dot(version.actor, version.time)] = version.past

    def _shows(self, key: bytes, record: Record, dot: Dot) -> bool:
        """Whether a version is there, or covered: at once, or by way of versions that were there."""
        actor, time = dot
        for version in record:
            if version.past.get(actor, 0) >= time or (version.actor == actor and version.time == time):
                return True
        # What covers a version is later than it.
        found = {Dot(version.actor, version.time) for version in record if version.time > time}
        if not found:
            return False
        pasts, unseen = self._pasts[key], list(found)
        later = [known for known in pasts if known.time > time]
        while unseen:
            past = pasts[unseen.pop()]
            if covers(past, dot):
                return True
            behind = [known for known in later if known not in found and covers(past, known)]
            found.update(behind)
            unseen += behind
        return False
