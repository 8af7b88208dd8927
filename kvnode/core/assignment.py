"""Assignment: which members own which partition, balanced and the same everywhere.

Promises: each partition has min(n, members) distinct owners, on distinct hosts where there are
enough and on as many racks as possible; per member both its replicas and its first places differ
from its weighted share by less than one.
Never: depends on the order of a set, the hash seed, or chance: the same input, the same output.

How it stays exact: give every member (and every host) its share as a whole number, then fill
partition after partition. With R partitions left, whoever still needs R places must be taken now;
the rest is free choice. Since no share exceeds R and the shares sum to n x R, this never gets stuck.
See Dynamo §6.2 (strategy 3) and LESSONS 2.9 for the balance rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from hashlib import blake2b

from kvnode.protocol.ring import Member

Owners = tuple[tuple[int, ...], ...]


def assign(members: Sequence[Member], q: int, n: int) -> Owners:
    """Owners of each of `q` partitions as indices into `members`, the first place first."""
    assert members
    assert n >= 1
    copies = min(n, len(members))
    by_host = _by_host(members)
    apart = len(by_host) >= copies
    shares = _shares(members, by_host, q, copies, apart=apart)
    placed = _place(members, shares, q, copies, apart=apart)
    return _first_places(placed, members, q)


def shares_of(total: int, weights: Sequence[int], cap: int) -> list[int]:
    """Whole shares of `total` by weight, none above `cap`, each within one of its exact share."""
    assert total <= cap * len(weights)
    exact = _capped(total, weights, cap)
    whole = [int(share) for share in exact]
    rest = total - sum(whole)
    order = sorted(range(len(weights)), key=lambda i: (whole[i] - exact[i], i))
    for i in order[:rest]:
        whole[i] += 1
    return whole


def _capped(total: int, weights: Sequence[int], cap: int) -> list[Fraction]:
    """Exact shares by weight; what a capped one cannot take goes to the others."""
    full: set[int] = set()
    while True:
        free = [i for i in range(len(weights)) if i not in full]
        left = total - cap * len(full)
        weight = sum(weights[i] for i in free)
        over = [i for i in free if Fraction(left * weights[i], weight) > cap] if weight else []
        if not over:
            return [
                Fraction(cap) if i in full else Fraction(left * weights[i], weight) if weight else Fraction(0)
                for i in range(len(weights))
            ]
        full.update(over)


def _by_host(members: Sequence[Member]) -> dict[str, list[int]]:
    hosts: dict[str, list[int]] = {}
    for i, member in enumerate(members):
        hosts.setdefault(member.host, []).append(i)
    return hosts


def _shares(
    members: Sequence[Member], by_host: dict[str, list[int]], q: int, copies: int, *, apart: bool
) -> list[int]:
    """How many partitions each member owns."""
    if not apart:
        return shares_of(q * copies, [m.weight for m in members], q)
    hosts = list(by_host.values())
    of_hosts = shares_of(q * copies, [sum(members[i].weight for i in host) for host in hosts], q)
    shares = [0] * len(members)
    for host, total in zip(hosts, of_hosts, strict=True):
        for i, share in zip(host, shares_of(total, [members[i].weight for i in host], q), strict=True):
            shares[i] = share
    return shares


def _place(members: Sequence[Member], shares: list[int], q: int, copies: int, *, apart: bool) -> list[list[int]]:
    """Fill the partitions so that every member gets exactly its share."""
    groups: dict[str, list[int]] = {}
    for i, each in enumerate(members):
        groups.setdefault(each.host if apart else str(i), []).append(i)
    left = list(shares)
    seeds = {name: _seed(name) for name in groups}
    need = {name: sum(left[i] for i in inside) for name, inside in groups.items()}
    placed: list[list[int]] = []
    for partition in range(q):
        free = set(groups)
        racks: dict[str, int] = {}
        chosen: list[int] = []
        for _ in range(copies):
            candidates = []
            for name in free:
                member = max(groups[name], key=lambda i: (left[i], -i))
                critical = need[name] == q - partition
                crowd = racks.get(members[member].rack, 0)
                rank = _rank(partition, seeds[name])
                if need[name]:
                    candidates.append((not critical, crowd, -need[name], rank, name, member))
            *_, name, member = min(candidates)
            free.discard(name)
            chosen.append(member)
            racks[members[member].rack] = racks.get(members[member].rack, 0) + 1
            left[member] -= 1
            need[name] -= 1
        placed.append(chosen)
    assert not any(left)
    return placed


def _first_places(placed: list[list[int]], members: Sequence[Member], q: int) -> Owners:
    """Choose whose place comes first, so that first places are as balanced as replicas are."""
    seeds = [_seed(m.id) for m in members]
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
        choice = min(owners, key=lambda i: (count[i] - high[i], _rank(partition, seeds[i])))
        first.append(choice)
        count[choice] += 1
    _even_out(placed, first, count, low, high)
    return tuple(
        (first[p], *sorted((i for i in owners if i != first[p]), key=lambda i: _rank(p + 1, seeds[i])))
        for p, owners in enumerate(placed)
    )


def _even_out(
    placed: list[list[int]], first: list[int], count: list[int], low: list[int], high: list[int]
) -> None:
    """Shift first places along paths of partitions until every count is within its bounds.

    A flow argument says such paths exist: giving each owner 1/copies of every first place is a
    fractional solution, so a whole one exists too.
    """
    for member in range(len(count)):
        while count[member] > high[member]:
            _shift(placed, first, count, member, {j for j in range(len(count)) if count[j] < high[j]})
        while count[member] < low[member]:
            donors = [j for j in range(len(count)) if count[j] > low[j]]
            donor = next(j for j in donors if _shift(placed, first, count, j, {member}))
            assert donor != member


def _shift(placed: list[list[int]], first: list[int], count: list[int], giver: int, takers: set[int]) -> bool:
    """Move one first place from `giver` to one of `takers`, through others where needed."""
    firsts: dict[int, list[int]] = {}
    for partition, owner in enumerate(first):
        firsts.setdefault(owner, []).append(partition)
    came: dict[int, tuple[int, int]] = {giver: (-1, -1)}
    queue = [giver]
    for i in queue:
        for partition in firsts.get(i, ()):
            for j in placed[partition]:
                if j in came:
                    continue
                came[j] = (i, partition)
                queue.append(j)
                if j in takers:
                    _walk_back(first, came, j)
                    count[giver] -= 1
                    count[j] += 1
                    return True
    return False


def _walk_back(first: list[int], came: dict[int, tuple[int, int]], end: int) -> None:
    while came[end][0] >= 0:
        previous, partition = came[end]
        first[partition] = end
        end = previous


def _seed(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big")


def _rank(partition: int, seed: int) -> int:
    """A fixed pseudo-random order of names, different in each partition (rendezvous hashing)."""
    mixed = (seed ^ (partition + 1) * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    return mixed ^ (mixed >> 27)
