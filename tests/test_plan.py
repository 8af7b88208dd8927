"""A plan: what a commit would do, the same for the same input, and refused where it would do harm."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvnode.core.plan import newcomer_problem, plan_of, without
from kvnode.protocol.ring import JOINING, LEAVING, NORMAL, Member, Move, Ring
from kvnode.protocol.topology import Change, ChangeKind, Plan
from kvnode.protocol.types import NodeId
from tests.harness import N1, N2, N3, N4, N5, ring_of

LAWS = settings(max_examples=80, deadline=None, print_blob=True)
N6, N7 = NodeId("n6"), NodeId("n7")
FIVE = ring_of("n1 n2 n3 n4 n5", q=64)


def outside(node: NodeId, **differs: object) -> Member:
    return msgspec.structs.replace(Member(node, f"127.0.0.1:{7000 + int(node[1:])}", node), **differs)


def join(node: NodeId, **differs: object) -> Change:
    return Change(ChangeKind.JOIN, node, outside(node, **differs))


def leave(node: NodeId) -> Change:
    return Change(ChangeKind.LEAVE, node)


def replace(node: NodeId, new: NodeId) -> Change:
    return Change(ChangeKind.REPLACE, node, outside(new))


def force(node: NodeId) -> Change:
    return Change(ChangeKind.FORCE_REMOVE, node)


def moved(plan: Plan) -> int:
    """Replicas that move."""
    return sum(len(set(move.owners) - set(plan.ring.owners[move.partition])) for move in plan.ring.moves)


def done(ring: Ring) -> Ring:
    """A ring once all its moves are done and all who leave are gone."""
    owners = list(ring.owners)
    for move in ring.moves:
        owners[move.partition] = move.owners
    still = msgspec.structs.replace(ring, owners=tuple(owners), moves=())
    return msgspec.structs.replace(without(still, set(ring.leaving)), leaving=(), lost=())


def balanced(ring: Ring) -> bool:
    """Whether equal members have an equal share of places and of first places."""
    owned = Counter(i for owners in ring.owners for i in owners)
    first = Counter(owners[0] for owners in ring.owners)
    return all(
        max(count[i] for i in range(len(ring.members))) - min(count[i] for i in range(len(ring.members))) <= 1
        for count in (owned, first)
    )


# ---- what a plan is ----------------------------------------------------------------------------


def test_a_join_is_planned_as_moves_to_the_newcomer() -> None:
    """Nothing changes hands at once: old owners stay until their partitions have been copied."""
    plan = plan_of(FIVE, [join(N6)])

    assert not plan.problem and not plan.warnings
    assert (plan.epoch, plan.ring.epoch) == (1, 2)
    assert [m.id for m in plan.ring.members] == ["n1", "n2", "n3", "n4", "n5", "n6"]
    assert moved(plan) == plan.optimum == 64 * 3 // 6
    assert all(5 in move.owners for move in plan.ring.moves)
    assert plan.ring.membership(N6) == JOINING and plan.ring.membership(N1) == NORMAL
    assert balanced(done(plan.ring))


def test_who_leaves_stays_a_member_until_it_owns_nothing() -> None:
    """It serves meanwhile; the moves take from it alone."""
    plan = plan_of(FIVE, [leave(N2)])

    assert plan.ring.leaving == (N2,) and plan.ring.membership(N2) == LEAVING
    assert len(plan.ring.members) == 5 and not plan.ring.lost
    assert moved(plan) == plan.optimum == FIVE.places(N2)[0]
    assert all(1 in plan.ring.owners[move.partition] for move in plan.ring.moves)
    assert {plan.ring.membership(m.id) for m in FIVE.members} == {NORMAL, LEAVING}
    after = done(plan.ring)
    assert balanced(after) and after.member(N2) is None


def test_a_replacement_takes_the_places_of_the_one_it_replaces_and_no_other_moves() -> None:
    """The old one is marked as lost: its hints are waited for only while it is up."""
    plan = plan_of(FIVE, [replace(N4, N6)])

    assert plan.ring.leaving == plan.ring.lost == (N4,)
    assert moved(plan) == plan.optimum == FIVE.places(N4)[0] == len(plan.ring.moves)
    for move in plan.ring.moves:
        step = plan.ring.step(move)
        assert (step.gained, step.lost) == (N6, N4)
    assert done(plan.ring).places(N6) == FIVE.places(N4)


def test_several_changes_are_one_plan() -> None:
    """Two nodes for one: what the leaver had goes to them first."""
    plan = plan_of(FIVE, [join(N6), join(N7), leave(N1)])

    assert balanced(done(plan.ring))
    assert moved(plan) == plan.optimum == 64
    assert plan.ring.leaving == (N1,)


def test_a_forced_removal_takes_the_members_out_at_once() -> None:
    """Who is left owns what they owned, and the rest is made whole from them; partitions of nobody start empty."""
    plan = plan_of(FIVE, [force(N1), force(N2), force(N3)])

    assert not plan.problem
    assert [m.id for m in plan.ring.members] == ["n4", "n5"]
    assert [m.id for m in plan.ring.removed] == ["n1", "n2", "n3"]
    assert not plan.ring.leaving and len(done(plan.ring).owners[0]) == 2
    for p in range(64):
        survivors = set(FIVE.owner_ids(p)) & {N4, N5}
        assert set(plan.ring.owner_ids(p)) == (survivors or {N4, N5})
        assert plan.ring.since[p] == 2
    assert any("lose every copy" in warning for warning in plan.warnings)
    assert 0 < plan.optimum <= moved(plan)


def test_the_epoch_of_a_partition_changes_only_where_something_does() -> None:
    """Requests to other partitions do not notice a change."""
    plan = plan_of(FIVE, [join(N6)])
    touched = {move.partition for move in plan.ring.moves}
    for p in range(64):
        quiet = p not in touched and plan.ring.owners[p] == FIVE.owners[p]
        assert plan.ring.since[p] == (1 if quiet else 2)
    assert len(touched) < 64


def test_a_plan_of_nothing_mends_what_a_cancelled_change_left_behind() -> None:
    """Balance can be had without a change of members; where there is nothing to do, it says so."""
    half = plan_of(FIVE, [join(N6)]).ring
    owners = list(half.owners)
    for move in half.moves[:10]:
        owners[move.partition] = move.owners
    cancelled = msgspec.structs.replace(half, owners=tuple(owners), moves=(), epoch=3)

    plan = plan_of(cancelled, [])
    assert not plan.problem and moved(plan) == 22 == plan.optimum
    assert balanced(done(plan.ring))
    assert "nothing is staged" in plan_of(FIVE, []).problem
    assert "nothing is staged" in plan_of(done(plan.ring), []).problem


# ---- the same for the same input -----------------------------------------------------------------


@given(st.permutations([join(N6), join(N7), leave(N1), leave(N2)]), st.integers(0, 4))
@LAWS
def test_the_order_in_which_changes_were_staged_plays_no_part(changes: list[Change], count: int) -> None:
    """Two nodes that know the same compute the same plan, under the same name."""
    some = changes[:count]
    assert all(plan_of(FIVE, list(order)) == plan_of(FIVE, some) for order in permutations(some))


def test_the_name_of_a_plan_changes_with_the_ring_and_with_what_is_staged() -> None:
    """A commit names what its operator saw."""
    later = msgspec.structs.replace(FIVE, epoch=2)
    plans = [
        plan_of(ring, changes)
        for ring in (FIVE, later)
        for changes in ([join(N6)], [join(N6, weight=2)], [join(N7)], [leave(N1)], [leave(N1), join(N6)], [])
    ]
    assert len({plan.id for plan in plans}) == len(plans)


def test_a_plan_can_be_sent() -> None:
    """All of it, and back."""
    plan = plan_of(FIVE, [replace(N4, N6), leave(N1)])
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(plan), type=Plan) == plan


# ---- what is refused, and what is warned of ------------------------------------------------------

PENDING = msgspec.structs.replace(FIVE, moves=(Move(3, (0, 1, 4)),))
AGED = msgspec.structs.replace(FIVE, removed=(outside(N7),), leaving=(N5,))


@pytest.mark.parametrize(
    ("ring", "changes", "why"),
    [
        (FIVE, [join(N5)], "n5 is a member already"),
        (FIVE, [join(N6, address="127.0.0.1:7002")], "n6 has the address of n2"),
        (FIVE, [join(N6), join(N7, address="127.0.0.1:7006")], "the same address"),
        (AGED, [join(N7)], "a removed name never returns"),
        (AGED, [replace(N1, N7)], "a removed name never returns"),
        (AGED, [leave(N5)], "n5 is leaving already"),
        (AGED, [leave(N1), leave(N2), leave(N3), leave(N4)], "no member would be left"),
        (FIVE, [leave(N6)], "n6 is no member"),
        (FIVE, [replace(N6, N7)], "n6 is no member"),
        (FIVE, [replace(N1, N2)], "n2 is a member already"),
        (FIVE, [force(N6)], "n6 is no member"),
        (FIVE, [replace(N1, N6), replace(N2, N6)], "n6 is part of two changes"),
        (FIVE, [leave(N1), replace(N1, N6)], "n1 is part of two changes"),
        (FIVE, [force(N1), leave(N2)], "committed alone"),
        (FIVE, [force(n) for n in (N1, N2, N3, N4, N5)], "no member would be left"),
        (PENDING, [join(N6)], "1 partitions are on their way"),
        (FIVE, [Change(ChangeKind.JOIN, N6)], "nothing is known"),
        (FIVE, [Change(ChangeKind.JOIN, N6, outside(N7))], "two names"),
    ],
)
def test_what_would_do_harm_has_a_problem(ring: Ring, changes: list[Change], why: str) -> None:
    """As a sentence, and the ring stays as it is."""
    plan = plan_of(ring, changes)
    assert why in plan.problem
    assert plan.ring == ring


def test_a_removal_by_force_does_not_wait_for_what_is_pending() -> None:
    """What is on its way may be why it is needed; the moves are given up."""
    plan = plan_of(PENDING, [force(N5)])
    assert not plan.problem
    assert set(plan.ring.since) == {1, 2} and plan.ring.since[3] == 2


def test_a_newcomer_of_which_nothing_is_wrong_may_join() -> None:
    """The rule that staging asks, too."""
    assert newcomer_problem(FIVE, outside(N6)) == ""


@pytest.mark.parametrize(
    ("ring", "changes", "warning"),
    [
        (ring_of(), [leave(N1)], "2 members for n=3: each key has 2 copies"),
        (ring_of("n1 n2"), [leave(N1)], "1 members for n=3: each key has 1 copy"),
        (ring_of(), [join(N6, host="n1"), leave(N2)], "2 hosts for 3 copies"),
        (FIVE, [join(N6, weight=0)], "n6 has weight 0"),
    ],
)
def test_what_an_operator_should_know_is_a_warning(ring: Ring, changes: list[Change], warning: str) -> None:
    """It can be committed all the same."""
    plan = plan_of(ring, changes)
    assert any(warning in told for told in plan.warnings), plan.warnings
    assert not plan.problem
