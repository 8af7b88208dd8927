"""Quorums: who was asked, who answered, and whether that is enough.

Promises: a node counts once toward R or W whatever it repeats; `enough` never turns false again.
Never: sends anything, knows the time, or touches the store.

While a move of the partition is pending there are two sets of owners, and each must have its number: two
`sides`, in bits. `have` is then how far the worse of the two is, as if it stood alone.

A quorum ends in one of three ways: *enough* answers came; *hopeless*, because too few owners are
left to answer; or its deadline passes. It stays until all owners answered, so late answers are
still seen.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from msgspec import Struct

from kvnode.core.versions import Held
from kvnode.protocol.messages import Answer, Get, Hinted, Put
from kvnode.protocol.types import Address, Millis, NodeId, Version


class Side(NamedTuple):
    """One of the sets of owners that must each have its quorum."""

    owners: int
    """In bits."""
    need: int


class Quorum(Struct, gc=False):
    """What a read and a write have in common."""

    client: Address
    rid: int
    """The client's."""
    key: bytes
    peers: tuple[NodeId, ...]
    """The other owners; this node is counted beside them."""
    need: int
    mode: int
    started: Millis
    answers: list[Answer] | None = None
    """The story so far; None when nobody asked for it."""
    have: int = 0
    """Owners that count toward `need`."""
    asked: int = 0
    """Bit i: peer i was asked; bit len(peers) is this node's own, whom quorums name by ""."""
    answered: int = 0
    lost: int = 0
    """Those who refused, or cannot be reached: not waited for, but counted if they answer yet."""
    done: bool = False
    """The client has its reply."""
    called: dict[NodeId, int] | None = None
    """Fallbacks that were asked, and for which owners, in bits; None while none was needed."""
    standing: set[NodeId] | None = None
    """Those of them that have not answered."""
    voted: set[NodeId] | None = None
    """Those that have taken the place of an owner: one node is one vote."""
    covered: int = 0
    """Owners whose place a fallback has taken. Neither counts beside the other: a hint ends up there."""
    hinted: list[Hinted] | None = None
    """For the story: which owner's record is kept where."""
    sides: tuple[Side, ...] = ()
    """The sets of owners, where there are two; then `need` is that of the first."""
    request: Get | Put | None = None
    """What a client asked for: needed again should the owners change meanwhile."""

    @property
    def enough(self) -> bool:
        """Whether the client can be answered."""
        return self.have >= self.need

    @property
    def unasked(self) -> tuple[NodeId, ...]:
        """The other owners that could be asked yet."""
        closed = self.asked | self.lost
        return tuple(peer for i, peer in enumerate(self.peers) if not closed >> i & 1)

    @property
    def waiting(self) -> tuple[NodeId, ...]:
        """The other owners that were asked and have not answered."""
        open_ = self.asked & ~(self.answered | self.lost)
        return tuple(peer for i, peer in enumerate(self.peers) if open_ >> i & 1)

    @property
    def hopeless(self) -> bool:
        """Whether those who may still answer are too few."""
        waiting = ~(self.answered | self.lost) & ((1 << len(self.peers) + 1) - 1)
        standing = len(self.standing) if self.standing else 0
        if not self.sides:
            return self.have + waiting.bit_count() + standing < self.need
        reach = self.answered | self.covered | waiting
        return any((reach & side.owners).bit_count() + standing < side.need for side in self.sides)

    @property
    def finished(self) -> bool:
        """Whether everyone who was asked has answered or is lost."""
        return not self.asked & ~(self.answered | self.lost) and not self.standing

    def ask(self, node: NodeId) -> None:
        """This owner is being asked."""
        self.asked |= 1 << (self.peers.index(node) if node else len(self.peers))

    def count(self, node: NodeId) -> bool:
        """Count an owner's answer. False when it has answered before, or was never asked."""
        peers = self.peers
        if node in peers:
            bit = 1 << peers.index(node)
        elif not node:
            bit = 1 << len(peers)
        else:
            return False
        if self.answered & bit or not self.asked & bit:
            return False
        self.answered |= bit
        if not self.covered & bit:
            self.have += 1
            if self.sides:
                self.recount()
        return True

    def recount(self) -> None:
        """How far the worse side is."""
        there = self.answered | self.covered
        self.have = self.need + min((there & side.owners).bit_count() - side.need for side in self.sides)

    def bits_of(self, nodes: Collection[NodeId], me: NodeId) -> int:
        """These owners, in bits."""
        bits = sum(1 << i for i, peer in enumerate(self.peers) if peer in nodes)
        return bits | (1 << len(self.peers) if me in nodes else 0)

    def retarget(self, peers: tuple[NodeId, ...], *, mine: bool) -> None:
        """The owners are others now: whoever answered before is not asked again, the new ones are yet to be.

        `mine`: this node is one of them.
        """
        old, self.peers = self.peers, peers
        for name in ("asked", "answered", "lost", "covered"):
            bits = getattr(self, name)
            kept = sum(1 << i for i, peer in enumerate(peers) if peer in old and bits >> old.index(peer) & 1)
            setattr(self, name, kept | (bits >> len(old) & 1) << len(peers))
        if self.called is not None:
            self.called = dict.fromkeys(self.called, self.lost)
        me = 1 << len(peers)
        if not mine:
            self.answered, self.lost = self.answered & ~me, self.lost | me
        # A vote of this node's own may be on its way to the disk: it is one of an owner no more.
        self.asked, self.sides = 2 * me - 1 if mine else me - 1, ()
        self.have = (self.answered | self.covered).bit_count()

    def lose(self, node: NodeId) -> bool:
        """An owner will not answer. False when it already has, or is none."""
        if node and node not in self.peers:
            return False
        bit = 1 << (self.peers.index(node) if node else len(self.peers))
        if (self.answered | self.lost) & bit:
            return False
        self.lost |= bit
        return True

    def is_lost(self, node: NodeId) -> bool:
        """Whether this owner is not waited for."""
        return bool(self.lost >> self.peers.index(node) & 1)

    def stand_in(self, fallback: NodeId, owner: NodeId | None = None) -> None:
        """This fallback is being asked in place of an owner, or of any that is lost."""
        if self.called is None or self.standing is None:
            self.called, self.standing, self.voted = {}, set(), set()
        places = self.lost if owner is None else 1 << self.peers.index(owner)
        self.called[fallback] = self.called.get(fallback, 0) | places
        self.standing.add(fallback)

    def count_stand_in(self, fallback: NodeId, *, counts: bool) -> bool:
        """A fallback has answered. False when it was not asked, or has answered before.

        It takes the place of one owner, however many it was asked for: one node is one vote.
        """
        if self.standing is None or self.called is None or self.voted is None or fallback not in self.standing:
            return False
        self.standing.discard(fallback)
        free = self.called[fallback] & ~(self.answered | self.covered)
        if counts and free and fallback not in self.voted:
            self.voted.add(fallback)
            self.covered |= free & -free
            self.have += 1
            if self.sides:
                self.recount()
        return True

    def tell(self, node: NodeId, now: Millis, told: str, *, ok: bool = True, kind: str = "owner") -> None:
        """Add a replica's part to the story, if there is to be one."""
        if self.answers is not None:
            self.answers.append(Answer(node, kind, ok, round(now - self.started, 3), told))


class GetQuorum(Quorum, kw_only=True, gc=False):
    """A read: the merge of what R owners hold."""

    held: Held | None = None
    digest: bytes = b""
    """Of what this node held when it asked."""
    volatile: bool = False
    """Whether `held` shows something not yet durable here."""
    heal: bool = False
    """Whether the read is of all other owners, to mend this node's own damaged copy."""
    then: Put | None = None
    """The write this read was made for."""
    deadline: Millis = 0
    """By when the client must have its answer."""
    seen: list[tuple[NodeId, bytes]] | None = None
    """Owners that answered with a record of their own, and its digest."""

    def stale(self) -> list[NodeId]:
        """The owners whose answer lacked something that another one's had; "" is this node."""
        held = self.held
        if held is None or self.seen is None:
            return []
        told = dict(self.seen)
        stale = [node for node, digest in told.items() if digest != held.digest]
        if self.digest != held.digest:  # those who said `Same` hold what we held
            stale += [p for i, p in enumerate(self.peers) if self.answered >> i & 1 and p not in told]
            if self.answered >> len(self.peers) & 1:
                stale.append(NodeId(""))
        return stale


class PutQuorum(Quorum, kw_only=True, gc=False):
    """A write: the version that W owners must hold."""

    version: Version
    record: bytes
    """What owners are sent, encoded."""
    condition: str = ""
