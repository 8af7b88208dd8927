"""Faults inside a node, as values: what can be broken, by how much, and for how long.

Promises: one value describes a fault to every node it concerns, and each finds its own part in it.
Never: without an end. What a node does with one is for `shell/faults.py`.

    partition  n1,n2 | n3,n4,n5     both sides drop what crosses; one way: what n1 and n2 send
    delay ...  n1 > n2              what n1 sends to n2 (to every member, if none is named)
    slow-disk  n1                   its commits, its clock
"""

from __future__ import annotations

from collections.abc import Collection
from random import Random
from typing import Annotated

from msgspec import Meta, Struct

from kvnode import config
from kvnode.protocol.types import NodeId
from kvnode.protocol.wire import Count, Rid, Text, Wire

PARTITION, DELAY, DROP, DUPLICATE, REORDER, CORRUPT = (
    "partition", "delay", "drop", "duplicate", "reorder", "corrupt",
)  # fmt: skip
SLOW_DISK, FULL_DISK, FAIL_FSYNC, SKEW = "slow-disk", "full-disk", "fail-fsync", "skew"

SHARES = (DROP, DUPLICATE, REORDER, CORRUPT)
"""Their amount is the share of frames they strike."""
LINKS = (PARTITION, DELAY, *SHARES)
"""They are about what one node says to another."""
DISKS = (SLOW_DISK, FULL_DISK, FAIL_FSYNC)
KINDS = (*LINKS, *DISKS, SKEW)

NodeNames = Annotated[tuple[NodeId, ...], Meta(max_length=config.MEMBERS_MAX)]


class Fault(Struct, frozen=True, array_like=True, gc=False):
    """Something that is wrong in one or more nodes, because someone asked for it."""

    id: Annotated[str, Meta(min_length=1, max_length=64)]
    kind: Text
    nodes: NodeNames
    """The nodes it is in; of a partition, one side."""
    peers: NodeNames = ()
    """To whom; of a partition, the other side."""
    amount: float = 0.0
    """A share, or milliseconds."""
    jitter_ms: float = 0.0
    """A delay differs by up to so much from frame to frame."""
    one_way: bool = False
    """Of a partition: only what `nodes` send is lost."""
    since: Count = 0
    """Wall ms of the node that tells it."""
    expires_at: Count = 0
    """Wall ms at which that node ends it."""

    def concerns(self, node: NodeId) -> bool:
        """Whether this node has a part in it."""
        return node in self.nodes or (self.kind == PARTITION and node in self.peers)

    def cuts(self, sender: NodeId, receiver: NodeId) -> bool:
        """Whether it is a partition that lets nothing pass from one to the other."""
        if self.kind != PARTITION:
            return False
        if sender in self.nodes and receiver in self.peers:
            return True
        return not self.one_way and sender in self.peers and receiver in self.nodes

    def strikes(self, sender: NodeId, receiver: NodeId) -> bool:
        """Whether it is on the way from one to the other, at the sender's end."""
        return self.kind in LINKS and sender in self.nodes and (not self.peers or receiver in self.peers)


class SetFault(Wire, frozen=True, tag=13):
    """Break so, for this long. Answered with the fault as it is now in force."""

    rid: Rid
    fault: Fault
    for_ms: Count
    deadline: Count = 0
    """Steady wall ms of the receiver, as the sender knows it, after which this must not be obeyed: a node
    that was paused would break long after it was to. 0 where the sender does not know that clock."""


class HealFault(Wire, frozen=True, tag=14):
    """End the fault of this id (all, if it is empty). Answered with those that were ended."""

    rid: Rid
    id: Text


class ListFaults(Wire, frozen=True, tag=15):
    """Which faults are in force? Answered by every node, whether it allows faults or not."""

    rid: Rid


class FaultList(Wire, frozen=True, tag=29):
    """Faults of the node that answers."""

    rid: Rid
    faults: tuple[Fault, ...]


FaultOrder = SetFault | HealFault | ListFaults


NEVER_USED = 0xC1
"""The one byte that msgpack gives no meaning."""


def spoilt(frame: bytes | bytearray, start: int, rng: Random) -> bytes:
    """The frame with bytes of its batch, which begins at `start`, changed: nobody can read it as another.

    A byte flipped inside a value would be read as another value: frames have no checksum but TCP's. So
    the batch is cut short, or begins with what begins nothing; the rest of it is noise.
    """
    assert 0 < start < len(frame)
    noisy = bytearray(frame)
    for _ in range(rng.randint(1, 8)):
        noisy[rng.randrange(start, len(noisy))] = rng.randrange(256)
    if rng.random() < 0.5:
        noisy[start] = NEVER_USED
        return bytes(noisy)
    return bytes(frame[: rng.randrange(start, len(frame))])


def problem_of(fault: Fault, members: Collection[str]) -> str:
    """Why there can be no such fault, as a sentence; empty when there can."""
    if fault.kind not in KINDS:
        return f"there is no fault {fault.kind!r}: {', '.join(KINDS)}"
    strangers = [node for node in (*fault.nodes, *fault.peers) if node not in members]
    if strangers:
        return f"{', '.join(strangers)}: no such node in this cluster"
    if not fault.nodes:
        return "a fault is in one node at least"
    both = set(fault.nodes) & set(fault.peers)
    if both:
        return f"{', '.join(sorted(both))} cannot be on both sides"
    if fault.kind == PARTITION and not fault.peers:
        return "a partition has two sides"
    if fault.peers and fault.kind not in LINKS:
        return f"{fault.kind} is about one node, not about what it says to another"
    return _amount_problem(fault)


def _amount_problem(fault: Fault) -> str:
    # Written so that what is no number fits nowhere.
    amount, jitter = fault.amount, fault.jitter_ms
    if fault.kind in SHARES and not 0 < amount <= 1:
        return f"{fault.kind} takes a share above 0 and up to 1 (or 100%), not {amount:g}"
    if fault.kind == DELAY and not 0 < amount <= config.FAULT_DELAY_MS_MAX:
        return f"a delay is above 0 and up to {config.FAULT_DELAY_MS_MAX / 1000:g}s"
    if fault.kind == SLOW_DISK and not 0 < amount <= config.FAULT_DISK_MS_MAX:
        return (
            f"a slow disk takes up to {config.FAULT_DISK_MS_MAX / 1000:g}s a commit: a longer one counts as failed"
        )
    if fault.kind == SKEW and not 0 < abs(amount) <= config.FAULT_SKEW_MS_MAX:
        return f"a clock is off by up to {config.FAULT_SKEW_MS_MAX // 86_400_000} days, and not by 0"
    if not 0 <= jitter <= (amount if fault.kind == DELAY else config.FAULT_DELAY_MS_MAX):
        return "the jitter is at most the delay"
    if jitter and fault.kind != DELAY:
        return f"{fault.kind} has no jitter"
    return ""


def time_problem(for_ms: int) -> str:
    """Why a fault cannot last so long; empty when it can."""
    if not 1 <= for_ms <= config.FAULT_FOR_MS_MAX:
        return f"a fault lasts from 1ms to {config.FAULT_FOR_MS_MAX // 3_600_000}h"
    return ""
