"""Floors: below which ballot a partition takes nothing for a register that is not there.

Promises: once a register was reaped here, no ballot up to its tombstone's is promised or accepted for any
absent register of the partition; durable with the reaping. Never: sinks.

It stands in for all registers that were reaped, which nobody remembers one by one: without it a late or
a slow-clocked proposer could write *below* a tombstone that another owner still has, which would then
win over it. What it costs others is a second try, above. See Rystsov, "CASPaxos" (2018) §3.1, where the
same is done by an age that proposers carry.
"""

from __future__ import annotations

import msgspec

from kvnode.core.consensus import Register, decode_register
from kvnode.core.outbox import Outbox
from kvnode.protocol.consensus import NO_BALLOT, Ballot

FLOOR = "floor:"
"""Fact: the floor of a partition."""


def floor_of(outbox: Outbox, partition: int) -> Ballot:
    """The floor; below every ballot where nothing was reaped."""
    kept = outbox.fact(f"{FLOOR}{partition}")
    return msgspec.msgpack.decode(kept, type=Ballot) if kept else NO_BALLOT


def raise_floor(outbox: Outbox, partition: int, ballot: Ballot) -> None:
    """Make the floor at least this."""
    if ballot > floor_of(outbox, partition):
        outbox.note(f"{FLOOR}{partition}", msgspec.msgpack.encode(ballot))


def for_ballots(outbox: Outbox, partition: int, key: bytes) -> Register:
    """A key's register as a ballot meets it; an absent one has promised the floor. Raises `Unreadable`."""
    kept = outbox.register(key)
    return decode_register(kept) if kept else Register(floor_of(outbox, partition), NO_BALLOT, b"")
