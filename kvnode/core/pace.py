"""The pace of transfers: so many bytes a second, and fewer while the other side is slow to answer. Values only.

Promises: over any second no more than the throttle; halves when batches take much longer than they can, for that
is foreground work waiting too, and recovers by a quarter a batch. Never: stops altogether.
"""

from __future__ import annotations

from kvnode.protocol.types import Millis

SLOW, SLOW_MS = 4.0, 30.0
"""A batch that takes so many times the best, and so much longer, found others waiting."""
FASTEST, SLOWEST = 1e9, 256 * 1024.0
BURST_S = 0.1
BATCH_LEAST, BATCH_MOST = 64 * 1024, 256 * 1024
QUICK_MS = 25.0
"""A batch that was asked for, came and was durable so soon lets the next be twice as large; twice that, half."""
WINDOW_MS = 1_000.0


class Pace:
    """One node's, over all that it takes."""

    def __init__(self, limit: int) -> None:
        """`limit`: bytes a second; 0 for none."""
        self.limit = limit
        self._rate = self._most
        self._allowance = 0.0
        self._counted: Millis = 0
        self._best: Millis = 0
        self._window: Millis = 0
        self._in_window = 0
        self.batch = BATCH_LEAST
        """Bytes to ask for at once."""
        self.bytes = 0
        """Received so far."""
        self.per_s = 0.0
        """Lately."""

    @property
    def _most(self) -> float:
        return float(self.limit) if self.limit else FASTEST

    def set_limit(self, limit: int) -> None:
        """From now on so many bytes a second; 0 for no bound."""
        self.limit = limit
        self._rate = self._most

    def may(self, now: Millis) -> bool:
        """Whether more may be asked for now."""
        passed = min(now - self._counted, WINDOW_MS)
        self._counted = now
        self._allowance = min(self._allowance + self._rate * passed / 1_000, self._rate * BURST_S)
        if now - self._window >= WINDOW_MS:
            self.per_s = self._in_window * 1_000 / (now - self._window)
            self._window, self._in_window = now, 0
        return self._allowance >= 0

    def count(self, now: Millis, size: int, took: Millis) -> None:
        """A batch of this size came, after so long."""
        self.bytes += size
        self._in_window += size
        self._allowance -= size
        self._best = min(self._best * 1.02 or took, took) or 0.1
        slow = took > SLOW * self._best and took > self._best + SLOW_MS
        if slow:
            # Half of what really came: half of a bound that was never reached would change nothing.
            lately = max(self.per_s, self._in_window * 1_000 / max(now - self._window, WINDOW_MS / 10))
            self._rate = max(min(self._rate, lately) / 2, min(SLOWEST, self._most))
        else:
            self._rate = min(self._rate * 1.25, self._most)

    def durable(self, took: Millis) -> None:
        """All that a batch brought is durable, so long after it was asked for."""
        if took <= QUICK_MS:
            self.batch = min(2 * self.batch, BATCH_MOST)
        elif took > 2 * QUICK_MS:
            self.batch = max(self.batch // 2, BATCH_LEAST)
