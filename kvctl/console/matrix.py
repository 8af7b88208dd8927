"""Who sees whom: a row an observer, a column a node. Pure.

Promises: a cell is what that observer itself told, `?` where it told nothing; in words up to `WORDS_MAX` nodes, as
letters beyond. Never: makes a line that nobody looks at.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from kvctl.console.cells import letter
from kvctl.console.view import ClusterView, Row
from kvctl.console.widgets.pane import Made
from kvctl.console.widgets.tones import Cell, Line
from kvctl.output import show

WORDS_MAX = 10
WORD = 11
"""Cells of `down 99.0`, and of what is between two of them."""
LETTERS = {"up": "·", "suspect": "S", "down": "D"}
LETTER_TONES = {"·": "good", "S": "warn", "D": "bad"}
TONES = {"up": "good", "suspect": "warn", "down": "bad"}
NAME_MIN, NAME_MAX = 8, 20


def in_words(view: ClusterView) -> bool:
    """Whether a cell has room for a word."""
    return len(view.rows) <= WORDS_MAX


def legend(view: ClusterView) -> str:
    """What a cell says."""
    if in_words(view):
        return "state, and phi: how surprising the silence is"
    return "· up  S suspect  D down  ? not told"


def width_of(view: ClusterView) -> int:
    """Cells that its lines take."""
    count = len(view.rows)
    return _name(view) + 2 + (count * WORD if in_words(view) else 2 + count)


def matrix(view: ClusterView) -> Made:
    """The head, and a line an observer."""
    return Made(len(view.rows) + 1, lambda at: _line(view, view.rows[at - 1], at - 1) if at else _head(view))


def _name(view: ClusterView) -> int:
    return min(NAME_MAX, max([NAME_MIN, *(len(show(row.id)) for row in view.rows)]))


def _head(view: ClusterView) -> Line:
    name = f"{'OBSERVER':<{_name(view)}}  "
    if in_words(view):
        return ((name, "head"), *((f"{show(r.id)[: WORD - 2]:<{WORD}}", "head") for r in view.rows))
    return ((f"{name}  {''.join(letter(i) for i in range(len(view.rows)))}", "head"),)


def _line(view: ClusterView, row: Row, at: int) -> Line:
    size = _name(view)
    mark = "" if in_words(view) else f"{letter(at)} "
    label = (f"{show(row.id)[:size]:<{size}}  {mark}", "plain" if row.fresh else "dim")
    if not row.fresh or row.report is None:
        return (label, ("? told nothing", "dim"))
    return (label, *(_words(view, row) if in_words(view) else _letters(view, row)))


def _words(view: ClusterView, row: Row) -> Iterator[Cell]:
    """`up 0.2` of each node."""
    assert row.report is not None
    peers = {p.node: p for p in row.report.peers}
    for other in view.rows:
        peer = peers.get(other.id)
        if peer is None:
            yield (f"{'-' if row.id == other.id else '?':<{WORD}}", "dim")
        else:
            yield (f"{f'{peer.state} {peer.phi:.1f}':<{WORD}.{WORD - 1}}", TONES.get(peer.state, "dim"))


def _letters(view: ClusterView, row: Row) -> Iterator[Cell]:
    """A letter of each node; neighbours of one tone at once."""
    assert row.report is not None
    marks: dict[str, str] = {p.node: LETTERS.get(p.state, "?") for p in row.report.peers}
    marks[row.id] = "-"
    line = "".join(marks.get(other.id, "?") for other in view.rows)
    for mark, alike in groupby(line):
        yield ("".join(alike), LETTER_TONES.get(mark, "dim"))
