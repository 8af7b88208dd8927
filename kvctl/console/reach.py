"""Which partitions can be read and written, as the nodes see each other. Pure.

Promises: two nodes reach each other only if neither holds the other to be down; a partition has as many
live replicas as the best placed node reaches. Never: counts a node that tells nothing.

    who sees whom ─► groups of nodes that reach the same ─► per partition: the most owners in one group
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from kvctl.health import DOWN
from kvnode.protocol.messages import NodeReport
from kvnode.protocol.ring import Ring, majority


class Side(Struct, frozen=True):
    """Nodes that reach the same others."""

    nodes: tuple[str, ...]
    served: int
    """Partitions that have a quorum for them."""


class Reach(Struct, frozen=True):
    """What can be done now."""

    live: tuple[int, ...] = ()
    """Per partition: owners in reach of the best placed node."""
    need: tuple[int, ...] = ()
    """Per partition: a majority of its owners."""
    sides: tuple[Side, ...] = ()
    margin: float = 0.0
    """Share of partitions that keep their quorum when the worst further node is lost."""
    writable: bool = False
    """Whether some node takes puts of mode `eventual`: any, with hints for the owners that are away."""

    @property
    def served(self) -> int:
        """Partitions with a quorum."""
        return sum(have >= need for have, need in zip(self.live, self.need, strict=True))


def reach_of(ring: Ring, reports: Sequence[NodeReport | None]) -> Reach:
    """What these nodes can do, given whom each of them holds to be down."""
    index = {member.id: i for i, member in enumerate(ring.members)}
    told = {i: report for i, report in enumerate(reports) if report is not None}
    down = {
        i: {index[p.node] for p in report.peers if p.state == DOWN and p.node in index}
        for i, report in told.items()
    }
    masks: dict[int, list[int]] = {}
    for i in told:
        mask = sum(1 << j for j in told if j == i or (j not in down[i] and i not in down[j]))
        masks.setdefault(mask, []).append(i)
    owners = [sum(1 << o for o in each) for each in ring.owners]
    need = tuple(majority(len(each)) for each in ring.owners)
    groups = [sum(1 << o for o in set_bits(mask) if told[o].writable) for mask in masks]
    live = most(owners, groups)
    sides = tuple(
        Side(tuple(ring.members[i].id for i in nodes), _served(most(owners, [group]), need))
        for (nodes, group) in zip(masks.values(), groups, strict=True)
    )
    return Reach(live, need, sides, _margin(ring, groups, owners, need), any(groups))


def set_bits(mask: int) -> list[int]:
    """The places of a mask that are 1."""
    return [i for i in range(mask.bit_length()) if mask >> i & 1]


def most(owners: Sequence[int], groups: Sequence[int]) -> tuple[int, ...]:
    """Per partition, the most of its owners that are in one group."""
    if not groups:
        return (0,) * len(owners)
    if len(groups) == 1:
        return tuple((mask & groups[0]).bit_count() for mask in owners)
    return tuple(max((mask & group).bit_count() for group in groups) for mask in owners)


def _served(live: Sequence[int], need: Sequence[int]) -> int:
    return sum(have >= n for have, n in zip(live, need, strict=True))


def _margin(ring: Ring, groups: Sequence[int], owners: Sequence[int], need: Sequence[int]) -> float:
    """The worst node to lose is one that many partitions at the edge own: count those of each."""
    lost = [0] * len(ring.members)
    gone = 0
    for mask, n in zip(owners, need, strict=True):
        best = max((group & mask).bit_count() for group in groups) if groups else 0
        if best < n:
            gone += 1
        elif best == n:
            # Losing one of its live owners breaks it, unless another group has as many without that one.
            at = [group & mask for group in groups if (group & mask).bit_count() == n]
            common = at[0]
            for other in at[1:]:
                common &= other
            for owner in set_bits(common):
                lost[owner] += 1
    return (ring.q - gone - max(lost, default=0)) / ring.q
