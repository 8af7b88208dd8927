"""One SQLite file written through sqlitedict's worker thread, with its traps fenced in.

Promises: journal and sync level are what was asked, read back and checked; a statement that fails,
a commit that fails and a worker that dies are each noticed, for good; no wait is without end.
Never: pickles, retries anything that failed, or lets two threads of ours talk to one worker.

The traps (sqlitedict 2.1.0; each was seen by running it) and what stands against them:

- it sets `synchronous=OFF`: set again and read back;
- a `commit()` that fails kills its thread, and the caller waits for ever: never called. In autocommit
  mode each statement commits by itself, otherwise `COMMIT` is sent as a statement. Both fail as a
  statement does, which the thread survives;
- a failed statement is told to whoever calls next, once, and then forgotten: kept here as `failure`;
- it keeps only a weak reference to whoever waits for an answer: held here;
- SQLite drops the error of an automatic checkpoint: they are off, and asked for by name.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from sqlitedict import SqliteDict

from kvnode import config
from kvnode.shell.store import StoreFailed

REMEDY = "nothing more can be acknowledged; put the disk right, then restart the node"
CHECKPOINT = "PRAGMA wal_checkpoint(PASSIVE)"
LEVELS = {"FULL": 2, "OFF": 0}
ANSWER_S = 0.1
"""How often a wait for an answer looks whether the worker still lives."""

# Every failure is raised as StoreFailed; sqlitedict would print a stack trace of it as well.
logging.getLogger("sqlitedict").propagate = False
logging.getLogger("sqlitedict").addHandler(logging.NullHandler())


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
    """A file and the thread that writes it. One thread of ours calls it."""

    def __init__(self, path: Path, synchronous: str, *, autocommit: bool) -> None:
        """Open a file that `Directory` has made. With `autocommit` each statement is a transaction.

        Raises `StoreFailed`.
        """
        self._path = path
        self.failure = ""
        """Why nothing more can be written; empty while all is well. Never unset."""
        self._tell: Callable[[], None] = _ignore
        self._told = Told(self._answered)
        self._drain = Told(_ignore)
        try:
            self._dict: Any = SqliteDict(
                str(path), tablename="meta", journal_mode="WAL", autocommit=autocommit,
                outer_stack=False, encode=_same, decode=_same,
            )  # fmt: skip
        except (sqlite3.Error, OSError, RuntimeError) as error:
            raise StoreFailed(f"{path} cannot be opened ({error})") from error
        self._conn = self._dict.conn
        self._set_up(synchronous)

    def _set_up(self, synchronous: str) -> None:
        self.ask("PRAGMA wal_autocheckpoint=0")
        self.ask("PRAGMA secure_delete=OFF")
        self.ask(f"PRAGMA journal_size_limit={config.WAL_BYTES_KEPT}")
        self.ask(f"PRAGMA synchronous={synchronous}")
        found = self.ask("PRAGMA synchronous"), self.ask("PRAGMA journal_mode")
        if found != ((LEVELS[synchronous],), ("wal",)):
            self.close(config.STOP_S_MAX)
            raise StoreFailed(f"{self._path}: SQLite runs with {found}, not in WAL mode at {synchronous}")

    # ---- statements ------------------------------------------------------------------------

    def run(self, sql: str, args: tuple[object, ...] = ()) -> None:
        """Queue a statement. Raises `StoreFailed` when an earlier one is known to have failed."""
        self._send(sql, args, self._drain)

    def begin(self, sql: str, args: tuple[object, ...], tell: Callable[[], None]) -> None:
        """Queue a statement; `tell` is called, on the worker's thread, when it has returned.

        One at a time. A failure is known, by `check`, before `tell` is called.
        """
        self._tell = tell
        self._send(sql, args, self._told)

    def ask(self, sql: str, args: tuple[object, ...] = ()) -> tuple[Any, ...] | None:
        """The first row of an answer, None where there is none. Raises `StoreFailed`."""
        answers: Queue[Any] = Queue()
        self._send(sql, args, answers)
        waited = 0.0  # not by a clock: it goes on while this process is held (SIGSTOP)
        rows: list[tuple[Any, ...]] = []
        while True:
            try:
                row = answers.get(timeout=ANSWER_S)
            except Empty:
                self.check()
                waited += ANSWER_S
                if waited > config.COMMIT_S_MAX:
                    raise self.fail(f"it has not answered for {config.COMMIT_S_MAX} s") from None
                continue
            if not isinstance(row, tuple):
                self.check()
                return rows[0] if rows else None
            rows.append(row)

    def _send(self, sql: str, args: tuple[object, ...], answers: object) -> None:
        self.check()
        try:
            self._conn.execute(sql, args, answers)
        except sqlite3.Error as error:
            # An earlier statement failed after our check; telling us, sqlitedict has forgotten it.
            raise self.fail(str(error)) from error

    def _answered(self) -> None:
        """On the worker's thread."""
        failed = self._conn.exception
        if failed and not self.failure:
            self.failure = self._say(str(failed[1]))
        self._tell()

    # ---- failure and the end ---------------------------------------------------------------

    def check(self) -> None:
        """Raises `StoreFailed` when a statement has failed or the worker is gone, now and ever after."""
        if self.failure:
            raise StoreFailed(self.failure)
        failed = self._conn.exception
        if failed:
            raise self.fail(str(failed[1]))
        if not self._conn.is_alive():
            raise self.fail("its writing thread has died")

    def fail(self, why: str) -> StoreFailed:
        """Give up for good: the error to raise."""
        if not self.failure:
            self.failure = self._say(why)
        return StoreFailed(self.failure)

    def _say(self, why: str) -> str:
        return f"a write to {self._path} failed ({why}): {REMEDY}"

    def close(self, seconds: float) -> bool:
        """Finish what was queued and close the file. False if it did not end in time.

        An open transaction is rolled back.
        """
        self._dict.close(force=True)  # asks only: without `force` it waits for ever for a dead worker
        self._conn.join(seconds)
        return not self._conn.is_alive()


def _ignore() -> None:
    """Nobody waits for this answer."""
