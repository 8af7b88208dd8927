"""One node as its clients and peers meet it: the door, forwarding, and its own copies."""

from __future__ import annotations

from unittest.mock import patch

import pytest
from msgspec.structs import replace

from kvnode import __version__, config
from kvnode.protocol import messages as m
from kvnode.protocol.types import QUORUM, NodeId, Version
from tests.harness import (
    CLIENT,
    N1,
    N2,
    N3,
    WALL,
    Hand,
    Sent,
    blob,
    get,
    one,
    put,
    ring_of,
    to,
    values,
    version,
    vitals,
)

KEY = b"k"
OLD = version(5, -5_000, value=b"old")
NEW = version(6, -4_000, {5: (WALL - 5_000) << 16}, b"new")

# ---- the door ----------------------------------------------------------------------------------


def test_hello_is_answered_with_the_ring_and_the_limits() -> None:
    """Everything a smart client needs to send a key to its first owner."""
    hand = Hand()
    welcome = one(CLIENT, hand.hear(CLIENT, m.Hello(9)), m.Welcome)
    assert (welcome.rid, welcome.node, welcome.ring) == (9, N1, hand.ring)
    assert (welcome.max_pair_bytes, welcome.deadline_ms, welcome.version) == (10_000, 2_000, __version__)
    assert hand.node.id == N1 and hand.node.ring is hand.ring


NODE_ONLY: list[m.Message] = [
    m.ReadReplica(1, 1, KEY, b""),
    m.WriteReplica(1, 1, KEY, blob(OLD), WALL + 100),
    m.ReplicaWritten(1),
    m.ReplicaSame(1),
    m.ReplicaRead(1, b""),
    m.ReplicaRefused(1, ""),
    m.ScanReplica(1, 1, b"", b"", 10),
    m.ReplicaScanned(1, (), False),
    m.Report(1),
    m.Reported(1, vitals()),
    m.Got(1, 1, b""),
    m.Written(1, 1, 2, 2, 1, 1, {}),
    m.Failed(1, 1, m.Error.CONFLICT, ""),
]


@pytest.mark.parametrize("message", NODE_ONLY, ids=lambda message: type(message).__name__)
def test_a_client_cannot_say_what_only_nodes_say(message: m.Message) -> None:
    """No client writes past the coordinator, votes, or reads replicas: it is counted and not answered."""
    hand = Hand()
    assert hand.say(CLIENT, message) == []
    assert hand.counters == {"ignored_out_of_place": 1}
    assert hand.holds(KEY) == ()


@pytest.mark.parametrize(
    "message",
    [m.Hello(1), m.Scan(1, b"", b"", 1, 0, 0), m.Status(1, 0), m.Welcome(1, N1, 1, ring_of(), "", 1, 1, "", 1)],
)
def test_a_node_cannot_say_what_only_clients_say_or_only_clients_hear(message: m.Message) -> None:
    """Each message has one direction."""
    hand = Hand()
    assert hand.say(N2, message) == []
    assert hand.counters == {"ignored_out_of_place": 1}


def test_a_quiet_node_has_no_timer_and_a_busy_one_has() -> None:
    """The loop may sleep as long as it likes when nothing is owed."""
    hand = Hand()
    assert not hand.node.timed and not hand.node.busy
    hand.hear(CLIENT, put())
    assert hand.node.timed and hand.node.busy
    hand.lose(N2)
    hand.wait(1_100)
    assert not hand.node.busy and hand.node.timed, "an avoided peer is a timer too"
    hand.wait(config.AVOID_MS + 10)
    assert not hand.local.peers.avoided


# ---- forwarding --------------------------------------------------------------------------------

FIVE = ring_of("n1 n2 n3 n4 n5")


def foreign(hand: Hand) -> tuple[bytes, tuple[NodeId, ...]]:
    """A key this node does not own, and its owners."""
    routes = hand.local.routes
    key = next(k for k in (b"%d" % i for i in range(99)) if routes.peers[routes.partition(k)] is None)
    return key, routes.owners[routes.partition(key)]


def stranger() -> tuple[Hand, bytes, tuple[NodeId, ...]]:
    hand = Hand(FIVE)
    return hand, *foreign(hand)


def onward(sent: Sent, owner: NodeId) -> m.Get | m.Put:
    (ask,) = to(owner, sent)
    assert isinstance(ask, m.Get | m.Put)
    return ask


def test_a_request_for_a_key_owned_elsewhere_takes_one_hop_to_an_owner_and_back() -> None:
    """Any node answers any request; the client sees its own request id."""
    hand, key, owners = stranger()
    ask = onward(hand.hear(CLIENT, get(key)), owners[0])
    assert (ask.forwarded, ask.key, ask.timeout_ms) == (True, key, 1_000)
    got = m.Got(ask.rid, 1, blob(OLD))
    assert hand.hear(owners[1], got) == [], "not the owner that was asked"
    assert one(CLIENT, hand.hear(owners[0], got), m.Got) == m.Got(1, 1, blob(OLD))
    assert hand.hear(owners[0], got) == [], "a repeat"
    assert hand.counters["ignored_forwarded_reply"] == 2
    assert hand.wait(1_100) == [], "its deadline passes over an answered request"


def test_an_owner_that_is_asked_by_a_node_answers_that_node() -> None:
    """The other end of the hop."""
    hand = Hand()
    hand.keep(KEY, (OLD,))
    assert values(one(N2, hand.hear(N2, get(r=1, forwarded=True, epoch=1)), m.Got).record) == [b"old"]
    assert to(N2, hand.say(N2, put(w=1, forwarded=True, epoch=1)))


def test_what_was_forwarded_is_not_forwarded_again() -> None:
    """Two nodes with two rings do not play ping-pong."""
    hand, key, _ = stranger()
    failed = one(N2, hand.hear(N2, get(key, forwarded=True, epoch=1)), m.Failed)
    assert (failed.error, failed.maybe_applied) == (m.Error.REFUSED, False)


def test_a_lost_owner_is_replaced_by_the_next_and_the_put_then_says_that_it_is_a_retry() -> None:
    """It may have been applied there: the second try covers nothing new (PROTOCOL-CASES 5)."""
    hand, key, owners = stranger()
    first = onward(hand.hear(CLIENT, put(key)), owners[0])
    hand.now += 400
    second = onward(hand.lose(owners[0]), owners[1])
    assert isinstance(first, m.Put) and isinstance(second, m.Put)
    assert (first.retry, second.retry) == (False, True)
    assert second.timeout_ms == 600, "the deadline is the request's, not the hop's"
    assert second.rid != first.rid


def test_once_no_owner_can_be_reached_a_fallback_coordinates_an_eventual_put() -> None:
    """Always writeable (Dynamo §4.6): it keeps the record for one owner, other fallbacks for the others."""
    hand, key, owners = stranger()
    hand.hear(CLIENT, put(key))
    hand.lose(owners[0])
    hand.lose(owners[1])
    sent = hand.lose(owners[2])
    other = next(f for f in hand.local.routes.fallbacks(hand.local.routes.partition(key)) if f != N1)
    asked = [h for h in to(other, sent) if isinstance(h, m.KeepHint)]
    assert {h.owner for h in asked} == set(owners[1:])
    assert to(CLIENT, sent) == []
    assert to(CLIENT, hand.commit()) == [], "this node's own vote is one, however many owners it stands in for"
    written = one(CLIENT, hand.hear(other, m.HintKept(asked[0].rid)), m.Written)
    assert written.acked == 2
    assert set(hand.store.kept) == {(owners[0], key)}


def test_a_get_whose_every_owner_is_lost_is_unavailable() -> None:
    """A read leaves no trace, so there is nothing to be unsure of."""
    hand, key, owners = stranger()
    hand.hear(CLIENT, get(key, mode=QUORUM))
    for owner in owners[:2]:
        assert to(CLIENT, hand.lose(owner)) == []
    failed = one(CLIENT, hand.lose(owners[2]), m.Failed)
    assert (failed.error, failed.maybe_applied) == (m.Error.UNAVAILABLE, False)


def test_a_refusal_by_the_second_owner_does_not_speak_for_the_first() -> None:
    """The first may have applied it before its connection broke (simulator seeds 1045, 1253, 1495)."""
    hand, key, owners = stranger()
    hand.hear(CLIENT, put(key))
    second = onward(hand.lose(owners[0]), owners[1])
    refusal = m.Failed(second.rid, 1, m.Error.UNAVAILABLE, "w=3 cannot be met")

    failed = one(CLIENT, hand.hear(owners[1], refusal), m.Failed)

    assert (failed.error, failed.maybe_applied) == (m.Error.UNAVAILABLE, True)


def test_a_put_is_refused_after_its_deadline_by_coordinator_and_forwarder() -> None:
    """A node that slept with it in its socket must not bury what was written since (PROTOCOL-CASES 19)."""
    late = put(deadline=WALL - 1)
    failed = one(CLIENT, Hand().hear(CLIENT, late), m.Failed)
    assert (failed.error, failed.maybe_applied) == (m.Error.REFUSED, False)

    hand, key, owners = stranger()
    failed = one(CLIENT, hand.hear(CLIENT, replace(late, key=key)), m.Failed)
    assert (failed.error, failed.maybe_applied) == (m.Error.REFUSED, False)
    assert isinstance(on := onward(hand.hear(CLIENT, put(key)), owners[0]), m.Put)
    assert on.deadline == WALL + 1_000


@pytest.mark.parametrize(
    "ask",
    [put(mode=QUORUM), put(value=None), put(condition=m.Condition.ABSENT)],
    ids=["quorum", "delete", "absent"],
)
def test_a_write_that_depends_on_what_it_finds_is_not_tried_again(ask: m.Put) -> None:
    """If-absent would find its own first try; a second delete would undo what came after the first."""
    hand = Hand(FIVE)
    key, owners = foreign(hand)
    onward(hand.hear(CLIENT, put(key, ask.value, mode=ask.mode, condition=ask.condition)), owners[0])
    sent = hand.lose(owners[0])
    failed = one(CLIENT, sent, m.Failed)
    assert (failed.error, failed.maybe_applied) == (m.Error.INDETERMINATE, True)
    assert len(sent) == 1


def test_losing_another_peer_does_not_disturb_what_is_forwarded() -> None:
    """Only the owner that was asked matters."""
    hand, key, owners = stranger()
    hand.hear(CLIENT, get(key))
    assert hand.lose(owners[1]) == []


def test_an_owner_known_to_be_out_is_the_last_choice() -> None:
    """But still a choice when all are: it may be back."""
    hand, key, owners = stranger()
    hand.lose(owners[0])
    onward(hand.hear(CLIENT, get(key, mode=QUORUM)), owners[1])
    hand.lose(*owners[1:])
    assert onward(hand.hear(CLIENT, get(key, mode=QUORUM)), owners[0])


def test_an_owner_that_stays_silent_is_told_as_indeterminate() -> None:
    """And avoided from then on; its late answer reaches nobody."""
    hand, key, owners = stranger()
    ask = onward(hand.hear(CLIENT, put(key)), owners[0])
    assert hand.node.busy
    failed = one(CLIENT, hand.wait(1_060), m.Failed)
    assert (failed.error, failed.maybe_applied) == (m.Error.INDETERMINATE, True)
    assert set(hand.local.peers.avoided) == {owners[0]}
    assert hand.hear(owners[0], m.Written(ask.rid, 1, 2, 2, 1, 1, {})) == []
    assert not hand.node.busy


def test_two_requests_that_one_silent_owner_fails_make_one_event() -> None:
    """Events are for people."""
    hand, key, _ = stranger()
    hand.hear(CLIENT, get(key), get(key))
    assert len(to(CLIENT, hand.wait(1_060))) == 2
    assert [e.kind for e in hand.local.events.after(0) if e.kind != "stall"] == ["avoided"]


def test_a_failure_at_the_owner_is_passed_on_as_it_is() -> None:
    """Acks and all."""
    hand, key, owners = stranger()
    ask = onward(hand.hear(CLIENT, put(key)), owners[0])
    failed = m.Failed(ask.rid, 1, m.Error.UNAVAILABLE, "w=2 cannot be met", "", True, 1, 2)
    assert one(CLIENT, hand.hear(owners[0], failed), m.Failed) == replace(failed, rid=1)


def test_more_forwarded_requests_than_the_limit_are_refused() -> None:
    """Nothing was stored."""
    hand, key, _ = stranger()
    with patch.object(config, "PENDING_MAX", 1):
        failed = one(CLIENT, hand.hear(CLIENT, get(key), put(key)), m.Failed)
    assert (failed.error, failed.maybe_applied) == (m.Error.OVERLOADED, False)


# ---- the node's own copies ---------------------------------------------------------------------


def test_a_replica_answers_same_or_with_its_record() -> None:
    """Compared by digest; absent is an empty record."""
    hand = Hand()
    hand.keep(KEY, (OLD,))
    digest = hand.store.rows[KEY].digest
    assert one(N2, hand.hear(N2, m.ReadReplica(4, 1, KEY, digest)), m.ReplicaSame).rid == 4
    assert one(N2, hand.hear(N2, m.ReadReplica(4, 1, KEY, b"")), m.ReplicaRead).record == blob(OLD)
    assert one(N2, hand.hear(N2, m.ReadReplica(4, 1, b"other", digest)), m.ReplicaRead).record == b""
    assert one(N2, hand.hear(N2, m.ReadReplica(4, 1, b"other", b"")), m.ReplicaSame)


def order(*versions: Version, key: bytes = KEY, record: bytes | None = None, ms: int = 100) -> m.WriteReplica:
    return m.WriteReplica(4, 1, key, blob(*versions) if record is None else record, WALL + ms)


def test_a_replica_merges_and_acknowledges_when_that_is_durable() -> None:
    """The ack is the promise; a vote before the commit would be a lie."""
    hand = Hand()
    hand.keep(KEY, (OLD,))
    assert hand.hear(N2, order(NEW)) == []
    assert one(N2, hand.commit(), m.ReplicaWritten).rid == 4
    assert values(hand.holds(KEY)) == [b"new"]


def test_a_record_that_brings_nothing_new_is_acknowledged_without_a_write() -> None:
    """Repair may be repeated for free."""
    hand = Hand()
    hand.keep(KEY, (NEW,))
    hand.node.begin(hand.now, hand.wall)
    hand.node.receive(N2, order(OLD))
    turn = hand.node.end()
    assert turn.writes == {} and turn.acks == {N2: [m.ReplicaWritten(4)]}


def test_a_replica_that_shows_an_uncommitted_write_answers_after_its_commit() -> None:
    """Else a reader counts a holder that holds nothing (PROTOCOL-CASES 18)."""
    hand = Hand()
    assert hand.hear(N2, order(OLD)) == []
    digest = hand.local.outbox.read(KEY)
    assert digest is not None
    asked = [m.ReadReplica(7, 1, KEY, digest.digest), m.ReadReplica(8, 1, KEY, b"")]
    assert hand.hear(N3, *asked) == []
    assert [type(reply) for reply in to(N3, hand.commit())] == [m.ReplicaSame, m.ReplicaRead]


def test_a_replica_refuses_what_is_late_foreign_or_malformed() -> None:
    """Named reasons, nothing stored, nothing acknowledged."""
    hand = Hand(FIVE)
    key, _ = foreign(hand)
    own = next(
        k
        for k in (b"%d" % i for i in range(99))
        if hand.local.routes.peers[hand.local.routes.partition(k)] is not None
    )
    for bad, why in (
        (order(OLD, key=own, ms=-1), "deadline"),
        (order(OLD, key=key), "not an owner"),
        (order(record=b"\xc1", key=own), "malformed"),
    ):
        assert why in one(N2, hand.say(N2, bad), m.ReplicaRefused).reason
    assert hand.store.rows == {}


def test_a_damaged_copy_is_not_served_to_peers_and_takes_no_writes() -> None:
    """Refused is not absent; and a record merged into nothing would count for more than it is."""
    hand = Hand()
    hand.keep(KEY, (OLD,))
    hand.store.damaged.add(KEY)
    assert m.ReplicaRefused(4, "unreadable") in to(N2, hand.hear(N2, m.ReadReplica(4, 1, KEY, b"")))
    assert one(N2, hand.hear(N2, m.ScanReplica(4, 1, b"", b"", 10)), m.ReplicaRefused).reason == "unreadable"
    assert one(N2, hand.say(N2, order(NEW)), m.ReplicaRefused).reason == "unreadable"
    assert KEY in hand.store.damaged
    assert hand.counters["unreadable"] == 2


def test_a_replica_pages_through_what_it_holds() -> None:
    """In byte order, after a key, with a prefix, and saying whether there is more."""
    hand = Hand()
    for key in (b"a1", b"a2", b"a3", b"b1"):
        hand.keep(key, (OLD,))
    page = one(N2, hand.hear(N2, m.ScanReplica(4, 1, b"a1", b"a", 2)), m.ReplicaScanned)
    assert ([row.key for row in page.rows], page.more) == ([b"a2", b"a3"], True)
    page = one(N2, hand.hear(N2, m.ScanReplica(4, 1, b"a3", b"a", 2)), m.ReplicaScanned)
    assert (page.rows, page.more) == ((), False)
