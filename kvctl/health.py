"""What a cluster report says of the cluster: who is up, what it can still do, what it waits for. Pure.

Promises: figures follow from the ring and the reports alone; what no report tells is None.
Never: an opinion; those are the rules of `check`, in `rules.py`.

Two facts are kept apart. A node *answers* when its report is here. Its *state* is what the node that
was asked concludes of it from all observers: for some two seconds after a crash that is still `up`.
"""

from __future__ import annotations

from msgspec import Struct

from kvnode.protocol.messages import ClusterReport, HintsFor, NodeReport, PeerView
from kvnode.protocol.ring import Member, Ring, majority
from kvnode.protocol.types import NodeId

UP, SUSPECT, DOWN = "up", "suspect", "down"


class Held(Struct, frozen=True):
    """The hints one member keeps for another."""

    holder: NodeId
    hints: HintsFor
    age_ms: int
    """Of the oldest, by the holder's clock."""


def reports_of(told: ClusterReport) -> list[NodeReport]:
    """The reports there are."""
    return [report for report in told.reports if report is not None]


def silent(told: ClusterReport) -> list[NodeId]:
    """The members that did not answer."""
    return [m.id for m, report in zip(told.ring.members, told.reports, strict=True) if report is None]


def view_of(told: ClusterReport, node: NodeId) -> PeerView | None:
    """What the node that was asked thinks of another; None of itself, and where it has no opinion."""
    asked = next((r for r in reports_of(told) if r.id == told.asked), None)
    if asked is None or node == told.asked:
        return None
    return next((peer for peer in asked.peers if peer.node == node), None)


def state_of(told: ClusterReport, member: Member, report: NodeReport | None) -> str:
    """`up`, `suspect` or `down`, as the node that was asked concludes; where it has no opinion, as it answers."""
    view = view_of(told, member.id)
    if view is not None and view.state in (UP, SUSPECT, DOWN):
        return view.state
    return DOWN if report is None else UP


def states(told: ClusterReport) -> list[str]:
    """The state of every member, in the ring's order."""
    return [state_of(told, m, report) for m, report in zip(told.ring.members, told.reports, strict=True)]


def up_of(told: ClusterReport) -> set[int]:
    """The members that answer and are not held to be down, by their index in the ring."""
    pairs = zip(told.reports, states(told), strict=True)
    return {i for i, (report, state) in enumerate(pairs) if report is not None and state != DOWN}


def held(told: ClusterReport) -> list[Held]:
    """Every hint that a member which answers keeps, by holder and owner."""
    return [
        Held(report.id, hints, max(0, report.wall_ms - hints.oldest_ms))
        for report in reports_of(told)
        for hints in report.hints
        if hints.count
    ]


def epoch_agreed(told: ClusterReport) -> bool:
    """Whether every member that is up reports one epoch."""
    return len({report.epoch for report in reports_of(told)}) == 1


def short_of_quorum(ring: Ring, up: set[int]) -> int:
    """Partitions of which fewer than a majority of owners is up: no default read or write there."""
    return sum(sum(o in up for o in owners) < majority(len(owners)) for owners in ring.owners)


def margin(ring: Ring, up: set[int]) -> float:
    """Share of partitions that keep a quorum when the worst further node is lost."""
    worst = max((short_of_quorum(ring, up - {node}) for node in up), default=ring.q)
    return (ring.q - worst) / ring.q


# ---- words ---------------------------------------------------------------------------------


def size(count: int) -> str:
    """Bytes for people."""
    value = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def span(ms: float) -> str:
    """A length of time for people."""
    s = int(ms // 1000)
    if s < 60:
        return f"{s}s"
    if s < 3600:
        return f"{s // 60}m{s % 60:02d}s"
    return f"{s // 3600}h{s % 3600 // 60:02d}m" if s < 86400 else f"{s // 86400}d{s % 86400 // 3600:02d}h"
