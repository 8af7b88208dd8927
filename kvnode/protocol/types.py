"""The words every other file is written in: ids, times, versions, records.

Promises: values only, immutable, comparable, encodable. Never: behaviour that needs a clock or a peer.

A key maps to a *record*: the set of versions none of which dominates another. A *version* is a
value (or a tombstone) named by its *dot* `(actor, time)` and carrying the *past* its writer had
seen. See "Dotted Version Vectors", Preguiça et al. 2010 (arXiv:1011.5808), and Dynamo §4.4.
"""

from __future__ import annotations

from typing import Annotated, NewType, TypeAlias

import msgspec
from msgspec import Meta, Struct

from kvnode import config

NodeId = NewType("NodeId", str)
"""A member's name, `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`."""

ClientId: TypeAlias = bytes
"""The connection a client request came by; replies go back to it."""

Address: TypeAlias = NodeId | ClientId
"""Where a message goes: a member by its name, or a client by its connection."""

Millis: TypeAlias = float
"""Milliseconds of a clock that never jumps. Only differences mean anything."""

WallMillis: TypeAlias = int
"""Milliseconds since 1970-01-01 UTC, as this node's clock has it. It may jump."""

TIME_MAX = 1 << 62
"""The last time there is (year 4199); a peer that names a later one is not believed."""

Time: TypeAlias = Annotated[int, Meta(ge=0, le=TIME_MAX)]
"""A hybrid logical time: wall milliseconds << 16 | counter. It is its own timestamp."""

Actor: TypeAlias = Annotated[int, Meta(ge=0)]
"""A random 64-bit number under which one node mints dots of one key during one boot."""

Past: TypeAlias = Annotated[dict[Actor, Time], Meta(max_length=config.CLOCK_ENTRIES_CAP)]
"""Actor -> latest time known of it: every dot of that actor up to that time is covered."""

WireKey: TypeAlias = Annotated[bytes, Meta(min_length=1, max_length=config.KEY_BYTES_MAX)]
Value: TypeAlias = Annotated[bytes, Meta(max_length=config.PAIR_BYTES_CEILING)]

EVENTUAL, QUORUM, STRONG = 0, 1, 2
MODES = {"eventual": EVENTUAL, "quorum": QUORUM, "strong": STRONG}
"""The consistency modes of a request, by name and by their number on the wire."""

DEFAULT, MAJORITY, ALL = 0, -1, -2
"""Stand-ins for a number of replicas, resolved by the coordinator against the owners there are."""


class Version(Struct, frozen=True, array_like=True, gc=False):
    """One value (or tombstone, `value=None`) of a key. Immutable once minted."""

    actor: Actor
    time: Time
    past: Past
    value: Value | None
    expires_at: int = 0
    """Wall milliseconds after which the value reads as a tombstone; 0 for never."""


Record: TypeAlias = Annotated[tuple[Version, ...], Meta(max_length=config.SIBLINGS_CAP)]
"""Every version of a key that no other version dominates, in the order of (time, actor)."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Record)

encode_record = _encoder.encode
"""Record -> bytes: what the store keeps and the wire carries."""


def decode_record(blob: bytes) -> Record:
    """Bytes -> record. Raises `msgspec.MsgspecError` on anything that is not one."""
    try:
        record: Record = _decoder.decode(blob)
    except RecursionError as error:
        raise msgspec.DecodeError("nested too deep to be a record") from error
    return record


def time_to_wall(time: Time) -> WallMillis:
    """The wall milliseconds in a hybrid logical time."""
    return time >> 16
