"""Rates of one node between two of its reports, and of several together. Pure.

Promises: the time between is the node's own (its uptime), so a late answer makes no false rate.
Never: a rate across a restart, or a gap so long that it is none of now.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Protocol

from msgspec import Struct

from kvnode.protocol.histogram import coarse_percentiles_ms
from kvnode.protocol.messages import NodeReport

GAP_MS_MAX = 10_000
PERCENTS = (50, 99, 99.9)
ERRORS = ("failed_", "refused_")


class Kept(Protocol):
    """A report, and when it came."""

    @property
    def report(self) -> NodeReport: ...

    @property
    def at_ms(self) -> int: ...


class Rates(Struct, frozen=True, gc=False):
    """Per second; None where it cannot be told."""

    ops_s: float | None = None
    gets_s: float | None = None
    puts_s: float | None = None
    errors_s: float | None = None
    repaired_s: float | None = None
    took: tuple[int, ...] = ()
    """How long the requests between took, as `Histogram.coarse` counts."""


def rates_of(before: Kept | None, now: NodeReport, at_ms: int) -> Rates:
    """What a node did between two reports."""
    if before is None or before.report.boot != now.boot or at_ms - before.at_ms > GAP_MS_MAX:
        return Rates()
    old = before.report
    seconds = (now.uptime_ms - old.uptime_ms) / 1000
    if seconds <= 0:
        return Rates()

    def counted(name: str) -> float:
        return max(0, now.counters.get(name, 0) - old.counters.get(name, 0)) / seconds

    took = tuple(max(0, a - b) for a, b in zip_longest(now.took, old.took, fillvalue=0))
    wrong = sum(counted(name) for name in now.counters if name.startswith(ERRORS))
    mended = None
    if now.repair is not None and old.repair is not None:
        mended = max(0, now.repair.keys_repaired - old.repair.keys_repaired) / seconds
    return Rates(sum(took) / seconds, counted("gets"), counted("puts"), wrong, mended, took)


def percentiles(rates: Sequence[Rates]) -> list[float | None]:
    """p50, p99 and p99.9 in ms of all their requests together."""
    sums = [sum(column) for column in zip_longest(*(rate.took for rate in rates), fillvalue=0)]
    return coarse_percentiles_ms(sums, PERCENTS)


def total(values: Iterable[float | None]) -> float | None:
    """The sum of those that are known; None where none is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None
