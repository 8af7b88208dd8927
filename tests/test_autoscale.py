"""The autoscaler's policy, by its laws: it waits while anything is amiss, and never swings."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kvctl.autoscale import Decision, Do, Eyes, Limits, Seen, decide
from kvnode.core.plan import plan_of
from kvnode.protocol.messages import Change, ChangeKind
from kvnode.protocol.types import NodeId
from tests.reports import N3, cluster, report
from tests.test_shape import FIVE, JOIN, five, moves

LAWS = settings(max_examples=200, deadline=None, print_blob=True)
MB = 10**6
LIMITS = Limits(least=3, most=5, high_bytes=20 * MB, low_bytes=5 * MB, cooldown_s=30)


def names(count: int) -> tuple[NodeId, ...]:
    return tuple(NodeId(f"n{i}") for i in range(1, count + 1))


def seen(count: int = 3, total: int = 30 * MB, **changed: object) -> Seen:
    """A cluster at rest."""
    return msgspec.structs.replace(Seen(now_s=1000.0, n=3, members=names(count), bytes=total), **changed)


limits = st.builds(
    lambda least, more, low, gap, ops: Limits(
        least=least, most=least + more, low_bytes=low, high_bytes=low + gap,
        low_ops=ops and ops[0], high_ops=ops and ops[0] + ops[1], cooldown_s=30,
    ),
    st.integers(1, 6), st.integers(0, 6), st.integers(0, 100), st.integers(1, 100),
    st.none() | st.tuples(st.integers(0, 50), st.integers(1, 50)),
)  # fmt: skip
clusters = st.builds(
    lambda count, n, total, ops: Seen(now_s=1000.0, n=n, members=names(count), bytes=total, ops_per_s=ops),
    st.integers(1, 14), st.integers(1, 5), st.integers(0, 2000), st.none() | st.floats(0, 1000),
)  # fmt: skip


def test_it_grows_under_load_and_shrinks_when_it_is_gone() -> None:
    """Three nodes of 100 MB each grow to five; emptied they go back to three, the last that came first."""
    assert decide(seen(3, 300 * MB), LIMITS, 0.0).do == Do.GROW
    assert decide(seen(4, 300 * MB), LIMITS, 0.0).do == Do.GROW
    assert decide(seen(5, 300 * MB), LIMITS, 0.0) == Decision(
        Do.REST, "at-max",
        "60.0 MB a member, the high watermark is 20.0 MB, but 5 members are the most there may be",
    )  # fmt: skip
    assert decide(seen(5, 0), LIMITS, 0.0).node == "n5"
    assert decide(seen(4, 0), LIMITS, 0.0).node == "n4"
    assert decide(seen(3, 0), LIMITS, 0.0).cause == "at-min"


@pytest.mark.parametrize(
    ("changed", "cause"),
    [
        ({"odd": ("n3 suspect",)}, "unwell"),
        ({"agreed": False}, "disagree"),
        ({"moving": "Moving 3 partitions"}, "moving"),
        ({"staged": 1}, "staged"),
        ({"now_s": 29.0}, "cool-down"),
    ],
)
def test_nothing_is_begun_while_something_stands_in_the_way(changed: dict[str, object], cause: str) -> None:
    """However full it is; and it says what it waits for."""
    decision = decide(seen(3, 900 * MB, **changed), LIMITS, 0.0)
    assert (decision.do, decision.cause) == (Do.WAIT, cause)
    assert decision.reason


@given(clusters, limits, st.sampled_from(["odd", "agreed", "moving", "staged", "now_s"]))
@LAWS
def test_whatever_the_load_it_waits(at_rest: Seen, asked: Limits, what: str) -> None:
    """One change at a time, and none while a member is unwell."""
    unrest = {"odd": ("n1 down",), "agreed": False, "moving": "x", "staged": 2, "now_s": 20.0}
    assert decide(msgspec.structs.replace(at_rest, **{what: unrest[what]}), asked, 0.0).do == Do.WAIT


@given(clusters, limits)
@LAWS
def test_the_limits_are_kept_and_n_members_stay(at_rest: Seen, asked: Limits) -> None:
    """It never grows beyond the most, nor shrinks below the least or below the copies a key has."""
    decision = decide(at_rest, asked, 0.0)
    count = len(at_rest.members)
    if decision.do == Do.GROW:
        assert count < asked.most
    if decision.do == Do.SHRINK:
        assert count > max(asked.least, at_rest.n)
        assert decision.node == at_rest.members[-1]
    if count < asked.least:
        assert decision.do == Do.GROW
    if count > max(asked.most, at_rest.n):
        assert decision.do == Do.SHRINK
    assert decision.reason


CLOSE = Limits(least=1, most=9, high_bytes=101, low_bytes=100, cooldown_s=30)
"""Watermarks so close that four members may be too empty and three too full."""


@given(clusters, limits)
@example(seen(4, 350), CLOSE)
@example(seen(3, 350), CLOSE)
@LAWS
def test_a_change_never_calls_for_its_opposite(at_rest: Seen, asked: Limits) -> None:
    """With the same load on one member more, or fewer, it is content or goes on: it does not swing."""
    opposite = {Do.GROW: Do.SHRINK, Do.SHRINK: Do.GROW}
    first = decide(at_rest, asked, 0.0)
    if first.do in opposite:
        count = len(at_rest.members) + (1 if first.do == Do.GROW else -1)
        after = msgspec.structs.replace(at_rest, members=names(count), now_s=5000.0)
        assert decide(after, asked, 1000.0).do != opposite[first.do]


@given(clusters, limits)
@LAWS
def test_under_a_steady_load_it_comes_to_rest(at_rest: Seen, asked: Limits) -> None:
    """After at most as many changes as there are members to come or go."""
    now = at_rest
    for _ in range(30):
        decision = decide(now, asked, 0.0)
        if decision.do == Do.REST:
            return
        count = len(now.members) + (1 if decision.do == Do.GROW else -1)
        now = msgspec.structs.replace(now, members=names(count))
    pytest.fail(f"still {decision}")


@given(clusters, limits, st.integers(0, 2000))
@LAWS
def test_more_bytes_never_make_it_shrink(at_rest: Seen, asked: Limits, more: int) -> None:
    """The policy is monotone in the load."""
    fuller = msgspec.structs.replace(at_rest, bytes=at_rest.bytes + more)
    if decide(fuller, asked, 0.0).do == Do.SHRINK:
        assert decide(at_rest, asked, 0.0).do == Do.SHRINK
    if decide(at_rest, asked, 0.0).do == Do.GROW:
        assert decide(fuller, asked, 0.0).do == Do.GROW


def test_requests_have_watermarks_of_their_own() -> None:
    """Either load makes it grow; it shrinks when both are low."""
    asked = msgspec.structs.replace(LIMITS, high_ops=1000.0, low_ops=100.0)
    assert decide(seen(3, 0, ops_per_s=3300.0), asked, 0.0).do == Do.GROW
    assert decide(seen(4, 0, ops_per_s=1000.0), asked, 0.0).do == Do.REST
    assert decide(seen(4, 0, ops_per_s=None), asked, 0.0).do == Do.REST
    assert decide(seen(4, 0, ops_per_s=20.0), asked, 0.0).do == Do.SHRINK


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"least": 6}, "min <= max"),
        ({"least": 0}, "min <= max"),
        ({"low_bytes": 20 * MB}, "--low-bytes"),
        ({"high_ops": 5.0, "low_ops": 5.0}, "--low-ops"),
    ],
)
def test_limits_that_make_no_sense_are_told(changed: dict[str, object], why: str) -> None:
    """Before anything is looked at."""
    assert why in msgspec.structs.replace(LIMITS, **changed).problem()
    assert LIMITS.problem() == ""


# ---- seeing ----------------------------------------------------------------------------------------


def test_what_is_seen_is_what_the_members_report() -> None:
    """States, moves, bytes, and requests a second between two looks."""
    eyes = Eyes()
    first = eyes.see(cluster(*(report(n, counters={"requests": 100}) for n in ("n1", "n2", "n3"))), [], 10.0)
    assert (first.members, first.bytes, first.ops_per_s, first.odd) == (("n1", "n2", "n3"), 90, None, ())

    ahead = [report(n, counters={"requests": 300}) for n in ("n1", "n2")]
    again = eyes.see(cluster(*ahead, down=[N3]), [JOIN], 20.0)
    assert again.ops_per_s == 40.0
    assert again.odd == ("n3 down",)
    assert again.staged == 1


def test_a_restarted_node_does_not_count_backwards() -> None:
    """Its requests begin at none again."""
    eyes = Eyes()
    eyes.see(cluster(report(NodeId("n1"), counters={"requests": 1000})), [], 10.0)
    told = cluster(report(NodeId("n1"), boot=2, counters={"requests": 3}))
    assert eyes.see(told, [], 20.0).ops_per_s is None


def test_it_waits_for_moves_for_leavers_and_for_copies_to_be_dropped() -> None:
    """A change is over when nothing of it is left."""
    ring = plan_of(FIVE, [JOIN]).ring
    assert "Moving 32 partitions" in Eyes().see(five(ring, n6=report(NodeId("n6"), epoch=2)), [], 1.0).moving
    gone = plan_of(FIVE, [Change(ChangeKind.LEAVE, N3)]).ring
    left = msgspec.structs.replace(gone, moves=())
    assert "n3 is yet to leave" in Eyes().see(five(left), [], 1.0).moving
    assert "2 copies" in Eyes().see(five(n1=report(NodeId("n1"), moves=moves(dropping=2))), [], 1.0).moving
    assert Eyes().see(five(), [], 1.0).moving == ""
