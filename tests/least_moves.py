"""The fewest places that must change hands, by a textbook minimum-cost flow: the oracle of `reassign`.

It shares nothing with the code it judges: the whole network is written down, partition by partition,
and solved by the slowest method there is.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Hashable, Sequence

from kvnode.protocol.ring import Member

MUST = 10**6
"""What it earns to keep a lower bound: more than all moves together cost."""


class Network:
    """Arcs with a capacity and a cost; each with its reverse beside it."""

    def __init__(self) -> None:
        self.arcs: list[list[int]] = []
        self.ends: list[Hashable] = []
        self.out: defaultdict[Hashable, list[int]] = defaultdict(list)

    def arc(self, start: Hashable, end: Hashable, capacity: int, cost: int = 0) -> None:
        """An arc, if anything may go along it."""
        if capacity > 0:
            for node, to, room, price in ((start, end, capacity, cost), (end, start, 0, -cost)):
                self.out[node].append(len(self.arcs))
                self.arcs.append([room, price])
                self.ends.append(to)

    def bounded(self, start: Hashable, end: Hashable, places: int, q: int) -> None:
        """What a group of so many places takes of one of q partitions: the floor must be, one more may be."""
        self.arc(start, end, places // q, -MUST)
        self.arc(start, end, -(-places // q) - places // q)

    def cheapest(self, amount: int) -> int:
        """The cost of bringing so much from `in` to `out`, along cheapest paths (Bellman and Ford)."""
        cost = 0
        for _ in range(amount):
            distance: dict[Hashable, int] = {"in": 0}
            came: dict[Hashable, int] = {}
            queue = deque(["in"])
            while queue:
                node = queue.popleft()
                for i in self.out[node]:
                    room, price = self.arcs[i]
                    end = self.ends[i]
                    if room and (end not in distance or distance[node] + price < distance[end]):
                        distance[end], came[end] = distance[node] + price, i
                        queue.append(end)  # type: ignore[arg-type]
            assert "out" in came, "there is no such assignment"
            cost += distance["out"]
            at: Hashable = "out"
            while at != "in":
                self.arcs[came[at]][0] -= 1
                self.arcs[came[at] ^ 1][0] += 1
                at = self.ends[came[at] ^ 1]
        return cost


def least_moves(members: Sequence[Member], before: Sequence[set[int]], places: Counter[int], copies: int) -> int:
    """How many places must get another member, if each member is to have so many `places` in the end."""
    q = len(before)
    hosts: dict[str, list[int]] = {}
    for i, member in enumerate(members):
        hosts.setdefault(member.host, []).append(i)
    racks: dict[str, list[str]] = {}
    for host, inside in hosts.items():
        racks.setdefault(members[inside[0]].rack, []).append(host)
    of_host = {host: sum(places[i] for i in inside) for host, inside in hosts.items()}
    net = Network()
    for p in range(q):
        net.arc("in", p, copies)
        for rack, inside_rack in racks.items():
            net.bounded(p, (p, "rack", rack), sum(of_host[host] for host in inside_rack), q)
            for host in inside_rack:
                net.bounded((p, "rack", rack), (p, "host", host), of_host[host], q)
                for i in hosts[host]:
                    net.arc((p, "host", host), ("member", i), 1, -(i in before[p]))
    for i in range(len(members)):
        net.arc(("member", i), "out", places[i])
    kept = -net.cheapest(q * copies) % MUST
    return q * copies - kept
