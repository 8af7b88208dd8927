"""What all messages are made of: their base, their bounded fields, their errors.

Promises: every field has a bound. Never: a message; those are in `requests.py` and `replication.py`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, TypeAlias

from msgspec import Meta, Struct

from kvnode import config

Rid: TypeAlias = Annotated[int, Meta(ge=0)]
Blob: TypeAlias = Annotated[bytes, Meta(max_length=config.FRAME_BYTES_MAX)]
"""An encoded record; empty where there is none."""
Token: TypeAlias = Annotated[bytes, Meta(max_length=config.FRAME_BYTES_MAX)]
"""A client's context as it gave it, not yet checked."""
Text: TypeAlias = Annotated[str, Meta(max_length=config.TEXT_CHARS_MAX)]
Digest: TypeAlias = Annotated[bytes, Meta(max_length=16)]
"""Names the state of a record or of a span of leaves; empty for none."""
Count: TypeAlias = Annotated[int, Meta(ge=0)]


class Error(IntEnum):
    """Why a request failed. Names and exit codes: CONTRACT, rules."""

    INVALID = 9
    """The request itself cannot be served: bad key, value, context, r, w or mode."""
    UNAVAILABLE = 6
    """R or W cannot be met with the replicas that can be reached."""
    INDETERMINATE = 4
    """The deadline passed with fewer than W acknowledgements: it may have been applied."""
    CONFLICT = 7
    """A condition failed, or there are more siblings than the limit."""
    REFUSED = 8
    """This node may not do that now."""
    OVERLOADED = 1
    """Too much in flight here; nothing was stored."""


class Condition(IntEnum):
    """What must hold before a put is applied; judged after a read of R owners."""

    NONE = 0
    ABSENT = 1
    MATCH = 2


class Wire(Struct, frozen=True, array_like=True, tag=True, gc=False):
    """A message."""
