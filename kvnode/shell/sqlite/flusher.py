"""The flusher: a thread that moves frozen memtables to the table.

Promises: each transaction leaves rows and counters that agree, and names the log batch without which
its rows would be ahead of the log; the last one of a flush names the batch that replay starts after.
So a crash anywhere costs a replay and nothing else.
Never: read through, or used by two threads of ours.

    frozen ─► rows, counters │ rows, counters │ rows, counters, mark ─► `finished`
              └ transaction ┘                                             the loop drops the memtable

It keeps its bursts short, and waits for each statement: Python has one interpreter lock, and what
this thread does at once, the loop waits for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from heapq import merge
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread

from msgspec import Struct

from kvnode import config
from kvnode.core.versions import Held
from kvnode.shell.sqlite.format import encode_row
from kvnode.shell.sqlite.worker import CHECKPOINT, Worker
from kvnode.shell.store import StoreFailed

BREATH_S = 0.001
"""Between two slices of a memtable being freed."""


class Flush(Struct, frozen=True, eq=False):
    """What goes to the table in one piece."""

    records: dict[bytes, Held]
    replaced: dict[bytes, int]
    """Key -> what the table counts for it today, key and live bytes; missing where that is nothing."""
    mark: int
    """Every log batch up to this number is in these records, or was in earlier ones."""
    logged: int
    """A log batch by which all of these were durable: a log that ends earlier has lost some."""
    number: int
    """Its own, never repeated: who sees it in the table sees the whole flush."""


class Flusher(Thread):
    """The one thread that writes the table."""

    def __init__(self, path: Path, boot: int, compress_min: int, wake: int) -> None:
        """Open the file. Raises `StoreFailed`. Call `start` after."""
        super().__init__(name="flusher", daemon=True)
        self._boot = boot
        self._compress_min = compress_min
        self._wake = wake
        self._jobs: SimpleQueue[Flush | dict[bytes, Held] | None] = SimpleQueue()
        self._stopping = Event()
        # FULL at every durability: it licenses the trim of the log, and nobody waits for it.
        self._worker = Worker(path, "FULL", autocommit=False)
        self._keys = self._count("keys")
        self._value_bytes = self._count("value_bytes")
        self.finished: SimpleQueue[Flush] = SimpleQueue()
        self.failure = ""
        """Why no more can be flushed; empty while all is well."""

    def _count(self, name: str) -> int:
        row = self._worker.ask("SELECT value FROM meta WHERE key=?", (name,))
        return 0 if row is None else int(row[0])

    # ---- what the loop calls ---------------------------------------------------------------

    def flush(self, job: Flush) -> None:
        """Move these records to the table; it is in `finished` when they are there."""
        self._jobs.put(job)

    def forget(self, records: dict[bytes, Held]) -> None:
        """Free a memtable that nobody reads any more."""
        self._jobs.put(records)

    def stop(self, seconds: float) -> bool:
        """Leave a flush where it is and close the file. False if that did not happen in time."""
        self._stopping.set()
        self._jobs.put(None)
        if self.is_alive():
            self.join(seconds)
            return not self.is_alive()
        return self._worker.close(seconds)

    # ---- the thread ------------------------------------------------------------------------

    def run(self) -> None:
        """Until told to stop."""
        try:
            while (job := self._jobs.get()) is not None and not self._stopping.is_set():
                if isinstance(job, Flush):
                    self._write(job)
                else:
                    self._free(job)
        except StoreFailed as error:
            self.failure = str(error)
        except BaseException as error:  # a bug of ours: the loop must hear of it, whatever it is
            self.failure = f"the flusher stopped: {error!r}"
            raise
        finally:
            self._worker.close(config.STOP_S_MAX)
            if self.failure:
                os.eventfd_write(self._wake, 1)

    def _write(self, job: Flush) -> None:
        chunks = self._chunks(job)
        keys, value_bytes = self._keys, self._value_bytes
        counts = {"logged": job.logged}
        for number, chunk in enumerate(chunks, 1):
            marks = ",".join(("(?,?)",) * (len(chunk.args) // 2))
            sql = f"INSERT OR REPLACE INTO kv VALUES {marks}"  # noqa: S608 -- marks only
            self._worker.ask(sql, tuple(chunk.args))
            keys += chunk.keys
            value_bytes += chunk.value_bytes
            if number % config.FLUSH_STATEMENTS == 0:
                self._commit(counts | {"keys": keys, "value_bytes": value_bytes})
                if self._stopping.is_set():
                    return
        counts |= {"mark": job.mark, "flush": job.number}
        self._commit(counts | {"keys": keys, "value_bytes": value_bytes})
        self._keys, self._value_bytes = keys, value_bytes
        self.finished.put(job)
        os.eventfd_write(self._wake, 1)

    def _commit(self, counts: dict[str, int]) -> None:
        for name, number in counts.items():
            self._worker.ask("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, str(number).encode()))
        self._worker.ask("COMMIT")
        self._worker.ask(CHECKPOINT)

    def _chunks(self, job: Flush) -> Iterator[Chunk]:
        """The rows in byte order, in pieces bounded by number and by bytes."""
        chunk = Chunk([])
        for key in in_order(job.records):
            held = job.records[key]
            row = encode_row(key, held, self._boot, self._compress_min)
            chunk.args += (key, row)
            chunk.bytes += len(row)
            replaced = job.replaced.get(key, 0)
            counted = len(key) + held.live_bytes if held.live_bytes else 0
            chunk.keys += bool(counted) - bool(replaced)
            chunk.value_bytes += counted - replaced
            if len(chunk.args) >= 2 * config.FLUSH_ROWS or chunk.bytes >= config.FLUSH_BYTES:
                yield chunk
                chunk = Chunk([])
        if chunk.args:
            yield chunk

    def _free(self, records: dict[bytes, Held]) -> None:
        while records and not self._stopping.wait(BREATH_S):
            for _ in range(min(config.FORGET_ROWS, len(records))):
                records.popitem()


class Chunk(Struct):
    """Rows of one statement, and what they change of the table's counters."""

    args: list[bytes]
    bytes: int = 0
    keys: int = 0
    value_bytes: int = 0


def in_order(records: dict[bytes, Held]) -> Iterator[bytes]:
    """The keys in byte order, without holding the interpreter for one long sort."""
    keys = list(records)
    step = 4 * config.FLUSH_ROWS
    return merge(*(sorted(keys[i : i + step]) for i in range(0, len(keys), step)))
