"""A latency histogram of fixed size and known error, in the manner of HdrHistogram.

Promises: any recorded value is reported within 1.6 % (64 buckets a doubling); merging two loses
nothing. Never: grows with the number of values, or allocates when recording.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

SUB_BITS = 6
SUB = 1 << SUB_BITS
MAX_US = 1 << 31
"""About 36 minutes; longer values count as this."""
BUCKETS = (31 - SUB_BITS + 1) * SUB + SUB
COARSE = 4
"""Buckets a doubling in a report: a value is told within 25 %."""


class Histogram:
    """Counts of values in whole microseconds."""

    __slots__ = ("_counts", "max_us", "total")

    def __init__(self) -> None:
        self._counts = [0] * BUCKETS
        self.total = 0
        self.max_us = 0

    def record(self, us: int) -> None:
        """Count one value; negative ones count as zero."""
        if us < SUB:
            us = max(us, 0)
            self._counts[us] += 1
        else:
            us = min(us, MAX_US)
            exponent = us.bit_length() - SUB_BITS - 1
            self._counts[(exponent << SUB_BITS) + (us >> exponent)] += 1
        self.total += 1
        self.max_us = max(self.max_us, us)

    def add(self, other: Histogram) -> None:
        """Count everything the other one has."""
        self._counts = [a + b for a, b in zip(self._counts, other._counts, strict=True)]
        self.total += other.total
        self.max_us = max(self.max_us, other.max_us)

    def coarse(self) -> tuple[int, ...]:
        """The counts by quarters of a doubling, up to the last that is not 0: for a report, which is short."""
        counts, step = self._counts, SUB // COARSE
        found = [sum(counts[i : i + step]) for i in range(0, BUCKETS, step)] if self.total else []
        while found and not found[-1]:
            found.pop()
        return tuple(found)

    def clear(self) -> None:
        """Forget everything."""
        self._counts = [0] * BUCKETS
        self.total = 0
        self.max_us = 0

    def percentile_ms(self, percent: float) -> float | None:
        """The value that `percent` % of values do not exceed, in ms; None when there are none."""
        return self.percentiles_ms((percent,))[0]

    def percentiles_ms(self, percents: Iterable[float]) -> list[float | None]:
        """Several percentiles (ascending) in one pass."""
        if not self.total:
            return [None for _ in percents]
        found: list[float | None] = []
        counts = enumerate(self._counts)
        seen = 0
        upper = 0
        for percent in percents:
            rank = max(1, -(-self.total * percent // 100))
            while seen < rank:
                index, count = next(counts)
                seen += count
                upper = _upper_us(index)
            found.append(min(upper, self.max_us) / 1000)
        return found


def coarse_percentiles_ms(counts: Sequence[int], percents: Iterable[float]) -> list[float | None]:
    """Percentiles (ascending) of what `coarse` counted, or of the difference of two such counts."""
    total = sum(counts)
    found: list[float | None] = []
    seen, place = 0, -1
    for percent in percents:
        rank = max(1, -(-total * percent // 100))
        while total and seen < rank:
            place += 1
            seen += counts[place]
        step = SUB // COARSE
        found.append(_upper_us(place * step + step - 1) / 1000 if total else None)
    return found


def _upper_us(index: int) -> int:
    """The largest value that falls into a bucket."""
    if index < 2 * SUB:
        return index
    exponent = (index >> SUB_BITS) - 1
    return (((index & (SUB - 1)) + SUB + 1) << exponent) - 1
