"""Ports: what one mechanism needs of another, without knowing which it is. Protocols only.

Promises: types. Never: behaviour.
"""

from __future__ import annotations

from typing import Protocol

from kvnode.core.versions import Held
from kvnode.protocol.messages import Get, Put
from kvnode.protocol.types import Address, NodeId


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
