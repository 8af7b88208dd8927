"""What is kept for one owner, and what of it is on its way. Values only.

Promises: `oldest` is the age of the oldest, in whatever order they came. Never: decides when anything is sent.
"""

from __future__ import annotations

from collections import deque

from msgspec import Struct

from kvnode.core.outbox import Hint
from kvnode.protocol.messages import HintsFor
from kvnode.protocol.types import Millis, NodeId

RATE_WINDOW_MS = 1_000


class Kept(Struct, gc=False):
    """The hints for one owner, and how their delivery goes."""

    hints: dict[bytes, Hint]
    """Oldest first, but for what came out of order since `oldest` was asked last."""
    queue: deque[bytes]
    """Keys to be sent: each kept key is in here or on its way."""
    bytes: int = 0
    in_flight: int = 0
    wait_until: Millis = 0
    """Not to be sent before: the owner refused, or could not be reached."""
    allowance: float = 0.0
    """Hints that may be sent now."""
    delivered: int = 0
    window: Millis = 0
    window_count: int = 0
    per_s: float = 0.0
    newest: int = 0
    """The latest time of any hint here."""
    ordered: bool = True

    @property
    def oldest(self) -> int:
        """Since when the oldest has been kept; there is one."""
        if not self.ordered:
            self.hints = dict(sorted(self.hints.items(), key=lambda item: item[1].since))
            self.ordered = True
        return next(iter(self.hints.values())).since

    def measure(self, now: Millis) -> None:
        """How many are delivered a second, lately."""
        if now - self.window >= RATE_WINDOW_MS:
            self.per_s = self.window_count * 1_000 / (now - self.window)
            self.window, self.window_count = now, 0

    def view(self, owner: NodeId, *, reachable: bool) -> HintsFor:
        """For a report."""
        count, per_s = len(self.hints), round(self.per_s, 1)
        return HintsFor(owner, count, self.bytes, self.oldest, self.delivered, per_s, reachable)


def add_to(kept: Kept, key: bytes, hint: Hint) -> None:
    """Keep a hint. One that another node kept before may be older than what is here."""
    if key not in kept.hints or hint.since != kept.hints[key].since:
        kept.ordered = kept.ordered and hint.since >= kept.newest
        kept.newest = max(kept.newest, hint.since)
    kept.hints[key] = hint


class Sent(Struct, frozen=True, gc=False):
    """A hint on its way."""

    owner: NodeId
    to: NodeId
    key: bytes
    digest: bytes
    handed: bool = False
    """To another node that is to keep it, not to an owner."""
