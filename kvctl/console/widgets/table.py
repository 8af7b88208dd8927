"""A table whose cursor stays on its row, by key, whatever a refresh does to the order.

Promises: `Opened` and `cursor_key` name a row by key; only rows in sight are drawn; columns that do not fit are
left out, the least needed first; a row that vanished leaves the cursor at its place, and says so by its key.
Never: decides what a row means.

    show(rows) ──► sorted, filtered ──► cursor found again by key ──► rows in sight drawn
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from msgspec import Struct
from rich.segment import Segment
from textual import events
from textual.binding import BindingType
from textual.content import Content
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from kvctl.console.keymap import TABLE_KEYS, bindings
from kvctl.console.widgets.tones import Cell, Toned, clean, fit, joined, text_of, tone_of, widest

MARK, GAP = "▸", 2
NO_ROW = -1


class Column(Struct, frozen=True):
    """A column."""

    title: str
    right: bool = False
    most: int = 24
    """Cells, at most; the flexible one takes what is left."""
    flex: bool = False
    rank: int = 0
    """Columns of the highest rank go first when there is no room."""


class Row(Struct, frozen=True):
    """A row, and what its columns are sorted by."""

    key: str
    cells: tuple[Cell, ...]
    order: tuple[object, ...] = ()
    """Empty: by the text of the cells."""


class KeyTable(Toned, ScrollView, can_focus=True):
    """Rows by key."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(TABLE_KEYS)

    class Opened(Message):
        """Enter, or a second click, on a row."""

        def __init__(self, table: KeyTable, key: str) -> None:
            super().__init__()
            self.table, self.key = table, key

        @property
        def control(self) -> KeyTable:
            """The table."""
            return self.table

    class Moved(Message):
        """The cursor is on another row."""

        def __init__(self, table: KeyTable, key: str) -> None:
            super().__init__()
            self.table, self.key = table, key

        @property
        def control(self) -> KeyTable:
            """The table."""
            return self.table

    def __init__(self, columns: Sequence[Column], *, empty: str = "nothing here", sort: int | None = None,
                 id: str | None = None) -> None:  # fmt: skip
        """`empty`: what stands there when there are no rows. `sort`: a column; None for the order given."""
        super().__init__(id=id)
        self._columns = tuple(columns)
        self._empty = empty
        self._all: tuple[Row, ...] = ()
        self._rows: tuple[Row, ...] = ()
        self._index = NO_ROW
        self._key = ""
        self._sort, self._reverse = sort, False
        self._pattern: re.Pattern[str] | None = None
        self._but = False
        self.filter_text = ""
        self.title = ""
        self._widths: tuple[int, ...] = ()
        self._drawn: dict[tuple[int, str], Strip] = {}
        """Lines that were drawn, by row and how the cursor is on it."""

    # ---- what is shown ---------------------------------------------------------------------

    def show(self, rows: Sequence[Row]) -> None:
        """These are the rows now. The cursor stays on its key."""
        given = tuple(rows)
        if given != self._all:
            self._all = given
            self._arrange()

    def filter(self, text: str) -> None:
        """Only rows in which this is found (a regular expression, if it is one); `!text`: the others."""
        self.filter_text = text
        self._but = text.startswith("!")
        wanted = text.removeprefix("!")
        try:
            self._pattern = re.compile(wanted, re.IGNORECASE) if wanted else None
        except re.error:
            self._pattern = re.compile(re.escape(wanted), re.IGNORECASE)
        self._arrange()

    @property
    def cursor_key(self) -> str:
        """The key of the row under the cursor; empty when there is none."""
        return self._rows[self._index].key if 0 <= self._index < len(self._rows) else ""

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of the rows shown, in their order."""
        return tuple(row.key for row in self._rows)

    def cell(self, key: str, column: int) -> str:
        """The text of a cell; empty where there is no such row."""
        return next((text_of(row.cells[column]) for row in self._rows if row.key == key), "")

    def go_to(self, key: str) -> None:
        """Put the cursor on this row, if it is shown."""
        for i, row in enumerate(self._rows):
            if row.key == key:
                self._move(i)

    def _arrange(self) -> None:
        rows = [row for row in self._all if self._wanted(row)]
        if self._sort is not None:
            column = self._sort
            rows.sort(key=lambda row: _order(row, column), reverse=self._reverse)
        top = round(self.scroll_target_y)
        looked_at = top <= self._index < top + max(1, self.size.height - 1)
        self._rows = tuple(rows)
        self._widths = ()
        self._drawn.clear()
        self._anchor()
        self.virtual_size = Size(self.size.width, len(rows) + 1)
        if looked_at:  # whoever has scrolled away from the cursor is left there
            self._in_sight()
        self._caption()
        self.refresh()

    def _anchor(self) -> None:
        """Find the cursor's row again; if it is gone, stay where it was."""
        for i, row in enumerate(self._rows):
            if row.key == self._key:
                self._index = i
                return
        before = self._index
        self._index = min(max(before, 0), len(self._rows) - 1)
        if self._key or self._index == NO_ROW or before == NO_ROW:
            self._key = self.cursor_key
            self.post_message(self.Moved(self, self._key))

    def _wanted(self, row: Row) -> bool:
        if self._pattern is None:
            return True
        found = self._pattern.search(" ".join(map(text_of, row.cells))) is not None
        return found != self._but

    def _caption(self) -> None:
        """The frame says how many, how sorted, and that it is filtered."""
        shown = f"{len(self._rows)}" if self._pattern is None else f"{len(self._rows)} of {len(self._all)}"
        sort = "" if self._sort is None else f"  {'▼' if self._reverse else '▲'} {self._columns[self._sort].title}"
        found = f"  </{self.filter_text}>" if self.filter_text else ""
        self.border_subtitle = Content(clean(f"{shown}{sort}{found}"))

    # ---- keys and clicks -------------------------------------------------------------------

    def action_move(self, by: int) -> None:
        """Up or down."""
        self._move(self._index + by)

    def action_page(self, by: int) -> None:
        """A page up or down."""
        self._move(self._index + by * max(1, self.size.height - 2))

    def action_end(self, which: int) -> None:
        """To the first, or the last."""
        self._move(0 if which < 0 else len(self._rows) - 1)

    def action_open(self) -> None:
        """Look at what is under the cursor."""
        if self.cursor_key:
            self.post_message(self.Opened(self, self.cursor_key))

    def action_sort(self) -> None:
        """By the next column."""
        at = -1 if self._sort is None else self._sort
        self._sort, self._reverse = (at + 1) % len(self._columns), False
        self._arrange()

    def action_reverse(self) -> None:
        """The other way round."""
        self._reverse = not self._reverse
        if self._sort is None:
            self._sort = 0
        self._arrange()

    def on_click(self, event: events.Click) -> None:
        """A row: go there, a second time open it. A title: sort by it."""
        place = event.get_content_offset(self)
        if place is None:
            return
        x, y = place
        if y <= 0:
            self._sort_at(x)
            return
        index = y - 1 + round(self.scroll_offset.y)
        if not 0 <= index < len(self._rows):
            return
        again = index == self._index and event.chain > 1
        self._move(index)
        if again:
            self.action_open()

    def _sort_at(self, x: int) -> None:
        left = 2
        for i, width in enumerate(self._fitted()):
            if width and left <= x < left + width + GAP:
                self._reverse = not self._reverse if self._sort == i else False
                self._sort = i
                self._arrange()
                return
            left += width + GAP if width else 0

    def _move(self, index: int) -> None:
        index = min(max(index, 0), len(self._rows) - 1)
        if index == self._index:
            return
        before, self._index = self._index, index
        self._key = self.cursor_key
        self._in_sight()
        for row in (before, index):
            self.refresh_line(1 + row)
        self.post_message(self.Moved(self, self._key))

    def _in_sight(self) -> None:
        """Scroll as little as brings the cursor's row between the titles and the end."""
        rows, top = max(1, self.size.height - 1), round(self.scroll_target_y)
        if self._index < top:
            self.scroll_to(y=self._index, animate=False, force=True)
        elif self._index >= top + rows:
            self.scroll_to(y=self._index - rows + 1, animate=False, force=True)

    # ---- drawing ---------------------------------------------------------------------------

    def on_resize(self) -> None:
        """Another width: other columns."""
        self._widths = ()
        self._drawn.clear()
        self.virtual_size = Size(self.size.width, len(self._rows) + 1)
        self._in_sight()

    def _fitted(self) -> tuple[int, ...]:
        """The width of each column; 0 for those left out."""
        if self._widths:
            return self._widths
        room = max(0, self.scrollable_content_region.width - 2)
        titles = [len(column.title) for column in self._columns]
        columns = list(zip(*(row.cells for row in self._rows), strict=True)) or [()] * len(titles)
        wide = [max(both) for both in zip(map(widest, columns), titles, strict=True)]
        wide = [min(w, c.most) if not c.flex else w for w, c in zip(wide, self._columns, strict=True)]
        shown = set(range(len(wide)))

        def needed() -> int:
            flexible = [i for i in shown if self._columns[i].flex]
            return sum(min(wide[i], 12) if i in flexible else wide[i] for i in shown) + GAP * (len(shown) - 1)

        while len(shown) > 1 and needed() > room:
            shown.remove(max(shown, key=lambda i: (self._columns[i].rank, i)))
        left = room - needed()
        for i in sorted(shown):
            if self._columns[i].flex:
                base = min(wide[i], 12)
                wide[i] = base + max(0, left)
                left = 0
        self._widths = tuple(min(wide[i], room) if i in shown else 0 for i in range(len(wide)))
        return self._widths

    def notify_style_update(self) -> None:
        """Another theme: drawn anew."""
        super().notify_style_update()
        self._drawn.clear()

    def render_line(self, y: int) -> Strip:
        """One line, painted: once for as long as its row is what it was, wherever it is scrolled to."""
        width = self.scrollable_content_region.width
        index = y - 1 + round(self.scroll_offset.y) if y else NO_ROW
        if y and index >= len(self._rows):
            return self.painted(Strip.blank(width))
        under = "" if index != self._index or not y else "cursor" if self.has_focus else "blur"
        drawn = self._drawn.get((index, under))
        if drawn is None or drawn.cell_length != width:
            drawn = self._drawn[index, under] = self.painted(self._line_at(index, under, width))
        return drawn

    def _line_at(self, index: int, under: str, width: int) -> Strip:
        """A row, or the titles."""
        if index != NO_ROW:
            return self._line(f"{MARK} " if under else "  ", self._rows[index].cells, under, width)
        if self._rows:
            return self._line("  ", [(c.title, "head") for c in self._columns], "", width)
        empty = self._empty if not self.filter_text else f"nothing is found by /{self.filter_text}"
        return self.strip(("  ", (empty, "dim")), width)

    def _line(self, mark: str, cells: Sequence[Cell], under: str, width: int) -> Strip:
        """Neighbours of one tone as one: the fewer pieces, the sooner it is on the screen."""
        spans: list[Cell] = [(mark, "accent")]
        for column, size, cell in zip(self._columns, self._fitted(), cells, strict=True):
            if size:
                spans.append((fit(text_of(cell), size, right=column.right) + " " * GAP, tone_of(cell)))
        strip = Strip([Segment(text, self.tone(tone)) for text, tone in joined(spans)]).adjust_cell_length(width)
        if not under:
            return strip
        return Strip(Segment.apply_style(strip, post_style=self.tone(under)), strip.cell_length)


def _order(row: Row, column: int) -> tuple[int, object]:
    """Numbers before text, and what is not known last."""
    value = row.order[column] if row.order else text_of(row.cells[column])
    if value is None:
        return (2, 0)
    return (0, value) if isinstance(value, int | float) else (1, str(value))
