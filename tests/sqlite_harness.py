"""What the tests of the sqlite engine share: open, fill, settle, look behind its back, and a child that crashes.

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
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path

import msgspec

from kvnode import config
from kvnode.config import Settings
from kvnode.core.merkle import PAGE_BYTES, HashTree, leaf_of
from kvnode.core.outbox import GONE, Aside, Hint, HintKey
from kvnode.core.registers import weigh
from kvnode.core.versions import NO_ACTOR, Held
from kvnode.protocol.ring import SLOTS
from kvnode.protocol.types import NodeId
from kvnode.shell.sqlite.engine import SqliteEngine
from kvnode.shell.sqlite.format import decode_page, decode_register_row, decode_row
from kvnode.shell.sqlite.memtable import EMPTY
from tests.test_store_conformance import assert_tree_is_exact, everything, held, wait

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


def name_of(number: int) -> bytes:
    """Keys all over the ring, and as many in one slot, where they share leaves."""
    return (b"k%03d" if number % 2 else b"{tag}%03d") % number


NAMES = [name_of(number) for number in range(KEYS)]


def neighbours(count: int) -> list[bytes]:
    """Keys that share one leaf."""
    found: list[bytes] = []
    number = 0
    while len(found) < count:
        key = b"{tag}%06d" % number
        if leaf_of(key) == leaf_of(b"{tag}000000"):
            found.append(key)
        number += 1
    return found


@cache
def turn_writes(turn: int) -> dict[bytes, Held]:
    """What a turn of the child writes; the time of each record is its turn, and one is in every turn."""
    rng = random.Random(turn)
    writes = {b"turn": held(b"", turn)}
    for _ in range(rng.randrange(1, 7)):
        key, kind = rng.choice(NAMES), rng.random()
        value = None if kind < 0.1 else rng.randbytes(rng.randrange(300))
        writes[key] = GONE if kind > 0.8 else held(value, turn)
    return writes


@cache
def turn_aside(turn: int) -> Aside | None:
    """What it keeps beside them."""
    rng = random.Random(-turn)
    if rng.random() < 0.6:
        return None
    hint = Hint(as_stored(held(rng.randbytes(rng.randrange(200)), turn)), turn)
    hints = {(NodeId(rng.choice(["n2", "n3"])), rng.choice(NAMES[:9])): rng.choice([hint, hint, None])}
    return Aside(hints, {rng.choice(["a", "b"]): rng.choice([b"", b"fact %d" % turn])})


@cache
def state_after(turn: int) -> dict[bytes, Held]:
    """Everything held after this turn and all before it, as a later boot reads it."""
    if turn == 0:
        return {}
    known = turn - turn % 50 if turn % 50 else turn - 50
    state = dict(state_after(known))
    for later in range(known + 1, turn + 1):
        state |= turn_writes(later)
    return {key: as_stored(record) for key, record in state.items() if record is not GONE}


def aside_after(turn: int) -> Aside:
    """Every hint and fact after this turn and all before it."""
    hints: dict[HintKey, Hint | None] = {}
    facts: dict[str, bytes] = {}
    for earlier in range(1, turn + 1):
        aside = turn_aside(earlier)
        if aside is not None:
            hints |= aside.hints
            facts |= aside.facts
    return Aside({of: hint for of, hint in hints.items() if hint is not None}, facts)


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
            engine.submit(turn, turn_writes(turn), turn_aside(turn))
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
        call = f"from tests.sqlite_harness import child; child({str(path)!r}, '{first}', '{flush_rows}')"
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
    for key in NAMES:
        assert engine.get(key) == found.get(key), f"seed {SEED}: get and scan differ on {key!r}"
    recount(engine)
    assert_tree_is_exact(engine, NAMES, f"seed {SEED}, turn {turn}")
    aside = aside_after(turn)
    assert engine.hints() == aside.hints, f"seed {SEED}, turn {turn}"
    for name in ("a", "b"):
        assert engine.fact(name) == aside.facts.get(name, b""), f"seed {SEED}, turn {turn}"
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
    while engine._layers.frozen is not EMPTY:  # one of registers alone has no records
        assert time.monotonic() < deadline, "the flush does not end"
        engine.durable()
    engine.durable()


def fill(path: Path, turns: int = 400, settings_: Settings = SMALL) -> int:
    """Write turns in this process and close; returns how many."""
    with opening(path, settings_) as engine:
        for turn in range(1, turns + 1):
            engine.submit(turn, turn_writes(turn), turn_aside(turn))
            if turn % 10 == 0:
                settle(engine, turn)
    return turns


def edit(file: Path, sql: str, *args: object) -> list[tuple[object, ...]]:
    """Change a file behind the engine's back."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        return connection.execute(sql, args).fetchall()


def assert_saved_leaves_are_exact(path: Path) -> None:
    """On disk, after a whole flush: the saved leaves against the rows, and a place for each row and no more."""
    tree = HashTree()
    places = set()
    for key, row in edit(path / "table.db", "SELECT key, value FROM kv"):
        assert isinstance(key, bytes)
        assert isinstance(row, bytes)
        places.add((leaf_of(key), key))
        tree.change(key, b"", decode_row(key, row, 0).digest)
    for key, row in edit(path / "table.db", "SELECT key, value FROM registers"):
        assert isinstance(key, bytes)
        assert isinstance(row, bytes)
        places.add((leaf_of(key), key))
        tree.change(key, b"", weigh(decode_register_row(key, row)).mark)
    for slot, row in edit(path / "table.db", "SELECT slot, hashes FROM leaves"):
        assert isinstance(slot, int)
        assert isinstance(row, bytes)
        saved, should = decode_page(slot, row), tree.page(slot)
        assert saved == should, f"slot {slot}"
        tree.load(slot, bytes(PAGE_BYTES))
    assert not any(tree.page(slot) for slot in range(SLOTS)), "leaves with rows in them were not saved"
    assert set(edit(path / "table.db", "SELECT leaf, key FROM places")) == places
