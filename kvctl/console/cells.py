"""The ring as a line of cells: owner, live replicas, margin. Pure.

Promises: a cell of several partitions shows the worst of them. Never: a letter that two members share, as long
as there are letters.
"""

from __future__ import annotations

from string import ascii_lowercase, ascii_uppercase, digits

from kvctl.console.view import ClusterView
from kvctl.console.widgets.tones import Cell, Line, joined

LETTERS = ascii_uppercase + ascii_lowercase + digits
OTHER = "·"


def letter(index: int) -> str:
    """A member's letter in the ring."""
    return LETTERS[index] if 0 <= index < len(LETTERS) else OTHER


def parts(q: int, width: int) -> list[range]:
    """The partitions of each of `width` cells (fewer, if there are not so many)."""
    cells = min(q, max(1, width))
    return [range(c * q // cells, (c + 1) * q // cells) for c in range(cells)]


def tone(have: int, need: int, of: int) -> str:
    """How a partition is: whole, at the edge, or without quorum."""
    return "bad" if have < need else "good" if have >= of else "warn"


def owners_line(view: ClusterView, width: int) -> Line:
    """The first owner of each cell; in brackets of tone: of a member that is down."""
    assert view.ring is not None
    down = {i for i, row in enumerate(view.rows) if not row.fresh or row.state == "down"}
    spans: list[Cell] = []
    for part in parts(view.ring.q, width):
        first = view.ring.owners[part[0]][0]
        spans.append((letter(first), "bad" if first in down else "plain"))
    return joined(spans)


def live_line(view: ClusterView, width: int) -> Line:
    """How many owners of each cell can be reached: the fewest of its partitions."""
    assert view.ring is not None
    reach, owners = view.reach, view.ring.owners
    if not reach.live:
        return (("?" * len(parts(view.ring.q, width)), "dim"),)
    spans: list[Cell] = []
    for part in parts(view.ring.q, width):
        worst = min(part, key=lambda p: reach.live[p] - reach.need[p])
        have = reach.live[worst]
        spans.append((str(min(have, 9)), tone(have, reach.need[worst], len(owners[worst]))))
    return joined(spans)


def margin_line(view: ClusterView, width: int) -> Line:
    """What each cell can lose: `+1`, 0 at the edge, `!` without quorum."""
    assert view.ring is not None
    reach = view.reach
    if not reach.live:
        return (("?" * len(parts(view.ring.q, width)), "dim"),)
    spans: list[Cell] = []
    for part in parts(view.ring.q, width):
        left = min(reach.live[p] - reach.need[p] for p in part)
        spans.append(("!", "bad") if left < 0 else (str(min(left, 9)), "warn" if left == 0 else "good"))
    return joined(spans)


def legend(view: ClusterView, width: int) -> Line:
    """Which letter is whom."""
    spans: list[Cell] = []
    used = 0
    for i, row in enumerate(view.rows):
        away = "" if row.fresh and row.state == "up" else f" {row.state if row.state != 'up' else 'silent'}"
        text = f"{letter(i)} {row.id}{away}  "
        if used + len(text) > width - 4:
            spans.append((f"+{len(view.rows) - i}", "dim"))
            break
        used += len(text)
        spans.append((text, "bad" if "down" in away else "warn" if away else "plain"))
    return tuple(spans)
