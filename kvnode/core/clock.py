"""The hybrid logical clock: times that follow the wall and never repeat or run backwards.

Promises: every time minted is above all of its past, and above every time minted before it in this
boot, save those that stood on a past too far ahead to follow.
Never: follows a remote time more than a minute ahead; such a record is stored, its time is not.
Remote times come in by the pasts that are minted over; nothing needs those of other keys.
See Kulkarni et al., "Logical Physical Clocks" (2014), §4.
"""

from __future__ import annotations

from kvnode import config
from kvnode.protocol.types import Past, Time, WallMillis

COUNTER_BITS = 16


class HybridClock:
    """One per node and boot. `wall` is set at the start of each turn."""

    __slots__ = ("_latest", "wall")

    def __init__(self) -> None:
        self.wall: WallMillis = 0
        self._latest: Time = 0

    def mint(self, past: Past, above: Time = 0) -> Time:
        """A new time: above the wall, all minted, all of `past`, and `above`."""
        floor = max(self.wall << COUNTER_BITS, self._latest + 1)
        highest = max(above, max(past.values(), default=0))
        if highest < floor:
            self._latest = floor
            return floor
        # A past too far ahead is honest (repair brought it): stand above it, but do not drag the
        # clock along, or one node's jump would become everyone's.
        if not self.too_far_ahead(highest):
            self._latest = highest + 1
        return highest + 1

    def too_far_ahead(self, time: Time) -> bool:
        """Whether a time lies further ahead of this wall clock than any honest skew."""
        return time > (self.wall + config.CLOCK_AHEAD_MAX_MS) << COUNTER_BITS
