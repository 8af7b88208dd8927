"""Rejoining: a node that may have lost its votes casts none until it cannot contradict them any more.

Promises: in a partition where this disk may have replaced another, no ballot is cast before every ballot
of the other's life is past its deadline, and the registers of a majority of the other owners are here; or, where
an operator gave up what lost disks held, those of every other owner that has any.
Never: keeps it from reading and writing in other modes.
Input: RegistersCopied, ReplicaRefused, WaiveVotes, ticks.

    lost votes ─ wait out the longest life of a ballot, twice ─► CopyRegisters ─► each other owner
                                                                 a majority told ─► votes again

*Why that is enough* (PROTOCOL-CASES 10). What was chosen with a lost vote was accepted by others too: any
majority of the others has one of them. What was not chosen by then never will be, for whoever accepts it
later does so after its deadline. So a lost promise binds nobody: no lower ballot is alive.

A disk that every other owner vouches for lost nothing, and votes at once.

Where the disks of most owners were lost, no majority of the others is left to tell. What was chosen may have been
theirs alone: nobody but an operator may go on without it.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from kvnode import config
from kvnode.core.consensus import adopt, decode_register, encode_register
from kvnode.core.floors import raise_floor
from kvnode.core.local import Local
from kvnode.core.outbox import Unreadable
from kvnode.core.rules import one_version
from kvnode.protocol.consensus import CopyRegisters, RegistersCopied
from kvnode.protocol.replication import RECOVERING, ReplicaRefused
from kvnode.protocol.requests import Done, WaiveVotes
from kvnode.protocol.types import Address, Millis, NodeId

VOTELESS = "voteless"
"""Fact: the partitions in which this disk casts no ballot yet."""
WAIVED = "waived"
"""Fact: the partitions in which an operator gave up what lost disks held."""
WAIT_MS = 2 * config.BALLOT_LIFE_MS


class Rejoin:
    """Which partitions this node votes in."""

    def __init__(self, local: Local) -> None:
        self._local = local
        self._outbox = local.outbox
        self.vouched: Callable[[int], bool] = lambda _: False
        """Whether every other owner of a partition says that this disk replaced none."""
        self._told: set[NodeId] = set()
        """Members whose registers are all here."""
        self._without: set[NodeId] = set()
        """Members that lost their own, and said so."""
        self._silent: frozenset[NodeId] = frozenset()
        """Members that were down when an operator gave up what is lost: what they alone hold, too."""
        self._asked: dict[NodeId, tuple[int, bytes]] = {}
        """Whom we ask now: under which id, and for what comes after which key."""
        self._next: Millis = 0
        self._from: Millis = 0
        """Since when votes are missing, if it was not at boot."""
        saved = local.store.fact(VOTELESS)
        known = msgspec.msgpack.decode(saved, type=set[int]) if saved else set(local.recovering)
        local.voteless = {p for p in known if local.routes.peers[p]}
        self._saved = bool(saved)
        given_up = local.store.fact(WAIVED)
        self._waived = msgspec.msgpack.decode(given_up, type=set[int]) if given_up else set[int]()

    def on_ring(self, unproven: set[int]) -> None:
        """Another ring is held. `unproven`: partitions this node owns now and may not hold the registers of."""
        local = self._local
        known = {p for p in local.voteless if local.routes.peers[p]} | unproven
        if unproven - local.voteless:
            self._told.clear()
            self._without.clear()
            self._silent = frozenset()
            self._from = local.now
        self._waive({p for p in self._waived if local.routes.peers[p]})
        if known != local.voteless:
            local.voteless = known
            self._outbox.note(VOTELESS, msgspec.msgpack.encode(sorted(known)))

    def on_tick(self, now: Millis) -> None:
        """Look who vouches; once every old ballot is dead, ask for registers."""
        local = self._local
        if not self._saved:
            self.vote_where_sure()
        if not local.voteless or now < self._next:
            return
        self._next = now + config.COPY_RETRY_MS
        self.vote_where_sure()
        if not self._waited:
            return
        owners = {peer for p in local.voteless for peer in local.routes.peers[p] or ()}
        for peer in sorted(owners - self._told - local.peers.suspected):
            rid, after = self._asked.get(peer, (0, b""))
            if not rid:
                rid = self._ask(peer, after)
            else:
                self._outbox.send(peer, CopyRegisters(rid, after))

    @property
    def _waited(self) -> bool:
        """Whether no ballot of before can be acted on any more."""
        return self._local.now - (self._from or self._local.started) >= WAIT_MS

    def _ask(self, peer: NodeId, after: bytes) -> int:
        rid = self._local.next_rid()
        self._asked[peer] = rid, after
        self._outbox.send(peer, CopyRegisters(rid, after))
        return rid

    def on_registers_copied(self, sender: NodeId, told: RegistersCopied) -> None:
        """A page of a member's registers."""
        local = self._local
        if self._asked.get(sender, (0, b""))[0] != told.rid:
            return local.ignore("registers_copied")
        for row in told.rows:
            partition = local.routes.partition(row.key)
            peers = local.routes.peers[partition]
            if partition not in local.voteless:
                continue  # it votes by now: this page may be of before a tombstone that has been reaped since
            if peers is None or sender not in peers or not one_version(row.record):
                local.ignore("register_row")
                continue
            try:
                mine = decode_register(self._outbox.register(row.key))
            except Unreadable:
                return local.ignore("register_damaged")
            adopted = adopt(mine, row.accepted, row.record)
            if adopted is not mine:
                self._outbox.keep_register(row.key, encode_register(adopted))
        for floor in told.floors:
            if floor.partition < local.routes.ring.q and sender in (local.routes.peers[floor.partition] or ()):
                raise_floor(self._outbox, floor.partition, floor.ballot)
        if told.after:
            self._ask(sender, told.after)
            return None
        del self._asked[sender]
        self._told.add(sender)
        self._without.discard(sender)
        return self.vote_where_sure()

    def on_replica_refused(self, sender: NodeId, refused: ReplicaRefused) -> bool:
        """A member that lost its own registers, or cannot read them, is asked again later."""
        if self._asked.get(sender, (0, b""))[0] != refused.rid:
            return False
        if refused.reason == RECOVERING:
            self._without.add(sender)
        return True

    # ---- what an operator gives up ---------------------------------------------------------

    @property
    def waived(self) -> int:
        """Partitions in which an operator gave up what lost disks held."""
        return len(self._waived)

    def on_waive(self, client: Address, ask: WaiveVotes) -> None:
        """Cast ballots again where the other owners have told all they have, be they a majority or not."""
        local = self._local
        given_up = len(local.voteless)
        if given_up:
            self._waive(self._waived | local.voteless)
            self._silent = frozenset(local.peers.suspected)
            local.event("votes", f"an operator gave up what lost disks held, in {given_up} partitions")
        self._outbox.ack(client, Done(ask.rid, given_up))

    def _waive(self, partitions: set[int]) -> None:
        if partitions != self._waived:
            self._waived = partitions
            self._outbox.note(WAIVED, msgspec.msgpack.encode(sorted(partitions)) if partitions else b"")

    # ---- voting again ----------------------------------------------------------------------

    def vote_where_sure(self) -> None:
        """Cast ballots again where nothing can be contradicted."""
        local = self._local
        sure = {p for p in local.voteless if self.vouched(p) or self._copied(p)}
        if sure or not self._saved:
            self._saved = True
            local.voteless -= sure
            # Noted when it is empty, too: a disk that has votes keeps them, however long it was away.
            self._outbox.note(VOTELESS, msgspec.msgpack.encode(sorted(local.voteless)))
            if sure and not local.voteless:
                local.event("votes", "this node casts ballots in all its partitions")

    def _copied(self, partition: int) -> bool:
        others = self._local.routes.peers[partition] or ()
        if sum(peer in self._told for peer in others) > len(others) // 2:
            return True
        if partition not in self._waived or not self._waited:
            return False
        silent = self._silent.intersection(self._local.peers.suspected)
        return self._told.union(self._without, silent).issuperset(others)
