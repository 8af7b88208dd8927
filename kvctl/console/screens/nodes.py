"""Nodes: every node in a row, who sees whom, and what the one under the cursor says of itself.

Promises: a state is what the others conclude, and how many of them; the table has the room it needs before the
rest has any. Never: acts on another row than the one whose name it shows.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.widget import Widget

from kvctl.console import matrix
from kvctl.console.actions import Action
from kvctl.console.facts import fact_lines, figure_lines
from kvctl.console.figures import count, rate, share, size, span, took
from kvctl.console.keymap import Key, bindings
from kvctl.console.page import Page
from kvctl.console.screens.node import NodePage
from kvctl.console.screens.overview import fault_text, state_cell
from kvctl.console.telling import event_lines
from kvctl.console.view import ClusterView
from kvctl.console.widgets import table
from kvctl.console.widgets.pane import Pane, Text
from kvctl.console.widgets.table import Column, KeyTable
from kvctl.console.widgets.tones import Cell, spark
from kvctl.output import show

SPARK = 8
FRAME = 2
"""Lines of a frame; a table has one more, its titles."""
AROUND = 4
"""Lines of the screen that are not its body; cells that a frame takes of a line."""
ONE_MIN = 44
"""Cells, and lines, that one more pane must have to be of use."""
LATELY_MIN = 4
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
        """The table; the matrix, and what happened; the node under the cursor."""
        yield KeyTable(COLUMNS, id="all", empty="no node has been seen")
        with Horizontal(id="lower"):
            with Vertical(id="sight"):
                yield Pane(id="matrix")
                yield Text(id="lately", classes="frame")
            yield Pane(id="one")

    def on_mount(self) -> None:
        """Titles."""
        self.query_one("#all").border_title = "Nodes"
        self.query_one("#matrix").border_title = "Who sees whom"
        self.query_one("#lately").border_title = "Events"
        super().on_mount()

    def show(self, view: ClusterView, now_ms: int) -> None:
        """All of it."""
        self.query_one("#all", KeyTable).show([row_of(view, i, now_ms) for i in range(len(view.rows))])
        self._share_out(view)
        pane, lately = self.query_one("#matrix", Pane), self.query_one("#lately", Text)
        pane.show(matrix.matrix(view))
        pane.border_subtitle = matrix.legend(view)
        if lately.display:
            names = {row.id for row in view.rows}
            lately.show(event_lines(self.board.happened(), max(1, lately.size.height), names))
        self._show_one()

    def _share_out(self, view: ClusterView) -> None:
        """The table, the matrix, the others: each as many lines as it has use for, in this order."""
        if self.has_class("-low"):
            self.query_one("#all").styles.height = "1fr"
            return
        body, count = self.size.height - AROUND, len(view.rows)
        matrix_lines = count + 1 + FRAME
        table_lines = min(count + 1 + FRAME, body - min(matrix_lines, max(4, body // 3)))
        left = body - table_lines - matrix_lines
        lately, one, sight = self.query_one("#lately"), self.query_one("#one"), self.query_one("#sight")
        self.query_one("#all").styles.height = table_lines
        lately.display = left >= LATELY_MIN
        self.query_one("#matrix").styles.height = matrix_lines if lately.display else "1fr"
        across = matrix.width_of(view) + AROUND
        one.display = self.size.width - across >= ONE_MIN
        sight.styles.width = across if one.display else "1fr"

    def _show_one(self) -> None:
        """What there is to say of the node under the cursor, where there is room for it."""
        pane = self.query_one("#one", Pane)
        row = self.board.view.row(self.query_one("#all", KeyTable).cursor_key)
        if not pane.display or row is None:
            return
        pane.border_title = f"Node {show(row.id)}".replace("[", "\\[")
        facts = fact_lines(row, self.board.now_ms(), pane.room)
        pane.show([*figure_lines(self.board.view, row, pane.room), (), *facts])

    def on_key_table_moved(self) -> None:
        """Another node: another story."""
        self._show_one()

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
    past = [p.nodes[index].ops_s if index < len(p.nodes) else None for p in view.points[-SPARK:]]
    fault, waiting = fault_text(row), row.hints_for_it if view.sample.asked else None
    gone = "" if row.fresh else f"last told {span(now_ms - row.heard_ms)} ago" if row.heard_ms else "never told"
    cells: tuple[Cell, ...] = (
        state_cell(row), show(row.id), row.address, share(owns), count(told.keys if told else None),
        size(told.value_bytes) if told else "-",
        (count(row.point.hints if told else None), "warn" if row.point.hints else "plain"),
        (count(waiting), "warn" if waiting else "plain"),
        rate(row.point.ops_s), (spark(past, SPARK), "one"), took(row.point.p99_ms),
        (rate(row.errors_s), "warn" if row.errors_s else "plain"), f"{row.seen_by}/{row.observers}",
        "-" if row.phi is None else f"{row.phi:.1f}", span(told.uptime_ms) if told else "-",
        size(told.rss_bytes) if told else "-", size(told.disk_bytes) if told else "-",
        ("; ".join(filter(None, (fault, gone))) or "-", "warn" if fault or gone else "dim"),
    )  # fmt: skip
    order = (
        row.state, row.id, row.address, owns, told.keys if told else None, told.value_bytes if told else None,
        row.point.hints, row.hints_for_it, row.point.ops_s, row.point.ops_s, row.point.p99_ms, row.errors_s,
        row.seen_by, row.phi, told.uptime_ms if told else None, told.rss_bytes if told else None,
        told.disk_bytes if told else None, fault,
    )  # fmt: skip
    return table.Row(row.id, cells, order)
