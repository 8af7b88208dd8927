"""Contexts: what a reader has seen of a key, handed back with its next write.

Promises: a context is opaque, versioned, bound to its key, and survives a round trip through any
client. Never: trusted beyond its checksum; the coordinator also bounds the times it names.

    c1.<base64url of msgpack [check, past]>     check = 8 bytes of BLAKE2b(past, keyed by the key)

A checksum guards against mix-ups and truncation, not against malice.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Annotated

import msgspec
from msgspec import Meta

from kvnode import config
from kvnode.protocol.types import Past, Record

PREFIX = b"c1."

_encoder = msgspec.msgpack.Encoder()
_token = msgspec.msgpack.Decoder(tuple[Annotated[bytes, Meta(min_length=8, max_length=8)], Past])


class BadContext(ValueError):
    """A context that is malformed, of another version, or of another key."""


def join(record: Record) -> Past:
    """The join of every sibling's dot and past, tombstones and expired ones too."""
    seen: Past = {}
    for version in record:
        for actor, time in version.past.items():
            if time > seen.get(actor, 0):
                seen[actor] = time
        if version.time > seen.get(version.actor, 0):
            seen[version.actor] = version.time
    return seen


def encode_context(key: bytes, past: Past) -> str:
    """The token for what a reader of `key` has seen."""
    past = dict(sorted(past.items()))
    body = _encoder.encode((_check(key, past), past))
    return (PREFIX + base64.urlsafe_b64encode(body).rstrip(b"=")).decode()


def decode_context(key: bytes, token: bytes) -> Past:
    """What the reader of `key` who holds this token had seen. Raises `BadContext`."""
    if not token.startswith(PREFIX):
        raise BadContext("this is not a context: it does not start with 'c1.'")
    if len(token) > config.CONTEXT_BYTES_MAX:
        raise BadContext("this context is too long to be one of ours")
    body = token[len(PREFIX) :]
    try:
        check, past = _token.decode(base64.b64decode(body + b"=" * (-len(body) % 4), b"-_", validate=True))
    except (binascii.Error, msgspec.MsgspecError, ValueError) as error:
        raise BadContext("this context is damaged or cut short") from error
    if check != _check(key, past):
        raise BadContext("this context belongs to another key, or is damaged")
    return past


def _check(key: bytes, past: Past) -> bytes:
    """The check of a past whose actors are in order."""
    digest = hashlib.blake2b(_encoder.encode(past), digest_size=8, person=b"kvctl-ctx")
    digest.update(key)
    return digest.digest()
