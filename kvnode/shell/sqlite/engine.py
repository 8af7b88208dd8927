"""The sqlite engine: log, memtable, frozen memtable, cache and table, as one store.

Promises: a write is visible when `submit` returns and durable when `durable` says so; reads never
go backwards, whatever a flush is doing; counters are exact.
Never: holds an entry in memory for each stored key.

    newest   memtable ─► frozen memtable (a flush is writing it) ─► hot cache ─► table   oldest
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from heapq import nsmallest
from itertools import chain
from pathlib import Path
from queue import Empty

import msgspec

from kvnode import config
from kvnode.config import Settings
from kvnode.core.outbox import Stored, Unreadable
from kvnode.core.versions import Held
from kvnode.protocol.ring import Ring
from kvnode.shell.sqlite.cache import HotCache, entry_bytes
from kvnode.shell.sqlite.directory import WAY_OUT, Directory
from kvnode.shell.sqlite.log import CommitLog
from kvnode.shell.sqlite.table import Flush, Flusher, TableReader
from kvnode.shell.store import EngineStats, Identity, StoreFailed

DISK_ID_BITS = 63


class SqliteEngine:
    """An open data directory. One thread, the loop's, calls it."""

    name = "sqlite"

    def __init__(self, path: Path, node: str, durability: str, settings: Settings) -> None:
        """Open or make the directory, replay what the table lacks. Raises `StoreFailed`."""
        self.durability = durability
        self._settings = settings
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._memtable: dict[bytes, Held] = {}
        self._memtable_bytes = 0
        self._frozen: dict[bytes, Held] = {}
        self._freezing = False
        self._cache = HotCache(settings.cache_bytes)
        self._absent: set[bytes] = set()
        self._last_turn = 0
        self._flushes = 0
        self._unreadable = 0
        self._closed = False
        self._directory = Directory(path)
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, self._wake)
            undo.callback(self._directory.release)
            self._log = CommitLog(path / "log.db", durability, self._wake)
            undo.callback(self._log.close)
            self.identity = self._identify(node)
            boot = self.identity.boot
            self._table = TableReader(path / "table.db", boot)
            undo.callback(self._table.close)
            self._keys, self._value_bytes = self._table.meta("keys"), self._table.meta("value_bytes")
            self._flusher = Flusher(path / "table.db", durability, boot, settings.compress_min_bytes, self._wake)
            undo.callback(self._flusher.stop, 1.0)
            self._log.replay(self._table.meta("mark"), self._apply)
            undo.pop_all()

    # ---- identity --------------------------------------------------------------------------

    def _identify(self, node: str) -> Identity:
        """Whose directory this is, and which boot; the boot is durable when this returns."""
        rows = {name: self._meta(name) for name in ("node", "disk_id", "boot", "ring")}
        owner = (rows["node"] or node.encode()).decode()
        if owner != node:
            raise StoreFailed(
                f"{self._directory.path} belongs to node {owner}, not {node}: name another directory"
            )
        boot = int(rows["boot"] or b"0") + 1
        disk_id = int(rows["disk_id"]) if rows["disk_id"] is not None else secrets.randbits(DISK_ID_BITS)
        try:
            ring = None if rows["ring"] is None else msgspec.msgpack.decode(rows["ring"], type=Ring)
        except msgspec.MsgspecError as error:
            raise StoreFailed(f"{self._directory.path}: the ring in it cannot be read: {WAY_OUT}") from error
        for name, value in (("node", node), ("disk_id", disk_id), ("boot", boot)):
            self._set_meta(name, str(value).encode())
        return Identity(node, disk_id, boot, ring)

    def _meta(self, name: str) -> bytes | None:
        row = self._log.meta.ask("SELECT value FROM meta WHERE key=?", (name,))
        return None if row is None else bytes(row[0])

    def _set_meta(self, name: str, value: bytes) -> None:
        self._log.meta.ask("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def save_ring(self, ring: Ring) -> None:
        """Keep this ring; durable when it returns. Raises `StoreFailed`."""
        self._set_meta("ring", msgspec.msgpack.encode(ring))
        self.identity = msgspec.structs.replace(self.identity, ring=ring)

    # ---- reading ---------------------------------------------------------------------------

    def get(self, key: bytes) -> Held | None:
        """What is held of a key. Raises `Unreadable`."""
        held = self._memtable.get(key)
        if held is not None:
            return held
        if self._frozen:
            held = self._frozen.get(key)
            if held is not None:
                return held
        held = self._cache.get(key)
        if held is not None:
            return held
        if key in self._absent:
            return None
        return self._from_table(key)

    def _from_table(self, key: bytes) -> Held | None:
        try:
            held = self._table.get(key)
        except Unreadable:
            self._unreadable += 1
            raise
        if held is not None:
            self._cache.put(key, held)
            return held
        if len(self._absent) >= config.ABSENT_REMEMBERED:
            self._absent.clear()
        self._absent.add(key)
        return None

    def scan(self, after: bytes, prefix: bytes, limit: int) -> list[Stored]:
        """Up to `limit` keys above `after` that start with `prefix`, in byte order. Raises `Unreadable`."""
        stored = self._table.scan(after, prefix, limit)
        fresh = nsmallest(
            limit, (k for k in chain(self._memtable, self._frozen) if k > after and k.startswith(prefix))
        )
        if not fresh:
            return stored
        rows = {row.key: row.held for row in stored}
        last = stored[-1].key if len(stored) == limit else None
        for key in fresh:
            if last is None or key <= last:
                rows[key] = self._memtable.get(key) or self._frozen[key]
        return [Stored(key, rows[key]) for key in sorted(rows)[:limit]]

    # ---- writing ---------------------------------------------------------------------------

    def submit(self, number: int, writes: dict[bytes, Held]) -> None:
        """Make these writes visible and begin their commit. Raises `StoreFailed`."""
        assert number > self._last_turn
        if self._flusher.failure:
            raise StoreFailed(self._flusher.failure)
        self._log.append(number, writes)
        self._last_turn = number
        for key, held in writes.items():
            self._apply(key, held)
        if self._memtable_bytes > self._settings.memtable_bytes and not self._freezing:
            self._freeze()

    def _apply(self, key: bytes, held: Held) -> None:
        """Put a record into the memtable, and keep the counters."""
        old = self._memtable.get(key)
        if old is not None:
            self._memtable_bytes += len(held.blob) - len(old.blob)
        else:
            try:
                old = self.get(key)
            except Unreadable:
                old = held  # it was counted when it could be read; its size is lost with it
            self._memtable_bytes += entry_bytes(key, held)
            self._absent.discard(key)
        self._cache.drop(key)
        self._memtable[key] = held
        if old is not None and old.live_bytes:
            self._keys -= 1
            self._value_bytes -= len(key) + value_bytes(old)
        if held.live_bytes:
            self._keys += 1
            self._value_bytes += len(key) + value_bytes(held)

    def _freeze(self) -> None:
        """At a turn's end: hand the memtable to the flusher, begin a new one."""
        assert not self._frozen
        self._frozen, self._memtable, self._memtable_bytes = self._memtable, {}, 0
        self._freezing = True
        self._flusher.flush(Flush(self._frozen, self._log.last, self._keys, self._value_bytes))

    def durable(self) -> int:
        """The last turn that is durable. Raises `StoreFailed`."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        self._log.poll()
        if self._freezing:
            self._thaw()
        return self._last_turn if self.durability == "none" else self._log.durable_turn

    def _thaw(self) -> None:
        """Drop the frozen memtable once the reading connection sees what it held."""
        if self._flusher.failure:
            raise StoreFailed(self._flusher.failure)
        try:
            done = self._flusher.finished.get_nowait()
        except Empty:
            return
        assert self._table.meta("mark") == done.mark
        self._frozen, self._freezing = {}, False
        self._flushes += 1
        self._log.trim(done.mark)

    @property
    def behind(self) -> bool:
        """Whether the flush has fallen so far behind that reading must wait."""
        return self._freezing and self._memtable_bytes > config.MEMTABLE_FACTOR_MAX * self._settings.memtable_bytes

    # ---- the rest --------------------------------------------------------------------------

    def fileno(self) -> int:
        """Readable when `durable` may have something new."""
        return self._wake

    def stats(self) -> EngineStats:
        """Figures for status."""
        counters = {
            "commits": self._log.commits,
            "commit_us": self._log.commit_us,
            "flushes": self._flushes,
            "cache_hits": self._cache.hits,
            "cache_misses": self._cache.misses,
            "unreadable_rows": self._unreadable,
            "memtable_bytes": self._memtable_bytes,
        }
        directory = self._directory
        return EngineStats(
            self._keys, self._value_bytes, directory.disk_bytes(), directory.disk_free_bytes(), counters
        )

    def close(self) -> None:
        """Finish what was submitted, within a bound; release the directory."""
        if self._closed:
            return
        self._closed = True
        deadline = time.monotonic() + config.STOP_S_MAX
        try:
            while not self._log.idle and time.monotonic() < deadline:
                self.durable()
                time.sleep(0.001)
        except StoreFailed:
            pass  # said when it happened; what is left to do is to let go
        self._flusher.stop(config.STOP_S_MAX)
        self._log.close()
        self._table.close()
        self._directory.release()
        os.close(self._wake)


def value_bytes(held: Held) -> int:
    """Bytes of a record's live values (a value of no bytes is told apart by counting as one)."""
    return held.live_bytes
