"""Contexts: what a client carries from a read to its next write, and nothing else passes for one."""

from __future__ import annotations

import base64

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kvnode import config
from kvnode.protocol.context import PREFIX, BadContext, decode_context, encode_context, join
from kvnode.protocol.types import TIME_MAX, Past, Version

LAWS = settings(max_examples=200, deadline=None, print_blob=True)
_time = st.integers(0, TIME_MAX)
_pasts = st.dictionaries(_time, _time, max_size=12)


def test_a_context_comes_back_as_what_its_reader_saw() -> None:
    """Two siblings, one that replaced another: the context names all three dots, by actor and time."""
    record = (Version(1, 10, {}, b"milk"), Version(2, 20, {3: 5}, None))

    token = encode_context(b"cart:1", join(record))

    assert token.startswith("c1.")
    assert decode_context(b"cart:1", token.encode()) == {1: 10, 2: 20, 3: 5}


def test_the_join_takes_the_latest_time_of_each_actor_from_dots_and_pasts_alike() -> None:
    """In whatever order the versions stand."""
    older, newer = Version(1, 10, {2: 7, 3: 1}, b"a"), Version(2, 5, {1: 12, 3: 4}, b"b")
    assert join((older, newer)) == join((newer, older)) == {1: 12, 2: 7, 3: 4}
    assert join(()) == {}


@given(_pasts, st.binary(min_size=1, max_size=40))
@LAWS
def test_any_past_survives_the_round_trip_and_any_client(past: Past, key: bytes) -> None:
    """Tokens are plain: letters, digits, - _ and one dot, so shells, URLs and JSON leave them alone."""
    token = encode_context(key, past)
    assert decode_context(key, token.encode()) == past
    assert token.isascii() and token.removeprefix("c1.").replace("-", "").replace("_", "").isalnum()


@given(_pasts)
@LAWS
def test_one_past_has_one_token(past: Past) -> None:
    """In whatever order its entries came."""
    assert encode_context(b"k", dict(reversed(past.items()))) == encode_context(b"k", past)


@given(_pasts, st.binary(min_size=1, max_size=8), st.binary(min_size=1, max_size=8))
@LAWS
def test_a_context_is_bound_to_its_key(past: Past, key: bytes, other: bytes) -> None:
    """Handing the context of one key to another is a mistake that is told, not a lost write."""
    token = encode_context(key, past).encode()
    if key != other:
        with pytest.raises(BadContext, match="another key"):
            decode_context(other, token)


@given(_pasts)
@LAWS
def test_a_context_cut_short_is_refused_at_every_length(past: Past) -> None:
    """Copy and paste loses ends."""
    token = encode_context(b"k", past).encode()
    for cut in range(len(token)):
        with pytest.raises(BadContext):
            decode_context(b"k", token[:cut])


@given(_pasts, st.data())
@LAWS
def test_a_changed_context_is_refused_or_means_the_same(past: Past, data: st.DataObject) -> None:
    """Any one character replaced. (The last may have bits base64 does not use: those change nothing.)"""
    token = bytearray(encode_context(b"k", past).encode())
    token[data.draw(st.integers(0, len(token) - 1))] = data.draw(st.integers(0, 255))
    assert refused_or_read(b"k", bytes(token)) in (None, past)


def refused_or_read(key: bytes, token: bytes) -> Past | None:
    """The past in a token, None if it is refused; any other exception fails the test."""
    try:
        return decode_context(key, token)
    except BadContext as error:
        assert str(error)
        return None


def forged(body: object) -> bytes:
    return sealed(msgspec.msgpack.encode(body))


def sealed(body: bytes) -> bytes:
    return PREFIX + base64.urlsafe_b64encode(body).rstrip(b"=")


@given(st.binary(max_size=120))
@example(b"c1.")
@example(b"c1.=")
@example(b"c1.A")
@example(b"c1.\xff\xfe")
@example(b"c2.AAAA")
@LAWS
def test_noise_is_refused(noise: bytes) -> None:
    """Whatever bytes a client sends as a context."""
    assert refused_or_read(b"k", noise) is None
    assert refused_or_read(b"k", PREFIX + noise) is None
    assert refused_or_read(b"k", sealed(noise)) is None


@pytest.mark.parametrize(
    "body",
    [
        [],
        [b"12345678"],
        [b"1234567", {}],
        [b"12345678", {}],
        [b"12345678", {}, 1],
        [b"12345678", []],
        [b"12345678", {1: -1}],
        [b"12345678", {-1: 1}],
        [b"12345678", {"1": 1}],
        [b"12345678", {1: 1.5}],
        ["12345678", {}],
        {},
        None,
    ],
    ids=repr,
)
def test_forgeries_are_refused(body: object) -> None:
    """The right shape with the wrong check, and shapes that are nearly right."""
    assert refused_or_read(b"k", forged(body)) is None


def test_deep_and_long_tokens_are_refused_before_they_cost_anything() -> None:
    """Nothing a client sends here can exhaust stack or memory."""
    for body in (
        b"\x92\xc4\x0812345678" + b"\x91" * 30_000,
        b"\x91" * 40_000,
        b"\x92\xc4\x0812345678\xdf\xff\xff\xff\xff",
    ):
        assert refused_or_read(b"k", sealed(body)) is None
    with pytest.raises(BadContext, match="too long"):
        decode_context(b"k", PREFIX + b"A" * config.CONTEXT_BYTES_MAX)


def test_the_context_of_the_most_siblings_repair_can_leave_is_still_a_context() -> None:
    """Three replicas, each with a hundred siblings under full clocks: whoever reads them can resolve them."""
    siblings = 3 * config.SIBLINGS_MAX
    each = config.CLOCK_ENTRIES_MAX
    record = tuple(
        Version(2**63 + i, 2**60 + i, {2**62 + i * each + j: 2**60 for j in range(each)}, b"v")
        for i in range(siblings)
    )
    past = join(record)
    assert len(past) == siblings * (each + 1)
    assert decode_context(b"k", encode_context(b"k", past).encode()) == past
