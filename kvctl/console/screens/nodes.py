"""Nodes: every node in a row, and who sees whom.

Promises: a state is what the others conclude, and how many of them; a cell of the matrix is what that observer
itself told, `?` where it told nothing. Never: acts on another row than the one whose name it shows.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual.binding import BindingType
from textual.widget import Widget

from kvctl.console.actions import Action
from kvctl.console.cells import letter
from kvctl.console.figures import count, rate, share, size, span, took
from kvctl.console.keymap import Key, bindings
from kvctl.console.page import Page
from kvctl.console.screens.node import NodePage
from kvctl.console.screens.overview import state_cell
from kvctl.console.view import ClusterView, Row
from kvctl.console.widgets import table
from kvctl.console.widgets.pane import Pane
from kvctl.console.widgets.table import Column, KeyTable
from kvctl.console.widgets.tones import Cell, Line, spark
from kvctl.output import show
from kvnode.protocol.messages import PeerView

WIDE_MATRIX = 10
"""Up to so many nodes, a cell has words; beyond, a letter."""
LETTERS = {"up": ("·", "good"), "suspect": ("S", "warn"), "down": ("D", "bad")}
WORDS = {"up": "good", "suspect": "warn", "down": "bad"}
SPARK = 8
COLUMNS = (
    Column("ST"), Column("NODE", most=20), Column("ADDRESS", most=24, rank=6), Column("OWNS", right=True, rank=3),
    Column("KEYS", right=True, rank=2), Column("LOAD", right=True, rank=4), Column("HINTS", right=True),
    Column("FOR IT", right=True, rank=1), Column("OPS/S", right=True), Column("", rank=5),
    Column("P99", right=True),
    Column("ERR/S", right=True, rank=7), Column("SEEN", right=True), Column("PHI", right=True, rank=8),
    Column("UP FOR", right=True, rank=5), Column("RSS", right=True, rank=9), Column("DISK", right=True, rank=9),
    Column("FAULT", flex=True, rank=2),
)  # fmt: skip
ACTS = (
    Key("kill", "ctrl+k", "act('kill')", "Kill", "SIGKILL the node under the cursor (asks first)", True),
    Key("pause_node", "P", "act('pause')", "Hold", "SIGSTOP it for ten seconds (asks first)"),
    Key("stop_node", "T", "act('stop')", "Stop", "SIGTERM it (asks first)"),
    Key("restart", "R", "act('restart')", "Restart", "stop and start it (asks first), or start it", True),
)


class Nodes(Page):
    """All nodes."""

    NAME = "nodes"
    FOCUS = "#all"
    BINDINGS: ClassVar[list[BindingType]] = bindings(ACTS)

    def body(self) -> Iterable[Widget]:
        """The table, and the matrix."""
        yield KeyTable(COLUMNS, id="all", empty="no node has been seen")
        yield Pane(id="matrix")

    def on_mount(self) -> None:
        """Titles."""
        self.query_one("#all").border_title = "Nodes"
        self.query_one("#matrix").border_title = "Who sees whom"
        super().on_mount()

    def show(self, view: ClusterView, now_ms: int) -> None:
        """All of it."""
        self.query_one("#all", KeyTable).show([row_of(view, i, now_ms) for i in range(len(view.rows))])
        pane = self.query_one("#matrix", Pane)
        pane.show(matrix_lines(view))
        pane.styles.height = min(len(view.rows) + 4, max(4, self.size.height // 3))

    def subject(self) -> Action | None:
        """The node under the cursor."""
        node = self.query_one("#all", KeyTable).cursor_key
        return Action(("node", "info", node)) if node else None

    def on_key_table_opened(self, event: KeyTable.Opened) -> None:
        """Its page."""
        self.app.push_screen(NodePage(event.key))

    def action_act(self, kind: str) -> None:
        """Break or mend the node under the cursor."""
        node = self.query_one("#all", KeyTable).cursor_key
        if node:
            self.board.act(Action(("fault", kind, node)))


def row_of(view: ClusterView, index: int, now_ms: int) -> table.Row:
    """A node in a line; figures only of one that told them just now."""
    row = view.rows[index]
    told = row.report if row.fresh else None
    assert view.ring is not None
    owns = row.partitions / view.ring.q
    phi = max(
        (p.phi for r in view.rows if r.fresh and r.report for p in r.report.peers if p.node == row.id),
        default=None,
    )
    past = [p.nodes[index].ops_s if index < len(p.nodes) else None for p in view.points[-SPARK:]]
    fault = " ".join(f"{f.id} {f.kind}" for f in row.faults)
    gone = "" if row.fresh else f"last told {span(now_ms - row.heard_ms)} ago" if row.heard_ms else "never told"
    cells: tuple[Cell, ...] = (
        state_cell(row), show(row.id), row.address, share(owns), count(told.keys if told else None),
        size(told.value_bytes) if told else "-",
        (count(row.point.hints if told else None), "warn" if row.point.hints else "plain"),
        (count(row.hints_for_it), "warn" if row.hints_for_it else "plain"),
        rate(row.point.ops_s), (spark(past, SPARK), "one"), took(row.point.p99_ms),
        (rate(row.errors_s), "warn" if row.errors_s else "plain"), f"{row.seen_by}/{row.observers}",
        "-" if phi is None else f"{phi:.1f}", span(told.uptime_ms) if told else "-",
        size(told.rss_bytes) if told else "-", size(told.disk_bytes) if told else "-",
        ("; ".join(filter(None, (fault, gone))) or "-", "warn" if fault or gone else "dim"),
    )  # fmt: skip
    order = (
        row.state, row.id, row.address, owns, told.keys if told else None, told.value_bytes if told else None,
        row.point.hints, row.hints_for_it, row.point.ops_s, row.point.ops_s, row.point.p99_ms, row.errors_s,
        row.seen_by, phi, told.uptime_ms if told else None, told.rss_bytes if told else None,
        told.disk_bytes if told else None, fault,
    )  # fmt: skip
    return table.Row(row.id, cells, order)


def matrix_lines(view: ClusterView) -> list[Line]:
    """A row an observer, a column a node: what it concludes of it."""
    if not view.rows:
        return [(("no node has been seen", "dim"),)]
    wide = len(view.rows) <= WIDE_MATRIX
    name = min(20, max(8, *(len(show(row.id)) for row in view.rows)))
    if wide:
        head: Line = ((f"{'observer':<{name}}  ", "head"), *((f"{show(r.id)[:9]:<10}", "head") for r in view.rows))
    else:
        head = ((f"{'observer':<{name}}    ", "head"), ("".join(letter(i) for i in range(len(view.rows))), "head"))
    lines: list[Line] = [head]
    for i, row in enumerate(view.rows):
        peers = {p.node: p for p in row.report.peers} if row.fresh and row.report is not None else {}
        mark = "" if wide else f"{letter(i)} "
        label = (f"{show(row.id)[:name]:<{name}}  {mark}", "plain" if row.fresh else "dim")
        if not row.fresh:
            lines.append((label, ("? told nothing", "dim")))
            continue
        lines.append((label, *(_cell(row, other, peers.get(other.id), wide) for other in view.rows)))
    lines.append(
        (
            (
                "state and phi, how surprising its silence is" if wide else "· up  S suspect  D down  ? not told",
                "dim",
            ),
        )
    )
    return lines


def _cell(row: Row, other: Row, peer: PeerView | None, wide: bool) -> Cell:
    if row.id == other.id:
        return ("-         " if wide else "-", "dim")
    if peer is None:
        return ("?         " if wide else "?", "dim")
    if not wide:
        return LETTERS.get(peer.state, ("?", "dim"))
    return (f"{f'{peer.state} {peer.phi:.1f}':<10.10}", WORDS.get(peer.state, "dim"))
