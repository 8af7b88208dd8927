"""Registers in the engines: apart from the key's versions, durable with their turn, read on demand."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kvnode.config import Settings
from kvnode.core.outbox import Aside, Unreadable
from kvnode.shell.engines import ENGINES, open_engine
from tests.sqlite_harness import NO_FLUSH, edit, opening, settle
from tests.test_store_conformance import assert_tree_is_exact, everything, held, wait

EVERY_TURN = Settings(memtable_bytes=0, cache_bytes=0)


def registers(**kept: bytes) -> Aside:
    return Aside({}, {}, {key.encode(): register for key, register in kept.items()})


@pytest.mark.parametrize("name", ENGINES)
def test_a_register_is_no_version_of_its_key(name: str, tmp_path: Path) -> None:
    """Read at once, alone in its turn or beside writes; no scan, count or tree shows it; pages join."""
    engine = open_engine(name, None if name == "memory" else tmp_path / "n1", "n1", "fsync", NO_FLUSH)
    assert engine.register(b"a") == b""
    engine.submit(1, {}, registers(a=b"1", b=b"2", c=b"3"))
    engine.submit(2, {b"a": held(b"v")}, registers(a=b"4"))

    assert (engine.register(b"a"), engine.register(b"b")) == (b"4", b"2")
    assert engine.registers(b"", 2) == [(b"a", b"4"), (b"b", b"2")]
    assert engine.registers(b"b", 2) == [(b"c", b"3")]
    assert [row.key for row in everything(engine)] == [b"a"]
    wait(engine, 2)
    assert_tree_is_exact(engine, [b"a", b"b"], "registers")
    engine.close()


@pytest.mark.parametrize("settings", [NO_FLUSH, EVERY_TURN], ids=["in the log", "in the table"])
def test_a_register_is_there_after_a_crash(settings: Settings, tmp_path: Path) -> None:
    """Each as it was last kept, however often the directory is opened since."""
    with opening(tmp_path / "n1", settings) as engine:
        for turn in range(1, 41):
            engine.submit(turn, {}, registers(**{f"k{turn % 7}": b"r%d" % turn}))
            settle(engine, turn)
        shutil.copytree(tmp_path / "n1", tmp_path / "crashed")
    expected = [(b"k%d" % (turn % 7), b"r%d" % turn) for turn in range(34, 41)]

    for _ in range(2):
        with opening(tmp_path / "crashed", settings) as engine:
            assert engine.registers(b"", 100) == sorted(expected)
            assert all(engine.register(key) == register for key, register in expected)


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
            engine.registers(b"", 10)
        assert engine.register(b"b") == b"two"
