"""Histories: what clients asked for and what they were told, in words a checker understands.

Promises: plain values, of the simulator or of a real cluster alike; nothing of how they were run.
Never: more than a client could know.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from msgspec import Struct

from kvnode.protocol.types import Actor, Past, Record, Time, Version


class Dot(NamedTuple):
    """The name of a version."""

    actor: Actor
    time: Time


def dot_of(version: Version) -> Dot:
    """A version's name."""
    return Dot(version.actor, version.time)


class Outcome(Enum):
    """What a client knows of its operation."""

    OK = "ok"
    """It was done."""
    FAILED = "failed"
    """It was not done, and never will be."""
    UNKNOWN = "unknown"
    """Nobody can say: told so, or never told anything."""


class Op(Struct, frozen=True, kw_only=True):
    """One operation of one client on one key."""

    number: int
    client: str
    key: bytes
    reads: bool
    """A get, or a row of a scan; otherwise a write."""
    value: bytes | None = None
    """What was written; None for a delete. Every value written to a key has one operation (and its retries)."""
    quorum: bool = False
    """In mode `quorum`: it sees, and is seen by, all others in that mode."""
    given: Past | None = None
    """The past its context named; None for a write without one, which covers what its coordinator holds."""
    saw: frozenset[Dot] = frozenset()
    """The versions that its context came from."""
    covers_nothing: bool = False
    """A write that must leave everything beside it: a retry, or one that asked for siblings."""
    invoked: int = 0
    ended: int | None = None
    """When the client was told; None if it never was."""
    outcome: Outcome = Outcome.UNKNOWN
    dot: Dot | None = None
    """The version an acknowledged write made."""
    past: Past | None = None
    """...and its past."""
    acked: int = 0
    """How many owners were said to hold it durably."""
    shown: Record = ()
    """What an answered read showed."""
    held_then: tuple[Record, ...] | None = None
    """What each owner durably held when the client was told; None where nobody could look."""
    kept_then: tuple[Record, ...] = ()
    """What each other node durably kept for owners then."""
