"""Which peers are worth waiting for: a request that failed makes its peer *avoided* for a while.

Promises: a peer heard from is not avoided; an avoided one is tried again after `avoid_ms`.
Never: decides that a node is down; that takes more than one observer.
"""

from __future__ import annotations

from collections.abc import Iterable

from kvnode.protocol.types import Millis, NodeId


class Peers:
    """What this node alone thinks of its peers."""

    __slots__ = ("_avoid_ms", "avoided")

    def __init__(self, avoid_ms: int) -> None:
        self._avoid_ms = avoid_ms
        self.avoided: dict[NodeId, Millis] = {}
        """Peer -> until when it is not waited for. Empty in good times: test that first."""

    def avoid(self, peer: NodeId, now: Millis) -> bool:
        """A request to this peer failed. True when that is news."""
        news = peer not in self.avoided
        self.avoided[peer] = now + self._avoid_ms
        return news

    def heard(self, peer: NodeId) -> bool:
        """A message came from this peer. True when that is news."""
        return bool(self.avoided) and self.avoided.pop(peer, None) is not None

    def on_tick(self, now: Millis) -> None:
        """Try again the peers whose time is up."""
        for peer in [p for p, until in self.avoided.items() if until <= now]:
            del self.avoided[peer]

    def reachable(self, peers: Iterable[NodeId]) -> int:
        """How many of these are worth waiting for."""
        return sum(peer not in self.avoided for peer in peers)
