"""The shape of a cluster and how it changes: moves, what a plan costs, how far it is. Pure.

Promises: figures follow from the ring, the plan and the reports alone; what no report tells is None, and
bytes are an estimate: partitions are taken to be equally full on the node that gives them.
Never: an opinion on whether to go on; that is for whoever commits.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest

import msgspec
from msgspec import Struct

from kvctl.health import DOWN, held, margin, reports_of, states, up_of
from kvnode.protocol.messages import ChangeKind, ClusterReport, MovesView, NodeReport, Plan
from kvnode.protocol.ring import Member, Ring
from kvnode.protocol.types import NodeId


class Transfer(Struct, frozen=True):
    """A replica of a partition on its way: from whom, and to whom; None where one only comes or goes."""

    partition: int
    giver: NodeId | None
    taker: NodeId | None


class Cost(Struct, frozen=True):
    """What a plan would take, and what the cluster is like before and after."""

    transfers: tuple[Transfer, ...]
    bytes: int | None
    """To be sent."""
    time_s: float | None
    """At the throttle of those that receive; None without one."""
    before: dict[NodeId, int]
    after: dict[NodeId, int]
    """Replicas, by node."""
    margin_before: float
    margin_after: float
    warnings: tuple[str, ...]

    @property
    def replicas_moved(self) -> int:
        """Replicas that have to be copied."""
        return sum(t.taker is not None for t in self.transfers)


class Progress(Struct, frozen=True):
    """How far the transfers of a cluster have come."""

    partitions: int
    """That are pending, by the ring."""
    bytes_left: int | None
    bytes_per_s: float
    left_ms: int | None
    """Until all is received; None while it cannot be told."""
    waiting: dict[NodeId, str]
    """What nodes wait for."""
    dropping: int
    """Copies that are yet to be dropped by who gave them."""


# ---- the ring ------------------------------------------------------------------------------


def transfers(ring: Ring) -> Iterator[Transfer]:
    """What its moves transfer, by partition: the first owner that goes gives its place to the first that comes."""
    ids = [member.id for member in ring.members]
    for move in ring.moves:
        now = ring.owners[move.partition]
        gained = [ids[i] for i in move.owners if i not in now]
        lost = [ids[i] for i in now if i not in move.owners]
        for taker, giver in zip_longest(gained, lost):
            yield Transfer(move.partition, giver, taker)


def settled(ring: Ring) -> Ring:
    """The ring as it will be when its moves are done; members that leave own nothing then."""
    owners = list(ring.owners)
    for move in ring.moves:
        owners[move.partition] = move.owners
    return msgspec.structs.replace(ring, owners=tuple(owners), moves=())


def replicas(ring: Ring) -> dict[NodeId, int]:
    """How many partitions each member owns."""
    counts = [0] * len(ring.members)
    for owners in ring.owners:
        for i in owners:
            counts[i] += 1
    return {member.id: count for member, count in zip(ring.members, counts, strict=True)}


def shares(ring: Ring) -> dict[NodeId, float]:
    """How many replicas each member that stays should have: by weight, and each partition once a host."""
    stays = [member for member in ring.members if member.id not in ring.leaving]
    copies = min(ring.n, len(stays))
    hosts: dict[str, list[Member]] = {}
    for member in stays:
        hosts.setdefault(member.host, []).append(member)
    if len(hosts) < copies:
        found = _capped(ring.q * copies, [member.weight for member in stays], ring.q)
        return {member.id: share for member, share in zip(stays, found, strict=True)}
    shared: dict[NodeId, float] = {}
    weights = [sum(member.weight for member in inside) for inside in hosts.values()]
    for inside, total in zip(hosts.values(), _capped(ring.q * copies, weights, ring.q), strict=True):
        found = _capped(total, [member.weight for member in inside], ring.q)
        shared |= {member.id: share for member, share in zip(inside, found, strict=True)}
    return shared


def _capped(total: float, weights: list[int], cap: int) -> list[float]:
    """Shares by weight; what one that is full cannot take goes to the others."""
    full: set[int] = set()
    while True:
        free = [i for i in range(len(weights)) if i not in full]
        weight = sum(weights[i] for i in free)
        left = total - cap * len(full)
        found = {i: left * weights[i] / weight if weight else left / len(free) for i in free}
        over = {i for i, share in found.items() if share > cap}
        if not over:
            return [found.get(i, float(cap)) for i in range(len(weights))]
        full |= over


# ---- a plan --------------------------------------------------------------------------------


def cost(plan: Plan, told: ClusterReport) -> Cost:
    """What a plan would take, as far as the reports tell."""
    moving = tuple(transfers(plan.ring))
    after = settled(plan.ring)
    reports = {r.id: r for r in (*reports_of(told), *(o.report for o in told.outside)) if r is not None}
    sizes = {node: _partition_bytes(told.ring, report) for node, report in reports.items()}
    incoming: dict[NodeId, float] = {}
    for transfer in moving:
        if transfer.taker is not None:
            size = _size_of(plan.ring, transfer, sizes)
            if size is not None:
                incoming[transfer.taker] = incoming.get(transfer.taker, 0.0) + size
    rates = {node: r.moves.throttle_bytes_per_s for node, r in reports.items() if r.moves is not None}
    bounded = all(rates.get(node) for node in incoming)
    stays = {node: count for node, count in replicas(after).items() if count or node not in after.leaving}
    return Cost(
        transfers=moving,
        bytes=round(sum(incoming.values())) if sizes else None,
        time_s=max((size / rates[node] for node, size in incoming.items()), default=0.0) if bounded else None,
        before=replicas(told.ring),
        after=stays,
        margin_before=margin(told.ring, up_of(told)),
        margin_after=margin(after, _up_then(after, told)),
        warnings=(*plan.warnings, *_warnings(plan, told)),
    )


def _partition_bytes(ring: Ring, report: NodeReport) -> float:
    """What a partition takes on a node, on average."""
    owned, _ = ring.places(report.id)
    return report.value_bytes / owned if owned else 0.0


def _size_of(ring: Ring, transfer: Transfer, sizes: dict[NodeId, float]) -> float | None:
    """About how large a partition is: by who gives it, else by its other owners."""
    if transfer.giver in sizes:
        return sizes[transfer.giver]
    known = [sizes[node] for node in ring.owner_ids(transfer.partition) if node in sizes]
    return sum(known) / len(known) if known else None


def _up_then(ring: Ring, told: ClusterReport) -> set[int]:
    """The members of a ring to come that answer now and are not held to be down."""
    up = {told.ring.members[i].id for i in up_of(told)} | {
        o.member.id for o in told.outside if o.report is not None
    }
    return {i for i, member in enumerate(ring.members) if member.id in up and member.id not in ring.leaving}


def _warnings(plan: Plan, told: ClusterReport) -> Iterator[str]:
    """What the reports tell of the nodes a plan is about."""
    outside = {o.member.id: o.report for o in told.outside}
    goes = {c.node for c in plan.changes if c.kind != ChangeKind.JOIN}
    for change in plan.changes:
        if change.member is None:
            continue
        report = outside.get(change.member.id)
        if report is None:
            yield f"{change.member.id} does not answer: it must be up when the plan is committed"
        elif report.keys:
            yield f"{change.member.id} is not empty ({report.keys} keys): it must be when the plan is committed"
    for node in sorted(goes):
        kept = sum(h.hints.count for h in held(told) if h.holder == node)
        if kept:
            yield f"{node} keeps {kept} hints: it leaves once they are delivered"
    down = [m.id for m, state in zip(told.ring.members, states(told), strict=True) if state == DOWN]
    for change in plan.changes:
        if change.node in down and change.kind == ChangeKind.LEAVE:
            yield (
                f"{change.node} is down: it stays a member until it is back and has handed over what only it "
                f"holds; if it never will be, cluster replace {change.node} NEW instead"
            )
        elif change.node in down and change.kind == ChangeKind.REPLACE:
            yield f"{change.node} is down: what no other node holds (writes with w=1) is lost with it"
    quiet = [node for node in down if node not in goes]
    if quiet and plan.ring.moves:
        yield f"down: {', '.join(quiet)}. Transfers of what they own take longer, or wait for them"


def in_force(plan: Plan, ring: Ring) -> bool:
    """Whether a ring shows that all changes of a plan have been committed: by it, or by one like it."""
    members = {member.id for member in ring.members}
    comes = {change.member.id for change in plan.changes if change.member is not None}
    goes = {change.node for change in plan.changes if change.kind != ChangeKind.JOIN}
    gone = {*ring.leaving, *(member.id for member in ring.removed)}
    return bool(plan.changes) and ring.epoch > plan.epoch and comes <= members and goes <= gone


# ---- on the way ----------------------------------------------------------------------------


def progress(told: ClusterReport) -> Progress:
    """How far the transfers have come, over all nodes that answer."""
    views = {r.id: r.moves for r in reports_of(told) if r.moves is not None}
    left = {node: _bytes_left(told, view) for node, view in views.items() if view.partitions_left}
    rates = {node: views[node].bytes_per_s for node in left}
    told_all = all(rates.values()) and bool(left)
    return Progress(
        partitions=len(told.ring.moves),
        bytes_left=round(sum(left.values())) if left or not told.ring.moves else None,
        bytes_per_s=sum(rates.values()),
        left_ms=round(max(1000 * left[node] / rates[node] for node in left)) if told_all else None,
        waiting={node: view.waiting for node, view in views.items() if view.waiting} | _gone_takers(told),
        dropping=sum(view.dropping for view in views.values()),
    )


def _gone_takers(told: ClusterReport) -> dict[NodeId, str]:
    """Those that are to receive something, and do not: nothing of theirs moves until they are back."""
    ring = told.ring
    silent = {
        member.id: DOWN if state == DOWN else "silent"
        for member, state, report in zip(ring.members, states(told), told.reports, strict=True)
        if report is None
    }
    takers = {step.gained for step in map(ring.step, ring.moves)}
    return {
        node: f"it is {state}, and is to receive them: kvctl node logs {node}, kvctl node start {node}"
        for node, state in silent.items()
        if node in takers
    }


def _bytes_left(told: ClusterReport, view: MovesView) -> float:
    """What a node has yet to receive: it knows of what is under way, and what waits is taken as average."""
    owned = sum(map(len, told.ring.owners))
    average = sum(r.value_bytes for r in reports_of(told)) / owned if owned else 0.0
    return max(float(view.bytes_left), average * view.partitions_left)


def known(told: ClusterReport) -> list[tuple[Member, NodeReport | None]]:
    """Every member and every node outside, with its report."""
    members = list(zip(told.ring.members, told.reports, strict=True))
    return [*members, *((o.member, o.report) for o in told.outside if told.ring.member(o.member.id) is None)]
