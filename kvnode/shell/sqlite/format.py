"""How records and batches look on disk: checksummed, and compressed where that pays.

Promises: a flipped bit in a row or a batch is noticed, never decoded; so is a row under another
key, or a batch under another number. Never: pickle.

    log row     crc32 | msgpack [key, record, key, record, ..., aside]
    table row   flags | actor | boot | crc32 | record, zlib where flags say so
    hint row    flags | since | crc32 | record, zlib where flags say so
    fact row    crc32 | fact
    register    crc32 | register
    leaves      crc32 | a page of the hash tree; nothing after the sum where there is nothing in it

In a log row a record of no bytes means that the key is gone, or the hint delivered. The aside is
msgpack within the list: few batches have one, and those without look as if there were none.

SQLite's own integrity check does not see a flipped bit inside a value (RELIABILITY 5b). The digest,
the live bytes and the expiry are computed from the record: 1.2 us, less than reading 28 more bytes a
row would cost in pages and cache.
"""

from __future__ import annotations

import zlib
from struct import Struct

import msgspec

from kvnode.core.merkle import PAGE_BYTES
from kvnode.core.outbox import GONE, Aside, Hint, HintKey
from kvnode.core.versions import NO_ACTOR, Held, held_of
from kvnode.protocol.types import NodeId, decode_record

FORMAT = 1
"""Version of everything in a data directory. A newer one is refused."""

PLAIN, ZLIB = 0, 1
_HEAD = Struct(">BQQ")
_HINT_HEAD = Struct(">Bq")
_CRC = Struct(">I")
_encoder = msgspec.msgpack.Encoder()
_batch = msgspec.msgpack.Decoder(list[bytes])


class Damaged(ValueError):
    """Bytes that fail their checksum, or are no record."""


# ---- rows of records and hints -----------------------------------------------------------------


def encode_row(key: bytes, held: Held, boot: int, compress_min: int) -> bytes:
    """A table row. The minting actor goes with its boot: in a later one it counts for nothing."""
    flags, payload = _squeezed(held.blob, compress_min)
    return _sealed(key, _HEAD.pack(flags, held.actor, boot), payload)


def decode_row(key: bytes, row: bytes, boot: int) -> Held:
    """What a table row holds. Raises `Damaged`."""
    head, payload = _opened(key, row, _HEAD.size)
    flags, actor, its_boot = _HEAD.unpack(head)
    return _record(flags, payload, actor if its_boot == boot else NO_ACTOR)


def encode_hint(of: HintKey, hint: Hint, compress_min: int) -> bytes:
    """A hint's row. The actor stays behind: only a later boot reads it."""
    flags, payload = _squeezed(hint.held.blob, compress_min)
    return _sealed(_hint_name(of), _HINT_HEAD.pack(flags, hint.since), payload)


def decode_hint(of: HintKey, row: bytes) -> Hint:
    """What a hint's row holds. Raises `Damaged`."""
    head, payload = _opened(_hint_name(of), row, _HINT_HEAD.size)
    flags, since = _HINT_HEAD.unpack(head)
    return Hint(_record(flags, payload, NO_ACTOR), since)


def _hint_name(of: HintKey) -> bytes:
    owner, key = of
    return owner.encode() + b"\0" + key


def _squeezed(blob: bytes, compress_min: int) -> tuple[int, bytes]:
    if len(blob) >= compress_min:
        smaller = zlib.compress(blob, 1)
        if len(smaller) <= len(blob) - len(blob) // 8:
            return ZLIB, smaller
    return PLAIN, blob


def _record(flags: int, payload: bytes, actor: int) -> Held:
    try:
        blob = zlib.decompress(payload) if flags == ZLIB else payload
        return held_of(decode_record(blob), actor, blob)
    except (zlib.error, msgspec.MsgspecError) as error:
        raise Damaged("the row is no record") from error


def _sealed(name: bytes, head: bytes, payload: bytes) -> bytes:
    return head + _CRC.pack(_crc_of(name, head, payload)) + payload


def _opened(name: bytes, row: bytes, head_bytes: int) -> tuple[bytes, bytes]:
    """The head and the payload of a row that stands under its own name. Raises `Damaged`."""
    if not isinstance(row, bytes) or len(row) < head_bytes + _CRC.size:
        raise Damaged("the row is cut short")
    head, payload = row[:head_bytes], row[head_bytes + _CRC.size :]
    if _crc_of(name, head, payload) != _CRC.unpack_from(row, head_bytes)[0]:
        raise Damaged("the row fails its checksum")
    return head, payload


def _crc_of(name: bytes, head: bytes, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(head, zlib.crc32(name)))


# ---- facts, registers, and pages of the hash tree ----------------------------------------------


def encode_fact(name: str, fact: bytes) -> bytes:
    """A fact's row."""
    return _sealed(name.encode(), b"", fact)


def decode_fact(name: str, row: bytes) -> bytes:
    """What a fact's row says. Raises `Damaged`."""
    return _opened(name.encode(), row, 0)[1]


def encode_register_row(key: bytes, register: bytes) -> bytes:
    """A register's row. Its checksum covers another name than the row of the key's versions."""
    return _sealed(b"register\0" + key, b"", register)


def decode_register_row(key: bytes, row: bytes) -> bytes:
    """The register in a row. Raises `Damaged`."""
    return _opened(b"register\0" + key, row, 0)[1]


def encode_page(slot: int, page: bytes) -> bytes:
    """The leaves of a slot, or nothing, as a row."""
    return _sealed(b"%d" % slot, b"", page)


def decode_page(slot: int, row: bytes) -> bytes:
    """The leaves of a slot, or nothing. Raises `Damaged`."""
    page = _opened(b"%d" % slot, row, 0)[1]
    if len(page) not in (0, PAGE_BYTES):
        raise Damaged("the page has the wrong size")
    return page


# ---- batches -----------------------------------------------------------------------------------


class Batch(msgspec.Struct, frozen=True):
    """What a log row holds."""

    writes: dict[bytes, Held]
    aside: Aside | None


class _Aside(msgspec.Struct, array_like=True):
    """An aside as it is written down."""

    hints: list[tuple[str, bytes, bytes, int]]
    """Owner, key, record and since; a record of no bytes where the hint was delivered."""
    facts: dict[str, bytes]
    registers: dict[bytes, bytes] = {}


_aside = msgspec.msgpack.Decoder(_Aside)


def encode_batch(number: int, writes: dict[bytes, Held], aside: Aside | None = None) -> bytes:
    """A log row. The actors stay behind: a batch is only ever read in a later boot."""
    flat: list[bytes] = []
    for key, held in writes.items():
        flat.append(key)
        flat.append(held.blob)
    if aside is not None:
        flat.append(_encode_aside(aside))
    body = _encoder.encode(flat)
    return _CRC.pack(zlib.crc32(body, number & 0xFFFFFFFF)) + body


def _encode_aside(aside: Aside) -> bytes:
    hints: list[tuple[str, bytes, bytes, int]] = [
        (owner, key, hint.held.blob, hint.since) if hint is not None else (owner, key, b"", 0)
        for (owner, key), hint in aside.hints.items()
    ]
    return _encoder.encode(_Aside(hints, aside.facts, aside.registers))


def decode_batch(number: int, row: bytes) -> Batch:
    """What a log row holds. Raises `Damaged`."""
    if not isinstance(row, bytes) or len(row) < _CRC.size:
        raise Damaged("it is cut short")
    body = memoryview(row)[_CRC.size :]
    if zlib.crc32(body, number & 0xFFFFFFFF) != _CRC.unpack_from(row)[0]:
        raise Damaged("it fails its checksum")
    try:
        flat = _batch.decode(body)
        aside = _decode_aside(flat.pop()) if len(flat) % 2 else None
        pairs = zip(flat[::2], flat[1::2], strict=True)
        return Batch(
            {key: held_of(decode_record(blob), blob=blob) if blob else GONE for key, blob in pairs}, aside
        )
    except msgspec.MsgspecError as error:
        raise Damaged("it is no list of records") from error


def _decode_aside(body: bytes) -> Aside:
    found = _aside.decode(body)
    hints: dict[HintKey, Hint | None] = {}
    for owner, key, blob, since in found.hints:
        hint = Hint(held_of(decode_record(blob), blob=blob), since) if blob else None
        hints[NodeId(owner), key] = hint
    return Aside(hints, found.facts, found.registers)
