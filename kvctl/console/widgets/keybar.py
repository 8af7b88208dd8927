"""The bottom line: the keys of this screen, as many as fit; a click is a press.

Promises: help and quit are always there. Never: a widget a key: making ten at every change of focus costs more
than all the rest of a screen.
"""

from __future__ import annotations

from rich.cells import cell_len
from rich.segment import Segment
from textual import events
from textual.binding import ActiveBinding
from textual.screen import Screen
from textual.strip import Strip

from kvctl.console.widgets.tones import Toned

LAST = ("help", "quit")
"""Actions at the right end."""


class KeyBar(Toned):
    """Keys that are shown, in force on this screen."""

    def __init__(self) -> None:
        super().__init__(id="keys-line")
        self._places: list[tuple[int, int, str]] = []
        """(First cell, last cell, key)."""

    def on_mount(self) -> None:
        """Drawn anew when other keys are in force."""
        self.screen.bindings_updated_signal.subscribe(self, self._changed)

    def _changed(self, screen: Screen[object]) -> None:
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """The keys."""
        width = self.size.width
        shown: dict[str, ActiveBinding] = {}
        for active in self.screen.active_bindings.values():
            if active.binding.show and active.enabled:
                shown.setdefault(active.binding.action, active)
        ends = [shown.pop(action) for action in LAST if action in shown]
        right = [(self._called(a), a.binding.description, a.binding.key) for a in ends]
        room = width - sum(cell_len(name) + cell_len(text) + 2 for name, text, _ in right)
        parts: list[Segment] = []
        self._places = []
        at = 0
        for active in shown.values():
            name, text = self._called(active), active.binding.description
            if at + cell_len(name) + cell_len(text) + 2 > room:
                break
            at = self._put(parts, at, name, text, active.binding.key)
        parts.append(Segment(" " * max(0, room - at)))
        at = max(at, room)
        for name, text, key in right:
            at = self._put(parts, at, name, text, key)
        return self.painted(Strip(parts).adjust_cell_length(width))

    def _put(self, parts: list[Segment], at: int, name: str, text: str, key: str) -> int:
        size = cell_len(name) + cell_len(text) + 2
        parts += [Segment(f"{name} ", self.tone("head")), Segment(f"{text} ", self.tone("plain"))]
        self._places.append((at, at + size, key))
        return at + size

    def _called(self, active: ActiveBinding) -> str:
        return active.binding.key_display or self.app.get_key_display(active.binding)

    def on_click(self, event: events.Click) -> None:
        """As if that key was pressed."""
        for first, last, key in self._places:
            if first <= event.x < last:
                self.app.simulate_key(key)
                return
