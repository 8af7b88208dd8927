"""Dotted version vectors: merge, mint, prune, and the digest that names a record's state.

Promises: merge is commutative, associative and idempotent; a version is dropped only when another
one's past covers its dot; a version never changes after it is minted.
Never: guesses which of two concurrent values is right.

    A: put x ─► {(a,1):x}
    B: reads, puts y with context {a:1} ─► {(b,2):y past {a:1}}        x is dominated
    C: also read x, puts z with {a:1}   ─► {(c,3):z past {a:1}}
    merge ─► {y, z}: siblings, and the next reader's context {a:1, b:2, c:3} covers both

See Preguiça et al. 2010 (arXiv:1011.5808) §4, and PROTOCOL-CASES 1 for why the actor is drawn per
record and per boot.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from random import Random

import msgspec
from msgspec import Struct

from kvnode import config
from kvnode.core.clock import HybridClock
from kvnode.protocol.context import join
from kvnode.protocol.types import (
    Actor,
    Past,
    Record,
    Time,
    Version,
    WallMillis,
    decode_record,
    encode_record,
    time_to_wall,
)

NO_ACTOR: Actor = 0
FAMILY_BITS = 3
"""The actors that a node mints one key under in one boot differ in so many bits at the end."""
ABSENT = b""
"""The digest of no record."""
NEVER = b"\0"
"""A digest that no record has: whoever is asked with it tells what it holds."""


class Held(Struct, frozen=True, gc=False):
    """A record as a node keeps it: encoded once, compared by digest, decoded only to change it."""

    blob: bytes
    digest: bytes
    """16 bytes that name the set of dots, and so, versions being immutable, everything else."""
    live_bytes: int = 0
    """Bytes of live values; 0 when every version is a tombstone."""
    expires_at: WallMillis = 0
    """The earliest expiry among the versions; 0 when none expires."""
    actor: Actor = NO_ACTOR
    """For this node alone: the last of the actors it mints this key under, in this boot."""

    def record(self) -> Record:
        """The versions."""
        return decode_record(self.blob)


def held_of(record: Record, actor: Actor = NO_ACTOR, blob: bytes | None = None) -> Held:
    """Encode a record for keeping."""
    live = 0
    expires = 0
    for version in record:
        if version.value is not None:
            live += len(version.value) or 1
            if version.expires_at and (not expires or version.expires_at < expires):
                expires = version.expires_at
    return Held(encode_record(record) if blob is None else blob, digest_of(record), live, expires, actor)


def digest_of(record: Record) -> bytes:
    """Sixteen bytes for the set of dots: of one version the dot itself, of more their hash."""
    if len(record) == 1:
        version = record[0]
        return version.actor.to_bytes(8, "big") + version.time.to_bytes(8, "big")
    if not record:
        return ABSENT
    dots = b"".join(v.actor.to_bytes(8, "big") + v.time.to_bytes(8, "big") for v in record)
    return hashlib.blake2b(dots, digest_size=16).digest()


def covers(past: Past, version: Version) -> bool:
    """Whether someone who has seen `past` has seen this version."""
    return past.get(version.actor, 0) >= version.time


def merge(mine: Record, theirs: Record) -> Record:
    """Every version of either that no version of the other dominates."""
    if not mine:
        return theirs
    if not theirs:
        return mine
    if len(mine) == len(theirs) == 1:
        return _merge_single(mine, theirs)
    union = {(v.time, v.actor): v for v in mine}
    for version in theirs:
        union.setdefault((version.time, version.actor), version)
    versions = union.values()
    return tuple(v for _, v in sorted(union.items(), key=_dot_order) if not _dominated(v, versions))


def _dot_order(item: tuple[tuple[Time, Actor], Version]) -> tuple[Time, Actor]:
    return item[0]


def _dominated(version: Version, others: object) -> bool:
    return any(other is not version and covers(other.past, version) for other in others)  # type: ignore[attr-defined]


def _merge_single(mine: Record, theirs: Record) -> Record:
    """The common case, without building a union."""
    a, b = mine[0], theirs[0]
    if a.time == b.time and a.actor == b.actor:
        return mine
    if covers(b.past, a):
        return theirs
    if covers(a.past, b):
        return mine
    return (a, b) if (a.time, a.actor) < (b.time, b.actor) else (b, a)


def merge_held(mine: Held | None, theirs: bytes) -> Held:
    """Merge an encoded record into what is held.

    Raises `msgspec.MsgspecError` on malformed bytes, or where nobody could decode the merge.

    Returns `mine` itself when `theirs` brings nothing new.
    """
    record = decode_record(theirs)
    if mine is None:
        return held_of(record, blob=theirs)
    ours = mine.record()
    merged = merge(ours, record)
    actor = mine.actor
    if actor != NO_ACTOR and _names_beyond(record, actor, join(ours)):
        actor = NO_ACTOR
    if merged is record:
        return held_of(record, actor, blob=theirs)
    if len(merged) > config.SIBLINGS_CAP:
        raise msgspec.ValidationError(f"a record of more than {config.SIBLINGS_CAP} versions")
    if (merged is ours or digest_of(merged) == mine.digest) and actor == mine.actor:
        return mine
    return held_of(merged, actor)


def _names_beyond(record: Record, actor: Actor, known: Past) -> bool:
    """Whether a record names a time of one of our actors that we never minted: then all are burnt."""
    family = actor >> FAMILY_BITS
    return any(t > known.get(a, 0) for a, t in join(record).items() if a >> FAMILY_BITS == family)


class Mint(Struct, frozen=True, gc=False):
    """What a put made: the new record as held, and the version in it that is new."""

    held: Held
    version: Version
    siblings: int
    """Versions in the new record."""


Settled = Callable[[], WallMillis]
"""Tells before when everything written of a partition is with all its owners, and in no hint; 0 if unknown."""


class Minter:
    """Makes new versions for one node during one boot. The only writer of dots."""

    def __init__(self, clock: HybridClock, rng: Random) -> None:
        self._clock = clock
        self._rng = rng
        self.pruned = 0
        """Clock entries dropped for being more than the limit: each may show as a false sibling."""

    def mint(
        self,
        held: Held | None,
        past: Past | None,
        value: bytes | None,
        expires_at: WallMillis = 0,
        settled: Settled | None = None,
    ) -> Mint:
        """Put a version over what is held. What `past` does not cover stays; None covers all of it.

        `settled` is asked only where the past is long.
        """
        ours = held.record() if held is not None else ()
        seen = join(ours)
        covers_all = past is None
        if past is None:
            past = seen
        ours_until_now = held.actor if held is not None else NO_ACTOR
        actor, last = self._actor(ours_until_now, seen, past)
        family = ours_until_now >> FAMILY_BITS
        latest = max((time for a, time in seen.items() if a >> FAMILY_BITS == family), default=0)
        if len(past) > config.CLOCK_ENTRIES_FREE:
            past = self._prune(past, ours, settled() if settled is not None else 0)
        if len(past) > 1:
            past = dict(sorted(past.items()))
        # Two puts with one context must not get one dot, however far ahead that context is.
        time = self._clock.mint(past, above=latest)
        version = Version(actor, time, past, value, expires_at)
        kept = () if covers_all else tuple(v for v in ours if not covers(past, v))
        record = tuple(sorted((*kept, version), key=_version_order)) if kept else (version,)
        return Mint(held_of(record, last), version, len(record))

    def _actor(self, last: Actor, seen: Past, past: Past) -> tuple[Actor, Actor]:
        """The actor to mint under, and the last of its family from now on.

        A writer who has not seen all of an actor's versions may not add to them: the context of its own
        reply, {actor: this time}, would cover those as well. So each branch of a key that is written with
        old contexts has an actor of its own, up to eight; else pasts would grow with each such write.
        """
        if last != NO_ACTOR:
            for actor in range(last, (last >> FAMILY_BITS << FAMILY_BITS) - 1, -1):
                if actor in seen and past.get(actor, 0) == seen[actor]:
                    return actor, last
            fresh = last + 1
            if fresh >> FAMILY_BITS == last >> FAMILY_BITS and fresh not in seen and fresh not in past:
                return fresh, fresh
        drawn = self._draw()
        return drawn, drawn

    def _draw(self) -> Actor:
        return (self._rng.getrandbits(64 - FAMILY_BITS) or 1) << FAMILY_BITS

    def _prune(self, past: Past, ours: Record, settled: WallMillis) -> Past:
        """Drop entries that nobody needs, and the oldest over the limits, but none that covers a version held.

        Where all we hold is settled, every owner holds just that: whatever else an older entry covers is
        nowhere any more.
        """
        needed = {v.actor for v in ours if covers(past, v)}
        if all(time_to_wall(v.time) < settled for v in ours):
            past = {a: time for a, time in past.items() if a in needed or time_to_wall(time) >= settled}
        surplus = len(past) - config.CLOCK_ENTRIES_YOUNG
        if surplus <= 0:
            return past
        old = self._clock.wall - config.CLOCK_ENTRY_OLD_MS
        must = len(past) - config.CLOCK_ENTRIES_MAX
        oldest = sorted((time, actor) for actor, time in past.items() if actor not in needed)
        gone = {a for i, (time, a) in enumerate(oldest[:surplus]) if i < must or time_to_wall(time) < old}
        self.pruned += len(gone)
        return {actor: time for actor, time in past.items() if actor not in gone}


def _version_order(version: Version) -> tuple[Time, Actor]:
    return version.time, version.actor


def as_read(held: Held | None, wall: WallMillis) -> bytes:
    """The bytes a reader gets: expired values turned into tombstones, contexts untouched."""
    if held is None:
        return ABSENT
    if not held.expires_at or held.expires_at > wall:
        return held.blob
    return encode_record(
        tuple(
            Version(v.actor, v.time, v.past, None, v.expires_at) if expired(v, wall) else v for v in held.record()
        )
    )


def expired(version: Version, wall: WallMillis) -> bool:
    """Whether a version's time to live is over."""
    return version.expires_at != 0 and version.expires_at <= wall


def live(record: Record, wall: WallMillis) -> Record:
    """The versions that are values now."""
    return tuple(v for v in record if v.value is not None and not expired(v, wall))
