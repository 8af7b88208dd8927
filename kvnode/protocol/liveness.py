"""What members say of themselves and of each other: heartbeats, suspicions, gossip.

Promises: an entry is written by its member alone and only ever grows. Never: more than `MEMBERS_MAX` entries.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from msgspec import Meta, Struct

from kvnode import config
from kvnode.protocol.types import NodeId
from kvnode.protocol.wire import Count, Rid, Wire

Incarnation: TypeAlias = Annotated[int, Meta(ge=0, le=1 << 62)]
"""The life of a member: a restart begins a new one. No node believes in a leap of `LIFE_LEAP_MAX`."""
Heartbeat: TypeAlias = Annotated[int, Meta(ge=0, le=1 << 62)]
Wall: TypeAlias = Annotated[int, Meta(ge=0, le=1 << 47)]
"""Wall milliseconds, up to the year 6429: deadlines are reckoned from them."""


class Suspicion(Struct, frozen=True, array_like=True, gc=False):
    """An observer cannot hear a member beyond this heartbeat of this life of it."""

    node: NodeId
    incarnation: Incarnation
    heartbeat: Heartbeat


class Alive(Struct, frozen=True, array_like=True, gc=False):
    """A member's own word: its life, its heartbeat, its disk, and whom it suspects."""

    node: NodeId
    incarnation: Incarnation
    heartbeat: Heartbeat
    suspects: Annotated[tuple[Suspicion, ...], Meta(max_length=config.MEMBERS_MAX)] = ()
    disk_id: Count = 0
    boot: Count = 0
    """How often that disk was opened. One that shrinks is a copy from the past."""
    wall_ms: Wall = 0
    """Its wall clock when it spoke."""
    steady_ms: Wall = 0
    """...and the clock it judges deadlines by."""
    oldest_hint: Wall = 0
    """Since when, by its steady clock, it has kept the oldest of its hints; 0 while it has none."""
    recovering: Count = 0
    """Partitions in which it does not count for `quorum` reads yet."""
    epoch: Count = 0
    """Of the ring it holds, durably."""


class Beat(Wire, frozen=True, tag=50):
    """I live."""

    alive: Alive


class Gossip(Wire, frozen=True, tag=51):
    """What I know of everyone."""

    table: Annotated[tuple[Alive, ...], Meta(max_length=config.MEMBERS_MAX)]


class AskDisk(Wire, frozen=True, tag=63):
    """Which disk do you remember me by? This is the one I have now, opened so often."""

    rid: Rid
    disk_id: Count
    boot: Count


class DiskRemembered(Wire, frozen=True, tag=64):
    """The last disk of yours that was whole, and how often it had been opened; 0 if I never knew one."""

    rid: Rid
    disk_id: Count
    boot: Count
