"""The flusher: a thread that moves frozen memtables to the table.

Promises: each transaction leaves rows and counters that agree, and names the log batch without which
its rows would be ahead of the log; the last one of a flush names the batch that replay starts after.
So a crash anywhere costs a replay and nothing else.
Never: read through, or used by two threads of ours.

    frozen ─► steps, counters │ steps, counters │ steps, counters, mark ─► `finished`
              └─ transaction ─┘                                              the loop drops the memtable

It keeps its bursts short, and waits for each statement: Python has one interpreter lock, and what
this thread does at once, the loop waits for.
"""

from __future__ import annotations

import os
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from typing import Protocol

from msgspec import Struct

from kvnode import config
from kvnode.core.merkle import HashTree
from kvnode.shell.sqlite.memtable import Memtable
from kvnode.shell.sqlite.steps import Steps
from kvnode.shell.sqlite.worker import CHECKPOINT, Worker
from kvnode.shell.store import StoreFailed

BREATH_S = 0.001
"""Between two slices of a memtable being freed."""


class Flush(Struct, frozen=True, eq=False):
    """What goes to the table in one piece."""

    memtable: Memtable
    tree: HashTree
    """The live one: what has changed in it since is in the memtable's `pages`."""
    mark: int
    """Every log batch up to this number is in this memtable, or was in earlier ones."""
    logged: int
    """A log batch by which all of it was durable: a log that ends earlier has lost some."""
    number: int
    """Its own, never repeated: who sees it in the table sees the whole flush."""


class Emptied(Protocol):
    """A dict of whatever."""

    def __len__(self) -> int: ...

    def popitem(self) -> object: ...


class Flusher(Thread):
    """The one thread that writes the table."""

    def __init__(self, path: Path, boot: int, compress_min: int, wake: int) -> None:
        """Open the file. Raises `StoreFailed`. Call `start` after."""
        super().__init__(name="flusher", daemon=True)
        self._wake = wake
        self._jobs: SimpleQueue[Flush | Memtable | None] = SimpleQueue()
        self._stopping = Event()
        # FULL at every durability: it licenses the trim of the log, and nobody waits for it.
        self._worker = Worker(path, "FULL", autocommit=False)
        self._steps = Steps(boot, compress_min)
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
        """Move this memtable to the table; it is in `finished` when it is there."""
        self._jobs.put(job)

    def forget(self, memtable: Memtable) -> None:
        """Free a memtable that nobody reads any more."""
        self._jobs.put(memtable)

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
        keys, value_bytes = self._keys, self._value_bytes
        counts = {"logged": job.logged}
        for number, step in enumerate(self._steps.of(job.memtable, job.tree), 1):
            self._worker.ask(step.sql, step.args)
            keys += step.keys
            value_bytes += step.value_bytes
            if number % config.FLUSH_STATEMENTS == 0:
                self._commit(counts | {"keys": keys, "value_bytes": value_bytes})
                if self._stopping.is_set():
                    return
        counts |= {"mark": job.mark, "flush": job.number, "flushing": 0}
        self._commit(counts | {"keys": keys, "value_bytes": value_bytes})
        self._keys, self._value_bytes = keys, value_bytes
        self.finished.put(job)
        os.eventfd_write(self._wake, 1)

    def _commit(self, counts: dict[str, int]) -> None:
        for name, number in counts.items():
            self._worker.ask("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, str(number).encode()))
        self._worker.ask("COMMIT")
        self._worker.ask(CHECKPOINT)

    def _free(self, memtable: Memtable) -> None:
        parts: tuple[Emptied, ...] = (
            memtable.records, memtable.replaced, memtable.leaves, memtable.crowded, memtable.pages, memtable.hints,
            memtable.registers, memtable.replaced_registers,
        )  # fmt: skip
        for part in parts:
            self._empty(part)

    def _empty(self, part: Emptied) -> None:
        while part and not self._stopping.wait(BREATH_S):
            for _ in range(min(config.FORGET_ROWS, len(part))):
                part.popitem()
