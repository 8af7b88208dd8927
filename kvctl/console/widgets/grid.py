"""Partitions as cells: first owner, live replicas, and a mark where there is no margin.

Promises: the cursor stays on its partition through every refresh; the mark says what the tone says.
Never: draws what is not in sight.

    A3    first owner A, 3 of its owners live       B2·  one failure from losing quorum        C1!  no quorum
    ABC3  all its owners, where there is room
"""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct
from rich.segment import Segment
from textual import events
from textual.binding import BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from kvctl.console.keymap import Key, bindings
from kvctl.console.widgets.tones import Toned, fit

GRID_KEYS = (
    Key("cell_left", "left", "move(-1)", "Left", "the partition before"),
    Key("cell_right", "right", "move(1)", "Right", "the next partition"),
    Key("cell_up", "up,k", "rows(-1)", "Up", "a row up"),
    Key("cell_down", "down,j", "rows(1)", "Down", "a row down"),
    Key("cell_first", "home,g", "to(0)", "First", "partition 0"),
    Key("cell_last", "end,G", "to(-1)", "Last", "the last partition"),
    Key("open", "enter", "open", "Open", "look at the partition under the cursor", True),
)
STATE = 2
"""Cells of a state, `2·`."""
LABEL = 6
"""Cells of the number before a row."""


class PartitionCell(Struct, frozen=True, gc=False):
    """One partition."""

    owners: str
    """A letter each; the first is shown where there is no room for all."""
    state: str
    tone: str


class Cells(Toned, ScrollView, can_focus=True):
    """All partitions."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(GRID_KEYS)

    class Opened(Message):
        """Enter on a partition."""

        def __init__(self, partition: int) -> None:
            super().__init__()
            self.partition = partition

    class Moved(Message):
        """The cursor is on another partition."""

        def __init__(self, partition: int) -> None:
            super().__init__()
            self.partition = partition

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._cells: tuple[PartitionCell, ...] = ()
        self._letters = 1
        self.cursor = 0
        """The partition under the cursor."""

    def show(self, cells: tuple[PartitionCell, ...]) -> None:
        """These are the partitions now."""
        if cells != self._cells:
            self._cells = cells
            self.cursor = min(self.cursor, max(0, len(cells) - 1))
            self._measure()
            self.refresh()

    @property
    def across(self) -> int:
        """Partitions in a row."""
        return self._across_with(self._letters)

    def _across_with(self, letters: int) -> int:
        """...with so many letters each: eights, where there is room for one."""
        room = max(1, (self.scrollable_content_region.width - LABEL) // (letters + STATE + 1))
        return room // 8 * 8 if room >= 8 else room

    @property
    def roomy(self) -> bool:
        """Whether all owners of each are shown."""
        return self._letters > 1

    def _measure(self) -> None:
        most = max((len(cell.owners) for cell in self._cells), default=1)
        rows = -(-len(self._cells) // self._across_with(most))
        self._letters = most if rows <= self.scrollable_content_region.height else 1
        self.virtual_size = Size(self.size.width, -(-len(self._cells) // self.across))

    def on_resize(self) -> None:
        """Other rows."""
        self._measure()

    def _line_at(self, y: int) -> Strip:
        width, across = self.scrollable_content_region.width, self.across
        first = (y + round(self.scroll_offset.y)) * across
        if first >= len(self._cells):
            return Strip.blank(width)
        parts = [Segment(fit(str(first), LABEL - 1, right=True) + " ", self.tone("dim"))]
        size = self._letters + STATE
        for at in range(first, min(first + across, len(self._cells))):
            cell = self._cells[at]
            style = self.tone(cell.tone)
            text = fit(cell.owners[: self._letters] + cell.state, size)
            if at == self.cursor:
                style = style + self.tone("cursor" if self.has_focus else "blur")
                parts += [Segment(text, style), Segment("◂", self.tone("accent"))]
            else:
                parts.append(Segment(text + " ", style))
        return Strip(parts).adjust_cell_length(width)

    def render_line(self, y: int) -> Strip:
        """One row of cells."""
        return self.painted(self._line_at(y))

    def action_move(self, by: int) -> None:
        """Left or right."""
        self.action_to(min(max(0, self.cursor + by), len(self._cells) - 1))

    def action_rows(self, by: int) -> None:
        """Up or down."""
        to = self.cursor + by * self.across
        if 0 <= to < len(self._cells):
            self.action_to(to)

    def action_to(self, partition: int) -> None:
        """To this one; -1 is the last."""
        self.cursor = partition if partition >= 0 else max(0, len(self._cells) - 1)
        self.scroll_to_region(Region(0, self.cursor // self.across, 1, 1), animate=False, immediate=True)
        self.refresh()
        self.post_message(self.Moved(self.cursor))

    def action_open(self) -> None:
        """Look at it."""
        if self._cells:
            self.post_message(self.Opened(self.cursor))

    def on_click(self, event: events.Click) -> None:
        """Go there; twice opens it."""
        place = event.get_content_offset(self)
        if place is None or place.x < LABEL:
            return
        column = (place.x - LABEL) // (self._letters + STATE + 1)
        at = (place.y + round(self.scroll_offset.y)) * self.across + min(column, self.across - 1)
        if 0 <= at < len(self._cells):
            again = at == self.cursor and event.chain > 1
            self.action_to(at)
            if again:
                self.action_open()
