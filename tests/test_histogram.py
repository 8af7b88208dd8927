"""The latency histogram: a fixed size, and a known error."""

from __future__ import annotations

from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvnode.protocol.histogram import BUCKETS, MAX_US, Histogram, _upper_us, coarse_percentiles_ms

LAWS = settings(max_examples=150, deadline=None, print_blob=True)
_us = st.one_of(st.integers(0, 200), st.integers(0, 10_000_000), st.integers(0, MAX_US))


def of(values: list[int]) -> Histogram:
    histogram = Histogram()
    for us in values:
        histogram.record(us)
    return histogram


def test_percentiles_of_a_thousand_latencies() -> None:
    """One to a thousand milliseconds: p50 is 500 ms and p99 is 990 ms, within 1.6 %."""
    histogram = of([ms * 1_000 for ms in range(1, 1_001)])
    p50, p99, top = histogram.percentiles_ms((50, 99, 100))
    assert p50 == pytest.approx(500, rel=0.016)
    assert p99 == pytest.approx(990, rel=0.016)
    assert top == 1_000


@given(st.lists(_us, min_size=1))
@LAWS
def test_coarse_percentiles_are_those_of_the_values_within_a_quarter(values: list[int]) -> None:
    """What a report carries is short, and near enough for a plot."""
    counts = of(values).coarse()
    assert sum(counts) == len(values)
    (p50, top) = coarse_percentiles_ms(counts, (50, 100))
    exact = sorted(values)[ceil(len(values) / 2) - 1] / 1000
    assert p50 is not None
    assert top is not None
    assert exact <= p50 <= max(exact * 1.26, exact + 0.016)
    assert top >= max(values) / 1000


def test_nothing_counted_is_no_percentile() -> None:
    """None, and a report of no length."""
    assert Histogram().coarse() == ()
    assert coarse_percentiles_ms((), (50, 99)) == [None, None]


@given(_us)
@LAWS
def test_one_value_is_reported_exactly(us: int) -> None:
    """No value is reported above the largest seen."""
    assert of([us]).percentile_ms(50) == us / 1_000


@given(
    st.lists(_us, min_size=1, max_size=200),
    st.lists(st.sampled_from([1, 10, 25, 50, 75, 90, 95, 99, 100]), min_size=1, max_size=4),
)
@LAWS
def test_percentiles_are_those_of_the_sorted_values_within_one_and_six_tenths_percent(
    values: list[int], percents: list[int]
) -> None:
    """The nearest-rank percentile, rounded up by less than 1.6 %."""
    told = of(values).percentiles_ms(sorted(percents))
    for percent, found in zip(sorted(percents), told, strict=True):
        true = sorted(values)[ceil(len(values) * percent / 100) - 1]
        assert found is not None
        assert true / 1_000 <= found <= true / 1_000 * 1.016


@given(st.lists(_us, max_size=60), st.lists(_us, max_size=60))
@LAWS
def test_merging_two_is_recording_both(a: list[int], b: list[int]) -> None:
    """Workers of a benchmark add up to what one would have seen."""
    both = of(a)
    both.add(of(b))
    alone = of(a + b)
    assert both._counts == alone._counts
    assert (both.total, both.max_us) == (alone.total, alone.max_us)


@given(_us)
@LAWS
def test_every_value_falls_into_the_bucket_that_ends_above_it(us: int) -> None:
    """Buckets touch, without gap or overlap."""
    (index,) = [i for i, count in enumerate(of([us])._counts) if count]
    assert us <= _upper_us(index)
    assert index == 0 or _upper_us(index - 1) < us


def test_extremes_are_counted_and_the_size_never_changes() -> None:
    """A clock that ran backwards counts as zero, an hour as 36 minutes."""
    histogram = of([-5, MAX_US * 9])
    assert (histogram.total, len(histogram._counts)) == (2, BUCKETS)
    assert histogram.percentiles_ms((50, 100)) == [0, MAX_US / 1_000]


def test_nothing_recorded_is_unknown_not_zero() -> None:
    """Null in JSON: no request is not a fast request."""
    histogram = of([5])
    histogram.clear()
    assert histogram.percentiles_ms((50, 99)) == [None, None]
    assert histogram.percentile_ms(50) is None
    assert (histogram.total, histogram.max_us) == (0, 0)
