"""How records and batches look on disk: checksummed, and compressed where that pays.

Promises: a flipped bit in a row or a batch is noticed, never decoded. Never: pickle.

    log row     crc32 | msgpack [key, record, key, record, ...]
    table row   flags | crc32 | actor | boot | record, zlib where flags say so

SQLite's own integrity check does not see a flipped bit inside a value (RELIABILITY 5b).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from struct import Struct

import msgspec

from kvnode.core.versions import NO_ACTOR, Held, held_of
from kvnode.protocol.types import decode_record

FORMAT = 1
"""Version of everything in a data directory. A newer one is refused, an older one migrated."""

PLAIN, ZLIB = 0, 1
_ROW = Struct(">BIQQ")
_CRC = Struct(">I")
_encoder = msgspec.msgpack.Encoder()
_batch = msgspec.msgpack.Decoder(list[bytes])


class Damaged(ValueError):
    """Bytes that fail their checksum, or are no record."""


def encode_row(key: bytes, held: Held, boot: int, compress_min: int) -> bytes:
    """A table row. The minting actor goes with its boot: in a later one it counts for nothing."""
    flags, payload = PLAIN, held.blob
    if len(payload) >= compress_min:
        smaller = zlib.compress(payload, 1)
        if len(smaller) <= len(payload) - len(payload) // 8:
            flags, payload = ZLIB, smaller
    crc = zlib.crc32(payload, zlib.crc32(key, flags))
    return _ROW.pack(flags, crc, held.actor, boot) + payload


def decode_row(key: bytes, row: bytes, boot: int) -> Held:
    """What a table row holds. Raises `Damaged`."""
    if len(row) < _ROW.size:
        raise Damaged("the row is cut short")
    flags, crc, actor, its_boot = _ROW.unpack_from(row)
    payload = row[_ROW.size :]
    if flags not in (PLAIN, ZLIB) or zlib.crc32(payload, zlib.crc32(key, flags)) != crc:
        raise Damaged("the row fails its checksum")
    try:
        blob = zlib.decompress(payload) if flags == ZLIB else payload
        return held_of(decode_record(blob), actor if its_boot == boot else NO_ACTOR, blob)
    except (zlib.error, msgspec.MsgspecError) as error:
        raise Damaged("the row is no record") from error


def encode_batch(writes: Iterable[tuple[bytes, Held]]) -> bytes:
    """A log row."""
    flat: list[bytes] = []
    for key, held in writes:
        flat += (key, held.blob)
    body = _encoder.encode(flat)
    return _CRC.pack(zlib.crc32(body)) + body


def decode_batch(row: bytes) -> list[tuple[bytes, Held]]:
    """What a log row holds, in order. Raises `Damaged`."""
    if len(row) < _CRC.size or zlib.crc32(memoryview(row)[_CRC.size :]) != _CRC.unpack_from(row)[0]:
        raise Damaged("the batch fails its checksum")
    try:
        flat = _batch.decode(memoryview(row)[_CRC.size :])
        pairs = zip(flat[::2], flat[1::2], strict=True)
        return [(key, held_of(decode_record(blob), blob=blob)) for key, blob in pairs]
    except (msgspec.MsgspecError, ValueError) as error:
        raise Damaged("the batch is no list of records") from error
