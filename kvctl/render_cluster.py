"""Replies about the cluster -> views: status, check, nodes, faults, events. Pure.

Promises: `status -o json` exactly as CONTRACT ("Cluster") writes it; what does not exist yet or is
not known is null. Never: talks to a node, or prints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kvctl.faultlog import Fault
from kvctl.health import (
    UP,
    Held,
    epoch_agreed,
    held,
    margin,
    reports_of,
    size,
    span,
    state_of,
    states,
    up_of,
    view_of,
)
from kvctl.output import Json, Table, View, show, utc
from kvctl.render import Object
from kvctl.render_shape import progress_json, progress_text
from kvctl.rules import OK, Finding, verdict
from kvctl.shape import known, progress
from kvnode.protocol.messages import ClusterReport, Event, NodeReport
from kvnode.protocol.messages import Fault as InsideFault
from kvnode.protocol.ring import JOINING, LEAVING, NORMAL, OUTSIDE, Member

Faults = Mapping[str, Sequence[Fault | InsideFault]]
"""Node -> the faults of its process, and those inside it where its report is not here."""
LEGEND = ("Status=Up/Suspect/Down", "|/ State=Normal/Joining/Leaving/Outside")
LETTERS = {NORMAL: "N", JOINING: "J", LEAVING: "L", OUTSIDE: "O"}


# ---- status --------------------------------------------------------------------------------


def status_view(told: ClusterReport, faults: Faults) -> View:
    """`status`: in the manner of nodetool, one row a node."""
    hints = held(told)
    nodes = [node_json(told, member, report, faults, hints) for member, report in known(told)]
    ring, up, way = told.ring, states(told).count(UP), progress(told)
    data: Object = {
        "cluster": ring.cluster,
        "epoch": ring.epoch,
        "epoch_agreed": epoch_agreed(told),
        "n": ring.n,
        "q": ring.q,
        "nodes": nodes,
        "needs_repair": sum(report.needs_repair for report in reports_of(told)),
        "margin": round(margin(ring, up_of(told)), 4),
        "moves": progress_json(way) if way.partitions else None,
    }
    agreed = "agreed" if data["epoch_agreed"] else "NOT AGREED"
    head = (
        f"Cluster {show(ring.cluster)}  {up} of {len(ring.members)} nodes up  epoch {ring.epoch} {agreed}  "
        f"n={ring.n} q={ring.q}  margin {data['margin']:.0%}"
    )
    columns = (
        "--", "Node", "Address", "Owns", "Keys", "Load", "Hints", "For it", "P99", "Faults",
        "Uptime", "Phi", "Primaries", "Disk", "Free", "Memory", "Durability", "Pid",
    )  # fmt: skip
    left = {"--", "Node", "Address", "Faults", "Durability"}
    rows = tuple(_status_row(told, node, report) for node, (_, report) in zip(nodes, known(told), strict=True))
    below = (progress_text(way),) if way.partitions else ()
    return View("status", data, Table(columns, rows, frozenset(columns) - left, 10, (head, *LEGEND), below), nodes)


def node_json(
    told: ClusterReport, member: Member, report: NodeReport | None, faults: Faults, hints: Sequence[Held]
) -> Object:
    """A node of `status -o json`; `hints` are all that are kept."""
    partitions, primaries = told.ring.places(member.id)
    view = view_of(told, member.id)
    return {
        "id": member.id,
        "address": member.address,
        "host": member.host,
        "state": state_of(told, member, report),
        "member": told.ring.membership(member.id),
        "partitions": partitions,
        "primaries": primaries,
        "keys": report and report.keys,
        "bytes": report and report.value_bytes,
        "disk_bytes": report and report.disk_bytes,
        "hints_held": None if report is None else sum(h.hints.count for h in hints if h.holder == member.id),
        # Over the holders that answer: while a node is down, that is when one wants to know.
        "hints_for_it": sum(h.hints.count for h in hints if h.hints.owner == member.id),
        "p99_ms": report and report.p99_ms,
        "phi": view and round(view.phi, 2),
        "suspected_by": list(view.suspected_by) if view else [],
        "uptime_s": report and round(report.uptime_ms / 1000, 1),
        "faults": [
            f"{f.id} {f.kind}"
            for f in (*faults.get(member.id, ()), *(report.faults if report is not None else ()))
        ],
        "pid": report and report.pid,
        "epoch": report and report.epoch,
        "writable": report and report.writable,
        "durability": report and report.durability,
    }


def _status_row(told: ClusterReport, node: Object, report: NodeReport | None) -> tuple[str, ...]:
    whole = (
        node["state"][0].upper() + LETTERS[node["member"]], show(node["id"]), show(node["address"]),
        f"{node['partitions'] / told.ring.q:.1%}",
    )  # fmt: skip
    for_it, faults = str(node["hints_for_it"]), ", ".join(node["faults"]) or "-"
    phi = "-" if node["phi"] is None else f"{node['phi']:.1f}"
    if report is None:
        return (*whole, "-", "-", "-", for_it, "-", faults, "-", phi, str(node["primaries"]), *("-",) * 5)
    p99 = "-" if report.p99_ms is None else f"{report.p99_ms:.1f}ms"
    return (
        *whole, str(report.keys), size(report.value_bytes), str(node["hints_held"]), for_it, p99, faults,
        span(report.uptime_ms), phi, str(node["primaries"]), size(report.disk_bytes), size(report.disk_free_bytes),
        size(report.rss_bytes), show(report.durability), str(report.pid),
    )  # fmt: skip


# ---- check ---------------------------------------------------------------------------------

WORDS = {"OK": "ok", "WARN": "degraded", "FAIL": "critical"}


def check_view(found: Sequence[Finding]) -> View:
    """`check`: a line a rule."""
    rules: list[Object] = [{"rule": f.rule, "state": f.state, "detail": f.detail} for f in found]
    table = Table(("STATE", "RULE", "DETAIL"), tuple((f.state, f.rule, show(f.detail)) for f in found))
    text = "\n".join(f"[{f.state}] {f.rule}: {show(f.detail)}" for f in found)
    return View("check", {"verdict": WORDS[verdict(list(found))], "rules": rules}, table, rules, text)


def exit_of(found: Sequence[Finding]) -> int:
    """0, 10 degraded, 11 critical."""
    state = verdict(list(found))
    return 0 if state == OK else 10 if state == "WARN" else 11


# ---- nodes ---------------------------------------------------------------------------------


def nodes_view(nodes: Sequence[Object]) -> View:
    """`node ls`."""
    rows = tuple(
        (
            show(n["id"]), show(n["address"]), n["state"], n["member"] or "-", str(n["pid"] or "-"),
            show(n["data"] or "-"),
        )
        for n in nodes
    )  # fmt: skip
    table = Table(("NODE", "ADDRESS", "STATE", "MEMBER", "PID", "DATA"), rows, frozenset({"PID"}), 5)
    return View("node.ls", {"nodes": list(nodes), "count": len(nodes)}, table, nodes)


def fields_view(command: str, data: Mapping[str, Json]) -> View:
    """One object, a field a row."""
    rows = tuple((name, "-" if value is None else show(str(value))) for name, value in sorted(data.items()))
    return View(command, data, Table(("FIELD", "VALUE"), rows))


def info_json(told: ClusterReport, member: Member, report: NodeReport | None, faults: Faults) -> Object:
    """`node info`: all a node says of itself."""
    data = node_json(told, member, report, faults, held(told))
    if report is not None:
        data |= {
            "boot": str(report.boot),
            "engine": report.engine,
            "problem": report.problem or None,
            "p50_ms": report.p50_ms,
            "avoided": list(report.avoided),
            "rss_bytes": report.rss_bytes,
            "disk_free_bytes": report.disk_free_bytes,
            "needs_repair": report.needs_repair,
            "recovering": report.recovering,
            "voteless": report.voteless,
            "waived": report.waived,
            "incarnation": str(report.incarnation),
            "disk_id": f"{report.disk_id:016x}",
            "version": report.version,
            "at": utc(report.wall_ms),
        }
    return data


def stats_view(report: NodeReport) -> View:
    """`node stats`: the counters since the boot."""
    rows = tuple((show(name), str(value)) for name, value in sorted(report.counters.items()))
    data: Object = {"node": report.id, "uptime_s": round(report.uptime_ms / 1000, 1), "counters": report.counters}
    return View("node.stats", data, Table(("COUNTER", "VALUE"), rows, frozenset({"VALUE"})))


# ---- events ---------------------------------------------------------------------------------


def event_json(event: Event) -> Object:
    """An event as an object."""
    return {
        "at": utc(event.wall_ms),
        "node": event.node,
        "number": event.number,
        "kind": event.kind,
        "text": event.text,
    }


def events_view(events: Sequence[Event]) -> View:
    """Events, oldest first."""
    objects = [event_json(e) for e in events]
    rows = tuple((utc(e.wall_ms) or "-", show(e.node), show(e.kind), show(e.text)) for e in events)
    return View(
        "events", {"events": objects, "count": len(objects)}, Table(("AT", "NODE", "KIND", "TEXT"), rows), objects
    )


def reporting(told: ClusterReport) -> list[str]:
    """The nodes that answered."""
    return [r.id for r in reports_of(told)]
