"""Overview: can I read and write now, what is broken, and when does it heal?

Promises: the answer is the first line of the body, at any size. Never: a trouble without why and until when.
"""

from __future__ import annotations

from collections.abc import Iterable
from textwrap import wrap
from typing import ClassVar

from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.widget import Widget

from kvctl.console import cells
from kvctl.console.actions import Action
from kvctl.console.figures import count, rate, size, took
from kvctl.console.keymap import Key, bindings
from kvctl.console.page import Page
from kvctl.console.screens.node import NodePage
from kvctl.console.status import TONES
from kvctl.console.telling import event_lines
from kvctl.console.troubles import CRITICAL, DEGRADED, Trouble, Verdict, troubles_of, verdict_of
from kvctl.console.view import ClusterView, Row
from kvctl.console.widgets import table
from kvctl.console.widgets.dialogs import Show
from kvctl.console.widgets.pane import Text
from kvctl.console.widgets.plot import Plot, Series, picture_of
from kvctl.console.widgets.table import Column, KeyTable
from kvctl.console.widgets.tones import Cell, Line
from kvctl.output import show

PLOT_MS = 60_000
VERDICT_LOW = 2
"""Lines of the answer where there are few in all: the word is in the first."""
MIDDLE = {"-wide": (8, 10), "-narrow": (5, 8)}
"""Lines of the nodes and the plot, at least and at most."""
NODE_COLUMNS = (
    Column("ST"), Column("NODE", most=16), Column("OPS/S", right=True, rank=1), Column("P99", right=True),
    Column("HINTS", right=True), Column("SEEN", right=True), Column("KEYS", right=True, rank=3),
    Column("LOAD", right=True, rank=4), Column("FAULT", flex=True, rank=2),
)  # fmt: skip
TROUBLE_COLUMNS = (
    Column("", most=8), Column("WHAT", most=44), Column("WHY", flex=True, rank=1), Column("HEALS", most=32),
)  # fmt: skip
LEVEL_TONES = {CRITICAL: "bad", DEGRADED: "warn"}
KEYS = (
    Key("help_it", "h", "help_it", "Heal", "run the command that helps with the trouble under the cursor", True),
    Key("heal_all", "H", "heal_all", "Heal all", "end every fault there is", True),
)


class Overview(Page):
    """The first screen."""

    NAME = "overview"
    FOCUS = "#troubles"
    BINDINGS: ClassVar[list[BindingType]] = bindings(KEYS)

    def body(self) -> Iterable[Widget]:
        """The answer, the ring, the nodes, what is broken, what happened."""
        yield Text(id="verdict")
        yield Text(id="strip", classes="frame")
        with Horizontal(id="middle"):
            yield KeyTable(NODE_COLUMNS, id="nodes", empty="no node has been seen")
            yield Plot(took, id="plot")
        yield KeyTable(TROUBLE_COLUMNS, id="troubles", empty="nothing is broken")
        with Vertical(id="below"):
            yield Text(id="events", classes="frame")

    def on_mount(self) -> None:
        """Titles."""
        for name, title in (
            ("strip", "Ring"), ("nodes", "Nodes"), ("plot", "Latency"),
            ("troubles", "What is broken, and when it heals"), ("events", "Events"),
        ):  # fmt: skip
            self.query_one(f"#{name}").border_title = title
        self._commands: dict[str, tuple[str, ...]] = {}
        super().on_mount()

    def show(self, view: ClusterView, now_ms: int) -> None:
        """All of it."""
        wide = self.size.width
        verdict = verdict_of(view)
        answer = verdict_lines(verdict, wide)[: VERDICT_LOW if self.has_class("-low") else None]
        self.query_one("#verdict", Text).show(answer)
        self.query_one("#verdict").styles.height = len(answer)
        least, most = MIDDLE["-wide" if self.has_class("-wide") else "-narrow"]
        self.query_one("#middle").styles.height = min(max(least, len(view.rows) + 3), most)
        self.query_one("#strip", Text).show(strip_lines(view, self.query_one("#strip").size.width))
        self.query_one("#nodes", KeyTable).show([node_row(row) for row in view.rows])
        troubles = troubles_of(view, now_ms)
        self._commands = {t.key: t.command for t in troubles}
        self.query_one("#troubles", KeyTable).show([trouble_row(t) for t in troubles])
        room, names = self.query_one("#events").size.height, {row.id for row in view.rows}
        self.query_one("#events", Text).show(event_lines(self.board.happened(), max(1, room), names))
        plot = self.query_one("#plot", Plot)
        if wide >= 110:
            points = [p for p in view.points if p.at_ms >= view.at_ms - PLOT_MS]
            series = (Series("p99", "two", tuple(p.p99_ms for p in points)),
                      Series("p50", "one", tuple(p.p50_ms for p in points)))  # fmt: skip
            since = max(view.at_ms - PLOT_MS, 0)
            plot.show(picture_of([p.at_ms for p in points], series, view.windows, since, log=True))

    def subject(self) -> Action | None:
        """What helps with the trouble under the cursor; a node's figures."""
        troubles, nodes = self.query_one("#troubles", KeyTable), self.query_one("#nodes", KeyTable)
        if nodes.has_focus and nodes.cursor_key:
            return Action(("node", "info", nodes.cursor_key))
        command = self._commands.get(troubles.cursor_key, ())
        return Action(command) if command else Action(("status",))

    def on_key_table_opened(self, event: KeyTable.Opened) -> None:
        """A node: its page. A trouble: all of it, with the command that helps."""
        if event.table.id == "nodes":
            self.app.push_screen(NodePage(event.key))
            return
        found = {t.key: t for t in troubles_of(self.board.view, self.board.now_ms())}
        trouble = found.get(event.key)
        if trouble is not None:
            help_line = Action(trouble.command).line if trouble.command else "nothing to do but wait"
            facts = (("what", trouble.what), ("why", trouble.why), ("heals", trouble.heals), ("h runs", help_line))
            width = min(self.size.width - 20, 90)
            lines = [((f"{name if i == 0 else '':<8}", "dim"), part)
                     for name, text in facts for i, part in enumerate(wrap(text, max(20, width)))]  # fmt: skip
            self.app.push_screen(Show(trouble.level.capitalize(), lines))

    def action_help_it(self) -> None:
        """Run what helps."""
        command = self._commands.get(self.query_one("#troubles", KeyTable).cursor_key, ())
        if command:
            self.board.act(Action(command))
        else:
            self.board.tell("nothing can be done about that from here but wait", "dim")

    def action_heal_all(self) -> None:
        """End every fault."""
        self.board.act(Action(("fault", "heal", "--all")))


def strip_lines(view: ClusterView, width: int) -> list[Line]:
    """Owner, live replicas, who is who."""
    if view.ring is None:
        return [(("the ring is not known yet", "dim"),)]
    room = width - 7
    short = view.ring.q - view.reach.served
    told: Line = (("nothing can be seen: what is live is not known", "warn"),) if not view.reach.live else (
        ("one failure from losing quorum ", "dim"), f"{edge(view):.0%}", ("  margin ", "dim"),
        f"{view.reach.margin:.0%}", ("  without quorum ", "dim"),
        (f"{short} of {view.ring.q}", "bad" if short else "plain"),
    )  # fmt: skip
    return [
        (("owner  ", "dim"), *cells.owners_line(view, room)),
        (("live   ", "dim"), *cells.live_line(view, room)),
        ((" " * 7), *cells.legend(view, room)),
        ((" " * 7), *told),
    ]


def edge(view: ClusterView) -> float:
    """The share of partitions that lose their quorum with one more of their owners."""
    reach = view.reach
    at = sum(have == need for have, need in zip(reach.live, reach.need, strict=True))
    return at / max(1, len(reach.live))


def state_cell(row: Row) -> Cell:
    """`UN`, `SN`, `DN` in the manner of nodetool; `?N` where nobody tells."""
    if not row.fresh and row.state == "up":
        return ("?N", "warn")
    return (row.state[0].upper() + "N", {"up": "good", "suspect": "warn"}.get(row.state, "bad"))


def fault_text(row: Row) -> str:
    """What is broken on purpose on this node: what first, for there may be no room for more."""
    return ", ".join(f"{f.kind} {f.id}" for f in row.faults)


def node_row(row: Row) -> table.Row:
    """A node in a line."""
    report = row.report if row.fresh else None
    fault = fault_text(row)
    keys = report.keys if report is not None else None
    load = report.value_bytes if report is not None else None
    return table.Row(
        row.id,
        (
            state_cell(row), show(row.id), rate(row.point.ops_s), took(row.point.p99_ms),
            (count(row.point.hints if report is not None else None), "warn" if row.point.hints else "plain"),
            f"{row.seen_by}/{row.observers}", count(keys), size(load) if load is not None else "-",
            (fault or "-", "warn" if fault else "dim"),
        ),
        (row.state, row.id, row.point.ops_s, row.point.p99_ms, row.point.hints, row.seen_by, keys, load, fault),
    )  # fmt: skip


def trouble_row(trouble: Trouble) -> table.Row:
    """One thing that is broken."""
    kind = LEVEL_TONES.get(trouble.level, "plain")
    return table.Row(trouble.key, ((trouble.level, kind), (trouble.what, kind), trouble.why, trouble.heals))


def verdict_lines(verdict: Verdict, width: int) -> list[Line]:
    """The word, and the sentence, over as many lines as it takes."""
    head = f" {verdict.word}  "
    told = wrap(verdict.text, max(10, width - len(head) - 1))
    first: Line = ((head, TONES[verdict.level]), told[0] if told else "")
    return [first, *((" " * len(head), line) for line in told[1:])]
