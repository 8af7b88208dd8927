"""Keys in order for scans, beside a dict that has none.

Promises: a write costs one list append; a scan that nobody makes costs nothing; one page never sorts
more than a bounded number of keys. Never: knows a key twice, or forgets one.

    fresh   unsorted, as written          a page sorts up to `sort_max` of them into a run
    runs    sorted, each at least twice as long as the next, so there are few
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from heapq import nsmallest


class KeyOrder:
    """The keys of one dict."""

    __slots__ = ("_runs", "_sort_max", "fresh")

    def __init__(self, sort_max: int) -> None:
        self._sort_max = sort_max
        self._runs: list[list[bytes]] = []
        self.fresh: list[bytes] = []
        """Append here each key that is new to the dict."""

    def page(self, after: bytes, prefix: bytes, limit: int) -> list[bytes]:
        """Up to `limit` keys above `after` that start with `prefix`, in byte order."""
        self._sort_some()
        end = upper_bound(prefix)
        found: list[bytes] = []
        for run in self._runs:
            start = bisect_right(run, after) if after >= prefix else bisect_left(run, prefix)
            stop = len(run) if end is None else bisect_left(run, end)
            found += run[start : min(stop, start + limit)]
        if self.fresh:
            found += nsmallest(limit, (k for k in self.fresh if k > after and k.startswith(prefix)))
        found.sort()
        return found[:limit]

    def remove(self, key: bytes) -> None:
        """Take a key out that is in here. Not for the hot path: it may move many others."""
        for run in self._runs:
            at = bisect_left(run, key)
            if at < len(run) and run[at] == key:
                del run[at]
                return
        self.fresh.remove(key)

    def _sort_some(self) -> None:
        if not self.fresh:
            return
        run = sorted(self.fresh[-self._sort_max :])
        del self.fresh[-self._sort_max :]
        runs = self._runs
        while runs and len(runs[-1]) < 2 * len(run):
            run = sorted(runs.pop() + run)  # two sorted runs: one comparison a key
        runs.append(run)


def upper_bound(prefix: bytes) -> bytes | None:
    """The first key after all that start with `prefix`; None where there is none."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes((stem[-1] + 1,)) if stem else None
