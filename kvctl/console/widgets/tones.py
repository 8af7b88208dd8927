"""Text with a tone, and the one door through which text gets to the terminal.

Promises: what a terminal would obey is shown, never sent, whatever a node, key or value holds; no line is
wider than its place; a tone only repeats what the words say. Never: a colour that carries meaning alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from textwrap import wrap
from typing import ClassVar, TypeAlias

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip
from textual.widget import Widget

from kvctl.output import escape

Span: TypeAlias = tuple[str, str]
"""Text and tone."""
Cell: TypeAlias = "str | Span"
Line: TypeAlias = "Sequence[Cell]"

GOOD, WARN, BAD, DIM, HEAD, ACCENT, PLAIN = "good", "warn", "bad", "dim", "head", "accent", "plain"
FAULT, ONE, TWO, THREE = "fault", "one", "two", "three"
"""Of plots: a fault's window, and up to three series."""
TONES = (GOOD, WARN, BAD, DIM, HEAD, ACCENT, PLAIN, FAULT, ONE, TWO, THREE)
TEXT_CHARS_MAX = 4_000
"""Of one cell: a line of 10 KB is cut before it is measured."""
CUT = "…"


def clean(text: str) -> str:
    """Text as it may be drawn: on one line, harmless, and not too long to measure."""
    if len(text) > TEXT_CHARS_MAX:
        text = text[:TEXT_CHARS_MAX] + CUT
    return text if plain(text) else escape(text)


def plain(text: str) -> bool:
    """Whether every character is one cell, and harmless: so of almost all text there is, and soon told."""
    return text.isascii() and text.isprintable()


def width_of(text: str) -> int:
    """Cells of a text that is clean."""
    return len(text) if plain(text) else cell_len(text)


def text_of(cell: Cell) -> str:
    """A cell's text, harmless."""
    return clean(cell if isinstance(cell, str) else cell[0])


def widest(cells: Iterable[Cell]) -> int:
    """Cells that the longest of these takes: at once, if all are plain."""
    texts = [cell if isinstance(cell, str) else cell[0] for cell in cells]
    if plain("".join(texts)):
        return min(max(map(len, texts), default=0), TEXT_CHARS_MAX + 1)
    return max(width_of(clean(text)) for text in texts)


def tone_of(cell: Cell) -> str:
    """A cell's tone."""
    return PLAIN if isinstance(cell, str) else cell[1]


def bared(cell: Cell) -> tuple[Span, ...]:
    """What is bad without the blanks around it: it may be underlined."""
    text, kind = (cell, PLAIN) if isinstance(cell, str) else cell
    core = text.strip(" ")
    if kind != BAD or core == text or not core:
        return ((text, kind),)
    at = text.index(core)
    return ((text[:at], PLAIN), (core, BAD), (text[at + len(core) :], PLAIN))


def joined(spans: Iterable[Cell]) -> tuple[Span, ...]:
    """Neighbours of one tone as one."""
    found: list[Span] = []
    for text, kind in (part for span in spans for part in bared(span)):
        if found and found[-1][1] == kind:
            found[-1] = (found[-1][0] + text, kind)
        else:
            found.append((text, kind))
    return tuple(found)


def fit(text: str, width: int, *, right: bool = False) -> str:
    """Exactly `width` cells: cut with a sign of it, or padded."""
    if width <= 0:
        return ""
    size = width_of(text)
    if size > width:
        return set_cell_size(text, width - 1) + CUT
    return " " * (width - size) + text if right else text + " " * (width - size)


class Toned(Widget):
    """A widget that draws spans; what tones look like is for the style sheet."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"tone--{tone}" for tone in TONES} | {"tone--cursor", "tone--blur"}

    _styles_of: dict[str, Style] | None = None

    def notify_style_update(self) -> None:
        """Another theme: other styles."""
        super().notify_style_update()
        self._styles_of = None

    def tone(self, name: str) -> Style:
        """The style of a tone."""
        if self._styles_of is None:
            self._styles_of = {}
        found = self._styles_of.get(name)
        if found is None:
            found = self._styles_of[name] = self._style_of(name)
        return found

    def _style_of(self, name: str) -> Style:
        """As the style sheet has it, blended with what is behind."""
        styles, behind = self.get_component_styles(f"tone--{name}"), self.background_colors[1]
        ground = behind + styles.background
        return (
            Style(
                color=(ground + styles.color).rich_color if styles.has_rule("color") else None,
                bgcolor=ground.rich_color if styles.has_rule("background") else None,
            )
            + styles.text_style
        )

    def painted(self, strip: Strip) -> Strip:
        """With the widget's own colours behind."""
        if self._styles_of is None or "" not in self._styles_of:
            self._styles_of = {**(self._styles_of or {}), "": self.rich_style}
        return strip.apply_style(self._styles_of[""])

    def segments(self, line: Iterable[Cell]) -> list[Segment]:
        """A line of spans, as segments."""
        return [
            Segment(text_of(part), self.tone(tone_of(part))) for cell in line for part in bared(cell) if part[0]
        ]

    def strip(self, line: Iterable[Cell], width: int) -> Strip:
        """A line of spans, exactly so wide."""
        strip = Strip(self.segments(line))
        if strip.cell_length <= width:
            return strip.extend_cell_length(width)
        return (
            Strip.join([strip.crop(0, width - 1), Strip([Segment(CUT, self.tone(DIM))])]) if width else Strip([])
        )


def wrapped(line: Line, width: int) -> list[Line]:
    """A line of words over as many lines as it takes; those of more than one tone are left as they are."""
    if len(line) != 1:
        return [line]
    text, tone = text_of(line[0]), tone_of(line[0])
    return [((part, tone),) for part in wrap(text, max(8, width))] or [line]


# ---- small pictures in text ------------------------------------------------------------------

BARS = "▁▂▃▄▅▆▇█"


def spark(values: Sequence[float | None], width: int) -> str:
    """The last `width` values as bars; a gap where one is not known."""
    shown = list(values)[-width:]
    known = [v for v in shown if v is not None]
    top = max(known, default=0.0)
    text = "".join(" " if v is None else BARS[round(v / top * 7)] if top > 0 else BARS[0] for v in shown)
    return text.rjust(width)


def bar(share: float, width: int) -> str:
    """How much of a whole."""
    full = round(min(max(share, 0.0), 1.0) * width)
    return "█" * full + "░" * (width - full)
