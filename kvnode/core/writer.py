"""The writer: a client's put or delete, minted here and replicated to every owner.

Promises: acknowledged only when W owners hold the version durably; replicates the whole merged
record, never a lone version; a timeout with fewer than W is told as *indeterminate*.
Never: mints over a copy it cannot read; counts a node twice.
Input: Put, finished reads, ReplicaWritten, HintKept, ReplicaRefused, lost peers, ticks.

    client ─ Put ─► owner ─ mint, merge ─┬─ WriteReplica (the whole merged record) ─► other owners
                                         └─ own commit ─► own vote
    W votes ─► Written.   See Dynamo §4.5 and ARCHITECTURE "A key".

*Sloppy quorum* (Dynamo §4.6). For each owner that is out of reach a fallback keeps the record as a
hint: always, so that there are N copies; as a vote for W in `eventual` only. Where no fallback is left
this node keeps the hint itself, uncounted. With no owner in reach a fallback coordinates, over the
merge of the hints it has.

There are three kinds of put: with a context (it covers what that context saw); blind in `eventual`
(it covers what this node holds); and those that read R owners first: blind deletes, blind `quorum`
writes, and conditional ones (PROTOCOL-CASES 13).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial

from kvnode import config
from kvnode.core.ledger import ME, Ledger
from kvnode.core.local import Local
from kvnode.core.outbox import Unreadable
from kvnode.core.ports import Keeper, Reads
from kvnode.core.quorum import GetQuorum, PutQuorum
from kvnode.core.rules import condition_problem, needed_w, pair_problem, reads_first
from kvnode.core.sides import needed_in_each, set_sides
from kvnode.core.versions import Held, Mint, Minter, merge_held
from kvnode.protocol.context import BadContext, decode_context, join
from kvnode.protocol.messages import (
    Condition,
    Error,
    Hinted,
    HintKept,
    KeepHint,
    Put,
    ReplicaRefused,
    ReplicaWritten,
    WriteReplica,
    Written,
)
from kvnode.protocol.ring import Partition, majority
from kvnode.protocol.types import EVENTUAL, TIME_MAX, Address, Millis, NodeId, Past, WallMillis


class Writer:
    """The writes this node coordinates."""

    def __init__(self, local: Local, reads: Reads, keeper: Keeper) -> None:
        self._local = local
        self._outbox = local.outbox
        self._reads = reads
        self._keeper = keeper
        self._minter = Minter(local.clock, local.rng)
        self.settled: Callable[[Partition], WallMillis] = lambda _: 0
        """Before when everything of a partition is with all its owners."""
        self.ledger: Ledger[PutQuorum] = Ledger(local, "w")
        self._quorums = self.ledger.quorums

    # ---- requests --------------------------------------------------------------------------

    def on_put(self, client: Address, ask: Put, peers: tuple[NodeId, ...]) -> None:
        """Write a key for a client. `peers` are its other owners, the next one among them."""
        local, ledger = self._local, self.ledger
        need, past, problem = self._judge(ask, len(peers) + 1)
        if problem:
            return ledger.refuse(client, ask, Error.INVALID, problem)
        if self._turned_away(client, ask):
            return None
        if local.peers.avoided and ledger.cut_off(client, ask, peers, need, "w"):
            return None
        if reads_first(ask):
            r = majority(len(local.routes.owners[local.routes.partition(ask.key)]))
            if ask.mode == EVENTUAL:
                # Of the owners of now: the next one may not have it all yet. A delete must not wait for those
                # that are out; the story tells how many it saw.
                peers = local.routes.peers[local.routes.partition(ask.key)] or ()
                r = min(need, r, 1 + local.peers.reachable(peers))
            return self._reads.read(client, ask, peers, r, ask)
        return self._write(client, ask, peers, need, past, local.now)

    def on_put_for_owners(self, client: Address, ask: Put, owners: tuple[NodeId, ...]) -> None:
        """Write a key none of whose owners can be reached, as a fallback of theirs; `eventual` only."""
        ledger = self.ledger
        need, past, problem = self._judge(ask, len(owners))
        if problem:
            return ledger.refuse(client, ask, Error.INVALID, problem)
        if self._turned_away(client, ask) or ledger.cut_off(client, ask, owners, need, "w"):
            return None
        if ask.condition != Condition.NONE:
            text = "the condition cannot be judged: no owner of this key can be reached"
            return ledger.refuse(client, ask, Error.UNAVAILABLE, text, "kvctl status", need=need)
        return self._write(client, ask, owners, need, past, self._local.now, owned=False)

    def _judge(self, ask: Put, owners: int) -> tuple[int, Past | None, str]:
        """How many votes of so many owners a put needs and the past it names, or what is wrong with it."""
        need, problem = needed_in_each(needed_w, ask, ask.w, owners, self._local.routes)
        past: Past | None = None
        if ask.context and not problem:
            past, problem = self._past_named(ask)
        return need, past, problem or pair_problem(ask, self._local.settings.max_pair_bytes)

    def _turned_away(self, client: Address, ask: Put) -> bool:
        """Whether this node may not, or cannot, take a put on now; the client has been told."""
        local, ledger = self._local, self.ledger
        if ask.deadline and local.steady > ask.deadline:
            ledger.refuse(client, ask, Error.REFUSED, "its deadline has passed, by this node's clock")
        elif local.refusal:
            ledger.refuse(client, ask, Error.REFUSED, local.refusal, "kvctl check")
        elif len(self._quorums) >= config.PENDING_MAX or self._reads.full:
            ledger.overloaded(client, ask)
        else:
            return False
        return True

    def on_read(self, read: GetQuorum, ask: Put) -> None:
        """The read that a put asked for is in: judge its condition, then write over what was seen."""
        if read.heal and read.held is None:
            text = "this owner's copy of the key is damaged, and no other owner has one"
            return self.ledger.refuse(read.client, ask, Error.UNAVAILABLE, text, "kvctl explain KEY")
        record = read.held.record() if read.held is not None else ()
        # The context was judged when the request came; by now the wall clock may have been set back.
        past = decode_context(ask.key, ask.context) if ask.context else None
        failed = condition_problem(ask, record, past, self._local.wall)
        if failed:
            hint = "read the key again and retry with its new context"
            return self.ledger.refuse(read.client, ask, Error.CONFLICT, failed, hint, volatile=read.volatile)
        if reads_first(ask) and (past is None or ask.condition == Condition.ABSENT):
            past = join(record)
        routes = self._local.routes
        peers = routes.asked[routes.partition(ask.key)]
        assert peers is not None
        need, problem = needed_in_each(needed_w, ask, ask.w, len(peers) + 1, routes)
        assert not problem
        if read.held is not None:
            self._reads.take_in(ask.key, read.held)
        return self._write(read.client, ask, peers, need, past, read.started)

    # ---- minting ---------------------------------------------------------------------------

    def _write(
        self,
        client: Address,
        ask: Put,
        peers: tuple[NodeId, ...],
        need: int,
        past: Past | None,
        started: Millis,
        *,
        owned: bool = True,
    ) -> None:
        local, outbox = self._local, self._outbox
        try:
            held = outbox.read(ask.key) if owned else self._keeper.record(ask.key)
        except Unreadable:
            # Minting over an unreadable copy would be a new clock for an old key: fetch it first.
            return self._reads.read_all_others(client, ask, peers)
        volatile = outbox.volatile or not owned
        if past is None and (ask.siblings or ask.retry):
            past = {}
        expires = local.clock.wall + ask.ttl_ms if ask.ttl_ms else 0
        mint = self._minter.mint(held, past, ask.value, expires, partial(self._settled, ask.key))
        if self._minter.pruned:
            local.counters["clock_entries_pruned"] = self._minter.pruned
        problem, hint = mint_problem(mint)
        if problem:
            return self.ledger.refuse(client, ask, Error.CONFLICT, problem, hint, volatile=volatile)
        condition = "best_effort" if ask.condition != Condition.NONE else ""
        quorum = PutQuorum(
            client, ask.rid, ask.key, peers, need, ask.mode, started, [] if ask.story else None,
            asked=(1 << len(peers) + 1) - 1, version=mint.version, record=mint.held.blob,
            condition=condition, request=ask,
        )  # fmt: skip
        if local.routes.pending:
            self._set_sides(quorum)
        rid = self.ledger.open(quorum, self.ledger.deadline(ask.timeout_ms, started))
        if owned:
            outbox.write(ask.key, mint.held)
            outbox.ack(local.me, ReplicaWritten(rid))
        else:
            quorum.lose(ME)
        avoided = local.peers.avoided
        if not avoided and not local.skewed:
            until = local.steady + local.settings.write_deadline_ms
            order = WriteReplica(rid, local.routes.epoch_of(ask.key), ask.key, mint.held.blob, until)
            for peer in peers:
                outbox.send(peer, order)
            return None
        epoch = local.routes.epoch_of(ask.key)
        for peer in peers:
            if peer not in local.peers.suspected:
                outbox.send(peer, WriteReplica(rid, epoch, ask.key, mint.held.blob, local.until(peer)))
            if peer in avoided:
                quorum.lose(peer)
                self._keep_elsewhere(rid, quorum, peer, mint.held if not owned else None)
        return None

    def _set_sides(self, quorum: PutQuorum) -> None:
        """Where the owners are about to be others, W is needed in both sets of them."""
        local, ask = self._local, quorum.request
        assert isinstance(ask, Put)
        partition = local.routes.partition(quorum.key)
        set_sides(local.routes, local.me, partition, quorum, lambda n: needed_w(ask.w, ask.mode, n)[0] or n)

    def on_ring(self, changed: Collection[int]) -> None:
        """Some partitions have other owners, or are to: the same version goes to them, on the same request.

        Who holds it already has its vote. A node that owns the key no more sees the put through.
        """
        local = self._local
        for rid, quorum in list(self._quorums.items()):
            partition = local.routes.partition(quorum.key)
            if partition not in changed:
                continue
            self._retarget(quorum, partition)
            epoch = local.routes.since[partition]
            for peer in quorum.waiting:
                order = WriteReplica(rid, epoch, quorum.key, quorum.record, local.until(peer))
                self._outbox.send(peer, order)
                if peer in local.peers.avoided:
                    quorum.lose(peer)
                    self._keep_elsewhere(rid, quorum, peer)
            self._step(rid, quorum)

    def _retarget(self, quorum: PutQuorum, partition: Partition) -> None:
        local, ask = self._local, quorum.request
        assert isinstance(ask, Put)
        holders = local.routes.holders(partition)
        quorum.retarget(tuple(o for o in holders if o != local.me), mine=local.me in holders)
        owners = len(local.routes.owners[partition])
        quorum.need = needed_w(ask.w, ask.mode, owners)[0] or owners
        self._set_sides(quorum)

    def _settled(self, key: bytes) -> WallMillis:
        """Asked only where a past is long: before when all of this key's partition is with all its owners."""
        return self.settled(self._local.routes.partition(key))

    # ---- standing in -----------------------------------------------------------------------

    def _keep_elsewhere(self, rid: int, quorum: PutQuorum, owner: NodeId, own: Held | None = None) -> None:
        """Have the record kept for an owner that is out of reach: by a fallback, else by this node.

        `own`: what this node itself minted as a fallback. It keeps it for the first owner, and so votes.
        """
        local = self._local
        partition = local.routes.partition(quorum.key)
        busy = quorum.called or {}
        usable = [f for f in local.routes.fallbacks(partition) if f != local.me and f not in local.peers.avoided]
        fallback = next((f for f in usable if f not in busy), usable[0] if usable else None)
        if own is not None and local.me not in busy:
            fallback = None
        if fallback is not None:
            epoch, until = local.routes.epoch_of(quorum.key), local.until(fallback)
            self._outbox.send(fallback, KeepHint(rid, epoch, owner, quorum.key, quorum.record, until))
            quorum.stand_in(fallback, owner)
            self._note_hint(quorum, owner, fallback)
        elif self._keeper.keep(owner, quorum.key, own if own is not None else merge_held(None, quorum.record)):
            self._note_hint(quorum, owner, local.me)
            if own is not None:
                quorum.stand_in(local.me, owner)
                self._outbox.ack(local.me, HintKept(rid))

    def _note_hint(self, quorum: PutQuorum, owner: NodeId, holder: NodeId) -> None:
        if quorum.answers is not None:
            quorum.hinted = [*(quorum.hinted or ()), Hinted(owner, holder)]

    def on_hint_kept(self, sender: NodeId, kept: HintKept) -> None:
        """A fallback, maybe this node itself, keeps the record durably."""
        quorum = self._quorums.get(kept.rid)
        if quorum is None or not quorum.count_stand_in(sender, counts=quorum.mode == EVENTUAL):
            return self._local.ignore("hint_kept")
        quorum.tell(sender, self._local.now, "hint kept", kind="fallback")
        return self._step(kept.rid, quorum)

    # ---- the past a put names --------------------------------------------------------------

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

    def on_replica_written(self, sender: NodeId, written: ReplicaWritten) -> bool:
        """An owner, maybe this node itself, holds the version durably. False when it is not one of ours."""
        quorum = self._quorums.get(written.rid)
        local = self._local
        if quorum is None or not quorum.count(ME if sender == local.me else sender):
            return False
        if quorum.answers is not None:
            quorum.tell(sender, local.now, "written")
        self._step(written.rid, quorum)
        return True

    def _step(self, rid: int, quorum: PutQuorum) -> None:
        """After a vote: acknowledge once there are enough, forget once all have come."""
        local = self._local
        if not quorum.done and quorum.have >= quorum.need:
            quorum.done = True
            version = quorum.version
            reply = Written(
                quorum.rid, local.routes.epoch, quorum.have, quorum.need,
                version.actor, version.time, version.past, self.ledger.story(quorum),
            )  # fmt: skip
            local.latency.record(int((local.now - quorum.started) * 1000))
            local.counters["puts"] += 1
            self._outbox.send(quorum.client, reply)
        if not quorum.done and quorum.lost and quorum.hopeless:
            # An owner was out when the record left, and a hint for it is no vote: nobody makes up the number.
            text = f"w={quorum.need} cannot be met: {quorum.have} replicas hold it"
            self.ledger.fail(quorum, Error.UNAVAILABLE, text)
        if quorum.finished:
            assert quorum.done
            del self._quorums[rid]

    # ---- what goes wrong -------------------------------------------------------------------

    def on_replica_refused(self, sender: NodeId, refused: ReplicaRefused) -> bool:
        """An owner or a fallback would not. False when the request is not one of ours."""
        quorum = self._quorums.get(refused.rid)
        if quorum is None:
            return False
        self._out(refused.rid, quorum, sender, refused.reason)
        return True

    def on_peer_lost(self, peer: NodeId) -> None:
        """A peer cannot be reached: what was meant for it is kept elsewhere."""
        for rid, quorum in list(self._quorums.items()):
            self._out(rid, quorum, peer, "unreachable")

    def _out(self, rid: int, quorum: PutQuorum, node: NodeId, why: str) -> None:
        """A node will not answer: an owner's record goes to a fallback, a fallback's hint is missed."""
        if quorum.lose(ME if node == self._local.me else node):
            quorum.tell(node, self._local.now, why, ok=False)
            if node != self._local.me:
                self._keep_elsewhere(rid, quorum, node)
        elif quorum.count_stand_in(node, counts=False):
            quorum.tell(node, self._local.now, why, ok=False, kind="fallback")
            partition = self._local.routes.partition(quorum.key)
            for owner in quorum.peers:
                if quorum.is_lost(owner):
                    self._keeper.miss(partition, owner)
        else:
            return
        self.ledger.settle(rid, quorum, node, why)

    @property
    def busy(self) -> bool:
        """Whether a client still waits for an answer."""
        return any(not quorum.done for quorum in self._quorums.values())

    @property
    def timed(self) -> bool:
        """Whether anything here has a deadline."""
        return bool(self._quorums)

    def on_tick(self, now: Millis) -> None:
        """End what is overdue; what an owner did not confirm is kept for it."""
        for rid, quorum in self.ledger.expire(now):
            for owner in quorum.waiting:
                self._keep_elsewhere(rid, quorum, owner)


def mint_problem(mint: Mint) -> tuple[str, str]:
    """Why a new version must not be kept, and what to do; empty when it may."""
    if mint.siblings > config.SIBLINGS_MAX:
        text = f"the key has {mint.siblings - 1} siblings, the most a put may leave is {config.SIBLINGS_MAX}"
        return text, "get the key and put with its context"
    if mint.version.time > TIME_MAX:
        return "the key names a time at the end of the clock: no later one can be minted", "put under another key"
    return "", ""
