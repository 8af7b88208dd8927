"""A line of NDJSON -> a key and what to write under it. Pure.

Promises: every way a line can be bad is a sentence. Never: guesses: an unknown field is an error,
for it may be a misspelt one that mattered.
"""

from __future__ import annotations

import base64
import binascii
import datetime

import msgspec
from msgspec import Struct

from kvctl.errors import Invalid

TTL_LEAST_S = 0.001


class SiblingLine(Struct, forbid_unknown_fields=True):
    """One of several values."""

    value: str
    encoding: str = "utf-8"
    expires_at: str | int | None = None


class RawLine(Struct, forbid_unknown_fields=True):
    """A line as it stands."""

    key: str
    key_encoding: str = "utf-8"
    value: str | None = None
    encoding: str = "utf-8"
    expires_at: str | int | None = None
    siblings: list[SiblingLine] | None = None
    register: bool = False
    """It was written in mode `strong`, and is to be again."""


class ToWrite(Struct, frozen=True):
    """A value, and how long it lives from now; None for ever."""

    value: bytes
    ttl_s: float | None


class Line(Struct, frozen=True):
    """A key and its values."""

    key: bytes
    values: tuple[ToWrite, ...]
    register: bool = False

    @property
    def plain(self) -> bool:
        """One value, for ever: these can be written in batches."""
        return len(self.values) == 1 and self.values[0].ttl_s is None


_decoder = msgspec.json.Decoder(RawLine)


def parse(raw: bytes, wall_ms: int) -> Line:
    """A line, judged. Raises `Invalid`."""
    try:
        line = _decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"this is no line of an export: {error}") from None
    key = _bytes(line.key, line.key_encoding, "key")
    if (line.value is None) == (line.siblings is None):
        raise Invalid("a line has either a value or siblings")
    if line.siblings is None:
        assert line.value is not None
        siblings = [SiblingLine(line.value, line.encoding, line.expires_at)]
    else:
        siblings = line.siblings
        if not siblings:
            raise Invalid("the list of siblings is empty")
    values = tuple(ToWrite(_bytes(s.value, s.encoding, "value"), _ttl_s(s.expires_at, wall_ms)) for s in siblings)
    if line.register and (len(values) > 1 or values[0].ttl_s is not None):
        raise Invalid("a register has one value, and no time to live")
    return Line(key, values, line.register)


def _bytes(text: str, encoding: str, what: str) -> bytes:
    match encoding:
        case "utf-8":
            return text.encode()
        case "base64":
            try:
                return base64.b64decode(text, validate=True)
            except (binascii.Error, ValueError) as error:
                raise Invalid(f"the {what} is no base64: {error}") from None
        case _:
            raise Invalid(f"the {what}'s encoding must be utf-8 or base64, not {encoding!r}")


def _ttl_s(expires_at: str | int | None, wall_ms: int) -> float | None:
    """Time to live from now; what has expired already lives for the shortest time there is."""
    if expires_at is None:
        return None
    if isinstance(expires_at, int):
        at_ms = expires_at
    else:
        try:
            at = datetime.datetime.fromisoformat(expires_at)
        except ValueError:
            raise Invalid(f"expires_at is no RFC 3339 time: {expires_at!r}") from None
        if at.tzinfo is None:
            raise Invalid(f"expires_at names no time zone: {expires_at!r}")
        at_ms = int(at.timestamp() * 1000)
    return max(TTL_LEAST_S, (at_ms - wall_ms) / 1000)
