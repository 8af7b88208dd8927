"""The sqlite engine across crashes and damage: everything acknowledged is there, or it refuses.

Crashes are real ones: a child writes, and is stopped in its tracks while its files are copied, or
killed. The child's turn `t` writes what `turn_writes(t)` says, so the files alone tell which turns
they hold.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from kvnode import config
from kvnode.config import Settings
from kvnode.core.outbox import Stored, Unreadable
from kvnode.core.versions import NO_ACTOR, Held
from kvnode.protocol.ring import Member, Ring
from kvnode.protocol.types import NodeId
from kvnode.shell.sqlite.engine import SqliteEngine
from kvnode.shell.sqlite.format import (
    FORMAT,
    Damaged,
    decode_batch,
    decode_row,
    encode_batch,
    encode_row,
)
from kvnode.shell.sqlite.wal import wal_frames
from kvnode.shell.store import StoreFailed, StoreLocked
from tests.test_store_conformance import everything, held, wait

SMALL = Settings(memtable_bytes=30_000, cache_bytes=10_000, compress_min_bytes=64)
NO_FLUSH = Settings()
SEED = int(os.environ.get("ENGINE_SEED", str(random.SystemRandom().getrandbits(32))))
KEYS = 120


def opened(path: Path, settings_: Settings = SMALL, durability: str = "fsync", node: str = "n1") -> SqliteEngine:
    return SqliteEngine(path, node, durability, settings_)


@contextmanager
def opening(path: Path, settings_: Settings = SMALL, node: str = "n1") -> Iterator[SqliteEngine]:
    with closing(opened(path, settings_, node=node)) as engine:
        yield engine


def as_stored(record: Held) -> Held:
    """What a later boot reads: the same, but for the actor, which counts in its own boot only."""
    return msgspec.structs.replace(record, actor=NO_ACTOR)


# ---- the child ---------------------------------------------------------------------------------


@cache
def turn_writes(turn: int) -> dict[bytes, Held]:
    """What a turn of the child writes; the time of each record is its turn."""
    rng = random.Random(turn)
    return {
        b"k%03d" % rng.randrange(KEYS): held(
            None if rng.random() < 0.1 else rng.randbytes(rng.randrange(300)), turn
        )
        for _ in range(rng.randrange(1, 7))
    }


@cache
def state_after(turn: int) -> dict[bytes, Held]:
    """Everything held after this turn and all before it, as a later boot reads it."""
    if turn == 0:
        return {}
    known = turn - turn % 50 if turn % 50 else turn - 50
    state = dict(state_after(known))
    for later in range(known + 1, turn + 1):
        state |= turn_writes(later)
    return {key: as_stored(record) for key, record in state.items()}


def child(path: str, first: str, flush_rows: str) -> None:
    """Write turns from `first` on, and say which are durable, until killed."""
    config.FLUSH_ROWS, config.FLUSH_STATEMENTS = int(flush_rows), 2
    engine = opened(Path(path))
    turn = int(first)
    rng = random.Random()
    told = 0
    while True:
        # Turn numbers of an engine begin at 1 in each boot; the child's go on.
        for _ in range(rng.randrange(1, 6)):
            engine.submit(turn, turn_writes(turn))
            turn += 1
        if rng.random() < 0.5:
            wait(engine, turn - 1)
        durable = engine.durable()
        if durable > told:
            told = durable
            os.write(1, b"%d\n" % durable)


class Child:
    """A process that writes to a directory."""

    def __init__(self, path: Path, first: int = 1, flush_rows: int = 7) -> None:
        call = f"from tests.test_sqlite_engine import child; child({str(path)!r}, '{first}', '{flush_rows}')"
        root = Path(__file__).parent.parent
        self._process = subprocess.Popen([sys.executable, "-c", call], stdout=subprocess.PIPE, cwd=root)
        self.durable = 0

    def run(self, seconds: float) -> None:
        """Let it write for a while, counted from its first durable turn."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + (seconds if self.durable else 30)
        while time.monotonic() < deadline:
            line = self._process.stdout.readline()
            assert line, "the child died by itself"
            if not self.durable:
                deadline = time.monotonic() + seconds
            self.durable = int(line)

    def _read_all(self) -> None:
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        for line in (self._process.stdout.read() or b"").split():
            self.durable = max(self.durable, int(line))
        os.set_blocking(self._process.stdout.fileno(), True)

    def freeze(self, path: Path, copy: Path) -> None:
        """Stop it in its tracks, copy its files, let it go on."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitpid(self._process.pid, os.WUNTRACED)
        self._read_all()
        shutil.copytree(path, copy)
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, and read what it had still said."""
        self._process.kill()
        self._process.wait(30)
        self._read_all()
        assert self._process.stdout is not None
        self._process.stdout.close()


def turn_found(engine: SqliteEngine) -> int:
    """The turn whose state the engine holds, exactly; fails if it is none."""
    found = {row.key: row.held for row in everything(engine, page=50)}
    turn = max((record.record()[0].time for record in found.values()), default=0)
    assert found == state_after(turn), f"seed {SEED}: what is held is not the state after turn {turn}, nor any"
    for key in (b"k%03d" % i for i in range(KEYS)):
        assert engine.get(key) == found.get(key), f"seed {SEED}: get and scan differ on {key!r}"
    recount(engine)
    return turn


def recount(engine: SqliteEngine) -> None:
    """The counters against everything there is."""
    live = [row for row in everything(engine, page=500) if row.held.live_bytes]
    stats = engine.stats()
    assert stats.keys == len(live), f"seed {SEED}"
    assert stats.value_bytes == sum(len(row.key) + row.held.live_bytes for row in live), f"seed {SEED}"


def settle(engine: SqliteEngine, turn: int) -> None:
    """Until a turn is durable and no flush is under way."""
    wait(engine, turn)
    deadline = time.monotonic() + 20
    while engine._frozen.records:
        assert time.monotonic() < deadline, "the flush does not end"
        engine.durable()
    engine.durable()


def fill(path: Path, turns: int = 400, settings_: Settings = SMALL) -> int:
    """Write turns in this process and close; returns how many."""
    with opening(path, settings_) as engine:
        for turn in range(1, turns + 1):
            engine.submit(turn, turn_writes(turn))
            if turn % 10 == 0:
                settle(engine, turn)
    return turns


def edit(file: Path, sql: str, *args: object) -> list[tuple[object, ...]]:
    """Change a file behind the engine's back."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        return connection.execute(sql, args).fetchall()


# ---- the example, and clean restarts -----------------------------------------------------------


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
        assert not engine._memtable.records
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
        kept = len(engine._cache._young) + len(engine._cache._old)
        assert 30 < kept <= 50_000 // (500 + config.ENTRY_OVERHEAD_BYTES) + 1


# ---- crashes -----------------------------------------------------------------------------------


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
                assert engine.behind == (engine._memtable.bytes > 20_000)
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


# ---- damage to rows ----------------------------------------------------------------------------


@pytest.mark.parametrize("value", [b"short", b"long enough to be compressed " * 20])
def test_any_flipped_bit_of_a_row_or_batch_is_noticed(value: bytes) -> None:
    """Each bit in turn, of a plain row, a compressed row and a batch; and a row under another's key."""
    record = held(value, 3)
    row = encode_row(b"key", record, 4, 100)
    batch = encode_batch(9, {b"key": record})
    assert decode_row(b"key", row, 4) == record
    assert decode_batch(9, batch) == {b"key": as_stored(record)}

    for bit in range(8 * len(row)):
        with pytest.raises(Damaged):
            decode_row(b"key", flipped(row, bit), 4)
    for bit in range(8 * len(batch)):
        with pytest.raises(Damaged):
            decode_batch(9, flipped(batch, bit))
    for cut in range(len(row)):
        with pytest.raises(Damaged):
            decode_row(b"key", row[:cut], 4)
    with pytest.raises(Damaged):
        decode_row(b"other", row, 4)
    with pytest.raises(Damaged):
        decode_batch(10, batch)


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_a_damaged_row_is_unreadable_until_it_is_written_again(tmp_path: Path) -> None:
    """A point read and a scan over it both say so, by name; its neighbours read; a write heals it."""
    rows = {b"k%03d" % i: held(b"value %d" % i) for i in range(100)}
    with opening(tmp_path / "n1", Settings(memtable_bytes=0)) as engine:
        for turn in (1, 2):  # the second, so that no log batch holds them any more
            engine.submit(turn, rows if turn == 1 else {b"other": held(b"x")})
            settle(engine, turn)
    (row,) = edit(tmp_path / "n1" / "table.db", "SELECT value FROM kv WHERE key=?", b"k050")[0]
    assert isinstance(row, bytes)
    edit(
        tmp_path / "n1" / "table.db", "UPDATE kv SET value=? WHERE key=?", flipped(row, 8 * len(row) - 1), b"k050"
    )
    with closing(sqlite3.connect(tmp_path / "n1" / "table.db")) as table:  # SQLite sees nothing wrong
        assert table.execute("PRAGMA integrity_check").fetchone() == ("ok",)

    with opening(tmp_path / "n1", NO_FLUSH) as engine:
        assert b"k050" not in engine._memtable.records
        for _ in range(2):
            with pytest.raises(Unreadable) as caught:
                engine.get(b"k050")
            assert caught.value.args == (b"k050",)
        with pytest.raises(Unreadable):
            engine.scan(b"k04", b"k", 40)
        assert engine.get(b"k051") == as_stored(rows[b"k051"])
        assert engine.stats().counters["unreadable_rows"] == 3

        engine.submit(1, {b"k050": held(b"healed", 999)})

        assert engine.get(b"k050") == held(b"healed", 999)
        assert [r.held for r in engine.scan(b"k04", b"k050", 1)] == [held(b"healed", 999)]
        assert engine.stats().keys == 101


# ---- damage to files ---------------------------------------------------------------------------


def all_readable(engine: SqliteEngine) -> dict[bytes, Held] | None:
    """Everything, or None when something cannot be read."""
    try:
        return {row.key: row.held for row in everything(engine, page=50)}
    except Unreadable:
        return None


def judge(copy: Path, oldest: int, newest: int, what: str) -> str:
    """Open a damaged copy: refused, or every read right or `Unreadable`. Returns which."""
    try:
        engine = opened(copy)
    except StoreFailed as refused:
        assert "Traceback" not in str(refused)
        return "refused"
    try:
        scanned = all_readable(engine)
        if scanned is not None:
            assert any(scanned == state_after(turn) for turn in reversed(range(oldest, newest + 1))), (
                f"{what}: a scan shows what never was"
            )
        for key in (b"k%03d" % i for i in range(KEYS)):
            try:
                found = engine.get(key)
            except Unreadable:
                continue
            if found is None and scanned is None:
                continue  # its key itself may be damaged: the scan says that something is
            fine = (state_after(turn).get(key) == found for turn in reversed(range(oldest, newest + 1)))
            assert any(fine), f"{what}: wrong data for {key!r}"
        return "unreadable" if scanned is None else "right"
    finally:
        engine.close()


@pytest.mark.parametrize("name", ["log.db", "log.db-wal", "table.db", "table.db-wal"])
@pytest.mark.parametrize("kind", ["flip", "garbage", "truncate"])
def test_a_damaged_file_never_gives_wrong_data(
    crashed: tuple[Path, int], name: str, kind: str, tmp_path: Path
) -> None:
    """Bits flipped, a block overwritten, the end cut off, in each file as a crash left it: the open is
    refused, or each read is right or `Unreadable`."""
    source, newest = crashed
    rng = random.Random(f"{SEED} {name} {kind}")
    size = (source / name).stat().st_size
    outcomes = []
    for number in range(6):
        copy = tmp_path / str(number)
        shutil.copytree(source, copy)
        at = rng.randrange(size)
        data = bytearray((copy / name).read_bytes())
        if kind == "flip":
            data[at] ^= 1 << rng.randrange(8)
        elif kind == "garbage":
            data[at : at + 512] = rng.randbytes(len(data[at : at + 512]))
        else:
            del data[at:]
        (copy / name).write_bytes(data)
        # A cut WAL is what a crash leaves: earlier turns may be what is found. So may the last commit be gone.
        oldest = 0 if kind == "truncate" and name == "log.db-wal" else newest - 12
        outcomes.append(judge(copy, oldest, newest, f"seed {SEED}: {kind} at {at} of {name}"))
    print(name, kind, outcomes)


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """Files as a crash left them, with something in each WAL, and the turn they hold."""
    base = tmp_path_factory.mktemp("crashed")
    for attempt in range(20):
        running = Child(base / f"n{attempt}", flush_rows=40)
        running.run(0.25)
        running.kill()
        copy = base / f"copy{attempt}"
        shutil.copytree(base / f"n{attempt}", copy)
        if all(wal_frames(copy / name).commits for name in ("log.db-wal", "table.db-wal")):
            probe = base / f"probe{attempt}"
            shutil.copytree(copy, probe)
            with opening(probe) as engine:
                return copy, turn_found(engine)
    pytest.fail("no crash left both WALs filled")


@pytest.mark.parametrize("name", ["log.db", "table.db"])
def test_a_file_of_garbage_is_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    """And the sentence says what to do."""
    fill(tmp_path / "n1", 50)
    (tmp_path / "n1" / name).write_bytes(b"not a database at all, " * 1000)

    with pytest.raises(StoreFailed, match=rf"{name} is damaged .*start the node with an empty one") as refused:
        opened(tmp_path / "n1")
    assert "\n" not in str(refused.value)


def test_a_wal_that_rotted_in_its_middle_is_refused(tmp_path: Path) -> None:
    """SQLite would drop every commit from the first bad frame on, and say nothing."""
    with opening(tmp_path / "n1", NO_FLUSH) as engine:
        for turn in range(1, 21):
            engine.submit(turn, turn_writes(turn))
            wait(engine, turn)
        shutil.copytree(tmp_path / "n1", tmp_path / "copy")
    wal = tmp_path / "copy" / "log.db-wal"
    middle = wal_frames(wal).commits[8]
    data = bytearray(wal.read_bytes())
    data[32 + (middle - 1) * (24 + 8192) + 24 + 1000] ^= 4
    wal.write_bytes(data)

    with pytest.raises(StoreFailed, match="damaged before its end"):
        opened(tmp_path / "copy")


# ---- files that do not belong together ---------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "sql", "says"),
    [
        ("log.db", "DELETE FROM log WHERE n = (SELECT max(n) - 1 FROM log)", "is missing"),
        ("log.db", "DELETE FROM log WHERE n = 1", "begins with batch 2"),
        ("log.db", "UPDATE log SET batch = zeroblob(40) WHERE n = 3", "batch 3, it fails its checksum"),
        ("log.db", "UPDATE log SET batch = (SELECT batch FROM log WHERE n = 2) WHERE n = 3", "batch 3, it fails"),
        ("log.db", "UPDATE log SET batch = 'text' WHERE n = 3", "batch 3, it is cut short"),
        ("table.db", "INSERT INTO meta VALUES ('mark', '400')", "ends with batch"),
    ],
)
def test_a_hole_in_the_log_is_never_skipped(file: str, sql: str, says: str, tmp_path: Path) -> None:
    """PROTOCOL-CASES 8: a bad or missing batch stops the node, and the message names the way out."""
    fill(tmp_path / "n1", 10, NO_FLUSH)
    with opening(tmp_path / "n1", NO_FLUSH) as engine:
        for turn in range(1, 10):
            engine.submit(turn, turn_writes(turn))
            wait(engine, turn)
    edit(tmp_path / "n1" / file, sql)

    with pytest.raises(StoreFailed, match=rf"hole in the log .*{says}.*start the node with an empty one"):
        opened(tmp_path / "n1")


def test_a_lost_or_foreign_file_is_noticed(tmp_path: Path) -> None:
    """Either file gone, from another directory, or from another time: refused, for acknowledged writes are
    missing from what is left."""
    fill(tmp_path / "n1", 100)
    fill(tmp_path / "other", 100)
    shutil.copytree(tmp_path / "n1", tmp_path / "old")
    with opening(tmp_path / "n1") as engine:
        for turn in range(1, 300):
            engine.submit(turn, turn_writes(turn))
            settle(engine, turn)

    def damaged(name: str, source: Path | None) -> Path:
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(tmp_path / "n1", copy)
        (copy / name).unlink()
        if source is not None:
            shutil.copy(source / name, copy / name)
        return copy

    for name in ("log.db", "table.db"):
        for source in (None, tmp_path / "other", tmp_path / "old"):
            with pytest.raises(StoreFailed, match=r"hole in the log|is not the one that|belongs"):
                opened(damaged(name, source)).close()


def test_a_crash_in_the_very_first_open_is_no_damage(tmp_path: Path) -> None:
    """The log knows its disk_id and the table not yet: opened, under that disk_id."""
    with opening(tmp_path / "n1") as engine:
        disk_id = engine.identity.disk_id
    edit(tmp_path / "n1" / "table.db", "DELETE FROM meta")

    with opening(tmp_path / "n1") as engine:
        assert engine.identity.disk_id == disk_id


@pytest.mark.parametrize("name", ["log.db", "table.db"])
def test_a_newer_format_is_refused_with_both_numbers(name: str, tmp_path: Path) -> None:
    """And nothing in the file is touched."""
    fill(tmp_path / "n1", 5)
    edit(tmp_path / "n1" / name, "UPDATE meta SET value=CAST('7' AS BLOB) WHERE key='format'")
    before = (tmp_path / "n1" / name).read_bytes()

    with pytest.raises(StoreFailed, match=f"format 7, this kvnode reads format {FORMAT}"):
        opened(tmp_path / "n1")
    assert (tmp_path / "n1" / name).read_bytes() == before


def test_another_nodes_directory_is_refused(tmp_path: Path) -> None:
    """Two nodes that swap directories would each claim the other's records."""
    with opening(tmp_path / "d", node="n1"):
        pass

    with pytest.raises(StoreFailed, match="belongs to node n1, not n2"):
        opened(tmp_path / "d", node="n2")
    with opening(tmp_path / "d", node="n1") as engine:
        assert engine.identity.boot == 2  # the refusal began no boot


def test_a_directory_has_one_owner(tmp_path: Path) -> None:
    """A second opener is told who has it; when the first lets go, or dies, it may."""
    with opening(tmp_path / "n1"), pytest.raises(StoreLocked, match=f"pid {os.getpid()}"):
        opened(tmp_path / "n1")
    running = Child(tmp_path / "n1")
    running.run(0.01)
    with pytest.raises(StoreLocked):
        opened(tmp_path / "n1")
    running.kill()
    with opening(tmp_path / "n1"):
        pass


def test_a_place_that_cannot_be_a_directory_is_refused(tmp_path: Path) -> None:
    """A file in the way."""
    (tmp_path / "n1").write_text("a file")

    with pytest.raises(StoreFailed, match="cannot use data directory"):
        opened(tmp_path / "n1")


# ---- a model -----------------------------------------------------------------------------------

keys = st.sampled_from([b"a", b"ab", b"b", b"\xff", b"\xff\xff", *(b"k%d" % i for i in range(12))])
values = st.one_of(st.none(), st.binary(max_size=40), st.integers(200, 3_000).map(bytes))


class EngineMachine(RuleBasedStateMachine):
    """The engine against a dict, with clean restarts and crashes in between."""

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[bytes, Held] = {}
        self.turn = 0
        self.clock = 0
        self.base = Path()
        self.number = 0

    @initialize(memtable=st.sampled_from([0, 2_000, 100_000]), cache=st.sampled_from([0, 3_000, 100_000]))
    def begin(self, memtable: int, cache: int) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="engine"))
        self.settings = Settings(memtable_bytes=memtable, cache_bytes=cache, compress_min_bytes=50)
        self.engine = opened(self.path, self.settings)

    @property
    def path(self) -> Path:
        return self.base / str(self.number)

    @rule(writes=st.dictionaries(keys, values, max_size=5))
    def submit(self, writes: dict[bytes, bytes | None]) -> None:
        self.turn += 1
        self.clock += 1
        batch = {key: held(value, self.clock) for key, value in writes.items()}
        self.engine.submit(self.turn, batch)
        self.model |= batch

    @rule()
    def commit(self) -> None:
        wait(self.engine, self.turn)

    @rule()
    def flush(self) -> None:
        settle(self.engine, self.turn)

    @rule()
    def restart(self) -> None:
        self.engine.close()
        self._reopen()

    @rule()
    def crash(self) -> None:
        """What is durable survives; a copy of the files is what the next process finds."""
        wait(self.engine, self.turn)
        shutil.copytree(self.path, self.base / str(self.number + 1))
        self.engine.close()
        self.number += 1
        self._reopen()

    def _reopen(self) -> None:
        self.engine = opened(self.path, self.settings)
        self.turn = 0
        self.model = {key: as_stored(record) for key, record in self.model.items()}

    @rule(key=keys)
    def get(self, key: bytes) -> None:
        assert self.engine.get(key) == self.model.get(key)

    @rule(
        after=st.one_of(st.just(b""), keys),
        prefix=st.sampled_from([b"", b"a", b"k", b"\xff"]),
        limit=st.integers(1, 9),
    )
    def scan(self, after: bytes, prefix: bytes, limit: int) -> None:
        expected = [k for k in sorted(self.model) if k > after and k.startswith(prefix)][:limit]
        assert self.engine.scan(after, prefix, limit) == [Stored(k, self.model[k]) for k in expected]

    @invariant()
    def counters_are_exact(self) -> None:
        if self.base == Path():
            return
        live = {key: record for key, record in self.model.items() if record.live_bytes}
        stats = self.engine.stats()
        assert stats.keys == len(live)
        assert stats.value_bytes == sum(len(key) + record.live_bytes for key, record in live.items())

    def teardown(self) -> None:
        if self.base != Path():
            self.engine.close()
            shutil.rmtree(self.base)


EngineMachine.TestCase.settings = settings(
    max_examples=30, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestEngineIsADictThatSurvives = EngineMachine.TestCase
