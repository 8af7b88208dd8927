"""One node by hand while the owners change under its requests: what still counts, and what is too late.

n1 owns every key of three nodes; then a ring comes in which n4 has its place.
"""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from kvnode.config import Settings
from kvnode.core.rejoin import WAIT_MS
from kvnode.protocol import messages as m
from kvnode.protocol.replication import RECOVERING
from kvnode.protocol.ring import Member, Move, Partition, Ring
from kvnode.protocol.types import NodeId
from tests.harness import CLIENT, N1, N2, N3, N4, N5, WALL, Hand, Sent, blob, put, ring_of, to, version

KEY = b"k"


def without(me: NodeId, ring: Ring) -> Ring:
    """The next ring: another member owns whatever this one did."""
    place = [member.id for member in ring.members].index(me)
    taker = [member.id for member in ring.members].index(N4)
    owners = tuple(tuple(taker if o == place else o for o in some) for some in ring.owners)
    return replace(ring, epoch=ring.epoch + 1, owners=owners, since=(ring.epoch + 1,) * ring.q)


def three_of_four() -> Ring:
    """Four members, of which the first three own everything."""
    three = ring_of()
    return replace(three, members=(*three.members, Member(N4, "127.0.0.1:7004", "n4")))


def test_a_vote_of_its_own_does_not_count_once_it_is_no_owner() -> None:
    """Its commit comes back after the ring did: W = 2 is n4 and one more, not a copy that is to be dropped."""
    hand = Hand(three_of_four())
    hand.hear(N2, m.RingTold(without(N1, hand.ring)))
    sent = hand.hear(CLIENT, put(w=2))
    order = next(x for x in to(N2, sent) if isinstance(x, m.WriteReplica))
    sent = hand.commit()
    assert [x.epoch for x in to(N4, sent) if isinstance(x, m.WriteReplica)] == [2]

    assert not to(CLIENT, hand.say(N4, m.ReplicaWritten(order.rid)))
    told = to(CLIENT, hand.say(N3, m.ReplicaWritten(order.rid)))
    assert len(told) == 1 and isinstance(told[0], m.Written) and told[0].acked == 2


@pytest.mark.parametrize("late", [False, True])
def test_what_is_overdue_when_the_ring_comes_is_not_begun_anew(late: bool) -> None:
    """Its disk slept over the ring that a request waited for: a put of now would bury what came since."""
    hand = Hand(three_of_four(), me=N4)
    forwarded = next(x for _, x in hand.hear(CLIENT, put()) if isinstance(x, m.Put))
    owner = hand.local.routes.owners[hand.local.routes.partition(KEY)][0]
    hand.hear(owner, m.Stale(forwarded.rid, 2))
    gone = next(name for name in (N1, N2, N3) if name != owner)
    hand.hear(owner, m.RingTold(without(gone, hand.ring)))
    hand.now += 5_000 * late

    sent = hand.commit()
    begun = [x for _, x in sent if isinstance(x, m.Put | m.WriteReplica)]
    failed = [x for x in to(CLIENT, sent) if isinstance(x, m.Failed)]
    if late:
        assert not begun
        assert [f.error for f in failed] == [m.Error.INDETERMINATE] and "deadline" in failed[0].message
    else:
        assert begun and not failed


# ---- hints --------------------------------------------------------------------------------------

RECORD = blob(version(5, 0))


def kept_for_n1(*out: NodeId) -> Hand:
    """n4, which owns nothing, keeps a record for n1. `out`: whom it cannot reach."""
    four = three_of_four()
    members = (*four.members, Member(N5, "127.0.0.1:7005", "n5"))
    hand = Hand(replace(four, members=members), me=N4)
    hand.lose(*out)
    until = hand.local.steady + 10_000
    sent = hand.say(N2, m.KeepHint(9, 1, N1, KEY, RECORD, WALL + until))
    assert to(N2, sent) == [m.HintKept(9)]
    return hand


def removed(ring: Ring) -> Ring:
    """n1 has lost its place to n5."""
    owners = tuple(tuple(4 if o == 0 else o for o in some) for some in ring.owners)
    return replace(ring, epoch=2, owners=owners, since=(2,) * ring.q)


def delivered(hand: Hand, sent: Sent) -> set[NodeId]:
    """To whom it sends what it keeps, each of them taking it."""
    found: set[NodeId] = set()
    for _ in range(10):
        for who, order in sent:
            if isinstance(order, m.WriteReplica) and isinstance(who, str):
                assert order.record == RECORD
                found.add(NodeId(who))
                hand.say(who, m.ReplicaWritten(order.rid))
        sent = hand.wait(100) + hand.commit()
    return found


@pytest.mark.parametrize("crash", [False, True])
def test_a_hint_whose_owner_lost_its_place_is_a_hint_for_each_owner_of_now(crash: bool) -> None:
    """It was one of W: given to one owner alone, which may be the one that has it, a copy would be gone.

    Also where a crash came between the ring and what follows from it.
    """
    hand = kept_for_n1()
    ring = removed(hand.ring)
    if crash:
        hand = Hand(ring, me=N4, store=hand.store)
    else:
        hand.say(N2, m.RingTold(ring))
    sent = hand.wait(10) + hand.commit()
    assert {owner for owner, _ in hand.store.kept} == {N2, N3, N5}
    assert delivered(hand, sent) == {N2, N3, N5}
    assert not hand.store.kept


def test_a_hint_that_another_kept_before_is_as_old_as_it_was_there() -> None:
    """No tombstone is reaped before the oldest hint is younger: an age that began anew would let one go."""
    hand = kept_for_n1()
    young = hand.node.hints.kept.oldest()
    old = young - 60_000
    until = WALL + hand.local.steady + 10_000
    sent = hand.say(N3, m.KeepHint(10, 1, N1, b"other", RECORD, until, old))
    assert to(N3, sent) == [m.ReplicaWritten(10)], "its keeper takes it for delivered"
    assert hand.node.hints.kept.oldest() == old
    assert [view.oldest_ms for view in hand.node.hints.views()] == [old]
    hand.say(N3, m.KeepHint(11, 1, N1, KEY, blob(version(5, 1, value=b"w")), until, old - 1))
    assert hand.node.hints.kept.oldest() == old - 1
    assert {hint.since for hint in hand.store.kept.values()} == {old, old - 1}

    refused = to(N3, hand.say(N3, m.KeepHint(12, 1, N2, KEY, RECORD, until, old - 2)))
    assert [type(x) for x in refused] == [m.ReplicaRefused], "two copies would be one: both are counted somewhere"
    assert (N2, KEY) not in hand.store.kept


def test_a_node_that_leaves_hands_what_it_keeps_for_one_out_of_reach_to_another() -> None:
    """It would stay for as long as that one is down. No owner is asked: it has a copy, and two would be one."""
    hand = kept_for_n1(N1)
    since = hand.node.hints.kept.oldest()
    assert not [x for _, x in hand.wait(100) if isinstance(x, m.KeepHint)], "as long as it stays, it keeps it"
    sent = hand.say(N2, m.RingTold(replace(hand.ring, epoch=2, leaving=(N4,)))) + hand.wait(100)
    (keeper, order), *more = [(who, x) for who, x in sent if isinstance(x, m.KeepHint)]
    assert keeper == N5 and not more and (order.owner, order.since, order.record) == (N1, since, RECORD)
    hand.say(keeper, m.ReplicaWritten(order.rid))
    assert not hand.store.kept and not hand.node.hints.kept.oldest()


def test_a_hint_for_this_node_itself_goes_into_its_own_copy() -> None:
    """It stood in for the first owner, and has come to be that one (seeds 8000053, 8000125)."""
    hand = kept_for_n1()
    hand.store.kept[N4, KEY] = hand.store.kept.pop((N1, KEY))
    hand = Hand(without(N1, hand.ring), me=N4, store=hand.store)
    hand.wait(100)
    hand.commit()
    assert not hand.store.kept
    assert blob(*hand.holds(KEY)) == RECORD


def test_an_old_hint_goes_to_no_owner_that_is_to_lose_its_place() -> None:
    """Not into its own copy either: who comes in its place may have copied that already."""
    three = three_of_four()
    members = (*three.members, Member(N5, "127.0.0.1:7005", "n5"))
    moves = tuple(Move(Partition(p), (4, 1, 2)) for p in range(three.q))  # n5 comes in the place of n1
    owners = ((0, 1, 2),) * three.q
    hand = Hand(replace(three, members=members, owners=owners, moves=moves), settings=Settings(hint_age_ms=1_000))
    hand.lose(N2)
    hand.say(N3, m.KeepHint(9, 1, N2, KEY, RECORD, WALL + hand.local.steady + 10_000))
    sent: Sent = []
    for _ in range(9):
        hand.lose(N2)
        sent += hand.wait(200) + hand.commit()
    orders = [(who, order) for who, order in sent if isinstance(order, m.WriteReplica)]
    assert {who for who, _ in orders} == {N3}
    assert (N2, KEY) in hand.store.kept
    hand.say(N3, *(m.ReplicaWritten(order.rid) for _, order in orders))
    assert not hand.store.kept


# ---- votes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("some", [False, True])
def test_who_votes_in_some_partitions_is_not_said_to_have_lost_all(some: bool) -> None:
    """A waiver passes over those that have no registers at all, and no others."""
    hand = Hand(three_of_four(), me=N4)
    hand.say(N2, m.RingTold(without(N1, hand.ring)))
    if some:
        hand.local.voteless.discard(0)
    (refused,) = to(N2, hand.say(N2, m.CopyRegisters(7, b"")))
    assert isinstance(refused, m.ReplicaRefused) and (refused.reason == RECOVERING) == (not some)


def passing(hand: Hand, ms: int) -> None:
    """So much time, in which nobody else is in reach."""
    for _ in range(ms // 500):
        hand.wait(500)
        hand.commit()


@pytest.mark.parametrize("then", ["nothing", "gone and back", "down later"])
def test_a_waiver_is_for_what_was_lost_before_it(then: str) -> None:
    """What comes here once more without its registers is asked for anew; so is who went down only later."""
    hand = Hand(three_of_four(), me=N4)
    owner, none = without(N1, hand.ring), replace(hand.ring, epoch=3, since=(3,) * hand.ring.q)
    hand.say(N2, m.RingTold(owner))
    assert len(hand.local.voteless) == hand.ring.q
    if then != "down later":
        passing(hand, WAIT_MS)
    assert bool(hand.local.peers.suspected) == (then != "down later")
    assert to(CLIENT, hand.say(CLIENT, m.WaiveVotes(1))) == [m.Done(1, hand.ring.q)]
    if then == "gone and back":
        hand.say(N2, m.RingTold(none))
        hand.say(N2, m.RingTold(replace(owner, epoch=4, since=(4,) * hand.ring.q)))
    (told,) = (x for x in to(N2, hand.say(N2, m.Report(2))) if isinstance(x, m.Reported))
    assert told.report.waived == hand.ring.q * (then != "gone and back")
    passing(hand, 2 * WAIT_MS)
    assert bool(hand.local.voteless) == (then != "nothing")
