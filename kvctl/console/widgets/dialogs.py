"""What lies over a screen for a moment: a question, a form, some text.

Promises: Cancel has the focus where something would be destroyed; escape always cancels; where a word must be
typed, nothing else confirms; everything fits 60 columns and scrolls below. Never: acts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, TypeVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Label, Static

from kvctl.console.keymap import Key, bindings
from kvctl.console.widgets.pane import Pane
from kvctl.console.widgets.tones import Line, clean

Answer = TypeVar("Answer")
DIALOG_KEYS = (
    Key("cancel", "escape", "cancel", "Cancel", "leave it as it is", True),
    Key("dialog_next", "right,down", "app.focus_next", "Next", "to the next button"),
    Key("dialog_previous", "left,up", "app.focus_previous", "Previous", "to the one before"),
)
QUIT = Key("quit_console", "q", "app.quit", "Quit", "leave; nothing is stopped or healed by that")
TEXT_KEYS = (Key("close", "escape,enter", "close", "Close", "back to the screen", True), QUIT)


def said(text: str, classes: str = "") -> Static:
    """Text as it is: harmless, and no markup."""
    return Static(Content(clean(text)), classes=classes)


class Dialog(ModalScreen[Answer]):
    """Text that scrolls over what stays in sight: a field, the buttons."""

    BELOW = 4
    """Lines of the frame, and of what stays in sight."""

    def on_resize(self) -> None:
        """The text has the rest, however little that is."""
        self.query_one(VerticalScroll).styles.max_height = max(1, self.app.size.height - self.BELOW)


class Confirm(Dialog[bool]):
    """Do this? Dismissed with the answer."""

    BINDINGS: ClassVar[list[BindingType]] = bindings((*DIALOG_KEYS, QUIT))

    def __init__(self, means: str, details: Sequence[str], command: str, word: str = "") -> None:
        """`word`: what must be typed; empty where the button is enough."""
        super().__init__()
        self._means, self._details, self._command, self.word = means, tuple(details), command, word
        self.BELOW = Dialog.BELOW + 3 if word else Dialog.BELOW

    def compose(self) -> ComposeResult:
        """The question."""
        with Vertical(id="dialog", classes="danger"):
            with VerticalScroll(can_focus=False):
                yield said(self._means, "means")
                for detail in self._details:
                    yield said(detail, "detail")
                yield said(f"$ {self._command}", "command")
            if self.word:
                yield said(f"Type {self.word} to do it:", "ask")
                yield Input(id="word", placeholder=clean(self.word), compact=True)
            with Horizontal(id="buttons"):
                yield Button("Cancel", id="cancel", compact=True)
                yield Button("Do it", id="do", compact=True, disabled=bool(self.word))

    def on_mount(self) -> None:
        """Cancel is what enter does."""
        self.query_one("#dialog").border_title = "Are you sure?"
        self.query_one("#cancel").focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """The button works once the word stands there."""
        self.query_one("#do", Button).disabled = event.value != self.word

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter in the field confirms, if the word is right."""
        if event.value == self.word:
            self.dismiss(True)

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """The answer."""
        self.dismiss(event.button.id == "do")

    def action_cancel(self) -> None:
        """No."""
        self.dismiss(False)


class Show(ModalScreen[None]):
    """Text to read."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(TEXT_KEYS)

    def __init__(self, title: str, lines: Sequence[Line]) -> None:
        super().__init__()
        self._title, self._lines = title, tuple(lines)

    def compose(self) -> ComposeResult:
        """The text."""
        with Vertical(id="dialog", classes="wide"):
            yield Pane(id="text")

    def on_mount(self) -> None:
        """It can be scrolled."""
        self.query_one("#dialog").border_title = Content(clean(self._title))
        self.query_one("#dialog").border_subtitle = "esc"
        pane = self.query_one(Pane)
        pane.show(self._lines)
        pane.styles.height = min(len(self._lines), max(4, self.app.size.height - 4))
        pane.focus()

    def action_close(self) -> None:
        """Back."""
        self.dismiss(None)


class Field(Input):
    """One line of a form."""


class Form(Dialog["dict[str, str] | None"]):
    """Some fields. Dismissed with their values, or None."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(DIALOG_KEYS[:1])

    def __init__(self, title: str, fields: Sequence[tuple[str, str, str]], action: str = "Go on") -> None:
        """`fields`: (name, value, what it is)."""
        super().__init__()
        self._title, self._fields, self._action = title, tuple(fields), action

    def compose(self) -> ComposeResult:
        """The fields."""
        with Vertical(id="dialog"):
            with VerticalScroll(can_focus=False):
                for name, value, about in self._fields:
                    with Horizontal(classes="field"):
                        yield Label(Content(clean(f"{name}:")))
                        yield Field(value, id=f"field-{name}", compact=True)
                    yield said(about, "about")
            with Horizontal(id="buttons"):
                yield Button("Cancel", id="cancel", compact=True)
                yield Button(self._action, id="do", compact=True)

    def on_mount(self) -> None:
        """The first field is where one begins."""
        self.query_one("#dialog").border_title = Content(clean(self._title))
        self.set_focus(self.query(Field).first())  # now: keys that come before the next turn are for it

    def on_input_submitted(self) -> None:
        """Enter goes on to the next field, and at the end sends the form."""
        fields = list(self.query(Field))
        at = next((i for i, field in enumerate(fields) if field.has_focus), len(fields) - 1)
        if at + 1 < len(fields):
            fields[at + 1].focus()
        else:
            self._send()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Send it, or not."""
        if event.button.id == "do":
            self._send()
        else:
            self.dismiss(None)

    def _send(self) -> None:
        self.dismiss({name: self.query_one(f"#field-{name}", Field).value for name, _, _ in self._fields})

    def action_cancel(self) -> None:
        """No."""
        self.dismiss(None)
