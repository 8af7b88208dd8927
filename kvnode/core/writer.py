"""The writer: a client's put or delete, minted here and replicated to every owner.

Promises: acknowledged only when W owners hold the version durably; replicates the whole merged
record, never a lone version; a timeout with fewer than W is told as *indeterminate*.
Never: mints over a copy it cannot read; counts a node twice.
Input: Put, finished reads, ReplicaWritten, ReplicaRefused, lost peers, ticks.

    client ─ Put ─► owner ─ mint, merge ─┬─ WriteReplica (the whole merged record) ─► other owners
                                         └─ own commit ─► own vote
    W votes ─► Written.   See Dynamo §4.5 and ARCHITECTURE "A key".

There are three kinds of put: with a context (it covers what that context saw); blind in `eventual`
(it covers what this node holds); and those that read R owners first: blind deletes, blind `quorum`
writes, and conditional ones (PROTOCOL-CASES 13).
"""

from __future__ import annotations

from typing import Protocol

from kvnode import config
from kvnode.core.ledger import ME, Ledger
from kvnode.core.local import Local
from kvnode.core.outbox import Unreadable
from kvnode.core.quorum import GetQuorum, PutQuorum
from kvnode.core.rules import condition_problem, needed_w, pair_problem, reads_first
from kvnode.core.versions import Held, Mint, Minter
from kvnode.protocol.context import BadContext, decode_context, join
from kvnode.protocol.messages import (
    Condition,
    Error,
    Get,
    Put,
    ReplicaRefused,
    ReplicaWritten,
    WriteReplica,
    Written,
)
from kvnode.protocol.ring import majority
from kvnode.protocol.types import QUORUM, TIME_MAX, Address, Millis, NodeId, Past


class Reads(Protocol):
    """What a writer needs of a reader."""

    @property
    def full(self) -> bool:
        """Whether no more reads are taken on."""
        ...

    def read(
        self, client: Address, ask: Get | Put, peers: tuple[NodeId, ...], need: int, then: Put | None
    ) -> None:
        """Read a key from `need` owners, then go on with the put."""
        ...

    def read_all_others(self, client: Address, ask: Put, peers: tuple[NodeId, ...]) -> None:
        """Mend a damaged copy from all other owners, then go on with the put."""
        ...

    def take_in(self, key: bytes, seen: Held) -> None:
        """Merge what was read into what is held."""
        ...


class Writer:
    """The writes this node coordinates."""

    def __init__(self, local: Local, reads: Reads) -> None:
        self._local = local
        self._outbox = local.outbox
        self._reads = reads
        self._minter = Minter(local.clock, local.rng)
        self.ledger: Ledger[PutQuorum] = Ledger(local, "w")
        self._quorums = self.ledger.quorums

    # ---- requests --------------------------------------------------------------------------

    def on_put(self, client: Address, ask: Put, peers: tuple[NodeId, ...]) -> None:
        """Write a key for a client. `peers` are its other owners."""
        local, ledger = self._local, self.ledger
        need, problem = needed_w(ask.w, ask.mode, len(peers) + 1)
        past: Past | None = None
        if ask.context and not problem:
            past, problem = self._past_named(ask)
        if not problem:
            problem = pair_problem(ask, local.settings.max_pair_bytes)
        if problem:
            return ledger.refuse(client, ask.rid, Error.INVALID, problem)
        if ask.deadline and local.clock.wall > ask.deadline:
            return ledger.refuse(client, ask.rid, Error.REFUSED, "its deadline has passed, by this node's clock")
        if len(self._quorums) >= config.PENDING_MAX or self._reads.full:
            return ledger.overloaded(client, ask.rid)
        if local.peers.avoided and ledger.cut_off(client, ask.rid, peers, need, 1):
            return None
        if reads_first(ask):
            r = majority(len(peers) + 1) if ask.mode == QUORUM else min(need, majority(len(peers) + 1))
            return self._reads.read(client, ask, peers, r, ask)
        return self._write(client, ask, peers, need, past, local.now)

    def on_read(self, read: GetQuorum, ask: Put) -> None:
        """The read that a put asked for is in: judge its condition, then write over what was seen."""
        if read.heal and read.held is None:
            text = "this owner's copy of the key is damaged, and no other owner has one"
            return self.ledger.refuse(read.client, ask.rid, Error.UNAVAILABLE, text, "kvctl explain KEY")
        record = read.held.record() if read.held is not None else ()
        # The context was judged when the request came; by now the wall clock may have been set back.
        past = decode_context(ask.key, ask.context) if ask.context else None
        failed = condition_problem(ask, record, past, self._local.wall)
        if failed:
            hint = "read the key again and retry with its new context"
            return self.ledger.refuse(read.client, ask.rid, Error.CONFLICT, failed, hint, volatile=read.volatile)
        if reads_first(ask) and (past is None or ask.condition == Condition.ABSENT):
            past = join(record)
        need, problem = needed_w(ask.w, ask.mode, len(read.peers) + 1)
        assert not problem
        if read.held is not None:
            self._reads.take_in(ask.key, read.held)
        return self._write(read.client, ask, read.peers, need, past, read.started)

    # ---- minting ---------------------------------------------------------------------------

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
        except Unreadable:
            # Minting over an unreadable copy would be a new clock for an old key: fetch it first.
            return self._reads.read_all_others(client, ask, peers)
        volatile = outbox.volatile
        if past is None and (ask.siblings or ask.retry):
            past = {}
        expires = local.clock.wall + ask.ttl_ms if ask.ttl_ms else 0
        mint = self._minter.mint(held, past, ask.value, expires)
        problem, hint = mint_problem(mint)
        if problem:
            return self.ledger.refuse(client, ask.rid, Error.CONFLICT, problem, hint, volatile=volatile)
        condition = "best_effort" if ask.condition != Condition.NONE else ""
        quorum = PutQuorum(
            client, ask.rid, ask.key, peers, need, ask.mode, started, [] if ask.story else None,
            asked=(1 << len(peers) + 1) - 1, version=mint.version, condition=condition,
        )  # fmt: skip
        if local.peers.avoided:
            self.ledger.lose_avoided(quorum)
        deadline = self.ledger.deadline(ask.timeout_ms, started)
        rid = self.ledger.open(quorum, deadline)
        outbox.write(ask.key, mint.held)
        outbox.ack(local.me, ReplicaWritten(rid))
        # Merging a version late buries nothing, so the bound is wide enough for clocks that disagree.
        until = local.clock.wall + config.WRITE_DEADLINE_MAX_MS
        order = WriteReplica(rid, local.routes.epoch, ask.key, mint.held.blob, until)
        for peer in peers:
            outbox.send(peer, order)
        return None

    def _past_named(self, ask: Put) -> tuple[Past | None, str]:
        """The past a put's context names, or what is wrong with it."""
        try:
            past = decode_context(ask.key, ask.context)
        except BadContext as error:
            return None, str(error)
        ahead = {actor: time for actor, time in past.items() if self._local.clock.too_far_ahead(time)}
        if ahead and not self._known(ask.key, ahead):
            return None, "this context names a time more than a minute ahead: it is not one of ours"
        return past, ""

    def _known(self, key: bytes, times: Past) -> bool:
        """Whether our own copy names these times: a clock that jumped made them, not a forger."""
        try:
            held = self._outbox.read(key)
        except Unreadable:
            return False
        seen = join(held.record()) if held is not None else {}
        return all(seen.get(actor, 0) >= time for actor, time in times.items())

    # ---- votes -----------------------------------------------------------------------------

    def on_replica_written(self, sender: NodeId, written: ReplicaWritten) -> None:
        """An owner, maybe this node itself, holds the version durably."""
        quorum = self._quorums.get(written.rid)
        local = self._local
        if quorum is None or not quorum.count(ME if sender == local.me else sender):
            return local.ignore("replica_written")
        if quorum.answers is not None:
            quorum.tell(sender, local.now, "written")
        if not quorum.done and quorum.have >= quorum.need:
            quorum.done = True
            version = quorum.version
            reply = Written(
                quorum.rid, local.routes.epoch, quorum.have, quorum.need,
                version.actor, version.time, version.past, self.ledger.story(quorum),
            )  # fmt: skip
            local.latency.record(int((local.now - quorum.started) * 1000))
            self._outbox.send(quorum.client, reply)
        if quorum.finished:
            del self._quorums[written.rid]
        return None

    # ---- what goes wrong -------------------------------------------------------------------

    def on_replica_refused(self, sender: NodeId, refused: ReplicaRefused) -> bool:
        """An owner would not. False when the request is not one of ours."""
        quorum = self._quorums.get(refused.rid)
        if quorum is None:
            return False
        self.ledger.out(refused.rid, quorum, sender, refused.reason)
        return True

    def on_peer_lost(self, peer: NodeId) -> None:
        """A peer cannot be reached: writes that hang on it alone are answered now."""
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


def mint_problem(mint: Mint) -> tuple[str, str]:
    """Why a new version must not be kept, and what to do; empty when it may."""
    if mint.siblings > config.SIBLINGS_MAX:
        text = f"the key has {mint.siblings - 1} siblings, the most a put may leave is {config.SIBLINGS_MAX}"
        return text, "get the key and put with its context"
    if mint.version.time > TIME_MAX:
        return "the key names a time at the end of the clock: no later one can be minted", "put under another key"
    return "", ""
