"""What one look at a cluster found: the only thing the console knows, and all that a recording holds. Pure.

Promises: a value that says what could not be seen. Never: trusts what a node sent: `nonsense` is asked first.
"""

from __future__ import annotations

from msgspec import Struct

from kvctl.render_faults import Listed
from kvnode.protocol.messages import ClusterReport, Event, NodeReport
from kvnode.protocol.ring import Q_MAX, Q_MIN, Ring
from kvnode.protocol.types import NodeId

RUNS, GONE, HELD = "runs", "gone", "held"


class Process(Struct, frozen=True, array_like=True):
    """A node's process on this machine."""

    node: str
    state: str
    """`runs`, `gone`, or `held` (stopped by SIGSTOP)."""
    pid: int = 0


class Sample(Struct, frozen=True, kw_only=True):
    """One look."""

    at_ms: int
    """Wall time of the console when it was over."""
    took_ms: int = 0
    asked: NodeId = NodeId("")
    """The node that gathered the reports; empty when none answered."""
    reports: tuple[NodeReport | None, ...] = ()
    """In the order of the ring's members; None for one that told nobody."""
    direct: tuple[NodeId, ...] = ()
    """Those the node asked could not hear, and that told us themselves."""
    events: tuple[Event, ...] = ()
    """New since the last look."""
    processes: tuple[Process, ...] = ()
    """Of a cluster of this machine; empty for others."""
    faults: tuple[Listed, ...] = ()
    """Those of processes; the others are in the reports."""
    problem: str = ""
    """Why nothing could be seen; empty when something was."""


def nonsense(told: ClusterReport) -> str:
    """Why this report cannot be shown, as a sentence; empty when it can."""
    ring = told.ring
    members = len(ring.members)
    if not members or not Q_MIN <= ring.q <= Q_MAX or len(ring.owners) != ring.q:
        return f"{told.asked} told a ring of {members} members and {len(ring.owners)} partitions, not {ring.q}"
    if len({member.id for member in ring.members}) != members:
        return f"{told.asked} told a ring in which a member is twice"
    if any(not owners or not all(0 <= o < members for o in owners) for owners in ring.owners):
        return f"{told.asked} told a ring with owners that are no members"
    if len(told.reports) != members:
        return f"{told.asked} told {len(told.reports)} reports of {members} members"
    for member, report in zip(ring.members, told.reports, strict=True):
        if report is not None and report.id != member.id:
            return f"{told.asked} told a report of {report.id} as that of {member.id}"
    return ""


def told_of(ring: Ring, sample: Sample) -> ClusterReport:
    """A sample as the report of a cluster, which the other commands judge."""
    return ClusterReport(0, ring, sample.reports, sample.asked)
