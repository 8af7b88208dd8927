"""Acting from the console: every act is a command, asked about, refused when it must be, and shown."""

from __future__ import annotations

import msgspec
import pytest
from textual.widgets import Button, Input

from kvctl.console.actions import ASKED, Action, Preview, Ran, parse
from kvctl.console.screens.faults import fault_of
from kvctl.console.screens.node import NodePage
from kvctl.console.widgets.dialogs import Confirm, Show
from tests.console_pilot import (
    CALM,
    KILLED,
    Noted,
    Still,
    awaited,
    opened,
    screen_text,
    settled,
    table,
    typed,
    until,
    view_of,
)

BREAKS = Preview("kill n1", ("kill n1: 40 of 256 partitions would lose their quorum",), True, "margin 68% -> 0%")
SAFE = Preview("kill n1", (), False, "margin 100% -> 68%")

DESTRUCTIVE = {
    "kill a node": (("3", "ctrl+k"), "kvctl fault kill n1"),
    "hold a node": (("3", "P"), "kvctl fault pause n1"),
    "stop a node": (("3", "T"), "kvctl fault stop n1"),
    "restart a node": (("3", "R"), "kvctl fault restart n1"),
    "kill on its page": (("3", "enter", "ctrl+k"), "kvctl fault kill n1"),
    "drop hints": (("4", "ctrl+d"), "kvctl hints drop n3"),
    "typed": ((), "kvctl fault wipe n2"),
}
"""What destroys or stops something: keys, and the command they mean."""


@awaited
async def test_what_destroys_is_asked_about_and_enter_cancels() -> None:
    """The dialog names the node and the command; Cancel has the focus; enter, escape do nothing."""
    runner = Noted(SAFE)
    async with opened(KILLED, runner=runner) as (app, pilot):
        for i, (what, (keys, line)) in enumerate(DESTRUCTIVE.items()):
            answer = ("enter", "escape")[i % 2]
            for key in keys:
                await pilot.press(key)
                await settled(pilot)
            if what == "typed":
                app.command("fault wipe n2")
            await settled(pilot)
            assert isinstance(app.screen, Confirm), what
            assert app.focused is app.screen.query_one("#cancel")
            text = screen_text(app)
            assert line in text
            assert line.split()[-1] in app.screen._means
            await pilot.press(answer)
            await settled(pilot)
            assert not isinstance(app.screen, Confirm)
            while len(app.screen_stack) > 1:
                app.pop_screen()
            await pilot.press("1")
            await settled(pilot)
        assert runner.lines == []


@awaited
async def test_what_breaks_no_quorum_needs_the_button() -> None:
    """A step to the button, and enter."""
    runner = Noted(SAFE)
    async with opened(CALM, runner=runner) as (app, pilot):
        await pilot.press("3")
        await settled(pilot)
        await pilot.press("down", "ctrl+k")
        await settled(pilot)
        await pilot.press("right", "enter")
        await settled(pilot)
        assert runner.lines == ["kvctl fault kill n2"]
        assert isinstance(app.feed, Still)
        assert app.feed.looked == 1, "what was changed is looked at now, not at the end of the second"
        assert "done: kvctl fault kill n2" in screen_text(app)


@awaited
async def test_what_breaks_a_quorum_wants_its_name_typed() -> None:
    """The button stays off until the word is right."""
    runner = Noted(BREAKS)
    async with opened(CALM, runner=runner) as (app, pilot):
        await pilot.press("3")
        await settled(pilot)
        await pilot.press("ctrl+k")
        await settled(pilot)
        dialog = app.screen
        assert isinstance(dialog, Confirm)
        assert dialog.word == "n1"
        assert "would lose their quorum" in screen_text(app)
        button = dialog.query_one("#do", Button)
        dialog.query_one("#word", Input).focus()
        await pilot.press("n", "2", "enter")
        await settled(pilot)
        assert button.disabled
        assert runner.lines == []
        await pilot.press("backspace", "1")
        await settled(pilot)
        assert not button.disabled
        await pilot.press("enter")
        await settled(pilot)
        assert runner.lines == ["kvctl fault kill n1"]


@awaited
async def test_what_costs_data_wants_its_name_typed_whatever_the_quorum() -> None:
    """Dropping hints, wiping a disk."""
    async with opened(KILLED, runner=Noted(SAFE)) as (app, pilot):
        for line, word in (("hints drop n3", "n3"), ("kvctl fault wipe n4", "n4")):
            app.command(line)
            await settled(pilot)
            assert isinstance(app.screen, Confirm)
            assert app.screen.word == word
            await pilot.press("escape")
            await settled(pilot)


@awaited
async def test_the_target_is_that_of_the_row_the_user_saw() -> None:
    """Rows change while the question stands: it is still about the node it names."""
    view = view_of(CALM)
    runner = Noted(SAFE)
    async with opened(view, runner=runner) as (app, pilot):
        await pilot.press("3")
        await settled(pilot)
        await pilot.press("down", "down", "ctrl+k")
        await settled(pilot)
        assert isinstance(app.feed, Still)
        assert view.ring is not None
        ring = msgspec.structs.replace(view.ring, members=view.ring.members[::-1])
        app.feed.show(msgspec.structs.replace(view, rows=view.rows[::-1], ring=ring))
        await settled(pilot)
        await pilot.press("right", "enter")
        await settled(pilot)
        assert runner.lines == ["kvctl fault kill n3"]


@awaited
async def test_read_only_refuses_all_that_changes_anything_and_runs_what_reads() -> None:
    """With the command that would have been run; `y` copies it still."""
    runner = Noted(SAFE, Ran(0, "n1 up\n", ""))
    async with opened(KILLED, readonly=True, runner=runner) as (app, pilot):
        assert "READ-ONLY" in screen_text(app)
        for keys in (("3", "ctrl+k"), ("4", "d"), ("5", "r"), ("6", "H"), ("colon", *"put a b", "enter")):
            for key in keys:
                await pilot.press(key)
                await settled(pilot)
            await settled(pilot)
            assert "nothing is done" in screen_text(app), keys
        assert runner.lines == []
        await pilot.press("colon", *"status", "enter")
        await settled(pilot)
        assert runner.lines == ["kvctl status"]
        assert isinstance(app.screen, Show)


@awaited
async def test_y_copies_the_command_that_is_meant() -> None:
    """Of what is under the cursor, on each screen."""
    async with opened(KILLED) as (app, pilot):
        for number, line in (
            ("1", "kvctl fault heal f1"), ("3", "kvctl node info n1"), ("4", "kvctl hints deliver n3"),
            ("6", "kvctl fault heal f1"), ("2", "kvctl repair run --partition 0"),
        ):  # fmt: skip
            await pilot.press(number)
            await settled(pilot)
            await pilot.press("y")
            await settled(pilot)
            assert app.clipboard == line


@awaited
async def test_what_helps_is_run_from_the_first_screen() -> None:
    """`h` on the trouble under the cursor."""
    runner = Noted()
    async with opened(KILLED, runner=runner) as (app, pilot):
        await pilot.press("h")
        await settled(pilot)
        assert runner.lines == ["kvctl fault heal f1"]
        assert any(event.text == "$ kvctl fault heal f1" for event in app.journal)


@awaited
async def test_a_command_that_fails_says_why_on_the_last_line() -> None:
    """The error's own words, and what to try next."""
    error = '{"schema":"kvctl.error/v1","error":"Refused","exit":8,"message":"no","hint":"kvctl up","acked":0}'
    async with opened(KILLED, runner=Noted(SAFE, Ran(8, "", error))) as (app, pilot):
        await pilot.press("h")
        await settled(pilot)
        assert "FAILED (8): no (next: kvctl up)" in screen_text(app)


@awaited
async def test_what_cannot_be_done_is_not_asked_about() -> None:
    """The dry run says so already."""
    async with opened(CALM, runner=Noted(Preview(problem="not ours to touch"))) as (app, pilot):
        await pilot.press("3")
        await settled(pilot)
        await pilot.press("ctrl+k")
        await settled(pilot)
        assert not isinstance(app.screen, Confirm)
        assert "not ours to touch" in screen_text(app)


@awaited
async def test_a_fault_is_set_by_a_form_a_look_and_a_question() -> None:
    """What the form says becomes the command in the question."""
    runner = Noted(SAFE)
    async with opened(CALM, runner=runner) as (app, pilot):
        await pilot.press("6")
        await settled(pilot)
        await pilot.press("n")
        await settled(pilot)
        app.screen.query_one("#field-kind", Input).value = "partition"
        app.screen.query_one("#field-target", Input).value = "n1,n2"
        app.screen.query_one("#field-value", Input).value = "n3,n4,n5"
        app.screen.query_one("#field-for", Input).value = "20s"
        app.screen.query_one("#do", Button).press()
        await settled(pilot)
        assert isinstance(app.screen, Confirm)
        assert "kvctl fault partition n1,n2 n3,n4,n5 --for 20s" in screen_text(app)
        await pilot.press("right", "enter")
        await settled(pilot)
        assert runner.lines == ["kvctl fault partition n1,n2 n3,n4,n5 --for 20s"]


def test_a_form_that_makes_no_sense_says_what_is_missing() -> None:
    """Before anything is asked of a node."""
    form = {"kind": "", "target": "", "value": "", "for": ""}
    assert "a kind and a target" in str(fault_of(form))
    assert "takes no value" in str(fault_of(form | {"kind": "kill", "target": "n1", "value": "3"}))
    assert "takes a value" in str(fault_of(form | {"kind": "delay", "target": "n1"}))


def test_a_typed_line_becomes_a_command_or_says_why_not() -> None:
    """With or without `kvctl`; what would never end is refused."""
    assert parse("kvctl fault kill n3") == Action(("fault", "kill", "n3"))
    assert parse("put a 'b c'") == Action(("put", "a", "b c"))
    for line in ("", "put 'a", "events -f", "status --watch", "dashboard"):
        assert isinstance(parse(line), str), line


@pytest.mark.parametrize("verb", ASKED)
def test_every_question_names_what_will_stop(verb: tuple[str, ...]) -> None:
    """With its target in it, and no hole where a word is missing."""
    action = Action((*verb, "n3", "n4", "--for", "5s"))
    assert action.verb == verb
    assert action.asks
    assert not action.reads
    assert "n3" in action.means or verb in (("down",), ("cluster", "cancel"))
    assert "{" not in action.means


def test_flags_are_no_targets() -> None:
    """What is asked about is what the words mean, wherever the flags stand."""
    action = Action(("fault", "pause", "--for", "5s", "n2", "--name", "other"))
    assert action.target == "n2"
    assert Action(("delete", "--context", "c1.x", "--", "-k")).target == "-k"
    assert Action(("status", "--json")).reads
    assert not Action(("repair", "run")).reads


@awaited
async def test_keys_that_come_at_once_act_one_after_another() -> None:
    """A form, and a command line, are filled by what is typed without waiting for them."""
    runner = Noted(SAFE)
    async with opened(CALM, runner=runner) as (app, pilot):
        typed(app, *"6nkill", "tab", *"n3", "enter", "enter", "enter")
        await until(pilot, lambda: isinstance(app.screen, Confirm) and "kvctl fault kill n3" in screen_text(app))
        typed(app, "escape", "colon", *"node", "space", *"n2", "enter")
        await until(pilot, lambda: isinstance(app.screen, NodePage))
        typed(app, "escape", "3", "slash", *"n4", "enter", "1")
        await until(pilot, lambda: app.current_mode == "overview")
        typed(app, "minus")
        await until(pilot, lambda: app.current_mode == "nodes" and table(app, "all").keys == ("n4",))
        assert runner.lines == []
