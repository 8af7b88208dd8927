"""Frames: how a batch of messages becomes bytes, and how bytes become messages or nothing.

Promises: a malformed, oversized or foreign frame decodes to a reason, never to an exception.
Never: allocates from a length the sender merely declared (msgspec reads what is there).

    byte 0      length of the greeting
    greeting    who speaks: protocol version, cluster id, role, name, boot
    batch       one msgpack list of messages

The greeting is the handshake, repeated with every batch: a peer that restarts needs no second one,
and a receiver pays one dict lookup for it (`Greetings`). One frame, not two, for each part of a
ZeroMQ message costs Python about two microseconds at either end.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta, Struct

from kvnode import config
from kvnode.protocol.messages import Message

PROTOCOL_VERSION = 1
GREETING_BYTES_MAX = 255
GREETINGS_MAX = 4096
"""Greetings remembered; beyond it all are forgotten and read anew."""

NODE, CLIENT = 0, 1


class Greeting(Struct, frozen=True, array_like=True):
    """Who speaks on a connection."""

    version: int
    cluster_id: int
    """0 from a client that does not know it yet."""
    role: Annotated[int, Meta(ge=0, le=1)]
    name: Annotated[str, Meta(max_length=128)]
    boot: Annotated[int, Meta(ge=0)]


_encoder = msgspec.msgpack.Encoder()
_batch = msgspec.msgpack.Decoder(Annotated[list[Message], Meta(max_length=config.BATCH_MESSAGES_MAX)])
_greeting = msgspec.msgpack.Decoder(Greeting)


class Frame(NamedTuple):
    """A frame that could be read."""

    greeting: Greeting
    messages: list[Message]


def encode_greeting(greeting: Greeting) -> bytes:
    """How everything a speaker sends begins."""
    body = _encoder.encode(greeting)
    assert len(body) <= GREETING_BYTES_MAX
    return bytes((len(body),)) + body


def encode_batches(prefix: bytes, messages: list[Message]) -> Iterator[bytearray]:
    """One frame for the batch, or several where it is larger than the target."""
    if len(messages) <= config.BATCH_MESSAGES_MAX:
        frame = bytearray(prefix)
        _encoder.encode_into(messages, frame, -1)
        if len(frame) <= config.BATCH_BYTES_TARGET or len(messages) == 1:
            yield frame
            return
    half = len(messages) // 2
    yield from encode_batches(prefix, messages[:half])
    yield from encode_batches(prefix, messages[half:])


class Reader:
    """Decodes frames; remembers greetings by their bytes, for they repeat."""

    def __init__(self) -> None:
        self._greetings: dict[bytes, Greeting] = {}

    def read(self, frame: bytes) -> Frame | None:
        """The frame's greeting and messages, or None if any of it is malformed.

        The messages of another protocol version are not looked at: there are none.
        """
        start = frame[0] + 1 if len(frame) else 1
        if len(frame) < start:
            return None
        raw = frame[1:start]
        greeting = self._greetings.get(raw) or self._learn(raw)
        if greeting is None:
            return None
        if greeting.version != PROTOCOL_VERSION:
            return Frame(greeting, [])
        try:
            return Frame(greeting, _batch.decode(memoryview(frame)[start:]))
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            return None

    def _learn(self, raw: bytes) -> Greeting | None:
        try:
            greeting = _greeting.decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None
        if len(self._greetings) >= GREETINGS_MAX:
            self._greetings.clear()
        self._greetings[raw] = greeting
        return greeting
