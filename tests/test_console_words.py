"""Lines, as the console words them: events told as one, the matrix, the foot, the marks of faults. No screen."""

from __future__ import annotations

import pytest

from kvctl.console import matrix
from kvctl.console.app import Console
from kvctl.console.telling import ALIKE_MS, event_lines
from kvctl.console.widgets.foot import places
from kvctl.console.widgets.pane import Made
from kvctl.console.widgets.tones import Line, fit, text_of
from kvnode.protocol.messages import Event
from kvnode.protocol.types import NodeId
from tests.console_pilot import SPLIT, Noted, Still, awaited, screen_text, settled, until, view_of

NAMES = {"n1", "n2", "n3"}


def text(line: Line) -> str:
    """Without tones."""
    return "".join(map(text_of, line))


def told(*events: tuple[str, str, int]) -> list[Event]:
    """(Who told it, what, when)."""
    return [Event(i, at, NodeId(node), "liveness", what) for i, (node, what, at) in enumerate(events, 1)]


def test_what_several_tell_of_several_is_one_line_that_names_them_all() -> None:
    """Two observers of two nodes make four events: one line, in which nobody is missing."""
    events = told(
        ("n1", "n3: up -> suspect (suspected by n1)", 1_000),
        ("n1", "n2: up -> suspect (suspected by n1)", 1_010),
        ("n2", "n3: up -> suspect (suspected by n1, n2)", 1_020),
    )
    (line,) = event_lines(events, 6, NAMES)
    assert "n2,n3: up -> suspect" in text(line)
    assert text(line).rstrip().endswith("n1,n2")


@pytest.mark.parametrize(
    "other",
    [
        ("n2", "n3: suspect -> down", 1_010),
        ("n1", "n3: up -> suspect", 1_000 + ALIKE_MS + 1),
        ("n1", "partition 4 with n3: 2 keys", 1_010),
    ],
)
def test_another_thing_or_another_time_is_another_line(other: tuple[str, str, int]) -> None:
    """Only what is alike, and lately, is told as one."""
    assert len(event_lines(told(("n1", "n3: up -> suspect", 1_000), other), 6, NAMES)) == 2


def test_figures_do_not_make_events_differ_but_names_do() -> None:
    """`partition 4 with n3` and `partition 5 with n3` are alike; with n2 is another thing. The newest is below."""
    events = told(
        ("n1", "partition 4 with n3: 2 of 3 keys", 1_000),
        ("n1", "partition 5 with n3: 1 of 9 keys", 1_001),
        ("n1", "partition 4 with n2: 2 of 3 keys", 1_002),
    )
    lines = event_lines(events, 6, NAMES)
    assert [text(line)[21:].split("  ")[0] for line in lines] == [
        "partition 5 with n3: 1 of 9 keys", "partition 4 with n2: 2 of 3 keys",
    ]  # fmt: skip
    assert text(lines[0]).endswith("n1 x2")


def test_no_more_lines_than_there_is_room_for_and_the_newest_of_them() -> None:
    """Of ten, the last three."""
    events = told(*(("n1", f"thing {chr(97 + i)}", 1_000 + i) for i in range(10)))
    assert [text(line)[21:28] for line in event_lines(events, 3, NAMES)] == ["thing h", "thing i", "thing j"]


def test_the_matrix_makes_the_lines_that_are_looked_at_and_no_other() -> None:
    """A line is made when it is asked for; it is as wide as the width says, in words."""
    made: list[int] = []

    def make(at: int) -> Line:
        made.append(at)
        return (f"line {at}",)

    lines = Made(1_000, make)
    assert len(lines) == 1_000
    assert text(lines[7]) == "line 7"
    assert made == [7]
    view = view_of(SPLIT)
    assert {len(text(line)) for line in matrix.matrix(view)} == {matrix.width_of(view)}


@pytest.mark.parametrize("width", [120, 93, 92, 80, 60, 40, 30])
def test_the_foot_names_the_screen_at_every_width(width: int) -> None:
    """All ten numbers are there, the one on top in brackets, and nothing is wider than the line."""
    found = places("repair", width)
    line = "".join(cell[0] for _, cell in found)
    assert len(line) <= width
    assert "[5 repair]" in line
    assert all(number in line for number in "1234567890")


@awaited
async def test_a_name_in_the_foot_is_a_door() -> None:
    """A click on `hints` goes there; while something is being said, a click does nothing."""
    app = Console(Still(view_of(SPLIT)), runner=Noted())
    async with app.run_test(size=(120, 36)) as pilot:
        at = screen_text(app).splitlines()[34].index("hints")
        await pilot.click("#last", offset=(at, 0))
        await settled(pilot)
        assert app.current_mode == "hints"
        app.tell("something was said")
        await settled(pilot)
        await pilot.click("#last", offset=(2, 0))
        await settled(pilot)
        assert app.current_mode == "hints"
        assert "something was said" in screen_text(app)


@pytest.mark.parametrize("raw", ["plain", "漢字", "e\u0301", "\x1b[31mred", "ta\tb", "\u202eback", ""])
def test_what_is_soon_measured_is_measured_right(raw: str) -> None:
    """The short way for plain text and the long one for all else agree: ten cells are ten cells, and harmless."""
    from rich.cells import cell_len

    shown = fit(text_of(raw), 10)
    assert cell_len(shown) == 10
    assert not any(char in shown for char in "\x1b\t\u202e")


@pytest.mark.parametrize(("words", "happens"), [("hints", "hints"), ("heal all", "kvctl fault heal --all")])
@awaited
async def test_the_palette_has_every_screen_and_every_action(words: str, happens: str) -> None:
    """By its name, as if its key had been pressed."""
    runner = Noted()
    app = Console(Still(view_of(SPLIT)), runner=runner)
    async with app.run_test(size=(120, 36)) as pilot:
        await settled(pilot)
        await pilot.press("ctrl+p")
        await until(pilot, lambda: len(app.screen_stack) == 2)
        await pilot.press(*(" " if c == " " else c for c in words))
        await until(pilot, lambda: f"({'4' if words == 'hints' else 'H'})" in screen_text(app))
        await pilot.press("enter")
        await until(pilot, lambda: happens in (app.current_mode, *runner.lines))
