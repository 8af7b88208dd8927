"""Hints and facts of the sqlite engine: durable with their turn, in the table after a flush, checked when read."""

from __future__ import annotations

import shutil
import sqlite3
import zlib
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from kvnode import config
from kvnode.config import Settings
from kvnode.core.outbox import GONE, Aside, Hint, HintKey
from kvnode.protocol.types import NodeId
from kvnode.shell.sqlite.format import (
    Batch,
    Damaged,
    decode_batch,
    decode_fact,
    decode_hint,
    encode_batch,
    encode_fact,
    encode_hint,
)
from tests.sqlite_harness import NO_FLUSH, as_stored, edit, opening, settle
from tests.test_store_conformance import everything, held, wait

EVERY_TURN = Settings(memtable_bytes=0, cache_bytes=0, compress_min_bytes=64)
CITY: HintKey = (NodeId("n2"), b"city")
TOWN: HintKey = (NodeId("n3"), b"town")


def hint(value: bytes, since: int = 1_000) -> Hint:
    return Hint(held(value), since)


def as_kept(found: Hint) -> Hint:
    """What a later boot reads: the record has no actor."""
    return Hint(as_stored(found.held), found.since)


def flipped(row: bytes, bit: int) -> bytes:
    changed = bytearray(row)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.parametrize("settings", [NO_FLUSH, EVERY_TURN], ids=["in the log", "in the table"])
def test_what_was_kept_aside_is_there_after_a_crash(settings: Settings, tmp_path: Path) -> None:
    """Hints kept, renewed and delivered, facts noted and forgotten; in turns of their own and beside writes."""
    with opening(tmp_path / "n1", settings) as engine:
        engine.submit(1, {}, Aside({CITY: hint(b"Porto"), TOWN: hint(b"Faro")}, {"a": b"1", "b": b"2"}))
        settle(engine, 1)
        engine.submit(2, {b"k": held(b"v")}, Aside({CITY: hint(b"long " * 100, 2_000)}, {"a": b"3"}))
        settle(engine, 2)
        engine.submit(3, {b"k": GONE}, Aside({TOWN: None}, {"b": b""}))
        settle(engine, 3)
        shutil.copytree(tmp_path / "n1", tmp_path / "crashed")

    for again in range(2):
        with opening(tmp_path / "crashed", settings) as engine:
            assert engine.hints() == {CITY: as_kept(hint(b"long " * 100, 2_000))}, again
            assert (engine.fact("a"), engine.fact("b")) == (b"3", b"")
            assert everything(engine) == []


def test_turns_that_share_a_commit_keep_the_last_of_each(tmp_path: Path) -> None:
    """While one commit is in flight three turns gather: of each hint and fact the newest is durable."""
    with opening(tmp_path / "n1", NO_FLUSH) as engine:
        with closing(sqlite3.connect(tmp_path / "n1" / "log.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            engine.submit(1, {b"k": held(b"v")})
            engine.submit(2, {}, Aside({CITY: hint(b"1"), TOWN: hint(b"1")}, {"a": b"1", "c": b"1"}))
            engine.submit(3, {})
            engine.submit(4, {}, Aside({CITY: None, TOWN: hint(b"2")}, {"a": b"2", "b": b"1"}))
            other.execute("ROLLBACK")
        wait(engine, 4)
        assert engine.stats().counters["commits"] == 2

    with opening(tmp_path / "n1", NO_FLUSH) as engine:
        assert engine.hints() == {TOWN: as_kept(hint(b"2"))}
        assert [engine.fact(name) for name in "abc"] == [b"2", b"1", b"1"]
        assert engine.get(b"k") is not None


def test_an_aside_is_no_part_of_the_next_commit(tmp_path: Path) -> None:
    """Kept, delivered in a later turn, and not kept again by any after."""
    with opening(tmp_path / "n1", NO_FLUSH) as engine:
        for turn, aside in enumerate((Aside({CITY: hint(b"1")}, {}), Aside({CITY: None}, {}), None), 1):
            engine.submit(turn, {b"k": held(b"v", turn)}, aside)
            wait(engine, turn)
    batches = edit(tmp_path / "n1" / "log.db", "SELECT n, batch FROM log ORDER BY n")

    asides = [decode_batch(number, row).aside for number, row in batches]  # type: ignore[arg-type]

    assert asides == [Aside({CITY: as_kept(hint(b"1"))}, {}), Aside({CITY: None}, {}), None]


def test_a_node_that_gets_only_hints_flushes_and_trims_its_log_too(tmp_path: Path) -> None:
    """Its log would grow for ever otherwise; and what was trimmed is in the table."""
    with opening(tmp_path / "n1", Settings(memtable_bytes=20_000)) as engine:
        for turn in range(1, 201):
            of = NodeId("n2"), b"k%d" % (turn % 50)
            engine.submit(turn, {}, Aside({of: hint(bytes(500), turn) if turn % 7 else None}, {}))
            settle(engine, turn)
        assert engine.stats().counters["flushes"] > 5
        assert engine.behind is False
    assert int(str(edit(tmp_path / "n1" / "log.db", "SELECT count(*) FROM log")[0][0])) < 60

    with opening(tmp_path / "n1", NO_FLUSH) as engine:
        expected = {
            (NodeId("n2"), b"k%d" % (turn % 50)): as_kept(hint(bytes(500), turn)) if turn % 7 else None
            for turn in range(1, 201)
        }
        assert engine.hints() == {of: kept for of, kept in expected.items() if kept is not None}


def test_hints_that_wait_for_the_disk_count_as_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that is handed more hints than its log takes must stop reading, as with writes."""
    monkeypatch.setattr(config, "LOG_QUEUE_BYTES_MAX", 5_000)
    with opening(tmp_path / "n1", NO_FLUSH) as engine:
        with closing(sqlite3.connect(tmp_path / "n1" / "log.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for turn in range(1, 8):
                engine.submit(turn, {}, Aside({CITY: hint(bytes(1_000))}, {}))
            assert engine.behind
            other.execute("ROLLBACK")
        wait(engine, 7)
        assert not engine.behind


# ---- how they look on disk ---------------------------------------------------------------------


def test_a_batch_without_an_aside_looks_as_it_always_did() -> None:
    """A checksum and one flat list: so older batches are read, and the hot path pays nothing for hints."""
    record = held(b"v")
    body = msgspec.msgpack.encode([b"a", record.blob, b"b", record.blob])
    row = zlib.crc32(body, 9).to_bytes(4, "big") + body

    assert encode_batch(9, {b"a": record, b"b": record}) == row
    assert decode_batch(9, row) == Batch({b"a": as_stored(record), b"b": as_stored(record)}, None)


def test_any_flipped_bit_of_a_batch_with_an_aside_is_noticed() -> None:
    """Each in turn; and dropped keys and delivered hints come back as such."""
    aside = Aside({CITY: hint(b"Porto"), TOWN: None}, {"a": b"1", "b": b""})
    row = encode_batch(9, {b"k": held(b"v"), b"gone": GONE}, aside)
    found = decode_batch(9, row)

    assert found.writes == {b"k": as_stored(held(b"v")), b"gone": GONE}
    assert found.writes[b"gone"] is GONE
    assert found.aside == Aside({CITY: as_kept(hint(b"Porto")), TOWN: None}, {"a": b"1", "b": b""})
    for bit in range(8 * len(row)):
        with pytest.raises(Damaged):
            decode_batch(9, flipped(row, bit))


def test_a_sound_checksum_over_something_else_is_damage_too() -> None:
    """An aside that is none, a list that is none: a bug of another version, not of the disk."""
    for flat in ([b"aside"], [b"k", b"no record"], [msgspec.msgpack.encode([[["n2", b"k"]], {}])], "text"):
        body = msgspec.msgpack.encode(flat)
        with pytest.raises(Damaged):
            decode_batch(9, zlib.crc32(body, 9).to_bytes(4, "big") + body)


@pytest.mark.parametrize("value", [b"short", b"long enough to be compressed " * 20])
def test_any_flipped_bit_of_a_hint_or_fact_is_noticed(value: bytes) -> None:
    """Each bit in turn; and a row under another owner, another key, another name."""
    kept = hint(value, 2**40)
    row, fact = encode_hint(CITY, kept, 100), encode_fact("a", value)
    assert decode_hint(CITY, row) == as_kept(kept)
    assert decode_fact("a", fact) == value
    assert len(row) < 100

    for bit in range(8 * len(row)):
        with pytest.raises(Damaged):
            decode_hint(CITY, flipped(row, bit))
    for bit in range(0, 8 * len(fact), 3):
        with pytest.raises(Damaged):
            decode_fact("a", flipped(fact, bit))
    for of in ((NodeId("n3"), b"city"), (NodeId("n2"), b"town")):
        with pytest.raises(Damaged):
            decode_hint(of, row)
    with pytest.raises(Damaged):
        decode_fact("b", fact)


def test_a_damaged_hint_is_skipped_and_counted_and_a_damaged_fact_is_none(tmp_path: Path) -> None:
    """The other hints are there; the damaged one is never delivered."""
    hints = {(NodeId("n2"), b"k%d" % i): hint(b"v%d" % i) for i in range(5)}
    with opening(tmp_path / "n1", EVERY_TURN) as engine:
        engine.submit(1, {}, Aside(dict(hints), {"a": b"1", "b": b"2"}))
        settle(engine, 1)
        engine.submit(2, {b"other": held(b"x")})
        settle(engine, 2)
    table = tmp_path / "n1" / "table.db"
    (row,) = edit(table, "SELECT value FROM hints WHERE key=?", b"k3")[0]
    assert isinstance(row, bytes)
    edit(table, "UPDATE hints SET value=? WHERE key=?", flipped(row, 8 * len(row) - 9), b"k3")
    edit(table, "UPDATE facts SET value='text' WHERE name='a'")

    with opening(tmp_path / "n1", NO_FLUSH) as engine:
        found = engine.hints()

        assert found == {of: as_kept(kept) for of, kept in hints.items() if of[1] != b"k3"}
        assert engine.stats().counters["unreadable_hints"] == 1
        assert (engine.fact("a"), engine.fact("b")) == (b"", b"2")
        assert engine.stats().counters["unreadable_facts"] == 1
