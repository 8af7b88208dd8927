"""The outbox: what a turn owes the world, and reading through what is not durable yet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvnode import config
from kvnode.core.outbox import Outbox, Stored
from kvnode.core.versions import Held, held_of
from kvnode.protocol.messages import ReplicaSame
from tests.harness import CLIENT, N2, DictStore, version

LAWS = settings(max_examples=150, deadline=None, print_blob=True)


def held(number: int, size: int = 1) -> Held:
    """The `number`th thing held of some key."""
    return held_of((version(1, number, value=b"v" * size),))


def test_a_turn_hands_out_sends_writes_and_acks_and_begins_the_next() -> None:
    """The contract with the shell: sends leave, writes are committed, acks leave."""
    outbox = Outbox(DictStore())
    outbox.send(N2, ReplicaSame(1))
    outbox.ack(CLIENT, ReplicaSame(2))
    outbox.send(N2, ReplicaSame(3))
    outbox.ack(CLIENT, ReplicaSame(4))
    outbox.write(b"k", held(1))

    turn = outbox.take()

    assert turn.number == 1
    assert turn.sends == {N2: [ReplicaSame(1), ReplicaSame(3)]}
    assert turn.acks == {CLIENT: [ReplicaSame(2), ReplicaSame(4)]}
    assert turn.writes == {b"k": held(1)}
    assert turn
    empty = outbox.take()
    assert empty.number == 2
    assert not empty


def test_a_read_sees_the_writes_of_its_turn_and_says_that_they_are_volatile() -> None:
    """Two puts of one key in one turn: the second must see the first (PROTOCOL-CASES 1)."""
    store = DictStore()
    store.rows[b"k"] = held(1)
    outbox = Outbox(store)
    assert (outbox.read(b"k"), outbox.volatile) == (held(1), False)
    outbox.write(b"k", held(2))
    assert (outbox.read(b"k"), outbox.volatile) == (held(2), True)
    assert (outbox.read(b"other"), outbox.volatile) == (None, False)


def test_a_read_sees_the_newest_of_the_turns_still_being_committed() -> None:
    """Two turns may be in the disk's hands; what they wrote is visible, and volatile until durable."""
    store = DictStore()
    outbox = Outbox(store)
    for number in (1, 2):
        outbox.write(b"k", held(number))
        outbox.write(b"k%d" % number, held(number))
        assert outbox.take().number == number

    assert (outbox.read(b"k"), outbox.volatile) == (held(2), True)
    assert (outbox.read(b"k1"), outbox.volatile) == (held(1), True)

    store.apply({b"k": held(1), b"k1": held(1)})
    outbox.committed(1)
    assert (outbox.read(b"k1"), outbox.volatile) == (held(1), False)
    assert (outbox.read(b"k"), outbox.volatile) == (held(2), True)

    store.apply({b"k": held(2), b"k2": held(2)})
    outbox.committed(2)
    assert (outbox.read(b"k"), outbox.volatile) == (held(2), False)


def test_a_reply_that_shows_what_is_not_durable_is_an_ack() -> None:
    """Replica merges v, answers a read, crashes: nobody may have counted it (PROTOCOL-CASES 18)."""
    outbox = Outbox(DictStore())
    outbox.reply(CLIENT, ReplicaSame(1), volatile=True)
    outbox.reply(CLIENT, ReplicaSame(2), volatile=False)
    turn = outbox.take()
    assert turn.acks == {CLIENT: [ReplicaSame(1)]}
    assert turn.sends == {CLIENT: [ReplicaSame(2)]}


_keys = st.sampled_from([b"a", b"b", b"c", b"ca", b"cb", b"d", b"e"])
_layers = st.lists(st.sets(_keys), min_size=3, max_size=3)


@given(_layers, _keys | st.just(b""), st.sampled_from([b"", b"c", b"zz"]), st.integers(1, 8))
@LAWS
def test_a_scan_sees_one_store_whatever_is_durable(
    layers: list[set[bytes]], after: bytes, prefix: bytes, limit: int
) -> None:
    """Rows on disk, rows being committed and rows of this turn: in byte order, the newest of each key."""
    store = DictStore()
    outbox = Outbox(store)
    store.apply({key: held(1) for key in layers[0]})
    for key in layers[1]:
        outbox.write(key, held(2))
    outbox.take()
    for key in layers[2]:
        outbox.write(key, held(3))

    rows, more = outbox.scan(after, prefix, limit)

    truth = {k: held(1) for k in layers[0]} | {k: held(2) for k in layers[1]} | {k: held(3) for k in layers[2]}
    wanted = [(k, truth[k].blob) for k in sorted(truth) if k > after and k.startswith(prefix)]
    assert [(row.key, row.record) for row in rows] == wanted[:limit]
    assert more or len(wanted) == len(rows)
    assert outbox.volatile == any(k > after and k.startswith(prefix) for k in layers[1] | layers[2])


def test_a_page_is_cut_at_its_bytes_and_says_that_there_is_more() -> None:
    """A thousand megabyte values must not become one frame; but one row always fits."""
    store = DictStore()
    big = config.SCAN_PAGE_BYTES_MAX // 2
    store.apply({b"a": held(1, big), b"b": held(1, big), b"c": held(1, 3 * big), b"d": held(1)})
    outbox = Outbox(store)
    pages = []
    after = b""
    while True:
        rows, more = outbox.scan(after, b"", 100)
        pages.append([row.key for row in rows])
        if not more:
            break
        after = rows[-1].key
    assert pages == [[b"a"], [b"b"], [b"c"], [b"d"]]


@pytest.mark.parametrize("fresh", [(), (b"0", b"k003x"), (b"k000",)])
def test_a_page_reads_little_more_than_it_shows(fresh: tuple[bytes, ...]) -> None:
    """A page of large values is full long before `limit` keys are in it: reading them all would hold the turn."""
    taken: list[bytes] = []

    class Counting(DictStore):
        def scan(self, after: bytes, prefix: bytes, limit: int) -> Iterator[Stored]:
            for row in super().scan(after, prefix, limit):
                taken.append(row.key)
                yield row

    store = Counting()
    store.apply({b"k%03d" % i: held(1, config.SCAN_PAGE_BYTES_MAX // 10) for i in range(200)})
    outbox = Outbox(store)
    for key in fresh:
        outbox.write(key, held(2))

    rows, more = outbox.scan(b"", b"", 200)

    assert more and len(rows) in (9, 10, 11)
    assert len(taken) <= len(rows) + 2
