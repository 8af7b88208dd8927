"""What every storage engine promises, whatever it is built on: one suite, every engine."""

from __future__ import annotations

import itertools
import random
import select
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from kvnode.config import Settings
from kvnode.core.merkle import LEAVES, HashTree, Span, leaf_of
from kvnode.core.outbox import GONE, Aside, Hint, HintKey, Stored
from kvnode.core.registers import weigh
from kvnode.core.versions import Held, held_of
from kvnode.protocol.ring import SLOTS, Member, Ring
from kvnode.protocol.types import TIME_MAX, NodeId, Version
from kvnode.shell.engines import ENGINES, open_engine
from kvnode.shell.store import DURABILITIES, Engine

Open = Callable[[], Engine]
SMALL = Settings(memtable_bytes=20_000, cache_bytes=10_000, compress_min_bytes=64)
"""So small that flushes, cache evictions and compression happen in every longer test."""


def held(value: bytes | None, time_: int = 1, actor: int = 7) -> Held:
    """A record of one version."""
    return held_of((Version(actor, time_, {}, value),), actor)


def wait(engine: Engine, turn: int) -> None:
    """Until a turn is durable, as the loop waits: on the engine's descriptor."""
    deadline = time.monotonic() + 20
    poller = select.poll()
    poller.register(engine.fileno(), select.POLLIN)
    while engine.durable() < turn:
        assert time.monotonic() < deadline, f"turn {turn} is not durable after 20 s"
        poller.poll(250)


def everything(engine: Engine, prefix: bytes = b"", page: int = 7) -> list[Stored]:
    """All that a scan finds, page by page."""
    found: list[Stored] = []
    after = b""
    while rows := list(engine.scan(after, prefix, page)):
        found += rows
        after = rows[-1].key
    return found


def assert_tree_is_exact(engine: Engine, ever: Iterable[bytes], what: str) -> None:
    """The tree is what all that is held gives; the leaves of all keys ever written hold it, in order."""
    rows = everything(engine, page=500)
    tree = HashTree()
    for row in rows:
        tree.change(row.key, b"", row.held.digest)
    for key, register in engine.registers(b"", b"", 10_000):
        tree.change(key, b"", weigh(register).mark)
    wrong = [slot for slot in range(SLOTS) if engine.tree.page(slot) != tree.page(slot)]
    assert not wrong, f"{what}: the leaves of slots {wrong} are wrong"
    whole = Span(0, LEAVES)
    assert engine.tree.hash(whole) == tree.hash(whole), what
    found = [engine.leaf(leaf) for leaf in sorted({leaf_of(key) for key in (*ever, *(row.key for row in rows))})]
    assert all(leaf == sorted(leaf) for leaf in ([key for key, _ in leaf] for leaf in found)), what
    assert sorted(itertools.chain(*found)) == [(row.key, row.held) for row in rows], what


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    path = None if request.param == "memory" else tmp_path / "node"
    opened = open_engine(request.param, path, "n1", "fsync", SMALL)
    yield opened
    opened.close()


def test_a_write_is_read_at_once_and_durable_when_the_engine_says_so(engine: Engine) -> None:
    """Submit turn 1, read it, wait on the descriptor, and `durable` names the turn."""
    engine.submit(1, {b"city": held(b"Porto")})

    assert engine.get(b"city") == held(b"Porto")
    assert list(engine.scan(b"", b"", 10)) == [Stored(b"city", held(b"Porto"))]
    wait(engine, 1)
    assert engine.durable() == 1


def test_a_key_never_written_is_not_there(engine: Engine) -> None:
    """Asking twice changes nothing, and a write after the asking is seen."""
    assert engine.get(b"ghost") is None
    assert engine.get(b"ghost") is None

    engine.submit(1, {b"ghost": held(b"boo")})

    assert engine.get(b"ghost") == held(b"boo")


def test_nothing_is_durable_before_the_first_turn(engine: Engine) -> None:
    """The number of no turn is 0."""
    assert engine.durable() == 0


def test_the_last_write_of_a_key_counts(engine: Engine) -> None:
    """Ten turns write one key, without waiting; the tenth is what is read, then and later."""
    for turn in range(1, 11):
        engine.submit(turn, {b"k": held(b"%d" % turn, turn)})

    assert engine.get(b"k") == held(b"10", 10)
    wait(engine, 10)
    assert engine.get(b"k") == held(b"10", 10)


def test_the_callers_dict_stays_the_callers(engine: Engine) -> None:
    """The core goes on reading the writes it handed over: no engine changes them."""
    first, second = {b"a": held(b"1")}, {b"b": held(b"2")}
    engine.submit(1, {b"z": held(b"0")})

    engine.submit(2, first)
    engine.submit(3, second)
    wait(engine, 3)

    assert list(first) == [b"a"]
    assert list(second) == [b"b"]


def test_a_turn_of_no_writes_is_durable_too(engine: Engine) -> None:
    """An empty turn needs no special care from the caller, also while another is being committed."""
    engine.submit(1, {})
    wait(engine, 1)

    engine.submit(2, {b"k": held(b"v")})
    engine.submit(3, {})
    wait(engine, 3)


def test_the_descriptor_is_readable_only_when_there_is_something_to_ask(engine: Engine) -> None:
    """A loop that polls it does not spin."""
    engine.submit(1, {b"k": held(b"v")})
    wait(engine, 1)
    engine.durable()

    assert select.select([engine.fileno()], [], [], 0)[0] == []


def test_the_minting_actor_comes_back_within_the_boot(engine: Engine) -> None:
    """A node mints a key under one actor for a whole boot, wherever the record has been meanwhile."""
    engine.submit(1, {b"mine": held(b"x", actor=99)})
    for turn in range(2, 60):
        engine.submit(turn, {b"filler%03d" % turn: held(bytes(1000))})
        wait(engine, turn)

    found = engine.get(b"mine")

    assert found is not None
    assert found.actor == 99


def test_a_record_comes_back_whole(engine: Engine) -> None:
    """Siblings, past, expiry, tombstones, digest, live bytes: all as written, from memory and from disk."""
    several = held_of(
        (
            Version(1, 10, {3: 4}, b"left", 5_000),
            Version(2, 11, {}, None),
            Version(2**64 - 1, TIME_MAX, {1: 2}, b"right" * 100, 4_000),
        ),
        actor=2**64 - 1,
    )
    engine.submit(1, {b"\x00\xff": several, b"empty": held(b"")})
    for turn in range(2, 60):
        engine.submit(turn, {b"filler%03d" % turn: held(bytes(1000))})
        wait(engine, turn)

    assert engine.get(b"\x00\xff") == several
    assert engine.get(b"empty") == held(b"")


def test_a_scan_is_in_byte_order_and_pages_join(engine: Engine) -> None:
    """Pages of any size, laid end to end, are every key once, sorted as bytes."""
    rng = random.Random(5)
    keys = {rng.randbytes(rng.randint(1, 4)) for _ in range(500)} | {b"\xff", b"\xff\xff", b"\x00"}
    written = {key: held(key) for key in keys}
    for turn, key in enumerate(sorted(written, key=lambda k: k[::-1]), 1):
        engine.submit(turn, {key: written[key]})
    wait(engine, len(written))

    for page in (1, 3, 100, 10_000):
        assert everything(engine, page=page) == [Stored(k, written[k]) for k in sorted(keys)]


@pytest.mark.parametrize("prefix", [b"user:", b"\xff", b"\xff\xff", b"user:\xff", b"nothing", b""])
def test_a_scan_keeps_to_its_prefix(engine: Engine, prefix: bytes) -> None:
    """Neighbours of the prefix on both sides stay out, the prefix itself is in, 0xff is no special byte."""
    names = [
        b"use",
        b"user",
        b"user:",
        b"user:1",
        b"user:\xff",
        b"user:\xff\xff",
        b"user;",
        b"\xff",
        b"\xff\xff\x01",
    ]
    engine.submit(1, {name: held(name) for name in names})

    found = [row.key for row in everything(engine, prefix, page=2)]

    assert found == sorted(name for name in names if name.startswith(prefix))


def test_a_scan_starts_strictly_after_and_respects_its_limit(engine: Engine) -> None:
    """`after` itself is not repeated, need not exist, and may stand before or beyond the prefix."""
    engine.submit(1, {b"k%d" % i: held(b"v") for i in range(10)})

    assert [row.key for row in engine.scan(b"k3", b"k", 2)] == [b"k4", b"k5"]
    assert [row.key for row in engine.scan(b"k3x", b"k", 1)] == [b"k4"]
    assert [row.key for row in engine.scan(b"a", b"k8", 5)] == [b"k8"]
    assert list(engine.scan(b"z", b"k", 5)) == []
    assert list(engine.scan(b"k9", b"k", 5)) == []


def test_counters_say_what_a_recount_would(engine: Engine) -> None:
    """Keys with a live value and their bytes, after writes, rewrites, deletes, tombstones and rebirths."""
    rng = random.Random(11)
    model: dict[bytes, Held] = {}
    for turn in range(1, 300):
        writes = {
            b"k%d" % rng.randrange(120): held(rng.choice([None, b"", rng.randbytes(rng.randrange(400))]), turn)
            for _ in range(rng.randrange(1, 6))
        }
        model |= writes
        engine.submit(turn, writes)
    wait(engine, 299)

    live = {key: h for key, h in model.items() if h.live_bytes}

    stats = engine.stats()
    assert stats.keys == len(live)
    assert stats.value_bytes == sum(len(key) + h.live_bytes for key, h in live.items())


def test_a_saved_ring_is_part_of_the_identity(engine: Engine) -> None:
    """A new store has none; what was saved last is what it says."""
    member = Member(NodeId("n1"), "127.0.0.1:7001", "h1")
    ring = Ring("c", 5, 1, 1, 16, (member,), ((0,),) * 16, (1,) * 16)
    assert engine.identity.ring is None
    assert engine.identity.node == "n1"
    assert engine.identity.boot == 1
    assert engine.identity.disk_id > 0

    engine.save_ring(ring)

    assert engine.identity.ring == ring


def test_closing_twice_is_closing(engine: Engine) -> None:
    """A shutdown path may be walked twice."""
    engine.submit(1, {b"k": held(b"v")})
    engine.close()
    engine.close()


@pytest.mark.parametrize("durability", DURABILITIES)
@pytest.mark.parametrize("name", ENGINES)
def test_every_durability_reports_its_turns(name: str, durability: str, tmp_path: Path) -> None:
    """fsync, os and none differ in what a power cut costs, never in what the caller sees."""
    engine = open_engine(name, tmp_path / "node", "n1", durability, SMALL)

    for turn in range(1, 80):
        engine.submit(turn, {b"k%d" % (turn % 9): held(bytes(700), turn)})
        wait(engine, turn)

    assert len(everything(engine)) == 9
    engine.close()


def test_random_work_leaves_what_a_dict_would_hold(engine: Engine) -> None:
    """Two thousand random turns against a dict: point reads on the way, all of it at the end."""
    rng = random.Random(3)
    model: dict[bytes, Held] = {}
    for turn in range(1, 2_000):
        writes = {
            b"%05d" % int(rng.paretovariate(0.3) % 900): held(rng.randbytes(rng.randrange(90)), turn)
            for _ in range(rng.randrange(1, 5))
        }
        model |= writes
        engine.submit(turn, writes)
        for _ in range(3):
            key = b"%05d" % rng.randrange(900)
            assert engine.get(key) == model.get(key), f"turn {turn}, key {key!r}"
        if turn % 50 == 0:
            after = b"%05d" % rng.randrange(900)
            expected = [Stored(k, model[k]) for k in sorted(model) if k > after][:20]
            assert list(engine.scan(after, b"", 20)) == expected, f"turn {turn}, after {after!r}"
            wait(engine, turn)

    assert everything(engine, page=100) == [Stored(k, model[k]) for k in sorted(model)]


# ---- dropped records ---------------------------------------------------------------------------


def flush(engine: Engine, turn: int) -> int:
    """Write so much that what was written before rests wherever the engine puts it for good; the last turn."""
    for filler in range(60):
        turn += 1
        engine.submit(turn, {b"~filler%03d" % (filler % 30): held(bytes(1000), turn)})
        wait(engine, turn)
    return turn


@pytest.mark.parametrize("flushed", ["no", "before", "before and after"])
def test_a_dropped_record_is_not_there_until_it_is_written_again(engine: Engine, flushed: str) -> None:
    """`GONE`: no read, scan, leaf or counter shows it, wherever it was; a later write brings it back."""
    engine.submit(1, {b"a": held(b"1"), b"b": held(b"22"), b"c": held(b"333")})
    turn = 1 if flushed == "no" else flush(engine, 1)
    before = engine.stats()

    engine.submit(turn + 1, {b"b": GONE})
    turn = flush(engine, turn + 1) if flushed == "before and after" else turn + 1

    assert engine.get(b"b") is None
    assert [row.key for row in engine.scan(b"", b"", 2)] == [b"a", b"c"]
    assert engine.leaf(leaf_of(b"b")) == []
    after = engine.stats()
    assert (after.keys, after.value_bytes) == (before.keys - 1, before.value_bytes - 3)
    assert_tree_is_exact(engine, [b"b"], flushed)
    engine.submit(turn + 1, {b"b": held(b"back", 9)})
    assert engine.get(b"b") == held(b"back", 9)
    assert engine.leaf(leaf_of(b"b")) == [(b"b", held(b"back", 9))]
    assert [row.key for row in engine.scan(b"", b"", 2)] == [b"a", b"b"]
    assert engine.stats().keys == before.keys
    assert_tree_is_exact(engine, [b"b"], flushed)


def test_dropping_what_was_never_there_changes_nothing(engine: Engine) -> None:
    """A key nobody wrote; and one dropped twice, once known to be absent."""
    engine.submit(1, {b"a": held(b"1"), b"b": held(b"2")})
    engine.submit(2, {b"ghost": GONE, b"b": GONE})
    assert engine.get(b"ghost") is None
    engine.submit(3, {b"ghost": GONE, b"b": GONE})

    turn = flush(engine, 3)

    assert [row.key for row in engine.scan(b"", b"", 1)] == [b"a"]
    assert engine.get(b"b") is None
    engine.submit(turn + 1, {b"b": GONE})
    assert engine.stats().keys == 31
    assert_tree_is_exact(engine, [b"ghost", b"b"], "dropped twice")


def test_a_page_of_a_scan_is_full_however_many_were_dropped(engine: Engine) -> None:
    """A page short of its limit means that nothing follows: dropped keys still on disk must not shorten one."""
    engine.submit(1, {b"k%04d" % i: held(b"v") for i in range(3_000)})
    turn = flush(engine, 1)
    engine.submit(turn + 1, {b"k%04d" % i: GONE for i in range(3_000) if i % 1_000 > 2})

    left = [b"k%04d" % i for i in range(3_000) if i % 1_000 <= 2]
    assert [row.key for row in engine.scan(b"", b"k", 4)] == left[:4]
    assert [row.key for row in engine.scan(left[3], b"k", 4)] == left[4:8]
    assert [row.key for row in engine.scan(left[7], b"k", 4)] == left[8:]
    assert list(engine.scan(left[8], b"k", 4)) == []


# ---- the hash tree -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_the_tree_is_what_all_records_give_after_any_history(engine: Engine, seed: int) -> None:
    """Random writes, rewrites, drops, in slots of their own and in one; compared on the way and at the end."""
    rng = random.Random(seed)
    names = [(b"k%d" if i % 2 else b"{tag}%d") % i for i in range(300)]
    for turn in range(1, 400):
        keys = rng.sample(names, rng.randrange(1, 9))
        value = rng.randbytes(rng.randrange(200))
        engine.submit(turn, {key: GONE if rng.random() < 0.25 else held(value, turn) for key in keys})
        if rng.random() < 0.3:
            engine.get(rng.choice(names))
        if rng.random() < 0.1:
            wait(engine, turn)
        if turn % 100 == 0:
            assert_tree_is_exact(engine, names, f"seed {seed}, turn {turn}")
    wait(engine, 399)
    assert_tree_is_exact(engine, names, f"seed {seed}, at the end")


def test_a_wrong_leaf_is_mended(engine: Engine) -> None:
    """Whatever made it wrong: `mend_leaf` adds it up again, and says whether that changed anything."""
    engine.submit(1, {b"a": held(b"1"), b"b": held(b"2")})
    assert not engine.mend_leaf(leaf_of(b"a"))

    engine.tree.change(b"a", b"", bytes(16))

    assert engine.mend_leaf(leaf_of(b"a"))
    assert not engine.mend_leaf(leaf_of(b"a"))
    assert_tree_is_exact(engine, [], "mended")


# ---- hints and facts ---------------------------------------------------------------------------

TO_N2: HintKey = (NodeId("n2"), b"city")


def test_a_fact_is_read_as_it_was_last_noted(engine: Engine) -> None:
    """At once, alone in its turn or beside writes; empty before the first, and once it is to be forgotten."""
    assert engine.fact("left") == b""
    engine.submit(1, {}, Aside({}, {"left": b"1", "right": b"2"}))
    engine.submit(2, {b"k": held(b"v")}, Aside({}, {"left": b"3"}))

    assert (engine.fact("left"), engine.fact("right")) == (b"3", b"2")
    engine.submit(3, {}, Aside({}, {"left": b""}))
    assert engine.fact("left") == b""
    wait(engine, 3)
    assert engine.fact("right") == b"2"


def test_a_new_store_has_no_hints_and_keeping_some_shows_in_no_read(engine: Engine) -> None:
    """A hint is somebody else's record: not a key of this node."""
    assert engine.hints() == {}

    engine.submit(1, {}, Aside({TO_N2: Hint(held(b"Porto"), 5)}, {}))
    wait(engine, 1)

    assert engine.get(b"city") is None
    assert everything(engine) == []
    assert engine.stats().keys == 0
    assert_tree_is_exact(engine, [b"city"], "a hint")


def test_the_callers_aside_stays_the_callers(engine: Engine) -> None:
    """As with writes: no engine changes what was handed over, also while turns share a commit."""
    asides = [Aside({(NodeId(f"n{n}"), b"k"): None}, {f"f{n}": b"%d" % n}) for n in range(4)]
    for turn, aside in enumerate(asides, 1):
        engine.submit(turn, {}, aside)
    wait(engine, 4)

    assert [list(aside.facts) for aside in asides] == [[f"f{n}"] for n in range(4)]
    assert [len(aside.hints) for aside in asides] == [1] * 4
