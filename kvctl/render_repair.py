"""Hints and anti-entropy -> views. Pure.

Promises: figures are the nodes' own; rates and times left follow from them. Never: a time left where
nothing moves.
"""

from __future__ import annotations

from kvctl.health import Held, held, reports_of, silent, size, span
from kvctl.output import Table, View, aligned, show, utc
from kvctl.render import Object
from kvnode.protocol.messages import ClusterReport, ExchangeView, NodeReport, RepairView

EXCHANGES_SHOWN = 20
"""Exchanges listed under the table; there may be two a node and those of its peers."""

# ---- hints ---------------------------------------------------------------------------------


def hints_view(told: ClusterReport) -> View:
    """`hints ls`: a row for each holder and owner."""
    kept = held(told)
    objects = [_held_json(h) for h in kept]
    total = sum(h.hints.count for h in kept)
    columns = ("HOLDER", "OWNER", "HINTS", "BYTES", "OLDEST", "RATE", "LEFT", "OWNER IS", "DELIVERED")
    quiet = silent(told)
    below = ("no hints are kept",) * (not kept)
    if quiet:
        below = (f"{', '.join(map(show, quiet))} did not answer, and may keep hints",)
    right = frozenset({"HINTS", "BYTES", "OLDEST", "RATE", "LEFT", "DELIVERED"})
    table = Table(columns, tuple(_held_row(h) for h in kept), right, 8, below=below)
    data: Object = {"hints": objects, "count": len(objects), "held": total, "silent": quiet}
    return View("hints.ls", data, table, objects)


def left_s(held: Held) -> float | None:
    """Seconds until these are delivered at the present rate; None while none are."""
    return held.hints.count / held.hints.per_s if held.hints.per_s > 0 else None


def _held_json(held: Held) -> Object:
    hints, left = held.hints, left_s(held)
    return {
        "holder": held.holder,
        "owner": hints.owner,
        "count": hints.count,
        "bytes": hints.bytes,
        "oldest_at": utc(hints.oldest_ms),
        "oldest_s": round(held.age_ms / 1000, 1),
        "delivered": hints.delivered,
        "per_s": round(hints.per_s, 1),
        "left_s": None if left is None else round(left, 1),
        "reachable": hints.reachable,
    }


def _held_row(held: Held) -> tuple[str, ...]:
    hints, left = held.hints, left_s(held)
    return (
        show(held.holder), show(hints.owner), str(hints.count), size(hints.bytes), span(held.age_ms),
        f"{hints.per_s:.0f}/s", "-" if left is None else span(left * 1000 + 999),
        "reachable" if hints.reachable else "NOT REACHABLE", str(hints.delivered),
    )  # fmt: skip


# ---- repair --------------------------------------------------------------------------------


def repair_view(told: ClusterReport) -> View:
    """`repair status`: a row a node, and the exchanges under way."""
    reports = reports_of(told)
    nodes = [_repair_json(report) for report in reports]
    columns = (
        "NODE", "REPAIR", "WAITING", "EXCHANGES", "REPAIRED", "SENT", "OLDEST", "MISSED", "FAILED",
        "NODES COMPARED", "KEYS COMPARED", "RECOVERING",
    )  # fmt: skip
    quiet = silent(told)
    below = (f"{', '.join(map(show, quiet))} did not answer",) if quiet else ()
    walking = tuple(walk_lines(told))
    rows = tuple(_repair_row(report) for report in reports)
    table = Table(columns, rows, frozenset(columns[2:]), 9, below=(*below, *(("", *walking) if walking else ())))
    data: Object = {
        "nodes": nodes,
        "count": len(nodes),
        "active": sum(len(n["active"]) for n in nodes),
        "waiting": sum(n["waiting"] or 0 for n in nodes),
        "needs_repair": sum(report.needs_repair for report in reports),
        "silent": quiet,
    }
    return View("repair.status", data, table, nodes)


def exchange_json(exchange: ExchangeView) -> Object:
    """How far an exchange has come."""
    return {name: getattr(exchange, name) for name in ExchangeView.__struct_fields__}


def _repair_json(report: NodeReport) -> Object:
    view = report.repair
    told = (
        "paused",
        "waiting",
        "exchanges",
        "nodes_compared",
        "keys_compared",
        "keys_repaired",
        "bytes_sent",
        "failed",
    )
    oldest = view.oldest_ms if view is not None else 0
    return {
        "node": report.id,
        **{name: None if view is None else getattr(view, name) for name in told},
        "active": [exchange_json(e) for e in view.active] if view is not None else [],
        "oldest_at": utc(oldest or None),
        "oldest_s": round((report.wall_ms - oldest) / 1000, 1) if oldest else None,
        "needs_repair": report.needs_repair,
        "recovering": report.recovering,
    }


def repair_word(view: RepairView | None) -> str:
    """What anti-entropy does on a node, in a word."""
    if view is None:
        return "-"
    return "paused" if view.paused else f"{len(view.active)} active" if view.active else "idle"


def _repair_row(report: NodeReport) -> tuple[str, ...]:
    view = report.repair
    missed, recovering = str(report.needs_repair), str(report.recovering)
    if view is None:
        return (show(report.id), "-", "-", "-", "-", "-", "-", missed, "-", "-", "-", recovering)
    return (
        show(report.id), repair_word(view), str(view.waiting), str(view.exchanges), str(view.keys_repaired),
        size(view.bytes_sent), span(report.wall_ms - view.oldest_ms) if view.oldest_ms else "never", missed,
        str(view.failed), str(view.nodes_compared), str(view.keys_compared), recovering,
    )  # fmt: skip


def walk_lines(told: ClusterReport) -> list[str]:
    """The exchanges under way, a line each: where in its tree each one is."""
    walking = [(r.id, e) for r in reports_of(told) if r.repair is not None for e in r.repair.active]
    if not walking:
        return []
    columns = ("PARTITION", "BETWEEN", "STEP", "LEAVES", "NODES", "KEYS", "REPAIRED", "SENT")
    rows = [
        (
            str(e.partition), f"{show(node)} > {show(e.peer)}", show(e.step), str(e.size), str(e.nodes_compared),
            str(e.keys_compared), str(e.keys_repaired), size(e.bytes_sent),
        )
        for node, e in walking[:EXCHANGES_SHOWN]
    ]  # fmt: skip
    more = [f"and {len(walking) - EXCHANGES_SHOWN} more"] if len(walking) > EXCHANGES_SHOWN else []
    return [*aligned(columns, rows, frozenset(columns) - {"BETWEEN", "STEP"}), *more]


def run_view(totals: Object) -> View:
    """`repair run`: what it took."""
    columns = ("PARTITIONS", "EXCHANGES", "NODES", "KEYS", "REPAIRED", "SENT", "FAILED", "SKIPPED", "TOOK")
    row = (
        str(totals["partitions"]), str(totals["exchanges"]), str(totals["nodes_compared"]),
        str(totals["keys_compared"]), str(totals["keys_repaired"]), size(totals["bytes_sent"]),
        str(totals["failed"]), str(totals["skipped"]), f"{totals['took_ms'] / 1000:.1f}s",
    )  # fmt: skip
    return View("repair.run", totals, Table(columns, (row,), frozenset(columns)))
