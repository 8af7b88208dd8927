"""Frames: what is sent is what is read, and what was not sent by one of us is nothing at all."""

from __future__ import annotations

import math
import sys
import tracemalloc
from enum import IntEnum
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvnode import config
from kvnode.protocol import codec
from kvnode.protocol import messages as m
from kvnode.protocol.codec import (
    CLIENT,
    NODE,
    PROTOCOL_VERSION,
    Frame,
    Greeting,
    Reader,
    encode_batches,
    encode_greeting,
)
from kvnode.protocol.types import TIME_MAX, Version, decode_record, encode_record

LAWS = settings(max_examples=60, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])

HELLO = Greeting(PROTOCOL_VERSION, 7, NODE, "n1", 3)
PREFIX = encode_greeting(HELLO)
MESSAGES: tuple[type[m.Wire], ...] = get_args(m.Message)


def frame(messages: list[Any]) -> bytes:
    (only,) = encode_batches(PREFIX, messages)
    return bytes(only)


def raw(batch: bytes) -> bytes:
    """A frame of ours with this for a batch."""
    return PREFIX + batch


def test_what_a_node_sends_is_what_its_peer_reads() -> None:
    """One frame: who speaks, and everything it has to say this turn, in order."""
    said: list[m.Message] = [
        m.ReadReplica(1, 1, b"cart:1", b""),
        m.ReplicaSame(9),
        m.WriteReplica(2, 1, b"cart:2", b"...", 99),
    ]

    assert Reader().read(frame(said)) == Frame(HELLO, said)


# ---- round trips -------------------------------------------------------------------------------


def strategy_of(hint: Any, meta: tuple[Any, ...] = ()) -> st.SearchStrategy[Any]:
    """Values of a field's type, within the bounds it declares."""
    bounds = next((x for x in meta if isinstance(x, msgspec.Meta)), msgspec.Meta())
    low, high = bounds.min_length or 0, min(bounds.max_length or 6, 6)
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return strategy_of(inner[0], (*inner[1:], *meta))
    if origin is tuple and inner[1:] == (...,):
        return st.lists(strategy_of(inner[0]), min_size=low, max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*(strategy_of(x) for x in inner))
    if origin is dict:
        return st.dictionaries(strategy_of(inner[0]), strategy_of(inner[1]), max_size=3)
    if inner:  # X | None
        return st.one_of(*(strategy_of(x) for x in inner))
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return structs(hint)
    if isinstance(hint, type) and issubclass(hint, tuple):  # a named one
        return st.builds(hint, *(strategy_of(x) for x in get_type_hints(hint, include_extras=True).values()))
    if isinstance(hint, type) and issubclass(hint, IntEnum):
        return st.sampled_from(hint)
    return {
        int: lambda: st.integers(
            int(bounds.ge) if bounds.ge is not None else -(2**63), int(bounds.le or 2**64 - 1)
        ),
        bytes: lambda: st.binary(min_size=low, max_size=high),
        str: lambda: st.text(st.characters(codec="utf-8"), min_size=low, max_size=high),
        bool: st.booleans,
        float: lambda: st.floats(allow_nan=False),
        type(None): st.none,
    }[getattr(hint, "__supertype__", hint)]()


def structs(kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    hints = get_type_hints(kind, include_extras=True)
    return st.builds(kind, *(strategy_of(hints[name]) for name in kind.__struct_fields__))


ANY = {kind: structs(kind) for kind in MESSAGES}


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
def test_every_message_survives_the_wire(kind: type[m.Wire]) -> None:
    """Every field of every type, over the whole range its type allows."""

    @given(ANY[kind])
    @settings(LAWS, max_examples=25)
    def check(message: m.Wire) -> None:
        read = Reader().read(frame([message]))
        assert read is not None
        assert read.messages == [message]
        assert type(read.messages[0]) is kind

    check()


@given(st.lists(st.one_of(*ANY.values()), max_size=8))
@LAWS
def test_a_batch_of_anything_survives_the_wire(batch: list[m.Message]) -> None:
    """The order of a batch is the order it was said in."""
    assert Reader().read(frame(batch)) == Frame(HELLO, batch)


def test_tags_are_never_reused_and_requests_and_replies_cannot_be_confused() -> None:
    """A tag is a message's name on the wire for as long as the protocol lives."""
    tags = [kind.__struct_config__.tag for kind in MESSAGES]
    assert len(set(tags)) == len(tags)
    assert all(kind.__struct_config__.array_like and kind.__struct_config__.frozen for kind in MESSAGES)
    assert set(get_args(m.ClientRequest)) | set(get_args(m.ClientReply)) <= set(MESSAGES)
    assert not set(get_args(m.ClientRequest)) & set(get_args(m.ClientReply))
    assert set(MESSAGES) >= m.CONTROL


def test_a_time_beyond_the_end_of_the_clock_is_no_record() -> None:
    """A coordinator could mint nothing above it, and would stop at every put of the key."""
    with pytest.raises(msgspec.MsgspecError):
        decode_record(encode_record((Version(1, TIME_MAX + 1, {}, b"v"),)))
    with pytest.raises(msgspec.MsgspecError):
        decode_record(encode_record((Version(1, 1, {2: 2**64 - 1}, b"v"),)))


@given(
    st.lists(
        st.builds(
            Version, st.integers(0, 2**64 - 1), st.integers(0, TIME_MAX), st.just({1: 2}), st.none() | st.binary()
        ),
        max_size=4,
    )
)
@LAWS
def test_records_survive_the_wire(versions: list[Version]) -> None:
    """What the store keeps and the wire carries."""
    assert decode_record(encode_record(tuple(versions))) == tuple(versions)


# ---- what is not ours --------------------------------------------------------------------------

SOME = frame(
    [m.Put(1, b"key", b"value", 0, 0, 100, b"c1.abc"), m.ReplicaSame(1), m.Failed(1, 1, m.Error.CONFLICT, "no")]
)


def test_a_frame_cut_anywhere_is_nothing() -> None:
    """Truncation never yields a prefix of the batch: half a batch is not what was said."""
    reader = Reader()
    assert reader.read(SOME) is not None
    assert [cut for cut in range(len(SOME)) if reader.read(SOME[:cut]) is not None] == []
    assert reader.read(SOME + b"\0") is None


@given(st.data())
@settings(LAWS, max_examples=300)
def test_a_damaged_frame_is_nothing_or_a_frame_and_never_an_exception(data: st.DataObject) -> None:
    """Any byte may flip on the way."""
    damaged = bytearray(SOME)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    check_read(bytes(damaged))


@given(st.binary(max_size=300), st.booleans())
@settings(LAWS, max_examples=300)
def test_noise_is_nothing(noise: bytes, introduced: bool) -> None:
    """A port scanner, an HTTP client, a stray Redis: no exception, whatever they say."""
    check_read(raw(noise) if introduced else noise)


def check_read(data: bytes) -> None:
    read = Reader().read(data)
    if read is not None:
        assert isinstance(read.greeting, Greeting)
        assert all(isinstance(message, MESSAGES) for message in read.messages)


_msgpack = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=8) | st.dictionaries(st.integers(0, 50) | st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=10,
)
_tagged = st.tuples(
    st.sampled_from([kind.__struct_config__.tag for kind in MESSAGES]), st.lists(_msgpack, max_size=16)
).map(lambda pair: [pair[0], *pair[1]])


@given(st.lists(_tagged | _msgpack, max_size=4))
@settings(LAWS, max_examples=100)
def test_well_formed_msgpack_of_the_wrong_shape_is_nothing(batch: list[object]) -> None:
    """A newer, older or hostile peer: known tags with unknown fields."""
    check_read(raw(msgspec.msgpack.encode(batch)))


@pytest.mark.parametrize(
    "frame_of",
    [
        b"",
        b"\0",
        b"\xff",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        raw(b""),
        raw(b"\xc1"),
        raw(b"\x90\x90"),
        raw(b"\x91\x92\x63\x01"),  # a tag nobody has
        raw(b"\x91\x92\x80\x01"),  # a tag that is a map
        raw(b"\x91\x91\x01"),  # a Hello without its rid
        raw(b"\x91\x92\x01\xff"),  # a rid below zero
        raw(b"\x91\x93\x2d\x01\xa1\xff"),  # text that is no UTF-8
        encode_greeting(HELLO)[:1] + b"\x91" * 20 + b"\x90",
        bytes((7,)) + b"\x95\x01\x01\x00\xa1\xff\x01" + b"\x90",  # a name that is no UTF-8
        bytes((6,)) + b"\x95\x01\x01\x02\xa0\x01" + b"\x90",  # a role nobody has
    ],
    ids=repr,
)
def test_foreign_frames_are_nothing(frame_of: bytes) -> None:
    """One by one, what others have been seen to send, or might."""
    assert Reader().read(frame_of) is None


def test_deep_nesting_is_nothing_at_any_depth() -> None:
    """A frame of brackets alone must not exhaust the stack, in a known message or outside one."""
    for depth in (10, 500, 5_000, 1_000_000):
        brackets = b"\x91" * depth + b"\xc0"
        assert Reader().read(raw(brackets)) is None
        hello = Reader().read(raw(b"\x91\x93\x01\x05" + brackets))
        assert hello is None or hello.messages == [m.Hello(5)]
    assert Reader().read(bytes((250,)) + b"\x96\x01\x01\x00\xa1a\x01" + b"\x91" * 243 + b"\x90") is None


def test_a_frame_of_another_protocol_version_is_told_from_noise_and_its_messages_are_not_read() -> None:
    """A newer node is refused by name, not mistaken for damage, whatever its messages look like."""
    newer = Greeting(PROTOCOL_VERSION + 1, 7, CLIENT, "c", 0)
    assert Reader().read(encode_greeting(newer) + b"\xc1 not ours") == Frame(newer, [])


# ---- bounds ------------------------------------------------------------------------------------


def declared(length: int) -> dict[str, bytes]:
    """Frames that promise much and carry nothing."""
    size = length.to_bytes(4, "big")
    return {
        "messages": b"\xdd" + size,
        "rows": b"\x91\x94\x2f\x01\xdd" + size,
        "owners": b"\x91\x97\x19\x01\x01\x01\x01\xdd" + size,
        "value": b"\x91\x97\x03\x01\xc4\x01k\xc6" + size,
        "past": b"\x91\x99\x16\x01\x01\x01\x01\x01\x01\xdf" + size,
        "text": b"\x91\x93\x2d\x01\xdb" + size,
        "unknown field": b"\x91\x93\x01\x01\xdd" + size,
        "unknown map": b"\x91\x93\x01\x01\xdf" + size,
    }


@pytest.mark.parametrize("length", [1_000, 4_096, 1 << 24, (1 << 32) - 1])
@pytest.mark.parametrize("what", list(declared(0)))
def test_no_memory_is_taken_for_a_length_that_was_only_declared(what: str, length: int) -> None:
    """A frame of twenty bytes cannot make a node allocate a gigabyte."""
    reader = Reader()
    reader.read(frame([]))
    hostile = raw(declared(length)[what])
    tracemalloc.start()
    try:
        assert reader.read(hostile) is None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000


def test_a_batch_of_more_messages_than_the_limit_is_nothing() -> None:
    """`config.BATCH_MESSAGES_MAX` holds for the reader as for the writer."""
    many = [m.ReplicaSame(1)] * config.BATCH_MESSAGES_MAX
    full = Reader().read(raw(msgspec.msgpack.encode(many)))
    assert full is not None and len(full.messages) == len(many)
    assert Reader().read(raw(msgspec.msgpack.encode([*many, m.ReplicaSame(1)]))) is None


@pytest.mark.parametrize(
    "message",
    [
        m.Get(1, b"", 0, 0, 0),
        m.Get(1, b"k" * (config.KEY_BYTES_MAX + 1), 0, 0, 0),
        m.Get(1, b"k", 0, 3, 0),
        m.Get(1, b"k", 0, -1, 0),
        m.Get(-1, b"k", 0, 0, 0),
        m.Get(1, b"k", 0, 0, -1),
        m.Put(1, b"k", b"v" * (config.PAIR_BYTES_CEILING + 1), 0, 0, 0),
        m.Put(1, b"k", b"v", 0, 0, 0, ttl_ms=config.TTL_MS_MAX + 1),
        m.Put(1, b"k", b"v", 0, 0, 0, condition=7),  # type: ignore[arg-type]
        m.Scan(1, b"", b"", 0, 0, 0),
        m.Scan(1, b"", b"", config.SCAN_PAGE_MAX + 1, 0, 0),
        m.Scan(1, b"k" * (config.KEY_BYTES_MAX + 1), b"", 1, 0, 0),
        m.ReadReplica(1, 1, b"k", b"d" * 17),
        m.ReplicaRefused(1, "x" * 4_097),
        m.Written(1, 1, 1, 1, 1, 1, dict.fromkeys(range(config.CLOCK_ENTRIES_CAP + 1), 1)),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_field_out_of_its_bounds_makes_the_frame_nothing(message: m.Message) -> None:
    """No handler ever sees a key of no bytes, a mode that is none, a page without end."""
    assert Reader().read(frame([m.Hello(1), message])) is None


def test_a_record_out_of_its_bounds_is_none() -> None:
    """Records arrive as bytes within messages; their own caps hold when they are opened."""
    version = Version(1, 1, {}, b"v")
    for bad in (
        (version,) * (config.SIBLINGS_CAP + 1),
        (Version(1, 1, dict.fromkeys(range(config.CLOCK_ENTRIES_CAP + 1), 1), b"v"),),
        (Version(1, 1, {}, b"v" * (config.PAIR_BYTES_CEILING + 1)),),
        (Version(-1, 1, {}, b"v"),),
        (Version(1, -1, {}, b"v"),),
    ):
        with pytest.raises(msgspec.MsgspecError):
            decode_record(encode_record(bad))


def test_greetings_are_remembered_by_their_bytes_and_never_more_than_the_limit() -> None:
    """A client that introduces itself anew each time costs its own speed, not our memory."""
    reader = Reader()
    first, again = reader.read(frame([])), reader.read(frame([]))
    assert first is not None and again is not None
    assert first.greeting is again.greeting
    for i in range(2 * codec.GREETINGS_MAX + 10):
        stranger = Greeting(PROTOCOL_VERSION, 7, CLIENT, f"c{i}", i)
        assert reader.read(encode_greeting(stranger) + b"\x90") == Frame(stranger, [])
        assert len(reader._greetings) <= codec.GREETINGS_MAX
    assert reader.read(bytes((1,)) + b"\xc1" + b"\x90") is None
    assert b"\xc1" not in reader._greetings


def test_the_longest_greeting_fits() -> None:
    """A name of 128 characters, the longest numbers: within the one byte of its length."""
    longest = Greeting(PROTOCOL_VERSION, 2**64 - 1, NODE, "x" * 128, 2**64 - 1)
    assert Reader().read(encode_greeting(longest) + b"\x90") == Frame(longest, [])


# ---- batches -----------------------------------------------------------------------------------


def read_all(frames: list[bytes]) -> list[m.Message]:
    read = [Reader().read(bytes(f)) for f in frames]
    assert None not in read
    return [message for frame in read if frame is not None for message in frame.messages]


@pytest.mark.parametrize("count", [0, 1, config.BATCH_MESSAGES_MAX, config.BATCH_MESSAGES_MAX + 1, 20_000])
def test_a_long_batch_is_cut_by_count_and_nothing_changes_place(count: int) -> None:
    """A turn may owe a peer any number of messages."""
    said: list[m.Message] = [m.ReplicaSame(i) for i in range(count)]
    frames = [bytes(f) for f in encode_batches(PREFIX, said)]
    assert read_all(frames) == said
    assert len(frames) <= max(1, math.ceil(2 * count / config.BATCH_MESSAGES_MAX))


@given(st.lists(st.integers(0, 900_000), min_size=1, max_size=20))
@settings(LAWS, max_examples=15)
def test_a_large_batch_is_cut_by_bytes_and_nothing_changes_place(sizes: list[int]) -> None:
    """No frame is above the target unless it is one message alone."""
    said: list[m.Message] = [m.ReplicaRead(i, b"x" * size) for i, size in enumerate(sizes)]
    frames = [bytes(f) for f in encode_batches(PREFIX, said)]
    assert read_all(frames) == said
    for each in frames:
        assert len(each) <= config.BATCH_BYTES_TARGET or len(read_all([each])) == 1


def test_a_message_above_the_target_still_leaves() -> None:
    """Three diverged copies of a hundred siblings are above no cap of ours."""
    large = m.ReplicaRead(1, b"x" * (config.BATCH_BYTES_TARGET + 1))
    said: list[m.Message] = [m.ReplicaSame(0), large, m.ReplicaSame(2)]
    assert read_all([bytes(f) for f in encode_batches(PREFIX, said)]) == said


def test_reading_takes_memory_in_proportion_to_the_frame() -> None:
    """A million empty things in one frame: what is read stays within what a Python object costs."""
    rows = b"\x91\x94\x2f\x01\xdd" + (4_000).to_bytes(4, "big") + b"\x92\xc4\x01k\xc4\x00" * 4_000 + b"\xc2"
    tracemalloc.start()
    try:
        read = Reader().read(raw(rows))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert read is not None
    (scanned,) = read.messages
    assert isinstance(scanned, m.ReplicaScanned) and len(scanned.rows) == 4_000
    assert peak < 4_000 * 5 * sys.getsizeof(b"k")
