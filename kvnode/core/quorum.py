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
    have: int = 0
    answered: int = 0
    """Bit i: peer i answered; bit len(peers): this node did."""
    lost: int = 0
    """Bit i: peer i refused, or cannot be reached."""
    done: bool = False
    """The client has its reply."""
    answers: list[Answer] | None = None
    """The story so far; None when nobody asked for it."""

    @property
    def enough(self) -> bool:
        """Whether the client can be answered."""
        return self.have >= self.need

    @property
    def hopeless(self) -> bool:
        """Whether those who may still answer are too few."""
        waiting = ~(self.answered | self.lost) & ((1 << len(self.peers) + 1) - 1)
        return self.have + waiting.bit_count() < self.need

    @property
    def finished(self) -> bool:
        """Whether every owner has answered or is lost."""
        everyone = (1 << len(self.peers) + 1) - 1
        return (self.answered | self.lost) == everyone

    def _bit(self, node: NodeId) -> int:
        """The bit of an owner; 0 for a stranger; the last one for this node (named by "")."""
        if not node:
            return 1 << len(self.peers)
        peers = self.peers
        return 1 << peers.index(node) if node in peers else 0

    def count(self, node: NodeId) -> bool:
        """Count an owner's answer. False when it has answered before, or was never asked."""
        bit = self._bit(node)
        if not bit or self.answered & bit:
            return False
        self.answered |= bit
        self.have += 1
        assert self.have <= len(self.peers) + 1
        return True

    def lose(self, node: NodeId) -> bool:
        """An owner will not answer. False when it already has, or was never asked."""
        bit = self._bit(node)
        if not bit or (self.answered | self.lost) & bit:
            return False
        self.lost |= bit
        return True

    def tell(self, node: NodeId, now: Millis, told: str, *, ok: bool = True) -> None:
        """Add an owner's part to the story, if there is to be one."""
        if self.answers is not None:
            self.answers.append(Answer(node, "owner", ok, round(now - self.started, 3), told))


class GetQuorum(Quorum, kw_only=True, gc=False):
    """A read: the merge of what R owners hold."""

    held: Held | None
    volatile: bool = False
    """Whether `held` shows something not yet durable here."""
    heal: bool = False
    """Whether this node's own copy was unreadable, so that the merge must be written back."""
    then: Put | None = None
    """The write this read was made for."""


class PutQuorum(Quorum, kw_only=True, gc=False):
    """A write: the version that W owners must hold."""

    version: Version
    condition: str = ""
