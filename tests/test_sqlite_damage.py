"""The sqlite engine on damaged files, and on those of others: it refuses, reads right, or says it cannot read."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from kvnode.config import Settings
from kvnode.core.outbox import Unreadable
from kvnode.core.versions import Held
from kvnode.shell.sqlite.directory import LOG_PAGE_BYTES
from kvnode.shell.sqlite.engine import SqliteEngine
from kvnode.shell.sqlite.format import (
    FORMAT,
    Batch,
    Damaged,
    decode_batch,
    decode_row,
    encode_batch,
    encode_row,
)
from kvnode.shell.sqlite.wal import FRAME_HEADER_BYTES, wal_frames
from kvnode.shell.store import StoreFailed, StoreLocked
from tests.sqlite_harness import (
    NAMES,
    NO_FLUSH,
    SEED,
    Child,
    as_stored,
    edit,
    fill,
    opened,
    opening,
    settle,
    state_after,
    turn_found,
    turn_writes,
)
from tests.test_store_conformance import everything, held, wait


@pytest.mark.parametrize("value", [b"short", b"long enough to be compressed " * 20])
def test_any_flipped_bit_of_a_row_or_batch_is_noticed(value: bytes) -> None:
    """Each bit in turn, of a plain row, a compressed row and a batch; and a row under another's key."""
    record = held(value, 3)
    row = encode_row(b"key", record, 4, 100)
    batch = encode_batch(9, {b"key": record})
    assert decode_row(b"key", row, 4) == record
    assert decode_batch(9, batch) == Batch({b"key": as_stored(record)}, None)

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
        assert b"k050" not in engine._layers.memtable.records
        for _ in range(2):
            with pytest.raises(Unreadable) as caught:
                engine.get(b"k050")
            assert caught.value.args == (b"k050",)
        with pytest.raises(Unreadable):
            list(engine.scan(b"k04", b"k", 40))
        assert next(engine.scan(b"k04", b"k", 40)).key == b"k040"  # what is not taken is not read
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
        for key in NAMES:
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
    crashed: tuple[Path, int, int], name: str, kind: str, tmp_path: Path
) -> None:
    """Bits flipped, a block overwritten, the end cut off, in each file as a crash left it: the open is
    refused, or each read is right or `Unreadable`."""
    source, before, newest = crashed
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
        # A cut WAL is what a crash leaves: earlier turns may be what is found. So may the last commit be gone,
        # however many turns it held.
        oldest = 0 if kind == "truncate" and name == "log.db-wal" else before
        outcomes.append(judge(copy, oldest, newest, f"seed {SEED}: {kind} at {at} of {name}"))
    print(name, kind, outcomes)


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, int]:
    """Files as a crash left them, something in each WAL; the turn in them without the last commit, and with."""
    base = tmp_path_factory.mktemp("crashed")
    for attempt in range(20):
        running = Child(base / f"n{attempt}", flush_rows=40)
        running.run(0.25)
        running.kill()
        copy = base / f"copy{attempt}"
        shutil.copytree(base / f"n{attempt}", copy)
        commits = wal_frames(copy / "log.db-wal").commits
        if len(commits) > 1 and wal_frames(copy / "table.db-wal").commits:
            shorter = base / f"shorter{attempt}"
            shutil.copytree(copy, shorter)
            with (shorter / "log.db-wal").open("r+b") as wal:
                wal.truncate(32 + commits[-2] * (FRAME_HEADER_BYTES + LOG_PAGE_BYTES))
            return copy, turn_held(shorter), turn_held(copy)
    pytest.fail("no crash left both WALs filled")


def turn_held(files: Path) -> int:
    """The turn that is found in files, which are left as they are."""
    probe = files.with_name(f"{files.name}-probe")
    shutil.copytree(files, probe)
    with opening(probe) as engine:
        return turn_found(engine)


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
