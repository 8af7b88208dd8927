"""A plot over time in braille, with the windows of faults behind it.

Promises: a gap where a figure is not known; without colour each series is named at its newest value, and each
fault in a row of its own under the plot. Never: a line across a gap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import log10

from msgspec import Struct
from rich.segment import Segment
from textual.strip import Strip

from kvctl.console.view import Window
from kvctl.console.widgets.tones import DIM, FAULT, Toned, clean, fit

AXIS = 8
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bits of a braille cell, by row and column."""
FAULT_ROWS_MAX = 3
SHORT_MS = 30_000
BESIDE_MIN = 40
"""Cells that a plot must have for names beside its lines."""


class Series(Struct, frozen=True):
    """A figure over time."""

    label: str
    tone: str
    values: tuple[float | None, ...]


class Picture(Struct, frozen=True):
    """What a plot shows."""

    times: tuple[int, ...] = ()
    """When each value was, ascending."""
    series: tuple[Series, ...] = ()
    windows: tuple[Window, ...] = ()
    since_ms: int = 0
    until_ms: int = 1
    log: bool = False


class Plot(Toned):
    """One plot."""

    def __init__(self, form: Callable[[float], str], *, id: str | None = None) -> None:
        """`form`: a value as its axis writes it."""
        super().__init__(id=id)
        self._form = form
        self._picture = Picture()
        self._drawn: list[list[Segment]] = []
        self._for = (0, 0)

    def show(self, picture: Picture) -> None:
        """This is what there is now."""
        if picture != self._picture:
            self._picture, self._for = picture, (0, 0)
            self.refresh()

    def named(self) -> str:
        """The names and newest values, where there is no room for them beside the lines."""
        return "" if self.size.width >= BESIDE_MIN else "  ".join(text for text, _ in self._labels())

    def render_line(self, y: int) -> Strip:
        """One line, painted."""
        return self.painted(self._line_at(y))

    def _line_at(self, y: int) -> Strip:
        """One line of it."""
        size = (self.size.width, self.size.height)
        if self._for != size or self._styles_of is None:
            self._for, self._drawn = size, list(self._draw(*size))
        return Strip(self._drawn[y] if y < len(self._drawn) else []).adjust_cell_length(size[0])

    def notify_style_update(self) -> None:
        """Another theme: drawn anew."""
        super().notify_style_update()
        self._for = (0, 0)

    def _draw(self, width: int, height: int) -> Iterator[list[Segment]]:
        picture = self._picture
        margin = max((len(name) for name, _ in self._labels()), default=0) + 1
        margin = margin if width >= BESIDE_MIN and margin > 1 else 0
        across = width - AXIS - 1 - margin
        shown = [w for w in picture.windows if self._reaches(w)]
        marks = (
            [[w] for w in shown[-FAULT_ROWS_MAX:]] if height >= 12 else [shown] if height >= 5 and shown else []
        )
        rows = height - 1 - len(marks)
        if across < 8 or rows < 1:
            return
        low, top = self._range()
        grid = [[0] * across for _ in range(rows)]
        tones = [[""] * across for _ in range(rows)]
        for series in picture.series:
            self._trace(series, grid, tones, low, top)
        shaded = self._shade(across)
        names = self._names(rows, low, top) if margin else {}
        for y in range(rows):
            yield [*self._axis(y, rows, low, top), *self._cells(grid[y], tones[y], shaded), *names.get(y, ())]
        for windows in marks:
            yield self._mark(windows, across)
        yield self._times(across)

    # ---- scales ----------------------------------------------------------------------------

    def _range(self) -> tuple[float, float]:
        values = [v for s in self._picture.series for v in s.values if v is not None]
        top = max(values, default=0.0)
        if self._picture.log:
            low = 10.0 ** int(log10(max(min((v for v in values if v > 0), default=1.0), 1e-3)) // 1)
            return low, max(10.0 ** -int(-log10(max(top, low)) // 1), 10 * low)
        return 0.0, _nice(top)

    def _height_of(self, value: float, low: float, top: float) -> float:
        """0..1"""
        if self._picture.log:
            return 0.0 if value <= low else min(1.0, log10(value / low) / log10(top / low))
        return min(1.0, value / top)

    def _x_of(self, at_ms: int, across: int) -> float:
        span = max(1, self._picture.until_ms - self._picture.since_ms)
        return (at_ms - self._picture.since_ms) / span * across

    def _reaches(self, window: Window) -> bool:
        picture = self._picture
        return window.since_ms < picture.until_ms and (window.until_ms or picture.until_ms) > picture.since_ms

    # ---- parts -----------------------------------------------------------------------------

    def _trace(
        self, series: Series, grid: list[list[int]], tones: list[list[str]], low: float, top: float
    ) -> None:
        rows, across = len(grid), len(grid[0])
        last: tuple[int, int] | None = None
        for at_ms, value in zip(self._picture.times, series.values, strict=True):
            x = int(self._x_of(at_ms, across * 2))
            if value is None or not 0 <= x < across * 2:
                last = None
                continue
            y = round((1 - self._height_of(value, low, top)) * (rows * 4 - 1))
            for px, py in _between(last, (x, y)):
                grid[py // 4][px // 2] |= DOTS[py % 4][px % 2]
                tones[py // 4][px // 2] = series.tone
            last = (x, y)

    def _shade(self, across: int) -> list[bool]:
        shaded = [False] * across
        for window in self._picture.windows:
            if self._reaches(window):
                first, last = self._ends(window, across)
                for x in range(first, last):
                    shaded[x] = True
        return shaded

    def _ends(self, window: Window, across: int) -> tuple[int, int]:
        first = int(max(0.0, self._x_of(window.since_ms, across)))
        until = window.until_ms or self._picture.until_ms
        return min(first, across - 1), max(
            min(across, round(self._x_of(until, across))), min(first, across - 1) + 1
        )

    def _labels(self) -> list[tuple[str, float]]:
        """Each series by its name and newest value; without the latter, it has none."""
        newest = [(s.label, s.values[-1]) for s in self._picture.series if s.values]
        return [(f"{name} {self._form(value)}", value) for name, value in newest if value is not None]

    def _names(self, rows: int, low: float, top: float) -> dict[int, list[Segment]]:
        """Row -> the label of the series whose newest value is there, or next to it where that is taken."""
        tones = {s.label: s.tone for s in self._picture.series}
        found: dict[int, list[Segment]] = {}
        for text, value in self._labels():
            wanted = min(rows - 1, int((1 - self._height_of(value, low, top)) * rows))
            free = [y for y in range(rows) if y not in found]
            if free:
                y = min(free, key=lambda each: (abs(each - wanted), each))
                found[y] = [Segment(f" {text}", self.tone(tones[text.split(" ")[0]]))]
        return found

    def _axis(self, y: int, rows: int, low: float, top: float) -> list[Segment]:
        share = {0: 1.0, rows - 1: 0.0}.get(y, 0.5 if rows >= 5 and y == rows // 2 else None)
        text = ""
        if share is not None:
            value = low * (top / low) ** share if self._picture.log else top * share
            text = self._form(value)
        return [Segment(fit(text, AXIS - 1, right=True) + " ", self.tone(DIM)), Segment("│", self.tone(DIM))]

    def _cells(self, bits: list[int], tones: list[str], shaded: list[bool]) -> list[Segment]:
        chars = [chr(0x2800 + b) if b else " " for b in bits]
        behind = self.tone(FAULT)
        parts: list[Segment] = []
        for char, tone, shade in zip(chars, tones, shaded, strict=True):
            style = self.tone(tone) if tone else self.tone(DIM)
            parts.append(Segment(char, style + behind if shade else style))
        return list(Segment.simplify(parts))

    def _mark(self, windows: Sequence[Window], across: int) -> list[Segment]:
        """A bar from the beginning to the end of each, and its name where there is room, beside it or on it."""
        line = [" "] * across
        ends = [self._ends(window, across) for window in windows]
        for first, last in ends:
            line[first:last] = "━" * (last - first)
        if len(windows) > 1:
            for window, (first, _), until in zip(
                windows, ends, [*(e[0] for e in ends[1:]), across + 1], strict=True
            ):
                size = min(len(window.kind), until - first - 1)
                line[first : first + size] = (
                    fit(clean(window.kind), size) if size > 3 else line[first : first + size]
                )
        else:
            ((first, last),) = ends
            text = clean(f"{windows[0].kind} {windows[0].target}")
            right, left = max(0, across - last - 1), max(0, first - 1)
            size = min(len(text), max(right, left) if right < len(text) else right)
            at = last + 1 if right >= size else first - 1 - size
            line[at : at + size] = fit(text, size)
        return [
            Segment(fit("fault", AXIS - 1, right=True) + "  ", self.tone(DIM)),
            Segment("".join(line), self.tone("warn")),
        ]

    def _times(self, across: int) -> list[Segment]:
        seconds = max(1, (self._picture.until_ms - self._picture.since_ms) // 1000)
        left, middle = f"-{_ago(seconds)}", f"-{_ago(seconds // 2)}"
        text = left + middle.rjust(across // 2 - len(left)) + "now".rjust(across - across // 2)
        return [Segment(" " * AXIS + "└", self.tone(DIM)), Segment(fit(text, across), self.tone(DIM))]


def _between(last: tuple[int, int] | None, here: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """The dots of a line from the one before."""
    if last is None:
        yield here
        return
    (x0, y0), (x1, y1) = last, here
    steps = max(abs(x1 - x0), abs(y1 - y0), 1)
    for i in range(1, steps + 1):
        yield x0 + round((x1 - x0) * i / steps), y0 + round((y1 - y0) * i / steps)


def _nice(top: float) -> float:
    """1, 2 or 5 times a power of ten, not below."""
    if top <= 0:
        return 1.0
    power = 10.0 ** int(log10(top) // 1)
    return next(step * power for step in (1, 2, 5, 10) if step * power >= top)


def _ago(seconds: int) -> str:
    return (
        f"{seconds}s"
        if seconds < 120
        else f"{seconds // 60}m{seconds % 60:02d}s"
        if seconds % 60
        else f"{seconds // 60}m"
    )


def picture_of(
    times: Sequence[int], series: Sequence[Series], windows: Sequence[Window], since_ms: int, *, log: bool = False
) -> Picture:
    """A picture that ends with its newest value, and begins where there is something; half a minute at least."""
    until_ms = max(times, default=since_ms + 1)
    since_ms = max(since_ms, min(min(times, default=since_ms), until_ms - SHORT_MS))
    return Picture(tuple(times), tuple(series), tuple(windows), since_ms, until_ms, log)
