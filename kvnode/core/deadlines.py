"""Deadlines of requests, kept in slices: one list append a request, no heap.

Promises: a request expires within one slice after its deadline, never before it.
Never: forgets one; a finished request is simply not found when its slice is due.
"""

from __future__ import annotations

from kvnode import config
from kvnode.protocol.types import Millis


class Deadlines:
    """Request ids by the slice in which they expire."""

    __slots__ = ("_slices",)

    def __init__(self) -> None:
        self._slices: dict[int, list[int]] = {}

    def add(self, rid: int, deadline: Millis) -> None:
        """Expire this request some time after `deadline`."""
        number = int(deadline) // config.DEADLINE_SLICE_MS + 1
        rids = self._slices.get(number)
        if rids is None:
            self._slices[number] = [rid]
        else:
            rids.append(rid)

    def due(self, now: Millis) -> list[int]:
        """The requests whose deadline has passed."""
        if not self._slices:
            return []
        past = [number for number in self._slices if number * config.DEADLINE_SLICE_MS <= now]
        return [rid for number in sorted(past) for rid in self._slices.pop(number)]
