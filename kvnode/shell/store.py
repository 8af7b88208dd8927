"""The Store protocol: what a storage engine promises the loop, whatever it is built on.

Promises an engine keeps: `submit` makes writes visible at once and begins their commit; a turn
counts as durable only when `durable()` says so; after a crash everything durable is there.
Never: a damaged record is served, a failed commit retried, or a caller blocked on the disk.

    submit(7, writes) ──► visible in get/scan
         │
         └─► commit ──► fileno() readable ──► durable() == 7 ──► the loop sends turn 7's acks

One conformance suite (`tests/test_store_conformance.py`) holds for every engine.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from kvnode.core.outbox import Aside, Store
from kvnode.core.versions import Held
from kvnode.protocol.ring import Ring

DURABILITIES = ("fsync", "os", "none")
"""fsync: acknowledged means on the platter. os: handed to the kernel, survives the process but not
the power. none: acknowledged from memory, the log follows behind."""


class StoreFailed(Exception):
    """The engine can take no more writes: a commit failed, or the files are damaged.

    The message says what failed and what to do next. Reads may still work.
    """


class StoreLocked(StoreFailed):
    """Another process has this data directory open."""


class Identity(Struct, frozen=True):
    """What a data directory says of itself."""

    node: str
    disk_id: int
    """Random, drawn when the directory was made."""
    boot: int
    """How often the directory was opened, this time included; durable before `open` returns."""
    ring: Ring | None
    """The ring last saved; None in a new directory."""


class EngineStats(Struct, frozen=True):
    """Figures for status; cheap enough to ask once a second."""

    keys: int
    """Keys with at least one live value."""
    value_bytes: int
    """Key and value bytes of those, uncompressed."""
    disk_bytes: int
    disk_free_bytes: int
    counters: dict[str, int]
    """commits, flushes, cache_hits, cache_misses, unreadable, ... counted since the boot."""


class Engine(Store, Protocol):
    """A store that can be written to."""

    name: str
    durability: str

    @property
    def identity(self) -> Identity:
        """Who this directory belongs to, and which boot this is."""
        ...

    @property
    def behind(self) -> bool:
        """Whether the flush has fallen behind, so that the node should stop reading clients."""
        ...

    def submit(self, number: int, writes: dict[bytes, Held], aside: Aside | None = None) -> None:
        """Make these writes visible and begin their commit as turn `number` (ascending).

        A record that is `GONE` is dropped: later reads, scans and leaves do not show it. Hints, facts and
        registers become durable with the same commit; the last two are visible at once. Raises
        `StoreFailed` when an earlier commit is known to have failed; nothing is written then.
        """
        ...

    def durable(self) -> int:
        """The number of the last turn that is durable, all earlier ones included; 0 before the first.

        Also does the engine's housekeeping, in bounded time. Raises `StoreFailed` once a commit has
        failed or its outcome is unknown; the node must then stop acknowledging for good.
        """
        ...

    def fileno(self) -> int:
        """A descriptor that is readable when `durable` may have something new."""
        ...

    def mend_leaf(self, leaf: int) -> bool:
        """Add a leaf of the tree up from the records in it, in memory and where it is saved. True if it was wrong.

        One that has a damaged record is left as it is. Raises `Unreadable` when its keys cannot be told.
        """
        ...

    def save_ring(self, ring: Ring) -> None:
        """Keep this ring; durable (at the engine's level) when it returns. Raises `StoreFailed`."""
        ...

    def stats(self) -> EngineStats:
        """Figures for status."""
        ...

    def close(self) -> None:
        """Finish what was submitted, release the directory. Safe to call twice."""
        ...
