"""The reader: a client's get, or the read a put needs first, as a quorum of owners.

Promises: a get answers with the merge of R owners' copies; a damaged copy of our own counts toward
nothing until all other owners have told theirs.
Never: counts a node twice; serves bytes that fail their checksum.
Input: Get, reads for puts, ReplicaSame, ReplicaRead, ReplicaRefused, lost peers, ticks.

    own copy ─ digest ─► R - 1 owners ─┬─ Same ───────────► enough: answer with our copy
                                       ├─ Read (record) ──► merge, then the same
                                       └─ silence 15 ms ──► ask the others too (hedge)

*Healing.* An unreadable copy may have held a write that only one other owner has. Writing back the
merge of R owners could leave that write on one owner, and a later quorum would miss it. So healing
is a read of its own that needs *every* other owner; until it succeeds the copy stays unreadable.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import msgspec

from kvnode import config
from kvnode.core.ledger import ME, Ledger
from kvnode.core.local import Local
from kvnode.core.outbox import Unreadable
from kvnode.core.quorum import GetQuorum
from kvnode.core.rules import needed_r
from kvnode.core.versions import Held, as_read, merge_held
from kvnode.protocol.messages import (
    Error,
    Get,
    Got,
    Put,
    ReadReplica,
    ReplicaRead,
    ReplicaRefused,
    ReplicaSame,
)
from kvnode.protocol.types import EVENTUAL, Address, Millis, NodeId

NEVER = b"\0"
"""A digest no record has, so that every owner answers with what it holds."""
NOBODY: Address = b""
"""The client of a read that this node makes for itself."""

Then = Callable[[GetQuorum, Put], None]


class Reader:
    """The reads this node coordinates."""

    def __init__(self, local: Local) -> None:
        self._local = local
        self._outbox = local.outbox
        self.ledger: Ledger[GetQuorum] = Ledger(local, "r")
        self._quorums = self.ledger.quorums
        self._hedges: deque[tuple[Millis, int]] = deque()
        """Reads, and when their other owners are to be asked; in the order of time."""
        self._healing: set[bytes] = set()
        self.then: Then = _nothing
        """Who goes on with a put once what it had to read is in."""

    @property
    def full(self) -> bool:
        """Whether no more reads are taken on."""
        return len(self._quorums) >= config.PENDING_MAX

    # ---- asking ----------------------------------------------------------------------------

    def on_get(self, client: Address, ask: Get, peers: tuple[NodeId, ...]) -> None:
        """Read a key for a client. `peers` are its other owners."""
        need, problem = needed_r(ask.r, ask.mode, len(peers) + 1)
        if problem:
            return self.ledger.refuse(client, ask.rid, Error.INVALID, problem)
        if self.full:
            return self.ledger.overloaded(client, ask.rid)
        return self.read(client, ask, peers, need, None)

    def read(
        self, client: Address, ask: Get | Put, peers: tuple[NodeId, ...], need: int, then: Put | None
    ) -> None:
        """Read a key from `need` owners, this one first."""
        local, outbox = self._local, self._outbox
        quorum = GetQuorum(
            client, ask.rid, ask.key, peers, need, ask.mode, local.now, [] if ask.story else None, then=then
        )
        try:
            held = outbox.read(ask.key)
        except Unreadable:
            quorum.digest = NEVER
            quorum.lose(ME)
            quorum.tell(local.me, local.now, "unreadable", ok=False)
            self.heal(ask.key, peers)
        else:
            quorum.volatile = outbox.volatile
            quorum.asked = quorum.answered = 1 << len(peers)
            quorum.have = 1
            if held is not None:
                quorum.held = held
                quorum.digest = held.digest
            if quorum.answers is not None:
                quorum.tell(local.me, local.now, "value" if held is not None else "absent")
        if quorum.have >= need:
            return self._enough(quorum)
        if local.peers.avoided:
            if self.ledger.cut_off(client, ask.rid, peers, need, quorum.have):
                return None
            self.ledger.lose_avoided(quorum)
        return self._open(quorum, self.ledger.deadline(ask.timeout_ms, local.now))

    def _open(self, quorum: GetQuorum, deadline: Millis) -> None:
        rid = self.ledger.open(quorum, deadline)
        self._hedges.append((self._local.now + config.HEDGE_MS, rid))
        missing = quorum.need - quorum.have
        self._ask(rid, quorum, quorum.unasked[:missing] if quorum.lost else quorum.peers[:missing])

    def _ask(self, rid: int, quorum: GetQuorum, owners: tuple[NodeId, ...]) -> None:
        question = ReadReplica(rid, self._local.routes.epoch, quorum.key, quorum.digest)
        for owner in owners:
            quorum.ask(owner)
            self._outbox.send(owner, question)

    # ---- answers ---------------------------------------------------------------------------

    def on_replica_same(self, sender: NodeId, same: ReplicaSame) -> None:
        """An owner holds just what we held when we asked."""
        quorum = self._quorums.get(same.rid)
        if quorum is None or not quorum.count(sender):
            return self._local.ignore("replica_same")
        if quorum.answers is not None:
            quorum.tell(sender, self._local.now, "digest")
        return self._step(same.rid, quorum)

    def on_replica_read(self, sender: NodeId, read: ReplicaRead) -> bool:
        """An owner holds something else. False when the request is not one of ours."""
        quorum = self._quorums.get(read.rid)
        if quorum is None:
            return False
        try:
            merged = merge_held(quorum.held, read.record) if read.record else quorum.held
        except msgspec.MsgspecError:
            self._local.counters["malformed_records"] += 1
            self._replace(read.rid, quorum, sender, "malformed record")
            return True
        if not quorum.count(sender):
            self._local.ignore("replica_read")
            return True
        quorum.held = merged
        quorum.tell(sender, self._local.now, "value" if read.record else "absent")
        self._step(read.rid, quorum)
        return True

    def _step(self, rid: int, quorum: GetQuorum) -> None:
        """After an answer: reply once there are enough, forget once all have come."""
        if not quorum.done and quorum.have >= quorum.need:
            self._enough(quorum)
        if quorum.finished:
            del self._quorums[rid]

    def _enough(self, quorum: GetQuorum) -> None:
        assert not quorum.done
        local = self._local
        quorum.done = True
        if quorum.heal:
            self._heal_done(quorum)
        if quorum.then is not None:
            return self.then(quorum, quorum.then)
        if not quorum.client:
            return None
        got = Got(
            quorum.rid, local.routes.epoch, as_read(quorum.held, local.clock.wall), self.ledger.story(quorum)
        )
        local.latency.record(int((local.now - quorum.started) * 1000))
        return self._outbox.reply(quorum.client, got, volatile=quorum.volatile)

    # ---- healing ---------------------------------------------------------------------------

    def heal(self, key: bytes, peers: tuple[NodeId, ...]) -> None:
        """Our copy of a key is damaged: fetch it from all other owners, in our own time."""
        local = self._local
        if key in self._healing or not peers or len(self._healing) >= config.HEALING_MAX:
            return
        local.event("unreadable", f"own copy of {key!r} fails its checksum; asking all other owners")
        self._healing.add(key)
        self._open(self._healer(NOBODY, 0, key, peers, None), self.ledger.deadline(0, local.now))

    def read_all_others(self, client: Address, ask: Put, peers: tuple[NodeId, ...]) -> None:
        """A put to a key whose copy here is damaged: fetch it from all other owners first, or fail."""
        quorum = self._healer(client, ask.rid, ask.key, peers, ask)
        if not peers or self.ledger.cut_off(client, ask.rid, peers, len(peers), 0):
            text = "this owner's copy of the key is damaged, and there is no other owner"
            return None if peers else self.ledger.refuse(client, ask.rid, Error.UNAVAILABLE, text)
        return self._open(quorum, self.ledger.deadline(ask.timeout_ms, self._local.now))

    def _healer(
        self, client: Address, rid: int, key: bytes, peers: tuple[NodeId, ...], then: Put | None
    ) -> GetQuorum:
        quorum = GetQuorum(
            client, rid, key, peers, len(peers), EVENTUAL, self._local.now, then=then, heal=True, digest=NEVER
        )
        quorum.lose(ME)
        return quorum

    def _heal_done(self, quorum: GetQuorum) -> None:
        """Every other owner has answered: what they hold, merged, is all there is."""
        self._healing.discard(quorum.key)
        if quorum.held is None:
            return
        quorum.volatile = True
        self._local.counters["healed"] += 1
        self.take_in(quorum.key, quorum.held, heal=True)

    def take_in(self, key: bytes, seen: Held, *, heal: bool = False) -> None:
        """Merge what a read saw into what is held now: later writes may have come in between.

        A damaged copy is written over only with what all other owners hold.
        """
        try:
            own = self._outbox.read(key)
        except Unreadable:
            if not heal:
                return
            own = None
        merged = merge_held(own, seen.blob)
        if merged is not own:
            self._outbox.write(key, merged)

    # ---- what goes wrong -------------------------------------------------------------------

    def on_replica_refused(self, sender: NodeId, refused: ReplicaRefused) -> bool:
        """An owner would not. False when the request is not one of ours."""
        quorum = self._quorums.get(refused.rid)
        if quorum is None:
            return False
        self._replace(refused.rid, quorum, sender, refused.reason)
        return True

    def on_peer_lost(self, peer: NodeId) -> None:
        """A peer cannot be reached: ask others in its place, or answer that there are none."""
        for rid, quorum in list(self._quorums.items()):
            self._replace(rid, quorum, peer, "unreachable")

    def _replace(self, rid: int, quorum: GetQuorum, owner: NodeId, why: str) -> None:
        if self.ledger.out(rid, quorum, owner, why):
            self._quorums[rid] = quorum  # it may have been closed: nobody was left who had been asked
            self._ask(rid, quorum, quorum.unasked[:1])
        elif quorum.heal and quorum.done:
            self._healing.discard(quorum.key)

    @property
    def busy(self) -> bool:
        """Whether a client still waits for an answer."""
        return any(not q.done and q.client for q in self._quorums.values())

    @property
    def timed(self) -> bool:
        """Whether anything here has a deadline."""
        return bool(self._quorums)

    def on_tick(self, now: Millis) -> None:
        """Hedge, and end what is overdue."""
        hedges = self._hedges
        while hedges and hedges[0][0] <= now:
            _, rid = hedges.popleft()
            quorum = self._quorums.get(rid)
            if quorum is not None and not quorum.done:
                self._local.counters["hedged"] += 1
                self._ask(rid, quorum, quorum.unasked)
        self.ledger.expire(now)
        if self._healing:
            self._healing = {q.key for q in self._quorums.values() if q.heal and not q.done}


def _nothing(_: GetQuorum, __: Put) -> None:
    raise AssertionError("nobody goes on with puts")
