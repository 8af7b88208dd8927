"""The hot cache: recently used records, bounded by bytes.

Promises: never more than its bound and one entry; a hit costs a dict lookup or two.
Never: an entry for a key that stands in a memtable (whoever writes the key takes it out).

Two generations instead of a linked list: hits in the old one move to the young; when the young is
half the bound, it becomes the old, and the old is dropped.
"""

from __future__ import annotations

from kvnode import config
from kvnode.core.versions import Held


class HotCache:
    """Records by key."""

    __slots__ = ("_bytes", "_half", "_old", "_young", "hits", "misses")

    def __init__(self, bytes_max: int) -> None:
        self._half = bytes_max // 2
        self._young: dict[bytes, Held] = {}
        self._old: dict[bytes, Held] = {}
        self._bytes = 0
        """Of the young. The old is never more than half the bound and one entry."""
        self.hits = 0
        self.misses = 0

    def get(self, key: bytes) -> Held | None:
        """The record, if it is here."""
        held = self._young.get(key)
        if held is None:
            held = self._old.pop(key, None)
            if held is None:
                self.misses += 1
                return None
            self.put(key, held)
        self.hits += 1
        return held

    def put(self, key: bytes, held: Held) -> None:
        """Keep a record that is not here."""
        assert key not in self._young
        self._young[key] = held
        self._bytes += entry_bytes(key, held)
        if self._bytes > self._half:
            self._old, self._young, self._bytes = self._young, {}, 0

    def take(self, key: bytes) -> Held | None:
        """Hand out the record of a key that is being written, and forget it."""
        held = self._young.pop(key, None)
        if held is None:
            return self._old.pop(key, None)
        self._bytes -= entry_bytes(key, held)
        return held


def entry_bytes(key: bytes, held: Held) -> int:
    """What an entry costs in memory: the bytes, and Python's objects around them."""
    return len(key) + len(held.blob) + config.ENTRY_OVERHEAD_BYTES
