"""The hybrid clock: times that follow the wall, and never repeat or run backwards."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from kvnode import config
from kvnode.core.clock import COUNTER_BITS, HybridClock
from kvnode.protocol.types import time_to_wall

WALL = 1_790_000_000_000
LAWS = settings(max_examples=200, deadline=None, print_blob=True)


def clock_at(wall: int) -> HybridClock:
    clock = HybridClock()
    clock.wall = wall
    return clock


def test_a_time_is_the_wall_clock_with_a_counter_below_it() -> None:
    """A dot is its own timestamp: last-writer-wins and tombstone age need no second field."""
    clock = clock_at(WALL)
    first, second = clock.mint({}), clock.mint({})
    assert time_to_wall(first) == WALL
    assert second == first + 1
    clock.wall += 1
    assert clock.mint({}) == WALL + 1 << COUNTER_BITS


_moves = st.lists(
    st.tuples(st.sampled_from(["wall", "mint"]), st.integers(-90_000, 90_000)), min_size=1, max_size=30
)


@given(_moves)
@LAWS
def test_every_time_minted_is_above_all_before_it_and_above_its_past(moves: list[tuple[str, int]]) -> None:
    """Whatever the wall does, forwards or back."""
    clock = clock_at(WALL)
    minted: list[int] = []
    for move, amount in moves:
        time = (WALL + amount) << COUNTER_BITS
        match move:
            case "wall":
                clock.wall = WALL + amount
            case _:
                new = clock.mint({7: time} if amount % 2 else {})
                assert new > time or not amount % 2
                assert all(new > earlier for earlier in minted)
                if not (amount % 2 and clock.too_far_ahead(time)):
                    minted.append(new)


def test_minting_over_a_past_from_the_future_stands_above_it_and_leaves_the_clock_alone() -> None:
    """One node's clock jump must not become everyone's."""
    clock = clock_at(WALL)
    ahead = (WALL + 3_600_000) << COUNTER_BITS
    assert clock.mint({1: ahead}) == ahead + 1
    assert clock.mint({1: ahead}, above=ahead + 1) == ahead + 2
    assert time_to_wall(clock.mint({})) == WALL


def test_a_past_is_followed_up_to_a_minute_ahead() -> None:
    """Honest skew is followed; a broken clock is not."""
    clock = clock_at(WALL)
    edge = (WALL + config.CLOCK_AHEAD_MAX_MS) << COUNTER_BITS
    clock.mint({1: edge + 1})
    assert time_to_wall(clock.mint({})) == WALL
    assert clock.mint({1: edge}) == edge + 1
    assert clock.mint({}) == edge + 2
