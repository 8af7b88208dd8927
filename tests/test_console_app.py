"""The console as its user meets it: keys, screens, commands, and that nothing happens unasked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from textual.widgets import Input

from kvctl.console.keymap import PLACES, read_keymap
from kvctl.console.screens import SCREENS
from kvctl.console.widgets.dialogs import Show
from kvctl.console.widgets.table import KeyTable
from kvctl.errors import Invalid
from tests.console_pilot import (
    CALM,
    KILLED,
    SPLIT,
    Noted,
    Still,
    awaited,
    opened,
    screen_text,
    settled,
    table,
    view_of,
)

SIZES = ((80, 24), (50, 12), (20, 5))


@awaited
async def test_the_first_screen_answers_the_first_question() -> None:
    """Can I read and write now, what is broken, and when does it heal?"""
    async with opened(KILLED) as (app, _):
        text = screen_text(app)
        assert "READ-WRITE" in text
        assert "n3 is down" in text
        assert "until healed" in text
        assert "0.4s old" in text


@awaited
async def test_every_screen_has_a_number_a_name_and_nothing_focused_that_takes_text() -> None:
    """A key brings each, `:name` too; on entering, letters are keys, not text."""
    async with opened(SPLIT) as (app, pilot):
        for place in PLACES:
            await pilot.press(place.number)
            await settled(pilot)
            assert app.screen is app.screen_stack[-1]
            assert type(app.screen) is SCREENS[place.name]
            assert not isinstance(app.focused, Input)
            assert "SPLIT" in screen_text(app), place.name
        await pilot.press("colon", *"hints", "enter")
        await settled(pilot)
        assert type(app.screen) is SCREENS["hints"]
        await pilot.press("minus")
        await settled(pilot)
        assert type(app.screen) is SCREENS[PLACES[-1].name], "back to the one before"


@awaited
async def test_no_size_is_refused() -> None:
    """Down to a few lines, every screen shows its status line and something of its own; up again, all."""
    async with opened(SPLIT) as (app, pilot):
        for place in PLACES:
            await pilot.press(place.number)
            for size in SIZES:
                await pilot.resize_terminal(*size)
                await settled(pilot)
                assert "kvctl" in screen_text(app)
        await pilot.resize_terminal(120, 36)


@awaited
async def test_the_terminal_is_resized_under_a_dialog() -> None:
    """Any size, and back: the question stays, Cancel stays focused, and cancels."""
    runner = Noted()
    async with opened(CALM, runner=runner) as (app, pilot):
        await pilot.press("3")
        await settled(pilot)
        await pilot.press("ctrl+k")
        await settled(pilot)
        for size in (*SIZES, (120, 36)):
            await pilot.resize_terminal(*size)
            await settled(pilot)
            assert app.focused is not None
            assert app.focused.id == "cancel"
        await pilot.press("enter")
        await settled(pilot)
        assert runner.lines == []


@pytest.mark.parametrize("keys", [(), ("6",), ("3", "enter"), ("question_mark",), ("3", "ctrl+k")])
@awaited
async def test_q_quits_from_anywhere(keys: tuple[str, ...]) -> None:
    """A screen, a page, the help, a question."""
    async with opened(CALM) as (app, pilot):
        for key in keys:
            await pilot.press(key)
            await settled(pilot)
        await pilot.press("q")
        await settled(pilot)
        assert not app.is_running or app._exit


@awaited
async def test_help_lists_the_keys_that_work_here() -> None:
    """Made of the bindings: those of the screen, of the list, and of every screen."""
    async with opened(CALM) as (app, pilot):
        await pilot.press("6", "question_mark")
        await settled(pilot)
        assert isinstance(app.screen, Show)
        text = app.screen.query_one("#text").text
        assert "break something" in text
        assert "a row down" in text
        assert "leave; nothing is stopped" in text
        assert "SIGKILL the node" not in text, "that is a key of another screen"


@awaited
async def test_a_filter_shows_only_what_was_asked_for() -> None:
    """As it is typed; `!` for the others; escape ends it."""
    async with opened(SPLIT) as (app, pilot):
        await pilot.press("3")
        await settled(pilot)
        await pilot.press("slash", "n", "2")
        await settled(pilot)
        assert table(app, "all").keys == ("n2",)
        await pilot.press("enter")
        await settled(pilot)
        assert app.focused is table(app, "all")
        await pilot.press("escape")
        await settled(pilot)
        assert len(table(app, "all").keys) == 5
        await pilot.press("slash", "exclamation_mark", "n", "2", "enter")
        await settled(pilot)
        assert table(app, "all").keys == ("n1", "n3", "n4", "n5")


@awaited
async def test_the_cursor_stays_on_its_row_whatever_the_refresh_does() -> None:
    """By its key: also when rows come, go and are sorted another way."""
    view = view_of(CALM)
    async with opened(view) as (app, pilot):
        await pilot.press("3")
        await settled(pilot)
        await pilot.press("down", "down", "down")
        assert table(app, "all").cursor_key == "n4"
        assert isinstance(app.feed, Still)
        for rows in (view.rows[::-1], view.rows[2:], (view.rows[3],), view.rows):
            ring = msgspec.structs.replace(
                view.ring, members=tuple(m for r in rows for m in view.ring.members if m.id == r.id)
            )
            app.feed.show(msgspec.structs.replace(view, rows=rows, ring=ring))
            await settled(pilot)
            assert table(app, "all").cursor_key == "n4"
        await pilot.press("s", "S", "s")
        assert table(app, "all").cursor_key == "n4"


@awaited
async def test_enter_opens_a_node_and_escape_comes_back() -> None:
    """With what it says of itself."""
    async with opened(SPLIT) as (app, pilot):
        await pilot.press("3")
        await settled(pilot)
        await pilot.press("down", "enter")
        await settled(pilot)
        text = screen_text(app)
        assert "Node n2" in text
        assert "sqlite, durability fsync" in text
        await pilot.press("escape")
        await settled(pilot)
        assert type(app.screen) is SCREENS["nodes"]


@awaited
async def test_the_matrix_shows_both_sides_of_a_partition() -> None:
    """Who sees whom, as each observer told it."""
    async with opened(SPLIT) as (app, pilot):
        await pilot.press("3")
        await settled(pilot)
        lines = [line.split() for line in app.screen.query_one("#matrix").text.splitlines()]
        assert lines[1][:2] == ["n1", "-"]
        assert lines[1][2] == "up"
        assert [lines[1][i] for i in (4, 6, 8)] == ["down"] * 3
        assert lines[4][1] == "down"


@awaited
async def test_partitions_are_cells_and_enter_opens_one() -> None:
    """The cursor moves by arrows, and what is under it is told below."""
    async with opened(SPLIT) as (app, pilot):
        await pilot.press("2")
        await settled(pilot)
        await pilot.press("right", "right", "down")
        await settled(pilot)
        grid = app.screen.query_one("#grid")
        assert grid.cursor == 2 + grid.across
        assert f" {grid.cursor}  slots" in screen_text(app)
        await pilot.press("enter")
        await settled(pilot)
        assert f"Partition {grid.cursor}" in screen_text(app)
        assert "a recording cannot be asked" in screen_text(app)


@awaited
async def test_events_follow_until_one_reads() -> None:
    """The newest is in sight; going up stops that, and the cursor stays."""
    async with opened(KILLED) as (app, pilot):
        await pilot.press("7")
        await settled(pilot)
        events = table(app, "all-events")
        assert events.cursor_key == events.keys[-1]
        await pilot.press("up", "up")
        await settled(pilot)
        at = events.cursor_key
        assert isinstance(app.feed, Still)
        app.feed.show(view_of(60))
        await settled(pilot)
        assert events.cursor_key == at
        assert events.keys[-1] != at


@awaited
async def test_the_age_of_what_is_shown_is_told_and_grows() -> None:
    """Old figures are never shown as if they were fresh."""
    async with opened(CALM) as (app, pilot):
        assert isinstance(app.feed, Still)
        app.feed.age_ms = 7_400
        app._tick()
        await settled(pilot)
        assert "7.4s old" in screen_text(app)


@awaited
async def test_a_held_screen_stands_still_and_says_so() -> None:
    """Space holds it, space lets it go."""
    async with opened(CALM) as (app, pilot):
        await pilot.press("space")
        assert isinstance(app.feed, Still)
        app.feed.show(view_of(KILLED))
        await settled(pilot)
        assert "PAUSED" in screen_text(app)
        assert "n3 is down" not in screen_text(app)
        await pilot.press("space")
        app.feed.show(view_of(KILLED))
        await settled(pilot)
        assert "n3 is down" in screen_text(app)


@awaited
async def test_a_click_moves_the_cursor_and_a_title_sorts() -> None:
    """The mouse does what keys do."""
    async with opened(CALM) as (app, pilot):
        await pilot.press("3")
        await settled(pilot)
        await pilot.click("#all", offset=(6, 4))
        assert table(app, "all").cursor_key == "n3"
        await pilot.click("#all", offset=(9, 1))
        await pilot.click("#all", offset=(9, 1))
        await settled(pilot)
        assert table(app, "all").keys == ("n5", "n4", "n3", "n2", "n1")
        assert table(app, "all").cursor_key == "n3"


def test_the_users_own_keys_are_read_and_judged(tmp_path: Path) -> None:
    """Any key by its id; what is none is told with what there is."""
    path = tmp_path / "keys.toml"
    assert read_keymap(path, ()) == {}
    path.write_text('heal_all = "ctrl+h"\n')
    assert read_keymap(path, ("heal_all",)) == {"heal_all": "ctrl+h"}
    path.write_text('heal_al = "ctrl+h"\n')
    with pytest.raises(Invalid, match="no key 'heal_al'"):
        read_keymap(path, ("heal_all",))
    path.write_text("heal_all = 3\n")
    with pytest.raises(Invalid, match="must be a key"):
        read_keymap(path, ("heal_all",))


@awaited
async def test_a_remapped_key_works_and_the_old_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From keys.toml in the home."""
    monkeypatch.setenv("KVCTL_HOME", str(tmp_path))
    (tmp_path / "keys.toml").write_text('go_faults = "f8"\n')
    async with opened(CALM) as (app, pilot):
        await pilot.press("6")
        await settled(pilot)
        assert type(app.screen) is SCREENS["overview"]
        await pilot.press("f8")
        await settled(pilot)
        assert type(app.screen) is SCREENS["faults"]


def test_the_command_line_does_without_textual() -> None:
    """`kvctl get` stays quick: neither it nor the command tree imports the console."""
    code = (
        "import sys, kvctl.cli; kvctl.cli.build(set(kvctl.cli.HOMES.values()));"
        "sys.exit(any(name.split('.')[0] == 'textual' or name == 'kvctl.console' for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_tables_are_the_only_lists() -> None:
    """Every screen with rows uses the table whose cursor stays: no other list widget is imported."""
    for path in (Path(__file__).parent.parent / "kvctl" / "console").rglob("*.py"):
        assert "DataTable" not in path.read_text(), path
    assert KeyTable.BINDINGS
