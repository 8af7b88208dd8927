"""Assignment: which members own which partition, balanced and the same everywhere.

Promises: each partition has min(n, members) distinct owners, on distinct hosts where there are
enough and on as many racks as balance allows; per member both its replicas and its first places
differ from its weighted share by less than one. Where a share cannot be had (a member or, where
hosts are to differ, a host owns each partition once at most) what is over goes to the others.
Never: depends on the order of a set, the hash seed, or chance: the same input, the same output.

How it stays exact: members stand in a tree, cluster > racks > hosts > members, and the same two
sentences hold at each level. A group's whole share is its exact share rounded down or up. With R
partitions left, a group that still needs T places takes floor(T/R) or ceil(T/R) of this one. Such
roundings exist level by level, because the unrounded numbers add up, so this never gets stuck; a
group that needs at most R never takes two of one partition, one that needs at least R never none.
See Dynamo §6.2 (strategy 3) and LESSONS 2.9 for the balance rules.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from fractions import Fraction
from hashlib import blake2b
from math import floor

from kvnode.protocol.ring import Member

Owners = tuple[tuple[int, ...], ...]


class Group:
    """The cluster, a rack, a host or a member, while places are given out."""

    __slots__ = ("held", "inside", "left", "member", "number", "seed", "share")

    def __init__(self, name: str, member: int = -1) -> None:
        self.seed = seed_of(name)
        self.member = member
        """Its index, if this is a member."""
        self.inside: list[Group] = []
        self.left = 0
        """Places it is still to be given."""
        self.share = Fraction(0)
        """Its exact share of the places..."""
        self.held = 0
        """...and how many it has, where a ring is changed (`places.py`)."""
        self.number = -1


def assign(members: Sequence[Member], q: int, n: int) -> Owners:
    """Owners of each of `q` partitions as indices into `members`, the first place first."""
    assert members
    assert n >= 1
    copies = min(n, len(members))
    cluster = tree(members)
    _give_shares(cluster, exact_shares(members, q, copies))
    assert cluster.left == q * copies
    placed: list[list[int]] = []
    for partition in range(q):
        chosen: list[int] = []
        _take(cluster, copies, partition, q - partition, chosen)
        placed.append(chosen)
    assert cluster.left == 0
    return _first_places(placed, members, q)


def exact_shares(members: Sequence[Member], q: int, copies: int) -> list[Fraction]:
    """How many partitions each member should own, by weight, if they could be cut."""
    hosts = _hosts(members)
    if len(hosts) < copies:
        return _capped(q * copies, [m.weight for m in members], q)
    of_hosts = _capped(q * copies, [sum(members[i].weight for i in host) for host in hosts], q)
    shares = [Fraction(0)] * len(members)
    for host, total in zip(hosts, of_hosts, strict=True):
        for i, share in zip(host, _capped(total, [members[i].weight for i in host], q), strict=True):
            shares[i] = share
    return shares


def _capped(total: int | Fraction, weights: Sequence[int], cap: int) -> list[Fraction]:
    """Exact shares by weight; what a capped one cannot take goes to the others."""
    assert total <= cap * len(weights)
    full: set[int] = set()
    while True:
        free = [i for i in range(len(weights)) if i not in full]
        left = total - cap * len(full)
        weight = sum(weights[i] for i in free)
        # Members of no weight take nothing, unless there is no one else left to take it.
        shares = {
            i: Fraction(left) * (Fraction(weights[i], weight) if weight else Fraction(1, len(free))) for i in free
        }
        over = [i for i in free if shares[i] > cap]
        if not over:
            return [shares.get(i, Fraction(cap)) for i in range(len(weights))]
        full.update(over)


def _hosts(members: Sequence[Member]) -> list[list[int]]:
    hosts: dict[str, list[int]] = {}
    for i, member in enumerate(members):
        hosts.setdefault(member.host, []).append(i)
    return list(hosts.values())


def tree(members: Sequence[Member]) -> Group:
    """Cluster > racks > hosts > members. A host stands in the rack of its first member."""
    cluster = Group("")
    racks: dict[str, Group] = {}
    for indices in _hosts(members):
        first = members[indices[0]]
        if first.rack not in racks:
            racks[first.rack] = Group(first.rack)
            cluster.inside.append(racks[first.rack])
        host = Group(first.host)
        racks[first.rack].inside.append(host)
        host.inside = [Group(members[i].id, i) for i in indices]
    return cluster


def _give_shares(cluster: Group, exact: list[Fraction]) -> None:
    """Round every share down or up, and with the members' also their hosts' and racks'.

    Summing along the tree and rounding the sums does that: what lies between two rounded sums is
    off by less than one, be it one member or a rack of them.
    """
    before = Fraction(0)
    for rack in cluster.inside:
        for host in rack.inside:
            for member in host.inside:
                after = before + exact[member.member]
                member.left = floor(after) - floor(before)
                before = after
            host.left = sum(member.left for member in host.inside)
        rack.left = sum(host.left for host in rack.inside)
    cluster.left = sum(rack.left for rack in cluster.inside)


def _take(group: Group, places: int, partition: int, rest: int, chosen: list[int]) -> None:
    """Take so many places of this partition from a group; `rest` partitions are left, this one included."""
    group.left -= places
    if not group.inside:
        assert places == 1
        chosen.append(group.member)
        return
    extra = places - sum(inner.left // rest for inner in group.inside)
    neediest = sorted(
        (inner for inner in group.inside if inner.left % rest),
        key=lambda inner: (-(inner.left % rest), rank(partition, inner.seed)),
    )
    assert 0 <= extra <= len(neediest)
    lucky = neediest[:extra]
    for inner in group.inside:
        share = inner.left // rest + (inner in lucky)
        if share:
            _take(inner, share, partition, rest, chosen)


def _first_places(placed: list[list[int]], members: Sequence[Member], q: int) -> Owners:
    """Choose whose place comes first, so that first places are as balanced as replicas are."""
    seeds = [seed_of(m.id) for m in members]
    owned = [0] * len(members)
    for owners in placed:
        for i in owners:
            owned[i] += 1
    copies = len(placed[0])
    low = [count // copies for count in owned]
    high = [-(-count // copies) for count in owned]
    first: list[int] = []
    count = [0] * len(members)
    for partition, owners in enumerate(placed):
        choice = min(owners, key=lambda i: (count[i] - high[i], rank(partition, seeds[i])))
        first.append(choice)
        count[choice] += 1
    even_out(placed, first, count, low, high)
    return tuple(
        (first[p], *sorted((i for i in owners if i != first[p]), key=lambda i: rank(p + 1, seeds[i])))
        for p, owners in enumerate(placed)
    )


def even_out(placed: list[list[int]], first: list[int], count: list[int], low: list[int], high: list[int]) -> None:
    """Shift first places along paths of partitions until every count is within its bounds.

    A flow argument says such paths exist: giving each owner 1/copies of every first place is a
    fractional solution, so a whole one exists too.
    """
    firsts: list[list[int]] = [[] for _ in count]
    for partition, owner in enumerate(first):
        firsts[owner].append(partition)
    for member in range(len(count)):
        while count[member] > high[member]:
            _shift(placed, firsts, count, member, {j for j in range(len(count)) if count[j] < high[j]})
        while count[member] < low[member]:
            donors = [j for j in range(len(count)) if count[j] > low[j]]
            donor = next(j for j in donors if _shift(placed, firsts, count, j, {member}))
            assert donor != member
    for owner, partitions in enumerate(firsts):
        for partition in partitions:
            first[partition] = owner


def _shift(
    placed: list[list[int]], firsts: list[list[int]], count: list[int], giver: int, takers: set[int]
) -> bool:
    """Move one first place from `giver` to one of `takers`, through others where needed."""
    came: dict[int, tuple[int, int]] = {giver: (-1, -1)}
    queue = [giver]
    for i in queue:
        for partition in firsts[i]:
            for j in placed[partition]:
                if j in came:
                    continue
                came[j] = (i, partition)
                queue.append(j)
                if j in takers:
                    _walk_back(firsts, came, j)
                    count[giver] -= 1
                    count[j] += 1
                    return True
    return False


def _walk_back(firsts: list[list[int]], came: dict[int, tuple[int, int]], end: int) -> None:
    while came[end][0] >= 0:
        previous, partition = came[end]
        firsts[previous].remove(partition)
        insort(firsts[end], partition)
        end = previous


def seed_of(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big")


def rank(partition: int, seed: int) -> int:
    """A fixed pseudo-random order of names, different in each partition (rendezvous hashing)."""
    mixed = (seed ^ (partition + 1) * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    return mixed ^ (mixed >> 27)
