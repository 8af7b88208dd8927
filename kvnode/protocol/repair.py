"""What members say to make each other whole: hints, hash trees, reaping.

Promises: whatever can write carries a deadline, whatever depends on the ring its epoch; every list
has a bound. Never: obeyed when a client says it.

    CompareTree ─► TreeCompared     spans that differ, and their sixteenths' hashes, down to few leaves
    CompareKeys ─► KeysCompared     of those that differ: what the other lacks, and what it wants
    ExchangeDone                    both sides hold the same now: worth remembering
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from kvnode import config
from kvnode.protocol.consensus import Ballot
from kvnode.protocol.requests import Row
from kvnode.protocol.types import NodeId, WireKey
from kvnode.protocol.wire import Blob, Count, Digest, Rid, Wire

# ---- hints -------------------------------------------------------------------------------------


class KeepHint(Wire, frozen=True, tag=52):
    """Keep this record for an owner that cannot take it, unless the deadline (wall ms) has passed."""

    rid: Rid
    epoch: Count
    owner: NodeId
    key: WireKey
    record: Blob
    deadline: Count
    since: Count = 0
    """Since when another node kept it, that hands it over; 0 for a new one."""


class HintKept(Wire, frozen=True, tag=53):
    """Kept, and durable at this node's level."""

    rid: Rid


class ReadHint(Wire, frozen=True, tag=54):
    """What do you keep of this key for its owners? Answered with `ReplicaRead`."""

    rid: Rid
    epoch: Count
    key: WireKey


# ---- anti-entropy ------------------------------------------------------------------------------


class SpanHash(Struct, frozen=True, array_like=True, gc=False):
    """Some leaves in a row, and their hash: whole for a root, its first bytes below."""

    start: Count
    size: Annotated[int, Meta(ge=1)]
    hash: Digest


class CompareTree(Wire, frozen=True, tag=55):
    """These are my hashes in this partition. Where are yours different?"""

    rid: Rid
    """Of the exchange, from its beginning to its end."""
    step: Count
    """Of this question in it: the answer names it."""
    epoch: Count
    partition: Count
    spans: Annotated[tuple[SpanHash, ...], Meta(max_length=config.SPANS_MAX)]


class Branches(Struct, frozen=True, array_like=True, gc=False):
    """The parts of a span that differs: the first bytes of each one's hash, one after the other."""

    start: Count
    size: Annotated[int, Meta(ge=1)]
    hashes: Annotated[bytes, Meta(max_length=256)]


class TreeCompared(Wire, frozen=True, tag=56):
    """Mine differ here; nowhere, if this is empty."""

    rid: Rid
    step: Count
    differing: Annotated[tuple[Branches, ...], Meta(max_length=config.SPANS_MAX)]


class Dots(Struct, frozen=True, array_like=True, gc=False):
    """A key, and the digest of what is held of it; empty where the copy is damaged."""

    key: WireKey
    digest: Digest


class Accepting(Struct, frozen=True, array_like=True, gc=False):
    """A key with a register, and the ballot under which its value was accepted."""

    key: WireKey
    accepted: Ballot


class CompareKeys(Wire, frozen=True, tag=57):
    """This is all I hold in these spans of few leaves."""

    rid: Rid
    step: Count
    epoch: Count
    partition: Count
    spans: Annotated[tuple[tuple[Count, Count], ...], Meta(max_length=config.SPANS_MAX)]
    """Start and size of each."""
    dots: Annotated[tuple[Dots, ...], Meta(max_length=config.EXCHANGE_KEYS_MAX)]
    full: bool = False
    """Tell every record of yours that is different, also where mine looks newer."""
    registers: Annotated[tuple[Accepting, ...], Meta(max_length=config.EXCHANGE_KEYS_MAX)] = ()
    """All the registers I hold there."""


class KeysCompared(Wire, frozen=True, tag=58):
    """Records of mine that you lack or have another of, and keys whose record I want of you."""

    rid: Rid
    step: Count
    rows: tuple[Row, ...]
    wanted: Annotated[tuple[WireKey, ...], Meta(max_length=config.EXCHANGE_KEYS_MAX)]
    again: bool = False
    """Compare these spans once more: there was more than one message takes, or I have kept back records
    that looked older than yours, and yours may not have seen them."""
    registers: Annotated[tuple[WireKey, ...], Meta(max_length=config.EXCHANGE_KEYS_MAX)] = ()
    """The keys of which my register is another one than yours, or one of us has none. Not to be merged."""


class ExchangeDone(Wire, frozen=True, tag=59):
    """An exchange of a partition is over: what either held when it began, both hold now."""

    rid: Rid
    epoch: Count
    partition: Count


# ---- reaping -----------------------------------------------------------------------------------


class Reap(Wire, frozen=True, tag=60):
    """Do you hold exactly this record? If told to, drop it, unless the deadline (wall ms) has passed."""

    rid: Rid
    epoch: Count
    key: WireKey
    digest: Digest
    deadline: Count
    drop: bool


class ReapAnswer(Wire, frozen=True, tag=65):
    """Whether it was exactly that record."""

    rid: Rid
    same: bool
