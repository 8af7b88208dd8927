"""Membership, one node driven by hand: whose word counts, and for how long."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from kvnode import config
from kvnode.core.detector import Arrivals
from kvnode.protocol import messages as m
from kvnode.protocol.types import NodeId
from tests.harness import N1, N2, N3, N4, N5, WALL, Hand, ring_of

FIVE = ring_of("n1 n2 n3 n4 n5")


def word(node: NodeId, heartbeat: int, *suspects: m.Suspicion, incarnation: int = 1) -> m.Alive:
    """What a member says of itself."""
    return m.Alive(node, incarnation, heartbeat, suspects, 7, 1, WALL)


def state(hand: Hand, node: NodeId) -> str:
    return hand.node.membership.state(node)


def says(hand: Hand, *words: m.Alive) -> None:
    """Each speaks for itself."""
    for alive in words:
        hand.hear(alive.node, m.Beat(alive))


def gossip(hand: Hand, *table: m.Alive) -> None:
    """n2 tells of others."""
    hand.hear(N2, m.Gossip(table))


def listening() -> Hand:
    """A node that has heard all others once."""
    hand = Hand(FIVE)
    hand.wait(10)
    gossip(hand, *(word(node, 5) for node in (N2, N3, N4, N5)))
    return hand


def test_it_takes_two_observers_to_make_a_node_down() -> None:
    """One is suspicion; two are a fact; a later heartbeat refutes both."""
    hand = listening()
    says(hand, word(N2, 6, m.Suspicion(N3, 1, 5)))
    assert state(hand, N3) == "suspect"
    says(hand, word(N4, 6, m.Suspicion(N3, 1, 5)))
    assert state(hand, N3) == "down"
    says(hand, word(N3, 6))
    assert state(hand, N3) == "up"


def test_a_suspicion_of_an_earlier_heartbeat_counts_for_nothing() -> None:
    """Gossip comes late: what its observers could not hear has been heard since."""
    hand = listening()
    says(hand, word(N2, 6, m.Suspicion(N3, 1, 4)), word(N4, 6, m.Suspicion(N3, 1, 3)))
    assert state(hand, N3) == "up"


def test_a_new_incarnation_refutes_every_suspicion_of_the_old_one() -> None:
    """n3 is down at its fifth heartbeat, and boots: its first one is below that, but of a later life."""
    hand = listening()
    says(hand, word(N2, 6, m.Suspicion(N3, 1, 5)), word(N4, 6, m.Suspicion(N3, 1, 5)))
    assert state(hand, N3) == "down"
    says(hand, word(N3, 1, incarnation=2))
    assert state(hand, N3) == "up"


def test_an_opinion_dies_with_its_observer() -> None:
    """n2 and n4 suspect n3; n4 falls silent: one observer is left."""
    hand = listening()
    says(hand, word(N2, 6, m.Suspicion(N3, 1, 5)), word(N4, 6, m.Suspicion(N3, 1, 5)))
    assert state(hand, N3) == "down"
    for beat in range(7, 7 + config.SUSPICION_LAPSE_MS // 500 + 2):
        hand.wait(500)
        says(hand, word(N2, beat, m.Suspicion(N3, 1, 5)), word(N5, beat))
    (view,) = (v for v in hand.node.membership.views() if v.node == N3)
    assert N4 not in view.suspected_by


def test_an_observer_may_take_its_suspicion_back() -> None:
    """Its next word no longer names the node."""
    hand = listening()
    says(hand, word(N2, 6, m.Suspicion(N3, 1, 5)))
    assert state(hand, N3) == "suspect"
    says(hand, word(N2, 7))
    hand.wait(300)
    assert state(hand, N3) == "up"


def test_a_node_that_is_told_of_a_later_life_of_its_own_begins_a_newer_one() -> None:
    """It lost its boot number, or a liar invented one: its next heartbeats count again."""
    hand = listening()
    gossip(hand, word(N1, 40, incarnation=9))
    assert hand.node.membership.incarnation == 10


def test_a_beat_from_a_forgotten_life_is_answered_with_what_is_remembered() -> None:
    """A wiped node hears at once that it has lived before."""
    hand = Hand(FIVE)
    hand.wait(10)
    gossip(hand, word(N3, 40, incarnation=9))
    hand.background.clear()
    hand.hear(N3, m.Beat(word(N3, 1)))
    assert (N3, m.Gossip((word(N3, 40, incarnation=9),))) in hand.background


TABLE = st.lists(
    st.builds(
        word,
        st.sampled_from([N2, N3, N4, N5]),
        st.integers(1, 4),
        incarnation=st.integers(1, 3),
    ),
    max_size=12,
)


@given(TABLE, st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_gossip_may_come_late_twice_and_in_any_order(table: list[m.Alive], rng: Random) -> None:
    """Entries only grow, by life and then by heartbeat."""
    known = []
    for order in (table, rng.sample(table, len(table)), [*table, *table]):
        hand = Hand(FIVE)
        hand.wait(10)
        for alive in order:
            gossip(hand, alive)
        known.append([hand.node.membership.known_incarnation(node) for node in (N2, N3, N4, N5)])
    assert known[0] == known[1] == known[2]


def test_a_node_that_does_not_read_suspects_nobody() -> None:
    """Its flush is behind, so its sockets are left alone for ten seconds: the silence is its own."""
    hand = listening()
    hand.local.deaf = True
    for _ in range(40):
        hand.wait(250)
    assert hand.local.peers.suspected == set()
    hand.local.deaf = False
    for _ in range(10):
        hand.wait(250)
    assert hand.local.peers.suspected == {N2, N3, N4, N5}


# ---- phi ---------------------------------------------------------------------------------------


def beaten(gaps: list[int]) -> tuple[Arrivals, float]:
    now = 0.0
    arrivals = Arrivals(now, config.BEAT_MS)
    for gap in gaps:
        now += gap
        arrivals.beat(now)
    return arrivals, now


def test_silence_is_suspicious_after_1650_ms_of_beats_each_quarter_second() -> None:
    """The floor of the deviation, 250 ms, and phi 8: what a second of a stalled disk must not reach."""
    arrivals, now = beaten([250] * 40)
    assert not arrivals.suspicious(now + 1_600)
    assert arrivals.suspicious(now + 1_700)
    assert 7 < arrivals.phi(now + 1_600) < 8 < arrivals.phi(now + 1_700)


@given(st.lists(st.integers(1, 1_000), min_size=10, max_size=150))
@settings(max_examples=60, deadline=None)
def test_the_longer_the_silence_the_greater_phi(gaps: list[int]) -> None:
    """And it is suspicious from some moment on, for ever."""
    arrivals, now = beaten(gaps)
    phis = [arrivals.phi(now + silence) for silence in range(0, 30_000, 500)]
    assert phis == sorted(phis)
    verdicts = [arrivals.suspicious(now + silence) for silence in range(0, 30_000, 500)]
    assert verdicts == sorted(verdicts)
    assert verdicts[-1]


def test_a_gap_in_which_the_peer_was_away_is_not_learnt_from() -> None:
    """Else a node that was down for a minute could be silent for minutes before anyone minds."""
    arrivals, now = beaten([250] * 40 + [60_000] + [250] * 3)
    assert arrivals.suspicious(now + 1_700)
