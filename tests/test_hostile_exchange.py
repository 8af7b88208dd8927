"""Absurd, late and repeated messages of anti-entropy, said to one node by hand; and links that break.

None ends in an assertion, or in an exchange that counts as done and is not. The last is the plain story
of two nodes; the first shows the manner.
"""

from __future__ import annotations

import msgspec
import pytest

from kvnode import config
from kvnode.config import Settings
from kvnode.core.exchanges import PREFIX_BYTES
from kvnode.core.merkle import FAN_OUT, LEAVES, Span, leaf_of, span_of
from kvnode.core.outbox import Unreadable
from kvnode.core.versions import Held
from kvnode.protocol import messages as m
from kvnode.protocol.ring import Partition, partition_of
from kvnode.protocol.types import NodeId
from tests.harness import (
    CLIENT,
    N1,
    N2,
    N3,
    N4,
    N5,
    WALL,
    DictStore,
    Hand,
    blob,
    one,
    record_of,
    to,
    version,
)
from tests.stories import FIVE, keys_of

LATER = WALL + 3_600_000

KEY = keys_of(N1, N5, N2)[0]
PARTITION = partition_of(KEY, FIVE.q)
ROOT = span_of(PARTITION, FIVE.q)


def begun(hand: Hand, peer: NodeId = N5) -> m.CompareTree:
    """Have n1 begin an exchange of KEY's partition; what it says first."""
    hand.background.clear()
    hand.say(CLIENT, m.RunRepair(1, PARTITION))
    hand.wait(config.TICK_MS)
    hand.commit()
    return next(ask for who, ask in hand.background if who == peer and isinstance(ask, m.CompareTree))


def finished(hand: Hand, peer: NodeId = N5) -> bool:
    """Whether an exchange of KEY's partition with this peer counts as done."""
    return (PARTITION, peer) in hand.node.exchanges.finished


def compared(ask: m.CompareTree, span: Span, byte: bytes = b"x") -> m.TreeCompared:
    """A peer whose parts of a span are all different."""
    return m.TreeCompared(
        ask.rid, ask.step, (m.Branches(span.start, span.size, byte * PREFIX_BYTES * len(span.parts())),)
    )


def agreed(ask: m.CompareTree) -> m.TreeCompared:
    """A peer with the same tree."""
    return m.TreeCompared(ask.rid, ask.step, ())


def down_to_keys(hand: Hand, ask: m.CompareTree, leaves: list[int]) -> m.CompareKeys:
    """Answer an exchange so that just these leaves differ, until it asks for their keys."""
    while True:
        differing = []
        for span in ask.spans:
            parts = Span(span.start, span.size).parts()
            tree = hand.store.tree
            hashes = [
                b"\xee" * PREFIX_BYTES
                if any(p.start <= leaf < p.start + p.size for leaf in leaves)
                else tree.hash(p)[:PREFIX_BYTES]
                for p in parts
            ]
            differing.append(m.Branches(span.start, span.size, b"".join(hashes)))
        hand.background.clear()
        sent = hand.say(N5, m.TreeCompared(ask.rid, ask.step, tuple(differing)))
        keys = [message for who, message in sent if who == N5 and isinstance(message, m.CompareKeys)]
        if keys:
            return keys[0]
        ask = next(message for who, message in hand.background if who == N5 and isinstance(message, m.CompareTree))


# ---- exchanges: what the other side asks -------------------------------------------------------


SPANS = {
    "before": (ROOT.start - FAN_OUT, FAN_OUT),
    "after": (ROOT.start + ROOT.size, FAN_OUT),
    "too long": (ROOT.start, ROOT.size + 1),
    "across the end": (ROOT.start + ROOT.size - 8, FAN_OUT),
    "a leaf": (ROOT.start, 1),
    "all": (0, LEAVES),
    "beyond all": (LEAVES, 16),
    "beyond 64 bits": ((1 << 64) - 1, (1 << 64) - 1),
}


@pytest.mark.parametrize("name", SPANS)
def test_a_span_outside_the_partition_is_not_looked_at(name: str) -> None:
    """n5 asks for hashes of what it has no business with, or of what there is not."""
    hand = Hand(FIVE)
    start, size = SPANS[name]
    assert not hand.say(N5, m.CompareTree(1, 1, 1, PARTITION, (m.SpanHash(start, size, b""),)))
    assert hand.counters["ignored_exchange_span"] == 1


@pytest.mark.parametrize("size", [2, 15, 17, 33, 47, 63, 65, 100, 1_000, 65_535])
def test_a_span_of_an_odd_size_stops_no_node(size: int) -> None:
    """At the end of the last partition, but of a size that no tree of ours is cut into."""
    hand = Hand(FIVE, me=N2)  # n2 and n4 own the last partition
    hand.say(N4, m.CompareTree(1, 1, 1, FIVE.q - 1, (m.SpanHash(LEAVES - size, size, b"x"),)))


def test_an_answer_with_a_span_of_an_odd_size_stops_no_node() -> None:
    """The same, told to the side that began."""
    hand = Hand(FIVE, me=N2)
    hand.say(CLIENT, m.RunRepair(1, FIVE.q - 1))
    hand.wait(config.TICK_MS)
    hand.commit()
    ask = next(ask for who, ask in hand.background if who == N4 and isinstance(ask, m.CompareTree))
    size = 33
    hand.say(N4, compared(ask, Span(LEAVES - size, size)))


@pytest.mark.parametrize("partition", [FIVE.q, 1 << 40, 0])
def test_a_partition_that_is_not_ours_together_is_refused(partition: int) -> None:
    """There is no such partition, or n1 does not own it."""
    hand = Hand(FIVE)
    assert N1 not in FIVE.owner_ids(Partition(0))
    for ask in (m.CompareTree(1, 1, 1, partition, ()), m.CompareKeys(1, 1, 1, partition, (), ())):
        assert "not one of ours" in one(N5, hand.say(N5, ask), m.ReplicaRefused).reason


def test_keys_of_another_partition_are_not_told() -> None:
    """n5 names leaves of a partition that it does not own, with one that it does."""
    hand = Hand(FIVE)
    secret = keys_of(N2, N1, N5)[0] if keys_of(N2, N1, N5) else KEY
    foreign = keys_of(N1, N4, N3)[0]
    hand.keep(secret, record_of(version(1, 0)))
    hand.keep(foreign, record_of(version(1, 0)))
    sent = hand.say(N5, m.CompareKeys(1, 1, 1, PARTITION, ((leaf_of(foreign), 1),), ()))
    assert not any(
        row.key == foreign
        for message in to(N5, sent)
        if isinstance(message, m.KeysCompared)
        for row in message.rows
    )


def test_leaves_that_are_not_there_are_empty() -> None:
    """Beyond the last leaf, and the same one a thousand times."""
    hand = Hand(FIVE)
    hand.keep(KEY, record_of(version(1, 0)))
    here = leaf_of(KEY)
    spans = ((LEAVES, 1), (1 << 63, 1), (here, 1 << 40), (here, 0), *[(here, 1)] * 1_000)
    told = [x for span in spans for x in to(N5, hand.say(N5, m.CompareKeys(1, 1, 1, PARTITION, (span,), ())))]
    assert len(told) == 1_000
    told = to(N5, hand.say(N5, m.CompareKeys(1, 1, 1, PARTITION, spans[4:], ())))
    assert len(msgspec.msgpack.encode(told)) < 2 * config.EXCHANGE_BYTES_TARGET


def test_an_end_of_an_exchange_that_never_began_counts_for_nothing() -> None:
    """n5 says it is done, before, instead of and after an exchange; only one of them was."""
    hand = Hand(FIVE)
    hand.say(N5, m.ExchangeDone(7, 1, PARTITION), m.ExchangeDone(7, 1, 1 << 40))
    assert not finished(hand)
    hand.say(N5, m.CompareTree(7, 1, 1, PARTITION, (m.SpanHash(ROOT.start, ROOT.size, bytes(16)),)))
    hand.say(N5, m.ExchangeDone(8, 1, PARTITION))
    assert not finished(hand)
    hand.say(N5, m.ExchangeDone(7, 1, PARTITION))
    assert finished(hand)


def test_an_end_of_an_exchange_with_the_number_nought_stops_no_node() -> None:
    """A request id is any number from 0 on."""
    hand = Hand(FIVE)
    hand.say(N5, m.ExchangeDone(0, 1, PARTITION))
    assert not finished(hand)


# ---- exchanges: what the other side answers ----------------------------------------------------


def test_an_exchange_with_a_record_that_cannot_be_taken_in_is_not_done() -> None:
    """What the other side held when it began, we do not hold: reaping and recovery must not count on it."""
    hand = Hand(FIVE)
    ask = down_to_keys(hand, begun(hand), [leaf_of(KEY)])
    hand.say(N5, m.KeysCompared(ask.rid, ask.step, (m.Row(KEY, b"\xc1"),), ()))
    hand.commit()
    assert not finished(hand)


@pytest.mark.parametrize("length", [0, 7, 8 * FAN_OUT - 1, 8 * FAN_OUT + 8, 256])
def test_an_answer_with_hashes_of_a_wrong_length_ends_the_exchange_and_the_next_one_works(length: int) -> None:
    """Sixteen parts of eight bytes each, no more and no less."""
    hand = Hand(FIVE)
    ask = begun(hand)
    hand.say(N5, m.TreeCompared(ask.rid, ask.step, (m.Branches(ROOT.start, ROOT.size, b"x" * length),)))
    assert hand.node.exchanges.totals.failed == 1
    assert not finished(hand)

    hand.say(N5, agreed(begun(hand)))
    hand.commit()
    assert finished(hand)


@pytest.mark.parametrize("name", SPANS)
def test_an_answer_about_a_span_outside_the_partition_ends_the_exchange(name: str) -> None:
    """What was not asked, or is not there."""
    if name == "a leaf":
        return  # within the partition: harmless, see the test of odd answers
    hand = Hand(FIVE)
    hand.say(N5, compared(begun(hand), Span(*SPANS[name])))
    assert hand.node.exchanges.totals.failed == 1


def test_answers_to_exchanges_that_never_began_are_ignored() -> None:
    """Whatever id they name: made up, of a request of another kind, or of an exchange with another peer."""
    hand = Hand(FIVE)
    ask = begun(hand, N5)
    for rid in (0, 1, ask.rid + 100, (1 << 64) - 1):
        hand.say(
            N5,
            m.TreeCompared(rid, ask.step, ()),
            m.KeysCompared(rid, ask.step, (m.Row(KEY, blob(version(1, 0))),), (KEY,)),
        )
    hand.say(
        N4,
        m.TreeCompared(ask.rid, ask.step, ()),
        m.KeysCompared(ask.rid, ask.step, (m.Row(KEY, blob(version(1, 0))),), ()),
    )
    assert not finished(hand)
    assert not hand.store.rows
    assert hand.counters["ignored_exchange"] == 10


def test_rows_of_another_partition_are_not_taken_in() -> None:
    """n5 slips in a record of a key that this partition does not have, and asks for one."""
    hand = Hand(FIVE)
    foreign = keys_of(N1, N4, N3)[0]
    mine = keys_of(N1, N4, N3, count=2)[1]
    hand.keep(mine, record_of(version(1, 0)))
    ask = down_to_keys(hand, begun(hand), [leaf_of(KEY)])
    sent = hand.say(N5, m.KeysCompared(ask.rid, ask.step, (m.Row(foreign, blob(version(1, 0))),), (mine,)))
    assert hand.holds(foreign) == ()
    assert not any(isinstance(message, m.WriteReplica) for message in to(N5, sent))


LEAVES_LEFT = 2_048
"""More than are compared in one message."""


@pytest.mark.parametrize("late", ["the same answer again", "an answer to an earlier step"])
def test_an_answer_that_comes_twice_does_not_end_an_exchange_early(late: str) -> None:
    """Two messages' worth of leaves differ. The first answer comes twice, while the second is awaited:
    what only the second would have brought is not here, so the exchange must not be done."""
    hand = Hand(FIVE)
    ask = down_to_keys(hand, begun(hand), list(range(ROOT.start, ROOT.start + LEAVES_LEFT)))
    assert sum(size for _, size in ask.spans) < LEAVES_LEFT
    first = m.KeysCompared(ask.rid, ask.step, (), ())
    second = next(x for x in to(N5, hand.say(N5, first)) if isinstance(x, m.CompareKeys))
    hand.say(N5, first if late == "the same answer again" else m.TreeCompared(ask.rid, ask.step, ()))
    hand.commit()
    assert not finished(hand)

    hand.say(N5, m.KeysCompared(second.rid, second.step, (m.Row(KEY, blob(version(1, 0))),), ()))
    hand.commit()
    assert finished(hand)
    assert hand.holds(KEY)


def test_answers_that_were_not_asked_for_do_not_pile_up() -> None:
    """n5 answers one question a hundred times: the exchange remembers what there is to compare once."""
    hand = Hand(FIVE)
    ask = begun(hand)
    for _ in range(100):
        hand.say(N5, compared(ask, ROOT))
    exchange = next(iter(hand.node.rounds.view().active))
    assert exchange.nodes_compared <= 2 * FAN_OUT


# ---- exchanges: cut at every step --------------------------------------------------------------


class Pair:
    """Two nodes by hand, and what is on its way between them."""

    def __init__(self) -> None:
        self.hands = {N1: Hand(FIVE, N1, seed=1), N5: Hand(FIVE, N5, seed=5)}

    def exchange(self, steps: int) -> int:
        """An exchange that n1 begins; after so many messages the link breaks. How many there were."""
        one_side, other = self.hands[N1], self.hands[N5]
        one_side.background.clear()
        one_side.lose(N2)  # the third owner would have its turn first
        one_side.say(CLIENT, m.RunRepair(1, PARTITION))
        one_side.wait(config.TICK_MS)
        one_side.commit()
        mail = self._mail(N1, [])
        passed = 0
        while mail and passed < steps:
            sender, to_, message = mail.pop(0)
            passed += 1
            mail += self._mail(to_, self.hands[to_].say(sender, message))
        if mail:
            one_side.lose(N5)
            other.lose(N1)
        for hand in self.hands.values():
            hand.commit()
            hand.wait(config.EXCHANGE_STEP_MS + 1_000)
        return passed

    def _mail(
        self, sender: NodeId, sent: list[tuple[NodeId | bytes, m.Message]]
    ) -> list[tuple[NodeId, NodeId, m.Message]]:
        hand = self.hands[sender]
        asked = [
            (who, x) for who, x in hand.background if isinstance(x, m.CompareTree) and x.partition == PARTITION
        ]
        everything = [*sent, *asked]
        hand.background.clear()
        return [(sender, NodeId(str(who)), message) for who, message in everything if who in self.hands]


def differing(pair: Pair) -> set[bytes]:
    """One key only n1 has, one only n5 has, one each has another version of, one both have."""
    a, b, c, d = keys_of(N1, N5, N2, count=4)
    for node, key, actor in ((N1, a, 1), (N5, b, 2), (N1, c, 3), (N5, c, 4), (N1, d, 5), (N5, d, 5)):
        pair.hands[node].keep(key, record_of(version(actor, 0)))
    return {a, b, c, d}


def test_an_exchange_cut_after_any_message_loses_nothing_and_the_next_one_heals() -> None:
    """The link breaks after the first message, the second, and so on; never does it count as done on a
    side that lacks something, and the next exchange brings the rest."""
    whole = Pair()
    differing(whole)
    count = whole.exchange(10_000)
    assert count > 8

    for steps in range(count):
        pair = Pair()
        keys = differing(pair)
        pair.exchange(steps)
        one_side, other = pair.hands[N1], pair.hands[N5]
        same = all(one_side.holds(key) == other.holds(key) for key in keys)
        assert same or not (finished(one_side) or finished(other, N1)), f"cut after {steps} messages"
        assert all(one_side.holds(key) or other.holds(key) for key in keys)

        pair.exchange(10_000)
        assert all(one_side.holds(key) == other.holds(key) != () for key in keys), f"cut after {steps} messages"
        assert finished(one_side)
        assert finished(other, N1)
        assert pair.exchange(10_000) == 3, "then it is quiet: asked, answered, done"


class Broken(DictStore):
    """A disk on which the keys of no leaf can be told."""

    def leaf(self, leaf: int) -> list[tuple[bytes, Held | None]]:
        raise Unreadable


def test_a_leaf_whose_keys_cannot_be_read_ends_the_exchange_and_stops_no_node() -> None:
    """On the side that begins, on the other side, and under the scrubber."""
    hand = Hand(FIVE, store=Broken(), settings=Settings(scrub_interval_ms=1_000))
    hand.keep(KEY, record_of(version(1, 0)))
    told = hand.say(N5, m.CompareKeys(1, 1, 1, PARTITION, ((leaf_of(KEY), 1),), ()))
    assert one(N5, told, m.ReplicaRefused).reason == "unreadable"
    ask = begun(hand)
    with pytest.raises(StopIteration):
        down_to_keys(hand, ask, [leaf_of(KEY)])
    assert hand.node.exchanges.totals.failed == 1
    hand.wait(60_000)
    assert hand.counters["unreadable_leaves"] > 0
