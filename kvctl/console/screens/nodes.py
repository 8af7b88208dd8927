"""Nodes: every node in a row, and who sees whom.

Promises: a state is what the others conclude, and how many of them; a cell of the matrix is what that observer
itself told, `?` where it told nothing. Never: acts on another row than the one whose name it shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
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

WIDE_MATRIX = 10
"""Up to so many nodes, a cell has words; beyond, a letter."""
LETTERS = {"up": "·", "suspect": "S", "down": "D"}
LETTER_TONES = {"·": "good", "S": "warn", "D": "bad"}
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
        phis = phis_of(view)
        self.query_one("#all", KeyTable).show([row_of(view, i, now_ms, phis) for i in range(len(view.rows))])
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


def phis_of(view: ClusterView) -> dict[str, float]:
    """Of each node, how surprising its silence is to whom it surprises most."""
    found: dict[str, float] = {}
    for row in view.rows:
        for peer in row.report.peers if row.fresh and row.report is not None else ():
            if peer.phi > found.get(peer.node, -1.0):
                found[peer.node] = peer.phi
    return found


def row_of(view: ClusterView, index: int, now_ms: int, phis: Mapping[str, float]) -> table.Row:
    """A node in a line; figures only of one that told them just now."""
    row = view.rows[index]
    told = row.report if row.fresh else None
    assert view.ring is not None
    owns = row.partitions / view.ring.q
    phi = phis.get(row.id)
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
        mark = "" if wide else f"{letter(i)} "
        label = (f"{show(row.id)[:name]:<{name}}  {mark}", "plain" if row.fresh else "dim")
        if not row.fresh or row.report is None:
            lines.append((label, ("? told nothing", "dim")))
        else:
            lines.append((label, *(_words(view, row) if wide else _letters(view, row))))
    told = "state and phi, how surprising its silence is" if wide else "· up  S suspect  D down  ? not told"
    return [*lines, ((told, "dim"),)]


def _words(view: ClusterView, row: Row) -> Iterator[Cell]:
    """`up 0.2` of each node."""
    assert row.report is not None
    peers = {p.node: p for p in row.report.peers}
    for other in view.rows:
        peer = peers.get(other.id)
        if peer is None:
            yield ("-         " if row.id == other.id else "?         ", "dim")
        else:
            yield (f"{f'{peer.state} {peer.phi:.1f}':<10.10}", WORDS.get(peer.state, "dim"))


def _letters(view: ClusterView, row: Row) -> Iterator[Cell]:
    """A letter of each node; neighbours of one tone at once, for there are ten thousand of them."""
    assert row.report is not None
    marks: dict[str, str] = {p.node: LETTERS.get(p.state, "?") for p in row.report.peers}
    marks[row.id] = "-"
    line = "".join(marks.get(other.id, "?") for other in view.rows)
    for mark, alike in groupby(line):
        yield ("".join(alike), LETTER_TONES.get(mark, "dim"))
