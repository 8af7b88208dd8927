"""Who sees whom: every observer's view of every member, as `kvctl node ls --matrix` shows it. Pure.

Promises: a cell is what that observer itself reported. Never: a guess for one that did not answer: `?`.
"""

from __future__ import annotations

from kvctl.health import reports_of
from kvctl.output import Table, View, show
from kvctl.render import Object
from kvnode.protocol.messages import ClusterReport, NodeReport, PeerView
from kvnode.protocol.types import NodeId

ITSELF, UNKNOWN = "-", "?"


def matrix_view(told: ClusterReport) -> View:
    """A row an observer, a column a member: its state, and how surprising its silence is."""
    members = [member.id for member in told.ring.members]
    by_node = {report.id: report for report in reports_of(told)}
    observers: Object = {}
    rows = []
    for observer in members:
        report = by_node.get(observer)
        observers[observer] = None if report is None else {p.node: _peer_json(p) for p in _others(report)}
        rows.append((show(observer), *(_cell(report, observer, member) for member in members)))
    table = Table(("OBSERVER", *map(show, members)), tuple(rows), below=("state and phi of the column's node",))
    lines: list[Object] = [{"observer": node, "peers": peers} for node, peers in observers.items()]
    return View("node.matrix", {"observers": observers, "count": len(members)}, table, lines)


def _others(report: NodeReport) -> list[PeerView]:
    return [peer for peer in report.peers if peer.node != report.id]


def _peer_json(peer: PeerView) -> Object:
    return {
        "state": peer.state,
        "phi": round(peer.phi, 2),
        "silent_ms": peer.silent_ms,
        "suspected_by": list(peer.suspected_by),
    }


def _cell(report: NodeReport | None, observer: NodeId, member: NodeId) -> str:
    if observer == member:
        return ITSELF
    view = next((p for p in report.peers if p.node == member), None) if report is not None else None
    return UNKNOWN if view is None else f"{show(view.state)} {view.phi:.1f}"
