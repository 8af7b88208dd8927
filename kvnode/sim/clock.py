"""Virtual time, and the random numbers of each part of the world.

Promises: time is whole tenths of a millisecond, so it hashes and compares alike everywhere; a part's
randomness depends on the seed and its own name alone, so more of one part does not reshuffle another.
Never: runs by itself. Time is what the timeline says.
"""

from __future__ import annotations

from random import Random
from typing import TypeAlias

from kvnode.protocol.types import Millis, WallMillis

Tenths: TypeAlias = int
"""Tenths of a millisecond since the world began."""

START: Tenths = 10_000
"""One second: 0 stands for "not yet" in a node."""

WALL: WallMillis = 1_790_000_000_000
"""What wall clocks without skew say when the world begins."""


def tenths(ms: float) -> Tenths:
    """Milliseconds as tenths."""
    return round(ms * 10)


def millis(at: Tenths) -> Millis:
    """Tenths as a node's milliseconds: exact to the bit, for one division rounds alike everywhere."""
    return at / 10


def derive(seed: int, part: str) -> Random:
    """The randomness of one part of the world. Text seeds do not depend on the hash seed."""
    return Random(f"{seed}/{part}")


class SkewedClock:
    """A node's wall clock: it can be wrong, and can jump either way. Monotonic time cannot."""

    __slots__ = ("skew_ms",)

    def __init__(self) -> None:
        self.skew_ms = 0
        """How far it is ahead; negative when it is behind."""

    def wall(self, now: Tenths) -> WallMillis:
        """What it says now."""
        return WALL + (now - START) // 10 + self.skew_ms
