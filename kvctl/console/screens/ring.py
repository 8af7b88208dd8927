"""Ring: every partition as a cell.

Promises: a cell is its partition's own figures, none is an average; the letter is explained below.
Never: hides a partition without quorum: it is marked, and counted in the title.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual.binding import BindingType
from textual.widget import Widget

from kvctl.console import cells
from kvctl.console.actions import Action
from kvctl.console.keymap import Key, bindings
from kvctl.console.page import Page
from kvctl.console.screens.overview import edge
from kvctl.console.screens.partition import PartitionPage
from kvctl.console.view import ClusterView
from kvctl.console.widgets.grid import Cells, PartitionCell
from kvctl.console.widgets.pane import Text
from kvctl.console.widgets.tones import Cell, Line
from kvctl.output import show
from kvnode.protocol.ring import SLOTS

ACTS = (Key("repair_one", "r", "repair", "Repair", "compare the copies of the partition under the cursor", True),)


class RingScreen(Page):
    """All partitions."""

    NAME = "ring"
    FOCUS = "#grid"
    BINDINGS: ClassVar[list[BindingType]] = bindings(ACTS)

    def body(self) -> Iterable[Widget]:
        """Cells, and what is under the cursor."""
        yield Cells(id="grid")
        yield Text(id="about", classes="frame")

    def on_mount(self) -> None:
        """Titles."""
        self.query_one("#grid").border_title = "Ring"
        self.query_one("#about").border_title = "Partition"
        self._only = ""
        super().on_mount()

    def show(self, view: ClusterView, now_ms: int) -> None:
        """All of it."""
        grid = self.query_one(Cells)
        grid.show(tuple(cell_of(view, p, self._only) for p in range(view.ring.q)) if view.ring is not None else ())
        if view.ring is not None:
            short = view.ring.q - view.reach.served
            seen = (
                f"{short} without quorum  {edge(view):.0%} at the edge" if view.reach.live else "none can be seen"
            )
            told = f"{view.ring.q} partitions  {seen}"
            grid.border_subtitle = told + (f"  </{self._only}>" if self._only else "")
        self.query_one("#about", Text).show(about_lines(view, grid.cursor, self.size.width - 4, roomy=grid.roomy))

    def on_cells_moved(self) -> None:
        """Another cell: another story."""
        self.renew()

    def on_cells_opened(self, event: Cells.Opened) -> None:
        """Its page."""
        self.app.push_screen(PartitionPage(event.partition))

    def filter(self, text: str) -> None:
        """Only partitions that this node owns stand out."""
        self._only = text
        self.renew()

    def end_prompt(self) -> bool:
        """The filter here is no table's."""
        had = bool(self._only)
        self._only = ""
        return super().end_prompt() or had

    def subject(self) -> Action:
        """The partition under the cursor."""
        return Action(("repair", "run", "--partition", str(self.query_one(Cells).cursor)))

    def action_repair(self) -> None:
        """Compare it now."""
        self.board.act(self.subject())


def cell_of(view: ClusterView, partition: int, only: str = "") -> PartitionCell:
    """`A3`, `B2·`, `C1!`; `A?` where nothing can be seen."""
    assert view.ring is not None
    owners = view.ring.owners[partition]
    letters = "".join(map(cells.letter, owners))
    if not view.reach.live:
        return PartitionCell(letters, "?", "dim")
    have, need = view.reach.live[partition], view.reach.need[partition]
    mark = "!" if have < need else "·" if have == need else ""
    kind = cells.tone(have, need, len(owners))
    if only and not any(only in view.ring.members[o].id for o in owners):
        return PartitionCell("", "", "dim")
    return PartitionCell(letters, f"{min(have, 9)}{mark}", kind)


def about_lines(view: ClusterView, partition: int, width: int, *, roomy: bool = False) -> list[Line]:
    """The partition under the cursor in two lines, and the legend."""
    if view.ring is None:
        return [(("the ring is not known yet", "dim"),)]
    ring = view.ring
    slots = SLOTS // ring.q
    head: list[Cell] = [
        (f"{partition}", "head"),
        (f"  slots {partition * slots}..{(partition + 1) * slots - 1}  ", "dim"),
    ]
    for owner in ring.owners[partition]:
        row = view.rows[owner]
        ok = row.fresh and row.state == "up"
        head += [
            (cells.letter(owner), "head"),
            f" {show(row.id)} ",
            (f"{row.state if row.fresh else 'silent'}   ", "good" if ok else "bad"),
        ]
    margin: list[Cell] = []
    if view.reach.live:
        have, need = view.reach.live[partition], view.reach.need[partition]
        left = have - need
        word = "NO QUORUM" if left < 0 else "one failure from losing quorum" if left == 0 else f"may lose {left}"
        margin = [f"{have} of {len(ring.owners[partition])} live, a quorum is {need}: ",
                  (word, cells.tone(have, need, len(ring.owners[partition])))]  # fmt: skip
    who = "ABC3 owners A, B and C, 3 live" if roomy else "A3 first owner A, 3 live"
    marks: Line = ((f"{who}   2· at the edge   1! no quorum", "dim"),)
    return [tuple(head), tuple(margin), cells.legend(view, width), marks]
