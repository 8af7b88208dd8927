"""The sqlite engine: log, memtable, frozen memtable, cache and table, as one store.

Promises: a write is visible when `submit` returns and durable when `durable` says so; reads never
go backwards, whatever a flush is doing; counters are exact.
Never: holds an entry in memory for each stored key, or acknowledges anything after a failure.

    newest   memtable ─► frozen memtable (a flush is writing it) ─► hot cache ─► table   oldest
"""

from __future__ import annotations

import contextlib
import os
import select
import sqlite3
import time
from pathlib import Path
from queue import Empty

import msgspec

from kvnode import config
from kvnode.config import Settings
from kvnode.core.outbox import Stored, Unreadable
from kvnode.core.versions import Held
from kvnode.protocol.ring import Ring
from kvnode.shell.sqlite.cache import HotCache
from kvnode.shell.sqlite.directory import LOG, TABLE, WAY_OUT, Directory
from kvnode.shell.sqlite.flusher import Flush, Flusher
from kvnode.shell.sqlite.log import CommitLog
from kvnode.shell.sqlite.memtable import EMPTY, Memtable
from kvnode.shell.sqlite.table import TableReader
from kvnode.shell.store import EngineStats, StoreFailed

SYNCHRONOUS = {"fsync": "FULL", "os": "OFF", "none": "OFF"}
"""What the log's commit waits for."""


class SqliteEngine:
    """An open data directory. One thread, the loop's, calls it."""

    name = "sqlite"

    def __init__(self, path: Path, node: str, durability: str, settings: Settings) -> None:
        """Open or make the directory, replay what the table lacks. Raises `StoreFailed`."""
        self.durability = durability
        self._settings = settings
        self._memtable = Memtable()
        self._held = self._memtable.records
        self._frozen = EMPTY
        self._frozen_turn = 0
        self._frozen_mark = 0
        self._flush_waits = False
        self._cache = HotCache(settings.cache_bytes)
        self._absent: set[bytes] = set()
        self._last_turn = 0
        self._flushes = 0
        self._closed = False
        with contextlib.ExitStack() as undo:
            self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            undo.callback(os.close, self._wake)
            self._directory = Directory(path, node)
            undo.callback(self._directory.release)
            self.identity = self._directory.identity()
            self._log = CommitLog(path / LOG, SYNCHRONOUS[durability], self._wake)
            undo.callback(self._log.close, config.STOP_S_MAX)
            boot = self.identity.boot
            self._flusher = Flusher(path / TABLE, boot, settings.compress_min_bytes, self._wake)
            undo.callback(self._flusher.stop, config.STOP_S_MAX)
            self._open_table(path / TABLE, boot)
            undo.callback(self._table.close)
            self._flusher.start()
            undo.pop_all()

    def _open_table(self, path: Path, boot: int) -> None:
        """Begin with what the table holds, then apply what the log has beyond it."""
        try:
            self._table = TableReader(path, boot)
            self._keys, self._value_bytes = self._table.meta("keys"), self._table.meta("value_bytes")
            self._log.replay(self._table.meta("mark"), self._table.meta("logged"), self._apply)
        except (sqlite3.Error, ValueError) as error:
            raise StoreFailed(f"{path.parent} cannot be read ({error}). {WAY_OUT}") from error

    def save_ring(self, ring: Ring) -> None:
        """Keep this ring; durable when it returns. Raises `StoreFailed`."""
        self._log.save_meta("ring", msgspec.msgpack.encode(ring))
        self.identity = msgspec.structs.replace(self.identity, ring=ring)

    # ---- reading ---------------------------------------------------------------------------

    def get(self, key: bytes) -> Held | None:
        """What is held of a key. Raises `Unreadable`."""
        held = self._held.get(key)
        if held is not None:
            return held
        held = self._frozen.records.get(key)
        if held is not None:
            return held
        held = self._cache.get(key)
        if held is not None:
            return held
        if key in self._absent:
            return None
        held = self._table.get(key)
        if held is not None:
            self._cache.put(key, held)
        else:
            if len(self._absent) >= config.ABSENT_REMEMBERED:
                self._absent.clear()
            self._absent.add(key)
        return held

    def scan(self, after: bytes, prefix: bytes, limit: int) -> list[Stored]:
        """Up to `limit` keys above `after` that start with `prefix`, in byte order. Raises `Unreadable`.

        Each source's first `limit` keys together contain the page's.
        """
        rows = dict(self._table.rows(after, prefix, limit))
        keys = set(rows)
        for layer in (self._frozen, self._memtable):
            if layer.records:
                keys.update(layer.order.page(after, prefix, limit))
        newest, frozen = self._held, self._frozen.records
        page = []
        for key in sorted(keys)[:limit]:
            held = newest.get(key) or frozen.get(key)
            # Decoded last: damage to a row that was written again since is nobody's concern.
            page.append(Stored(key, held if held is not None else self._table.decode(key, rows[key])))
        return page

    # ---- writing ---------------------------------------------------------------------------

    def submit(self, number: int, writes: dict[bytes, Held]) -> None:
        """Make these writes visible and begin their commit. Raises `StoreFailed`."""
        assert number > self._last_turn
        if self._flusher.failure:
            raise StoreFailed(self._flusher.failure)
        self._log.append(number, writes)  # first: the disk works while the memtable is filled
        self._last_turn = number
        self._apply(writes)
        if self._memtable.bytes > self._settings.memtable_bytes and self._frozen is EMPTY:
            self._freeze()
        if self.durability == "none":
            os.eventfd_write(self._wake, 1)

    def _apply(self, writes: dict[bytes, Held]) -> None:
        """Put records into the memtable and keep the counters."""
        # The hottest loop of a write: one function, and what it adds up is stored once.
        held_of_key, fresh = self._held, self._memtable.order.fresh
        overhead = config.ENTRY_OVERHEAD_BYTES
        keys = value_bytes = grown = 0
        for key, held in writes.items():
            live, entry = held.live_bytes, len(held.blob)
            old = held_of_key.get(key)
            if old is None:
                was = self._replace(key, held)
                fresh.append(key)
                grown += len(key) + entry + overhead
            else:
                was = old.live_bytes
                grown += entry - len(old.blob)
            held_of_key[key] = held
            if was:
                keys -= 1
                value_bytes -= len(key) + was
            if live:
                keys += 1
                value_bytes += len(key) + live
        self._memtable.bytes += grown
        self._keys += keys
        self._value_bytes += value_bytes

    def _replace(self, key: bytes, held: Held) -> int:
        """Note what the memtable's first record of a key stands over. Returns the live bytes of that."""
        old = self._frozen.records.get(key) or self._cache.take(key)
        if old is None and key in self._absent:
            self._absent.discard(key)
        elif old is None:
            try:
                old = self._table.get(key)
            except Unreadable:
                # It was counted while it could be read; as what, is lost with it. As much as this one.
                old = held
        was = old.live_bytes if old is not None else 0
        if was:
            self._memtable.replaced[key] = len(key) + was
        return was

    def _freeze(self) -> None:
        """At a turn's end: begin a new memtable, and have this one flushed.

        The mark is the last batch handed to the disk: all of it is in here. It may not be durable yet,
        and later turns wait for the next; therefore the flush waits for both.
        """
        assert self._frozen is EMPTY
        self._frozen, self._memtable = self._memtable, Memtable()
        self._held = self._memtable.records
        self._frozen_turn = self._last_turn
        self._frozen_mark = self._log.last_batch
        self._flush_waits = True

    def _start_flush(self) -> None:
        """Hand the frozen memtable over: all of it is in the log by now."""
        self._flush_waits = False
        self._flushes += 1
        number = self.identity.boot << 32 | self._flushes
        frozen = self._frozen
        self._flusher.flush(
            Flush(frozen.records, frozen.replaced, self._frozen_mark, self._log.durable_batch, number)
        )

    def durable(self) -> int:
        """The last turn that is durable. Raises `StoreFailed`."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        if self._flusher.failure:
            raise StoreFailed(self._flusher.failure)
        self._log.poll()
        if self._flush_waits:
            # The log first: nothing reaches the table that a crash could still take back.
            if self._log.durable_turn >= self._frozen_turn:
                self._start_flush()
        elif self._frozen is not EMPTY:
            self._thaw()
        return self._last_turn if self.durability == "none" else self._log.durable_turn

    def _thaw(self) -> None:
        """Drop the frozen memtable once the reading connection sees what it held."""
        try:
            done = self._flusher.finished.get_nowait()
        except Empty:
            return
        if self._table.meta("flush") != done.number:
            self._flusher.finished.put(done)  # looked at again the next time
            return
        self._log.trim(done.mark)
        self._flusher.forget(self._frozen.records)
        self._frozen = EMPTY

    @property
    def behind(self) -> bool:
        """Whether flush or commit have fallen so far behind that reading must wait."""
        bound = config.MEMTABLE_FACTOR_MAX * self._settings.memtable_bytes
        return (
            self._frozen is not EMPTY and self._memtable.bytes > bound
        ) or self._log.queued_bytes > config.LOG_QUEUE_BYTES_MAX

    # ---- the rest --------------------------------------------------------------------------

    def fileno(self) -> int:
        """Readable when `durable` may have something new."""
        return self._wake

    def stats(self) -> EngineStats:
        """Figures for status."""
        directory = self._directory
        counters = {
            "commits": self._log.commits,
            "commit_us": self._log.commit_us,
            "flushes": self._flushes,
            "cache_hits": self._cache.hits,
            "cache_misses": self._cache.misses,
            "unreadable_rows": self._table.unreadable,
            "memtable_bytes": self._memtable.bytes,
        }
        return EngineStats(
            self._keys, self._value_bytes, directory.disk_bytes(), directory.disk_free_bytes(), counters
        )

    def close(self) -> None:
        """Finish what was submitted, within a bound; release the directory."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(StoreFailed):  # said when it happened; now there is only to let go
            self._finish()
        self._table.close()
        flusher_ended = self._flusher.stop(config.STOP_S_MAX)
        log_ended = self._log.close(config.STOP_S_MAX)
        if flusher_ended and log_ended:
            self._directory.release()
            os.close(self._wake)
        # Else a thread hangs in the disk and may still write: lock and descriptor stay until the process ends.

    def _finish(self) -> None:
        """Wait for the commits under way, within a bound."""
        deadline = time.monotonic() + config.STOP_S_MAX
        poller = select.poll()
        poller.register(self._wake, select.POLLIN)
        self.durable()
        while not self._log.idle and time.monotonic() < deadline:
            poller.poll(config.POLL_MS_MAX)
            self.durable()
