"""Writing back: what a `quorum` read shows is on a majority before anyone is told.

Promises: once a `quorum` read of a majority has shown a version, every later one shows it or what
covers it, whoever asks; Cassandra calls these monotonic quorum reads. Never: delays a read whose owners agreed.
Input: reads whose owners differ, ReplicaWritten, ReplicaRefused, lost peers, ticks.

    owners differ ─► WriteReplica (the merge) to all who lack it ─► a majority holds it ─► Got

A version that only one owner has, since its writer failed or is still on its way, would else be shown
by one read and not by the next. In `eventual` mode a read is answered first and repaired afterwards.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from kvnode.core.ledger import ME, Ledger
from kvnode.core.local import Local
from kvnode.core.quorum import GetQuorum, Quorum
from kvnode.core.rules import with_time_left
from kvnode.core.sides import set_sides
from kvnode.core.versions import Held
from kvnode.protocol.messages import Get, Put, ReplicaRefused, ReplicaWritten, WriteReplica
from kvnode.protocol.ring import majority
from kvnode.protocol.types import Address, Millis, NodeId


class Reads(Protocol):
    """What writing back needs of a reader."""

    def take_in(self, key: bytes, seen: Held) -> bool:
        """Merge what was read into this node's own copy. False where it cannot be read."""
        ...

    def answer(self, quorum: GetQuorum, held: Held | None) -> None:
        """Tell a client what was read."""
        ...


class WriteBackQuorum(Quorum, kw_only=True, gc=False):
    """A merge on its way to a majority."""

    back: GetQuorum
    """The read that waits for it."""
    held: Held
    """What is written back and then shown: late answers may have brought more since."""


class WriteBack:
    """The merges this node is writing back."""

    def __init__(self, local: Local, reads: Reads) -> None:
        self._local = local
        self._reads = reads
        self.ledger: Ledger[WriteBackQuorum] = Ledger(local, "r")
        self._quorums = self.ledger.quorums

    def begin(self, read: GetQuorum) -> bool:
        """Write back what a read is about to show. False when a majority holds it already."""
        held, local = read.held, self._local
        stale = read.stale()
        if not stale or held is None:
            return False
        owners = len(read.peers) + 1
        agree = [peer for i, peer in enumerate(read.peers) if read.answered >> i & 1 and peer not in stale]
        mine = read.answered >> len(read.peers) & 1 and ME not in stale
        if not read.sides and len(agree) + mine >= majority(owners):
            return False
        quorum = WriteBackQuorum(
            read.client, read.rid, read.key, read.peers, majority(owners), read.mode, read.started, read.answers,
            asked=(1 << owners) - 1, back=read, held=held,
        )  # fmt: skip
        if local.routes.pending:
            set_sides(local.routes, local.me, local.routes.partition(read.key), quorum, majority)
        rid = self.ledger.open(quorum, read.deadline)
        for node in (*agree, *([ME] if mine else [])):
            quorum.count(node)
        for peer in read.peers:
            if peer in local.peers.avoided:
                quorum.lose(peer)
        if read.lost >> len(read.peers) & 1:
            quorum.lose(ME)  # damaged, or not sure of itself: its word does not count
        elif not mine and self._reads.take_in(read.key, held):
            local.outbox.ack(local.me, ReplicaWritten(rid))
        elif not mine:
            quorum.lose(ME)
        for peer in quorum.waiting:
            order = WriteReplica(rid, local.routes.epoch_of(read.key), read.key, held.blob, local.until(peer))
            local.outbox.send(peer, order)
        local.counters["write_backs"] += 1
        if quorum.enough:  # on the way to other owners what both sides have is counted here
            quorum.done = True
            self._reads.answer(read, held)
            self.ledger.close_if_finished(rid, quorum)
        self.ledger.settle(rid, quorum, local.me, "no other replica is in reach")
        return True

    def on_ring(self, changed: Collection[int]) -> list[tuple[Address, Get | Put]]:
        """Some partitions have other owners, or are to: what was read there is to be read anew."""
        reads = [quorum.back for quorum in self.ledger.give_up(changed)]
        now = self._local.now
        return [(r.client, with_time_left(r.request, r.deadline - now)) for r in reads if r.request is not None]

    def on_replica_written(self, sender: NodeId, written: ReplicaWritten) -> bool:
        """An owner, maybe this node itself, holds the merge durably. False when it is not one of ours."""
        quorum = self._quorums.get(written.rid)
        if quorum is None or not quorum.count(ME if sender == self._local.me else sender):
            return False
        if not quorum.done and quorum.enough:
            quorum.done = True
            self._reads.answer(quorum.back, quorum.held)
        self.ledger.close_if_finished(written.rid, quorum)
        return True

    def on_replica_refused(self, sender: NodeId, refused: ReplicaRefused) -> bool:
        """An owner would not. False when the request is not one of ours."""
        quorum = self._quorums.get(refused.rid)
        if quorum is None:
            return False
        self.ledger.out(refused.rid, quorum, sender, refused.reason)
        return True

    def on_peer_lost(self, peer: NodeId) -> None:
        """A peer cannot be reached."""
        for rid, quorum in list(self._quorums.items()):
            self.ledger.out(rid, quorum, peer, "unreachable")

    @property
    def busy(self) -> bool:
        """Whether a client still waits for an answer."""
        return any(not quorum.done for quorum in self._quorums.values())

    @property
    def timed(self) -> bool:
        """Whether anything here has a deadline."""
        return bool(self._quorums)

    def on_tick(self, now: Millis) -> None:
        """End what is overdue."""
        self.ledger.expire(now)
