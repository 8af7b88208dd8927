"""The decree: which ring comes next is chosen by single-decree consensus among the members of this one.

Promises: of each epoch at most one ring is ever chosen, whoever proposes, crashes or comes back; no vote leaves
before it is durable; a proposer that cannot reach a majority says how many it reaches and needs.
Never: votes for an epoch that does not follow the one held; votes on a disk that may have lost a vote.
Input: DecreePrepare, DecreeAccept and their answers, AskVotes, VotesKnown, rings, ticks.

    propose ─ DecreePrepare ─► members of epoch e ─ majority ─► what was accepted last, else ours
            ─ DecreeAccept  ─► members of epoch e ─ majority ─► chosen: the ring of epoch e + 1
    a member that is further tells its ring; one that is behind fetches it, and votes then

One instance an epoch, so an acceptor keeps one register. See Lamport, "Paxos Made Simple" (2001) §2.

*Lost disks.* Before its first vote a disk asks a majority of the others whether they know another of this
member's; they remember it, durably. One that replaced another votes only beyond every epoch they told of:
the old one's votes were for none of those (PROTOCOL-CASES 10).
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec import Struct

from kvnode.core.ballots import Ballots
from kvnode.core.consensus import EMPTY, Poll, Register, accept, poll_of, promise
from kvnode.core.local import Local
from kvnode.protocol.consensus import NO_BALLOT, Ballot
from kvnode.protocol.replication import RECOVERING, ReplicaRefused
from kvnode.protocol.ring import Ring, majority
from kvnode.protocol.topology import (
    AskVotes,
    DecreeAccept,
    DecreeAccepted,
    DecreeOutbid,
    DecreePrepare,
    DecreePromised,
    RingTold,
    VotesKnown,
)
from kvnode.protocol.types import Millis, NodeId
from kvnode.protocol.wire import Error

DECREE = "decree"
"""Fact: what this member promised and accepted, and for the epoch after which."""
VOTES = "votes"
"""Fact: this disk casts votes."""
VOTES_OF = "votes:"
"""Fact: the disk of another member that casts votes."""
AGAIN_MS = 300
"""Who has not answered is asked again, as often."""
BACKOFF_MS, BACKOFF_MS_MAX = 40, 640
"""A proposer that was outbid waits for a random part of the first, doubled each time, up to the second."""
PREPARE, ACCEPT = "prepare", "accept"


Then = Callable[[Error | None, str], None]
"""Told why a ring was not chosen, or may not have been; None and nothing if it was."""


class Kept(Struct, frozen=True, array_like=True):
    """What an acceptor remembers."""

    branch: int
    epoch: int
    register: Register


class Proposal(Struct, gc=False):
    """A ring on its way to be chosen."""

    ring: Ring
    value: bytes
    """It, encoded."""
    then: Then
    deadline: Millis
    poll: Poll
    rid: int = 0
    phase: str = PREPARE
    ballot: Ballot = NO_BALLOT
    highest: Ballot = NO_BALLOT
    accepted: Ballot = NO_BALLOT
    found: bytes = b""
    """What the promises show was accepted last."""
    sent: Millis = 0
    again_at: Millis = 0
    """When to begin anew under a higher ballot; 0 while there is no need to."""
    tries: int = 0
    voteless: set[NodeId] = set()
    """Who answered that its disk may have lost a vote."""


class Decree:
    """The votes of one member, and its proposals."""

    def __init__(self, local: Local, ballots: Ballots, *, founded: bool) -> None:
        """`founded`: the disk was made together with the cluster, so there is no vote it can have lost."""
        self._local = local
        self._outbox = local.outbox
        self._ballots = ballots
        self._proposal: Proposal | None = None
        self.on_chosen: Callable[[Ring], None] = lambda _: None
        """Told of the ring that was chosen."""
        self.on_behind: Callable[[NodeId], None] = lambda _: None
        """Told of a member that holds a later ring."""
        me = local.routes.ring.member(local.me)
        admitted = me is not None and me.disk_id != 0 and me.disk_id == local.disk_id
        self._votes = founded or admitted or bool(local.store.fact(VOTES))
        self._noted = bool(local.store.fact(VOTES))
        self._known: dict[NodeId, VotesKnown] = {}
        """Which other members told what disk of ours they know."""
        self._beyond: int | None = None
        """On a disk that replaced another: it votes when it holds a later epoch than this."""
        self._rid = local.next_rid()
        self._next_ask: Millis = 0
        self._kept = self._load()

    def _load(self) -> Kept:
        ring = self._local.routes.ring
        fact = self._local.store.fact(DECREE)
        kept = msgspec.msgpack.decode(fact, type=Kept) if fact else Kept(ring.branch, ring.epoch, EMPTY)
        fits = (kept.branch, kept.epoch) == (ring.branch, ring.epoch)
        return kept if fits else Kept(ring.branch, ring.epoch, EMPTY)

    # ---- the acceptor ----------------------------------------------------------------------

    def on_prepare(self, sender: NodeId, ask: DecreePrepare) -> None:
        """Promise this ballot, or tell of a higher one, or of a later ring."""
        if not self._may_vote(sender, ask):
            return None
        register = self._kept.register
        promised = promise(register, ask.ballot)
        if promised is None:
            return self._outbox.ack(sender, DecreeOutbid(ask.rid, register.promised))
        self._keep(promised)
        return self._outbox.ack(sender, DecreePromised(ask.rid, register.accepted, register.value))

    def on_accept(self, sender: NodeId, ask: DecreeAccept) -> None:
        """Take this ring, or tell of a higher ballot, or of a later ring."""
        if not self._may_vote(sender, ask):
            return None
        accepted = accept(self._kept.register, ask.ballot, ask.value)
        if accepted is None:
            return self._outbox.ack(sender, DecreeOutbid(ask.rid, self._kept.register.promised))
        self._keep(accepted)
        return self._outbox.ack(sender, DecreeAccepted(ask.rid))

    def _may_vote(self, sender: NodeId, ask: DecreePrepare | DecreeAccept) -> bool:
        routes = self._local.routes
        if ask.branch != routes.ring.branch or not routes.is_member:
            self._local.ignore("decree_of_another_branch")
        elif ask.epoch < routes.epoch:
            self._outbox.send(sender, RingTold(routes.ring))
        elif ask.epoch > routes.epoch:
            self.on_behind(sender)
        elif not self._votes:
            self._outbox.send(sender, ReplicaRefused(ask.rid, RECOVERING))
        else:
            return True
        return False

    def _keep(self, register: Register) -> None:
        if register != self._kept.register:
            ring = self._local.routes.ring
            self._kept = Kept(ring.branch, ring.epoch, register)
            self._outbox.note(DECREE, msgspec.msgpack.encode(self._kept))

    # ---- the proposer ----------------------------------------------------------------------

    def propose(self, ring: Ring, timeout_ms: Millis, then: Then) -> None:
        """Have this ring chosen."""
        local = self._local
        members = local.routes.members
        if self._proposal is not None:
            return then(Error.CONFLICT, "another change is being decided by way of this node")
        if ring.epoch != local.routes.epoch + 1:
            return then(
                Error.CONFLICT, f"it was made from epoch {ring.epoch - 1}, and this is epoch {local.routes.epoch}"
            )
        need = majority(len(members))
        reach = len([m for m in members if m not in local.peers.suspected])
        if reach < need:
            return then(Error.UNAVAILABLE, self._minority(reach, need))
        value = msgspec.msgpack.encode(ring)
        self._proposal = Proposal(ring, value, then, local.now + timeout_ms, poll_of(members, need))
        return self._prepare(self._proposal)

    def _minority(self, reach: int, need: int) -> str:
        of = len(self._local.routes.members)
        return f"{self._local.me} reaches {reach} of {of} members, and {need} must agree to a change"

    def _prepare(self, one: Proposal) -> None:
        one.ballot = self._ballots.above(max(one.highest, one.ballot, self._kept.register.promised))
        one.accepted, one.found = NO_BALLOT, b""
        one.tries += 1
        self._open(one, PREPARE)

    def _open(self, one: Proposal, phase: str) -> None:
        one.phase, one.again_at, one.rid, one.poll = phase, 0, self._local.next_rid(), one.poll.anew()
        self._ask(one)

    def _ask(self, one: Proposal) -> None:
        local = self._local
        branch, epoch = local.routes.ring.branch, local.routes.epoch
        one.sent = local.now
        for node in one.poll.waiting:
            if one.phase == PREPARE:
                self._outbox.send(node, DecreePrepare(one.rid, branch, epoch, one.ballot))
            else:
                self._outbox.send(node, DecreeAccept(one.rid, branch, epoch, one.ballot, one.found or one.value))

    def _mine(self, sender: NodeId, rid: int, phase: str) -> Proposal | None:
        one = self._proposal
        if one is not None and one.rid == rid and one.phase == phase and one.poll.agree(sender):
            return one
        self._local.ignore("decree_answer")
        return None

    def on_promised(self, sender: NodeId, told: DecreePromised) -> None:
        """A member takes no lower ballot any more."""
        one = self._mine(sender, told.rid, PREPARE)
        if one is not None:
            if told.accepted > one.accepted:
                one.accepted, one.found = told.accepted, told.value
            if one.poll.enough:
                self._open(one, ACCEPT)

    def on_accepted(self, sender: NodeId, told: DecreeAccepted) -> None:
        """A member has taken the ring."""
        one = self._mine(sender, told.rid, ACCEPT)
        if one is None or not one.poll.enough:
            return
        ring = msgspec.msgpack.decode(one.found, type=Ring) if one.found else one.ring
        assert ring.epoch == self._local.routes.epoch + 1
        self._over(one, ring)
        self.on_chosen(ring)

    def on_outbid(self, sender: NodeId, told: DecreeOutbid) -> None:
        """A member has promised a higher ballot: begin anew above it, in a while."""
        one = self._proposal
        if one is None or one.rid != told.rid or sender not in one.poll.members:
            return self._local.ignore("decree_answer")
        one.highest = max(one.highest, told.promised)
        if not one.again_at:
            longest = min(BACKOFF_MS << min(one.tries, 8), BACKOFF_MS_MAX)
            one.again_at = self._local.now + 1 + self._local.rng.random() * longest
        return None

    def on_replica_refused(self, sender: NodeId, refused: ReplicaRefused) -> bool:
        """A member that may have lost a vote casts none. False when the question is not one of ours."""
        one = self._proposal
        if one is None or one.rid != refused.rid:
            return False
        one.voteless.add(sender)
        return True

    def _over(self, one: Proposal, ring: Ring) -> None:
        """It has come to an end: this ring was chosen, ours or another."""
        self._proposal = None
        if ring == one.ring:
            one.then(None, "")
        elif ring.epoch == one.ring.epoch:
            one.then(Error.CONFLICT, f"another change was decided first: this is epoch {ring.epoch}")
        else:
            one.then(Error.INDETERMINATE, f"the cluster went on to epoch {ring.epoch}: see whether it is in it")

    def _give_up(self, one: Proposal) -> None:
        """Nobody knows what became of it: another proposer may find it, and see it through."""
        self._proposal = None
        reach = len(one.poll.agreed | one.poll.outbid)
        said = "" if one.poll.enough else f": {reach} of {len(one.poll.members)} members answered"
        text = f"it was not decided in time{said}; {one.poll.need} must agree"
        if one.voteless:
            text += (
                f". {', '.join(sorted(one.voteless))}: up, but on a new disk, which votes from the next epoch on"
            )
        if len(one.poll.members) - len(one.voteless) < one.poll.need:
            text += ". The others are too few: stop those that are new, then `cluster force-remove` them"
        one.then(Error.INDETERMINATE, text)

    # ---- votes of a disk -------------------------------------------------------------------

    def on_ask_votes(self, sender: NodeId, ask: AskVotes) -> None:
        """Remember the first disk of a member that asks; tell which one it was."""
        known = int(self._outbox.fact(VOTES_OF + sender) or b"0")
        member = self._local.routes.ring.member(sender)
        if not known:
            known = (member.disk_id if member is not None else 0) or ask.disk_id
            self._outbox.note(VOTES_OF + sender, str(known).encode())
        self._outbox.ack(sender, VotesKnown(ask.rid, known, self._local.routes.epoch))

    def on_votes_known(self, sender: NodeId, told: VotesKnown) -> None:
        """A member tells which disk of ours it knows."""
        if told.rid != self._rid or self._votes or self._beyond is not None:
            return
        self._known[sender] = told
        others = self._local.routes.others
        if sum(node in self._known for node in others) >= majority(len(others)):
            if any(t.disk_id != self._local.disk_id for t in self._known.values()):
                self._beyond = max(t.epoch for t in self._known.values())
                self._local.event("votes", f"this disk replaced another: it votes beyond epoch {self._beyond}")
                self.on_ring()
            else:
                self._votes = True

    # ---- rings and time --------------------------------------------------------------------

    def on_ring(self) -> None:
        """Another ring is held: what was promised before was for it, or for none."""
        ring = self._local.routes.ring
        if (self._kept.branch, self._kept.epoch) != (ring.branch, ring.epoch):
            self._kept = Kept(ring.branch, ring.epoch, EMPTY)
        if self._beyond is not None and ring.epoch > self._beyond:
            self._votes, self._beyond = True, None
        one = self._proposal
        if one is not None and ring.epoch >= one.ring.epoch:
            self._over(one, ring)

    @property
    def busy(self) -> bool:
        """Whether someone waits for a decision."""
        return self._proposal is not None

    timed = busy

    def on_peer_lost(self, peer: NodeId) -> None:
        """It is asked again in a while."""

    def on_tick(self, now: Millis) -> None:
        """Ask again, begin anew, give up."""
        self._look_at_votes(now)
        one = self._proposal
        if one is None:
            return
        if now >= one.deadline:
            self._give_up(one)
        elif one.again_at and now >= one.again_at:
            self._prepare(one)
        elif now - one.sent >= AGAIN_MS:
            self._ask(one)

    def _look_at_votes(self, now: Millis) -> None:
        local = self._local
        if self._votes:
            if not self._noted:
                self._noted = True
                self._outbox.note(VOTES, b"yes")
        elif now >= self._next_ask and local.routes.is_member:
            self._next_ask = now + AGAIN_MS
            if not local.routes.others:
                self._votes = True
            for peer in local.routes.others:
                if peer not in self._known:
                    self._outbox.tell(peer, AskVotes(self._rid, local.disk_id))
