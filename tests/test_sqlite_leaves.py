"""The hash tree of the sqlite engine: exact after any crash, and what rests on disk agrees with the rows."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from kvnode import config
from kvnode.config import Settings
from kvnode.core.merkle import SLOT_LEAVES, leaf_of
from kvnode.core.outbox import GONE, Unreadable
from kvnode.core.versions import Held
from kvnode.shell.sqlite.engine import SqliteEngine
from kvnode.shell.sqlite.flusher import Flusher
from kvnode.shell.sqlite.format import Damaged, decode_page, encode_page
from kvnode.shell.store import StoreFailed
from tests.sqlite_harness import (
    NAMES,
    NO_FLUSH,
    as_stored,
    assert_saved_leaves_are_exact,
    edit,
    fill,
    neighbours,
    opening,
    settle,
    turn_writes,
)
from tests.test_store_conformance import assert_tree_is_exact, everything, held, wait

EVERY_TURN = Settings(memtable_bytes=0, cache_bytes=0)
"""Each turn is a flush."""


def test_after_a_flush_and_a_restart_the_tree_comes_from_the_saved_leaves(tmp_path: Path) -> None:
    """Nothing is added up from rows at a clean start; places and saved leaves are those of the rows."""
    turns = fill(tmp_path / "n1", 200)
    with opening(tmp_path / "n1", EVERY_TURN) as engine:
        engine.submit(1, {NAMES[0]: GONE, NAMES[1]: held(b"last", 999)})
        settle(engine, 1)

    assert_saved_leaves_are_exact(tmp_path / "n1")
    assert edit(tmp_path / "n1" / "table.db", "SELECT value FROM meta WHERE key='flushing'") == [(b"0",)]
    with opening(tmp_path / "n1") as engine:
        assert turns == 200
        assert engine.stats().counters["leaves_rebuilt"] == 0
        assert_tree_is_exact(engine, NAMES, "after a restart")


# ---- a flush that a crash cut short ------------------------------------------------------------


class Crashes:
    """Copies of a directory, as a crash after each transaction of its flushes would leave it."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._number = 0
        self.of = base / "n1"
        self.taken: list[Path] = []

    def take(self) -> None:
        self._number += 1
        self.taken.append(self._base / f"crash{self._number}")
        shutil.copytree(self.of, self.taken[-1])


@pytest.fixture
def crashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Crashes:
    """Each statement of a flush is a transaction, of three rows at most, and a crash follows each."""
    found = Crashes(tmp_path)
    commit = Flusher._commit

    def commit_and_crash(self: Flusher, counts: dict[str, int]) -> None:
        commit(self, counts)
        found.take()

    monkeypatch.setattr(config, "FLUSH_ROWS", 3)
    monkeypatch.setattr(config, "FLUSH_STATEMENTS", 1)
    monkeypatch.setattr(Flusher, "_commit", commit_and_crash)
    return found


def old_and_new() -> tuple[dict[bytes, Held], dict[bytes, Held]]:
    """What the table has, and a memtable that rewrites, drops, brings back and adds, also within one leaf."""
    shared = neighbours(6)
    old = {key: held(b"old", 1) for key in (*NAMES[:8], *shared[:4])}
    new: dict[bytes, Held] = {key: held(b"new", 2) for key in (*NAMES[4:12], *shared[2:])}
    new |= dict.fromkeys((NAMES[0], NAMES[1], shared[0], NAMES[50]), GONE)
    return old, new


def check_held(engine: SqliteEngine, written: dict[bytes, Held], what: str) -> None:
    """Records, counters, tree and leaves are those of what was written."""
    live = {key: as_stored(record) for key, record in written.items() if record is not GONE}
    assert {row.key: as_stored(row.held) for row in everything(engine)} == live, what
    assert engine.stats().keys == len(live), what
    assert_tree_is_exact(engine, (*NAMES, *neighbours(6)), what)


def test_the_tree_is_exact_whichever_transaction_of_a_flush_was_the_last(crashes: Crashes) -> None:
    """Crash after each, restart: records, counters, tree and leaves are right; so are, after the next flush,
    the saved leaves."""
    old, new = old_and_new()
    with opening(crashes.of, EVERY_TURN) as engine:
        engine.submit(1, old)
        settle(engine, 1)
        crashes.taken.clear()
        engine.submit(2, new)
        settle(engine, 2)
    copies, later = list(crashes.taken), {NAMES[20]: held(b"later", 3)}
    assert len(copies) > 12

    for copy in copies:
        crashes.of = copy
        with opening(copy, NO_FLUSH) as engine:
            check_held(engine, old | new, copy.name)
            assert (engine.stats().counters["leaves_rebuilt"] > 0) == (copy != copies[-1])
        with opening(copy, EVERY_TURN) as engine:
            engine.submit(1, later)
            settle(engine, 1)
            check_held(engine, old | new | later, copy.name)
        assert_saved_leaves_are_exact(copy)


@pytest.mark.parametrize("after", [1, 2, 5, 9, 13])
def test_a_flush_interrupted_again_and_again_leaves_the_tree_exact(after: int, crashes: Crashes) -> None:
    """Each restart replays, begins a flush, and crashes after so many transactions of it."""
    old, new = old_and_new()
    written = dict(old)
    with opening(crashes.of, EVERY_TURN) as engine:
        engine.submit(1, old)
        settle(engine, 1)

    for round_ in range(6):
        writes = new if round_ == 0 else {NAMES[60 + round_]: held(b"x", 3), neighbours(6)[round_]: GONE}
        written |= writes
        crashes.taken.clear()
        with opening(crashes.of, EVERY_TURN) as engine:
            engine.submit(1, writes)
            settle(engine, 1)
        crashes.of = crashes.taken[min(after, len(crashes.taken) - 1)]
        with opening(crashes.of, NO_FLUSH) as engine:
            check_held(engine, written, f"round {round_}")


# ---- damage ------------------------------------------------------------------------------------


def test_a_damaged_page_of_leaves_is_added_up_from_the_rows(tmp_path: Path) -> None:
    """One page fails its checksum, one stands under another slot: the tree is exact all the same, and the next
    flush saves it right."""
    with opening(tmp_path / "n1", EVERY_TURN) as engine:
        engine.submit(1, turn_writes(1) | {key: held(b"v", 5) for key in NAMES})
        settle(engine, 1)
        engine.submit(2, {b"other": held(b"x")})
        settle(engine, 2)
    slots = [leaf_of(key) // SLOT_LEAVES for key in (NAMES[0], NAMES[1])]
    (row,) = edit(tmp_path / "n1" / "table.db", "SELECT hashes FROM leaves WHERE slot=?", slots[0])[0]
    assert isinstance(row, bytes)
    edit(
        tmp_path / "n1" / "table.db",
        "UPDATE leaves SET hashes=? WHERE slot=?",
        row[:-1] + bytes([row[-1] ^ 1]),
        slots[0],
    )
    edit(tmp_path / "n1" / "table.db", "UPDATE leaves SET hashes=? WHERE slot=?", row, slots[1])

    with opening(tmp_path / "n1", EVERY_TURN) as engine:
        assert engine.stats().counters["leaves_rebuilt"] == 2 * SLOT_LEAVES
        assert_tree_is_exact(engine, NAMES, "damaged pages")
        engine.submit(1, {NAMES[0]: held(b"new", 6)})
        settle(engine, 1)
        assert_tree_is_exact(engine, NAMES, "written since")

    assert_saved_leaves_are_exact(tmp_path / "n1")


def test_a_page_of_leaves_that_rots_while_the_node_runs_is_put_right_by_the_next_flush(tmp_path: Path) -> None:
    """A flush saves whole pages of what is in memory: nothing is carried on from what it finds."""
    with opening(tmp_path / "n1", EVERY_TURN) as engine:
        engine.submit(1, {key: held(b"v", 5) for key in NAMES})
        settle(engine, 1)
        edit(tmp_path / "n1" / "table.db", "UPDATE leaves SET hashes=zeroblob(1028)")
        engine.submit(2, {key: held(b"w", 6) for key in NAMES})
        settle(engine, 2)

    assert_saved_leaves_are_exact(tmp_path / "n1")


def test_any_flipped_bit_of_a_page_is_noticed() -> None:
    """And a page under another slot's number; an empty page is a page."""
    page = bytes(range(256)) * 4
    row = encode_page(7, page)
    assert decode_page(7, row) == page
    assert decode_page(7, encode_page(7, b"")) == b""

    for bit in range(0, 8 * len(row), 5):
        changed = bytearray(row)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Damaged):
            decode_page(7, bytes(changed))
    with pytest.raises(Damaged):
        decode_page(8, row)
    with pytest.raises(Damaged):
        decode_page(7, encode_page(7, b"too short"))


def with_damaged_row(path: Path, keys: list[bytes], damaged: bytes) -> None:
    """A directory of these keys, one of whose rows fails its checksum."""
    with opening(path, EVERY_TURN) as engine:
        for turn, writes in enumerate(({key: held(b"v", 5) for key in keys}, {b"other": held(b"x")}), 1):
            engine.submit(turn, writes)
            settle(engine, turn)
    edit(path / "table.db", "UPDATE kv SET value=zeroblob(60) WHERE key=?", damaged)


def test_a_leaf_shows_its_damaged_record_as_none_and_is_left_as_it_is(tmp_path: Path) -> None:
    """The others of the leaf are shown; the tree goes on saying what this node should hold."""
    keys = neighbours(4)
    with_damaged_row(tmp_path / "n1", keys, keys[1])

    with opening(tmp_path / "n1", NO_FLUSH) as engine:
        before = engine.tree.page(leaf_of(keys[0]) // SLOT_LEAVES)
        record = as_stored(held(b"v", 5))
        assert engine.leaf(leaf_of(keys[0])) == [(key, None if key == keys[1] else record) for key in keys]
        assert not engine.mend_leaf(leaf_of(keys[0]))
        assert engine.tree.page(leaf_of(keys[0]) // SLOT_LEAVES) == before
        with pytest.raises(Unreadable):
            engine.get(keys[1])


@pytest.mark.parametrize("what", ["written", "dropped"])
def test_a_write_over_a_damaged_row_makes_its_leaf_exact_again(what: str, tmp_path: Path) -> None:
    """What the row had in its leaf is lost with it: the leaf is added up, in memory, after a crash and on disk."""
    keys = neighbours(4)
    with_damaged_row(tmp_path / "n1", keys, keys[1])

    with opening(tmp_path / "n1", NO_FLUSH) as engine:
        engine.submit(1, {keys[2]: held(b"first", 6), keys[1]: GONE if what == "dropped" else held(b"new", 6)})
        wait(engine, 1)
        assert_tree_is_exact(engine, keys, what)
        shutil.copytree(tmp_path / "n1", tmp_path / "crashed")
    with opening(tmp_path / "crashed", EVERY_TURN) as engine:
        assert_tree_is_exact(engine, keys, "replayed")
        engine.submit(1, {b"one more": held(b"x")})
        settle(engine, 1)

    assert_saved_leaves_are_exact(tmp_path / "crashed")


def test_a_leaf_that_is_mended_is_mended_on_disk_with_the_next_flush(tmp_path: Path) -> None:
    """A saved leaf gone wrong under a right checksum: `mend_leaf` says so once, and not after a restart."""
    key = NAMES[1]
    with opening(tmp_path / "n1", EVERY_TURN) as engine:
        engine.submit(1, {key: held(b"v")})
        settle(engine, 1)
    slot = leaf_of(key) // SLOT_LEAVES
    edit(tmp_path / "n1" / "table.db", "UPDATE leaves SET hashes=? WHERE slot=?", encode_page(slot, b""), slot)

    with opening(tmp_path / "n1", EVERY_TURN) as engine:
        assert engine.mend_leaf(leaf_of(key))
        engine.submit(1, {b"other": held(b"x")})
        settle(engine, 1)

    assert_saved_leaves_are_exact(tmp_path / "n1")
    with opening(tmp_path / "n1") as engine:
        assert not engine.mend_leaf(leaf_of(key))


def test_places_that_cannot_be_read_are_no_empty_leaf(tmp_path: Path) -> None:
    """`leaf` raises: nobody may take the node for holding nothing there."""
    with opening(tmp_path / "n1", EVERY_TURN) as engine:
        engine.submit(1, {b"k": held(b"v")})
        settle(engine, 1)
        edit(tmp_path / "n1" / "table.db", "ALTER TABLE places RENAME TO lost")

        with pytest.raises(Unreadable):
            engine.leaf(leaf_of(b"k"))


# ---- a directory made before there was a tree --------------------------------------------------


@pytest.fixture
def old_directory(tmp_path: Path) -> Iterator[Path]:
    """As an earlier kvnode left it: rows and a log, neither places nor leaves, hints nor facts."""
    path = tmp_path / "old"
    with opening(path, EVERY_TURN) as engine:
        for turn in range(1, 6):
            engine.submit(turn, {key: held(b"v%d" % turn, turn) for key in NAMES[turn * 10 : turn * 10 + 20]})
            settle(engine, turn)
    with closing(sqlite3.connect(path / "table.db", isolation_level=None)) as table:
        for name in ("places", "leaves", "hints", "facts"):
            table.execute(f"DROP TABLE {name}")
        table.execute("DELETE FROM meta WHERE key IN ('indexed', 'flushing')")
    yield path


def test_an_old_directory_is_indexed_once(old_directory: Path) -> None:
    """At its first open the tree is built from the rows, and saved; at the second there is nothing to do."""
    with opening(old_directory, NO_FLUSH) as engine:
        assert engine.stats().counters["rows_indexed"] == 60
        assert_tree_is_exact(engine, NAMES, "indexed")
    assert_saved_leaves_are_exact(old_directory)

    with opening(old_directory, NO_FLUSH) as engine:
        assert engine.stats().counters["rows_indexed"] == 0
        assert_tree_is_exact(engine, NAMES, "opened again")


def test_an_old_directory_with_a_damaged_row_is_indexed_too(old_directory: Path) -> None:
    """The row's key has its place, so that whoever asks for the leaf is told."""
    edit(old_directory / "table.db", "UPDATE kv SET value=zeroblob(60) WHERE key=?", NAMES[20])

    with opening(old_directory, NO_FLUSH) as engine:
        assert (NAMES[20], None) in engine.leaf(leaf_of(NAMES[20]))


def test_a_crash_while_a_directory_is_indexed_leaves_it_to_be_done(
    old_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it or nothing."""

    def crash(*_: object) -> None:
        raise sqlite3.OperationalError("out of room")

    with monkeypatch.context() as patched:
        patched.setattr("kvnode.shell.sqlite.indexing._save_leaves", crash)
        with pytest.raises(StoreFailed, match="out of room"):
            SqliteEngine(old_directory, "n1", "fsync", NO_FLUSH)
    assert edit(old_directory / "table.db", "SELECT count(*) FROM places") == [(0,)]

    with opening(old_directory, NO_FLUSH) as engine:
        assert engine.stats().counters["rows_indexed"] == 60
        assert_tree_is_exact(engine, NAMES, "indexed")
