"""The conditions of `kvctl wait`, as CONTRACT ("Words and defaults") defines them. Pure.

Promises: a condition holds, or the sentence that says why not is the first reason met.
Never: looks at a clock; what must hold for a while is asked again by whoever waits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from kvctl.health import UP, epoch_agreed, held, reports_of, silent, states
from kvctl.render_shape import progress_text
from kvctl.shape import progress
from kvnode.protocol.messages import ClusterReport
from kvnode.protocol.types import NodeId

SETTLE_S = 1.0
"""`converged` must be seen twice, so long apart."""


def ring_ready(told: ClusterReport) -> str:
    """Why the ring is not ready, as a sentence; empty when it is."""
    if not epoch_agreed(told):
        return "the nodes are on different epochs"
    ring = told.ring
    if ring.moves:
        return progress_text(progress(told))
    if ring.leaving:
        return f"{', '.join(ring.leaving)} has given its partitions away and is yet to leave"
    wanted = min(ring.n, len(ring.members))
    if any(len(set(owners)) < wanted for owners in ring.owners):
        return f"a partition has fewer than {wanted} owners"
    return ""


def hints_drained(told: ClusterReport) -> str:
    """Why hints may be left, as a sentence; empty when every member answered that it keeps none."""
    quiet = silent(told)
    if quiet:
        return f"{', '.join(quiet)} did not answer, and may keep hints"
    kept = [h for h in held(told) if told.ring.member(h.hints.owner) is not None]
    if kept:
        most = max(kept, key=lambda h: h.hints.count)
        total = sum(h.hints.count for h in kept)
        return f"{total} hints are kept, most of them by {most.holder} for {most.hints.owner} ({most.hints.count})"
    return ""


def converged(told: ClusterReport) -> str:
    """Why the copies may differ, as a sentence; empty when all owners of each partition have equal roots."""
    problem = ring_ready(told) or hints_drained(told)
    if problem:
        return problem
    for member, state in zip(told.ring.members, states(told), strict=True):
        if state != UP:
            return f"{member.id} is {state}"
    for report in reports_of(told):
        view = report.repair
        if view is not None and (view.active or view.waiting):
            return f"{report.id} has {len(view.active)} exchanges under way and {view.waiting} waiting"
    return _roots_equal(told)


def _roots_equal(told: ClusterReport) -> str:
    """Why the roots are not all known and equal, as a sentence."""
    roots: Mapping[NodeId, Mapping[int, bytes]] = {
        report.id: {root.partition: root.hash for root in report.roots} for report in reports_of(told)
    }
    unlike = []
    for partition in range(told.ring.q):
        owners = told.ring.owner_ids(partition)
        found = {owner: roots[owner].get(partition) for owner in owners}
        untold = [owner for owner, root in found.items() if root is None]
        if untold:
            return f"{untold[0]} did not tell the root of partition {partition}"
        if len(set(found.values())) > 1:
            unlike.append(partition)
    if unlike:
        return f"the owners of {len(unlike)} of {told.ring.q} partitions differ, partition {unlike[0]} the first"
    return ""


CONDITIONS: Mapping[str, Callable[[ClusterReport], str]] = {
    "ring-ready": ring_ready,
    "hints-drained": hints_drained,
    "converged": converged,
}
