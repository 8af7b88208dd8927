"""Scans, status, explain and events: questions about more than one key or one node."""

from __future__ import annotations

from unittest.mock import patch

import pytest
from msgspec.structs import replace

from kvnode import config
from kvnode.protocol import messages as m
from kvnode.protocol.ring import hash_slot
from kvnode.protocol.types import ALL, NodeId
from tests.harness import (
    CLIENT,
    N1,
    N2,
    N3,
    WALL,
    Hand,
    Sent,
    blob,
    one,
    put,
    ring_of,
    to,
    values,
    version,
    vitals,
)
from tests.test_node import KEY, NEW, OLD, stranger

# ---- scans -------------------------------------------------------------------------------------


def scan(limit: int = 10, r: int = 0, after: bytes = b"", prefix: bytes = b"", timeout_ms: int = 500) -> m.Scan:
    return m.Scan(1, after, prefix, limit, r, timeout_ms)


def rows(*keys: bytes) -> tuple[m.Row, ...]:
    return tuple(m.Row(key, blob(OLD)) for key in keys)


def test_a_scan_merges_the_pages_of_all_members() -> None:
    """Each key once, in byte order, merged from everyone who holds it."""
    hand = Hand()
    hand.keep(b"a", (OLD,))
    sent = hand.hear(CLIENT, scan())
    rid = one(N2, sent, m.ScanReplica).rid
    hand.hear(N2, m.ReplicaScanned(rid, (m.Row(b"a", blob(NEW)), m.Row(b"c", blob(OLD))), False))
    page = one(CLIENT, hand.hear(N3, m.ReplicaScanned(rid, rows(b"b"), False)), m.Scanned)
    assert [(row.key, values(row.record)) for row in page.rows] == [
        (b"a", [b"new"]),
        (b"b", [b"old"]),
        (b"c", [b"old"]),
    ]
    assert (page.more, page.after) == (False, b"c")


def test_a_page_ends_where_any_member_that_has_more_went_silent() -> None:
    """Beyond its last key its silence means nothing: no key may be skipped."""
    hand = Hand()
    rid = one(N2, hand.hear(CLIENT, scan()), m.ScanReplica).rid
    hand.hear(N2, m.ReplicaScanned(rid, rows(b"a", b"d"), False))
    page = one(CLIENT, hand.hear(N3, m.ReplicaScanned(rid, rows(b"a", b"b"), True)), m.Scanned)
    assert ([row.key for row in page.rows], page.more, page.after) == ([b"a", b"b"], True, b"b")


def test_a_page_is_cut_at_its_limit() -> None:
    """The cursor is the last key shown."""
    hand = Hand()
    rid = one(N2, hand.hear(CLIENT, scan(limit=2)), m.ScanReplica).rid
    hand.hear(N2, m.ReplicaScanned(rid, rows(b"a", b"c"), False))
    page = one(CLIENT, hand.hear(N3, m.ReplicaScanned(rid, rows(b"b"), False)), m.Scanned)
    assert ([row.key for row in page.rows], page.more, page.after) == ([b"a", b"b"], True, b"b")


def test_an_empty_scan_ends_where_it_began() -> None:
    """No rows, no more, and the cursor does not move back."""
    hand = Hand()
    rid = one(N2, hand.hear(CLIENT, scan(after=b"x")), m.ScanReplica).rid
    hand.hear(N2, m.ReplicaScanned(rid, (), False))
    page = one(CLIENT, hand.hear(N3, m.ReplicaScanned(rid, (), False)), m.Scanned)
    assert (page.rows, page.more, page.after) == ((), False, b"x")


def test_a_scan_does_with_r_owners_of_every_partition_and_fails_with_fewer() -> None:
    """Nothing is silently missing: one silent member of three is no gap, two are."""
    hand = Hand()
    rid = one(N2, hand.hear(CLIENT, scan()), m.ScanReplica).rid
    hand.hear(N3, m.ReplicaScanned(rid, rows(b"a"), False))
    page = one(CLIENT, hand.hear(N2, m.ReplicaRefused(rid, "unreadable")), m.Scanned)
    assert [row.key for row in page.rows] == [b"a"]

    one(N2, hand.hear(CLIENT, scan()), m.ScanReplica)
    failed = one(CLIENT, hand.wait(560), m.Failed)
    assert failed.error == m.Error.UNAVAILABLE
    assert failed.message.startswith("r=2 cannot be met in partition 0")


@pytest.mark.parametrize(("r", "met"), [(1, True), (2, True), (3, False), (ALL, False), (99, False), (0, True)])
def test_the_r_of_a_scan_is_that_of_a_get(r: int, met: bool) -> None:
    """With one of three silent."""
    hand = Hand()
    rid = one(N2, hand.hear(CLIENT, scan(r=r)), m.ScanReplica).rid
    hand.hear(N2, m.ReplicaScanned(rid, (), False))
    (reply,) = to(CLIENT, hand.lose(N3))
    assert isinstance(reply, m.Scanned) == met


def test_members_known_to_be_out_are_not_asked_to_scan() -> None:
    """And not waited for."""
    hand = Hand()
    hand.lose(N2)
    sent = hand.hear(CLIENT, scan())
    assert to(N2, sent) == []
    assert one(CLIENT, hand.hear(N3, m.ReplicaScanned(one(N3, sent, m.ScanReplica).rid, (), False)), m.Scanned)
    hand.lose(N3)
    assert one(CLIENT, hand.hear(CLIENT, scan()), m.Failed).error == m.Error.UNAVAILABLE


def test_a_scan_counts_each_member_once_and_strangers_never() -> None:
    """Repeats, late answers, and answers to nothing."""
    hand = Hand()
    rid = one(N2, hand.hear(CLIENT, scan()), m.ScanReplica).rid
    page = m.ReplicaScanned(rid, (), False)
    assert hand.hear(N2, page, page, m.ReplicaScanned(rid + 1, (), False), m.ReplicaRefused(rid, "")) == []
    assert hand.counters["ignored_replica_scanned"] == 2
    assert one(CLIENT, hand.hear(N3, page), m.Scanned)
    assert hand.hear(N3, page) == []
    assert hand.wait(600) == []


def test_a_damaged_row_makes_this_member_a_silent_one() -> None:
    """Two good members of three are R."""
    hand = Hand()
    hand.keep(KEY, (OLD,))
    hand.store.damaged.add(KEY)
    rid = one(N2, hand.hear(CLIENT, scan()), m.ScanReplica).rid
    hand.hear(N2, m.ReplicaScanned(rid, rows(KEY), False))
    assert len(one(CLIENT, hand.hear(N3, m.ReplicaScanned(rid, rows(KEY), False)), m.Scanned).rows) == 1


def test_a_malformed_row_fails_the_page_and_is_counted() -> None:
    """Better no page than one with a hole."""
    hand = Hand()
    rid = one(N2, hand.hear(CLIENT, scan()), m.ScanReplica).rid
    hand.hear(N2, m.ReplicaScanned(rid, (m.Row(b"a", b"\xc1"),), False))
    assert one(CLIENT, hand.hear(N3, m.ReplicaScanned(rid, (), False)), m.Failed).error == m.Error.UNAVAILABLE
    assert hand.counters["malformed_records"] == 1


def test_a_scan_that_shows_uncommitted_rows_is_answered_after_their_commit() -> None:
    """As a get is."""
    hand = Hand(ring_of("n1", n=3))
    sent = hand.hear(CLIENT, put(b"a"), scan())
    assert sent == []
    assert [type(reply) for reply in to(CLIENT, hand.commit())] == [m.Scanned, m.Written]


def test_expired_rows_of_a_scan_are_tombstones() -> None:
    """As those of a get."""
    hand = Hand(ring_of("n1", n=1))
    hand.keep(b"a", (version(1, -9, expires_at=WALL - 1),))
    assert values(one(CLIENT, hand.hear(CLIENT, scan()), m.Scanned).rows[0].record) == [None]


# ---- status, explain, events -------------------------------------------------------------------


def test_status_is_gathered_from_every_member_and_a_silent_one_is_none() -> None:
    """What nobody could tell is null, and the rest does not wait for it longer than it was told."""
    hand = Hand()
    hand.say(CLIENT, put(w=1))
    rid = one(N2, hand.hear(CLIENT, m.Status(3, 200)), m.Report).rid
    other = m.Reported(rid, replace(vitals(), id=N2))
    assert hand.hear(N3, other) == [], "a report of someone else is none"
    assert hand.hear(N2, other, other) == []
    status = one(CLIENT, hand.wait(260), m.ClusterReport)
    assert (status.rid, status.asked, status.ring) == (3, N1, hand.ring)
    mine, second, third = status.reports
    assert mine is not None and second is not None and third is None
    assert (mine.id, mine.epoch, mine.boot, mine.pid, mine.wall_ms) == (N1, 1, 1, 42, WALL)
    assert mine.counters["commits"] == 5 and mine.p50_ms is not None
    assert second.id == N2
    assert hand.hear(N3, m.Reported(rid, vitals())) == []
    assert not hand.node.busy


def test_status_does_not_wait_for_members_that_cannot_be_reached() -> None:
    """The transport says so at once; a node of one does not wait at all."""
    hand = Hand()
    hand.hear(CLIENT, m.Status(3, 5_000))
    assert one(CLIENT, hand.lose(N2, N3), m.ClusterReport).reports[1:] == (None, None)
    alone = one(CLIENT, Hand(ring_of("n1")).hear(CLIENT, m.Status(3, 5_000)), m.ClusterReport)
    assert len(alone.reports) == 1


def test_a_node_reports_of_itself_and_names_the_peers_it_avoids() -> None:
    """Unknown latency is None, not zero."""
    hand = Hand()
    hand.lose(N3)
    hand.wait(500)
    report = one(N2, hand.hear(N2, m.Report(8)), m.Reported).report
    assert (report.id, report.uptime_ms, report.avoided, report.p99_ms) == (N1, 500, (N3,), None)


def explained(hand: Hand, key: bytes = KEY) -> tuple[int, Sent]:
    sent = hand.hear(CLIENT, m.Explain(3, key, 200))
    return one(N2, sent, m.ExplainReplica).rid, sent


def holds(rid: int, node: str, record: bytes, **more: object) -> m.ReplicaExplained:
    """What a member says it holds."""
    state = "present" if record else "absent"
    return m.ReplicaExplained(rid, m.ReplicaState(NodeId(node), state, record, b"", **more))  # type: ignore[arg-type]


def test_explain_tells_where_a_key_lives_and_what_each_owner_holds() -> None:
    """Present, absent, malformed, or why an owner did not say."""
    hand = Hand(ring_of("n1 n2 n3 n4 n5", n=5))
    hand.keep(KEY, (OLD,))
    rid, _ = explained(hand)
    hand.hear(N2, holds(rid, "n2", blob(NEW)))
    hand.hear(N3, holds(rid, "n3", b""), holds(rid, "n3", blob(OLD)))
    hand.hear(NodeId("n4"), m.ReplicaExplained(rid, m.ReplicaState(NodeId("n4"), "unreadable", b"", b"")))
    told = one(CLIENT, hand.say(NodeId("n5"), holds(rid, "n5", b"\xc1")), m.Explained)
    assert (told.rid, told.slot, told.partition) == (3, hash_slot(KEY), hand.local.routes.partition(KEY))
    assert told.owners == tuple(state.node for state in told.replicas)
    states = {state.node: state for state in told.replicas}
    assert {node: state.state for node, state in states.items()} == {
        "n1": "present", "n2": "present", "n3": "absent", "n4": "unreadable", "n5": "malformed",
    }  # fmt: skip
    assert values(states[N2].record) == [b"new"]
    assert states[N1].digest == hand.store.rows[KEY].digest


def test_explain_by_a_node_that_owns_nothing_of_the_key() -> None:
    """It asks every member, and says who was silent or cannot be reached, and who keeps a hint for whom."""
    hand, key, owners = stranger()
    fallback = next(f for f in hand.local.routes.fallbacks(hand.local.routes.partition(key)) if f != N1)
    rid = one(owners[0], hand.hear(CLIENT, m.Explain(3, key, 200)), m.ExplainReplica).rid
    hand.hear(owners[0], holds(rid, owners[0], b""))
    hand.hear(fallback, holds(rid, fallback, blob(OLD), hints=(owners[1],)))
    hand.hear(owners[2], holds(rid, owners[1], b""))
    hand.lose(owners[1])
    told = one(CLIENT, hand.wait(260) + hand.commit(), m.Explained)
    assert [state.state for state in told.replicas] == ["absent", "unreachable", "no answer"]
    assert [(state.node, state.hints) for state in told.hints] == [(fallback, (owners[1],))]
    assert set(told.fallbacks) == {N1, fallback}
    assert hand.wait(100) == []


def test_explain_says_of_this_node_that_it_holds_nothing_or_cannot_read_it() -> None:
    """Its own copy like any other."""
    for prepare, state in (
        (lambda hand: None, "absent"),
        (lambda hand: hand.store.damaged.add(KEY), "unreadable"),
    ):
        hand = Hand(ring_of("n1"))
        prepare(hand)
        told = one(CLIENT, hand.commit() or hand.say(CLIENT, m.Explain(3, KEY, 200)), m.Explained)
        assert told.replicas[0].state == state


def test_events_after_a_number_are_told_in_order() -> None:
    """`kvctl events -f` asks again with the last number."""
    hand = Hand()
    hand.lose(N2)
    hand.hear(N2, m.ReplicaSame(1))
    told = one(CLIENT, hand.hear(CLIENT, m.Events(4, 0)), m.EventList)
    assert [(e.number, e.kind, e.node) for e in told.events] == [(1, "avoided", N1), (2, "heard", N1)]
    assert one(CLIENT, hand.hear(CLIENT, m.Events(4, 2)), m.EventList).events == ()
    assert told.events[0].wall_ms == WALL


def test_a_member_is_silent_once_and_an_answered_question_has_no_deadline() -> None:
    """Repeated refusals, and the timer of what is over."""
    hand = Hand(ring_of("n1 n2 n3", n=3))
    rid, _ = explained(hand)
    hand.say(N2, m.ReplicaRefused(rid, "busy"), m.ReplicaRefused(rid, "busy again"))
    told = one(CLIENT, hand.say(N3, holds(rid, "n3", b"")), m.Explained)
    assert {state.node: state.state for state in told.replicas} == {N1: "absent", N2: "busy", N3: "absent"}
    assert hand.wait(300) + hand.commit() == []


@pytest.mark.parametrize(
    "ask", [scan(), m.Status(1, 200), m.Explain(1, KEY, 200)], ids=lambda ask: type(ask).__name__
)
def test_more_questions_than_the_limit_are_refused(ask: m.Message) -> None:
    """A client cannot fill a node's memory with pages that wait for a slow member."""
    hand = Hand()
    with patch.object(config, "SCANS_MAX", 2), patch.object(config, "PENDING_MAX", 2):
        hand.hear(CLIENT, ask, ask)
        (reply,) = hand.hear(CLIENT, ask)
    assert isinstance(reply[1], m.Failed) and reply[1].error == m.Error.OVERLOADED
