"""The line above the keys: what was said last; when that is old, the screens there are, and which one this is.

Promises: the screen on top is in brackets; a click on a name goes there. Never: wider than the line, down to the
numbers alone.
"""

from __future__ import annotations

from textual import events
from textual.message import Message
from textual.strip import Strip

from kvctl.console.keymap import PLACES
from kvctl.console.widgets.tones import Line, Span, Toned

FORMS = (" {0.number} {0.name} ", " {0.number}{0.name}", " {0.number}")


class Foot(Toned):
    """One line."""

    class Chosen(Message):
        """A click on the name of a screen."""

        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

    def __init__(self) -> None:
        super().__init__(id="last")
        self._said: Line = ()
        self._here = ""

    def show(self, said: Line, here: str) -> None:
        """What was said, if it is to be seen still; the name of the screen."""
        if (said, here) != (self._said, self._here):
            self._said, self._here = said, here
            self.refresh()

    def render_line(self, y: int) -> Strip:
        """What was said, or the screens."""
        width = self.size.width
        line = self._said or [cell for _, cell in places(self._here, width)]
        return self.painted(self.strip(line, width))

    def on_click(self, event: events.Click) -> None:
        """To the screen whose name that is."""
        if self._said:
            return
        at = 0
        for name, cell in places(self._here, self.size.width):
            at += len(cell[0])
            if event.x < at:
                self.post_message(self.Chosen(name))
                return


def places(here: str, width: int) -> list[tuple[str, Span]]:
    """Each screen with its text, as long as there is room for."""
    told: list[tuple[str, Span]] = []
    for form in FORMS:
        told = [
            (p.name, (f"[{p.number} {p.name}]", "head") if p.name == here else (form.format(p), "dim"))
            for p in PLACES
        ]
        if sum(len(text) for _, (text, _) in told) <= width:
            break
    return told
