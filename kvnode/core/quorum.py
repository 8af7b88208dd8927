"""Quorums: who was asked, who answered, and whether that is enough.

Promises: a node counts once toward R or W whatever it repeats; `enough` never turns false again.
Never: sends anything, knows the time, or touches the store.

A quorum ends in one of three ways: *enough* answers came; *hopeless*, because too few owners are
left to answer; or its deadline passes. It stays until all owners answered, so late answers are
still seen.
"""

from __future__ import annotations

from msgspec import Struct

from kvnode.core.versions import Held
from kvnode.protocol.messages import Answer, Put
from kvnode.protocol.types import Address, Millis, NodeId, Version


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
        return self.have + waiting.bit_count() < self.need

    @property
    def finished(self) -> bool:
        """Whether everyone who was asked has answered or is lost."""
        return not self.asked & ~(self.answered | self.lost)

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
        self.have += 1
        assert self.have <= len(self.peers) + 1
        return True

    def lose(self, node: NodeId) -> bool:
        """An owner will not answer. False when it already has, or is none."""
        if node and node not in self.peers:
            return False
        bit = 1 << (self.peers.index(node) if node else len(self.peers))
        if (self.answered | self.lost) & bit:
            return False
        self.lost |= bit
        return True

    def tell(self, node: NodeId, now: Millis, told: str, *, ok: bool = True) -> None:
        """Add an owner's part to the story, if there is to be one."""
        if self.answers is not None:
            self.answers.append(Answer(node, "owner", ok, round(now - self.started, 3), told))


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


class PutQuorum(Quorum, kw_only=True, gc=False):
    """A write: the version that W owners must hold."""

    version: Version
    condition: str = ""
