"""The sqlite engine across crashes: everything acknowledged is there, and nothing that never was."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from kvnode.config import Settings
from kvnode.shell.store import StoreFailed
from tests.sqlite_harness import (
    SEED,
    Child,
    edit,
    opening,
    settle,
    turn_found,
)
from tests.test_store_conformance import held


def test_whatever_the_instant_of_a_crash_the_files_hold_a_turn_and_every_acknowledged_one(tmp_path: Path) -> None:
    """Files copied at random instants, mid-commit and mid-flush: exactly the state after some turn, no
    earlier than the last durable one, with counters to match."""
    rng = random.Random(SEED)
    running = Child(tmp_path / "n1")
    seen = set()
    try:
        for number in range(25):
            running.run(rng.uniform(0, 0.03))
            copy = tmp_path / f"copy{number}"
            running.freeze(tmp_path / "n1", copy)
            with opening(copy) as engine:
                turn = turn_found(engine)
            assert turn >= running.durable, f"seed {SEED}: turn {running.durable} was durable, {turn} is found"
            seen.add(turn)
            shutil.rmtree(copy)
    finally:
        running.kill()
    assert len(seen) > 12


def test_sigkill_again_and_again_loses_nothing_durable(tmp_path: Path) -> None:
    """One directory, killed at random five times, each time opened by the next process."""
    rng = random.Random(SEED)
    path = tmp_path / "n1"
    turn = 0
    for _ in range(5):
        running = Child(path, turn + 1, flush_rows=rng.choice([3, 50, 250]))
        running.run(rng.uniform(0.02, 0.25))
        running.kill()
        with opening(path) as engine:
            turn = turn_found(engine)
        assert turn >= running.durable, f"seed {SEED}: turn {running.durable} was durable, {turn} is found"
    with opening(path) as engine:
        assert engine.identity.boot == 11


def test_a_log_cut_anywhere_is_an_earlier_turn_or_refused(tmp_path: Path) -> None:
    """The torn end of a power cut: the WAL of the log cut at any byte gives a state that once was."""
    rng = random.Random(SEED)
    running = Child(tmp_path / "n1")
    running.run(0.3)
    running.freeze(tmp_path / "n1", tmp_path / "crashed")
    running.kill()
    size = (tmp_path / "crashed" / "log.db-wal").stat().st_size
    for number in range(12):
        copy = tmp_path / f"copy{number}"
        shutil.copytree(tmp_path / "crashed", copy)
        os.truncate(copy / "log.db-wal", rng.randrange(32, size))
        try:
            with opening(copy) as engine:
                turn_found(engine)
        except StoreFailed as refused:
            assert "hole in the log" in str(refused)


def test_writes_not_yet_durable_do_not_reach_the_table(tmp_path: Path) -> None:
    """The log first: while its disk hangs, a flush waits."""
    with opening(tmp_path / "n1", Settings(memtable_bytes=0)) as engine:
        with closing(sqlite3.connect(tmp_path / "n1" / "log.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            engine.submit(1, {b"k": held(b"v")})
            for _ in range(100):
                engine.durable()
            assert engine._flush_waits
            assert edit(tmp_path / "n1" / "table.db", "SELECT * FROM kv") == []
            other.execute("ROLLBACK")
        settle(engine, 1)
        assert len(edit(tmp_path / "n1" / "table.db", "SELECT * FROM kv")) == 1
