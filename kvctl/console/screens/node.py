"""One node: what it says of itself, how it sees the others, its last minutes, its log.

Promises: figures of a node that is silent are its last, and say how old. Never: reads a log that is not of
this machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

from textual.binding import BindingType
from textual.containers import Horizontal
from textual.widget import Widget

from kvctl.console.actions import Action
from kvctl.console.figures import count, rate, size, span, took
from kvctl.console.keymap import Key, bindings
from kvctl.console.page import Page
from kvctl.console.troubles import ends
from kvctl.console.view import ClusterView, Row
from kvctl.console.widgets.pane import Pane
from kvctl.console.widgets.tones import Line, spark
from kvctl.output import show
from kvnode.protocol.messages import NodeReport

LOG_BYTES = 16_384
LOG_LINES = 60
SPARK = 40
LEVELS = {"WARNING": "warn", "ERROR": "bad", "CRITICAL": "bad"}
ACTS = (
    Key("kill", "ctrl+k", "act('kill')", "Kill", "SIGKILL this node (asks first)", True),
    Key("pause_node", "P", "act('pause')", "Hold", "SIGSTOP it for ten seconds (asks first)"),
    Key("stop_node", "T", "act('stop')", "Stop", "SIGTERM it (asks first)"),
    Key("restart", "R", "act('restart')", "Restart", "stop and start it (asks first), or start it", True),
)


class NodePage(Page):
    """One node."""

    NAME = "node"
    FOCUS = "#log"
    BINDINGS: ClassVar[list[BindingType]] = bindings(ACTS)

    def __init__(self, node: str) -> None:
        super().__init__()
        self.node = node

    def body(self) -> Iterable[Widget]:
        """What it is, what it does, what it logged."""
        with Horizontal(id="halves"):
            yield Pane(id="facts")
            yield Pane(id="figures")
        yield Pane(id="log")

    def on_mount(self) -> None:
        """Titles."""
        self.query_one("#facts").border_title = f"Node {show(self.node)}".replace("[", "\\[")
        self.query_one("#figures").border_title = "Lately"
        log = self.query_one("#log", Pane)
        log.border_title = "Log"
        log.following = True
        super().on_mount()

    def show(self, view: ClusterView, now_ms: int) -> None:
        """All of it."""
        row = view.row(self.node)
        gone: list[Line] = [((f"{self.node} is no member of the ring any more", "warn"),)]
        self.query_one("#facts", Pane).show(gone if row is None else fact_lines(row, now_ms))
        self.query_one("#figures", Pane).show([] if row is None else figure_lines(view, row, now_ms))
        self.query_one("#log", Pane).show(self._log())

    def _log(self) -> Sequence[Line]:
        cluster = self.board.cluster
        if cluster is None:
            return [(("its log is on its machine: shown for nodes of kvctl up only", "dim"),)]
        return log_lines(tail(cluster.directory(self.node) / "log"))

    def subject(self) -> Action:
        """This node."""
        return Action(("node", "info", self.node))

    def action_act(self, kind: str) -> None:
        """Break or mend it."""
        self.board.act(Action(("fault", kind, self.node)))


def fact_lines(row: Row, now_ms: int) -> list[Line]:
    """Who it is, and how it was started."""
    report = row.report
    state = (row.state, {"up": "good", "suspect": "warn"}.get(row.state, "bad"))
    lines: list[Line] = [
        _fact("state", *state),
        _fact("seen by", f"{row.seen_by} of {row.observers} others that tell us"),
    ]
    lines.append(_fact("address", row.address))
    if row.process is not None:
        process = f"{row.process.state}, pid {row.process.pid}" if row.process.pid else row.process.state
        lines.append(_fact("process", process, "plain" if row.process.state == "runs" else "bad"))
    lines += [
        _fact("fault", f"{f.id} {f.kind} {f.target}, ends {ends(f, now_ms).removeprefix('by itself ')}", "warn")
        for f in row.faults
    ]
    if report is None:
        return [*lines, _fact("report", "it has told nothing since this console looks", "warn")]
    if not row.fresh:
        lines.append(_fact("silent", f"all below is as of {span(now_ms - (row.heard_ms or now_ms))} ago", "bad"))
    elif row.direct:
        lines.append(_fact("heard", "by us only: the node that gathers does not reach it", "warn"))
    return [*lines, *_report_facts(row, report)]


def _report_facts(row: Row, report: NodeReport) -> list[Line]:
    return [
        _fact("takes writes", "yes" if report.writable else report.problem, "good" if report.writable else "bad"),
        _fact("owns", f"{row.partitions} partitions, first of {row.primaries}"),
        _fact("holds", f"{report.keys:,} keys, {size(report.value_bytes)}; {size(report.disk_bytes)} on disk"),
        _fact("engine", f"{report.engine}, durability {report.durability}"),
        _fact("memory", size(report.rss_bytes)),
        _fact("disk free", size(report.disk_free_bytes)),
        _fact("up for", f"{span(report.uptime_ms)}, boot {report.boot}, incarnation {report.incarnation}"),
        _fact("disk id", f"{report.disk_id:016x}"),
        _fact("epoch", str(report.epoch)),
        _fact("recovering", f"{report.recovering} partitions" if report.recovering else "no",
              "warn" if report.recovering else "plain"),
        _fact("avoids", ", ".join(map(show, report.avoided)) or "nobody", "warn" if report.avoided else "plain"),
        _fact("version", f"{report.version}, pid {report.pid}"),
    ]  # fmt: skip


def _fact(name: str, text: str, tone: str = "plain") -> Line:
    return ((f"{name:<13}", "dim"), (text, tone))


def figure_lines(view: ClusterView, row: Row, now_ms: int) -> list[Line]:
    """Its last minute, its hints, its exchanges, how it sees the others."""
    at = view.rows.index(row)
    past = [p.nodes[at] if at < len(p.nodes) else None for p in view.points[-SPARK:]]
    report = row.report
    lines: list[Line] = [
        _spark("ops/s", [p.ops_s if p else None for p in past], rate(row.point.ops_s), "one"),
        _spark("p99", [p.p99_ms if p else None for p in past], took(row.point.p99_ms), "two"),
        _spark("hints kept", [float(p.hints) if p else None for p in past], count(row.point.hints), "three"),
        (),
    ]
    if report is None or not row.fresh:
        return lines
    waiting = sum(row.hints_for_it for row in view.rows if row.id == report.id)
    lines.append(_fact("for it", f"{waiting:,} hints wait elsewhere", "warn" if waiting else "plain"))
    for hints in report.hints:
        moving = f", {hints.per_s:.0f}/s" if hints.per_s else ""
        lines.append(_fact("keeps", f"{hints.count:,} for {hints.owner}, {size(hints.bytes)}{moving}", "warn"))
    repair = report.repair
    if repair is not None:
        word = "paused" if repair.paused else f"{len(repair.active)} active, {repair.waiting} waiting"
        lines.append(
            _fact("exchanges", f"{word}, {repair.exchanges:,} done, {repair.keys_repaired:,} keys repaired")
        )
    lines += [(), (("sees", "head"),)]
    for peer in report.peers:
        tone = {"up": "good", "suspect": "warn"}.get(peer.state, "bad")
        by = f"  suspected by {', '.join(peer.suspected_by)}" if peer.suspected_by else ""
        lines.append((f"  {show(peer.node):<12} ", (f"{peer.state:<8}", tone), f"phi {peer.phi:5.1f}",
                      (f"  silent {peer.silent_ms} ms{by}", "dim")))  # fmt: skip
    return lines


def _spark(name: str, values: Sequence[float | None], now: str, tone: str) -> Line:
    return ((f"{name:<11}", "dim"), (spark(values, SPARK), tone), f" {now}")


def tail(path: Path) -> list[str]:
    """The last lines of a file; none where there is none."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, 2)
            file.seek(max(0, end - LOG_BYTES))
            raw = file.read()
    except OSError:
        return []
    lines = raw.decode("utf-8", "surrogateescape").splitlines()
    return lines[-LOG_LINES:] if end <= LOG_BYTES else lines[1:][-LOG_LINES:]


def log_lines(lines: Sequence[str]) -> list[Line]:
    """JSON lines of a log for people; what is none is shown as it is."""
    found: list[Line] = []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict):
            found.append((line,))
            continue
        level = str(entry.get("level", ""))
        found.append((
            (f"{str(entry.get('at', ''))[11:19]} ", "dim"), (f"{level:<8}", LEVELS.get(level.upper(), "dim")),
            (f"{entry.get('kind', '')!s:<10} ", "accent"), str(entry.get("text", "")),
        ))  # fmt: skip
    return found or [(("it logged nothing", "dim"),)]
