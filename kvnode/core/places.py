"""Places: how many each member is to have, and which owners may stand together in one partition.

Promises: every member's, host's and rack's whole number is its exact share rounded down or up, and
those keep the odd place who have it already. `fits` accepts some owners of one partition exactly if
they can be completed within the bounds below; what fits and is complete keeps all of them.
Never: depends on the order of a set, the hash seed, or chance.

A group (rack, host, member) of T places in q partitions stands in each partition floor(T/q) or
ceil(T/q) times. So no host comes twice where hosts suffice, and no rack twice while another misses.
The lower bound is kept by reserving: what takes the last place that is due to somebody else does
not fit, though there is room for it now.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from math import floor

from kvnode.core.assignment import Group, exact_shares, rank, tree
from kvnode.protocol.ring import Member


class Bounds:
    """The places of each member, and what a partition may look like."""

    def __init__(self, members: Sequence[Member], q: int, copies: int, held: Sequence[int]) -> None:
        """`held`: how many places each member has now."""
        cluster = tree(members)
        _sum_up(cluster, exact_shares(members, q, copies), held)
        cluster.left = q * copies
        _round(cluster)
        hosts = [host for rack in cluster.inside for host in rack.inside]
        in_order = [member for host in hosts for member in host.inside]
        in_order.sort(key=lambda member: member.member)
        groups = [*in_order, *hosts, *cluster.inside, cluster]
        for i, group in enumerate(groups):
            group.number = i
        self.places = [member.left for member in in_order]
        """How many each member is to have."""
        self._above = [-1] * len(groups)
        """The group each group stands in. Groups are numbered, members first, by their index."""
        self._room = [0] * len(groups)
        """How many places of one partition a group may take beyond what is due to the groups in it..."""
        self._due = [0] * len(groups)
        """...and how many of those are due to itself."""
        for i, group in enumerate(groups):
            inside = sum(inner.left // q for inner in group.inside)
            self._room[i] = -(-group.left // q) - inside
            self._due[i] = group.left // q - inside
            for inner in group.inside:
                self._above[inner.number] = i
        self.plain = len(cluster.inside) == 1 and len(hosts) == len(members) and not any(self._due[: len(hosts)])
        """Whether any owners fit together: one rack, hosts of one member, and nobody due everywhere."""

    def fits(self, owners: Iterable[int]) -> bool:
        """Whether these distinct members, and whoever is still due, can own one partition together."""
        if self.plain:
            return True
        above, room, due = self._above, self._room, self._due
        level = dict.fromkeys(owners, 1)
        while level:
            taken: dict[int, int] = {}
            for group, places in level.items():
                if places > room[group]:
                    return False
                beyond = places - due[group]
                if beyond > 0 and above[group] >= 0:
                    taken[above[group]] = taken.get(above[group], 0) + beyond
            level = taken
        return True


def _sum_up(group: Group, shares: Sequence[Fraction], held: Sequence[int]) -> None:
    """The exact share and the places held of every group."""
    if not group.inside:
        group.share, group.held = shares[group.member], held[group.member]
        return
    for inner in group.inside:
        _sum_up(inner, shares, held)
    group.share = sum((inner.share for inner in group.inside), Fraction(0))
    group.held = sum(inner.held for inner in group.inside)


def _round(group: Group) -> None:
    """Share a group's whole places out: each gets its exact share rounded down, and some one more.

    Such roundings exist at every level, because the sum of what is rounded down is no more than the
    sum, rounded down. Those get the odd place who would otherwise have to give one away.
    """
    if not group.inside:
        return
    odd = group.left
    for inner in group.inside:
        inner.left = floor(inner.share)
        odd -= inner.left
    torn = [inner for inner in group.inside if inner.share.denominator > 1]
    torn.sort(key=lambda inner: (inner.left - inner.held, rank(0, inner.seed)))
    assert 0 <= odd <= len(torn)
    for inner in torn[:odd]:
        inner.left += 1
    for inner in group.inside:
        _round(inner)
