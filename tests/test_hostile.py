"""A member that lies, or whose words come back from the past: what one node believes of it.

One node is driven by hand; n2 to n5 are its peers. Cluster keys keep strangers out (RELIABILITY 4); these
are members with a bug, a copied disk or a delayed frame. The first is the example.
"""

from __future__ import annotations

import msgspec
import pytest

from kvnode import config
from kvnode.core.membership import DOWN, UP
from kvnode.core.versions import held_of
from kvnode.protocol import messages as m
from kvnode.protocol.types import NodeId, Record
from tests.harness import (
    CLIENT,
    N1,
    N2,
    N3,
    N4,
    N5,
    WALL,
    Hand,
    blob,
    one,
    put,
    record_of,
    to,
    values,
    version,
)
from tests.stories import FIVE, keys_of

LAST_LIFE = 1 << 62
"""The latest incarnation a decoder accepts."""
HOUR_MS = 3_600_000


class Circle:
    """n1 among four peers that beat on time, and whose true words can be repeated."""

    def __init__(self) -> None:
        self.hand = Hand(FIVE)
        self.beats = 0
        self.pass_time(2_000)

    def alive(self, node: NodeId, *suspects: m.Suspicion, life: int = 1, ahead: int = 0, **more: int) -> m.Alive:
        """What a peer says of itself now."""
        return m.Alive(
            node,
            life,
            self.beats + ahead,
            suspects,
            disk_id=ord(node[1]),
            boot=1,
            wall_ms=more.get("wall_ms", WALL),
        )

    def pass_time(self, ms: int, *silent: NodeId) -> None:
        """Everyone beats, four times a second, but for these."""
        for _ in range(ms // config.BEAT_MS):
            self.hand.wait(config.BEAT_MS)
            self.beats += 1
            for peer in (N2, N3, N4, N5):
                if peer not in silent:
                    self.hand.say(peer, m.Beat(self.alive(peer)))

    def states(self) -> dict[str, str]:
        """What n1 thinks of each."""
        return {view.node: view.state for view in self.hand.node.membership.views()}

    def lives(self) -> dict[NodeId, int]:
        """Which life of each peer it gossips of."""
        self.hand.background.clear()
        self.hand.wait(config.GOSSIP_MS)
        tables = [x.table for _, x in self.hand.background if isinstance(x, m.Gossip)]
        return {alive.node: alive.incarnation for alive in tables[0]}

    def own_words(self) -> list[m.Alive]:
        """What n1 has said of itself since the last time, as its peers decode it."""
        said = [message.alive for _, message in self.hand.background if isinstance(message, m.Beat)]
        self.hand.background.clear()
        return said


ALL_UP = {"n2": UP, "n3": UP, "n4": UP, "n5": UP}


# ---- gossip ------------------------------------------------------------------------------------


def test_one_member_that_calls_everyone_down_convicts_nobody() -> None:
    """n2 suspects all others, at the last heartbeat there can be, in every beat for ten seconds."""
    circle = Circle()
    for _ in range(40):
        circle.pass_time(config.BEAT_MS, N2)
        lies = [m.Suspicion(node, LAST_LIFE, LAST_LIFE) for node in (N1, N3, N4, N5)]
        circle.hand.say(N2, m.Beat(circle.alive(N2, *lies)))
        assert DOWN not in circle.states().values()
    assert not circle.hand.local.peers.avoided, "and every node is still asked"

    circle.pass_time(1_000)
    assert circle.states() == ALL_UP


def test_one_member_that_puts_accusations_in_all_others_mouths_convicts_nobody() -> None:
    """n2 gossips entries of n3 and n4, a heartbeat later than their own, in which they suspect n5."""
    circle = Circle()
    lie = m.Suspicion(N5, LAST_LIFE, LAST_LIFE)
    told = m.Gossip(
        (circle.alive(N2, lie, ahead=1), circle.alive(N3, lie, ahead=1), circle.alive(N4, lie, ahead=1))
    )
    circle.hand.say(N2, told)
    circle.hand.wait(config.BEAT_MS)
    assert circle.states()["n5"] != DOWN


def test_a_member_that_accuses_itself_is_up() -> None:
    """A suspicion of oneself is no second opinion."""
    circle = Circle()
    lie = m.Suspicion(N2, LAST_LIFE, LAST_LIFE)
    circle.beats += 1
    circle.hand.say(N2, m.Beat(circle.alive(N2, lie)))
    circle.hand.wait(config.BEAT_MS)
    assert circle.states() == ALL_UP


def test_words_from_the_past_do_not_keep_a_dead_member_alive() -> None:
    """n5 is dead; n2 repeats n5's last words and older ones, from this life and the one before."""
    circle = Circle()
    past = [circle.alive(N5), circle.alive(N5, ahead=-3), circle.alive(N5, life=0, ahead=1_000)]
    lie = m.Suspicion(N5, 1, circle.beats)
    for _ in range(40):
        circle.pass_time(config.BEAT_MS, N2, N5)
        circle.hand.say(N2, m.Beat(circle.alive(N2, lie)), m.Gossip(tuple(past)))
    assert circle.states() == ALL_UP | {"n5": DOWN}
    assert N5 in circle.hand.local.peers.suspected


def test_a_member_says_nothing_for_another_and_nothing_of_a_stranger() -> None:
    """A beat in another's name, and an entry for a node that is in no ring, leave nothing behind."""
    circle = Circle()
    before = circle.hand.node.membership.views()
    circle.hand.say(N2, m.Beat(circle.alive(N3, life=7)))
    circle.hand.say(N2, m.Gossip(tuple(circle.alive(NodeId(f"x{i}"), life=7) for i in range(100))))
    assert circle.hand.node.membership.views() == before
    assert circle.hand.counters["ignored_beat_for_another"] == 1
    assert circle.hand.counters["ignored_gossip_of_a_stranger"] == 100


@pytest.mark.parametrize("life", [2, 1 << 30, 1 << 40, 1 << 48, LAST_LIFE])
def test_a_node_outlives_a_rumour_of_its_future(life: int) -> None:
    """n2 tells n1 of a life of n1's own that never was. Its peers believe it, or it is too absurd for
    anyone; so n1 begins a later one, or stays with its own: either way its peers can read what it says."""
    circle = Circle()
    circle.own_words()
    circle.hand.say(N2, m.Gossip((circle.alive(N1, life=life), circle.alive(N5, life=life))))
    believed = circle.lives()[N5] == life
    circle.pass_time(500)
    said = circle.own_words()
    assert said
    assert all(alive.incarnation > life if believed else alive.incarnation == 1 for alive in said)


def test_a_peer_whose_future_was_forged_is_told_and_believed_again() -> None:
    """n2 tells of a life of n5 that never was; n5's true beats are older now. n1 tells n5, which begins a
    later life; nobody was convicted meanwhile."""
    circle = Circle()
    circle.hand.say(N2, m.Gossip((circle.alive(N5, life=9, ahead=1_000),)))
    circle.own_words()
    circle.hand.say(N5, m.Beat(circle.alive(N5)))
    told = [message for to_, message in circle.hand.background if to_ == N5 and isinstance(message, m.Gossip)]
    assert [entry.incarnation for gossip in told for entry in gossip.table if entry.node == N5] == [9]

    circle.beats += 1
    circle.hand.say(N5, m.Beat(circle.alive(N5, life=10)))
    circle.hand.wait(config.BEAT_MS)
    assert circle.states() == ALL_UP


@pytest.mark.parametrize("wall_ms", [0, WALL + HOUR_MS, 1 << 47])
def test_what_a_peer_says_of_its_clock_stops_no_node(wall_ms: int) -> None:
    """n2 names an absurd wall clock, gossiped or its own; a hint for n2 is still sent, and n1 goes on."""
    circle = Circle()
    circle.beats += 1
    circle.hand.say(N2, m.Beat(circle.alive(N2, wall_ms=wall_ms)))
    circle.hand.say(N3, m.KeepHint(1, 1, N2, keys_of(N2, N4, N3)[0], blob(version(1, 0)), WALL + HOUR_MS))
    sent = circle.hand.wait(config.BEAT_MS)
    assert [type(message) for message in to(N2, sent)] == [m.WriteReplica]
    assert not circle.hand.local.refusal


def test_a_clock_beyond_all_reckoning_is_not_even_read() -> None:
    """A deadline reckoned from it would not fit into 64 bits, and end whoever writes it down."""
    circle = Circle()
    with pytest.raises(msgspec.ValidationError):
        circle.hand.say(N2, m.Beat(circle.alive(N2, wall_ms=(1 << 64) - 1)))


# ---- reaping -----------------------------------------------------------------------------------


DIGEST = held_of(record_of(version(1, 0, value=None))).digest
UNTIL = WALL + HOUR_MS


def reap(digest: bytes = DIGEST, until: int = UNTIL, *, drop: bool = True) -> m.Reap:
    return m.Reap(1, 1, b"k", digest, until, drop)


def test_a_reap_that_comes_again_after_the_key_was_rewritten_drops_nothing() -> None:
    """Drop, a new put, and the same drop once more: it names the record that it means."""
    hand = Hand()
    hand.keep(b"k", record_of(version(1, 0, value=None)))
    hand.say(N2, reap())
    assert hand.holds(b"k") == ()

    hand.say(CLIENT, put(value=b"new", w=1))
    hand.say(N2, reap(), reap())
    assert values(hand.holds(b"k")) == [b"new"]


def test_a_reap_that_is_late_or_from_a_node_that_is_no_owner_drops_nothing() -> None:
    """Past its deadline by this node's clock; and from n4, which does not own the key."""
    hand = Hand(FIVE)
    key = keys_of(N1, N5, N2)[0]
    hand.keep(key, record_of(version(1, 0, value=None)))
    hand.say(N2, m.Reap(1, 1, key, DIGEST, WALL - 1, True))
    hand.say(N4, m.Reap(1, 1, key, DIGEST, UNTIL, True))
    assert values(hand.holds(key)) == [None]
    assert hand.counters["ignored_reap"] == 1


@pytest.mark.parametrize("record", [record_of(version(1, 0)), record_of(version(1, 0, value=None), version(2, 1))])
def test_an_owner_never_drops_a_live_value_whoever_says_so(record: Record) -> None:
    """n2's reaper is broken, or its clock: the record it names has a live value in it."""
    hand = Hand()
    hand.keep(b"k", record)
    hand.say(N2, reap(held_of(record).digest))
    assert hand.holds(b"k") == record


def test_answers_about_a_burial_that_never_was_bury_nothing() -> None:
    """n2 says "same" of whatever it likes, and again."""
    hand = Hand()
    hand.keep(b"k", record_of(version(1, 0, value=None)))
    for rid in (0, 1, hand.local.rid, hand.local.rid + 1):
        hand.say(N2, m.ReapAnswer(rid, True), m.ReapAnswer(rid, True))
    assert values(hand.holds(b"k")) == [None]
    assert hand.counters["ignored_reap_answer"] == 8


# ---- votes that come twice ---------------------------------------------------------------------


def test_a_vote_that_is_repeated_counts_once_however_it_is_dressed() -> None:
    """n2 is an owner and a fallback stands in for n5: each says so three times, and once in the other's words."""
    hand = Hand(FIVE)
    key = keys_of(N1, N5, N2)[0]
    sent = hand.say(CLIENT, put(key, w=3))
    lost = hand.lose(N5)
    rid = one(N2, sent, m.WriteReplica).rid
    fallback = next(node for node, message in lost if isinstance(message, m.KeepHint))
    replies = hand.say(N2, *[m.ReplicaWritten(rid)] * 3, m.HintKept(rid))
    assert not to(CLIENT, replies)

    replies = hand.say(N3 if fallback == N4 else N4, m.HintKept(rid), m.ReplicaWritten(rid))
    assert not to(CLIENT, replies), "nobody asked that one"
    assert isinstance(fallback, str)
    replies = hand.say(fallback, m.HintKept(rid), m.HintKept(rid), m.ReplicaWritten(rid))
    assert one(CLIENT, replies, m.Written).acked == 3
