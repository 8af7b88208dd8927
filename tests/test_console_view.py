"""What the console concludes of samples: reach, rates, states, troubles. No screen, no node."""

from __future__ import annotations

import msgspec

from kvctl.console.reach import reach_of
from kvctl.console.sample import GONE, Process, Sample, nonsense
from kvctl.console.troubles import CRITICAL, DEGRADED, troubles_of, verdict_of
from kvctl.console.view import ClusterView, advance
from kvctl.health import DOWN, SUSPECT, UP, margin, short_of_quorum
from kvctl.render_faults import ACTIVE, Listed
from kvnode.protocol.messages import Event, NodeReport
from kvnode.protocol.ring import Member, Ring
from kvnode.protocol.types import NodeId
from tests.reports import N1, N2, N3, WALL, cluster, hints, repair, report, ring3, sees

RING = ring3()


def look(*reports: NodeReport | None, at_ms: int = WALL, **fields: object) -> Sample:
    """A sample of the cluster of three."""
    asked = next((r.id for r in reports if r is not None), NodeId(""))
    return Sample(at_ms=at_ms, asked=asked, reports=reports, **fields)


def seen(*samples: Sample) -> ClusterView:
    """The view after these samples."""
    view = ClusterView()
    for sample in samples:
        view = advance(view, sample, RING)
    return view


def split(*sides: tuple[NodeId, ...]) -> tuple[NodeReport, ...]:
    """Reports of nodes that hold those on other sides to be down."""
    return tuple(
        report(n, peers=tuple(sees(o, UP if o in side else DOWN) for s in sides for o in s if o != n))
        for side in sides
        for n in side
    )


def test_all_is_well() -> None:
    """Three nodes that see each other: everything can be read and written, and nothing is broken."""
    view = seen(look(*map(report, (N1, N2, N3))))
    assert verdict_of(view).word == "READ-WRITE"
    assert troubles_of(view, WALL) == []
    assert [row.state for row in view.rows] == [UP] * 3
    assert view.reach.served == RING.q
    assert view.reach.margin == 1


def test_rates_are_those_of_the_nodes_own_counters() -> None:
    """Ten requests in two seconds by the node's own clock are five a second, whenever the answer came."""
    first = report(N1, uptime_ms=10_000, counters={"gets": 5, "failed_unavailable": 1}, took=(0, 10))
    then = report(N1, uptime_ms=12_000, counters={"gets": 11, "failed_unavailable": 3}, took=(0, 18, 2))
    view = seen(look(first, None, None), look(then, None, None, at_ms=WALL + 900))
    point = view.point
    assert point.ops_s == 5
    assert point.gets_s == 3
    assert point.errors_s == 1
    assert point.p50_ms is not None
    assert point.p99_ms is not None
    assert point.p50_ms < point.p99_ms


def test_a_restart_makes_no_rate() -> None:
    """Counters that begin anew are not negative rates, and not huge ones."""
    view = seen(
        look(report(N1, took=(100,)), None, None),
        look(report(N1, boot=2, uptime_ms=100, took=(3,)), None, None, at_ms=WALL + 1000),
    )
    assert view.point.ops_s is None


def test_a_silent_node_keeps_its_last_report_and_says_how_old_it_is() -> None:
    """Never a stale number as if fresh: it has no rate, and its report its age."""
    view = seen(
        look(*map(report, (N1, N2, N3))),
        look(report(N1), report(N2), None, at_ms=WALL + 1000),
    )
    row = view.row("n3")
    assert row is not None
    assert not row.fresh
    assert row.heard_ms == WALL
    assert row.report is not None
    assert row.point.ops_s is None


def test_when_no_node_answers_nothing_is_told_as_if_it_were_seen() -> None:
    """CANNOT SEE, with the reason; no hints, no reach, and the nodes are not fresh."""
    view = seen(
        look(*(report(n, hints=(hints(N1),)) for n in (N2, N3)), None),
        Sample(at_ms=WALL + 5000, problem="no answer from 127.0.0.1:1", reports=(None,) * 3),
    )
    verdict = verdict_of(view)
    assert (verdict.word, verdict.level) == ("CANNOT SEE", CRITICAL)
    assert "127.0.0.1:1" in verdict.text
    assert view.hints == ()
    assert view.seen_ms == WALL
    assert not any(row.fresh for row in view.rows)
    assert view.point.ops_s is None


def test_a_split_is_told_by_its_sides() -> None:
    """Nodes that answer us and not each other are on two sides: which has a quorum is said."""
    view = seen(look(*split((N1,), (N2, N3))))
    assert verdict_of(view).word == "SPLIT"
    assert [(side.nodes, side.served) for side in view.reach.sides] == [(("n1",), 0), (("n2", "n3"), 16)]
    (trouble,) = [t for t in troubles_of(view, WALL) if t.key == "split"]
    assert trouble.level == DEGRADED
    assert "n1 | n2,n3" in trouble.what
    assert [row.state for row in view.rows] == [DOWN, SUSPECT, SUSPECT]


def test_without_a_majority_there_is_no_quorum() -> None:
    """One of three: no quorum anywhere; puts of mode eventual are still taken."""
    view = seen(look(report(N1, peers=(sees(N2, DOWN), sees(N3, DOWN))), None, None))
    verdict = verdict_of(view)
    assert verdict.word == "NO QUORUM"
    assert "eventual are taken" in verdict.text
    assert view.reach.margin == 0


def test_reach_agrees_with_the_rules_of_check_where_all_see_each_other() -> None:
    """Margin and quorums are the figures of `kvctl status`, for every set of nodes that is up."""
    members = tuple(Member(NodeId(f"m{i}"), f"127.0.0.1:{i + 1}", f"h{i}") for i in range(5))
    owners = tuple(((p, (p * 3 + 1) % 5, (p * 2 + 3) % 5)) for p in range(5)) * 4
    owners = tuple(tuple(dict.fromkeys(o % 5 for o in each)) for each in owners)[:16]
    ring = Ring("c", 1, 1, 3, 16, members, owners, (1,) * 16)
    for mask in range(1, 32):
        up = {i for i in range(5) if mask >> i & 1}
        reports = [report(m.id, peers=()) if i in up else None for i, m in enumerate(members)]
        reach = reach_of(ring, reports)
        assert reach.served == ring.q - short_of_quorum(ring, up), up
        assert reach.margin == margin(ring, up), up


def test_hints_tell_when_they_will_be_gone() -> None:
    """At the nodes' own rate; and where nothing moves, what they wait for."""
    moving = report(N1, hints=(hints(N3, 90, 20.0, reachable=True),))
    (trouble,) = troubles_of(seen(look(moving, report(N2), report(N3))), WALL)
    assert trouble.heals == "in 5s, at 20/s"
    stuck = report(N1, hints=(hints(N3, 90),))
    (trouble,) = troubles_of(seen(look(stuck, report(N2), report(N3))), WALL)
    assert trouble.heals == "waits for n3"


def test_a_killed_node_names_its_fault_and_what_heals_it() -> None:
    """Why, until when, and the command."""
    fault = Listed(id="f1", target="n3", kind="kill", since=WALL - 4000, expires=None, state=ACTIVE, nodes=("n3",))
    dead = (sees(N3, DOWN), sees(N2))
    sample = look(
        report(N1, peers=dead), report(N2, peers=(sees(N1), sees(N3, DOWN))), None,
        processes=(Process("n3", GONE),), faults=(fault,),
    )  # fmt: skip
    view = seen(sample)
    (trouble,) = [t for t in troubles_of(view, WALL) if t.key == "node n3"]
    assert trouble.what == "n3 is down"
    assert "f1 kill" in trouble.why
    assert trouble.heals == "until healed"
    assert trouble.command == ("fault", "heal", "f1")


def test_a_fault_has_a_window_from_when_to_when() -> None:
    """What plots shade: it opens once, and closes when the fault is gone."""
    fault = Listed(id="f1", target="n3", kind="kill", since=WALL + 500, expires=None, state=ACTIVE, nodes=("n3",))
    all_up = [report(n) for n in (N1, N2, N3)]
    view = seen(
        look(*all_up),
        look(*all_up, at_ms=WALL + 1000, faults=(fault,)),
        look(*all_up, at_ms=WALL + 2000, faults=(fault,)),
        look(*all_up, at_ms=WALL + 3000),
    )
    (window,) = view.windows
    assert (window.since_ms, window.until_ms) == (WALL + 500, WALL + 3000)


def test_events_are_in_order_and_bounded() -> None:
    """A late event goes to its place; the oldest are forgotten."""

    def event(number: int, wall: int) -> Event:
        return Event(number, wall, N1, "k", str(number))

    view = seen(
        look(report(N1), None, None, events=(event(1, WALL), event(3, WALL + 20))),
        look(report(N1), None, None, events=(event(2, WALL + 10),)),
        look(report(N1), None, None, events=tuple(event(i, WALL + i) for i in range(100, 2_150))),
    )
    numbers = [e.number for e in view.events]
    assert len(numbers) == 2_000
    assert numbers == sorted(numbers)


def test_points_are_bounded() -> None:
    """An hour of samples keeps ten minutes of plots."""
    view = ClusterView()
    sample = look(*map(report, (N1, N2, N3)))
    for i in range(700):
        view = advance(view, msgspec.structs.replace(sample, at_ms=WALL + i * 1000), RING)
    assert len(view.points) == 600
    assert view.points[-1].at_ms == WALL + 699_000


def test_what_makes_no_sense_is_told_and_not_shown() -> None:
    """A ring with owners that are no members, reports of others: a sentence, not a crash."""
    told = cluster()
    assert nonsense(told) == ""
    bad = msgspec.structs.replace(told.ring, owners=((0, 1, 9),) * 16)
    assert "no members" in nonsense(msgspec.structs.replace(told, ring=bad))
    assert "as that of" in nonsense(msgspec.structs.replace(told, reports=(report(N2), report(N1), None)))
    assert "not 16" in nonsense(
        msgspec.structs.replace(told, ring=msgspec.structs.replace(told.ring, owners=told.ring.owners[:3]))
    )


def test_a_paused_repair_and_missed_writes_are_troubles() -> None:
    """What will not heal by itself is said, with the command that helps."""
    paused = report(N1, repair=repair(paused=True), needs_repair=2)
    found = {t.key: t for t in troubles_of(seen(look(paused, report(N2), report(N3))), WALL)}
    assert found["paused"].command == ("repair", "resume")
    assert "n1 2" in found["missed"].why


def test_node_ids_of_any_length_and_all_states_make_rows() -> None:
    """A ring that grows while it is shown: rows follow, figures of members that left are gone."""
    view = seen(look(*map(report, (N1, N2, N3))))
    long = NodeId("x" * 64)
    members = (*RING.members[:2], Member(long, "127.0.0.1:9", "h"))
    ring = msgspec.structs.replace(RING, epoch=2, members=members)
    view = advance(view, look(report(N1), report(N2), report(long), at_ms=WALL + 1000), ring)
    assert [row.id for row in view.rows] == ["n1", "n2", long]
    assert set(view.kept) == {"n1", "n2", long}


def test_when_no_node_answers_nothing_is_said_to_be_known() -> None:
    """A look that found nobody: no live count, no hints, no figure; the ring and the last reports stay."""
    nobody = look(None, None, None, at_ms=WALL + 1_000, problem="no answer from anybody")
    view = seen(look(*map(report, (N1, N2, N3))), nobody)
    assert verdict_of(view).word == "CANNOT SEE"
    assert view.reach.live == ()
    assert view.point.hints is None
    assert view.point.served is None
    assert view.ring is RING
    assert [(row.state, row.fresh, row.report is not None, row.phi) for row in view.rows] == [
        (DOWN, False, True, None)
    ] * 3
