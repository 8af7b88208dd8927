"""The commit log: one row a group commit, one commit in flight at a time.

Promises: a batch counts as durable only when its commit has returned; batches that arrive while one
is in flight share the next; replay is in order and complete, or the directory is refused.
Never: blocks the loop on the disk.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from kvnode import config
from kvnode.core.versions import Held
from kvnode.shell.sqlite.directory import WAY_OUT
from kvnode.shell.sqlite.format import Damaged, decode_batch, encode_batch
from kvnode.shell.sqlite.worker import Worker
from kvnode.shell.store import StoreFailed


class CommitLog:
    """The log of one data directory."""

    def __init__(self, path: Path, durability: str, wake: int) -> None:
        self._path = path
        self._worker = Worker(path, durability, autocommit=True)
        self._wake = wake
        self._next = 1
        self._queued: dict[bytes, Held] = {}
        self._queued_turn = 0
        self._flying_turn = 0
        self._flying_since = 0
        self._returned = False
        self.durable_turn = 0
        self.commits = 0
        self.commit_us = 0

    @property
    def meta(self) -> Worker:
        """The worker, for the identity kept beside the log."""
        return self._worker

    @property
    def last(self) -> int:
        """The number of the last batch handed to the disk."""
        return self._next - 1

    @property
    def idle(self) -> bool:
        """Whether nothing waits for the disk."""
        return not self._queued and not self._flying_turn

    def replay(self, after: int, apply: Callable[[bytes, Held], None]) -> None:
        """Apply every batch after this one, in order. Raises `StoreFailed` for a bad or missing one."""
        connection = sqlite3.connect(self._path)
        try:
            expected = after + 1
            rows = connection.execute("SELECT n, batch FROM log WHERE n > ? ORDER BY n", (after,))
            for number, batch in rows:
                if number != expected:
                    raise StoreFailed(f"{self._path}: batch {expected} is missing from the log: {WAY_OUT}")
                try:
                    for key, held in decode_batch(batch):
                        apply(key, held)
                except Damaged as error:
                    raise StoreFailed(f"{self._path}: batch {number}: {error}: {WAY_OUT}") from error
                expected += 1
        except sqlite3.DatabaseError as error:
            raise StoreFailed(f"{self._path}: {error}: {WAY_OUT}") from error
        finally:
            connection.close()
        self._next = expected

    def append(self, turn: int, writes: dict[bytes, Held]) -> None:
        """Make a turn durable: now if the disk is free, else together with others."""
        # A new dict, for the core still reads the one it handed over.
        self._queued = {**self._queued, **writes} if self._queued else writes
        self._queued_turn = turn
        if not self._flying_turn:
            self._fly()

    def _fly(self) -> None:
        batch = encode_batch(self._queued.items())
        self._flying_turn, self._queued = self._queued_turn, {}
        self._flying_since = time.monotonic_ns()
        # One statement, one transaction, one hop to the worker's thread. In autocommit mode a commit
        # that fails is a statement that fails, which sqlitedict survives and reports.
        self._worker.begin("INSERT INTO log VALUES (?, ?)", (self._next, batch), self._landed)
        self._next += 1

    def _landed(self) -> None:
        """On the worker's thread: a commit has returned."""
        self._returned = True
        os.eventfd_write(self._wake, 1)

    def poll(self) -> None:
        """Note a commit that has returned, and begin the next. Raises `StoreFailed`."""
        if self._returned:
            self._worker.check()
            self._returned = False
            self.durable_turn, self._flying_turn = self._flying_turn, 0
            self.commits += 1
            self.commit_us += (time.monotonic_ns() - self._flying_since) // 1000
            if self._queued:
                self._fly()
        elif self._flying_turn:
            self._worker.check()
            if time.monotonic_ns() - self._flying_since > config.COMMIT_S_MAX * 1_000_000_000:
                raise StoreFailed(f"{self._path}: a commit has not returned for {config.COMMIT_S_MAX} s")

    def trim(self, upto: int) -> None:
        """Forget the batches that the table holds; it leaves with the next commit."""
        self._worker.run("DELETE FROM log WHERE n <= ?", (upto,))

    def close(self) -> None:
        """Close the file."""
        self._worker.close()
