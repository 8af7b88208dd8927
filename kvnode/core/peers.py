"""Which peers are worth waiting for: one that failed a request, or that is suspected, is *out*.

Promises: a peer whose silence broke is no longer suspected; one that failed a request is tried again
after `avoid_ms`, or once it answers.
Never: decides that a node is down; that takes more than one observer (`membership.py`).
"""

from __future__ import annotations

from collections.abc import Iterable

from kvnode.protocol.types import Millis, NodeId

UNTIL_HEARD = float("inf")


class Peers:
    """What this node alone thinks of its peers."""

    __slots__ = ("_avoid_ms", "_cut_off", "avoided", "suspected")

    def __init__(self, avoid_ms: int) -> None:
        self._avoid_ms = avoid_ms
        self.avoided: dict[NodeId, Millis] = {}
        """Peer -> until when it is not waited for. Empty in good times: test that first."""
        self.suspected: set[NodeId] = set()
        """Those among them that have been silent for too long."""
        self._cut_off: set[NodeId] = set()
        """Those among them whose connection was down, no more."""

    def avoid(self, peer: NodeId, now: Millis, *, cut_off: bool = False) -> bool:
        """A request to this peer failed; `cut_off`: for want of a connection. True when that is news."""
        news = peer not in self.avoided
        if peer not in self.suspected:
            self.avoided[peer] = now + self._avoid_ms
            if cut_off and news:
                self._cut_off.add(peer)
            elif not cut_off:
                self._cut_off.discard(peer)
        return news

    def beats(self, peer: NodeId) -> bool:
        """A heartbeat came from this peer: if only its connection was down, it is up again. True when news."""
        if peer not in self._cut_off:
            return False
        self._cut_off.discard(peer)
        return self.avoided.pop(peer, None) is not None

    def answered(self, peer: NodeId) -> bool:
        """A message that is no mere heartbeat came from this peer. True when that is news."""
        return peer not in self.suspected and self.avoided.pop(peer, None) is not None

    def suspect(self, peer: NodeId) -> None:
        """This peer has been silent for too long."""
        self.suspected.add(peer)
        self._cut_off.discard(peer)
        self.avoided[peer] = UNTIL_HEARD

    def clear(self, peer: NodeId) -> None:
        """The silence of a suspected peer is over."""
        self.suspected.discard(peer)
        self._cut_off.discard(peer)
        self.avoided.pop(peer, None)

    def on_tick(self, now: Millis) -> None:
        """Try again the peers whose time is up."""
        for peer in [p for p, until in self.avoided.items() if until <= now]:
            del self.avoided[peer]
            self._cut_off.discard(peer)

    @property
    def timed(self) -> bool:
        """Whether a peer is to be tried again at some moment."""
        return len(self.avoided) > len(self.suspected)

    def reachable(self, peers: Iterable[NodeId]) -> int:
        """How many of these are worth waiting for."""
        return sum(peer not in self.avoided for peer in peers)
