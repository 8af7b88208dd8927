"""What kvctl says of a cluster that changes its shape: plans, progress, the ring, what it refuses."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvctl import addnode, planlog
from kvctl.addnode import next_node
from kvctl.cli.topology import check_meant
from kvctl.cli.words import Usage, byte_count, byte_rate
from kvctl.conditions import ring_ready
from kvctl.errors import Conflict, Invalid, KvError, Refused
from kvctl.guards import leaving_risk, member_problem, newcomer_problem, removal_problem, removal_risk
from kvctl.local import Cluster, ClusterSpec, LaunchFailed, NodeSpec, NoSuchObject
from kvctl.processes import Process
from kvctl.render_cluster import status_view
from kvctl.render_shape import owners_view, plan_view, progress_text, ring_view, staged_view
from kvctl.rules import findings
from kvctl.shape import cost, in_force, progress, settled, shares, transfers
from kvnode.core.assignment import assign, exact_shares
from kvnode.core.plan import plan_of
from kvnode.protocol.messages import Change, ChangeKind, ClusterReport, MovesView, NodeReport, Outsider, Plan
from kvnode.protocol.ring import Member, Ring
from kvnode.protocol.types import NodeId
from tests.harness import N1, N2, N3, ring_of
from tests.reports import hints, report
from tests.test_laws_reassign import anyone

N6 = NodeId("n6")
FIVE = ring_of("n1 n2 n3 n4 n5", q=64)
SIX = Member(N6, "127.0.0.1:7006", "n6")
JOIN = Change(ChangeKind.JOIN, N6, SIX)
MB = 10**6


def moves(**changed: object) -> MovesView:
    """Transfers at rest, throttled to 1 MB/s."""
    rest = MovesView(0, 0, 0, 0, 0, 0.0, None, MB, 0)
    return msgspec.structs.replace(rest, **changed)


def five(ring: Ring = FIVE, **changed: NodeReport | None) -> ClusterReport:
    """Five members with 64 MB each, and n6 outside, empty; `changed`: other reports, by node."""
    told: dict[str, NodeReport | None] = {
        m.id: report(m.id, value_bytes=64 * MB, moves=moves(), epoch=ring.epoch, peers=()) for m in ring.members
    }
    told |= changed
    outside = changed.get("n6", report(N6, keys=0, value_bytes=0, moves=moves(), peers=()))
    members = tuple(told[m.id] for m in ring.members)
    return ClusterReport(1, ring, members, N1, () if ring.member(N6) else (Outsider(SIX, outside),))


# ---- a plan --------------------------------------------------------------------------------------


def test_a_plan_tells_moves_bytes_time_balance_and_margin() -> None:
    """All that CONTRACT names, from the plan and what members report."""
    plan = plan_of(FIVE, [JOIN])
    found = cost(plan, five())
    view = plan_view(plan, found, progress(five()))

    data = view.data
    assert data["plan"] == plan.id and data["epoch"] == 1
    assert data["replicas_moved"] == data["optimum"] == 32 == len(found.transfers)
    assert sorted(data["before"].values()) == [38, 38, 38, 39, 39]  # type: ignore[union-attr]
    assert data["after"] == dict.fromkeys(("n1", "n2", "n3", "n4", "n5", "n6"), 32)
    assert {move["to"] for move in data["moves"]} == {"n6"}  # type: ignore[index, call-overload, union-attr]
    assert found.bytes == pytest.approx(32 * 64 * MB / 38.4, rel=0.02)
    assert found.time_s == pytest.approx(found.bytes / MB)
    assert (
        data["margin"] == 1.0 and data["warnings"] == [] and data["problem"] is None and data["progress"] is None
    )
    assert "32 replicas move (at least 32 must)" in view.table.above[1]


def test_what_a_plan_needs_and_does_not_find_is_a_warning() -> None:
    """The candidate must answer and be empty; a leaver's hints go first; a member that is down slows it."""
    full = report(N6, keys=7)
    assert any("not empty (7 keys)" in w for w in cost(plan_of(FIVE, [JOIN]), five(n6=full)).warnings)
    silent = cost(plan_of(FIVE, [JOIN]), five(n6=None, n2=None))
    assert any("n6 does not answer" in w for w in silent.warnings)
    assert any("down: n2" in w for w in silent.warnings)
    leave = plan_of(FIVE, [Change(ChangeKind.LEAVE, N3)])
    kept = report(N3, hints=(hints(N1, 12),), moves=moves())
    assert any("n3 keeps 12 hints" in w for w in cost(leave, five(n3=kept)).warnings)
    (told,) = cost(leave, five(n3=None)).warnings
    assert told.startswith("n3 is down: it stays a member until it is back") and "cluster replace n3" in told
    instead = plan_of(FIVE, [Change(ChangeKind.REPLACE, N3, SIX)])
    (told,) = cost(instead, five(n3=None)).warnings
    assert told == "n3 is down: what no other node holds (writes with w=1) is lost with it"


def test_bytes_and_time_are_unknown_where_nobody_tells() -> None:
    """Null, not a guess."""
    unthrottled = report(N6, keys=0, moves=moves(throttle_bytes_per_s=0))
    assert cost(plan_of(FIVE, [JOIN]), five(n6=unthrottled)).time_s is None
    nobody = ClusterReport(1, FIVE, (None,) * 5, N1)
    assert cost(plan_of(FIVE, [JOIN]), nobody).bytes is None


def test_a_plan_that_cannot_be_committed_says_why_in_every_format() -> None:
    """And what is on its way, instead."""
    ring = plan_of(FIVE, [JOIN]).ring
    told = five(
        ring,
        n6=report(N6, epoch=2, moves=moves(partitions_left=9, bytes_left=9 * MB, bytes_per_s=MB, left_ms=9000)),
    )
    plan = plan_of(ring, [])
    view = plan_view(plan, cost(plan, told), progress(told))

    assert "on their way" in str(view.data["problem"])
    # Nine partitions of 64 MB / 38.4 each: more than the 9 MB of those that are under way.
    assert view.data["progress"]["left_s"] == pytest.approx(15.0, abs=0.1)  # type: ignore[index, call-overload]
    assert any("about 15s to go" in line or "about 14s to go" in line for line in view.table.below)


def test_the_changes_of_a_plan_are_in_force_once_the_ring_has_them() -> None:
    """So a commit whose answer was lost can be told from one that came too late."""
    plan = plan_of(FIVE, [JOIN, Change(ChangeKind.LEAVE, N3)])
    assert in_force(plan, plan.ring)
    assert not in_force(plan, FIVE)
    assert not in_force(plan, plan_of(FIVE, [JOIN]).ring)
    assert not in_force(Plan("x", 1, (), FIVE, 0), plan.ring)


# ---- the ring, on its way --------------------------------------------------------------------------


def test_the_ring_shows_who_takes_and_who_gives() -> None:
    """A row a member; the sums are the moves."""
    ring = plan_of(FIVE, [JOIN]).ring
    view = ring_view(five(ring, n6=report(N6, epoch=2)))

    row = next(r for r in view.table.rows if r[0] == "n6")
    assert row[1] == "joining" and row[5] == "0" and row[7] == "32" and row[8] == "+32"
    assert sum(int(r[9].removeprefix("-")) for r in view.table.rows) == 32
    assert len(view.data["moves"]) == 32  # type: ignore[arg-type]


def test_owners_shows_every_partition_and_its_next_owners() -> None:
    """Slots as Redis Cluster counts them."""
    ring = plan_of(FIVE, [JOIN]).ring
    view = owners_view(ring)
    assert len(view.table.rows) == 64
    assert view.table.rows[1][1] == "256..511"
    assert sum(row[3] != "-" for row in view.table.rows) == len(ring.moves)


def test_an_owner_that_goes_without_a_successor_is_a_giver_alone() -> None:
    """With fewer members than copies there are fewer copies."""
    ring = plan_of(ring_of(), [Change(ChangeKind.LEAVE, N2)]).ring
    assert {(t.giver, t.taker) for t in transfers(ring)} == {(N2, None)}
    assert all(len(owners) == 2 for owners in settled(ring).owners)


def test_status_has_members_on_their_way_and_nodes_outside() -> None:
    """The second letter, and the column in JSON."""
    data = status_view(five(), {}).data
    assert [n["member"] for n in data["nodes"]] == ["normal"] * 5 + ["outside"]  # type: ignore[union-attr, call-overload, index]
    ring = plan_of(FIVE, [JOIN, Change(ChangeKind.LEAVE, N3)]).ring
    view = status_view(five(ring, n6=report(N6, epoch=2)), {})
    assert [row[0] for row in view.table.rows] == ["UN", "UN", "UL", "UN", "UN", "UJ"]
    assert view.table.below and "Moving" in view.table.below[0]


def test_a_ring_that_moves_is_not_ready_and_not_a_failure() -> None:
    """`wait ring-ready` says what is left; `check` warns."""
    ring = plan_of(FIVE, [JOIN]).ring
    told = five(ring, n6=report(N6, epoch=2, moves=moves(partitions_left=5, waiting="n1 is down")))
    assert "Moving 32 partitions" in ring_ready(told) and "n6 waits: n1 is down" in ring_ready(told)
    states = {f.rule: f.state for f in findings(told)}
    assert states["ring agreed"] == "WARN" and states["balance"] == "OK"
    assert "yet to leave" in ring_ready(five(msgspec.structs.replace(FIVE, leaving=(N1,))))
    assert ring_ready(five()) == ""


def test_progress_is_silent_when_nothing_moves_and_honest_when_nobody_knows() -> None:
    """Bytes and time are null until a source has told."""
    assert progress_text(progress(five())) == ""
    ring = plan_of(FIVE, [JOIN]).ring
    way = progress(five(ring, n6=report(N6, epoch=2)))
    assert (way.bytes_left, way.left_ms) == (None, None)


def test_balance_is_by_weight_and_weightless_members_do_not_count() -> None:
    """A node being emptied is not out of balance."""
    light = msgspec.structs.replace(
        FIVE, members=(*(msgspec.structs.replace(m, weight=m.id != "n5") for m in FIVE.members),)
    )
    ring = settled(plan_of(light, []).ring)
    assert {f.rule: f.state for f in findings(five(ring))}["balance"] == "OK"


@given(anyone(), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_check_knows_the_shares_that_plans_give(members: list[Member], n: int) -> None:
    """Weights, hosts, members that are full: whatever the assignment gives is balanced."""
    ring = Ring("c", 1, 1, n, 16, tuple(members), assign(members, 16, n), (1,) * 16)
    told = ClusterReport(1, ring, tuple(report(m.id) for m in members), members[0].id)
    assert {f.rule: f.state for f in findings(told)}["balance"] == "OK"
    exact = dict(zip((m.id for m in members), exact_shares(members, 16, min(n, len(members))), strict=True))
    assert shares(ring) == pytest.approx({node: float(share) for node, share in exact.items()})


def test_check_tells_who_is_furthest_from_its_share() -> None:
    """What a cancelled change leaves behind is out of balance, and a plan of nothing mends it."""
    half = plan_of(FIVE, [JOIN]).ring
    cancelled = msgspec.structs.replace(half, moves=())
    finding = next(f for f in findings(five(cancelled, n6=report(N6, epoch=2))) if f.rule == "balance")
    assert finding.state == "WARN" and "n6 has 0, its share is 32" in finding.detail


def test_staged_changes_are_shown_as_they_were_typed() -> None:
    """A row each."""
    view = staged_view("cluster.replace", 4, [Change(ChangeKind.REPLACE, N3, SIX), Change(ChangeKind.LEAVE, N1)])
    assert view.table.rows == (("replace", "n3", "n6"), ("leave", "n1", "-"))
    assert view.data["count"] == 2
    assert staged_view("cluster.clear", 4, []).table.below == ("nothing is staged",)


# ---- what is refused before it is staged -------------------------------------------------------------


def problem(found: KvError | None) -> tuple[type[KvError], str]:
    assert found is not None
    return type(found), found.message


def test_a_name_that_cannot_join_is_refused_with_the_way_out() -> None:
    """A member, a removed one, and one nobody has heard of; n6 may."""
    removed = msgspec.structs.replace(FIVE, removed=(Member(NodeId("n9"), "127.0.0.1:9", "n9"),))
    assert newcomer_problem(five(), "n6") is None
    assert problem(newcomer_problem(five(), "n5"))[0] is Invalid
    assert "never returns" in problem(newcomer_problem(five(removed), "n9"))[1]
    assert problem(newcomer_problem(five(), "n7"))[0] is NoSuchObject
    assert problem(newcomer_problem(five(), "../x"))[0] is Invalid
    assert "waits outside" in problem(member_problem(five(), "n6"))[1]
    assert problem(member_problem(five(), "n6"))[0] is NoSuchObject
    assert member_problem(five(), "n1") is None


def test_leaving_below_n_is_a_risk_that_staged_joins_make_up_for() -> None:
    """Three members for n=3: one more must come before one can go unasked."""
    three = ClusterReport(1, ring_of(), tuple(report(n) for n in (N1, N2, N3)), N1)
    assert "2 members would be left for n=3" in leaving_risk(three, "n1", [])
    assert leaving_risk(three, "n1", [JOIN]) == ""
    assert leaving_risk(three, "n1", [JOIN, Change(ChangeKind.LEAVE, N2)]) != ""
    assert leaving_risk(five(), "n1", []) == ""


def test_force_remove_is_for_lost_majorities_only() -> None:
    """Where a majority is up, or the node itself, there is a way that loses nothing."""
    assert problem(removal_problem(five(), "n1")) == (
        Refused, "n1 answers: what is only there would be thrown away"
    )  # fmt: skip
    assert "a majority" in problem(removal_problem(five(n1=None, n2=None), "n1"))[1]
    assert removal_problem(five(n1=None, n2=None, n3=None), "n1") is None
    assert problem(removal_problem(five(), "n7"))[0] is NoSuchObject
    risk = removal_risk(five(), ["n1", "n2", "n3"])
    lost = sum(set(FIVE.owner_ids(p)) <= {N1, N2, N3} for p in range(64))
    assert f"all copies of {lost} partitions" in risk and lost > 0


# ---- nodes that come and go ----------------------------------------------------------------------------


def test_a_node_that_is_added_gets_a_name_and_a_port_nobody_had(tmp_path: Path) -> None:
    """Not that of a member that was removed, nor of a directory that is there."""
    spec = ClusterSpec(
        name="c", nodes=[NodeSpec(f"n{i}", f"127.0.0.1:{7000 + i}") for i in range(1, 6)], n=3, q=64
    )
    cluster = Cluster(spec, tmp_path)
    (tmp_path / "n7").mkdir()
    ring = msgspec.structs.replace(FIVE, removed=(Member(NodeId("n8"), "127.0.0.1:9", "n8"),))

    node = next_node(cluster, ring)
    assert node.name == "n9" and node.joined and int(node.address.rpartition(":")[2]) > 7005
    assert next_node(cluster, ring, "mine").name == "mine"
    for name in ("n1", "n7", "n8", "-x"):
        with pytest.raises(Invalid):
            next_node(cluster, ring, name)


def test_a_port_that_someone_took_first_is_left_to_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was free when it was looked at: the next one is tried; any other failure is told."""
    cluster = Cluster(ClusterSpec(name="c", nodes=[NodeSpec("n1", "127.0.0.1:7001")], n=3, q=64), tmp_path)
    tried: list[NodeSpec] = []

    def add(_: Cluster, node: NodeSpec) -> Process:
        tried.append(node)
        if len(tried) < 3:
            raise LaunchFailed("n6 ended while starting: Address already in use")
        return Process(1, "now")

    monkeypatch.setattr(addnode, "add", add)
    node, _ = addnode.add_next(cluster, FIVE, labels=addnode.Labels(weight=2, rack="r"))
    assert node == tried[2] and (node.weight, node.rack) == (2, "r")
    assert len({each.address for each in tried}) == 3 and {each.name for each in tried} == {"n6"}

    monkeypatch.setattr(addnode, "IN_USE", "something else")
    tried.clear()
    with pytest.raises(LaunchFailed):
        addnode.add_next(cluster, FIVE)
    assert len(tried) == 1


def test_the_founding_text_never_changes() -> None:
    """A founder whose disk was wiped must found the same cluster again, whoever has come or gone."""
    nodes = [NodeSpec("n1", "h:1"), NodeSpec("n2", "h:2"), NodeSpec("n3", "h:3", joined=True)]
    spec = ClusterSpec(name="c", nodes=nodes, n=3, q=64)
    assert spec.bootstrap == "n1=h:1,n2=h:2"
    later = msgspec.structs.replace(spec, nodes=nodes[1:], founding=spec.bootstrap)
    assert later.bootstrap == spec.bootstrap


def test_a_commit_is_of_the_plan_printed_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of this cluster, once."""
    monkeypatch.setenv("KVCTL_HOME", str(tmp_path))
    assert planlog.last(7) is None
    planlog.remember(7, planlog.Printed("aa", 3))
    planlog.remember(7, planlog.Printed("bb", 3))
    assert planlog.last(7) == planlog.Printed("bb", 3)
    assert planlog.last(8) is None
    planlog.forget(7)
    planlog.forget(7)
    assert planlog.last(7) is None


def test_a_commit_is_refused_unless_it_is_of_what_was_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None printed, one of another ring, one that has a problem: each is a conflict, exit 7."""
    monkeypatch.setenv("KVCTL_HOME", str(tmp_path))
    plan = plan_of(FIVE, [JOIN])
    with pytest.raises(Conflict, match="no plan was printed"):
        check_meant(plan, None, FIVE)
    with pytest.raises(Conflict, match="plan 0123456789ab is stale"):
        check_meant(plan, "0123456789ab", FIVE)
    planlog.remember(FIVE.cluster_id, planlog.Printed(plan.id, 1))
    check_meant(plan, None, FIVE)
    check_meant(plan, plan.id, FIVE)
    later = plan_of(msgspec.structs.replace(FIVE, epoch=2), [JOIN])
    with pytest.raises(Conflict, match="stale"):
        check_meant(later, None, FIVE)
    hopeless = plan_of(FIVE, [Change(ChangeKind.LEAVE, N6)])
    with pytest.raises(Conflict, match="n6 is no member"):
        check_meant(hopeless, hopeless.id, FIVE)


def test_sizes_and_rates_have_units() -> None:
    """Decimal, as everywhere."""
    assert byte_count("20MB") == 20_000_000 and byte_count("1.5GB") == 1_500_000_000 and byte_count("7") == 7
    assert byte_rate("10MB/s") == 10_000_000 and byte_rate("none") == 0
    for text in ("", "MB", "-1", "1 mile"):
        with pytest.raises(Usage):
            byte_count(text)
