"""The reader: a client's get, or the read a put needs first, as a quorum of owners.

Promises: a get answers with the merge of R owners' copies; a damaged copy of our own counts toward
nothing until all other owners have told theirs.
Never: counts a node twice; serves bytes that fail their checksum.
Input: Get, reads for puts, ReplicaSame, ReplicaRead, ReplicaRefused, lost peers, ticks.

    own copy ─ digest ─► R - 1 owners ─┬─ Same ───────────► enough: answer with our copy
                                       ├─ Read (record) ──► merge, then the same
                                       ├─ silence 15 ms ──► ask the others too (hedge)
                                       └─ out of reach ───► in `eventual`, ask fallbacks for their hints

*Read repair* (Dynamo §5). After the reply, in `quorum` mode before it (`writeback`), whoever of those asked
turned out stale is sent the merge. A fallback's "not found" is no answer: it holds only what came since.

*Healing.* An unreadable copy may have held a write that only one other owner has. Writing back the
merge of R owners could leave that write on one owner, and a later quorum would miss it. So healing
is a read of its own that needs *every* other owner; until it succeeds the copy stays unreadable.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from functools import partial

import msgspec

from kvnode import config
from kvnode.core.ledger import ME, Ledger
from kvnode.core.local import Local
from kvnode.core.outbox import Unreadable
from kvnode.core.quorum import GetQuorum
from kvnode.core.rules import needed_r, with_time_left
from kvnode.core.sides import needed_by, needed_in_each, set_sides
from kvnode.core.versions import ABSENT, NEVER, Held, as_read, merge_held
from kvnode.protocol.messages import (
    Answer,
    Error,
    Get,
    Got,
    Put,
    ReadHint,
    ReadReplica,
    ReplicaRead,
    ReplicaRefused,
    ReplicaSame,
)
from kvnode.protocol.replication import RECOVERING, UNREADABLE
from kvnode.protocol.types import EVENTUAL, QUORUM, Address, Millis, NodeId

NOBODY: Address = b""
"""The client of a read that this node makes for itself."""

Then = Callable[[GetQuorum, Put], None]


class Reader:
    """The reads this node coordinates."""

    def __init__(self, local: Local, hinted: Callable[[bytes], Held | None]) -> None:
        """`hinted`: what is kept of a key that this node does not own."""
        self._local = local
        self._outbox = local.outbox
        self._hinted = hinted
        self.ledger: Ledger[GetQuorum] = Ledger(local, "r")
        self._quorums = self.ledger.quorums
        self._hedges: deque[tuple[Millis, int]] = deque()
        """Reads, and when their other owners are to be asked; in the order of time."""
        self._healing: set[bytes] = set()
        self.write_back: Callable[[GetQuorum], bool] = lambda _: False
        """Has a majority hold what a `quorum` read shows, then answers. False where one does already."""
        self.mend: Callable[[GetQuorum], None] = lambda _: None
        """Brings those that were stale up to date."""
        self.then: Then = _nothing
        """Who goes on with a put once what it had to read is in."""

    @property
    def full(self) -> bool:
        """Whether no more reads are taken on."""
        return len(self._quorums) >= config.PENDING_MAX

    # ---- asking ----------------------------------------------------------------------------

    def on_get(self, client: Address, ask: Get, peers: tuple[NodeId, ...]) -> None:
        """Read a key for a client. `peers` are its other owners, the next one among them for a `quorum` read."""
        need, problem = needed_in_each(needed_r, ask, ask.r, len(peers) + 1, self._local.routes)
        if problem:
            return self.ledger.refuse(client, ask, Error.INVALID, problem)
        if self._turned_away(client, ask):
            return None
        return self.read(client, ask, peers, need, None)

    def on_get_for_owners(self, client: Address, ask: Get, owners: tuple[NodeId, ...]) -> None:
        """Read a key none of whose owners can be reached from the fallbacks' hints; `eventual` only."""
        need, problem = needed_r(ask.r, ask.mode, len(owners))
        if problem:
            return self.ledger.refuse(client, ask, Error.INVALID, problem)
        if self._turned_away(client, ask) or self.ledger.cut_off(client, ask, owners, need, "r"):
            return None
        quorum = self._quorum(client, ask, owners, need, None)
        quorum.lose(ME)
        quorum.held = self._hinted(ask.key)
        quorum.volatile = True
        if quorum.held is not None:
            quorum.digest = quorum.held.digest
            quorum.stand_in(self._local.me)
            quorum.count_stand_in(self._local.me, counts=True)
            quorum.tell(self._local.me, self._local.now, "value", kind="fallback")
        return self._go_on(quorum, ask)

    def _turned_away(self, client: Address, ask: Get) -> bool:
        """Whether this node may not, or cannot, take a get on now; the client has been told."""
        if self._local.refusal:
            self.ledger.refuse(client, ask, Error.REFUSED, self._local.refusal, "kvctl check")
        elif self.full:
            self.ledger.overloaded(client, ask)
        else:
            return False
        return True

    def _quorum(
        self, client: Address, ask: Get | Put, peers: tuple[NodeId, ...], need: int, then: Put | None
    ) -> GetQuorum:
        story: list[Answer] | None = [] if ask.story else None
        return GetQuorum(
            client, ask.rid, ask.key, peers, need, ask.mode, self._local.now, story, then=then, request=ask
        )

    def read(
        self, client: Address, ask: Get | Put, peers: tuple[NodeId, ...], need: int, then: Put | None
    ) -> None:
        """Read a key from `need` owners, this one first."""
        local, outbox = self._local, self._outbox
        quorum = self._quorum(client, ask, peers, need, then)
        try:
            held = outbox.read(ask.key)
        except Unreadable:
            quorum.digest = NEVER
            quorum.lose(ME)
            quorum.tell(local.me, local.now, "unreadable", ok=False)
            self.heal(ask.key, peers)
        else:
            quorum.volatile = outbox.volatile
            if held is not None:
                quorum.held = held
                quorum.digest = held.digest
            if ask.mode == QUORUM and local.recovering and local.routes.partition(ask.key) in local.recovering:
                quorum.lose(ME)
                quorum.tell(local.me, local.now, RECOVERING, ok=False)
            else:
                quorum.asked = quorum.answered = 1 << len(peers)
                quorum.have = 1
                if quorum.answers is not None:
                    quorum.tell(local.me, local.now, "value" if held is not None else "absent")
        if local.routes.pending and ask.mode == QUORUM:
            partition = local.routes.partition(ask.key)
            set_sides(local.routes, local.me, partition, quorum, partial(needed_by, ask))
        return self._go_on(quorum, ask)

    def _go_on(self, quorum: GetQuorum, ask: Get | Put) -> None:
        """Answer at once if that is enough already, else ask others."""
        avoided = self._local.peers.avoided
        if quorum.have >= quorum.need:
            return self._enough(quorum)
        if avoided:
            if self.ledger.cut_off(quorum.client, ask, quorum.peers, quorum.need, "r"):
                return None
            for peer in quorum.peers:
                if peer in avoided:
                    quorum.lose(peer)
        return self._open(quorum, self.ledger.deadline(ask.timeout_ms, self._local.now))

    def _open(self, quorum: GetQuorum, deadline: Millis) -> None:
        quorum.deadline = deadline
        rid = self.ledger.open(quorum, deadline)
        self._hedges.append((self._local.now + config.HEDGE_MS, rid))
        missing = len(quorum.peers) if quorum.sides else quorum.need - quorum.have
        if not quorum.lost:
            return self._ask(rid, quorum, quorum.peers[:missing])
        self._ask_more(rid, quorum, missing)
        return self.ledger.settle(rid, quorum, self._local.me, "no other replica is in reach")

    def _ask_more(self, rid: int, quorum: GetQuorum, count: int) -> None:
        """Ask so many more: owners, then fallbacks."""
        owners = quorum.unasked[:count]
        self._ask(rid, quorum, owners)
        if len(owners) < count and quorum.mode == EVENTUAL and not quorum.heal:
            local = self._local
            known = {local.me, *(quorum.called or ())}
            for fallback in local.routes.fallbacks(local.routes.partition(quorum.key)):
                if fallback not in known and fallback not in local.peers.avoided:
                    quorum.stand_in(fallback)
                    self._outbox.send(fallback, ReadHint(rid, local.routes.epoch_of(quorum.key), quorum.key))

    def _ask(self, rid: int, quorum: GetQuorum, owners: tuple[NodeId, ...]) -> None:
        strict = quorum.mode == QUORUM
        epoch = self._local.routes.epoch_of(quorum.key)
        question = ReadReplica(rid, epoch, quorum.key, quorum.digest, strict)
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

    def on_replica_read(self, sender: NodeId, read: ReplicaRead) -> None:
        """An owner holds something else, or a fallback tells of its hints."""
        quorum = self._quorums.get(read.rid)
        if quorum is None:
            return self._local.ignore("replica_read")
        try:
            merged = merge_held(quorum.held, read.record) if read.record else quorum.held
        except msgspec.MsgspecError:
            self._local.counters["malformed_records"] += 1
            return self._replace(read.rid, quorum, sender, "malformed record")
        told = "value" if read.record else "absent"
        if quorum.count(sender):
            quorum.tell(sender, self._local.now, told)
            digest = merge_held(None, read.record).digest if read.record else ABSENT
            quorum.seen = [*(quorum.seen or ()), (sender, digest)]
        elif quorum.count_stand_in(sender, counts=bool(read.record)):
            quorum.tell(sender, self._local.now, told, ok=bool(read.record), kind="fallback")
        else:
            return self._local.ignore("replica_read")
        quorum.held = merged
        return self._step(read.rid, quorum)

    def _step(self, rid: int, quorum: GetQuorum) -> None:
        """After an answer: reply once there are enough, forget once all have come."""
        if not quorum.done and quorum.have >= quorum.need:
            self._enough(quorum)
        if quorum.finished:
            if not quorum.done and quorum.hopeless:
                text = f"r={quorum.need} cannot be met: {quorum.have} replicas could tell"
                self.ledger.fail(quorum, Error.UNAVAILABLE, text)
            del self._quorums[rid]
            if quorum.seen is not None:
                self.mend(quorum)

    def _enough(self, quorum: GetQuorum) -> None:
        assert not quorum.done
        quorum.done = True
        if quorum.heal:
            self._heal_done(quorum)
        if quorum.then is not None:
            return self.then(quorum, quorum.then)
        if not quorum.client or (quorum.mode == QUORUM and quorum.seen is not None and self.write_back(quorum)):
            return None
        return self.answer(quorum, quorum.held)

    def answer(self, quorum: GetQuorum, held: Held | None) -> None:
        """Tell a client what was read."""
        local = self._local
        story = self.ledger.story(quorum) if quorum.answers is not None else None
        got = Got(quorum.rid, local.routes.epoch, as_read(held, local.clock.wall), story)
        local.latency.record(int((local.now - quorum.started) * 1000))
        local.counters["gets"] += 1
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
        out = ", ".join(peer for peer in peers if peer in self._local.peers.avoided)
        if out or not peers:
            missing = f"{out} cannot be reached" if out else "there is no other owner"
            text = f"this owner's copy of the key is damaged, and {missing}"
            return self.ledger.refuse(client, ask, Error.UNAVAILABLE, text, "kvctl status")
        return self._open(quorum, self.ledger.deadline(ask.timeout_ms, self._local.now))

    def _healer(
        self, client: Address, rid: int, key: bytes, peers: tuple[NodeId, ...], then: Put | None
    ) -> GetQuorum:
        quorum = GetQuorum(
            client, rid, key, peers, len(peers), EVENTUAL, self._local.now, then=then, heal=True, digest=NEVER,
            request=then,
        )  # fmt: skip
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

    def take_in(self, key: bytes, seen: Held, *, heal: bool = False) -> bool:
        """Merge what a read saw into what is held now, which may have grown. False where it cannot be read.

        A damaged copy is written over only with what all other owners hold.
        """
        try:
            own = self._outbox.read(key)
        except Unreadable:
            if not heal:
                return False
            own = None
        merged = merge_held(own, seen.blob)
        if merged is not own:
            self._outbox.write(key, merged)
        return True

    # ---- what goes wrong -------------------------------------------------------------------

    def on_ring(self, changed: Collection[int]) -> list[tuple[Address, Get | Put]]:
        """Some partitions have other owners, or are to: what was asked there is to be asked anew."""
        now = self._local.now
        return [
            (quorum.client, with_time_left(quorum.request, quorum.deadline - now))
            for quorum in self.ledger.give_up(changed)
            if quorum.request is not None
        ]

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
        if quorum.heal and why == UNREADABLE and quorum.count(owner):
            return self._step(rid, quorum)  # what its copy held is lost there too: it has told all it can
        if quorum.count_stand_in(owner, counts=False):
            quorum.tell(owner, self._local.now, why, ok=False, kind="fallback")
        elif quorum.lose(owner):
            quorum.tell(owner, self._local.now, why, ok=False)
        else:
            return None
        if not quorum.done:
            self._ask_more(rid, quorum, 1)
        self.ledger.settle(rid, quorum, owner, why)
        if quorum.heal and quorum.done:
            self._healing.discard(quorum.key)
        return None

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
        for _, quorum in self.ledger.expire(now):
            if quorum.seen is not None:
                self.mend(quorum)
        if self._healing:
            self._healing = {q.key for q in self._quorums.values() if q.heal and not q.done}


def _nothing(_: GetQuorum, __: Put) -> None:
    raise AssertionError("nobody goes on with puts")
