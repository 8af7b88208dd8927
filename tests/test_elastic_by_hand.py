"""One node by hand while the owners change under its requests: what still counts, and what is too late.

n1 owns every key of three nodes; then a ring comes in which n4 has its place.
"""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from kvnode.protocol import messages as m
from kvnode.protocol.ring import Member, Ring
from kvnode.protocol.types import NodeId
from tests.harness import CLIENT, N1, N2, N3, N4, Hand, put, ring_of, to

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
