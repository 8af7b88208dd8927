"""The pace of transfers: never above the throttle, out of the way of others, and quick where nobody waits."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from kvnode.core.pace import BATCH_LEAST, BATCH_MOST, SLOWEST, Pace

MB = 1_000_000


def received(pace: Pace, seconds: float, size: int, took: float, now: float = 1_000.0) -> int:
    """How much comes in so long, asked for every ten milliseconds."""
    end, before = now + 1_000 * seconds, pace.bytes
    while now < end:
        if pace.may(now):
            pace.count(now, size, took)
        now += 10
    return pace.bytes - before


def test_no_more_comes_than_the_throttle_lets_through_and_hardly_less() -> None:
    """Ten seconds at 1 MB/s; set anew, at half of that."""
    pace = Pace(MB)
    assert 9 * MB < received(pace, 10, 64_000, 5.0) < 11 * MB
    pace.set_limit(MB // 2)
    assert 4 * MB < received(pace, 10, 64_000, 5.0, 20_000.0) < 6 * MB


@given(st.lists(st.tuples(st.integers(1, 10**6), st.floats(1, 5_000)), max_size=60), st.integers(10**5, 10**8))
@settings(max_examples=200, deadline=None)
def test_whatever_comes_no_second_has_more_than_the_throttle_and_one_batch(
    batches: list[tuple[int, float]], limit: int
) -> None:
    """However slow or large they are; a second of silence saves up a tenth of one."""
    pace, now, came = Pace(limit), 1_000.0, 0
    for size, took in batches:
        while not pace.may(now):
            now += 10
        pace.count(now, size, took)
        came += size
        assert came - size <= limit * (now - 1_000.0) / 1_000 + 0.1 * limit + 1


def test_batches_that_find_others_waiting_slow_it_down_but_never_stop_it() -> None:
    """Half a second for each, where five milliseconds are enough."""
    pace = Pace(0)
    received(pace, 1, 64_000, 5.0)
    received(pace, 10, 64_000, 500.0, 3_000.0)
    assert 0 < received(pace, 4, 64_000, 500.0, 14_000.0) <= 6 * SLOWEST


def test_a_batch_is_as_large_as_the_disk_is_quick() -> None:
    """Twice as large after each that was soon durable, half as large after a slow one, within bounds."""
    pace = Pace(0)
    sizes = []
    for took in (10, 10, 10, 40, 60, 60, 60):
        pace.durable(took)
        sizes.append(pace.batch // BATCH_LEAST)
    assert sizes == [2, 4, 4, 4, 2, 1, 1]
    assert (BATCH_LEAST, BATCH_MOST) == (64 * 1024, 256 * 1024)
