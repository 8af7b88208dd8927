"""The commit log: one row a group commit, one commit in flight at a time.

Promises: a batch counts as durable only when its commit has returned; turns that arrive while one
is in flight share the next; replay is in order and complete, or the directory is refused.
Never: blocks the loop on the disk, or forgets a failure.

    append(5) ─► in flight ─────────────► durable_turn = 5
    append(6) ─► waits ┐
    append(7) ─► waits ┴─► in flight, one row, one fsync ─► durable_turn = 7

The last batch that the table holds stays behind when the log is trimmed. So a log that was lost,
cut or taken from another time no longer joins on to the table, and that shows at the next start.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from kvnode import config
from kvnode.core.outbox import Aside
from kvnode.core.versions import Held
from kvnode.shell.sqlite.directory import LOG_PAGE_BYTES, WAY_OUT
from kvnode.shell.sqlite.format import Batch, Damaged, decode_batch, encode_batch
from kvnode.shell.sqlite.memtable import aside_bytes
from kvnode.shell.sqlite.worker import CHECKPOINT, Worker
from kvnode.shell.store import StoreFailed

COMMIT_NS_MAX = config.COMMIT_S_MAX * 1_000_000_000
STALL_NS = config.STALL_MS * 1_000_000
"""Between two looks at a commit no more is counted than this: beyond it, this process stood still (SIGSTOP)."""


class CommitLog:
    """The log of one data directory."""

    def __init__(self, path: Path, synchronous: str, wake: int) -> None:
        self._path = path
        self._worker = Worker(path, synchronous, autocommit=True)
        self._wake = wake
        self._next = 1
        self._queued: dict[bytes, Held] = {}
        self._queued_is_ours = False
        self._queued_aside: Aside | None = None
        self._queued_turn = 0
        """The last turn that waits for the disk; 0 when none does. A turn may be without writes."""
        self._flying_turn = 0
        self._flying_since = self._looked = self._waited = 0
        self._returned = False
        self._sizes: deque[tuple[int, int]] = deque()
        """Number and bytes of each batch in the log."""
        self._trim_to = 0
        self._since_checkpoint = 0
        self.queued_bytes = 0
        self.durable_turn = 0
        self.durable_batch = 0
        """The number of the last batch whose commit has returned."""
        self.commits = 0
        self.commit_us = 0

    @property
    def idle(self) -> bool:
        """Whether nothing waits for the disk."""
        return not self._queued_turn and not self._flying_turn

    @property
    def last_batch(self) -> int:
        """The number of the last batch handed to the disk."""
        return self._next - 1

    # ---- opening ---------------------------------------------------------------------------

    def replay(self, mark: int, logged: int, apply: Callable[[Batch], object]) -> None:
        """Apply every batch after the table's mark, in order. Raises `StoreFailed` for a hole.

        `logged` is the batch by which everything in the table was durable here: in the middle of a
        flush, and after it, the table holds more than the mark says.
        """
        connection = sqlite3.connect(f"file:{self._path}?mode=ro", uri=True)
        try:
            connection.execute("PRAGMA wal_autocheckpoint=0")
            self._check_ends(
                mark, max(mark, logged), *connection.execute("SELECT min(n), max(n) FROM log").fetchone()
            )
            expected = mark + 1
            for number, batch in connection.execute("SELECT n, batch FROM log WHERE n > ? ORDER BY n", (mark,)):
                if number != expected:
                    raise self._hole(f"batch {expected} is missing")
                try:
                    apply(decode_batch(number, batch))
                except Damaged as error:
                    raise self._hole(f"of batch {number}, {error}") from error
                self._sizes.append((number, len(batch)))
                expected += 1
        finally:
            connection.close()
        self._next = expected
        self.durable_batch = expected - 1
        # What was trimmed late, or never because of a crash, goes with the next trim.
        self._sizes.appendleft((mark, 0))

    def _check_ends(self, mark: int, logged: int, first: int | None, last: int | None) -> None:
        """Whether this log can be the one that the table was filled from."""
        if first is None or last is None:
            if logged:
                raise self._hole(f"it is empty, but the table holds batches up to {logged}")
        elif first > mark + 1:
            raise self._hole(f"it begins with batch {first}, the table ends with {mark}")
        elif last < logged:
            raise self._hole(f"it ends with batch {last}, but the table holds batches up to {logged}")

    def _hole(self, what: str) -> StoreFailed:
        return StoreFailed(f"there is a hole in the log {self._path}: {what}. {WAY_OUT}")

    # ---- writing ---------------------------------------------------------------------------

    def append(self, turn: int, writes: dict[bytes, Held], aside: Aside | None) -> None:
        """Make a turn durable: now if the disk is free, else together with others."""
        if aside is not None:
            self._queue_aside(aside)
        if not self._queued_turn:
            self._queued, self._queued_is_ours = writes, False
        else:
            if not self._queued_is_ours:  # the core still reads the one it handed over
                self._queued, self._queued_is_ours = dict(self._queued), True
            self._queued.update(writes)
        self._queued_turn = turn
        if not self._flying_turn:
            self._fly()
        else:
            self.check()
            self.queued_bytes += sum(len(key) + len(held.blob) for key, held in writes.items())

    def _queue_aside(self, aside: Aside) -> None:
        if self._queued_aside is None:
            self._queued_aside = Aside({}, {})  # our own: the core may still read the one it handed over
        self._queued_aside.hints.update(aside.hints)
        self._queued_aside.facts.update(aside.facts)
        self._queued_aside.registers.update(aside.registers)
        if self._flying_turn:
            self.queued_bytes += aside_bytes(aside)

    def _fly(self) -> None:
        batch = encode_batch(self._next, self._queued, self._queued_aside)
        self._flying_turn, self._queued_turn = self._queued_turn, 0
        self._queued, self._queued_aside, self.queued_bytes = {}, None, 0
        self._flying_since = self._looked = time.monotonic_ns()
        self._waited = 0
        # One statement, one transaction, one hop to the worker's thread.
        self._worker.begin("INSERT INTO log VALUES (?, ?)", (self._next, batch), self._landed)
        self._sizes.append((self._next, len(batch)))
        # What it adds to the WAL: its pages, one cut short, and the page above them. Once the WAL has
        # its full size it is written over from the start, and a sync need not note a longer file.
        self._since_checkpoint += len(batch) + 2 * LOG_PAGE_BYTES
        self._next += 1

    def _landed(self) -> None:
        """On the worker's thread: a commit has returned."""
        self._returned = True
        os.eventfd_write(self._wake, 1)

    def poll(self) -> None:
        """Note a commit that has returned, and begin the next. Raises `StoreFailed`."""
        # In this order: a failure is noted before `_returned` is set, so it cannot slip in between.
        returned = self._returned
        self.check()
        if returned:
            self._returned = False
            self.durable_turn, self._flying_turn = self._flying_turn, 0
            self.durable_batch = self._next - 1
            self.commits += 1
            self.commit_us += (time.monotonic_ns() - self._flying_since) // 1000
            self._tidy()
            if self._queued_turn:
                self._fly()
        elif not self._flying_turn:
            self._tidy()
        else:
            now = time.monotonic_ns()
            self._waited += min(now - self._looked, STALL_NS)
            self._looked = now
            if self._waited > COMMIT_NS_MAX:
                raise self._worker.fail(f"a commit has not returned for {config.COMMIT_S_MAX} s")

    def _tidy(self) -> None:
        """Between commits, so behind the acks of one and before the next: checkpoint, then trim a piece."""
        if self._since_checkpoint > config.LOG_CHECKPOINT_BYTES:
            self._since_checkpoint = 0
            self._worker.run(CHECKPOINT)
        sizes, size = self._sizes, 0
        while sizes and sizes[0][0] < self._trim_to and size < config.LOG_TRIM_BYTES:
            size += sizes.popleft()[1]
        if size:
            upto = sizes[0][0] if sizes else self._trim_to
            self._worker.run("DELETE FROM log WHERE n < ?", (min(upto, self._trim_to),))

    def trim(self, mark: int) -> None:
        """Forget the batches before this one, piece by piece: the table holds them."""
        assert mark <= self.durable_batch
        self._trim_to = mark

    # ---- the rest --------------------------------------------------------------------------

    def save_meta(self, name: str, value: bytes) -> None:
        """Keep a value beside the log; durable when it returns. Raises `StoreFailed`."""
        self._worker.ask("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def check(self) -> None:
        """Raises `StoreFailed` once anything has failed."""
        self._worker.check()

    def close(self, seconds: float) -> bool:
        """Close the file. False if its worker did not end in time."""
        return self._worker.close(seconds)
