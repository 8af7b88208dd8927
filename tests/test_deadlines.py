"""Deadlines, peers worth waiting for, and the event log: the small clocks of a node."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from kvnode import config
from kvnode.core.deadlines import Deadlines
from kvnode.core.events import EventLog
from kvnode.core.peers import Peers
from kvnode.protocol.messages import EventList
from tests.harness import N1, N2, N3, WALL, through_the_wire

LAWS = settings(max_examples=150, deadline=None, print_blob=True)
SLICE = config.DEADLINE_SLICE_MS


def test_a_request_expires_after_its_deadline_and_within_a_slice() -> None:
    """Never early: a client that allows 100 ms gets them."""
    deadlines = Deadlines()
    deadlines.add(7, 100)
    assert deadlines.due(100) == []
    assert deadlines.due(100 + SLICE) == [7]
    assert deadlines.due(1e9) == []


@given(st.lists(st.floats(0, 5_000), min_size=1, max_size=30), st.lists(st.floats(0, 200), max_size=60))
@LAWS
def test_every_request_expires_once_after_its_deadline_within_a_slice(
    deadlines_ms: list[float], steps: list[float]
) -> None:
    """Whatever the rhythm of the turns."""
    kept = Deadlines()
    for rid, deadline in enumerate(deadlines_ms):
        kept.add(rid, deadline)
    expired: dict[int, float] = {}
    now = last = 0.0
    for step in [*steps, 10_000]:
        last, now = now, now + step
        for rid in kept.due(now):
            assert rid not in expired
            expired[rid] = now
            assert deadlines_ms[rid] < now
            assert last < deadlines_ms[rid] + SLICE
    assert set(expired) == set(range(len(deadlines_ms)))


def test_requests_expire_in_the_order_of_their_slices() -> None:
    """The same on every run: the simulator replays it."""
    deadlines = Deadlines()
    for rid, deadline in ((1, 300), (2, 20), (3, 300), (4, 120)):
        deadlines.add(rid, deadline)
    assert deadlines.due(1_000) == [2, 4, 1, 3]


# ---- peers -------------------------------------------------------------------------------------


def test_a_peer_that_failed_is_avoided_until_it_answers_or_its_time_is_up() -> None:
    """One second of not waiting for it; then it gets its chance, or earlier if it answers."""
    peers = Peers(1_000)
    assert peers.avoid(N2, 0) is True
    assert peers.avoid(N2, 500) is False
    assert peers.avoid(N3, 500) is True
    assert peers.reachable([N1, N2, N3]) == 1

    assert peers.answered(N3) is True
    assert peers.answered(N3) is False
    peers.on_tick(1_499)
    assert set(peers.avoided) == {N2}
    peers.on_tick(1_500)
    assert peers.avoided == {}
    assert peers.answered(N2) is False


def test_a_heartbeat_clears_a_peer_whose_connection_was_down_and_no_other() -> None:
    """That it beats says that it can be reached, not that it answers requests."""
    peers = Peers(1_000)
    peers.avoid(N2, 0, cut_off=True)
    peers.avoid(N3, 0)
    assert peers.beats(N2) is True
    assert peers.beats(N3) is False
    assert set(peers.avoided) == {N3}


def test_a_suspected_peer_is_out_until_its_silence_is_over() -> None:
    """However long that takes, and whatever else fails meanwhile."""
    peers = Peers(1_000)
    peers.suspect(N2)
    peers.avoid(N2, 0, cut_off=True)
    peers.on_tick(60_000)
    assert peers.answered(N2) is False
    assert peers.beats(N2) is False
    assert not peers.timed
    peers.clear(N2)
    assert peers.avoided == {}


# ---- events ------------------------------------------------------------------------------------


def test_events_are_numbered_and_the_oldest_are_forgotten() -> None:
    """`kvctl events -f` asks for what is newer than the last number it saw."""
    log = EventLog(N1)
    for i in range(config.EVENTS_MAX + 5):
        log.add(WALL + i, "kind", f"event {i}")
    every = log.after(0)
    assert len(every) == config.EVENTS_MAX
    assert (every[0].number, every[-1].number) == (6, config.EVENTS_MAX + 5)
    assert [e.number for e in log.after(config.EVENTS_MAX + 3)] == [config.EVENTS_MAX + 4, config.EVENTS_MAX + 5]
    assert log.after(config.EVENTS_MAX + 5) == ()


def test_the_longest_event_still_fits_the_wire() -> None:
    """An event about a key of a thousand odd bytes must not make the whole list unreadable."""
    log = EventLog(N1)
    key = b"\0" * config.KEY_BYTES_MAX
    log.add(WALL, "unreadable", f"own copy of {key!r} fails its checksum")
    told = through_the_wire(EventList(1, log.after(0)))
    assert isinstance(told, EventList)
    assert told.events[0].text.startswith("own copy of b'")
