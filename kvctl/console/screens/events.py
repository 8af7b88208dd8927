"""Events: what happened, on all nodes and in this console, in the order of time.

Promises: following, the newest is in sight; a cursor moved up stops that, and stays on its event. Never: an
event twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual.binding import BindingType
from textual.widget import Widget

from kvctl.console.actions import Action
from kvctl.console.figures import clock
from kvctl.console.keymap import Key, bindings
from kvctl.console.page import Page
from kvctl.console.telling import EVENT_TONES
from kvctl.console.view import ClusterView
from kvctl.console.widgets import table
from kvctl.console.widgets.dialogs import Show
from kvctl.console.widgets.table import Column, KeyTable
from kvctl.output import show, utc
from kvnode.protocol.messages import Event

SHOWN_MAX = 1_000
COLUMNS = (Column("AT"), Column("NODE", most=20), Column("KIND", most=12), Column("WHAT", flex=True))
ACTS = (Key("follow", "f", "follow", "Follow", "keep the newest in sight, or stop that", True),)


class Events(Page):
    """All events."""

    NAME = "events"
    FOCUS = "#all-events"
    BINDINGS: ClassVar[list[BindingType]] = bindings(ACTS)

    def body(self) -> Iterable[Widget]:
        """One table."""
        yield KeyTable(COLUMNS, id="all-events", empty="nothing has happened")

    def on_mount(self) -> None:
        """It follows until it is told not to."""
        self.following = True
        self._shown: dict[str, Event] = {}
        super().on_mount()

    def show(self, view: ClusterView, now_ms: int) -> None:
        """All of it."""
        events = self.board.happened()[-SHOWN_MAX:]
        self._shown = {f"{e.node} {e.number} {e.wall_ms}": e for e in events}
        shown = self.query_one("#all-events", KeyTable)
        shown.border_title = "Events" + ("  following" if self.following else "")
        shown.show([row_of(key, event) for key, event in self._shown.items()])
        if self.following:
            shown.action_end(1)

    def on_key_table_moved(self, event: KeyTable.Moved) -> None:
        """Whoever goes up wants to read."""
        keys = event.table.keys
        if self.following and keys and event.key != keys[-1] and event.table.cursor_key != keys[-1]:
            self.following = False

    def on_key_table_opened(self, opened: KeyTable.Opened) -> None:
        """The whole of it."""
        event = self._shown.get(opened.key)
        if event is not None:
            lines = [((f"{name:<8}", "dim"), text) for name, text in (
                ("at", utc(event.wall_ms) or "-"), ("node", show(event.node)), ("number", str(event.number)),
                ("kind", event.kind), ("what", event.text),
            )]  # fmt: skip
            self.app.push_screen(Show("Event", lines))

    def action_follow(self) -> None:
        """On or off."""
        self.following = not self.following
        self.renew()

    def subject(self) -> Action:
        """All of them."""
        return Action(("events", "--since", "10m"))


def row_of(key: str, event: Event) -> table.Row:
    """An event in a line."""
    return table.Row(
        key,
        (
            (clock(event.wall_ms), "dim"), show(event.node), (event.kind, EVENT_TONES.get(event.kind, "accent")),
            event.text,
        ),
        (event.wall_ms, event.node, event.kind, event.text),
    )  # fmt: skip
