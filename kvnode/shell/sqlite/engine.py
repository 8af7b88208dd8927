"""The sqlite engine: log, layers and flusher, as one store.

Promises: a write is visible when `submit` returns and durable when `durable` says so; nothing reaches
the table before it is in the log, and nothing leaves the log before it is in the table.
Never: blocks on the disk but to open, close and save a ring; acknowledges anything after a failure.

    submit ─► log ─► durable
         └──► memtable ─► frozen, once the log has it ─► flusher ─► table ─► the log is trimmed
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Empty

import msgspec

from kvnode import config
from kvnode.config import Settings
from kvnode.core.merkle import HashTree
from kvnode.core.outbox import Aside, Hint, HintKey, Stored
from kvnode.core.versions import Held
from kvnode.protocol.ring import Ring
from kvnode.shell.sqlite.directory import LOG, TABLE, WAY_OUT, Directory
from kvnode.shell.sqlite.flusher import Flush, Flusher
from kvnode.shell.sqlite.indexing import index_table
from kvnode.shell.sqlite.layers import UNUSABLE, Layers
from kvnode.shell.sqlite.log import CommitLog
from kvnode.shell.sqlite.memtable import EMPTY
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
        self._frozen_turn = 0
        self._frozen_mark = 0
        self._flush_waits = False
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
            self._rows_indexed = index_table(path / TABLE)
            self._flusher = Flusher(path / TABLE, boot, settings.compress_min_bytes, self._wake)
            undo.callback(self._flusher.stop, config.STOP_S_MAX)
            self._layers = self._open_layers(path / TABLE, boot)
            undo.callback(self._layers.close)
            self._flusher.start()
            undo.pop_all()

    def _open_layers(self, path: Path, boot: int) -> Layers:
        """Begin with what the table holds, then apply what the log has beyond it."""
        try:
            layers = Layers(path, boot, self._settings.cache_bytes)
            self._log.replay(layers.table.meta("mark"), layers.table.meta("logged"), layers.replay)
        except UNUSABLE as error:
            raise StoreFailed(f"{path.parent} cannot be read ({error}). {WAY_OUT}") from error
        return layers

    def save_ring(self, ring: Ring) -> None:
        """Keep this ring; durable when it returns. Raises `StoreFailed`."""
        self._log.save_meta("ring", msgspec.msgpack.encode(ring))
        self.identity = msgspec.structs.replace(self.identity, ring=ring)

    # ---- reading ---------------------------------------------------------------------------

    @property
    def tree(self) -> HashTree:
        """The hashes of everything held."""
        return self._layers.tree

    def get(self, key: bytes) -> Held | None:
        """What is held of a key. Raises `Unreadable`."""
        return self._layers.get(key)

    def scan(self, after: bytes, prefix: bytes, limit: int) -> Iterator[Stored]:
        """Up to `limit` keys above `after` that start with `prefix`, in byte order. Raises `Unreadable`."""
        return self._layers.scan(after, prefix, limit)

    def leaf(self, leaf: int) -> list[tuple[bytes, Held | None]]:
        """Every key in a leaf, and what is held of it; None where that is damaged. Raises `Unreadable`."""
        return self._layers.leaf(leaf)

    def hints(self) -> dict[HintKey, Hint]:
        """Every hint. Raises `StoreFailed`."""
        try:
            return self._layers.hints()
        except UNUSABLE as error:
            raise StoreFailed(
                f"the hints in {self._directory.path} cannot be read ({error}). {WAY_OUT}"
            ) from error

    def register(self, key: bytes) -> bytes:
        """A key's register; empty where there is none. Raises `Unreadable`."""
        return self._layers.register(key)

    def registers(self, after: bytes, prefix: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """Up to `limit` registers of keys above `after` that start with `prefix`. Raises `Unreadable`."""
        return self._layers.registers(after, prefix, limit)

    def registers_in(self, leaf: int) -> list[tuple[bytes, bytes | None]]:
        """Every key in a leaf that has a register, and that; None where it is damaged. Raises `Unreadable`."""
        return self._layers.registers_in(leaf)

    def fact(self, name: str) -> bytes:
        """What was last noted under this name; empty when nothing was."""
        return self._layers.fact(name)

    # ---- writing ---------------------------------------------------------------------------

    def submit(self, number: int, writes: dict[bytes, Held], aside: Aside | None = None) -> None:
        """Make these writes visible and begin their commit. Raises `StoreFailed`."""
        assert number > self._last_turn
        if self._flusher.failure:
            raise StoreFailed(self._flusher.failure)
        self._log.append(number, writes, aside)  # first: the disk works while the memtable is filled
        self._last_turn = number
        layers = self._layers
        layers.apply(writes)
        if aside is not None:
            layers.set_aside(aside)
        if layers.memtable.bytes > self._settings.memtable_bytes and layers.frozen is EMPTY:
            self._freeze()
        if self.durability == "none":
            os.eventfd_write(self._wake, 1)

    def _freeze(self) -> None:
        """At a turn's end: begin a new memtable, and have this one flushed.

        The mark is the last batch handed to the disk: all of it is in here. It may not be durable yet,
        and later turns wait for the next; therefore the flush waits for both.
        """
        self._layers.freeze()
        self._frozen_turn = self._last_turn
        self._frozen_mark = self._log.last_batch
        self._flush_waits = True

    def _start_flush(self) -> None:
        """Hand the frozen memtable over: all of it is in the log by now."""
        self._flush_waits = False
        self._flushes += 1
        number = self.identity.boot << 32 | self._flushes
        self._flusher.flush(
            Flush(self._layers.frozen, self.tree, self._frozen_mark, self._log.durable_batch, number)
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
        elif self._layers.frozen is not EMPTY:
            self._thaw()
        return self._last_turn if self.durability == "none" else self._log.durable_turn

    def _thaw(self) -> None:
        """Drop the frozen memtable once the reading connection sees what it held."""
        try:
            done = self._flusher.finished.get_nowait()
        except Empty:
            return
        if self._layers.table.meta("flush") != done.number:
            self._flusher.finished.put(done)  # looked at again the next time
            return
        self._log.trim(done.mark)
        self._flusher.forget(self._layers.thaw())

    @property
    def behind(self) -> bool:
        """Whether flush or commit have fallen so far behind that reading must wait."""
        bound = config.MEMTABLE_FACTOR_MAX * self._settings.memtable_bytes
        flush_is_behind = self._layers.frozen is not EMPTY and self._layers.memtable.bytes > bound
        return flush_is_behind or self._log.queued_bytes > config.LOG_QUEUE_BYTES_MAX

    def mend_leaf(self, leaf: int) -> bool:
        """Add a leaf of the tree up from what is held. True if it was wrong. Raises `Unreadable`."""
        return self._layers.mend_leaf(leaf)

    # ---- the rest --------------------------------------------------------------------------

    def fileno(self) -> int:
        """Readable when `durable` may have something new."""
        return self._wake

    def stats(self) -> EngineStats:
        """Figures for status."""
        directory, layers = self._directory, self._layers
        counters = {
            "commits": self._log.commits,
            "commit_us": self._log.commit_us,
            "flushes": self._flushes,
            "cache_hits": layers.cache.hits,
            "cache_misses": layers.cache.misses,
            "unreadable_rows": layers.table.unreadable,
            "unreadable_hints": layers.table.unreadable_hints,
            "unreadable_facts": layers.table.unreadable_facts,
            "leaves_rebuilt": layers.leaves_rebuilt,
            "rows_indexed": self._rows_indexed,
            "memtable_bytes": layers.memtable.bytes,
        }
        disk, free = directory.disk_bytes(), directory.disk_free_bytes()
        return EngineStats(layers.keys, layers.value_bytes, disk, free, counters)

    def close(self) -> None:
        """Finish what was submitted, within a bound; release the directory."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(StoreFailed):  # said when it happened; now there is only to let go
            self._finish()
        self._layers.close()
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
