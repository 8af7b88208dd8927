"""A strong put that was outbid half-way: what its node may still propose, and what it has to tell its client.

The node under test proposes; the hands answer for the two other owners.
"""

from __future__ import annotations

import msgspec

from kvnode import config
from kvnode.protocol.consensus import NO_BALLOT, Accept, Accepted, Ballot, Outbid, Prepare, Promised
from kvnode.protocol.messages import Error, Failed, Written
from kvnode.protocol.types import STRONG
from tests.harness import CLIENT, N2, N3, Hand, blob, one, put, to, version


def outbid(hand: Hand) -> tuple[Accept, Prepare, Ballot]:
    """n2 takes a put's value, then promises a rival, like n3: the proposal, the next try, the rival's ballot."""
    ask = msgspec.structs.replace(put(mode=STRONG), timeout_ms=5_000)
    first = one(N2, hand.say(CLIENT, ask), Prepare)
    proposed = one(N2, hand.say(N2, Promised(first.rid, NO_BALLOT, b"")), Accept)
    rival = Ballot(proposed.ballot.time + (1 << 16), 9)
    hand.say(N2, Outbid(proposed.rid, rival))
    hand.say(N3, Outbid(proposed.rid, rival))
    again = one(N2, hand.wait(config.BACKOFF_MS_MAX), Prepare)
    hand.commit()
    assert again.ballot > rival
    return proposed, again, rival


def test_a_put_that_another_write_came_after_is_not_made_again() -> None:
    """It may have been chosen, and replaced since: to write it once more would undo what replaced it."""
    hand = Hand()
    hand.wait(1)
    _, again, rival = outbid(hand)

    left = hand.say(N2, Promised(again.rid, rival, blob(version(9, 1, value=b"theirs"))))

    told = one(CLIENT, left, Failed)
    assert (told.error, told.maybe_applied) == (Error.INDETERMINATE, True)
    assert to(N3, left) == []


def test_a_put_that_a_majority_never_took_is_made_again_and_one_it_took_is_finished() -> None:
    """The promises prove it: nothing later was accepted, so nothing can have come between."""
    for kept in (True, False):
        hand = Hand()
        hand.wait(1)
        proposed, again, _ = outbid(hand)

        held = (proposed.ballot, proposed.record) if kept else (NO_BALLOT, b"")
        more = one(N3, hand.say(N2, Promised(again.rid, *held)), Accept)

        assert (more.ballot, more.record) == (again.ballot, proposed.record)
        assert isinstance(one(CLIENT, hand.say(N2, Accepted(more.rid)), Written), Written)
