"""A register as a store sees it: what names it in the hash tree, and what it weighs. Pure.

Promises: two stores that accepted the same value of a key under the same ballot have the same mark; a
promise changes no mark. A register of no bytes is none: it was reaped.
Never: a mark that is the digest of a record, so that neither can stand for the other.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import NamedTuple

from kvnode.core.consensus import decode_register
from kvnode.core.outbox import Store
from kvnode.core.versions import ABSENT
from kvnode.protocol.consensus import NO_BALLOT, Ballot
from kvnode.protocol.types import decode_record

MARK_BYTES = 16
_pack = struct.Struct(">QQ").pack


class Weight(NamedTuple):
    """What a register is to the tree and to the counters."""

    mark: bytes
    """As a record's digest; `ABSENT` where nothing was accepted."""
    live_bytes: int
    """Of its value; 0 where it has none."""


NONE = Weight(ABSENT, 0)


def weigh(register: bytes) -> Weight:
    """What an encoded register is. What is none of ours weighs nothing."""
    if not register:
        return NONE
    kept = decode_register(register)
    if not kept.value:
        return NONE
    live = sum(len(v.value) or 1 for v in decode_record(kept.value) if v.value is not None)
    return Weight(mark_of(kept.accepted), live)


def mark_of(accepted: Ballot) -> bytes:
    """The mark of a register by what it accepted last."""
    if accepted == NO_BALLOT:
        return ABSENT
    return blake2b(_pack(*accepted), digest_size=MARK_BYTES, person=b"kvctl-register").digest()


def counted(key: bytes, weight: Weight) -> int:
    """Key and live bytes of a register, as the counters have it; 0 when it has no value."""
    return len(key) + weight.live_bytes if weight.live_bytes else 0


def accepted_in(store: Store, leaves: Iterable[int]) -> Iterator[tuple[bytes, Ballot]]:
    """The keys in these leaves that accepted something, and under which ballot. Damaged ones are as good as none.

    Raises `Unreadable` where not even the keys of a leaf can be told.
    """
    for leaf in leaves:
        for key, register in store.registers_in(leaf):
            if register is not None and (accepted := decode_register(register).accepted) != NO_BALLOT:
                yield key, accepted
