"""How records and batches look on disk: checksummed, and compressed where that pays.

Promises: a flipped bit in a row or a batch is noticed, never decoded; so is a row under another
key, or a batch under another number. Never: pickle.

    log row     crc32 | msgpack [key, record, key, record, ...]
    table row   flags | actor | boot | crc32 | record, zlib where flags say so

SQLite's own integrity check does not see a flipped bit inside a value (RELIABILITY 5b). The digest,
the live bytes and the expiry are computed from the record: 1.2 us, less than reading 28 more bytes a
row would cost in pages and cache.
"""

from __future__ import annotations

import zlib
from struct import Struct

import msgspec

from kvnode.core.versions import NO_ACTOR, Held, held_of
from kvnode.protocol.types import decode_record

FORMAT = 1
"""Version of everything in a data directory. A newer one is refused."""

PLAIN, ZLIB = 0, 1
_HEAD = Struct(">BQQ")
_CRC = Struct(">I")
_HEAD_BYTES = _HEAD.size
_ROW_BYTES = _HEAD.size + _CRC.size
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
    head = _HEAD.pack(flags, held.actor, boot)
    return head + _CRC.pack(_crc_of(key, head, payload)) + payload


def decode_row(key: bytes, row: bytes, boot: int) -> Held:
    """What a table row holds. Raises `Damaged`."""
    if not isinstance(row, bytes) or len(row) < _ROW_BYTES:
        raise Damaged("the row is cut short")
    payload = row[_ROW_BYTES:]
    if _crc_of(key, row[:_HEAD_BYTES], payload) != _CRC.unpack_from(row, _HEAD_BYTES)[0]:
        raise Damaged("the row fails its checksum")
    flags, actor, its_boot = _HEAD.unpack_from(row)
    try:
        blob = zlib.decompress(payload) if flags == ZLIB else payload
        return held_of(decode_record(blob), actor if its_boot == boot else NO_ACTOR, blob)
    except (zlib.error, msgspec.MsgspecError) as error:
        raise Damaged("the row is no record") from error


def _crc_of(key: bytes, head: bytes, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(head, zlib.crc32(key)))


def encode_batch(number: int, writes: dict[bytes, Held]) -> bytes:
    """A log row. The actors stay behind: a batch is only ever read in a later boot."""
    flat: list[bytes] = []
    for key, held in writes.items():
        flat.append(key)
        flat.append(held.blob)
    body = _encoder.encode(flat)
    return _CRC.pack(zlib.crc32(body, number & 0xFFFFFFFF)) + body


def decode_batch(number: int, row: bytes) -> dict[bytes, Held]:
    """What a log row holds. Raises `Damaged`."""
    if not isinstance(row, bytes) or len(row) < _CRC.size:
        raise Damaged("it is cut short")
    body = memoryview(row)[_CRC.size :]
    if zlib.crc32(body, number & 0xFFFFFFFF) != _CRC.unpack_from(row)[0]:
        raise Damaged("it fails its checksum")
    try:
        flat = _batch.decode(body)
        pairs = zip(flat[::2], flat[1::2], strict=True)
        return {key: held_of(decode_record(blob), blob=blob) for key, blob in pairs}
    except (msgspec.MsgspecError, ValueError) as error:
        raise Damaged("it is no list of records") from error
