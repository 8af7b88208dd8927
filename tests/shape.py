"""`make shape`: what a change of members moves, and what it costs to plan, from three nodes to a thousand.

steps     from 3 to 10 nodes one by one and back: replicas moved against the least possible, and the balance
sizes     one join and one leave each at 10 to 1000 nodes of 16384 partitions: the plan's time, the ring's bytes
"""

from __future__ import annotations

import time
from collections import Counter

import msgspec

from kvnode.core.plan import plan_of, without
from kvnode.core.reassignment import reassign
from kvnode.protocol.ring import SLOTS, Member, Ring
from kvnode.protocol.topology import Change, ChangeKind, Plan
from kvnode.protocol.types import NodeId

COPIES = 3
HEAD = f"{'nodes':>10} {'moved':>6} {'least':>6} {'ratio':>6}  {'replicas':>11} {'first':>11} {'plan':>8}"


def node(i: int) -> Member:
    """A member on a host of its own."""
    return Member(NodeId(f"n{i}"), f"127.0.0.1:{7000 + i}", f"h{i}")


def founded(size: int, q: int) -> Ring:
    """A ring of so many equal members."""
    members = tuple(node(i) for i in range(1, size + 1))
    return Ring("shape", 1, 1, COPIES, q, members, reassign(members, [()] * q, q, COPIES), (1,) * q)


def done(ring: Ring) -> Ring:
    """The ring when every move is done and who leaves is gone."""
    owners = list(ring.owners)
    for move in ring.moves:
        owners[move.partition] = move.owners
    settled = msgspec.structs.replace(ring, owners=tuple(owners), moves=())
    return msgspec.structs.replace(without(settled, set(ring.leaving)), leaving=())


def step(ring: Ring, change: Change) -> Ring:
    """Plan a change, print what it costs, and carry it out."""
    begun = time.perf_counter()
    plan = plan_of(ring, [change])
    took_s = time.perf_counter() - begun
    assert not plan.problem, plan.problem
    after = done(plan.ring)
    moved = replicas_moved(plan)
    replicas, first = Counter(i for owners in after.owners for i in owners), Counter(o[0] for o in after.owners)
    change_of = f"{len(ring.members):>4} ->{len(after.members):>4}"
    cost = f"{moved:>6} {plan.optimum:>6} {moved / plan.optimum:>6.3f}"
    print(f"{change_of} {cost}  {span(replicas):>11} {span(first):>11} {took_s:>6.2f} s", flush=True)
    return after


def replicas_moved(plan: Plan) -> int:
    """Replicas that have to be copied."""
    return sum(len(set(move.owners) - set(plan.ring.owners[move.partition])) for move in plan.ring.moves)


def span(count: Counter[int]) -> str:
    """The fewest and the most."""
    return f"{min(count.values())}..{max(count.values())}"


def join(i: int) -> Change:
    """A node comes."""
    return Change(ChangeKind.JOIN, node(i).id, node(i))


def leave(i: int) -> Change:
    """A node goes."""
    return Change(ChangeKind.LEAVE, node(i).id)


def main() -> None:
    """Print both tables."""
    print(f"Q=256, N={COPIES}, one by one\n{HEAD}")
    ring = founded(3, 256)
    for change in (*map(join, range(4, 11)), *map(leave, range(10, 3, -1))):
        ring = step(ring, change)
    print(f"\nQ={SLOTS}, N={COPIES}, one join and one leave\n{HEAD}")
    for size in (10, 30, 100, 300, 1000):
        ring = step(founded(size, SLOTS), join(size + 1))
        step(ring, leave(1))
        print(f"{size:>10} nodes: the ring is {len(msgspec.msgpack.encode(ring)):,} bytes")


if __name__ == "__main__":
    main()
