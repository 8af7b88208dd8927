"""Frames: how a batch of messages becomes bytes, and how bytes become messages or nothing.

Promises: a malformed, oversized or foreign frame decodes to a reason, never to an exception.
Never: allocates from a length the sender merely declared (msgspec reads what is there).

    frame 1  hello   who speaks: protocol version, cluster id, role, name, boot
    frame 2  batch   one msgpack list of messages

The hello is the handshake, repeated with every batch: a peer that restarts needs no second
handshake, and a receiver pays one dict lookup for it (`Peers` caches hellos by their bytes).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from kvnode import config
from kvnode.protocol.messages import Message

PROTOCOL_VERSION = 1
HELLO_BYTES_MAX = 512
HELLOS_MAX = 4096

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


def encode_greeting(greeting: Greeting) -> bytes:
    """The first frame of everything a speaker sends."""
    return _encoder.encode(greeting)


def decode_greeting(frame: bytes) -> Greeting | None:
    """The greeting in a frame, or None if it is not one."""
    if len(frame) > HELLO_BYTES_MAX:
        return None
    try:
        return _greeting.decode(frame)
    except msgspec.MsgspecError:
        return None


class Greetings:
    """Greetings seen, by their bytes: one dict lookup a frame on the hot path."""

    def __init__(self) -> None:
        self._seen: dict[bytes, Greeting | None] = {}

    def of(self, frame: bytes) -> Greeting | None:
        """The greeting in a frame, or None if it is not one."""
        try:
            return self._seen[frame]
        except KeyError:
            greeting = decode_greeting(frame)
            if len(self._seen) >= HELLOS_MAX:
                self._seen.clear()
            if greeting is not None:
                self._seen[frame] = greeting
            return greeting


def encode_batches(messages: list[Message]) -> Iterator[bytes]:
    """One frame for the batch, or several where it is larger than the target."""
    if len(messages) <= config.BATCH_MESSAGES_MAX:
        body = _encoder.encode(messages)
        if len(body) <= config.BATCH_BYTES_TARGET or len(messages) == 1:
            yield body
            return
    half = len(messages) // 2
    yield from encode_batches(messages[:half])
    yield from encode_batches(messages[half:])


def decode_batch(frame: bytes) -> list[Message] | None:
    """The messages of a frame, or None if any of it is malformed."""
    try:
        messages: list[Message] = _batch.decode(frame)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None
    return messages
