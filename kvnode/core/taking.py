"""Taking over: what a node does to hold a partition that it is to own next.

Promises: a partition is told to be ready once all that its source held under the pending epoch is here, durably,
and an exchange with it that began after the copy is finished; with the source's node dead, from every old owner
that is up, at least a majority, and from the source too if it is back before the flip. Goes on where it was after
a crash of either side.
Never: more bytes a second than the throttle lets through; in the way of foreground work: the slower batches come,
the fewer are asked for.
Input: Batch, finished exchanges, refusals, rings, ticks. The side that gives: `giving.py`.

    fence    the source, and a majority of the old owners, hold the pending epoch: no older write gets in any more
    copy     AskBatch ─► Batch ─► merged, committed ─► the next, leaf by leaf
    prove    an exchange: what the source held when it began is here when it is over
    ready    MovesReady ─► the member that proposes the flip

Why one pass under the fence is enough: from then on whoever writes has W in the old owners and in the next ones.
Registers are copied as they were accepted, never merged: what is chosen later has its majority among the next.
See ARCHITECTURE "Changing shape", LESSONS 2.10, PROTOCOL-CASES 15.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec import Struct

from kvnode.core.consensus import Register, adopt, decode_register, encode_register
from kvnode.core.floors import raise_floor
from kvnode.core.local import Local
from kvnode.core.merkle import span_of
from kvnode.core.outbox import Unreadable
from kvnode.core.pace import Pace
from kvnode.core.rules import one_version
from kvnode.protocol.consensus import NO_BALLOT
from kvnode.protocol.messages import AskBatch, Batch, KeptRegister, MovesReady, ReplicaRefused
from kvnode.protocol.ring import Partition, majority
from kvnode.protocol.types import Millis, NodeId

TAKE = "take:"
"""Fact: how far a partition has come."""
ACTIVE_MAX = 2
"""Partitions taken over at once; the others wait, but for none that waits itself."""
REST = 2.0
"""How many times as long as a batch took is for others before the next one of that partition."""
STEP_MS = 3_000
"""A batch that has not come after so long is asked for again."""
RETRY_MS = 250
"""...an exchange that did not come to its end, and what is looked for until it is there, after so long."""
REFUSED_MS = 1_000
"""...a batch that its source cannot give now."""
READY_MS = 300
"""How often it is said what is ready."""


class Kept(Struct, frozen=True, array_like=True):
    """What is remembered of a partition across a crash."""

    since: int
    leaves: dict[NodeId, int]
    """Source -> the leaf its copy goes on from."""
    held: bool
    proven: tuple[NodeId, ...] = ()
    """With whom an exchange that began after the copy is finished: what it brought is durable, and stays so."""


class Taken(Struct, gc=False):
    """A partition on its way here."""

    partition: Partition
    since: int
    end: int
    """The leaf after its last."""
    leaves: dict[NodeId, int]
    proven: set[NodeId]
    rid: int = 0
    """Of the batch that is waited for; 0 while none is."""
    asked_at: Millis = 0
    proving: NodeId | None = None
    due: Millis = 0
    """When the step under way is begun again; until then there is nothing to do."""
    bytes_left: int = 0
    noted: bool = False
    """All is here, and that is on its way to the disk."""
    ready: bool = False
    """All is here, and that is durable."""
    held: bool = False
    """It was once: a flip that is under way may come though the source is asked too by now."""
    waiting: str = ""
    """What it waits for."""


class Taking:
    """The partitions that come to this node."""

    def __init__(self, local: Local) -> None:
        self._local = local
        self._outbox = local.outbox
        self.pace = Pace(local.settings.transfer_bytes_per_s)
        self._taken: dict[int, Taken] = {}
        self._asked: dict[int, Taken] = {}
        self._next_ready: Millis = 0
        self.finished = 0
        """Partitions taken over, of this boot."""
        self.epoch_of: Callable[[NodeId], int] = lambda _: 0
        """The epoch a member is known to hold durably."""
        self.down: Callable[[NodeId], bool] = lambda _: False
        """Whether a member is down, by more than one opinion."""
        self.prove: Callable[[Partition, NodeId], bool] = lambda _, __: False
        """Begins an exchange. False where one of that partition is under way."""
        self.steward: Callable[[], NodeId] = lambda: local.me
        """Who proposes what is ready."""
        self.on_ring()

    # ---- what is to come -------------------------------------------------------------------

    def on_ring(self) -> None:
        """Another ring is held: what is to come here now, and how far it had come."""
        local, routes = self._local, self._local.routes
        wanted = {p: routes.since[p] for p in routes.pending if local.me in routes.takers(p)}
        for p, taken in list(self._taken.items()):
            if wanted.get(p) != taken.since:
                self._asked.pop(taken.rid, None)
                self.finished += p not in wanted and local.me in routes.owners[p]
                del self._taken[p]
                self._outbox.note(f"{TAKE}{p}", b"")
        for p, since in wanted.items():
            if p not in self._taken:
                self._taken[p] = self._begin(Partition(p), since)

    def _begin(self, partition: Partition, since: int) -> Taken:
        span = span_of(partition, self._local.routes.ring.q)
        fact = self._outbox.fact(f"{TAKE}{partition}")
        kept = msgspec.msgpack.decode(fact, type=Kept) if fact else Kept(since, {}, held=False)
        if kept.since != since:
            kept = Kept(since, {}, held=False)
        return Taken(
            partition, since, span.start + span.size, dict(kept.leaves), set(kept.proven),
            noted=kept.held, ready=kept.held, held=kept.held,
        )  # fmt: skip

    def proven(self, partition: int) -> bool:
        """Whether this disk holds a partition that was to come here."""
        taken = self._taken.get(partition)
        return taken is not None and taken.held

    def _sources(self, taken: Taken) -> list[NodeId]:
        """Whose copy is needed; none while there are too few, and then why."""
        local, routes = self._local, self._local.routes
        old, lost = routes.owners[taken.partition], routes.pending[taken.partition].lost
        if lost is not None and not self.down(lost):
            sources = [lost]
        else:
            sources = [o for o in old if o not in (local.me, lost) and not self.down(o)]
            if len(sources) + (local.me in old) < majority(len(old)):
                taken.waiting = f"{lost or 'an owner'} is down, and too few of the other owners are up"
                return []
        behind = [o for o in sources if self.epoch_of(o) < taken.since]
        fenced = sum(o == local.me or self.epoch_of(o) >= taken.since for o in old)
        if behind or fenced < majority(len(old)):
            taken.waiting = f"{', '.join(behind) or 'a majority of the owners'}: not on epoch {taken.since} yet"
            return []
        taken.waiting = ""
        return sources

    # ---- step by step ----------------------------------------------------------------------

    def on_tick(self, now: Millis) -> None:
        """Go on with a few; say what is ready."""
        if not self._taken:
            return
        active = 0
        for taken in self._taken.values():
            if active >= ACTIVE_MAX:
                break
            if not taken.noted:
                active += not taken.waiting
                if now >= taken.due:
                    self._step(taken, now)
        if now >= self._next_ready:
            self._next_ready = now + READY_MS
            withdrawn = self._withdraw(now)
            ready = tuple((p, taken.since) for p, taken in self._taken.items() if taken.ready)
            if ready or withdrawn:
                self._outbox.send(self.steward(), MovesReady(ready))

    def _withdraw(self, now: Millis) -> bool:
        """Where the source was down, and is back: what it alone acknowledged is to be here before the flip."""
        pending = self._local.routes.pending
        withdrawn = False
        for p, taken in self._taken.items():
            lost = pending[p].lost
            if lost is None or lost in taken.proven or not taken.noted or not taken.proven or self.down(lost):
                continue
            taken.noted = taken.ready = False
            taken.leaves[lost] = taken.end  # the others' copies are here: an exchange brings what they lack
            taken.due = now
            withdrawn = True
        return withdrawn

    def _step(self, taken: Taken, now: Millis) -> None:
        self._asked.pop(taken.rid, None)
        taken.rid = 0
        sources = self._sources(taken)
        if not sources:
            taken.due = now + RETRY_MS
            return
        start = span_of(taken.partition, self._local.routes.ring.q).start
        for source in sources:
            if taken.leaves.get(source, start) < taken.end:
                taken.proving = None
                if self.pace.may(now):
                    self._ask(taken, source, taken.leaves.get(source, start))
                return
        for source in sources:
            if source not in taken.proven:
                # One that was put off or given up is begun anew; while it goes on, another one cannot begin.
                taken.due = now + RETRY_MS
                if self.prove(taken.partition, source):
                    taken.proving = source
                return
        self._note(taken, held=True)
        taken.noted = True
        noted = tuple((p, taken.since) for p, taken in self._taken.items() if taken.noted)
        self._outbox.ack(self._local.me, MovesReady(noted))

    def _ask(self, taken: Taken, source: NodeId, leaf: int) -> None:
        now = self._local.now
        taken.rid, taken.asked_at, taken.due = self._local.next_rid(), now, now + STEP_MS
        self._asked[taken.rid] = taken
        self._outbox.send(source, AskBatch(taken.rid, taken.since, taken.partition, leaf, self.pace.batch))

    def _note(self, taken: Taken, *, held: bool) -> None:
        kept = Kept(taken.since, taken.leaves, held, tuple(sorted(taken.proven)))
        self._outbox.note(f"{TAKE}{taken.partition}", msgspec.msgpack.encode(kept))

    # ---- what arrives ----------------------------------------------------------------------

    def on_batch(self, sender: NodeId, batch: Batch) -> None:
        """Some leaves of a source."""
        taken = self._asked.pop(batch.rid, None)
        if taken is None or self._taken.get(taken.partition) is not taken:
            return self._local.ignore("batch")
        taken.rid = 0
        now = self._local.now
        if not self._take_in(taken, batch):
            taken.due = now + RETRY_MS
            return None
        size = sum(len(row.key) + len(row.record) for row in batch.rows)
        size += sum(len(row.key) + len(row.record) for row in batch.registers)
        self.pace.count(now, size, now - taken.asked_at)
        taken.bytes_left = batch.bytes_left
        taken.leaves[sender] = batch.leaf
        self._note(taken, held=taken.held)
        # The next once this is durable: as fast as this disk is, and no faster.
        self._outbox.ack(self._local.me, AskBatch(batch.rid, taken.since, taken.partition, batch.leaf, 0))
        return None

    def on_own_batch(self, done: AskBatch) -> None:
        """What a batch brought is durable. The next waits for longer than this one took: that time is others'."""
        taken = self._taken.get(done.partition)
        if taken is not None and taken.since == done.epoch and not taken.rid:
            took = self._local.now - taken.asked_at
            self.pace.durable(took)
            taken.due = self._local.now + REST * took

    def _take_in(self, taken: Taken, batch: Batch) -> bool:
        """Merge versions, adopt registers. False where a copy here is damaged: it is mended first."""
        partition = self._local.routes.partition
        try:
            for row in batch.rows:
                if partition(row.key) == taken.partition:
                    self._outbox.merge(row.key, row.record)
            for register in batch.registers:
                if partition(register.key) == taken.partition:
                    self._adopt(register)
        except Unreadable:
            self._local.counters["unreadable"] += 1
            return False
        except msgspec.MsgspecError:
            self._local.counters["malformed_records"] += 1
            return False
        if batch.floor != NO_BALLOT:
            raise_floor(self._outbox, taken.partition, batch.floor)
        return True

    def _adopt(self, theirs: KeptRegister) -> None:
        """What the source promised and accepted binds this node too: it is to stand in its place."""
        if theirs.record and not one_version(theirs.record):
            self._local.counters["malformed_records"] += 1
            return
        mine = decode_register(self._outbox.register(theirs.key))
        adopted = adopt(mine, theirs.accepted, theirs.record)
        adopted = Register(max(adopted.promised, theirs.promised), adopted.accepted, adopted.value)
        if adopted != mine:
            self._outbox.keep_register(theirs.key, encode_register(adopted))

    def on_exchanged(self, partition: int, peer: NodeId) -> None:
        """An exchange is over: it proves the copy, if it began after it."""
        taken = self._taken.get(partition)
        if taken is not None and taken.proving == peer:
            taken.proven.add(peer)
            taken.proving, taken.due = None, self._local.now

    def on_own_ready(self, done: MovesReady) -> None:
        """That all is here is durable: the flip may come."""
        for partition, since in done.partitions:
            taken = self._taken.get(partition)
            if taken is not None and taken.since == since and taken.noted:
                taken.ready = taken.held = True
                self._next_ready = 0

    def on_replica_refused(self, sender: NodeId, refused: ReplicaRefused) -> bool:
        """A source cannot tell now. False when that was not asked here."""
        taken = self._asked.pop(refused.rid, None)
        if taken is None:
            return False
        taken.rid, taken.due = 0, self._local.now + REFUSED_MS
        taken.waiting = f"{sender}: {refused.reason}"
        return True

    # ---- how it stands ---------------------------------------------------------------------

    @property
    def left(self) -> int:
        """Partitions that are to come, and are not here yet."""
        return sum(not taken.ready for taken in self._taken.values())

    @property
    def bytes_left(self) -> int:
        """Of those under way, as far as their sources have told."""
        return sum(taken.bytes_left for taken in self._taken.values() if not taken.ready)

    @property
    def waiting(self) -> str:
        """What the first that waits, waits for."""
        return next((t.waiting for t in self._taken.values() if t.waiting and not t.ready), "")

    @property
    def timed(self) -> bool:
        """Whether anything is to come."""
        return bool(self._taken)
