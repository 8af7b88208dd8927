"""Phi accrual: how surprising is this silence?

Promises: a peer that beats on time is never surprising; silence grows more surprising without
bound; integers, sums and one square root only, so the same arrivals give the same verdict anywhere.
Never: decides that a node is down; `membership.py` does, and only with a second opinion.

    gaps between heartbeats ─► mean, deviation ─► suspect when silence > mean + 5.61 deviations

That is phi > 8 under the normal model of Hayashibara et al. 2004 ("The phi accrual failure
detector", §4): phi = -log10 P(a gap longer than the silence), and P(z > 5.61) = 1e-8. At beats of 250 ms and the
floor of 250 ms on the deviation it is 1.65 s. Cassandra's exponential model takes 18 mean gaps.
"""

from __future__ import annotations

from collections import deque
from math import erfc, log10, sqrt

from kvnode import config
from kvnode.protocol.types import Millis

PHI_SUSPECT = 8.0
Z_SUSPECT = 5.612
"""How many deviations above the mean a gap must be for phi to pass 8."""
PHI_MAX = 99.0


class Arrivals:
    """The heartbeats of one peer, as one observer saw them arrive."""

    __slots__ = ("_expected", "_gaps", "_squares", "_sum", "last")

    def __init__(self, now: Millis, expected_ms: int) -> None:
        self._expected = expected_ms
        self._gaps: deque[Millis] = deque(maxlen=config.PHI_WINDOW)
        self._sum = 0.0
        self._squares = 0.0
        self.last: Millis = now
        """When the last one arrived."""

    def beat(self, now: Millis) -> None:
        """A fresh heartbeat. A gap too long to be one (the peer was away) is not learnt from."""
        gap = now - self.last
        self.last = now
        if gap > config.PHI_GAP_MAX_MS:
            return
        if len(self._gaps) == self._gaps.maxlen:
            oldest = self._gaps[0]
            self._sum -= oldest
            self._squares -= oldest * oldest
        self._gaps.append(gap)
        self._sum += gap
        self._squares += gap * gap

    def forgive(self, stall: Millis) -> None:
        """We were not listening for so long: that silence was ours."""
        self.last += stall

    def suspicious(self, now: Millis) -> bool:
        """Whether phi is above the threshold."""
        mean, deviation = self._shape()
        return now - self.last > mean + Z_SUSPECT * deviation

    def phi(self, now: Millis) -> float:
        """The figure for people; nothing is decided by it (it needs libm)."""
        mean, deviation = self._shape()
        tail = erfc((now - self.last - mean) / deviation / sqrt(2)) / 2
        return PHI_MAX if tail <= 0 else min(PHI_MAX, round(-log10(tail), 2))

    def _shape(self) -> tuple[float, float]:
        """Mean and deviation; before there are enough samples, what was expected."""
        count = len(self._gaps)
        mean = float(self._expected)
        deviation = 0.0
        if count >= config.PHI_SAMPLES_MIN:
            mean = self._sum / count
            deviation = sqrt(max(0.0, self._squares / count - mean * mean))
        floor = config.PHI_DEVIATION_MIN_MS * max(1.0, mean / config.BEAT_MS)
        return mean, max(deviation, floor)
