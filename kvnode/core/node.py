"""One node, pure: one door in, one outbox out. The only place where mechanisms meet.

Promises: the same turns give the same outbox, byte for byte; what a turn shows of its own writes
leaves only after their commit. Never: reads a clock, a socket or a file.

    begin(now, wall) ─► receive(sender, message) ... ─► end() ─► Turn(sends, writes, acks)
    committed(number)          the shell, when a turn's writes are durable
    lost(peer)                 the shell, when a message to a peer could not be handed over
    timed                      whether a turn is due every TICK_MS, message or not

Clients are named by their connection (bytes), members by their id (str): a client can say only what
clients say. What a node says to itself (its own vote) comes back in through the same door.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kvnode import __version__, config
from kvnode.core.forward import Forwarder
from kvnode.core.local import Local
from kvnode.core.observer import Observer, Vitals
from kvnode.core.outbox import Turn
from kvnode.core.reader import Reader
from kvnode.core.replica import Replica
from kvnode.core.scanner import Scanner
from kvnode.core.writer import Writer
from kvnode.protocol.messages import (
    Events,
    Explain,
    Failed,
    Get,
    Got,
    Hello,
    Message,
    Put,
    ReadReplica,
    ReplicaRead,
    ReplicaRefused,
    ReplicaSame,
    ReplicaScanned,
    ReplicaWritten,
    Report,
    Reported,
    Scan,
    ScanReplica,
    Status,
    Welcome,
    WriteReplica,
    Written,
)
from kvnode.protocol.ring import Ring, hash_slot
from kvnode.protocol.types import Address, Millis, NodeId, WallMillis

Handler = Callable[[Any, Any], object]
"""Takes sender and message; the tables below keep the two in step, so the types are theirs."""


class Node:
    """The mechanisms of one node, wired together."""

    def __init__(self, local: Local, vitals: Vitals) -> None:
        assert local.routes.ring.member(local.me) is not None
        self._local = local
        self._next_tick: Millis = 0
        self._reader = Reader(local)
        self._writer = Writer(local, self._reader)
        self._reader.then = self._writer.on_read
        self._forwarder = Forwarder(local)
        self._replica = Replica(local, self._reader.heal)
        self._scanner = Scanner(local)
        self._observer = Observer(local, vitals)
        self._ticking = (self._reader, self._writer, self._forwarder, self._scanner, self._observer)
        self._from_client: dict[type, Handler] = {
            Get: self._on_get,
            Put: self._on_put,
            Hello: self._on_hello,
            Scan: self._scanner.on_scan,
            Explain: self._observer.on_explain,
            Status: self._observer.on_status,
            Events: self._observer.on_events,
        }
        self._from_node: dict[type, Handler] = {
            Get: self._on_get,
            Put: self._on_put,
            ReadReplica: self._replica.on_read_replica,
            ReplicaSame: self._reader.on_replica_same,
            ReplicaRead: self._on_replica_read,
            WriteReplica: self._replica.on_write_replica,
            ReplicaWritten: self._writer.on_replica_written,
            ReplicaRefused: self._on_replica_refused,
            Got: self._forwarder.on_reply,
            Written: self._forwarder.on_reply,
            Failed: self._forwarder.on_reply,
            ScanReplica: self._replica.on_scan_replica,
            ReplicaScanned: self._scanner.on_replica_scanned,
            Report: self._observer.on_report,
            Reported: self._observer.on_reported,
        }

    # ---- the door --------------------------------------------------------------------------

    @property
    def id(self) -> NodeId:
        """This node's name."""
        return self._local.me

    @property
    def ring(self) -> Ring:
        """The ring this node routes by."""
        return self._local.routes.ring

    @property
    def local(self) -> Local:
        """What the mechanisms share; the shell reads its events and counters."""
        return self._local

    def begin(self, now: Millis, wall: WallMillis) -> None:
        """A turn begins: time is an argument."""
        local = self._local
        assert now >= local.now
        if not local.started:
            local.started = now
        local.now = now
        local.clock.wall = wall

    def receive(self, sender: Address, message: Message) -> None:
        """Act on one message. What it may be depends on who sent it."""
        if isinstance(sender, str):
            handler = self._from_node.get(type(message))
            avoided = self._local.peers.avoided
            if avoided and self._local.peers.heard(NodeId(sender)):
                self._local.event("heard", f"{sender} answers again")
        else:
            handler = self._from_client.get(type(message))
        if handler is None:
            return self._local.ignore("out_of_place")
        handler(sender, message)
        return None

    def lost(self, peer: NodeId) -> None:
        """A message to this peer could not be handed over: it cannot be reached now."""
        local = self._local
        if local.peers.avoid(peer, local.now):
            local.event("avoided", f"{peer} cannot be reached")
        for mechanism in self._ticking:
            mechanism.on_peer_lost(peer)

    def end(self) -> Turn:
        """The turn ends: serve the timers that are due, hand out what is owed."""
        local = self._local
        if local.now >= self._next_tick:
            self._next_tick = local.now + config.TICK_MS
            local.peers.on_tick(local.now)
            for mechanism in self._ticking:
                mechanism.on_tick(local.now)
        return local.outbox.take()

    def committed(self, number: int) -> None:
        """The writes of every turn up to this one are durable."""
        self._local.outbox.committed(number)

    @property
    def busy(self) -> bool:
        """Whether a client still waits for an answer of this node."""
        return any(mechanism.busy for mechanism in self._ticking)

    @property
    def timed(self) -> bool:
        """Whether a timer runs, so that a turn is due every `TICK_MS` even without a message."""
        if self._local.peers.avoided:
            return True
        for mechanism in self._ticking:  # noqa: SIM110 -- a generator would cost more than the loop
            if mechanism.timed:
                return True
        return False

    def check_invariants(self) -> None:
        """What must hold between turns."""
        self._reader.ledger.check_invariants()
        self._writer.ledger.check_invariants()

    # ---- where messages have more than one reader ------------------------------------------

    def _on_get(self, sender: Address, ask: Get) -> None:
        routes = self._local.routes
        peers = routes.peers[hash_slot(ask.key) >> routes.shift]
        if peers is not None:
            self._reader.on_get(sender, ask, peers)
        else:
            self._forwarder.on_request(sender, ask)

    def _on_put(self, sender: Address, ask: Put) -> None:
        routes = self._local.routes
        peers = routes.peers[hash_slot(ask.key) >> routes.shift]
        if peers is not None:
            self._writer.on_put(sender, ask, peers)
        else:
            self._forwarder.on_request(sender, ask)

    def _on_replica_read(self, sender: NodeId, read: ReplicaRead) -> None:
        if not (
            self._reader.on_replica_read(sender, read)
            or self._observer.on_replica_read(sender, read.rid, read.record)
        ):
            self._local.ignore("replica_read")

    def _on_replica_refused(self, sender: NodeId, refused: ReplicaRefused) -> None:
        if not (
            self._reader.on_replica_refused(sender, refused)
            or self._writer.on_replica_refused(sender, refused)
            or self._scanner.on_silent(sender, refused.rid)
            or self._observer.on_silent(sender, refused.rid, refused.reason)
        ):
            self._local.ignore("replica_refused")

    def _on_hello(self, sender: Address, hello: Hello) -> None:
        local = self._local
        welcome = Welcome(
            hello.rid, local.me, local.boot, local.routes.ring, local.durability,
            local.settings.max_pair_bytes, local.settings.deadline_ms, __version__, local.wall,
        )  # fmt: skip
        local.outbox.send(sender, welcome)
