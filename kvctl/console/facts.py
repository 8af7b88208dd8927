"""One node in words: what it says of itself, its last minutes, how it sees the others. Pure.

Promises: figures of a node that is silent are its last, and say how old; what does not fit in a line goes on in
the next. Never: a figure without its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap

from kvctl.console.figures import age, count, rate, size, span, took
from kvctl.console.troubles import ends
from kvctl.console.view import ClusterView, Row
from kvctl.console.widgets.tones import Cell, Line, spark
from kvctl.output import show
from kvnode.protocol.messages import NodeReport

NAME = 13
"""Cells of a fact's name."""
FIGURE = 8
SPARK_MAX = 40
STATES = {"up": "good", "suspect": "warn"}


def fact(name: str, text: str, width: int, tone: str = "plain") -> list[Line]:
    """A name and what there is to say, over as many lines as it takes."""
    parts = wrap(text, max(12, width - NAME)) or [""]
    return [((f"{name if i == 0 else '':<{NAME}}", "dim"), (part, tone)) for i, part in enumerate(parts)]


def fact_lines(row: Row, now_ms: int, width: int) -> list[Line]:
    """Who it is, what is wrong with it, how it was started."""
    report = row.report
    seen = f"{row.state}, seen by {row.seen_by} of {row.observers} others that tell us"
    lines = [
        *fact("state", seen, width, STATES.get(row.state, "bad")),
        *fact("address", row.address, width),
    ]
    if row.process is not None:
        process = f"{row.process.state}, pid {row.process.pid}" if row.process.pid else row.process.state
        lines += fact("process", process, width, "plain" if row.process.state == "runs" else "bad")
    for each in row.faults:
        until = ends(each, now_ms).removeprefix("by itself ")
        lines += fact("fault", f"{each.kind} {each.target}, {until} ({each.id})", width, "warn")
    if report is None:
        return [*lines, *fact("report", "it has told nothing since this console looks", width, "warn")]
    if not row.fresh:
        old = span(now_ms - (row.heard_ms or now_ms))
        lines += fact("silent", f"all below is as of {old} ago", width, "bad")
    elif row.direct:
        lines += fact("heard", "by us only: the node that gathers does not reach it", width, "warn")
    return [*lines, *_report_facts(row, report, width)]


def _votes(report: NodeReport) -> str:
    if report.voteless:
        return f"none in {report.voteless} partitions"
    return f"yes, waived in {report.waived} partitions" if report.waived else "yes"


def _report_facts(row: Row, report: NodeReport, width: int) -> list[Line]:
    recovering = f"{report.recovering} partitions" if report.recovering else "no"
    facts: list[tuple[str, str, str]] = [
        ("takes writes", "yes" if report.writable else report.problem, "good" if report.writable else "bad"),
        ("owns", f"{row.partitions} partitions, first of {row.primaries}", "plain"),
        ("holds", f"{report.keys:,} keys, {size(report.value_bytes)}", "plain"),
        ("disk", f"{size(report.disk_bytes)} used, {size(report.disk_free_bytes)} free", "plain"),
        ("engine", f"{report.engine}, durability {report.durability}", "plain"),
        ("memory", size(report.rss_bytes), "plain"),
        ("up for", f"{span(report.uptime_ms)}, boot {report.boot}, incarnation {report.incarnation}", "plain"),
        ("recovering", recovering, "warn" if report.recovering else "plain"),
        ("votes", _votes(report), "warn" if report.voteless else "plain"),
        ("avoids", ", ".join(map(show, report.avoided)) or "nobody", "warn" if report.avoided else "plain"),
        ("ring", f"epoch {report.epoch}", "plain"),
        ("disk id", f"{report.disk_id:016x}", "plain"),
        ("version", f"{report.version}, pid {report.pid}", "plain"),
    ]
    return [line for name, text, tone in facts for line in fact(name, text, width, tone)]


def figure_lines(view: ClusterView, row: Row, width: int) -> list[Line]:
    """Its last minute, its hints, its exchanges."""
    at = view.rows.index(row)
    past = [p.nodes[at] if at < len(p.nodes) else None for p in view.points[-SPARK_MAX:]]
    report = row.report
    kept = count(row.point.hints if row.fresh else None)
    lines: list[Line] = [
        _spark("ops/s", [p.ops_s if p else None for p in past], rate(row.point.ops_s), "one", width),
        _spark("p99", [p.p99_ms if p else None for p in past], took(row.point.p99_ms), "two", width),
        _spark("hints kept", [float(p.hints) if p else None for p in past], kept, "three", width),
    ]  # fmt: skip
    if report is None or not row.fresh:
        return lines
    waiting = row.hints_for_it
    lines += fact("for it", f"{waiting:,} hints wait elsewhere", width, "warn" if waiting else "plain")
    for hints in report.hints:
        moving = f", {hints.per_s:.0f}/s" if hints.per_s else ""
        told = f"{hints.count:,} for {show(hints.owner)}, {size(hints.bytes)}{moving}"
        lines += fact("keeps", told, width, "warn")
    repair = report.repair
    if repair is not None:
        idle = not repair.active and not repair.waiting
        busy = "" if idle else f"{len(repair.active)} active, {repair.waiting} waiting, "
        word = "paused, " if repair.paused else busy
        told = f"{word}{repair.exchanges:,} done, {repair.keys_repaired:,} keys repaired"
        lines += fact("exchanges", told, width)
    return lines


def sight_lines(row: Row, width: int) -> list[Line]:
    """How it sees the others; nothing where it tells nothing."""
    if row.report is None or not row.fresh or not row.report.peers:
        return []
    lines: list[Line] = [(), ((f"{'SEES':<{NAME}}STATE      PHI  SILENT  SUSPECTED BY", "head"),)]
    for peer in row.report.peers:
        by: Cell = (", ".join(map(show, peer.suspected_by)) or "-", "warn" if peer.suspected_by else "dim")
        lines.append((
            f"{show(peer.node)[: NAME - 1]:<{NAME}}", (f"{peer.state:<9}", STATES.get(peer.state, "bad")),
            f"{peer.phi:5.1f}  {age(peer.silent_ms):>6}  ", by,
        ))  # fmt: skip
    return lines


def _spark(name: str, values: Sequence[float | None], now: str, tone: str, width: int) -> Line:
    room = min(SPARK_MAX, max(4, width - NAME - FIGURE - 1))
    return ((f"{name:<{NAME}}", "dim"), f"{now:<{FIGURE}} ", (spark(values, room).lstrip(), tone))
