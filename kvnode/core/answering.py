"""The other side of an exchange: tell where our tree is different, and what we hold there.

Promises: answers show only what is durable here; an exchange counts here too once it is done.
Never: begins one, or remembers more of one than when it began.
Input: CompareTree, CompareKeys, ExchangeDone. The side that begins: `antientropy.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from kvnode import config
from kvnode.core.exchanges import PREFIX_BYTES, Pair
from kvnode.core.local import Local
from kvnode.core.merkle import Span, span_of
from kvnode.core.outbox import Unreadable
from kvnode.core.registers import accepted_in
from kvnode.protocol.consensus import Ballot
from kvnode.protocol.messages import (
    Branches,
    CompareKeys,
    CompareTree,
    ExchangeDone,
    KeysCompared,
    ReplicaRefused,
    Row,
    TreeCompared,
)
from kvnode.protocol.replication import BUSY, UNREADABLE
from kvnode.protocol.ring import Partition
from kvnode.protocol.types import Millis, NodeId, WallMillis


class Answering:
    """The exchanges that others began with this node."""

    def __init__(
        self,
        local: Local,
        heal: Callable[[bytes, tuple[NodeId, ...]], None],
        note: Callable[[Partition, NodeId, WallMillis], None],
        exchanging: Callable[[int], bool],
    ) -> None:
        self._local = local
        self._outbox = local.outbox
        self._heal = heal
        self._note = note
        self._exchanging = exchanging
        self._began: dict[Pair, tuple[int, WallMillis]] = {}
        """The id of each, and when we first heard of it."""
        self._last: dict[int, tuple[NodeId, Millis]] = {}
        """Partition -> who exchanges it with us, and when we last heard of that."""

    def _peers(self, partition: int) -> tuple[NodeId, ...]:
        return self._local.routes.peers[partition] or ()

    def _shared(self, sender: NodeId, rid: int, partition: int) -> Partition | None:
        """The partition, if this node owns it; else the sender is told. A sender may be one that is to own it, or
        that did: what it has and others lack is brought to them before it is dropped."""
        local = self._local
        if partition < local.routes.ring.q and local.routes.peers[partition] is not None:
            return Partition(partition)
        text = f"partition {partition} is not one of ours together at epoch {local.routes.epoch}"
        self._outbox.send(sender, ReplicaRefused(rid, text))
        return None

    def on_compare_tree(self, sender: NodeId, ask: CompareTree) -> None:
        """Tell where our tree is different."""
        partition = self._shared(sender, ask.rid, ask.partition)
        if partition is None:
            return None
        if self._busy(sender, partition):
            return self._outbox.send(sender, ReplicaRefused(ask.rid, BUSY))
        root = span_of(partition, self._local.routes.ring.q)
        if self._began.get((partition, sender), (0, 0))[0] != ask.rid:
            self._began[partition, sender] = ask.rid, self._local.proven_wall
        tree = self._local.store.tree
        differing = []
        for theirs in ask.spans:
            span = Span(theirs.start, theirs.size)
            if not span.is_branch_of(root):
                return self._local.ignore("exchange_span")
            if tree.hash(span)[:PREFIX_BYTES] != theirs.hash:
                hashes = b"".join(tree.hash(part)[:PREFIX_BYTES] for part in span.parts())
                differing.append(Branches(theirs.start, theirs.size, hashes))
        return self._outbox.ack(sender, TreeCompared(ask.rid, ask.step, tuple(differing)))

    def answering(self, partition: int, but: NodeId | None = None) -> bool:
        """Whether an exchange of this partition, that someone else began, is under way here."""
        peer, heard = self._last.get(partition, (but, 0.0))
        return peer != but and self._local.now - heard < config.EXCHANGE_BUSY_MS

    def _busy(self, sender: NodeId, partition: int) -> bool:
        """Whether this partition is being exchanged with another owner: one after the other costs less."""
        if self._exchanging(partition) or self.answering(partition, sender):
            return True
        self._last[partition] = sender, self._local.now
        return False

    def on_compare_keys(self, sender: NodeId, ask: CompareKeys) -> None:
        """Tell what we hold that the sender lacks, and what we want of it."""
        partition = self._shared(sender, ask.rid, ask.partition)
        if partition is None:
            return None
        root = span_of(partition, self._local.routes.ring.q)
        spans = [Span(*where) for where in ask.spans]
        if not all(span.is_small_part_of(root) for span in spans):
            return self._local.ignore("exchange_leaf")
        theirs = {dots.key: dots.digest for dots in ask.dots}
        rows: list[Row] = []
        wanted: list[bytes] = []
        size, kept_back = 0, False
        store = self._local.store
        try:
            leaves = [leaf for span in spans for leaf in store.tree.held_in(span)]
            ours = [entry for leaf in leaves for entry in store.leaf(leaf)]
            accepted = dict(accepted_in(store, leaves))
        except Unreadable:
            return self._outbox.send(sender, ReplicaRefused(ask.rid, UNREADABLE))
        for key, held in ours:
            digest = theirs.pop(key, None)
            if held is None:
                self._heal(key, self._peers(partition))
            elif digest != held.digest and size < config.EXCHANGE_BYTES_TARGET:
                if digest:
                    wanted.append(key)
                # A digest ends with the time of a single version: of two the later one mostly has seen the
                # other. Whether it has shows when they are compared once more.
                if digest and not ask.full and digest[8:] > held.digest[8:]:
                    kept_back = True
                    continue
                rows.append(Row(key, held.blob))
                size += len(key) + len(held.blob)
        wanted += [key for key, digest in theirs.items() if digest]
        again = kept_back or size >= config.EXCHANGE_BYTES_TARGET
        registers = self._other_registers({r.key: r.accepted for r in ask.registers}, accepted, partition)
        # What is held may not be durable yet: told when it is.
        self._outbox.ack(sender, KeysCompared(ask.rid, ask.step, tuple(rows), tuple(wanted), again, registers))
        return None

    def _other_registers(
        self, theirs: dict[bytes, Ballot], ours: dict[bytes, Ballot], partition: Partition
    ) -> tuple[bytes, ...]:
        """The keys whose register is not the same; none while this node could not take part in a round."""
        if partition in self._local.voteless:
            return ()
        differ = (key for key in sorted(theirs | ours) if theirs.get(key) != ours.get(key))
        return tuple(islice(differ, config.EXCHANGE_KEYS_MAX))

    def on_exchange_done(self, sender: NodeId, done: ExchangeDone) -> None:
        """An exchange is over, on both sides."""
        partition = Partition(done.partition)
        rid, began = self._began.get((partition, sender), (None, 0))
        if rid is None or rid != done.rid:
            return self._local.ignore("exchange_done")
        del self._began[partition, sender]
        self._last.pop(partition, None)
        return self._note(partition, sender, began)
