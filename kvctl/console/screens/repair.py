"""Repair: what each node has compared, and the hash trees being walked right now.

Promises: figures are the nodes' own, of this boot; a walk is shown at the step it is at. Never: a percentage:
how much a tree differs is known only at the end.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual.binding import BindingType
from textual.widget import Widget

from kvctl.console.actions import Action
from kvctl.console.figures import count, rate, size, span
from kvctl.console.keymap import Key, bindings
from kvctl.console.page import Page
from kvctl.console.screens.partition import PartitionPage
from kvctl.console.telling import event_lines
from kvctl.console.view import ClusterView, Row
from kvctl.console.widgets import table
from kvctl.console.widgets.pane import Text
from kvctl.console.widgets.table import Column, KeyTable
from kvctl.output import show
from kvctl.render_repair import repair_word
from kvnode.protocol.messages import ExchangeView

KINDS = ("repair", "recovered", "votes")
STEPS = ("root", "branches", "leaves", "keys", "records")
NODE_COLUMNS = (
    Column("NODE", most=20), Column("REPAIR"), Column("WAITING", right=True), Column("EXCHANGES", right=True),
    Column("TREE NODES", right=True, rank=4), Column("KEYS", right=True, rank=3),
    Column("REPAIRED", right=True), Column("SENT", right=True, rank=1), Column("OLDEST", right=True),
    Column("MISSED", right=True), Column("FAILED", right=True, rank=2), Column("RECOVERING", right=True),
)  # fmt: skip
WALK_COLUMNS = (
    Column("PARTITION", right=True), Column("BETWEEN", most=32), Column("WALK", most=40),
    Column("LEAVES", right=True, rank=2),
    Column("NODES", right=True), Column("KEYS", right=True), Column("REPAIRED", right=True),
    Column("BYTES", right=True, rank=1),
)  # fmt: skip
ACTS = (
    Key("run_repair", "r", "order('run')", "Run", "compare all copies now, and repair what differs", True),
    Key("pause_repair", "p", "order('pause')", "Pause", "begin no more exchanges, on any node", True),
    Key("resume_repair", "u", "order('resume')", "Resume", "begin exchanges again", True),
)


class Repair(Page):
    """Anti-entropy."""

    NAME = "repair"
    FOCUS = "#walks"
    BINDINGS: ClassVar[list[BindingType]] = bindings(ACTS)

    def body(self) -> Iterable[Widget]:
        """Nodes, and walks."""
        yield Text(id="sum")
        yield KeyTable(NODE_COLUMNS, id="by-node", empty="no node has been seen")
        yield KeyTable(
            WALK_COLUMNS, id="walks", empty="no exchange is under way: owners compare roots all the time, briefly"
        )
        yield Text(id="repaired", classes="frame")

    def on_mount(self) -> None:
        """Titles."""
        self.query_one("#by-node").border_title = "By node"
        self.query_one("#walks").border_title = "Trees being walked"
        self.query_one("#repaired").border_title = "Lately"
        super().on_mount()

    def show(self, view: ClusterView, now_ms: int) -> None:
        """All of it."""
        self.query_one("#by-node", KeyTable).show([node_row(row) for row in view.rows])
        walking = [
            (row.id, e) for row in view.rows if row.fresh and row.report and row.report.repair
            for e in row.report.repair.active
        ]  # fmt: skip
        self.query_one("#walks", KeyTable).show([walk_row(node, e) for node, e in walking])
        waiting = sum(r.report.repair.waiting for r in view.rows if r.fresh and r.report and r.report.repair)
        missed = sum(r.report.needs_repair for r in view.rows if r.fresh and r.report)
        self.query_one("#sum", Text).show([(
            f" {len(walking)} exchanges under way  ", f"{waiting:,} waiting  ",
            f"{rate(view.point.repaired_s)} keys repaired/s  ",
            (f"{missed} copies missed a write", "warn" if missed else "dim"),
        )])  # fmt: skip
        # Each list has the lines it has use for; walks are brief, so what they found has the rest.
        self.query_one("#by-node").styles.height = min(len(view.rows) + 3, max(5, self.size.height // 2 - 4))
        walks = min(len(walking) + 3, max(4, self.size.height // 3))
        self.query_one("#walks").styles.height = "1fr" if self.has_class("-low") else walks
        lately = self.query_one("#repaired", Text)
        happened = [event for event in self.board.happened() if event.kind in KINDS]
        lately.show(
            event_lines(happened, max(1, lately.size.height)) or [(("no exchange has found a thing", "dim"),)]
        )

    def on_key_table_opened(self, event: KeyTable.Opened) -> None:
        """A walk: its partition."""
        if event.table.id == "walks":
            self.app.push_screen(PartitionPage(int(event.key.partition(" ")[0])))

    def subject(self) -> Action:
        """The walk under the cursor; or all."""
        walk = self.query_one("#walks", KeyTable)
        if walk.has_focus and walk.cursor_key:
            return Action(("repair", "run", "--partition", walk.cursor_key.partition(" ")[0]))
        return Action(("repair", "status"))

    def action_order(self, what: str) -> None:
        """To all nodes."""
        self.board.act(Action(("repair", what)))


def node_row(row: Row) -> table.Row:
    """A node's exchanges since its boot."""
    report = row.report if row.fresh else None
    view = report.repair if report is not None else None
    if report is None or view is None:
        return table.Row(row.id, (show(row.id), ("silent" if report is None else "-", "dim"), *("-",) * 10))
    old = span(report.wall_ms - view.oldest_ms) if view.oldest_ms else "never"
    return table.Row(
        row.id,
        (
            show(row.id), (repair_word(view), "warn" if view.paused else "good" if view.active else "plain"),
            count(view.waiting), count(view.exchanges), count(view.nodes_compared), count(view.keys_compared),
            count(view.keys_repaired), size(view.bytes_sent), old,
            (count(report.needs_repair), "warn" if report.needs_repair else "plain"),
            (count(view.failed), "warn" if view.failed else "plain"),
            (count(report.recovering), "warn" if report.recovering else "plain"),
        ),
    )  # fmt: skip


def walk_row(node: str, exchange: ExchangeView) -> table.Row:
    """An exchange: how deep it is in the tree."""
    depth = STEPS.index(exchange.step) + 1 if exchange.step in STEPS else 0
    picture = "■" * depth + "□" * (len(STEPS) - depth) + f" {exchange.step}"
    return table.Row(
        f"{exchange.partition} {node} {exchange.peer}",
        (
            str(exchange.partition), f"{show(node)} > {show(exchange.peer)}", (picture, "accent"),
            count(exchange.size), count(exchange.nodes_compared), count(exchange.keys_compared),
            (count(exchange.keys_repaired), "good" if exchange.keys_repaired else "plain"),
            size(exchange.bytes_sent),
        ),
    )  # fmt: skip
