"""Lines of text with tones, scrolled when there are more than fit.

Promises: shows the lines it was given, no wider than it is; of lines that are made as they are needed, only
those in sight are made. Never: wraps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from textual.binding import BindingType
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from kvctl.console.keymap import PANE_KEYS, bindings
from kvctl.console.widgets.tones import Line, Toned


class Text(Toned):
    """Lines that do not scroll: as many as fit, from the first."""

    def __init__(self, *lines: Line, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._lines: tuple[Line, ...] = lines

    def show(self, lines: Sequence[Line]) -> None:
        """These are the lines now."""
        given = tuple(tuple(line) for line in lines)
        if given != self._lines:
            self._lines = given
            self.refresh()

    def render_line(self, y: int) -> Strip:
        """One line, painted."""
        return self.painted(self._line_at(y))

    def _line_at(self, y: int) -> Strip:
        """One line."""
        width = self.size.width
        return self.strip(self._lines[y], width) if y < len(self._lines) else Strip.blank(width)


class Made(Sequence[Line]):
    """Lines that are made when they are looked at: ten thousand cells cost what the ones in sight cost."""

    def __init__(self, count: int, make: Callable[[int], Line]) -> None:
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, at: int) -> Line:  # type: ignore[override]
        if not 0 <= at < self._count:
            raise IndexError(at)
        return self._make(at)


class Pane(Toned, ScrollView, can_focus=True):
    """Lines that scroll."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(PANE_KEYS)

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._lines: Sequence[Line] = ()
        self.following = False
        """Whether the last line is kept in sight."""

    def show(self, lines: Sequence[Line]) -> None:
        """These are the lines now; the scroll stays, or follows the end."""
        given = lines if isinstance(lines, Made) else tuple(tuple(line) for line in lines)
        if given == self._lines:
            return
        self._lines = given
        self.virtual_size = Size(self.size.width, len(given))
        if self.following:
            self.scroll_end(animate=False)
        self.refresh()

    @property
    def room(self) -> int:
        """Cells a line has."""
        return self.scrollable_content_region.width

    @property
    def text(self) -> str:
        """All of it, without tones."""
        return "\n".join("".join(c if isinstance(c, str) else c[0] for c in line) for line in self._lines)

    def on_resize(self) -> None:
        """The width is what there is."""
        self.virtual_size = Size(self.size.width, len(self._lines))

    def action_scroll_by(self, by: int) -> None:
        """A line."""
        self.scroll_relative(y=by, animate=False)

    def render_line(self, y: int) -> Strip:
        """One line, painted."""
        return self.painted(self._line_at(y))

    def _line_at(self, y: int) -> Strip:
        """One line of what is in sight."""
        width = self.room
        at = y + round(self.scroll_offset.y)
        return self.strip(self._lines[at], width) if at < len(self._lines) else Strip.blank(width)
