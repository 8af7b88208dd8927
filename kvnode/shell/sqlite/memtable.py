"""The memtable: recent writes, and what the table counts for the keys in it.

Promises: one dict lookup a read. Never: changes once it is frozen.
"""

from __future__ import annotations

from kvnode import config
from kvnode.core.versions import Held
from kvnode.shell.order import KeyOrder


class Memtable:
    """Records written since the last flush began."""

    __slots__ = ("bytes", "order", "records", "replaced")

    def __init__(self) -> None:
        self.records: dict[bytes, Held] = {}
        self.replaced: dict[bytes, int] = {}
        """Key -> key and live bytes that the table will count for it when this one is flushed: a crash
        in the middle of a flush leaves some rows new and some old, and counters that must say which."""
        self.order = KeyOrder(config.SCAN_SORT_MAX)
        self.bytes = 0


EMPTY = Memtable()
"""Stands where nothing is frozen."""
