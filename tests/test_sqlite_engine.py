"""The sqlite engine from open to close: restarts, flushes, and a slow and a failing disk."""

from __future__ import annotations

import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from kvnode import config
from kvnode.config import Settings
from kvnode.core.versions import NO_ACTOR
from kvnode.protocol.ring import Member, Ring
from kvnode.protocol.types import NodeId
from kvnode.shell.store import StoreFailed, StoreLocked
from tests.sqlite_harness import (
    NO_FLUSH,
    as_stored,
    edit,
    fill,
    opened,
    opening,
    settle,
    turn_found,
)
from tests.test_store_conformance import everything, held, wait


def test_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    """Close, open again: the record is there, under the same disk_id, in the next boot, with no actor."""
    with opening(tmp_path / "n1") as engine:
        first = engine.identity
        engine.submit(1, {b"city": held(b"Porto", actor=5)})

    with opening(tmp_path / "n1") as engine:
        assert engine.get(b"city") == as_stored(held(b"Porto", actor=5))
        assert (engine.identity.disk_id, engine.identity.boot) == (first.disk_id, first.boot + 1)


def test_a_ring_outlives_its_process(tmp_path: Path) -> None:
    """The ring is durable when `save_ring` returns; a copy made that moment has it."""
    member = Member(NodeId("n1"), "127.0.0.1:7001", "h1")
    ring = Ring("c", 5, 1, 1, 16, (member,), ((0,),) * 16, (1,) * 16)
    with opening(tmp_path / "n1") as engine:
        engine.save_ring(ring)
        shutil.copytree(tmp_path / "n1", tmp_path / "copy")

    for name in ("n1", "copy"):
        with opening(tmp_path / name) as engine:
            assert engine.identity.ring == ring


def test_flushes_move_records_to_the_table_and_trim_the_log(tmp_path: Path) -> None:
    """After many flushes the log holds little: the last batch that the table has, and what came after."""
    path = tmp_path / "n1"
    turns = fill(path)

    (mark,) = edit(path / "table.db", "SELECT CAST(CAST(value AS TEXT) AS INTEGER) FROM meta WHERE key='mark'")[0]
    first, last, rows = edit(path / "log.db", "SELECT min(n), max(n), count(*) FROM log")[0]

    assert isinstance(mark, int)
    assert mark > 30
    assert first == mark
    assert rows == int(str(last)) - mark + 1
    with opening(path) as engine:
        assert turn_found(engine) == turns


def test_a_row_of_another_boot_has_no_actor_and_one_of_this_boot_has(tmp_path: Path) -> None:
    """PROTOCOL-CASES 1: an actor of an earlier boot is never minted under again."""
    with opening(tmp_path / "n1", Settings(memtable_bytes=0, cache_bytes=0)) as engine:
        engine.submit(1, {b"k": held(b"v", actor=9)})
        settle(engine, 1)
        assert not engine._layers.memtable.records
        assert engine.get(b"k") == held(b"v", actor=9)

    with opening(tmp_path / "n1", Settings(memtable_bytes=0, cache_bytes=0)) as engine:
        found = engine.get(b"k")
        assert found is not None
        assert found.actor == NO_ACTOR


def test_the_cache_never_shows_what_was_overwritten(tmp_path: Path) -> None:
    """PROTOCOL-CASES 6: read (and so cached), written, flushed out of memory: the new value is read."""
    with opening(tmp_path / "n1", Settings(memtable_bytes=0, cache_bytes=100_000)) as engine:
        for turn in range(1, 60):
            engine.submit(turn, {b"k": held(b"%d" % turn, turn)})
            assert engine.get(b"k") == held(b"%d" % turn, turn)
            settle(engine, turn)
            assert engine.get(b"k") == held(b"%d" % turn, turn)
            assert engine.get(b"k") == held(b"%d" % turn, turn)
        assert engine.stats().counters["flushes"] > 20
        assert engine.stats().counters["cache_hits"] > 20


def test_the_cache_keeps_to_its_bound(tmp_path: Path) -> None:
    """However much is read, what is kept of it is at most the bound and one entry."""
    with opening(tmp_path / "n1", Settings(memtable_bytes=0, cache_bytes=50_000)) as engine:
        engine.submit(1, {b"%04d" % i: held(bytes(500)) for i in range(1_000)})
        settle(engine, 1)
        for i in range(1_000):
            engine.get(b"%04d" % i)
        kept = len(engine._layers.cache._young) + len(engine._layers.cache._old)
        assert 30 < kept <= 50_000 // (500 + config.ENTRY_OVERHEAD_BYTES) + 1


# ---- a slow and a failing disk -----------------------------------------------------------------


def test_while_one_commit_is_in_flight_later_turns_gather_into_the_next(tmp_path: Path) -> None:
    """A hundred turns meet a disk that hangs: visible at once, durable in two commits."""
    with opening(tmp_path / "n1", NO_FLUSH) as engine:
        with closing(sqlite3.connect(tmp_path / "n1" / "log.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for turn in range(1, 101):
                engine.submit(turn, {b"k%d" % (turn % 10): held(b"%d" % turn, turn)})
            assert engine.get(b"k0") == held(b"100", 100)
            assert engine.durable() == 0
            other.execute("ROLLBACK")
        wait(engine, 100)
        assert engine.stats().counters["commits"] == 2


def test_a_node_that_outruns_its_disk_is_told_to_stop_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`behind` while the table's disk hangs and the memtable is over twice its bound, or the log's queue is."""
    monkeypatch.setattr(config, "LOG_QUEUE_BYTES_MAX", 5_000)
    bounds = Settings(memtable_bytes=10_000)
    with opening(tmp_path / "n1", bounds) as engine:
        with closing(sqlite3.connect(tmp_path / "n1" / "table.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for turn in range(1, 40):
                engine.submit(turn, {b"%d" % turn: held(bytes(1_000))})
                wait(engine, turn)
                assert engine.behind == (engine._layers.memtable.bytes > 20_000)
            assert engine.behind
            other.execute("ROLLBACK")
        settle(engine, 39)
        assert not engine.behind
        with closing(sqlite3.connect(tmp_path / "n1" / "log.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for turn in range(40, 47):
                engine.submit(turn, {b"x": held(bytes(1_000), turn)})
            assert engine.behind
            other.execute("ROLLBACK")
        settle(engine, 46)
        assert not engine.behind


def test_a_failed_commit_is_final(tmp_path: Path) -> None:
    """Nothing more is durable, nothing more is taken, whatever the disk does next; reads go on."""
    with opening(tmp_path / "n1", NO_FLUSH) as engine:
        engine.submit(1, {b"a": held(b"1")})
        wait(engine, 1)
        engine._log._worker.ask("PRAGMA busy_timeout=20")
        with closing(sqlite3.connect(tmp_path / "n1" / "log.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            engine.submit(2, {b"b": held(b"2")})
            with pytest.raises(StoreFailed, match=r"log\.db failed \(database is locked\).*restart the node"):
                wait(engine, 2)
            other.execute("ROLLBACK")

        for _ in range(3):
            with pytest.raises(StoreFailed):
                engine.submit(3, {b"c": held(b"3")})
            with pytest.raises(StoreFailed):
                engine.durable()
            with pytest.raises(StoreFailed):
                engine.save_ring(Ring("c", 5, 1, 1, 16, (), ((),) * 16, (1,) * 16))
        assert engine.get(b"a") == held(b"1")
        assert engine.get(b"c") is None

    with opening(tmp_path / "n1") as engine:
        assert [row.key for row in everything(engine)] == [b"a"]


def test_a_commit_that_never_returns_has_failed_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its outcome is unknown: the node stops, and a late success does not change that. `close` is bounded."""
    monkeypatch.setattr("kvnode.shell.sqlite.log.COMMIT_NS_MAX", 50_000_000)
    monkeypatch.setattr(config, "STOP_S_MAX", 0.2)
    engine = opened(tmp_path / "n1", NO_FLUSH)
    with closing(sqlite3.connect(tmp_path / "n1" / "log.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        engine.submit(1, {b"a": held(b"1")})
        with pytest.raises(StoreFailed, match="not returned"):
            wait(engine, 1)
        began = time.monotonic()
        engine.close()
        assert time.monotonic() - began < 5
        with pytest.raises(StoreLocked):  # the hung thread may still write
            opened(tmp_path / "n1")
        other.execute("ROLLBACK")


def test_a_process_that_stood_still_gives_its_commit_the_time_it_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node held for an hour (SIGSTOP) goes on: that was no commit of an hour."""
    skipped = 0
    clock = time.monotonic_ns
    monkeypatch.setattr("kvnode.shell.sqlite.log.time.monotonic_ns", lambda: clock() + skipped)
    with opening(tmp_path / "n1", NO_FLUSH) as engine:
        with closing(sqlite3.connect(tmp_path / "n1" / "log.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            engine.submit(1, {b"a": held(b"1")})
            engine.durable()
            skipped = 3_600_000_000_000
            assert engine.durable() == 0
            other.execute("ROLLBACK")
        wait(engine, 1)


def test_a_failed_flush_stops_the_node_and_loses_nothing(tmp_path: Path) -> None:
    """The log has it all: the next start replays."""
    with opening(tmp_path / "n1", Settings(memtable_bytes=0)) as engine:
        engine._flusher._worker.ask("PRAGMA busy_timeout=20")
        with closing(sqlite3.connect(tmp_path / "n1" / "table.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            engine.submit(1, {b"a": held(b"1")})
            with pytest.raises(StoreFailed, match=r"table\.db failed"):
                settle(engine, 1)
            other.execute("ROLLBACK")
        with pytest.raises(StoreFailed):
            engine.submit(2, {b"b": held(b"2")})
        assert engine.get(b"a") == held(b"1")

    with opening(tmp_path / "n1") as engine:
        assert engine.get(b"a") == as_stored(held(b"1"))


def test_a_worker_that_died_is_noticed(tmp_path: Path) -> None:
    """sqlitedict's thread gone, for whatever reason: an error at the next look, no hang, no ack."""
    with opening(tmp_path / "n1", NO_FLUSH) as engine:
        worker = engine._log._worker
        worker._dict.conn.close(force=True)
        worker._conn.join(10)
        with pytest.raises(StoreFailed, match="died"):
            engine.submit(1, {b"a": held(b"1")})
        with pytest.raises(StoreFailed):
            engine.durable()
