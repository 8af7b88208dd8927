"""The proposer: every operation of a key in mode `strong` is a round of consensus on its register.

Promises: each key is a linearizable register with compare-and-set; a write that may have left says so,
and is never made twice. Never: counts its own vote before its commit; proposes over what it did not see.
Input: Get and Put in mode `strong`, Promised, Accepted, Outbid, RegisterRead, ReplicaRefused, lost
peers, ticks.

    get ─ ReadRegister ─► owners     a majority at one ballot, no higher promise: answered in one trip
     └──────┐ else
    put ─ Prepare ─► owners ─ majority promised ─► what is there now ─ Accept ─► owners ─ majority ─► reply
             ▲                                                            │
             └──────────── outbid: wait a random while, then higher ◄─────┘

See Rystsov, "CASPaxos: Replicated State Machines without logs" (2018) §2.2, and PROTOCOL-CASES 14.

*A value is a record of one version*, whose dot is the ballot it was first proposed under: a later round
that carries it on changes the ballot it is accepted under, but not the version. So a reader's context
stays good, and a proposer knows its own write again. Once an `Accept` with a new version has left and was
outbid, there are three cases, by what the next majority of promises shows:

- this version: someone carried it on, or nobody needs to. Finish it; it was written once.
- another one under a higher ballot: ours may have been there before it. *Indeterminate*.
- none later than our first ballot: it was never chosen, and once we are through it never can be. The same
  version may be proposed again, if the condition still holds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import msgspec

from kvnode import config
from kvnode.core.ballots import Ballots
from kvnode.core.lanes import Lanes
from kvnode.core.local import Local
from kvnode.core.proposal import ACCEPT, PREPARE, READ, Round, no_majority, versions_here
from kvnode.core.rules import strong_condition_problem, strong_problem
from kvnode.core.sides import poll_for
from kvnode.protocol.consensus import (
    NO_BALLOT,
    Accept,
    Accepted,
    Ballot,
    Outbid,
    Prepare,
    Promised,
    ReadRegister,
    RegisterRead,
)
from kvnode.protocol.messages import Error, Failed, Get, Got, Put, ReplicaRefused, Written
from kvnode.protocol.types import (
    TIME_MAX,
    Address,
    Millis,
    NodeId,
    Record,
    Version,
    decode_record,
    encode_record,
)


class Strong:
    """The rounds this node proposes."""

    def __init__(self, local: Local, ballots: Ballots) -> None:
        self._local = local
        self._outbox = local.outbox
        self._rounds: dict[int, Round] = {}
        self._lanes = Lanes()
        self._ballots = ballots
        self.silent: Callable[[NodeId], bool] = lambda _: False
        """Whether a member has missed beats."""

    # ---- requests --------------------------------------------------------------------------

    def on_request(self, client: Address, ask: Get | Put, peers: tuple[NodeId, ...]) -> None:
        """Read or write a register for a client. `peers` are the key's other owners."""
        local = self._local
        poll = poll_for(local.routes, local.routes.partition(ask.key))
        problem = strong_problem(ask, local.settings.max_pair_bytes)
        out = [p for p in peers if p in local.peers.avoided]
        if problem:
            return self._refuse(client, ask, Error.INVALID, problem)
        if isinstance(ask, Put) and ask.deadline and local.steady > ask.deadline:
            return self._refuse(client, ask, Error.REFUSED, "its deadline has passed, by this node's clock")
        if local.refusal:
            return self._refuse(client, ask, Error.REFUSED, local.refusal, "kvctl check")
        if len(self._rounds) + self._lanes.waiting >= config.STRONG_MAX:
            return self._refuse(client, ask, Error.OVERLOADED, f"{config.STRONG_MAX} rounds are under way here")
        if isinstance(ask, Put) and self._lanes.full(ask.key):
            return self._refuse(client, ask, Error.OVERLOADED, f"{config.STRONG_LINE_MAX} writes of it wait here")
        out += [local.me] if local.routes.partition(ask.key) in local.voteless else []
        if not poll.suffice([node for node in poll.members if node not in out]):
            text = no_majority(poll.need, poll.members, out)
            return self._refuse(client, ask, Error.UNAVAILABLE, text, "kvctl status")
        timeout = min(ask.timeout_ms or local.settings.deadline_ms, config.BALLOT_LIFE_MS)
        one = Round(client, ask, local.now, local.now + timeout, poll, [] if ask.story else None)
        if isinstance(ask, Get):
            return self._read(one)
        return self._prepare(one) if self._lanes.enter(one) else None

    def _refuse(self, client: Address, ask: Get | Put, error: Error, text: str, hint: str = "") -> None:
        """A request that was not begun: it left no trace."""
        self._local.counters["refused_" + error.name.lower()] += 1
        self._outbox.send(client, Failed(ask.rid, self._local.routes.epoch, error, text, hint))

    # ---- asking ----------------------------------------------------------------------------

    def _open(self, one: Round, phase: str) -> int:
        """Begin a phase, under a request id of its own: answers to an earlier one count for nothing."""
        one.phase, one.again_at, one.asked = phase, 0, self._local.now
        one.poll = poll_for(self._local.routes, self._local.routes.partition(one.ask.key))
        rid = self._local.next_rid()
        self._rounds[rid] = one
        for node in one.poll.members:
            if node in self._local.peers.suspected:
                one.poll.lost.add(node)
        return rid

    def _until(self, one: Round, node: NodeId) -> int:
        """The round's deadline by a node's steady clock."""
        left = max(0, int(one.deadline - self._local.now))
        return self._local.steady + self._local.ahead.get(node, 0) + left

    def _read(self, one: Round) -> None:
        rid = self._open(one, READ)
        one.told, one.reads = {}, one.reads + 1
        for node in one.poll.waiting:
            self._outbox.send(node, ReadRegister(rid, self._local.routes.epoch_of(one.ask.key), one.ask.key))

    def _prepare(self, one: Round) -> None:
        local = self._local
        one.ballot = self._ballot(one)
        one.accepted, one.record = NO_BALLOT, ()
        one.tries += 1
        local.counters["strong_rounds"] += 1
        rid = self._open(one, PREPARE)
        if one.ballot.time > TIME_MAX:
            return self._fail(rid, one, Error.CONFLICT, "the register is at the end of the clock")
        epoch = local.routes.epoch_of(one.ask.key)
        for node in one.poll.waiting:
            self._outbox.send(node, Prepare(rid, epoch, one.ask.key, one.ballot, self._until(one, node)))
        return self._settle(rid, one)

    def _ballot(self, one: Round) -> Ballot:
        return self._ballots.above(max(one.highest, one.ballot))

    def _accept(self, rid: int, one: Round, record: Record, problem: str = "") -> None:
        del self._rounds[rid]
        one.proposed, one.problem = record, problem
        rid = self._open(one, ACCEPT)
        epoch, blob = self._local.routes.epoch_of(one.ask.key), encode_record(record)
        for node in one.poll.waiting:
            order = Accept(rid, epoch, one.ask.key, one.ballot, blob, self._until(one, node))
            self._outbox.send(node, order)
        self._settle(rid, one)

    # ---- answers ---------------------------------------------------------------------------

    def _round(self, rid: int, phase: str, what: str) -> Round | None:
        one = self._rounds.get(rid)
        if one is not None and one.phase == phase and self._local.now < one.deadline:
            return one
        self._local.ignore(what)
        return None

    def on_register_read(self, sender: NodeId, told: RegisterRead) -> None:
        """What an owner has promised and accepted."""
        one = self._round(told.rid, READ, "register_read")
        if one is None or not one.poll.agree(sender):
            return None
        one.tell(self._local.now, sender, "accepted" if told.record else "absent")
        one.told[sender] = told
        one.highest = max(one.highest, told.promised)
        alike = [node for node, t in one.told.items() if t.accepted == told.accepted == t.promised]
        if one.poll.suffice(alike):
            record = self._decoded(told.record)
            if record is not None:
                self._local.counters["strong_one_trip"] += 1
                return self._got(told.rid, one, record)
        if one.poll.enough and not one.again_at:
            # The others may yet make up a majority that agrees; else it takes a ballot.
            one.again_at = self._local.now + config.HEDGE_MS
        return self._settle(told.rid, one)

    def on_promised(self, sender: NodeId, told: Promised) -> None:
        """An owner takes no lower ballot any more."""
        one = self._round(told.rid, PREPARE, "promised")
        if one is None:
            return None
        record = self._decoded(told.record)
        if record is None:
            return self.on_silent(sender, told.rid, "malformed record")
        if not one.poll.agree(sender):
            return None
        one.tell(self._local.now, sender, "promised")
        if told.accepted > one.accepted:
            one.accepted, one.record = told.accepted, record
        if one.poll.enough:
            return self._propose(told.rid, one)
        return self._settle(told.rid, one)

    def _propose(self, rid: int, one: Round) -> None:
        """A majority has promised: carry on what was accepted last, or write over it."""
        local, ask, current = self._local, one.ask, one.record
        if isinstance(ask, Get):
            # Nothing accepted by this majority: no lower ballot can come through any more.
            return self._accept(rid, one, current) if current else self._got(rid, one, ())
        if one.maybe_applied:
            assert one.version is not None
            if current == (one.version,):
                return self._accept(rid, one, current)
            if one.accepted > one.first:
                text = "outbid while it was written: another write may have replaced it"
                return self._fail(rid, one, Error.INDETERMINATE, text)
        problem = strong_condition_problem(ask, current)
        if problem and current:
            return self._accept(rid, one, current, problem)
        if not problem and not current and versions_here(local, ask.key):
            problem = "this key has versions written in other modes: delete it there first"
        if problem:
            return self._fail(rid, one, Error.CONFLICT, problem)
        if one.version is None:
            one.version = Version(one.ballot.by, one.ballot.time, {}, ask.value)
        if not one.maybe_applied:
            one.first = one.ballot
        local.counters["strong_writes"] += 1
        return self._accept(rid, one, (one.version,))

    def on_accepted(self, sender: NodeId, told: Accepted) -> None:
        """An owner has taken the value."""
        one = self._round(told.rid, ACCEPT, "accepted")
        if one is None or not one.poll.agree(sender):
            return None
        one.tell(self._local.now, sender, "written")
        if not one.poll.enough:
            return self._settle(told.rid, one)
        if isinstance(one.ask, Get):
            return self._got(told.rid, one, one.proposed)
        if one.problem:
            one.first = NO_BALLOT  # what was there is chosen over whatever of ours was accepted
            return self._fail(told.rid, one, Error.CONFLICT, one.problem)
        return self._written(told.rid, one)

    def on_outbid(self, sender: NodeId, told: Outbid) -> None:
        """An owner has promised a higher ballot."""
        one = self._rounds.get(told.rid)
        if one is None or one.phase not in (PREPARE, ACCEPT) or sender not in one.poll.members:
            return self._local.ignore("outbid")
        self._local.counters["strong_outbid"] += 1
        one.tell(self._local.now, sender, "outbid", ok=False)
        one.highest = max(one.highest, told.promised)
        if sender not in one.poll.agreed:
            one.poll.outbid.add(sender)
        if not one.again_at:
            # Duellists would outbid each other for ever: each waits a random while, and longer each time.
            longest = min(config.BACKOFF_MS << min(one.tries, 8), config.BACKOFF_MS_MAX)
            one.again_at = self._local.now + 1 + self._local.rng.random() * longest
        return self._settle(told.rid, one)

    def _decoded(self, blob: bytes) -> Record | None:
        """What an owner accepted; None where that is no register's value."""
        try:
            record = decode_record(blob) if blob else ()
        except msgspec.MsgspecError:
            record = None
        if record is None or len(record) > 1:
            self._local.counters["malformed_records"] += 1
            return None
        return record

    # ---- the end ---------------------------------------------------------------------------

    def _settle(self, rid: int, one: Round) -> None:
        """After an answer, or the lack of one: give up what cannot succeed under any ballot."""
        poll = one.poll
        if one.phase == READ and not poll.waiting and poll.enough:
            one.again_at = self._local.now
        if not poll.hopeless or one.again_at:
            return
        out = [node for node in poll.members if node in poll.lost]
        self._fail(rid, one, Error.UNAVAILABLE, no_majority(poll.need, poll.members, out))

    def _over(self, one: Round) -> None:
        """A request has its answer; the next write of the key may begin."""
        following = self._lanes.leave(one.ask.key) if isinstance(one.ask, Put) else None
        if following is not None:
            self._prepare(following)

    def _got(self, rid: int, one: Round, record: Record) -> None:
        self._end(rid, one)
        blob = encode_record(record) if record else b""
        self._outbox.send(one.client, Got(one.ask.rid, self._local.routes.epoch, blob, one.story(self._local)))

    def _written(self, rid: int, one: Round) -> None:
        self._end(rid, one)
        (version,) = one.proposed
        reply = Written(
            one.ask.rid, self._local.routes.epoch, len(one.poll.agreed), one.poll.need,
            version.actor, version.time, version.past, one.story(self._local),
        )  # fmt: skip
        self._outbox.send(one.client, reply)
        self._over(one)

    def _end(self, rid: int, one: Round) -> None:
        del self._rounds[rid]
        self._local.latency.record(int((self._local.now - one.started) * 1000))

    def _fail(self, rid: int, one: Round, error: Error, text: str) -> None:
        del self._rounds[rid]
        maybe = one.maybe_applied
        if maybe:
            error = Error.INDETERMINATE
        self._local.counters["failed_" + error.name.lower()] += 1
        acked = len(one.poll.agreed) if one.phase == ACCEPT else 0
        failed = Failed(
            one.ask.rid, self._local.routes.epoch, error, text, "kvctl status", maybe, acked, one.poll.need,
            one.story(self._local),
        )  # fmt: skip
        self._outbox.send(one.client, failed)
        self._over(one)

    # ---- what goes wrong -------------------------------------------------------------------

    def on_ring(self, changed: Collection[int]) -> None:
        """Some partitions have other owners, or are to: what is under way there begins a new try among them.

        What was sent to be accepted before may have been: that is known of a round, whoever its owners are.
        """
        routes = self._local.routes
        for rid, one in list(self._rounds.items()):
            if routes.partition(one.ask.key) in changed:
                del self._rounds[rid]
                self._read(one) if one.phase == READ else self._prepare(one)

    def on_replica_refused(self, sender: NodeId, refused: ReplicaRefused) -> bool:
        """An owner would not vote. False when the request is not one of ours."""
        if refused.rid not in self._rounds:
            return False
        self.on_silent(sender, refused.rid, refused.reason)
        return True

    def on_silent(self, node: NodeId, rid: int, why: str) -> None:
        """An owner will not answer this."""
        one = self._rounds[rid]
        if node in one.poll.waiting:
            one.poll.lost.add(node)
            one.tell(self._local.now, node, why, ok=False)
            self._settle(rid, one)

    def on_peer_lost(self, peer: NodeId) -> None:
        """A peer cannot be reached."""
        for rid in list(self._rounds):
            self.on_silent(peer, rid, "unreachable")

    @property
    def busy(self) -> bool:
        """Whether a client still waits for an answer, and so, whether anything here has a deadline."""
        return bool(self._rounds)

    timed = busy

    def on_tick(self, now: Millis) -> None:
        """End what is overdue, begin anew what was outbid, and wait for nobody who is known to be out."""
        for one in self._lanes.overdue(now):
            self._refuse(one.client, one.ask, Error.UNAVAILABLE, "others wrote this key until its deadline passed")
        for rid, one in list(self._rounds.items()):
            if now >= one.deadline:
                self._expire(rid, one)
            elif one.again_at and now >= one.again_at:
                del self._rounds[rid]
                # A read that meets a write does not outbid it at once: it is mostly done in a moment.
                reads = one.phase == READ and (one.reads <= config.REREADS or self._lanes.busy(one.ask.key))
                self._read(one) if reads else self._prepare(one)
            else:
                for node in one.poll.waiting:
                    if rid in self._rounds and (why := self._missing(one, node)):
                        self.on_silent(node, rid, why)

    def _missing(self, one: Round, node: NodeId) -> str:
        """Why an owner is not waited for any more; empty while it is."""
        if node in self._local.peers.suspected:
            return "suspected"
        # What was sent to be accepted may have been: then every answer counts, however late.
        unanswered = one.phase != ACCEPT and self._local.now - one.asked > config.SILENT_AGAIN_MS
        return "silent" if unanswered and self.silent(node) else ""

    def _expire(self, rid: int, one: Round) -> None:
        local = self._local
        for node in one.poll.waiting:
            if node != local.me and local.peers.avoid(node, local.now):
                local.event("avoided", f"{node} did not answer in time")
        error = Error.INDETERMINATE if isinstance(one.ask, Get) else Error.UNAVAILABLE
        self._fail(rid, one, error, "the deadline passed before a majority of the owners answered")
