"""Giving: what an owner of a partition tells those who take it over.

Promises: a batch is all that is held in its leaves, versions and registers, and leaves once that is durable.
Never: tells of a partition that it is not sure to hold whole, or that it does not own.
Input: AskBatch. The side that takes: `taking.py`.
"""

from __future__ import annotations

from collections.abc import Callable

from kvnode.core.consensus import decode_register
from kvnode.core.floors import floor_of
from kvnode.core.local import Local
from kvnode.core.merkle import Span, span_of
from kvnode.core.outbox import Unreadable
from kvnode.protocol.messages import AskBatch, Batch, KeptRegister, ReplicaRefused, Row
from kvnode.protocol.replication import RECOVERING, UNREADABLE
from kvnode.protocol.ring import Partition
from kvnode.protocol.types import NodeId

BATCH_KEYS_MAX = 48
"""A leaf is looked up after the other: more in one turn would keep its other requests waiting."""


class Giving:
    """What this node gives."""

    def __init__(self, local: Local, heal: Callable[[bytes, tuple[NodeId, ...]], None]) -> None:
        self._local = local
        self._outbox = local.outbox
        self._heal = heal
        self.bytes_sent = 0

    def on_ask_batch(self, sender: NodeId, ask: AskBatch) -> None:
        """Tell what is held in the next leaves, as many as the sender wants bytes."""
        local, q = self._local, self._local.routes.ring.q
        peers = local.routes.peers[ask.partition] if ask.partition < q else None
        span = span_of(Partition(min(ask.partition, q - 1)), q)
        if peers is None or not span.start <= ask.leaf <= span.start + span.size:
            return self._refuse(sender, ask.rid, "not an owner of that partition")
        if ask.partition in local.recovering:
            return self._refuse(sender, ask.rid, RECOVERING)
        if ask.partition in local.voteless:
            return self._refuse(sender, ask.rid, "its registers were lost, and are not here again")
        try:
            batch = self._batch(ask, span, peers)
        except Unreadable:
            return self._refuse(sender, ask.rid, UNREADABLE)
        # What is held may not be durable yet: told when it is.
        return self._outbox.ack(sender, batch)

    def _refuse(self, sender: NodeId, rid: int, why: str) -> None:
        self._outbox.send(sender, ReplicaRefused(rid, why))

    def _batch(self, ask: AskBatch, span: Span, peers: tuple[NodeId, ...]) -> Batch:
        store, end = self._local.store, span.start + span.size
        rows: list[Row] = []
        registers: list[KeptRegister] = []
        size, following = 0, end
        for leaf in store.tree.held_from(ask.leaf, end):
            if size >= ask.bytes_max or len(rows) + len(registers) >= BATCH_KEYS_MAX:
                following = leaf
                break
            for key, held in store.leaf(leaf):
                if held is None:
                    self._heal(key, peers)
                    raise Unreadable
                rows.append(Row(key, held.blob))
                size += len(key) + len(held.blob)
            for key, kept in store.registers_in(leaf):
                if kept is None:
                    raise Unreadable
                one = decode_register(kept)
                registers.append(KeptRegister(key, one.promised, one.accepted, one.value))
                size += len(key) + len(one.value)
        self.bytes_sent += size
        told, left = store.tree.slots_in(ask.leaf, following), store.tree.slots_in(following, end)
        floor = floor_of(self._outbox, ask.partition)
        return Batch(
            ask.rid, tuple(rows), tuple(registers), floor, following, following == end,
            left * size // max(1, told),
        )  # fmt: skip
