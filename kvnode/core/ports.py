"""Ports: what one mechanism needs of another, without knowing which it is. Protocols only.

Promises: types. Never: behaviour.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from kvnode.core.versions import Held
from kvnode.protocol.messages import Change, Error, Get, Put
from kvnode.protocol.ring import Member, Ring
from kvnode.protocol.types import Address, Millis, NodeId


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

    def take_in(self, key: bytes, seen: Held) -> bool:
        """Merge what was read into what is held."""
        ...


class Keeper(Protocol):
    """What a writer needs of whoever keeps hints on this node."""

    def keep(self, owner: NodeId, key: bytes, held: Held) -> bool:
        """Keep a record for an owner. False when there is no room."""
        ...

    def record(self, key: bytes) -> Held | None:
        """What is kept of a key that this node does not own."""
        ...

    def miss(self, partition: int, owner: NodeId) -> None:
        """An owner missed a write that nobody keeps for it."""
        ...


class Chooser(Protocol):
    """Where rings are chosen."""

    @property
    def busy(self) -> bool:
        """Whether one is being decided by way of this node."""
        ...

    def propose(self, ring: Ring, timeout_ms: Millis, then: Callable[[Error | None, str], None]) -> None:
        """Have this ring chosen; `then` is told why it was not, or None and nothing."""
        ...


class StagedSet(Protocol):
    """What is staged."""

    def changes(self) -> tuple[Change, ...]:
        """Those that still mean something."""
        ...

    def stage(self, change: Change) -> None:
        """One more."""
        ...

    def clear(self) -> None:
        """None any more."""
        ...


class Newcomers(Protocol):
    """Who stands outside."""

    def named(self, node: str) -> Member | None:
        """One of them, as it would be a member."""
        ...

    def problem_with(self, member: Member) -> str:
        """Why it cannot be let in now."""
        ...
