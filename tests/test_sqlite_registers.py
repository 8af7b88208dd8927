"""Registers in the engines: apart from the key's versions, durable with their turn, read on demand."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kvnode.config import Settings
from kvnode.core.consensus import Register, encode_register
from kvnode.core.merkle import LEAVES, NOTHING, Span, leaf_of
from kvnode.core.outbox import Aside, Unreadable
from kvnode.protocol.consensus import Ballot
from kvnode.protocol.types import Version, encode_record
from kvnode.shell.engines import ENGINES, open_engine
from tests.sqlite_harness import NO_FLUSH, edit, opening, settle
from tests.test_store_conformance import assert_tree_is_exact, everything, held, wait

EVERY_TURN = Settings(memtable_bytes=0, cache_bytes=0)


def register(value: bytes | None, time: int, promised: int = 0) -> bytes:
    """One as an acceptor keeps it: a value, or a tombstone, accepted at a time; maybe a later promise."""
    accepted = Ballot(time, 7)
    record = encode_record((Version(7, time, {}, value),))
    return encode_register(Register(Ballot(time + promised, 7), accepted, record))


def registers(**kept: bytes | None) -> Aside:
    """Registers of these values; the time is in their last digit."""
    return Aside({}, {}, {key.encode(): register(value, 1 + (value or b"0")[-1]) for key, value in kept.items()})


@pytest.mark.parametrize("name", ENGINES)
def test_a_register_is_no_version_of_its_key(name: str, tmp_path: Path) -> None:
    """Read at once, alone in its turn or beside writes; no scan shows it, tree and counters do; pages join."""
    engine = open_engine(name, None if name == "memory" else tmp_path / "n1", "n1", "fsync", NO_FLUSH)
    assert engine.register(b"a") == b""
    engine.submit(1, {}, registers(a=b"1", b=b"2", c=None))
    engine.submit(2, {b"a": held(b"v")}, registers(a=b"4"))
    a, b, c = registers(a=b"4", b=b"2", c=None).registers.values()

    assert (engine.register(b"a"), engine.register(b"b")) == (a, b)
    assert engine.registers(b"", b"", 2) == [(b"a", a), (b"b", b)]
    assert engine.registers(b"b", b"", 2) == [(b"c", c)]
    assert engine.registers(b"", b"b", 2) == [(b"b", b)]
    assert engine.registers_in(leaf_of(b"a")) == [(b"a", a)]
    assert [row.key for row in everything(engine)] == [b"a"]
    assert (engine.stats().keys, engine.stats().value_bytes) == (3, 6)
    wait(engine, 2)
    assert_tree_is_exact(engine, [b"a", b"b"], "registers")
    engine.close()


@pytest.mark.parametrize("name", ENGINES)
def test_a_reaped_register_is_gone_and_a_promise_changes_no_tree(name: str, tmp_path: Path) -> None:
    """The tree names what was accepted under which ballot; with the register its entry goes."""
    engine = open_engine(name, None if name == "memory" else tmp_path / "n1", "n1", "fsync", NO_FLUSH)
    engine.submit(1, {}, registers(a=b"1"))
    one = engine.tree.hash(Span(0, LEAVES))
    engine.submit(2, {}, Aside({}, {}, {b"a": register(b"1", 1 + b"1"[0], promised=9)}))
    assert engine.tree.hash(Span(0, LEAVES)) == one != NOTHING

    engine.submit(3, {}, Aside({}, {}, {b"a": b""}))
    assert engine.tree.hash(Span(0, LEAVES)) == NOTHING
    assert (engine.register(b"a"), engine.registers(b"", b"", 9), engine.stats().keys) == (b"", [], 0)
    assert engine.registers_in(leaf_of(b"a")) == []
    wait(engine, 3)
    engine.close()


@pytest.mark.parametrize("settings", [NO_FLUSH, EVERY_TURN], ids=["in the log", "in the table"])
def test_a_register_is_there_after_a_crash(settings: Settings, tmp_path: Path) -> None:
    """Each as it was last kept, however often the directory is opened since; one that was reaped is not."""
    with opening(tmp_path / "n1", settings) as engine:
        for turn in range(1, 41):
            engine.submit(turn, {}, registers(**{f"k{turn % 7}": b"r%d" % turn}))
            settle(engine, turn)
        engine.submit(41, {}, Aside({}, {}, {b"k6": b""}))
        settle(engine, 41)
        shutil.copytree(tmp_path / "n1", tmp_path / "crashed")
    kept = registers(**{f"k{turn % 7}": b"r%d" % turn for turn in range(34, 41)}).registers
    del kept[b"k6"]

    for _ in range(2):
        with opening(tmp_path / "crashed", settings) as engine:
            assert engine.registers(b"", b"", 100) == sorted(kept.items())
            assert all(engine.register(key) == kept.get(key, b"") for key in (*kept, b"k6"))
            assert engine.stats().keys == 6
            assert_tree_is_exact(engine, kept, "registers")


def test_a_directory_whose_index_knew_no_registers_is_indexed_again(tmp_path: Path) -> None:
    """Their places, leaves and counts are made at its next open."""
    with opening(tmp_path / "n1", EVERY_TURN) as engine:
        for turn in range(1, 5):
            engine.submit(turn, {b"v%d" % turn: held(b"v", turn)}, registers(**{f"r{turn}": b"r%d" % turn}))
            settle(engine, turn)
    table = tmp_path / "n1" / "table.db"
    edit(table, "UPDATE meta SET value = CAST('1' AS BLOB) WHERE key = 'indexed'")
    edit(table, "DELETE FROM places WHERE key IN (SELECT key FROM registers)")
    rows = edit(table, "SELECT count(*) FROM registers")[0][0]
    edit(table, "UPDATE meta SET value = CAST(CAST(value AS INTEGER) - ? AS BLOB) WHERE key = 'keys'", rows)

    with opening(tmp_path / "n1", NO_FLUSH) as engine:
        assert engine.stats().counters["rows_indexed"] >= 4
        assert engine.stats().keys == 8
        assert_tree_is_exact(engine, [b"r1", b"r4", b"v1"], "indexed again")


def test_a_damaged_register_is_never_read(tmp_path: Path) -> None:
    """Neither as another value nor as none: whoever asks is told that it cannot be read."""
    with opening(tmp_path / "n1", EVERY_TURN) as engine:
        engine.submit(1, {}, registers(a=b"one", b=b"two"))
        settle(engine, 1)
        for turn in range(2, 6):  # whatever came before these is in the table only
            engine.submit(turn, {b"k": held(b"v", turn)})
            settle(engine, turn)
    edit(tmp_path / "n1" / "table.db", "UPDATE registers SET value = x'00000000ff' WHERE key = x'61'")

    with opening(tmp_path / "n1") as engine:
        with pytest.raises(Unreadable):
            engine.register(b"a")
        with pytest.raises(Unreadable):
            engine.registers(b"", b"", 10)
        assert engine.register(b"b") == registers(b=b"two").registers[b"b"]
        assert engine.registers_in(leaf_of(b"a")) == [(b"a", None)]
