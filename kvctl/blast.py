"""The blast radius of faults: which partitions of the keys could not meet a quorum, from nowhere. Pure.

Promises: figures follow from the ring, who is up, and the faults alone. Never: a guess at what is slow:
what takes longer than a request may counts as lost.

A partition has its quorum while some node that is up can talk, both ways, to a majority of its owners.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from msgspec import Struct

from kvctl.render import Object
from kvnode import config
from kvnode.protocol.faults import DELAY, DROP, FAIL_FSYNC, FULL_DISK, SKEW, SLOW_DISK, Fault
from kvnode.protocol.ring import Ring, majority

DEADLINE_MS = config.Settings().deadline_ms


class Side(Struct, frozen=True):
    """Nodes that can talk to the same others."""

    nodes: tuple[str, ...]
    short: int
    """Partitions that have no quorum for them."""


class Reach(Struct, frozen=True):
    """What can be done when things are so."""

    lost: tuple[int, ...]
    """Partitions without a quorum from anywhere."""
    margin: float
    """Share of partitions that keep one when the worst further node is lost."""
    sides: tuple[Side, ...]


class Blast(Struct, frozen=True):
    """What a fault would change."""

    q: int
    before: Reach
    after: Reach

    @property
    def risk(self) -> str:
        """What it would break, as a sentence; empty when every partition keeps its quorum."""
        lost = len(set(self.after.lost) - set(self.before.lost))
        return f"{lost} of {self.q} partitions would lose their quorum" if lost else ""

    def json(self) -> Object:
        """For `--dry-run`."""
        return {
            "partitions": self.q,
            "lose_quorum": sorted(set(self.after.lost) - set(self.before.lost)),
            "lose_quorum_count": len(set(self.after.lost) - set(self.before.lost)),
            "margin_before": round(self.before.margin, 4),
            "margin": round(self.after.margin, 4),
            "sides": [{"nodes": list(side.nodes), "without_quorum": side.short} for side in self.after.sides],
        }

    def lines(self) -> list[str]:
        """For people."""
        found = [self.risk or "every partition keeps its quorum somewhere"]
        if len(self.after.sides) > 1:
            found += [f"{','.join(s.nodes)}: no quorum for {s.short} of {self.q}" for s in self.after.sides]
        return [*found, f"margin {self.before.margin:.0%} -> {self.after.margin:.0%}"]


def blast(ring: Ring, up: Collection[str], there: Sequence[Fault], new: Fault) -> Blast:
    """What this fault would add to those that are there."""
    return Blast(ring.q, reach(ring, up, there), reach(ring, up, [*there, new]))


def loss(ring: Ring, up: Collection[str], there: Sequence[Fault], node: str) -> Blast:
    """What it would add that a node is down."""
    return Blast(ring.q, reach(ring, up, there), reach(ring, set(up) - {node}, there))


def reach(ring: Ring, up: Collection[str], faults: Sequence[Fault]) -> Reach:
    """What can be done with these nodes up and these faults in force."""
    names = [member.id for member in ring.members]
    working = [i for i, name in enumerate(names) if name in up and not any(_fells(f, name) for f in faults)]
    masks = {i: 1 << i for i in working}
    for i in working:
        for j in working:
            if i != j and not any(_parts(f, names[i], names[j]) or _parts(f, names[j], names[i]) for f in faults):
                masks[i] |= 1 << j
    coordinating = [i for i in working if not any(_misleads(f, names[i]) for f in faults)]
    groups: dict[int, list[str]] = {}
    for i in coordinating:
        groups.setdefault(masks[i], []).append(names[i])
    owners = [(sum(1 << o for o in each), majority(len(each))) for each in ring.owners]
    lost = tuple(p for p, each in enumerate(owners) if not _served(each, groups))
    worst = len(lost)
    for victim in working:
        left = {masks[i] & ~(1 << victim) for i in coordinating if i != victim}
        worst = max(worst, sum(not _served(each, left) for each in owners))
    sides = tuple(
        Side(tuple(group), sum(not _served(each, (mask,)) for each in owners)) for mask, group in groups.items()
    )
    return Reach(lost, (ring.q - worst) / ring.q, sides)


def _served(owners: tuple[int, int], masks: Iterable[int]) -> bool:
    members, needed = owners
    return any((members & mask).bit_count() >= needed for mask in masks)


def _parts(fault: Fault, sender: str, receiver: str) -> bool:
    """Whether nothing gets from one to the other in the time of a request."""
    from kvnode.protocol.types import NodeId

    one, other = NodeId(sender), NodeId(receiver)
    if fault.cuts(one, other):
        return True
    hopeless = (fault.kind == DROP and fault.amount >= 1) or (fault.kind == DELAY and fault.amount >= DEADLINE_MS)
    return hopeless and fault.strikes(one, other)


def _fells(fault: Fault, node: str) -> bool:
    """Whether a node with it cannot take a write."""
    if node not in fault.nodes:
        return False
    return fault.kind in (FULL_DISK, FAIL_FSYNC) or (fault.kind == SLOW_DISK and fault.amount >= DEADLINE_MS)


def _misleads(fault: Fault, node: str) -> bool:
    """Whether a node with it coordinates nothing: its clock is too far off."""
    return fault.kind == SKEW and node in fault.nodes and abs(fault.amount) > config.CLOCK_AHEAD_MAX_MS
