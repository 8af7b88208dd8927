"""The coordinator: turns a client's get or put into a quorum of owners, and their answers into one.

Promises: a put is acknowledged only when W owners hold it durably; a get answers with the merge of
R; a timeout with fewer is told as *indeterminate*, with the acknowledgements seen.
Never: counts a node twice; mints without holding the key; forwards what was forwarded.
Input: Get, Put, ReplicaSame, ReplicaRead, ReplicaWritten, ReplicaRefused, lost peers, ticks.

    client ─ Put ─► owner ─ mint, merge ─┬─ WriteReplica (the whole merged record) ─► other owners
                                         └─ own commit ─► own vote
    W votes ─► Written.   See Dynamo §4.5 and ARCHITECTURE "Quorums".

There are three kinds of put: with a context (it covers what that context saw); blind in `eventual`
(it covers what this node holds); and those that read R owners first: blind deletes, blind `quorum`
writes, and conditional ones (PROTOCOL-CASES 13).
"""

from __future__ import annotations

from collections import deque

import msgspec

from kvnode import config
from kvnode.core.deadlines import Deadlines
from kvnode.core.local import Local
from kvnode.core.outbox import Unreadable
from kvnode.core.quorum import GetQuorum, PutQuorum, Quorum
from kvnode.core.rules import condition_problem, needed_r, needed_w, pair_problem, reads_first
from kvnode.core.versions import ABSENT, Held, Minter, as_read, merge_held
from kvnode.protocol.context import BadContext, decode_context, join
from kvnode.protocol.messages import (
    Condition,
    Error,
    Failed,
    Get,
    Got,
    Put,
    ReadReplica,
    ReplicaRead,
    ReplicaRefused,
    ReplicaSame,
    ReplicaWritten,
    Story,
    WriteReplica,
    Written,
)
from kvnode.protocol.ring import majority
from kvnode.protocol.types import QUORUM, Address, Millis, NodeId, Past

ME = NodeId("")
"""How a quorum names this node itself."""
NEVER = b"\0"
"""A digest no record has, so that every owner answers with what it holds."""


class Coordinator:
    """The requests this node answers for."""

    def __init__(self, local: Local) -> None:
        self._local = local
        self._outbox = local.outbox
        self._minter = Minter(local.clock, local.rng)
        self._reads: dict[int, GetQuorum] = {}
        self._writes: dict[int, PutQuorum] = {}
        self._deadlines = Deadlines()
        self._hedges: deque[tuple[Millis, int]] = deque()
        """Reads, and when their other owners are to be asked; in the order of time."""

    # ---- requests --------------------------------------------------------------------------

    def on_get(self, sender: Address, ask: Get, peers: tuple[NodeId, ...]) -> None:
        """Read a key for a client. `peers` are its other owners."""
        need, problem = needed_r(ask.r, ask.mode, len(peers) + 1)
        if problem:
            return self._refuse(sender, ask.rid, Error.INVALID, problem)
        if len(self._reads) >= config.PENDING_MAX:
            return self._overloaded(sender, ask.rid)
        return self._read(sender, ask, peers, need, None)

    def on_put(self, sender: Address, ask: Put, peers: tuple[NodeId, ...]) -> None:
        """Write a key for a client. `peers` are its other owners."""
        local = self._local
        need, problem = needed_w(ask.w, ask.mode, len(peers) + 1)
        past: Past | None = None
        if ask.context and not problem:
            past, problem = self._past_named(ask)
        if not problem:
            problem = pair_problem(ask, local.settings.max_pair_bytes)
        if problem:
            return self._refuse(sender, ask.rid, Error.INVALID, problem)
        if max(len(self._reads), len(self._writes)) >= config.PENDING_MAX:
            return self._overloaded(sender, ask.rid)
        if local.peers.avoided and self._cut_off(sender, ask.rid, peers, need, "w", 1):
            return None
        if reads_first(ask):
            r = majority(len(peers) + 1) if ask.mode == QUORUM else min(need, majority(len(peers) + 1))
            return self._read(sender, ask, peers, r, ask)
        return self._write(sender, ask, peers, need, past, local.now)

    # ---- reads -----------------------------------------------------------------------------

    def _read(
        self, sender: Address, ask: Get | Put, peers: tuple[NodeId, ...], need: int, then: Put | None
    ) -> None:
        local, outbox = self._local, self._outbox
        quorum = GetQuorum(
            sender, ask.rid, ask.key, peers, need, ask.mode, local.now, [] if ask.story else None, then=then
        )
        digest = ABSENT
        try:
            held = outbox.read(ask.key)
        except Unreadable:
            quorum.heal = True
            quorum.lose(ME)
            quorum.tell(local.me, local.now, "unreadable", ok=False)
            local.event("unreadable", f"own copy of {ask.key!r} fails its checksum; asking the other owners")
            digest = NEVER
        else:
            quorum.volatile = outbox.volatile
            quorum.asked = quorum.answered = 1 << len(peers)
            quorum.have = 1
            if held is not None:
                quorum.held = held
                digest = held.digest
            if quorum.answers is not None:
                quorum.tell(local.me, local.now, "value" if held is not None else "absent")
        if quorum.have >= need:
            return self._read_enough(quorum)
        if local.peers.avoided:
            if self._cut_off(sender, ask.rid, peers, need, "r", quorum.have):
                return None
            self._lose_avoided(quorum)
        quorum.digest = digest
        rid = local.next_rid()
        self._reads[rid] = quorum
        self._hedges.append((local.now + config.HEDGE_MS, rid))
        self._deadlines.add(rid, local.now + self._timeout(ask.timeout_ms))
        first = peers[: need - quorum.have] if not quorum.lost else quorum.unasked[: need - quorum.have]
        return self._ask(rid, quorum, first)

    def _ask(self, rid: int, quorum: GetQuorum, owners: tuple[NodeId, ...]) -> None:
        """Ask some owners for their copy."""
        question = ReadReplica(rid, self._local.routes.epoch, quorum.key, quorum.digest)
        for owner in owners:
            quorum.ask(owner)
            self._outbox.send(owner, question)

    def on_replica_same(self, sender: NodeId, same: ReplicaSame) -> None:
        """An owner holds just what we held when we asked."""
        quorum = self._reads.get(same.rid)
        if quorum is None or not quorum.count(sender):
            return self._local.ignore("replica_same")
        if quorum.answers is not None:
            quorum.tell(sender, self._local.now, "digest")
        return self._read_step(same.rid, quorum)

    def on_replica_read(self, sender: NodeId, read: ReplicaRead) -> bool:
        """An owner holds something else. False when the request is not one of ours."""
        quorum = self._reads.get(read.rid)
        if quorum is None:
            return False
        try:
            merged = merge_held(quorum.held, read.record) if read.record else quorum.held
        except msgspec.MsgspecError:
            self._local.counters["malformed_records"] += 1
            if quorum.lose(sender):
                quorum.tell(sender, self._local.now, "malformed record", ok=False)
                self._check_hope(read.rid, quorum, f"{sender} sent a malformed record")
            return True
        if not quorum.count(sender):
            self._local.ignore("replica_read")
            return True
        quorum.held = merged
        quorum.tell(sender, self._local.now, "value" if read.record else "absent")
        self._read_step(read.rid, quorum)
        return True

    def _read_step(self, rid: int, quorum: GetQuorum) -> None:
        """After an answer: reply once there are enough, forget once all have come."""
        if not quorum.done and quorum.have >= quorum.need:
            self._read_enough(quorum)
        if quorum.finished:
            del self._reads[rid]

    def _read_enough(self, quorum: GetQuorum) -> None:
        assert not quorum.done
        local = self._local
        quorum.done = True
        if quorum.heal and quorum.held is not None:
            self._take_in(quorum.key, quorum.held)
            quorum.volatile = True
            local.counters["healed"] += 1
        if quorum.then is not None:
            return self._write_after_read(quorum, quorum.then)
        story = None if quorum.answers is None else self._story(quorum)
        got = Got(quorum.rid, local.routes.epoch, as_read(quorum.held, local.clock.wall), story)
        local.latency.record(int((local.now - quorum.started) * 1000))
        return self._outbox.reply(quorum.client, got, volatile=quorum.volatile)

    # ---- writes ----------------------------------------------------------------------------

    def _write_after_read(self, read: GetQuorum, ask: Put) -> None:
        """The read that a put asked for is in: judge its condition, then write over what was seen."""
        if read.heal and read.held is None:
            text = "this owner's copy of the key is damaged, and no other owner that answered has one"
            return self._refuse(read.client, ask.rid, Error.UNAVAILABLE, text, "kvctl explain KEY")
        record = read.held.record() if read.held is not None else ()
        # The context was judged when the request came; by now the wall clock may have been set back.
        past = decode_context(ask.key, ask.context) if ask.context else None
        failed = condition_problem(ask, record, past, self._local.wall)
        if failed:
            hint = "read the key again and retry with its new context"
            return self._refuse(read.client, ask.rid, Error.CONFLICT, failed, hint, volatile=read.volatile)
        if reads_first(ask) and (past is None or ask.condition == Condition.ABSENT):
            past = join(record)
        need, problem = needed_w(ask.w, ask.mode, len(read.peers) + 1)
        assert not problem
        if read.held is not None:
            self._take_in(ask.key, read.held)
        return self._write(read.client, ask, read.peers, need, past, read.started)

    def _take_in(self, key: bytes, seen: Held) -> None:
        """Merge what a read saw into what is held now: later writes may have come in between."""
        try:
            own = self._outbox.read(key)
        except Unreadable:
            own = None
        merged = merge_held(own, seen.blob)
        if merged is not own:
            self._outbox.write(key, merged)

    def _write(
        self,
        client: Address,
        ask: Put,
        peers: tuple[NodeId, ...],
        need: int,
        past: Past | None,
        started: Millis,
    ) -> None:
        local, outbox = self._local, self._outbox
        try:
            held = outbox.read(ask.key)
            volatile = outbox.volatile
        except Unreadable:
            # Minting over an unreadable copy would be a new clock for an old key: fetch it first.
            return self._read(client, ask, peers, 1, ask)
        if past is None and (ask.siblings or ask.retry):
            past = {}
        expires = local.clock.wall + ask.ttl_ms if ask.ttl_ms else 0
        mint = self._minter.mint(held, past, ask.value, expires)
        if mint.siblings > config.SIBLINGS_MAX:
            text = f"the key has {mint.siblings - 1} siblings, the most a put may leave is {config.SIBLINGS_MAX}"
            hint = "get the key and put with its context"
            return self._refuse(client, ask.rid, Error.CONFLICT, text, hint, volatile=volatile)
        condition = "best_effort" if ask.condition != Condition.NONE else ""
        quorum = PutQuorum(
            client, ask.rid, ask.key, peers, need, ask.mode, started, [] if ask.story else None,
            asked=(1 << len(peers) + 1) - 1, version=mint.version, condition=condition,
        )  # fmt: skip
        if local.peers.avoided:
            self._lose_avoided(quorum)
        rid = local.next_rid()
        self._writes[rid] = quorum
        deadline = started + self._timeout(ask.timeout_ms)
        self._deadlines.add(rid, deadline)
        outbox.write(ask.key, mint.held)
        outbox.ack(local.me, ReplicaWritten(rid))
        until = local.clock.wall + int(deadline - local.now)
        order = WriteReplica(rid, local.routes.epoch, ask.key, mint.held.blob, until)
        for peer in peers:
            outbox.send(peer, order)
        return None

    def on_replica_written(self, sender: NodeId, written: ReplicaWritten) -> None:
        """An owner, maybe this node itself, holds the version durably."""
        quorum = self._writes.get(written.rid)
        local = self._local
        if quorum is None or not quorum.count(ME if sender == local.me else sender):
            return local.ignore("replica_written")
        if quorum.answers is not None:
            quorum.tell(sender, local.now, "written")
        if not quorum.done and quorum.have >= quorum.need:
            quorum.done = True
            version = quorum.version
            story = None if quorum.answers is None else self._story(quorum)
            reply = Written(
                quorum.rid, local.routes.epoch, quorum.have, quorum.need,
                version.actor, version.time, version.past, story,
            )  # fmt: skip
            local.latency.record(int((local.now - quorum.started) * 1000))
            self._outbox.send(quorum.client, reply)
        if quorum.finished:
            del self._writes[written.rid]
        return None

    # ---- what goes wrong -------------------------------------------------------------------

    def on_replica_refused(self, sender: NodeId, refused: ReplicaRefused) -> bool:
        """An owner would not. False when the request is not one of ours."""
        quorum = self._reads.get(refused.rid) or self._writes.get(refused.rid)
        if quorum is None:
            return False
        if quorum.lose(sender):
            quorum.tell(sender, self._local.now, refused.reason, ok=False)
            self._check_hope(refused.rid, quorum, refused.reason)
        return True

    def on_peer_lost(self, peer: NodeId) -> None:
        """A peer cannot be reached: requests that hang on it alone are answered now."""
        for table in (self._reads, self._writes):
            for rid, quorum in list(table.items()):
                if quorum.lose(peer):
                    quorum.tell(peer, self._local.now, "unreachable", ok=False)
                    self._check_hope(rid, quorum, f"{peer} cannot be reached")

    def _check_hope(self, rid: int, quorum: Quorum, why: str) -> None:
        """An owner is out: ask another in its place, or tell the client that there is none."""
        if not quorum.done and quorum.hopeless:
            quorum.done = True
            self._fail(quorum, Error.UNAVAILABLE, f"{self._letter(quorum)}={quorum.need} cannot be met: {why}")
        elif not quorum.done and isinstance(quorum, GetQuorum):
            self._ask(rid, quorum, quorum.unasked[:1])
        if quorum.finished:
            self._reads.pop(rid, None)
            self._writes.pop(rid, None)

    def _hedge(self, now: Millis) -> None:
        """Ask the other owners too, for reads that those asked first keep waiting."""
        hedges = self._hedges
        while hedges and hedges[0][0] <= now:
            _, rid = hedges.popleft()
            quorum = self._reads.get(rid)
            if quorum is not None and not quorum.done:
                self._local.counters["hedged"] += 1
                self._ask(rid, quorum, quorum.unasked)

    @property
    def busy(self) -> bool:
        """Whether a client still waits for an answer."""
        return any(not q.done for table in (self._reads, self._writes) for q in table.values())

    @property
    def timed(self) -> bool:
        """Whether anything here has a deadline."""
        return bool(self._reads or self._writes)

    def on_tick(self, now: Millis) -> None:
        """Answer the requests whose deadline has passed, and avoid the owners that let them down."""
        self._hedge(now)
        for rid in self._deadlines.due(now):
            quorum = self._reads.pop(rid, None) or self._writes.pop(rid, None)
            if quorum is None:
                continue
            for i, peer in enumerate(quorum.peers):
                if quorum.asked & ~(quorum.answered | quorum.lost) & 1 << i:
                    self._avoid(peer, now)
            if not quorum.done:
                quorum.done = True
                self._fail(quorum, Error.INDETERMINATE, "the deadline passed before enough owners answered")

    def _lose_avoided(self, quorum: Quorum) -> None:
        """Do not wait for the owners that failed a moment ago; an answer of theirs still counts."""
        avoided = self._local.peers.avoided
        for peer in quorum.peers:
            if peer in avoided:
                quorum.lose(peer)

    def _avoid(self, peer: NodeId, now: Millis) -> None:
        if self._local.peers.avoid(peer, now):
            self._local.event("avoided", f"{peer} did not answer in time")

    def _fail(self, quorum: Quorum, error: Error, message: str) -> None:
        wrote = isinstance(quorum, PutQuorum)
        story = None if quorum.answers is None else self._story(quorum)
        self._local.counters["failed_" + error.name.lower()] += 1
        failed = Failed(
            quorum.rid, self._local.routes.epoch, error, message, "kvctl status",
            wrote, quorum.have, quorum.need, story,
        )  # fmt: skip
        self._outbox.send(quorum.client, failed)

    def _refuse(
        self, client: Address, rid: int, error: Error, message: str, hint: str = "", *, volatile: bool = False
    ) -> None:
        self._local.counters["refused_" + error.name.lower()] += 1
        failed = Failed(rid, self._local.routes.epoch, error, message, hint)
        self._outbox.reply(client, failed, volatile=volatile)

    def _overloaded(self, client: Address, rid: int) -> None:
        self._refuse(client, rid, Error.OVERLOADED, f"{config.PENDING_MAX} requests are in flight here")

    def _cut_off(
        self, client: Address, rid: int, peers: tuple[NodeId, ...], need: int, letter: str, mine: int
    ) -> bool:
        """Refuse at once what the owners in reach cannot satisfy; nothing has been stored yet."""
        local = self._local
        if mine + local.peers.reachable(peers) >= need:
            return False
        out = ", ".join(p for p in peers if p in local.peers.avoided)
        message = f"{letter}={need} cannot be met: {out} cannot be reached"
        local.counters["failed_unavailable"] += 1
        failed = Failed(rid, local.routes.epoch, Error.UNAVAILABLE, message, "kvctl status", need=need)
        self._outbox.send(client, failed)
        return True

    # ---- helpers ---------------------------------------------------------------------------

    def _past_named(self, ask: Put) -> tuple[Past | None, str]:
        """The past a put's context names, or what is wrong with it."""
        try:
            past = decode_context(ask.key, ask.context)
        except BadContext as error:
            return None, str(error)
        if any(self._local.clock.too_far_ahead(time) for time in past.values()):
            return None, "this context names a time more than a minute ahead: it is not one of ours"
        return past, ""

    def _timeout(self, asked_ms: int) -> Millis:
        return min(asked_ms or self._local.settings.deadline_ms, config.WRITE_DEADLINE_MAX_MS)

    def _letter(self, quorum: Quorum) -> str:
        return "w" if isinstance(quorum, PutQuorum) else "r"

    def _story(self, quorum: Quorum) -> Story:
        local = self._local
        partition = local.routes.partition(quorum.key)
        return Story(
            local.me, quorum.mode, local.routes.epoch, partition, local.routes.owners[partition],
            tuple(quorum.answers or ()), quorum.mode == QUORUM, round(local.now - quorum.started, 3),
            quorum.condition if isinstance(quorum, PutQuorum) else "",
        )  # fmt: skip

    def check_invariants(self) -> None:
        """What must hold between turns."""
        for table in (self._reads, self._writes):
            for quorum in table.values():
                assert not quorum.finished
                assert quorum.done or not quorum.enough
