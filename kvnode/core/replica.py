"""The replica: keeps one copy of each key it owns, merges what it is sent, says what it holds.

Promises: `ReplicaWritten` leaves only after the commit; a merge never loses a version.
Never: applies a write of a key it does not own, or after its deadline.
Input: ReadReplica, WriteReplica, ScanReplica.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from kvnode.core.local import Local
from kvnode.core.outbox import Unreadable
from kvnode.core.pages import page_of
from kvnode.core.versions import ABSENT, NEVER, merge_held
from kvnode.protocol.messages import (
    ReadReplica,
    ReplicaRead,
    ReplicaRefused,
    ReplicaSame,
    ReplicaScanned,
    ReplicaWritten,
    ScanReplica,
    WriteReplica,
)
from kvnode.protocol.replication import RECOVERING, UNREADABLE
from kvnode.protocol.ring import hash_slot
from kvnode.protocol.types import NodeId


class Replica:
    """This node's copies, as its peers see them."""

    def __init__(self, local: Local, heal: Callable[[bytes, tuple[NodeId, ...]], None]) -> None:
        self._local = local
        self._outbox = local.outbox
        self._heal = heal

    def on_read_replica(self, sender: NodeId, ask: ReadReplica) -> None:
        """Compare digests; answer `Same`, or with the record."""
        outbox = self._outbox
        try:
            held = outbox.read(ask.key)
        except Unreadable:
            # One that heals its own copy of the key is not asked back: two would do so for ever.
            return self._damaged(sender, ask.rid, ask.key, heal=ask.digest != NEVER)
        if ask.strict and self._local.recovering and self._recovering(ask.key):
            return outbox.send(sender, ReplicaRefused(ask.rid, RECOVERING))
        volatile = outbox.volatile
        if (held.digest if held is not None else ABSENT) == ask.digest:
            return outbox.reply(sender, ReplicaSame(ask.rid), volatile=volatile)
        blob = held.blob if held is not None else ABSENT
        return outbox.reply(sender, ReplicaRead(ask.rid, blob), volatile=volatile)

    def on_write_replica(self, sender: NodeId, order: WriteReplica) -> None:
        """Merge a record; acknowledge when it is durable."""
        local, outbox = self._local, self._outbox
        routes = local.routes
        if order.deadline < local.steady:
            local.counters["late_writes"] += 1
            return outbox.send(sender, ReplicaRefused(order.rid, "its deadline has passed"))
        if not routes.holds(hash_slot(order.key) >> routes.shift):
            return outbox.send(sender, ReplicaRefused(order.rid, f"not an owner at epoch {routes.epoch}"))
        try:
            held = outbox.read(order.key)
        except Unreadable:
            # Merging into nothing would make a copy that may lack what the damaged one held, and
            # count toward R without it. Until all other owners have told, this copy counts for nothing.
            return self._damaged(sender, order.rid, order.key)
        try:
            merged = merge_held(held, order.record)
        except msgspec.MsgspecError:
            local.counters["malformed_records"] += 1
            return outbox.send(sender, ReplicaRefused(order.rid, "malformed record"))
        if merged is not held:
            outbox.write(order.key, merged)
            if outbox.any_registers and self._is_register(order.key):
                # Acknowledged somewhere that knew no better: kept, for other modes to read.
                local.counters["versions_beside_registers"] += 1
        if order.rid:
            outbox.ack(sender, ReplicaWritten(order.rid))
        return None

    def _is_register(self, key: bytes) -> bool:
        try:
            return bool(self._outbox.register(key))
        except Unreadable:
            return True

    def _recovering(self, key: bytes) -> bool:
        """Whether this copy may lack what this node once acknowledged."""
        return self._local.routes.partition(key) in self._local.recovering

    def _damaged(self, sender: NodeId, rid: int, key: bytes, *, heal: bool = True) -> None:
        local = self._local
        local.counters["unreadable"] += 1
        peers = local.routes.peers[local.routes.partition(key)]
        if heal and peers is not None:
            self._heal(key, peers)
        self._outbox.send(sender, ReplicaRefused(rid, UNREADABLE))

    def on_scan_replica(self, sender: NodeId, ask: ScanReplica) -> None:
        """One page of what is held, in byte order."""
        if self._local.recovering or self._local.voteless:
            return self._outbox.send(sender, ReplicaRefused(ask.rid, RECOVERING))
        try:
            page = page_of(self._outbox, ask.after, ask.prefix, ask.limit)
        except Unreadable:
            return self._outbox.send(sender, ReplicaRefused(ask.rid, UNREADABLE))
        told = ReplicaScanned(ask.rid, page.rows, bool(page.end), page.registers, page.end)
        return self._outbox.reply(sender, told, volatile=page.volatile)
