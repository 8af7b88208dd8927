"""Damaged records, and floods of hints, said to one node by hand.

Each ends in a refusal, or in nothing; never in an assertion, or a bad record on disk. The first is the
example.
"""

from __future__ import annotations

import pytest

from kvnode import config
from kvnode.config import Settings
from kvnode.core.hints import FULL
from kvnode.protocol import messages as m
from kvnode.protocol.types import NodeId, Version, decode_record, encode_record
from tests.harness import (
    CLIENT,
    N1,
    N2,
    N3,
    N4,
    N5,
    WALL,
    Hand,
    blob,
    get,
    one,
    to,
    values,
    version,
)
from tests.stories import FIVE, keys_of

LATER = WALL + 3_600_000
MALFORMED = (
    b"",
    b"\xc1",
    b"\xff" * 20,
    blob(version(1, 0))[:-1],
    blob(version(1, 0)) + b"\0",
    b"\xdd\xff\xff\xff\xff",
)
KEY = keys_of(N1, N5, N2)[0]


# ---- records -----------------------------------------------------------------------------------


@pytest.mark.parametrize("record", MALFORMED)
def test_a_malformed_record_is_refused_wherever_it_comes_from(record: bytes) -> None:
    """As a write, as a hint, as an answer of a read: counted, and not kept."""
    hand = Hand(FIVE)
    other = keys_of(N2, N4, N3)[0]
    read = next(x for _, x in hand.say(CLIENT, get(KEY, r=2)) if isinstance(x, m.ReadReplica))
    sent = hand.hear(N2, m.WriteReplica(1, 1, KEY, record, LATER))
    assert one(N2, sent, m.ReplicaRefused).reason == "malformed record"
    sent = hand.hear(N2, m.KeepHint(2, 1, N4, other, record, LATER))
    assert one(N2, sent, m.ReplicaRefused).reason == "malformed record"

    for peer in (N2, N5):
        hand.say(peer, m.ReplicaRead(read.rid, record or b"\0"))
    assert hand.counters["malformed_records"] >= 3
    assert not hand.store.rows
    assert not hand.store.kept


def test_a_merge_never_makes_a_record_that_cannot_be_read_back() -> None:
    """Two halves of the most versions a decoder takes, and one more: refused, or pruned, or kept readable."""
    half = config.SIBLINGS_CAP // 2 + 1
    first, second = (tuple(Version(actor + at, 1 << 40, {}, b"v") for actor in range(half)) for at in (1, 10_000))
    hand = Hand()
    for record in (first, second):
        hand.say(N2, m.WriteReplica(1, 1, b"k", encode_record(record), LATER))
    assert decode_record(hand.store.rows[b"k"].blob)


def test_versions_that_bury_each_other_stop_no_node() -> None:
    """Forged: each of three covers the others' dots, so none is left. The node goes on: reads, takes the next
    write, deletes, and scans."""
    hand = Hand()
    dots = {1: 5 << 16, 2: 5 << 16, 3: 5 << 16}
    circle = [Version(actor, time, dots, b"v") for actor, time in dots.items()]
    hand.say(N2, m.WriteReplica(1, 1, b"k", encode_record(tuple(circle[:2])), LATER))
    hand.say(N2, m.WriteReplica(2, 1, b"k", encode_record(tuple(circle[2:])), LATER))
    assert hand.holds(b"k") == ()
    assert values(one(CLIENT, hand.say(CLIENT, get(b"k", r=1)), m.Got).record) == []
    hand.say(CLIENT, m.Scan(1, b"", b"", 10, 1, 1_000))
    hand.wait(config.TICK_MS)
    hand.say(N2, m.WriteReplica(3, 1, b"k", blob(version(4, 0)), LATER))
    assert values(hand.holds(b"k")) == [b"v"]


# ---- hints -------------------------------------------------------------------------------------


def test_a_flood_of_hints_is_bounded_refused_by_name_and_costs_no_hint_that_was_acknowledged() -> None:
    """n2 never comes back; a thousand hints for it come to a node with room for about twenty."""
    hand = Hand(FIVE, settings=Settings(hint_bytes=8_000))
    keys = keys_of(N2, N4, N3, count=300)
    acked = []
    for rid, key in enumerate(keys, 1):
        answer = to(N3, hand.say(N3, m.KeepHint(rid, 1, N2, key, blob(version(rid, 0)), LATER)))[0]
        if isinstance(answer, m.HintKept):
            acked.append(key)
        else:
            assert answer == m.ReplicaRefused(rid, FULL)
    assert 15 < len(acked) < 30
    assert hand.node.hints.kept.bytes <= 8_000
    assert {key for _, key in hand.store.kept} == set(acked)
    assert hand.counters["hints_missed"] == len(keys) - len(acked)


def test_a_flood_of_hints_for_one_key_is_bounded_too() -> None:
    """Each is a sibling of the last: the one record they merge into grows without end."""
    hand = Hand(FIVE, settings=Settings(hint_bytes=8_000))
    key = keys_of(N2, N4, N3)[0]
    for actor in range(1, 300):
        hand.say(N3, m.KeepHint(actor, 1, N2, key, blob(version(actor, actor, value=b"v" * 100)), LATER))
    assert hand.node.hints.kept.bytes <= 8_000


@pytest.mark.parametrize("owner", ["n1", "n9", ""])
def test_a_hint_for_this_node_itself_or_for_a_stranger_is_refused(owner: str) -> None:
    """There is nobody to bring it to."""
    hand = Hand(FIVE)
    sent = hand.say(N3, m.KeepHint(1, 1, NodeId(owner), KEY, blob(version(1, 0)), LATER))
    assert "no hint can be kept" in one(N3, sent, m.ReplicaRefused).reason
    assert not hand.store.kept


def test_a_hint_after_its_deadline_is_refused() -> None:
    """Held up on its way for so long that the delete which covers it may be gone."""
    hand = Hand(FIVE)
    sent = hand.say(N3, m.KeepHint(1, 1, N2, keys_of(N2, N4, N3)[0], blob(version(1, 0)), WALL - 1))
    assert "deadline" in one(N3, sent, m.ReplicaRefused).reason


def test_an_owner_that_kept_a_hint_for_another_one_has_its_content_before_it_drops_it() -> None:
    """Acknowledged hints go only after an owner holds them: this node is an owner, and holds nothing yet."""
    hand = Hand(FIVE, settings=Settings(hint_age_ms=1_000))
    hand.say(N2, m.KeepHint(1, 1, N5, KEY, blob(version(1, 0)), LATER))
    assert hand.store.kept
    for _ in range(5):
        hand.lose(N5)
        hand.wait(1_000)
        hand.commit()
    assert hand.store.kept or values(hand.holds(KEY)) == [b"v"]


def test_a_delivery_that_is_acknowledged_by_another_node_or_of_another_record_drops_no_hint() -> None:
    """n4 says "written" of what was sent to n2; and more came for the key while it was on its way."""
    hand = Hand(FIVE)
    key = keys_of(N2, N4, N3)[0]
    rid = one(N2, hand.say(N3, m.KeepHint(1, 1, N2, key, blob(version(1, 0)), LATER))[:1], m.WriteReplica).rid
    hand.say(N4, m.ReplicaWritten(rid), m.HintKept(rid))
    assert hand.store.kept
    hand.say(N3, m.KeepHint(2, 1, N2, key, blob(version(2, 1)), LATER))
    hand.say(N2, m.ReplicaWritten(rid), m.ReplicaWritten(rid))
    assert len(hand.store.kept[N2, key].held.record()) == 2

    again = one(N2, hand.wait(100), m.WriteReplica)
    hand.say(N2, m.ReplicaWritten(rid), m.ReplicaWritten(again.rid))
    assert not hand.store.kept


def test_a_hint_that_would_merge_into_more_than_a_record_can_be_is_refused() -> None:
    """Two readable hints for one key: the second is malformed together with the first, and stops no node."""
    hand = Hand(FIVE)
    half = config.SIBLINGS_CAP // 2 + 1
    for first in (0, half):
        record = blob(*(version(1_000 + i, i) for i in range(first, first + half)))
        sent = hand.say(N5, m.KeepHint(1 + first, 1, N2, KEY, record, LATER))
    assert isinstance(one(N5, sent, m.ReplicaRefused), m.ReplicaRefused)
    assert hand.counters["malformed_records"] == 1
