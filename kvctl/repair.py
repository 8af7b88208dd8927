"""One `repair run`, watched from outside: when it is done, and what it cost. Pure.

Promises: it is done once every node that took the order has begun all it had waiting, and what was active
then has ended; costs are the differences of the nodes' own counters. Never: waits for the exchanges that
nodes begin of themselves all the time, one after another.

    order ─► waiting > 0 ... waiting == 0 ─► the exchanges active then ─► none of those is active any more: done
"""

from __future__ import annotations

from collections.abc import Mapping

from kvctl.health import DOWN, size, state_of
from kvctl.render import Object
from kvnode.protocol.messages import ClusterReport, NodeReport, RepairView
from kvnode.protocol.types import NodeId

COUNTED = ("exchanges", "nodes_compared", "keys_compared", "keys_repaired", "bytes_sent", "failed")


class Run:
    """The nodes that took the order, and how far each is."""

    def __init__(self, before: ClusterReport, ordered: Mapping[NodeId, int]) -> None:
        reports = {report.id: report for report in before.reports if report is not None}
        self._before = {node: reports[node] for node in ordered if node in reports}
        self._now = dict(self._before)
        self._ordered = sum(ordered.values())
        self._last: dict[NodeId, set[tuple[int, NodeId]]] = {}
        """Node -> of the exchanges that were active when nothing waited any more, those that still are."""
        self.lost: set[NodeId] = set(ordered) - set(reports)
        """Nodes that went down or restarted meanwhile: what they had still to do is not done."""
        self.finished: set[NodeId] = set()

    @property
    def open(self) -> list[NodeId]:
        """The nodes that are not done."""
        return [node for node in self._before if node not in self.finished | self.lost]

    def see(self, told: ClusterReport) -> None:
        """Take in a status that was asked for after the order was carried out."""
        for member, report in zip(told.ring.members, told.reports, strict=True):
            if member.id not in self.open:
                continue
            if report is not None:
                self._see_node(member.id, report)
            elif state_of(told, member, report) == DOWN:
                self.lost.add(member.id)

    def _see_node(self, node: NodeId, report: NodeReport) -> None:
        if report.boot != self._before[node].boot:
            self.lost.add(node)
            return
        self._now[node] = report
        view = report.repair
        if view is None:
            self.finished.add(node)
            return
        if view.waiting and node not in self._last:
            return
        active = {(e.partition, e.peer) for e in view.active}
        self._last[node] = active & self._last.get(node, active)
        if not self._last[node]:
            self.finished.add(node)

    def totals(self, partitions: int, took_ms: int) -> Object:
        """`repair run -o json`."""
        counted: Object = dict.fromkeys(COUNTED, 0)
        for node, before in self._before.items():
            for name in COUNTED:
                counted[name] += _count(self._now[node].repair, name) - _count(before.repair, name)
        # A node does not begin with an owner it cannot reach just then. What others ordered hides a few of these.
        skipped = max(0, self._ordered - counted["exchanges"] - counted["failed"])
        return {"partitions": partitions, **counted, "skipped": skipped, "took_ms": took_ms}

    def progress(self) -> tuple[str, str]:
        """How far it is, in two short lines."""
        views = [view for report in self._now.values() if (view := report.repair) is not None]
        waiting, active = sum(v.waiting for v in views), sum(len(v.active) for v in views)
        so_far = self.totals(0, 0)
        return (
            f"{so_far['exchanges']} exchanges done, {active} active, {waiting} waiting, {so_far['failed']} failed",
            f"{so_far['nodes_compared']} nodes and {so_far['keys_compared']} keys compared, "
            f"{so_far['keys_repaired']} keys repaired, {size(so_far['bytes_sent'])} sent",
        )


def _count(view: RepairView | None, name: str) -> int:
    found: int = 0 if view is None else getattr(view, name)
    return found
