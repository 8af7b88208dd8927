"""What every screen of the console has: the status lines above, its own body, the prompt and the keys below.

Promises: on entering, no input has the focus; the status lines tell the age of what is shown, on every screen;
a screen that is not on top is not drawn. Never: asks a node.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, cast

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Input

from kvctl.console.actions import Action
from kvctl.console.keymap import PROMPT_KEYS, bindings
from kvctl.console.status import status_lines
from kvctl.console.view import ClusterView
from kvctl.console.widgets.foot import Foot
from kvctl.console.widgets.keybar import KeyBar
from kvctl.console.widgets.pane import Text
from kvctl.console.widgets.table import KeyTable

if TYPE_CHECKING:
    from kvctl.console.app import Console


class Prompt(Input):
    """The line for commands and filters: hidden until it is asked for."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(PROMPT_KEYS)

    def __init__(self) -> None:
        super().__init__(id="prompt", compact=True)
        self.kind = ""

    def ask(self, kind: str, value: str = "") -> None:
        """Take the focus, for a `command` or a `filter`."""
        self.kind = kind
        self.value = value
        self.placeholder = (
            ": a screen, or any kvctl command" if kind == "command" else "/ rows with this; !text: without"
        )
        self.add_class("asked")
        self.focus()

    def end(self) -> None:
        """Hide again."""
        self.kind = ""
        self.remove_class("asked")


class Page(Screen[None]):
    """A screen."""

    NAME: ClassVar[str] = ""
    FOCUS: ClassVar[str] = ""
    """The widget that keys go to on entering."""
    HORIZONTAL_BREAKPOINTS = [(0, "-tiny"), (60, "-narrow"), (110, "-wide")]  # noqa: RUF012 -- Textual's own name
    VERTICAL_BREAKPOINTS = [(0, "-low"), (20, "-short"), (30, "-tall")]  # noqa: RUF012
    AUTO_FOCUS = ""
    _ready = False

    @property
    def board(self) -> Console:
        """The application."""
        return cast("Console", self.app)

    def compose(self) -> ComposeResult:
        """Status, body, prompt, keys."""
        yield Text(id="status")
        yield from self.body()
        yield Foot()
        yield Prompt()
        yield KeyBar()

    def body(self) -> Iterable[Widget]:
        """What is between."""
        raise NotImplementedError

    def show(self, view: ClusterView, now_ms: int) -> None:
        """This is the cluster now."""
        raise NotImplementedError

    def subject(self) -> Action | None:
        """What `y` copies: the command that shows or changes what is under the cursor."""
        return None

    # ---- what all do -----------------------------------------------------------------------

    def on_mount(self) -> None:
        """Shown at once with what is known. Pages call this last: all of theirs is there then."""
        self._ready = True
        self.take_focus()
        self.renew()

    def on_screen_resume(self) -> None:
        """On top again: what came meanwhile is shown."""
        self.renew()

    def on_resize(self) -> None:
        """Another size: the status lines are made for it."""
        self.renew()

    def take_focus(self) -> None:
        """Keys go to the body."""
        found = self.query(self.FOCUS) if self.FOCUS else self.query(KeyTable)
        for widget in found:
            if widget.focusable and widget.display:
                widget.focus()
                return
        self.set_focus(None)

    def renew(self) -> None:
        """Show the newest view; called each second, on top only."""
        if not self._ready or not self.is_current:
            return  # a view may come while the widgets are being made
        view, now_ms = self.board.view, self.board.now_ms()
        with self.app.batch_update():
            self.query_one("#status", Text).show(status_lines(self.board.state, view, now_ms, self.size.width))
            self.query_one(Foot).show(self.board.last_line, self.board.current_mode)
            self.show(view, now_ms)

    def on_foot_chosen(self, event: Foot.Chosen) -> None:
        """A click on the name of a screen."""
        self.board.action_go(event.name)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """What was typed in the prompt."""
        if event.input.id != "prompt":
            return
        prompt = self.query_one(Prompt)
        kind, text = prompt.kind, event.value.strip()
        prompt.end()
        self.take_focus()
        if kind == "command" and text:
            self.board.command(text)

    def on_input_changed(self, event: Input.Changed) -> None:
        """A filter works as it is typed."""
        if event.input.id == "prompt" and self.query_one(Prompt).kind == "filter":
            self.filter(event.value.strip())

    def filter(self, text: str) -> None:
        """Show only what has this in it."""
        for table in self.query(KeyTable):
            table.filter(text)

    def end_prompt(self) -> bool:
        """Hide the prompt, or end the filter. False when there was neither."""
        prompt = self.query_one(Prompt)
        if prompt.kind:
            if prompt.kind == "filter":
                self.filter("")
            prompt.end()
            self.take_focus()
            return True
        filtered = [table for table in self.query(KeyTable) if table.filter_text]
        for table in filtered:
            table.filter("")
        return bool(filtered)
