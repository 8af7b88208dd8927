"""The table: where records rest, sorted by key; a thread that fills it, a connection that reads it.

Promises: the last transaction of a flush names the last log batch it holds, so a crash anywhere in
a flush costs a replay and nothing else. Never: read and written on one connection.

The reading connection never writes and never checkpoints: SQLite before 3.51.3 can corrupt a WAL
that two connections reset.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from heapq import merge
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

from msgspec import Struct

from kvnode import config
from kvnode.core.outbox import Stored, Unreadable
from kvnode.core.versions import Held
from kvnode.shell.sqlite.format import Damaged, decode_row, encode_row
from kvnode.shell.sqlite.worker import Worker
from kvnode.shell.store import StoreFailed


class Flush(Struct, frozen=True):
    """What goes to the table in one piece."""

    records: dict[bytes, Held]
    mark: int
    """The last log batch whose records these, with earlier flushes, all are."""
    keys: int
    value_bytes: int
    """What the table will count once it holds them."""


class TableReader:
    """Point reads and range scans beside the writer."""

    def __init__(self, path: Path, boot: int) -> None:
        self._path = path
        self._boot = boot
        self._connection = sqlite3.connect(
            f"file:{path}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
        )
        self._connection.execute("PRAGMA wal_autocheckpoint=0")
        self._connection.execute(f"PRAGMA cache_size=-{config.TABLE_CACHE_KB}")

    def get(self, key: bytes) -> Held | None:
        """What the table holds of a key. Raises `Unreadable`."""
        try:
            row = self._connection.execute("SELECT value FROM kv WHERE key=?", (key,)).fetchone()
            return None if row is None else decode_row(key, row[0], self._boot)
        except (Damaged, sqlite3.DatabaseError) as error:
            raise Unreadable(f"{key!r} in {self._path}: {error}") from error

    def scan(self, after: bytes, prefix: bytes, limit: int) -> list[Stored]:
        """Keys above `after` that start with `prefix`, in byte order. Raises `Unreadable`."""
        sql, args = "SELECT key, value FROM kv WHERE key > ? AND key >= ?", [after, prefix]
        end = upper_bound(prefix)
        if end is not None:
            sql += " AND key < ?"
            args.append(end)
        try:
            rows = self._connection.execute(f"{sql} ORDER BY key LIMIT {int(limit)}", args).fetchall()
            return [Stored(key, decode_row(key, value, self._boot)) for key, value in rows]
        except (Damaged, sqlite3.DatabaseError) as error:
            raise Unreadable(f"a key after {after!r} in {self._path}: {error}") from error

    def meta(self, name: str) -> int:
        """A number kept beside the table, 0 where there is none."""
        row = self._connection.execute("SELECT value FROM meta WHERE key=?", (name,)).fetchone()
        return int(row[0]) if row is not None else 0

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class Flusher(Thread):
    """The one thread that writes the table."""

    def __init__(self, path: Path, durability: str, boot: int, compress_min: int, wake: int) -> None:
        super().__init__(name="flusher", daemon=True)
        self._path = path
        self._durability = durability
        self._boot = boot
        self._compress_min = compress_min
        self._wake = wake
        self._jobs: SimpleQueue[Flush | None] = SimpleQueue()
        self.finished: SimpleQueue[Flush] = SimpleQueue()
        self.failure = ""
        """Why no more can be flushed; empty while all is well."""
        self.start()

    def flush(self, job: Flush) -> None:
        """Move these records to the table; it is in `finished` when they are there."""
        self._jobs.put(job)

    def run(self) -> None:
        """Until told to stop."""
        try:
            worker = Worker(self._path, self._durability, autocommit=False)
            try:
                while (job := self._jobs.get()) is not None:
                    self._write(worker, job)
                    self.finished.put(job)
                    os.eventfd_write(self._wake, 1)
            finally:
                worker.close()
        except (StoreFailed, sqlite3.Error, OSError) as error:
            self.failure = str(error)
            os.eventfd_write(self._wake, 1)

    def _write(self, worker: Worker, job: Flush) -> None:
        rows = in_order(job.records)
        written = 0
        while chunk := list(islice(rows, config.FLUSH_ROWS)):
            args: list[bytes] = []
            for key, held in chunk:
                args += (key, encode_row(key, held, self._boot, self._compress_min))
            marks = ",".join(("(?,?)",) * len(chunk))
            worker.run(f"INSERT OR REPLACE INTO kv VALUES {marks}", tuple(args))  # noqa: S608 -- marks only
            written += len(chunk)
            if written % (config.FLUSH_ROWS * 8) == 0:
                worker.commit()
        for name, number in (("mark", job.mark), ("keys", job.keys), ("value_bytes", job.value_bytes)):
            worker.run("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, str(number).encode()))
        worker.commit()

    def stop(self, seconds: float) -> None:
        """Finish what was begun, within a bound, and close the file."""
        self._jobs.put(None)
        self.join(seconds)


def in_order(records: dict[bytes, Held]) -> Iterator[tuple[bytes, Held]]:
    """The records by key, without holding the interpreter for one long sort."""
    items = list(records.items())
    step = config.FLUSH_ROWS * 4
    return merge(*(sorted(items[i : i + step], key=_key) for i in range(0, len(items), step)), key=_key)


def _key(item: tuple[bytes, Held]) -> bytes:
    return item[0]


def upper_bound(prefix: bytes) -> bytes | None:
    """The first key after all that start with `prefix`; None where there is none."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes((stem[-1] + 1,)) if stem else None
