"""One SQLite file written through sqlitedict's worker thread, with its traps fenced in.

Promises: journal and sync level are what was asked, read back and checked; a statement or commit
that fails is noticed, a worker that dies is noticed, no wait is without end.
Never: pickles, retries a commit, or lets two threads of ours talk to one worker.

The traps (sqlitedict 2.1.0; each was seen by running it): it sets `synchronous=OFF`; a failed
commit kills its thread and leaves the caller waiting for ever; a failed statement shows only at a
later call, and the commit after it "succeeds"; it keeps no strong reference to a reply queue.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from sqlitedict import SqliteDict

from kvnode import config
from kvnode.shell.store import StoreFailed

MEND = "nothing more is acknowledged here; mend the disk, then start the node again (its peers carry on)"
COMMIT = "--commit--"
"""The request sqlitedict's own `commit` sends to its worker."""
LEVELS = {"fsync": ("FULL", 2), "os": ("OFF", 0), "none": ("OFF", 0)}


def _same(value: bytes) -> bytes:
    return value


class Told:
    """What the worker puts its answers into: calls back, on the worker's thread."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell = tell

    def put(self, _: object) -> None:
        """Called where sqlitedict would fill a queue."""
        self._tell()


class Worker:
    """A file, its table `meta` as a dict of bytes, and raw SQL beside it."""

    def __init__(self, path: Path, durability: str, *, autocommit: bool) -> None:
        """Open it. With `autocommit` each statement is a transaction of its own, committed before it returns."""
        self._path = path
        self.meta: Any = SqliteDict(
            str(path), tablename="meta", journal_mode="WAL", autocommit=autocommit,
            outer_stack=False, encode=_same, decode=_same,
        )  # fmt: skip
        self._conn = self.meta.conn
        word, number = LEVELS[durability]
        self.ask(f"PRAGMA synchronous={word}")
        found = self.ask("PRAGMA synchronous"), self.ask("PRAGMA journal_mode")
        if found != ((number,), ("wal",)):
            self.close()
            raise StoreFailed(f"{path}: SQLite runs with {found}, not in WAL mode with synchronous={word}")
        self._told: Told | None = None

    def run(self, sql: str, args: tuple[object, ...] = ()) -> None:
        """Queue a statement. Raises `StoreFailed` when an earlier one is known to have failed."""
        self.check()
        self._conn.execute(sql, args)

    def begin(self, sql: str, args: tuple[object, ...], tell: Callable[[], None]) -> None:
        """Queue a statement; `tell` is called, on the worker's thread, when it has returned."""
        self.check()
        self._told = Told(tell)
        self._conn.execute(sql, args, self._told)

    def commit(self) -> None:
        """Commit, and wait for it. Raises `StoreFailed`."""
        self._wait(COMMIT, ())
        self.check()

    def ask(self, sql: str, args: tuple[object, ...] = ()) -> tuple[Any, ...] | None:
        """The first row of an answer. Raises `StoreFailed`."""
        return self._wait(sql, args)

    def _wait(self, sql: str, args: tuple[object, ...]) -> tuple[Any, ...] | None:
        answers: Queue[Any] = Queue()
        self.check()
        self._conn.execute(sql, args, answers)
        deadline = time.monotonic() + config.COMMIT_S_MAX
        first = None
        while True:
            try:
                row = answers.get(timeout=0.1)
            except Empty:
                self.check()
                if time.monotonic() > deadline:
                    raise StoreFailed(
                        f"{self._path}: the disk has not answered for {config.COMMIT_S_MAX} s"
                    ) from None
                continue
            if not isinstance(row, tuple):
                self.check()
                return first
            first = row if first is None else first

    def check(self) -> None:
        """Raises `StoreFailed` when a statement has failed or the worker is gone."""
        failed = self._conn.exception
        if failed:
            raise StoreFailed(f"{self._path}: {failed[1]}: {MEND}")
        if not self._conn.is_alive():
            raise StoreFailed(f"{self._path}: a commit failed (the disk is full, or returned an error): {MEND}")

    def close(self) -> None:
        """Close the file; never waits for a worker that is gone."""
        alive = self._conn.is_alive() and not self._conn.exception
        self.meta.close(force=not alive)
