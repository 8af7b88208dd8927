"""Puts that must look before they write, expiry, damaged copies, and the story of a request."""

from __future__ import annotations

import pytest

from kvnode import config
from kvnode.protocol import messages as m
from kvnode.protocol.context import encode_context
from kvnode.protocol.types import ALL, QUORUM, TIME_MAX, NodeId, Version, decode_record
from tests.harness import CLIENT, N1, N2, N3, WALL, Hand, Sent, blob, context, get, one, put, to, values, version
from tests.test_coordinator import KEY, OLD, OTHER, ask, peers

ABSENT, MATCH = m.Condition.ABSENT, m.Condition.MATCH


# ---- blind deletes and quorum writes -----------------------------------------------------------


def test_a_blind_delete_first_reads_r_owners_and_covers_what_they_hold() -> None:
    """A delete by way of a replica that missed the put must still delete it (PROTOCOL-CASES 13)."""
    hand = Hand()
    rid, question = ask(hand, put(value=None))
    assert question.digest == b""

    sent = hand.hear(peers(hand)[0], m.ReplicaRead(rid, blob(OLD)))

    order = one(N2, sent, m.WriteReplica)
    assert values(order.record) == [None]
    hand.commit()
    assert values(hand.holds(KEY)) == [None]
    assert one(CLIENT, hand.hear(N3, m.ReplicaWritten(order.rid)), m.Written).past == {OLD.actor: OLD.time}


@pytest.mark.parametrize(
    ("question", "reads"),
    [
        (put(), False),
        (put(siblings=True), False),
        (put(context=context(KEY, OLD)), False),
        (put(value=None, context=context(KEY, OLD)), False),
        (put(value=None), True),
        (put(mode=QUORUM), True),
        (put(value=None, mode=QUORUM), True),
        (put(mode=QUORUM, context=context(KEY, OLD)), False),
        (put(condition=ABSENT), True),
        (put(condition=MATCH, context=context(KEY, OLD)), True),
    ],
    ids=lambda value: repr(value)[:90],
)
def test_which_puts_read_first(question: m.Put, reads: bool) -> None:
    """Blind deletes, blind quorum writes and conditional ones; no others."""
    kinds = {type(message) for _, message in Hand().hear(CLIENT, question)}
    assert kinds == ({m.ReadReplica} if reads else {m.WriteReplica})


def test_a_quorum_write_reads_a_majority_whatever_its_w() -> None:
    """Its context must name every write acknowledged before it."""
    hand = Hand()
    rid, _ = ask(hand, put(mode=QUORUM, w=ALL))
    order = one(N2, hand.hear(peers(hand)[0], m.ReplicaRead(rid, blob(OLD))), m.WriteReplica)
    hand.commit()
    hand.hear(N2, m.ReplicaWritten(order.rid))
    assert one(CLIENT, hand.hear(N3, m.ReplicaWritten(order.rid)), m.Written).acked == 3


def test_a_delete_with_w_one_reads_the_own_copy_alone() -> None:
    """Always writeable: nobody else has to be there."""
    hand = Hand()
    hand.keep(KEY, (OLD,))
    assert values(one(N2, hand.hear(CLIENT, put(value=None, w=1)), m.WriteReplica).record) == [None]


def test_what_is_written_while_a_put_reads_stays_beside_it() -> None:
    """Concurrent is concurrent: the delete covers what its read saw."""
    hand = Hand()
    hand.keep(KEY, (OLD,))
    rid, _ = ask(hand, put(value=None))
    hand.say(CLIENT, put(value=b"meanwhile"))
    order = one(N2, hand.hear(peers(hand)[0], m.ReplicaSame(rid)), m.WriteReplica)
    assert values(order.record) == [b"meanwhile", None]


def test_a_put_that_reads_and_writes_has_one_deadline_for_both() -> None:
    """A second of the client's patience is a second, however many steps it takes."""
    hand = Hand()
    rid, _ = ask(hand, put(value=None))
    hand.wait(900)
    order = one(N2, hand.hear(peers(hand)[0], m.ReplicaSame(rid)), m.WriteReplica)
    assert order.deadline > WALL
    hand.commit()
    failed = one(CLIENT, hand.wait(160), m.Failed)
    assert (failed.error, failed.maybe_applied, failed.acked) == (m.Error.INDETERMINATE, True, 1)


def test_a_put_whose_read_fails_has_applied_nothing() -> None:
    """The first step failing is told as such."""
    hand = Hand()
    ask(hand, put(value=None))
    failed = one(CLIENT, hand.lose(N2, N3), m.Failed)
    assert (failed.error, failed.maybe_applied) == (m.Error.UNAVAILABLE, False)


# ---- conditions --------------------------------------------------------------------------------


def test_if_absent_is_judged_after_a_read_and_the_reply_says_that_it_is_best_effort() -> None:
    """Only `strong` mode could promise more."""
    hand = Hand()
    rid, _ = ask(hand, put(condition=ABSENT, story=True))
    order = one(N2, hand.hear(peers(hand)[0], m.ReplicaSame(rid)), m.WriteReplica)
    hand.commit()
    written = one(CLIENT, hand.hear(N2, m.ReplicaWritten(order.rid)), m.Written)
    assert written.story is not None and written.story.condition == "best_effort"


def test_if_absent_fails_where_any_of_r_owners_has_a_value() -> None:
    """A conflict, nothing applied, and what to do next."""
    hand = Hand()
    rid, _ = ask(hand, put(condition=ABSENT))
    failed = one(CLIENT, hand.hear(peers(hand)[0], m.ReplicaRead(rid, blob(OLD))), m.Failed)
    assert (failed.error, failed.maybe_applied, failed.message) == (m.Error.CONFLICT, False, "the key exists")
    assert "context" in failed.hint


@pytest.mark.parametrize("gone", [version(5, -9, value=None), version(5, -9, expires_at=WALL - 1)])
def test_if_absent_passes_over_tombstones_and_expired_values_and_covers_them(gone: Version) -> None:
    """Deleted is absent."""
    hand = Hand()
    hand.keep(KEY, (gone,))
    order = one(N2, hand.hear(CLIENT, put(condition=ABSENT, w=1)), m.WriteReplica)
    assert values(order.record) == [b"v"]


def test_if_match_passes_where_the_context_covers_all_there_is() -> None:
    """Compare and set, as far as one coordinator can."""
    hand = Hand()
    hand.keep(KEY, (OLD,))
    rid, _ = ask(hand, put(value=b"new", condition=MATCH, context=context(KEY, OLD)))
    order = one(N2, hand.hear(peers(hand)[0], m.ReplicaSame(rid)), m.WriteReplica)
    assert values(order.record) == [b"new"]


@pytest.mark.parametrize("token", [context(KEY, OTHER), b""])
def test_if_match_fails_where_anything_is_not_covered(token: bytes) -> None:
    """Another's write in between, or no context at all."""
    hand = Hand()
    hand.keep(KEY, (OLD,))
    failed = one(CLIENT, hand.hear(CLIENT, put(w=1, condition=MATCH, context=token)), m.Failed)
    assert (failed.error, failed.message) == (m.Error.CONFLICT, "the key has changed since that context")


def test_a_conflict_with_what_is_not_durable_yet_is_told_after_its_commit() -> None:
    """A reply that shows an uncommitted write is an ack, be it only that it exists."""
    hand = Hand()
    sent = hand.hear(CLIENT, put(w=1), put(w=1, condition=ABSENT))
    assert to(CLIENT, sent) == []
    kinds = [type(reply) for reply in to(CLIENT, hand.commit())]
    assert sorted(kinds, key=repr) == [m.Failed, m.Written]


def test_a_wall_clock_set_back_while_a_put_reads_does_not_matter() -> None:
    """The context was judged when the request came; a clock may jump, a node must not stop for it."""
    hand = Hand()
    near = version(5, config.CLOCK_AHEAD_MAX_MS)
    hand.keep(KEY, (near,))
    rid, _ = ask(hand, put(value=b"new", condition=MATCH, context=context(KEY, near)))
    hand.wall -= 5_000
    order = one(N2, hand.hear(peers(hand)[0], m.ReplicaSame(rid)), m.WriteReplica)
    assert values(order.record) == [b"new"]


# ---- time to live ------------------------------------------------------------------------------


def test_a_value_past_its_time_to_live_reads_as_a_tombstone_and_its_context_still_covers_it() -> None:
    """Absolute expiry inside the version: nobody has to delete it."""
    hand = Hand()
    hand.say(CLIENT, put(value=b"short", w=1, ttl_ms=500))
    assert hand.holds(KEY)[0].expires_at == WALL + 500

    assert values(one(CLIENT, hand.hear(CLIENT, get(r=1)), m.Got).record) == [b"short"]
    hand.wait(500)
    got = one(CLIENT, hand.hear(CLIENT, get(r=1)), m.Got)
    assert values(got.record) == [None]
    assert values(hand.holds(KEY)) == [b"short"]


def test_the_longest_time_to_live_can_be_written() -> None:
    """A hundred years; more is no message at all (test_codec)."""
    hand = Hand()
    assert one(CLIENT, hand.say(CLIENT, put(w=1, ttl_ms=config.TTL_MS_MAX)), m.Written)


# ---- a damaged copy ----------------------------------------------------------------------------


def damaged() -> Hand:
    hand = Hand()
    hand.keep(KEY, (OLD,))
    hand.store.damaged.add(KEY)
    return hand


def questions(sent: Sent, peer: NodeId) -> list[int]:
    """The ids of the reads a peer was asked for: the healing one first, then the client's."""
    found = to(peer, sent)
    assert all(isinstance(q, m.ReadReplica) for q in found)
    return [q.rid for q in found if isinstance(q, m.ReadReplica)]


def test_a_read_over_a_damaged_copy_is_answered_by_the_others() -> None:
    """A flipped bit on this disk is neither served nor "not found"."""
    hand = damaged()
    first, second = peers(hand)
    sent = hand.hear(CLIENT, get(story=True))
    (heal, rid), (_, again) = questions(sent, first), questions(sent, second)
    assert rid == again != heal

    assert hand.hear(first, m.ReplicaRead(rid, blob(OLD))) == []
    got = one(CLIENT, hand.hear(second, m.ReplicaRead(rid, blob(OTHER))), m.Got)

    assert values(got.record) == [b"old", b"other"]
    assert KEY in hand.store.damaged
    assert got.story is not None and (N1, False, "unreadable") in [
        (a.node, a.ok, a.told) for a in got.story.answers
    ]
    assert "unreadable" in {e.kind for e in hand.local.events.after(0)}


def test_a_damaged_copy_is_healed_only_with_what_all_other_owners_hold() -> None:
    """Less might lack a write that it was the second to hold, and a later quorum would miss it."""
    hand = damaged()
    first, second = peers(hand)
    sent = hand.hear(CLIENT, get(r=1))
    heal, rid = questions(sent, first)
    one(CLIENT, hand.hear(first, m.ReplicaRead(rid, blob(OLD))), m.Got)
    hand.hear(first, m.ReplicaRead(heal, blob(OLD)))
    hand.commit()
    assert KEY in hand.store.damaged

    hand.hear(second, m.ReplicaRead(heal, blob(OTHER)))
    hand.commit()

    assert values(hand.holds(KEY)) == [b"old", b"other"]
    assert not hand.store.damaged
    assert hand.counters["healed"] == 1


def test_healing_begins_again_when_an_owner_could_not_answer() -> None:
    """The copy counts for nothing in the meantime; whoever asks next starts it anew."""
    hand = damaged()
    first, second = peers(hand)
    heal = questions(hand.hear(first, m.ReadReplica(7, 1, KEY, b"")), second)
    assert len(heal) == 1
    assert questions(hand.hear(second, m.ReadReplica(8, 1, KEY, b"")), first) == []
    hand.lose(second)

    again = hand.hear(first, m.ReadReplica(9, 1, KEY, b""))

    (rid,) = questions(again, second)
    assert rid != heal[0]
    for peer in (first, second):
        hand.hear(peer, m.ReplicaRead(rid, blob(OLD)))
    hand.commit()
    assert values(hand.holds(KEY)) == [b"old"]


def test_a_read_of_all_cannot_be_met_over_a_damaged_copy() -> None:
    """Three of three is three good copies."""
    hand = damaged()
    assert one(CLIENT, hand.hear(CLIENT, get(r=ALL)), m.Failed).error == m.Error.UNAVAILABLE


def test_a_put_over_a_damaged_copy_first_fetches_the_record_from_all_other_owners() -> None:
    """Else it would be a new clock for an old key, and repair would take it for news (riak kv679)."""
    hand = damaged()
    first, second = peers(hand)
    (rid,) = questions(hand.hear(CLIENT, put(value=b"new")), first)
    assert hand.hear(first, m.ReplicaRead(rid, blob(OLD))) == []
    order = one(N2, hand.hear(second, m.ReplicaRead(rid, blob(OTHER))), m.WriteReplica)
    assert values(order.record) == [b"new"]
    hand.commit()
    assert values(hand.holds(KEY)) == [b"new"]
    assert set(hand.holds(KEY)[0].past) == {OLD.actor, OTHER.actor}


def test_a_put_over_a_damaged_copy_fails_where_no_other_owner_has_one() -> None:
    """Better no write than one that buries what the damaged copy held."""
    hand = damaged()
    first, second = peers(hand)
    (rid,) = questions(hand.hear(CLIENT, put(value=b"new")), first)
    hand.hear(first, m.ReplicaRead(rid, b""))
    failed = one(CLIENT, hand.hear(second, m.ReplicaRead(rid, b"")), m.Failed)
    assert (failed.error, failed.maybe_applied) == (m.Error.UNAVAILABLE, False)
    assert KEY in hand.store.damaged


def test_a_put_over_a_damaged_copy_is_refused_at_once_where_an_owner_is_away() -> None:
    """It left no trace, so a client may go to the next owner."""
    hand = damaged()
    first, _ = peers(hand)
    hand.lose(first)
    failed = one(CLIENT, hand.hear(CLIENT, put(value=b"new")), m.Failed)
    assert (failed.error, failed.maybe_applied) == (m.Error.UNAVAILABLE, False)


def test_a_copy_damaged_while_a_put_reads_is_mended_before_the_put_goes_on() -> None:
    """What R owners told is not enough to write over it."""
    hand = Hand()
    hand.keep(KEY, (OLD,))
    first, second = peers(hand)
    rid, _ = ask(hand, put(value=None))
    hand.store.damaged.add(KEY)
    (heal,) = questions(hand.hear(first, m.ReplicaRead(rid, blob(OTHER))), second)
    hand.hear(first, m.ReplicaRead(heal, blob(OTHER)))
    order = one(N2, hand.hear(second, m.ReplicaRead(heal, blob(OLD))), m.WriteReplica)
    (tombstone,) = decode_record(order.record)
    assert tombstone.value is None
    assert set(tombstone.past) == {OLD.actor, OTHER.actor}


# ---- the story ---------------------------------------------------------------------------------


def test_a_story_tells_who_was_asked_and_who_answered_what() -> None:
    """Nothing is hidden: coordinator, epoch, owners, answers and times."""
    hand = Hand()
    hand.keep(KEY, (OLD,))
    first, second = peers(hand)
    rid, _ = ask(hand, get(r=ALL, story=True))
    hand.now += 3
    hand.hear(first, m.ReplicaSame(rid))
    hand.now += 2
    got = one(CLIENT, hand.hear(second, m.ReplicaRead(rid, b"")), m.Got)

    story = got.story
    assert story is not None
    assert (story.coordinator, story.epoch, story.mode, story.strict) == (N1, 1, 0, False)
    assert set(story.owners) == {N1, N2, N3}
    assert story.partition == hand.local.routes.partition(KEY)
    assert [(a.node, a.told, a.ms) for a in story.answers] == [
        (N1, "value", 0),
        (first, "digest", 3),
        (second, "absent", 5),
    ]
    assert story.took_ms == 5


def test_the_story_of_a_failure_tells_who_did_not_answer() -> None:
    """Refusals and the unreachable, by name."""
    hand = Hand()
    order = one(N2, hand.hear(CLIENT, put(story=True)), m.WriteReplica)
    hand.hear(N2, m.ReplicaRefused(order.rid, "disk full"))
    failed = one(CLIENT, hand.lose(N3), m.Failed)
    assert failed.story is not None
    assert [(a.node, a.ok, a.told) for a in failed.story.answers] == [
        (N2, False, "disk full"),
        (N3, False, "unreachable"),
    ]


def test_the_story_of_a_put_names_the_acknowledgements() -> None:
    """Own commit included."""
    hand = Hand()
    order = one(N2, hand.hear(CLIENT, put(story=True, mode=QUORUM, context=context(KEY, OLD))), m.WriteReplica)
    hand.commit()
    written = one(CLIENT, hand.hear(N3, m.ReplicaWritten(order.rid)), m.Written)
    assert written.story is not None and written.story.strict
    assert [(a.node, a.told) for a in written.story.answers] == [(NodeId("n1"), "written"), (N3, "written")]


def test_no_story_is_made_that_nobody_asked_for() -> None:
    """The hot path pays nothing for it."""
    hand = Hand()
    assert one(CLIENT, hand.hear(CLIENT, get(r=1)), m.Got).story is None
    assert one(CLIENT, hand.say(CLIENT, put(w=1)), m.Written).story is None


def test_a_context_of_a_clock_that_jumped_is_taken_where_the_copy_here_names_its_times() -> None:
    """A node an hour ahead wrote it; refusing it for an hour would make the key unwriteable."""
    hand = Hand()
    ahead = version(9, 3_600_000, value=b"from the future")
    hand.keep(KEY, (ahead,))
    token = encode_context(KEY, {ahead.actor: ahead.time}).encode()

    order = one(N2, hand.hear(CLIENT, put(value=b"now", context=token)), m.WriteReplica)

    assert values(order.record) == [b"now"]
    forged = encode_context(KEY, {ahead.actor: ahead.time + 1}).encode()
    assert one(CLIENT, hand.hear(CLIENT, put(context=forged)), m.Failed).error == m.Error.INVALID


def test_a_key_at_the_end_of_the_clock_refuses_puts_and_the_node_goes_on() -> None:
    """Nothing can be minted above it; that is this key's trouble, not the node's."""
    hand = Hand()
    hand.keep(KEY, (Version(9, TIME_MAX, {}, b"the end"),))

    failed = one(CLIENT, hand.hear(CLIENT, put(value=b"after")), m.Failed)

    assert (failed.error, failed.maybe_applied) == (m.Error.CONFLICT, False)
    assert values(hand.holds(KEY)) == [b"the end"]
