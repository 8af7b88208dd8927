"""The coordinator's reads: who is asked, who is waited for, and what r, w and modes mean."""

from __future__ import annotations

from unittest.mock import patch

import pytest
from msgspec.structs import replace

from kvnode import config
from kvnode.core.quorum import PutQuorum, Quorum
from kvnode.core.rules import needed_r, needed_w
from kvnode.protocol import messages as m
from kvnode.protocol.types import ALL, EVENTUAL, MAJORITY, QUORUM, NodeId
from tests.harness import (
    CLIENT,
    N2,
    N3,
    Hand,
    blob,
    get,
    one,
    put,
    to,
    values,
    version,
)
from tests.test_coordinator import KEY, OLD, OTHER, ask, peers

# ---- gets --------------------------------------------------------------------------------------


def test_a_get_answers_with_the_merge_of_r_owners() -> None:
    """R = 2: this node's copy and one peer's; what differs comes back as siblings."""
    hand = Hand()
    hand.keep(KEY, (OLD,))
    rid, question = ask(hand, get())
    assert question.digest == hand.store.rows[KEY].digest
    got = one(CLIENT, hand.hear(peers(hand)[0], m.ReplicaRead(rid, blob(OTHER))), m.Got)
    assert values(got.record) == [b"old", b"other"]


def test_a_replica_that_agrees_says_so_without_the_record() -> None:
    """One round trip either way, and small when nothing differs."""
    hand = Hand()
    hand.keep(KEY, (OLD,))
    rid, _ = ask(hand, get())
    assert values(one(CLIENT, hand.hear(peers(hand)[0], m.ReplicaSame(rid)), m.Got).record) == [b"old"]


def test_a_newer_copy_replaces_an_older_one() -> None:
    """A stale replica here does not make a stale answer."""
    newer = version(6, -1_000, {OLD.actor: OLD.time}, b"newer")
    hand = Hand()
    hand.keep(KEY, (OLD,))
    rid, _ = ask(hand, get())
    assert values(one(CLIENT, hand.hear(peers(hand)[0], m.ReplicaRead(rid, blob(newer))), m.Got).record) == [
        b"newer"
    ]


def test_absent_everywhere_is_an_empty_record_not_an_error() -> None:
    """`NotFound` is the client's word for it."""
    hand = Hand()
    rid, question = ask(hand, get())
    assert question.digest == b""
    assert one(CLIENT, hand.hear(peers(hand)[0], m.ReplicaSame(rid)), m.Got).record == b""


def test_r_of_one_is_answered_from_the_own_copy_and_asks_nobody() -> None:
    """The fastest read there is."""
    hand = Hand()
    hand.keep(KEY, (OLD,))
    sent = hand.hear(CLIENT, get(r=1))
    assert values(one(CLIENT, sent, m.Got).record) == [b"old"]
    assert len(sent) == 1


def test_a_read_of_what_is_not_durable_yet_is_an_ack() -> None:
    """Seen and then lost would be worse than late (PROTOCOL-CASES 18)."""
    hand = Hand()
    sent = hand.hear(CLIENT, put(value=b"new"), get(r=1))
    assert to(CLIENT, sent) == []
    assert values(one(CLIENT, hand.commit(), m.Got).record) == [b"new"]


def test_a_read_asks_r_owners_first_and_the_others_when_those_are_slow() -> None:
    """Two round trips of work for a read, not three; a slow peer costs 15 ms, not the deadline."""
    hand = Hand()
    first, second = peers(hand)
    sent = hand.hear(CLIENT, get())
    rid = one(first, sent, m.ReadReplica).rid
    assert to(second, sent) == []
    assert hand.node.timed and hand.node.busy

    assert one(second, hand.wait(config.HEDGE_MS), m.ReadReplica).rid == rid
    assert one(CLIENT, hand.hear(second, m.ReplicaSame(rid)), m.Got)
    assert hand.counters["hedged"] == 1
    assert hand.wait(config.HEDGE_MS * 2) == []
    assert hand.hear(first, m.ReplicaSame(rid)) == []


def test_a_read_answered_in_time_is_not_hedged() -> None:
    """No second question once there is an answer."""
    hand = Hand()
    rid, _ = ask(hand, get())
    hand.hear(peers(hand)[0], m.ReplicaSame(rid))
    assert hand.wait(config.HEDGE_MS) == []
    assert "hedged" not in hand.counters
    rid = one(N2, hand.hear(CLIENT, get(r=ALL)), m.ReadReplica).rid
    assert one(CLIENT, hand.hear(N2, m.ReplicaRefused(rid, "no")), m.Failed)
    assert hand.wait(config.HEDGE_MS) == []
    assert "hedged" not in hand.counters, "nor one that has failed"


def test_an_owner_that_refuses_a_read_is_replaced_by_another_at_once() -> None:
    """And so is one whose record cannot be read."""
    for answer in (m.ReplicaRefused(0, "unreadable"), m.ReplicaRead(0, b"\xc1")):
        hand = Hand()
        first, second = peers(hand)
        rid, _ = ask(hand, get())
        sent = hand.hear(first, replace(answer, rid=rid))
        assert one(second, sent, m.ReadReplica).rid == rid
        failed = one(CLIENT, hand.lose(second), m.Failed)
        assert (failed.error, failed.maybe_applied, failed.acked, failed.need) == (
            m.Error.UNAVAILABLE,
            False,
            1,
            2,
        )
        assert failed.message.startswith("r=2 cannot be met")


def test_an_unreachable_owner_is_replaced_by_another_at_once() -> None:
    """Before the hedge, and without waiting for the lost one."""
    hand = Hand()
    first, second = peers(hand)
    ask(hand, get())
    assert one(second, hand.lose(first), m.ReadReplica)


def test_owners_known_to_be_out_are_not_asked_to_read() -> None:
    """The first reachable ones are; and with too few of them the answer is at once."""
    hand = Hand()
    first, second = peers(hand)
    hand.lose(first)
    assert one(second, hand.hear(CLIENT, get()), m.ReadReplica)
    failed = one(CLIENT, hand.hear(CLIENT, get(r=ALL)), m.Failed)
    assert failed.error == m.Error.UNAVAILABLE and first in failed.message


def test_an_owner_counts_once_toward_r_and_unasked_ones_do_not() -> None:
    """Repeats, and answers to questions that were not put."""
    hand = Hand()
    first, second = peers(hand)
    rid = one(first, hand.hear(CLIENT, get(r=ALL)), m.ReadReplica).rid
    assert hand.hear(first, m.ReplicaSame(rid), m.ReplicaSame(rid), m.ReplicaRead(rid, blob(OLD))) == []
    assert values(one(CLIENT, hand.hear(second, m.ReplicaRead(rid, b"")), m.Got).record) == []

    rid, _ = ask(hand, get())
    assert hand.hear(second, m.ReplicaSame(rid)) == []


def test_a_get_past_its_deadline_fails_and_names_the_owners_that_were_silent() -> None:
    """Outcome unknown, nothing applied; who was asked and silent is avoided from now on."""
    hand = Hand()
    ask(hand, get())
    hand.wait(config.HEDGE_MS)
    failed = one(CLIENT, hand.wait(1_050), m.Failed)
    assert (failed.error, failed.maybe_applied, failed.acked) == (m.Error.INDETERMINATE, False, 1)
    assert set(hand.local.peers.avoided) == {N2, N3}
    assert not hand.node.busy


# ---- r, w and modes ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "owners", "need"),
    [(0, 3, 2), (MAJORITY, 3, 2), (MAJORITY, 4, 3), (ALL, 3, 3), (1, 3, 1), (3, 3, 3), (0, 1, 1), (0, 2, 2)],
)
def test_r_and_w_mean_owners_there_are(asked: int, owners: int, need: int) -> None:
    """Default and `quorum` are a majority, `all` is all, of the owners this key has."""
    assert needed_r(asked, EVENTUAL, owners) == (need, "")
    assert needed_w(asked, EVENTUAL, owners) == (need, "")


@pytest.mark.parametrize("asked", [4, 99, -3, 2**40])
def test_numbers_of_replicas_that_cannot_be_are_invalid(asked: int) -> None:
    """Nothing is silently clamped."""
    hand = Hand()
    for question in (get(r=asked), put(w=asked)):
        failed = one(CLIENT, hand.say(CLIENT, question), m.Failed)
        assert failed.error == m.Error.INVALID
        assert "3 owners" in failed.message
    assert hand.holds(KEY) == ()


@pytest.mark.parametrize("owners", range(1, 8))
def test_mode_quorum_refuses_numbers_whose_reads_and_writes_need_not_overlap(owners: int) -> None:
    """Any r and w it accepts overlap, and two writes overlap: R+W > N and W a majority (PROTOCOL-CASES 15)."""
    rs = [r for r in range(1, owners + 1) if not needed_r(r, QUORUM, owners)[1]]
    ws = [w for w in range(1, owners + 1) if not needed_w(w, QUORUM, owners)[1]]
    assert rs and ws
    assert min(rs) + min(ws) > owners
    assert 2 * min(ws) > owners
    assert "majority" in needed_w(1, QUORUM, 3)[1] and "overlap" in needed_r(1, QUORUM, 3)[1]


def test_a_quorum_is_enough_hopeless_or_waiting() -> None:
    """The three ways it can stand, and that enough stays enough."""
    quorum = PutQuorum(CLIENT, 1, KEY, (N2, N3), 2, 0, 0.0, asked=0b111, version=OLD, record=b"")
    assert not (quorum.enough or quorum.hopeless or quorum.finished)
    assert quorum.count(NodeId("")) and quorum.lose(N2) and not quorum.hopeless
    assert not quorum.lose(N2) and not quorum.lose(NodeId("n9")) and not quorum.count(NodeId("n9"))
    assert quorum.count(N2) and quorum.enough
    assert not quorum.lose(N2)
    quorum.lose(N3)
    assert quorum.finished and quorum.enough and not quorum.hopeless
    lonely = Quorum(CLIENT, 1, KEY, (N2, N3), 3, 0, 0.0)
    lonely.ask(NodeId(""))
    assert lonely.lose(NodeId("")) and lonely.hopeless and lonely.finished


def test_more_requests_than_a_node_takes_are_refused_and_nothing_is_stored() -> None:
    """`Overloaded` is a promise too: gets, puts, and puts that read first."""
    with patch.object(config, "PENDING_MAX", 2):
        hand = Hand()
        hand.hear(CLIENT, put(), put(), get(), get())
        for more in (put(b"z"), get(b"z")):
            failed = one(CLIENT, hand.hear(CLIENT, more), m.Failed)
            assert (failed.error, failed.maybe_applied) == (m.Error.OVERLOADED, False)
        hand = Hand()
        hand.hear(CLIENT, put(b"a", None), put(b"b", None))
        assert one(CLIENT, hand.hear(CLIENT, put(b"c", None)), m.Failed).error == m.Error.OVERLOADED


def test_an_owner_that_refuses_twice_is_replaced_once() -> None:
    """Neither a refusal nor a record that is none counts again when it is repeated."""
    for answer in (m.ReplicaRefused(0, "unreadable"), m.ReplicaRead(0, b"\xc1")):
        hand = Hand()
        first, second = peers(hand)
        rid, _ = ask(hand, get())
        sent = hand.hear(first, *[replace(answer, rid=rid)] * 3)
        assert one(second, sent, m.ReadReplica).rid == rid
        assert one(CLIENT, hand.hear(second, m.ReplicaSame(rid)), m.Got)


def test_a_deadline_passes_silently_over_what_was_answered() -> None:
    """Nobody hears twice, and no peer is avoided for a request that ended well."""
    hand = Hand()
    rid, _ = ask(hand, get())
    assert one(CLIENT, hand.hear(peers(hand)[0], m.ReplicaSame(rid)), m.Got)
    assert hand.wait(1_100) == []
    assert hand.local.peers.avoided == {}
    assert not hand.node.busy


def test_an_owner_still_silent_when_the_client_has_its_answer_is_avoided_at_the_deadline() -> None:
    """W was met without it; the next request need not wait for it."""
    hand = Hand()
    order = one(N2, hand.hear(CLIENT, put()), m.WriteReplica)
    hand.commit()
    assert one(CLIENT, hand.hear(N2, m.ReplicaWritten(order.rid)), m.Written)
    assert hand.wait(1_100) == []
    assert set(hand.local.peers.avoided) == {N3}
