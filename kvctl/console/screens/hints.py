"""Hints: who keeps how many for whom, since when, how fast they go.

Promises: rates and times left are the holders' own. Never: drops hints without the owner's name typed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual import work
from textual.binding import BindingType
from textual.widget import Widget

from kvctl.console.actions import Action
from kvctl.console.figures import count, size, span
from kvctl.console.keymap import Key, bindings
from kvctl.console.page import Page
from kvctl.console.view import ClusterView
from kvctl.console.widgets import table
from kvctl.console.widgets.dialogs import Form
from kvctl.console.widgets.plot import Plot, Series, picture_of
from kvctl.console.widgets.table import Column, KeyTable
from kvctl.console.widgets.tones import bar
from kvctl.health import Held
from kvctl.output import show
from kvctl.render_repair import left_s

PLOT_MS = 300_000
COLUMNS = (
    Column("HOLDER", most=20), Column("FOR", most=20), Column("HINTS", right=True), Column("SHARE", rank=3),
    Column("BYTES", right=True, rank=2), Column("OLDEST", right=True), Column("RATE", right=True),
    Column("LEFT", right=True), Column("DELIVERED", right=True, rank=4), Column("OWNER IS", flex=True, rank=1),
)  # fmt: skip
ACTS = (
    Key("deliver", "d", "deliver", "Deliver", "deliver the hints for this owner now", True),
    Key("throttle", "t", "throttle", "Throttle", "at most so many hints a second", True),
    Key("drop_hints", "ctrl+d", "drop", "Drop", "forget the hints for this owner (asks first)", True),
)


class Hints(Page):
    """All hints."""

    NAME = "hints"
    FOCUS = "#hints"
    BINDINGS: ClassVar[list[BindingType]] = bindings(ACTS)

    def body(self) -> Iterable[Widget]:
        """The table, and how it went."""
        yield KeyTable(COLUMNS, id="hints", empty="no node that answers keeps a hint")
        yield Plot(lambda value: f"{value:,.0f}", id="past")

    def on_mount(self) -> None:
        """Titles."""
        self.query_one("#hints").border_title = "Hints"
        self.query_one("#past").border_title = "Hints kept"
        super().on_mount()

    def show(self, view: ClusterView, now_ms: int) -> None:
        """All of it."""
        total = sum(held.hints.count for held in view.hints)
        self.query_one("#hints", KeyTable).show([row_of(held, total) for held in view.hints])
        points = [p for p in view.points if p.at_ms >= view.at_ms - PLOT_MS]
        series = Series("hints", "three", tuple(None if p.hints is None else float(p.hints) for p in points))
        since = max(view.at_ms - PLOT_MS, points[0].at_ms) if points else 0
        self.query_one("#past", Plot).show(picture_of([p.at_ms for p in points], (series,), view.windows, since))

    def _owner(self) -> str:
        return self.query_one("#hints", KeyTable).cursor_key.partition(">")[2]

    def subject(self) -> Action:
        """The owner under the cursor."""
        owner = self._owner()
        return Action(("hints", "deliver", owner) if owner else ("hints", "ls"))

    def action_deliver(self) -> None:
        """Now."""
        owner = self._owner()
        if owner:
            self.board.act(Action(("hints", "deliver", owner)))

    def action_drop(self) -> None:
        """Forget them."""
        owner = self._owner()
        if owner:
            self.board.act(Action(("hints", "drop", owner)))

    @work
    async def action_throttle(self) -> None:
        """At most so many a second."""
        told = await self.app.push_screen_wait(
            Form("Throttle", [("rate", "500/s", "hints a second, on every node")])
        )
        if told:
            self.board.act(Action(("hints", "throttle", told["rate"])))


def row_of(held: Held, total: int) -> table.Row:
    """One holder and one owner."""
    hints, left = held.hints, left_s(held)
    moving = hints.per_s > 0
    return table.Row(
        f"{held.holder}>{hints.owner}",
        (
            show(held.holder), show(hints.owner), (count(hints.count), "warn"),
            bar(hints.count / max(1, total), 10), size(hints.bytes), span(held.age_ms),
            (f"{hints.per_s:,.0f}/s" if moving else "-", "good" if moving else "dim"),
            "-" if left is None else span(left * 1000 + 999), count(hints.delivered),
            ("reachable", "good") if hints.reachable else ("NOT REACHABLE", "bad"),
        ),
        (held.holder, hints.owner, hints.count, hints.count, hints.bytes, held.age_ms, hints.per_s, left,
         hints.delivered, str(hints.reachable)),
    )  # fmt: skip
