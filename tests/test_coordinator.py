"""The coordinator: one client request, a quorum of owners, one answer.

Every test drives one real node by hand (tests/harness.py): n1 of three, n = 3, so it owns every key,
and its peers are whoever the test says they are.
"""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from kvnode import config
from kvnode.config import Settings
from kvnode.core.consensus import Register, encode_register
from kvnode.protocol import messages as m
from kvnode.protocol.consensus import NO_BALLOT
from kvnode.protocol.context import encode_context
from kvnode.protocol.types import ALL, EVENTUAL, NodeId, decode_record
from kvnode.sim.world import World
from tests.harness import (
    CLIENT,
    N1,
    N2,
    N3,
    WALL,
    DictStore,
    Hand,
    context,
    one,
    put,
    ring_of,
    to,
    values,
    version,
)

KEY = b"k"
OLD = version(5, -5_000, value=b"old")
OTHER = version(6, -4_000, value=b"other")


def peers(hand: Hand, key: bytes = KEY) -> tuple[NodeId, ...]:
    """The other owners of a key, in the order in which they are asked."""
    found = hand.local.routes.peers[hand.local.routes.partition(key)]
    assert found is not None
    return found


def ask(hand: Hand, question: m.Get | m.Put) -> tuple[int, m.ReadReplica]:
    """Start a read; its rid among nodes, and the question to the first peer asked."""
    sent = hand.hear(CLIENT, question)
    first = one(peers(hand)[0], sent, m.ReadReplica)
    return first.rid, first


# ---- puts --------------------------------------------------------------------------------------


def test_a_put_is_acknowledged_when_w_owners_hold_it_durably() -> None:
    """W = 2 of 3: this node's own commit and one peer's are enough; the third is not waited for."""
    hand = Hand()

    orders = hand.hear(CLIENT, put(value=b"milk"))
    assert values(one(N2, orders, m.WriteReplica).record) == [b"milk"]
    assert one(N2, orders, m.WriteReplica) == one(N3, orders, m.WriteReplica)
    assert hand.holds(KEY) == ()

    assert to(CLIENT, hand.commit()) == []
    rid = one(N2, orders, m.WriteReplica).rid
    written = one(CLIENT, hand.say(N2, m.ReplicaWritten(rid)), m.Written)

    assert (written.rid, written.acked, written.w) == (1, 2, 2)
    assert values(hand.holds(KEY)) == [b"milk"]
    assert hand.say(N3, m.ReplicaWritten(rid)) == []


def write(hand: Hand, ask: m.Put) -> tuple[int, m.WriteReplica]:
    """Start a put; its rid among nodes, and the order to the peers."""
    order = one(N2, hand.hear(CLIENT, ask), m.WriteReplica)
    return order.rid, order


def test_two_peers_may_make_w_before_this_nodes_own_commit() -> None:
    """A slow disk here does not hold up a write that is safe elsewhere."""
    hand = Hand()
    rid, _ = write(hand, put())
    hand.hear(N2, m.ReplicaWritten(rid))
    written = one(CLIENT, hand.hear(N3, m.ReplicaWritten(rid)), m.Written)
    assert written.acked == 2


def test_a_node_counts_once_whatever_it_repeats() -> None:
    """A duplicated datagram is not a second copy (PROTOCOL-CASES 11)."""
    hand = Hand()
    rid, _ = write(hand, put(w=ALL))
    hand.commit()
    assert hand.hear(N2, *[m.ReplicaWritten(rid)] * 5) == []
    assert hand.counters["ignored_replica_written"] == 4
    assert one(CLIENT, hand.hear(N3, m.ReplicaWritten(rid)), m.Written).acked == 3


def test_strangers_and_unknown_requests_count_for_nothing() -> None:
    """A reply to nobody, a reply from no owner, a reply after the end."""
    hand = Hand(ring_of("n1 n2 n3 n4", n=3))
    key = next(
        k
        for k in (b"%d" % i for i in range(99))
        if set(hand.local.routes.owners[hand.local.routes.partition(k)]) == {N1, N2, N3}
    )
    rid, _ = write(hand, put(key, w=1))
    assert hand.hear(NodeId("n4"), m.ReplicaWritten(rid), m.ReplicaWritten(rid + 1), m.ReplicaSame(77)) == []
    assert one(CLIENT, hand.commit(), m.Written).acked == 1
    assert hand.hear(N2, m.ReplicaRefused(77, "what?"), m.ReplicaRead(77, b"")) == []
    assert hand.counters["ignored_replica_refused"] == hand.counters["ignored_replica_read"] == 1


def test_request_ids_of_two_boots_share_nothing() -> None:
    """A late ack from before the crash must not count toward a put made after it."""
    ids = {write(Hand(seed=seed), put())[0] for seed in range(50)}
    assert len({rid >> 32 for rid in ids}) == 50


def test_w_that_can_no_longer_be_met_is_told_at_once_as_maybe_applied() -> None:
    """Two of three owners refuse: no waiting for a deadline, and no claim that nothing was stored."""
    hand = Hand()
    rid, _ = write(hand, put())
    hand.commit()
    assert hand.hear(N2, m.ReplicaRefused(rid, "its deadline has passed")) == []
    failed = one(CLIENT, hand.hear(N3, m.ReplicaRefused(rid, "disk full")), m.Failed)
    assert (failed.error, failed.maybe_applied, failed.acked, failed.need) == (m.Error.UNAVAILABLE, True, 1, 2)
    assert "w=2" in failed.message and "disk full" in failed.message
    rid, _ = write(hand, put(w=ALL))
    assert one(CLIENT, hand.hear(N2, m.ReplicaRefused(rid, "disk full")), m.Failed).need == 3
    assert hand.hear(N3, m.ReplicaRefused(rid, "disk full too")) == [], "a client hears once"


def test_owners_the_transport_cannot_reach_are_not_waited_for() -> None:
    """Two dead peers: `Unavailable` now, not in two seconds."""
    hand = Hand()
    write(hand, put())
    failed = one(CLIENT, hand.lose(N2, N3), m.Failed)
    assert (failed.error, failed.maybe_applied) == (m.Error.UNAVAILABLE, True)
    assert {e.kind for e in hand.local.events.after(0)} == {"avoided"}
    assert hand.lose(N2) == []


def test_a_deadline_with_fewer_than_w_acks_is_indeterminate_and_names_the_acks() -> None:
    """The answer tells what is known: one ack of two, and that it may have been applied."""
    hand = Hand()
    rid, _ = write(hand, put())
    hand.commit()
    assert hand.wait(999) == []
    failed = one(CLIENT, hand.wait(60), m.Failed)
    assert (failed.error, failed.maybe_applied) == (m.Error.INDETERMINATE, True)
    assert (failed.acked, failed.need) == (1, 2)
    assert set(hand.local.peers.avoided) == {N2, N3}
    assert hand.hear(N2, m.ReplicaWritten(rid)) == []
    assert set(hand.local.peers.avoided) == {N3}


def test_a_put_to_owners_known_to_be_out_is_refused_before_anything_is_stored() -> None:
    """`applied: no`: while two of three are avoided, w = 2 fails at once and leaves no trace."""
    hand = Hand()
    hand.lose(N2, N3)
    sent = hand.hear(CLIENT, put())
    failed = one(CLIENT, sent, m.Failed)
    assert (failed.error, failed.maybe_applied, failed.acked, failed.need) == (m.Error.UNAVAILABLE, False, 0, 2)
    assert [place for place, _ in sent] == [CLIENT]
    hand.commit()
    assert hand.holds(KEY) == ()
    assert one(CLIENT, hand.say(CLIENT, put(w=1)), m.Written).acked == 1


def test_an_avoided_owner_is_still_sent_the_write_and_counts_if_it_answers() -> None:
    """Always n copies: not waiting for a node is no reason not to tell it."""
    hand = Hand()
    hand.lose(N2)
    orders = hand.hear(CLIENT, put(w=1))
    rid = one(N2, orders, m.WriteReplica).rid
    hand.commit()
    hand.hear(N2, m.ReplicaWritten(rid))
    assert N2 not in hand.local.peers.avoided
    assert "heard" in {e.kind for e in hand.local.events.after(0)}


def test_the_order_to_replicas_carries_a_deadline_that_outlives_skewed_clocks() -> None:
    """Nothing can be written long after it, by a node that slept (PROTOCOL-CASES 19); a minute is enough
    for clocks that disagree, and merging a version late buries nothing."""
    assert write(Hand(), put())[1].deadline == WALL + config.WRITE_DEADLINE_MAX_MS


# ---- what a put covers ------------------------------------------------------------------------


def test_a_put_with_a_context_covers_what_that_context_saw_and_no_more() -> None:
    """What came since stays beside it, for the next reader to see."""
    hand = Hand()
    hand.keep(KEY, (OLD, OTHER))
    _, order = write(hand, put(value=b"new", context=context(KEY, OLD)))
    assert values(order.record) == [b"other", b"new"]


def test_a_blind_put_covers_what_its_coordinator_holds() -> None:
    """The whole merged record goes out, never a lone version (PROTOCOL-CASES 1)."""
    hand = Hand()
    hand.keep(KEY, (OLD, OTHER))
    assert values(write(hand, put(value=b"new"))[1].record) == [b"new"]


@pytest.mark.parametrize("flag", ["retry", "siblings"])
def test_a_retry_and_a_put_with_siblings_cover_nothing(flag: str) -> None:
    """A retried blind put may become a sibling, but never buries what came after it (PROTOCOL-CASES 5)."""
    hand = Hand()
    hand.keep(KEY, (OLD,))
    asked = replace(put(value=b"new"), **{flag: True})
    assert values(write(hand, asked)[1].record) == [b"old", b"new"]


def test_a_retry_with_a_context_covers_that_context() -> None:
    """What the first try had seen, it may replace."""
    hand = Hand()
    hand.keep(KEY, (OLD, OTHER))
    _, order = write(hand, put(value=b"new", retry=True, context=context(KEY, OLD)))
    assert values(order.record) == [b"other", b"new"]


def test_two_puts_of_one_turn_see_one_another() -> None:
    """The second reads through the outbox; its record holds the first or covers it."""
    hand = Hand()
    sent = hand.hear(CLIENT, put(value=b"1"), put(value=b"2"))
    first, second = (decode_record(order.record) for order in to(N2, sent) if isinstance(order, m.WriteReplica))
    assert second[0].past == {first[0].actor: first[0].time}
    assert second[0].actor == first[0].actor
    hand.commit()
    assert values(hand.holds(KEY)) == [b"2"]


def test_the_reply_gives_the_context_that_covers_the_write() -> None:
    """A client can go on writing without reading first."""
    hand = Hand()
    rid, _ = write(hand, put(value=b"1"))
    hand.commit()
    written = one(CLIENT, hand.hear(N2, m.ReplicaWritten(rid)), m.Written)
    token = encode_context(KEY, written.past | {written.actor: written.time}).encode()
    assert values(write(hand, put(value=b"2", context=token))[1].record) == [b"2"]


def test_a_context_that_is_none_is_invalid_and_nothing_is_stored() -> None:
    """Of another key, damaged, or naming a time no honest clock has reached."""
    ahead = version(1, config.CLOCK_AHEAD_MAX_MS + 1)
    for bad in (context(b"another", OLD), b"c1.", b"\xff", context(KEY, ahead)):
        hand = Hand()
        failed = one(CLIENT, hand.say(CLIENT, put(context=bad)), m.Failed)
        assert (failed.error, failed.maybe_applied) == (m.Error.INVALID, False)
        assert hand.holds(KEY) == ()


def test_a_put_that_would_leave_too_many_siblings_is_refused_and_one_with_their_context_is_not() -> None:
    """The way out of a sibling explosion is open."""
    record = tuple(version(10 + i, -1_000 + i) for i in range(config.SIBLINGS_MAX))
    hand = Hand()
    hand.keep(KEY, record)
    failed = one(CLIENT, hand.say(CLIENT, put(siblings=True)), m.Failed)
    assert (failed.error, failed.maybe_applied) == (m.Error.CONFLICT, False)
    assert f"{config.SIBLINGS_MAX} siblings" in failed.message
    assert hand.holds(KEY) == record
    assert values(write(hand, put(value=b"one", context=context(KEY, *record)))[1].record) == [b"one"]


def test_a_pair_above_the_limit_is_invalid_and_one_at_the_limit_is_not() -> None:
    """Key plus value; exit 9, nothing stored anywhere. A long key alone counts for a delete too."""
    hand = Hand(settings=Settings(max_pair_bytes=10))
    assert one(CLIENT, hand.hear(CLIENT, put(value=b"v" * 10)), m.Failed).error == m.Error.INVALID
    assert write(hand, put(value=b"v" * 9))
    assert one(CLIENT, hand.hear(CLIENT, put(b"k" * 11, None)), m.Failed).error == m.Error.INVALID


# ---- nobody is left to make up the number ------------------------------------------------------


def test_hints_for_owners_that_died_under_a_quorum_write_are_no_votes_and_its_client_is_told() -> None:
    """Nobody knew that two of three are down; two fallbacks keep it for them; the put was dropped in silence."""
    world = World(seed=1, nodes=5)
    world.run(1_000)
    first, second, third = world.owners("k")
    world.network.reports_lost, world.network.keeps = 1.0, 0.0
    world.crash(second, third)
    call = world.wait(world.put("k", "v", via=first, mode="quorum", siblings=True, timeout_ms=500))
    assert world.hinted == 2
    assert call.failed.maybe_applied
    assert call.failed.acked == 1


def test_a_delete_whose_owner_goes_while_it_reads_is_told_so() -> None:
    """w=3 was possible when it came; by the time it is written one owner is out, and nobody stands in."""
    hand = Hand()
    (asked,) = (message for _, message in hand.hear(CLIENT, put(value=None, w=ALL)))
    assert isinstance(asked, m.ReadReplica)
    hand.lose(N3)
    order = one(N2, hand.hear(N2, m.ReplicaSame(asked.rid)), m.WriteReplica)
    told = one(CLIENT, [*hand.commit(), *hand.hear(N2, m.ReplicaWritten(order.rid))], m.Failed)
    assert (told.error, told.maybe_applied, told.need) == (m.Error.UNAVAILABLE, True, 3)


# ---- damaged registers -------------------------------------------------------------------------


def test_a_key_whose_register_is_damaged_is_not_taken_for_one_that_has_none() -> None:
    """No put beside it, and no "not found" for what may be there; other keys are served as ever."""
    store = DictStore()
    store.kept_registers = {KEY: encode_register(Register(NO_BALLOT, NO_BALLOT, b""))}
    store.damaged_registers = {KEY}
    hand = Hand(store=store)
    for question in (put(value=b"v"), m.Get(8, KEY, 0, EVENTUAL, 1_000)):
        failed = one(CLIENT, hand.hear(CLIENT, question), m.Failed)
        assert (failed.error, failed.maybe_applied) == (m.Error.UNAVAILABLE, False)
    hand.commit()
    assert not store.rows
    assert to(N2, hand.hear(CLIENT, m.Get(9, b"other", 0, EVENTUAL, 1_000)))
