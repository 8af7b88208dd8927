"""Anti-entropy: owners of a partition compare hash trees and ship what differs, with nobody reading.

Promises: what either side held when an exchange began, both hold durably when it is done; the cost
follows the difference, not the data; bounded: one message of each exchange is under way at a time.
Never: reads matching data; keeps a half-done exchange from being begun again; merges a register: of one
that differs it tells `regrepair.py`, and ends as if it did not.
Input: TreeCompared, KeysCompared, ReplicaWritten, lost peers, ticks. The other side: `answering.py`.

    root      CompareTree ─► TreeCompared: equal, the exchange is done
    branches  the sixteenths that differ, down to leaves
    keys      CompareKeys (key, digest) ─► KeysCompared: records I lack, keys you want
    records   WriteReplica ─► ReplicaWritten, then ExchangeDone

When exchanges begin, and with whom: `rounds.py`. See Dynamo §4.7.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import msgspec

from kvnode import config
from kvnode.core.exchanges import PREFIX_BYTES, Exchange, Pair, Totals
from kvnode.core.local import Local
from kvnode.core.merkle import FAN_OUT, Span, span_of
from kvnode.core.outbox import Unreadable
from kvnode.core.registers import MARK_BYTES, accepted_in
from kvnode.core.versions import Held
from kvnode.protocol.messages import (
    Accepting,
    CompareKeys,
    CompareTree,
    Dots,
    ExchangeDone,
    ExchangeView,
    KeysCompared,
    ReplicaRefused,
    ReplicaWritten,
    Row,
    SpanHash,
    TreeCompared,
    WriteReplica,
)
from kvnode.protocol.replication import BUSY
from kvnode.protocol.ring import Partition
from kvnode.protocol.types import Millis, NodeId, WallMillis

BATCH = 64
"""Spans whose parts, or whose keys, are compared in one message."""
SPARSE = 4
"""A span of sixteen leaves in which no more than so many hold anything: its keys cost less than its hashes."""


class AntiEntropy:
    """The exchanges of one node."""

    def __init__(self, local: Local, heal: Callable[[bytes, tuple[NodeId, ...]], None]) -> None:
        self._local = local
        self._outbox = local.outbox
        self._heal = heal
        self._active: dict[int, Exchange] = {}
        self._writing: dict[int, Exchange] = {}
        self._second: Millis = 0
        self._spent = 0
        """Bytes since that second began."""
        self.finished: dict[Pair, WallMillis] = {}
        """When, by our wall clock, the last finished exchange of a partition with an owner began."""
        self.totals = Totals()
        self.on_exchanged: Callable[[int, NodeId], None] = _nobody
        """Told of each finished exchange."""
        self.on_register: Callable[[bytes], None] = _no_register
        """Told of each register that is another one on the other side."""
        self.on_busy: Callable[[Pair], None] = _not_now
        """Told of each that was put off: the other side was exchanging the partition with someone else."""

    # ---- beginning -------------------------------------------------------------------------

    def _peers(self, partition: int) -> tuple[NodeId, ...]:
        return self._local.routes.peers[partition] or ()

    def begin(self, pair: Pair) -> None:
        """Begin an exchange of a partition with another owner."""
        local = self._local
        partition, peer = pair
        rid = local.next_rid()
        exchange = Exchange(rid, partition, peer, local.proven_wall, 0.0)
        self._active[rid] = exchange
        root = span_of(partition, local.routes.ring.q)
        exchange.nodes_compared += 1
        known = local.store.tree.hash(root)[:PREFIX_BYTES]
        self._compare(exchange, (SpanHash(root.start, root.size, known),))

    def _compare(self, exchange: Exchange, spans: tuple[SpanHash, ...]) -> None:
        self._wait(exchange)
        # What this turn wrote is in no tree yet; an ack leaves after it is.
        exchange.question += 1
        ask = CompareTree(exchange.rid, exchange.question, self._epoch(exchange), exchange.partition, spans)
        exchange.bytes_sent += sum(8 + len(span.hash) for span in spans)
        self._outbox.ack(exchange.peer, ask)

    def _epoch(self, exchange: Exchange) -> int:
        return self._local.routes.since[exchange.partition]

    def _wait(self, exchange: Exchange) -> None:
        exchange.due = self._local.now + config.EXCHANGE_STEP_MS

    # ---- the side that began ---------------------------------------------------------------

    def _mine(self, sender: NodeId, told: TreeCompared | KeysCompared) -> Exchange | None:
        """The exchange whose question this answers: each is answered once."""
        exchange = self._active.get(told.rid)
        if exchange is None or exchange.peer != sender or exchange.question != told.step:
            self._local.ignore("exchange")
            return None
        exchange.question += 1
        return exchange

    def on_tree_compared(self, sender: NodeId, told: TreeCompared) -> None:
        """Where the other side's tree is different: look deeper, or at the keys."""
        if sender == self._local.me:  # what we took in is durable now, and in our tree
            exchange = self._active.get(told.rid)
            return self._go_on(exchange) if exchange is not None else None
        exchange = self._mine(sender, told)
        if exchange is None:
            return None
        tree = self._local.store.tree
        root = span_of(exchange.partition, self._local.routes.ring.q)
        for branches in told.differing:
            span = Span(branches.start, branches.size)
            parts = span.parts() if span.is_branch_of(root) else []
            if not parts or len(branches.hashes) != PREFIX_BYTES * len(parts):
                return self._fail(exchange, "malformed answer")
            exchange.nodes_compared += len(parts)
            exchange.bytes_sent += len(branches.hashes)
            for i, part in enumerate(parts):
                theirs = branches.hashes[i * PREFIX_BYTES : (i + 1) * PREFIX_BYTES]
                if tree.hash(part)[:PREFIX_BYTES] != theirs:
                    few = part.size == 1 or (part.size <= FAN_OUT and len(tree.held_in(part)) <= SPARSE)
                    (exchange.leaves if few else exchange.spans).append(part)
        return self._go_on(exchange)

    def _go_on(self, exchange: Exchange) -> None:
        """The next step, as soon as the throttle allows it."""
        now = self._local.now
        if now - self._second >= 1_000:
            self._second, self._spent = now, 0
        self._spent += exchange.bytes_sent - exchange.charged
        exchange.charged = exchange.bytes_sent
        if self._spent > self._local.settings.repair_bytes_per_s:
            exchange.parked = True
            return self._wait(exchange)
        return self._step(exchange)

    def _step(self, exchange: Exchange) -> None:
        """Keys of leaves first, so that little is remembered; then deeper; then done."""
        exchange.full = exchange.again
        if exchange.again:
            exchange.again = False
            exchange.leaves[:0] = exchange.asked
            return self._compare_keys(exchange)
        if len(exchange.leaves) >= BATCH or (exchange.leaves and not exchange.spans):
            return self._compare_keys(exchange)
        if exchange.spans:
            exchange.step = "leaves" if exchange.spans[-1].size <= 16 else "branches"
            deeper, exchange.spans = exchange.spans[-BATCH:], exchange.spans[:-BATCH]
            return self._compare(exchange, tuple(SpanHash(span.start, span.size, b"") for span in deeper))
        return self._done(exchange)

    def _compare_keys(self, exchange: Exchange) -> None:
        """List what we hold in the next leaves, as many as one message takes."""
        exchange.step = "keys"
        spans: list[Span] = []
        dots: list[Dots] = []
        registers: list[Accepting] = []
        store = self._local.store
        for span in exchange.leaves[:BATCH]:
            try:
                leaves = store.tree.held_in(span)
                held = [entry for leaf in leaves for entry in store.leaf(leaf)]
                kept = [Accepting(key, ballot) for key, ballot in accepted_in(store, leaves)]
            except Unreadable:
                return self._fail(exchange, "the keys of a leaf cannot be read here")
            if max(len(dots) + len(held), len(registers) + len(kept)) > config.EXCHANGE_KEYS_MAX:
                break
            dots += [Dots(key, h.digest if h is not None else b"") for key, h in held]
            registers += kept
            spans.append(span)
        if not spans:
            return self._fail(exchange, f"more than {config.EXCHANGE_KEYS_MAX} keys in one leaf")
        exchange.asked = tuple(spans)
        del exchange.leaves[: len(spans)]
        exchange.keys_compared += len(dots) + len(registers)
        exchange.bytes_sent += sum(len(d.key) + len(d.digest) for d in dots) + 8 * len(spans)
        exchange.bytes_sent += sum(len(r.key) + MARK_BYTES for r in registers)
        self._wait(exchange)
        exchange.question += 1
        e, epoch = exchange, self._epoch(exchange)
        ask = CompareKeys(e.rid, e.question, epoch, e.partition, e.asked, tuple(dots), e.full, tuple(registers))
        return self._outbox.ack(exchange.peer, ask)

    def on_keys_compared(self, sender: NodeId, told: KeysCompared) -> None:
        """Take in what we lack, ship what the other side wants."""
        exchange = self._mine(sender, told)
        if exchange is None:
            return
        exchange.step = "records"
        exchange.again = told.again
        wanted = set(told.wanted)
        exchange.keys_compared += sum(row.key not in wanted for row in told.rows)  # those we did not list
        exchange.bytes_sent += sum(len(row.key) + len(row.record) for row in told.rows)
        theirs = {}
        for row in told.rows:
            held = self._take_in(exchange, row)
            if held is not None:
                theirs[row.key] = held
        if exchange.partition not in self._local.voteless:
            for key in told.registers:
                self.on_register(key)
        self._ship(exchange, told.wanted, theirs)
        if not exchange.writing:
            self._outbox.ack(self._local.me, TreeCompared(exchange.rid, 0, ()))

    def _take_in(self, exchange: Exchange, row: Row) -> Held | None:
        """Merge a record of theirs. Ours, if it is just that record now: they need not be sent it."""
        local = self._local
        if local.routes.partition(row.key) != exchange.partition:
            local.ignore("exchange_row")
            return None
        try:
            merged = self._outbox.merge(row.key, row.record)
        except msgspec.MsgspecError:
            local.counters["malformed_records"] += 1
            exchange.skipped += 1
            return None
        except Unreadable:
            self._heal(row.key, self._peers(exchange.partition))
            exchange.skipped += 1
            return None
        exchange.keys_repaired += 1
        return merged if merged.blob == row.record else None

    def _ship(self, exchange: Exchange, wanted: tuple[bytes, ...], theirs: dict[bytes, Held]) -> None:
        local = self._local
        until = local.until(exchange.peer)
        size = 0
        for key in wanted:
            if key in theirs or local.routes.partition(key) != exchange.partition:
                continue
            if size >= config.EXCHANGE_BYTES_TARGET:
                exchange.again = True  # what is left shows as a difference again
                break
            try:
                held = self._outbox.read(key)
            except Unreadable:
                held = None
            if held is None:
                continue
            rid = local.next_rid()
            exchange.writing.add(rid)
            self._writing[rid] = exchange
            size += len(key) + len(held.blob)
            exchange.keys_repaired += key not in theirs
            # An ack: it may show what is not durable here yet.
            self._outbox.ack(exchange.peer, WriteReplica(rid, self._epoch(exchange), key, held.blob, until))
        exchange.bytes_sent += size
        self._wait(exchange)

    def on_replica_written(self, sender: NodeId, written: ReplicaWritten) -> bool:
        """The other side holds a record durably. False when it is not one of ours."""
        exchange = self._writing.get(written.rid)
        if exchange is None or exchange.peer != sender:
            return False
        del self._writing[written.rid]
        exchange.writing.discard(written.rid)
        self._wait(exchange)
        if not exchange.writing and exchange.rid in self._active:
            self._go_on(exchange)
        return True

    def on_replica_refused(self, sender: NodeId, refused: ReplicaRefused) -> bool:
        """The other side would not. False when it is not one of ours."""
        exchange = self._writing.get(refused.rid) or self._active.get(refused.rid)
        if exchange is None or exchange.peer != sender:
            return False
        if refused.reason == BUSY and exchange.nodes_compared == 1:
            del self._active[exchange.rid]
            self.totals.bytes_sent += exchange.bytes_sent
            self.on_busy((exchange.partition, exchange.peer))
        else:
            self._fail(exchange, refused.reason)
        return True

    def _done(self, exchange: Exchange) -> None:
        """Both sides hold the same; it counts once what we took in is durable."""
        if exchange.skipped:
            return self._fail(exchange, f"{exchange.skipped} records could not be taken in")
        exchange.step = "done"
        self._wait(exchange)
        over = ExchangeDone(exchange.rid, self._epoch(exchange), exchange.partition)
        self._outbox.ack(self._local.me, over)
        self._outbox.ack(exchange.peer, over)
        return None

    def _finish(self, exchange: Exchange) -> None:
        del self._active[exchange.rid]
        self.totals.add(exchange)
        self.totals.exchanges += 1
        if exchange.keys_repaired:
            self._local.event(
                "repair",
                f"partition {exchange.partition} with {exchange.peer}: {exchange.keys_repaired} of "
                f"{exchange.keys_compared} keys compared differed, {exchange.bytes_sent} bytes sent",
            )
        self.note(exchange.partition, exchange.peer, exchange.began)

    def _fail(self, exchange: Exchange, why: str) -> None:
        if self._active.pop(exchange.rid, None) is None:
            return
        for rid in exchange.writing:
            self._writing.pop(rid, None)
        self.totals.add(exchange)
        self.totals.failed += 1
        partition, peer = exchange.partition, exchange.peer
        self._local.event("repair", f"partition {partition} with {peer} given up at {exchange.step}: {why}")

    # ---- both sides have finished ----------------------------------------------------------

    def on_own_done(self, done: ExchangeDone) -> None:
        """What we took in is durable: the exchange counts."""
        exchange = self._active.get(done.rid)
        if exchange is not None:
            self._finish(exchange)

    def note(self, partition: Partition, peer: NodeId, began: WallMillis) -> None:
        """An exchange that began then is over, whoever began it."""
        self.finished[partition, peer] = began
        self.on_exchanged(partition, peer)

    # ---- time ------------------------------------------------------------------------------

    @property
    def active(self) -> int:
        """Exchanges under way."""
        return len(self._active)

    def views(self) -> tuple[ExchangeView, ...]:
        """How far each has come."""
        return tuple(exchange.view() for exchange in self._active.values())

    @property
    def timed(self) -> bool:
        """Whether an exchange is under way."""
        return bool(self._active)

    @property
    def busy(self) -> bool:
        """Nothing here keeps a client waiting."""
        return False

    def on_peer_lost(self, peer: NodeId) -> None:
        """Exchanges with a peer that cannot be reached are over."""
        for exchange in [e for e in self._active.values() if e.peer == peer]:
            self._fail(exchange, f"{peer} was lost")

    def on_ring(self, changed: Collection[int]) -> None:
        """Some partitions have other owners, or are to: exchanges among those of before prove nothing."""
        for exchange in [e for e in self._active.values() if e.partition in changed]:
            self._fail(exchange, "its owners changed")
        for pair in [pair for pair in self.finished if pair[0] in changed]:
            del self.finished[pair]

    def on_tick(self, now: Millis) -> None:
        """Give up what is overdue, go on with what the throttle held back."""
        if now - self._second >= 1_000:
            for exchange in [e for e in self._active.values() if e.parked]:
                exchange.parked = False
                self._go_on(exchange)
        for exchange in [e for e in self._active.values() if e.due <= now]:
            self._fail(exchange, "no answer")

    def exchanging(self, partition: int) -> bool:
        """Whether an exchange of this partition that we began is under way."""
        return any(exchange.partition == partition for exchange in self._active.values())


def _nobody(_: int, __: NodeId) -> None:
    """Nobody wants to know."""


def _no_register(_: bytes) -> None:
    """Nobody brings it to one."""


def _not_now(_: Pair) -> None:
    """Nobody will try again."""
