"""Every key of the console, as data: the bindings, the help and the user's own keys are made of it.

Promises: a key has an id that `keys.toml` can name, and one line that says what it does. Never: a key that
only code knows.

    KVCTL_HOME/keys.toml      heal_all = "ctrl+h"      another key for an id of this file
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct
from textual.binding import Binding, BindingType

from kvctl.errors import Invalid


class Key(Struct, frozen=True):
    """A key, what it does, and what it is called."""

    id: str
    keys: str
    action: str
    label: str
    about: str
    show: bool = False
    """Whether it is on the bottom line, or in the help alone."""
    shown_as: str = ""


class Place(Struct, frozen=True):
    """A screen, and how to get there."""

    number: str
    name: str
    about: str


PLACES = (
    Place("1", "overview", "can I read and write now, what is broken, when does it heal"),
    Place("2", "ring", "partitions as cells: owner, live replicas, margin"),
    Place("3", "nodes", "every node, and who sees whom"),
    Place("4", "hints", "writes kept for owners that could not take them"),
    Place("5", "repair", "hash trees walked, copies made equal"),
    Place("6", "faults", "what is broken on purpose; break and heal"),
    Place("7", "events", "what happened, on all nodes"),
    Place("8", "plots", "latency, throughput, errors, hints, beside faults"),
    Place("9", "keys", "search, and one key with each replica's versions"),
    Place("0", "plan", "stage changes of members, look, commit, watch the transfers"),
)

APP_KEYS = (
    *(Key(f"go_{p.name}", p.number, f"go('{p.name}')", p.name.capitalize(), p.about) for p in PLACES),
    Key("command", "colon", "prompt('command')", "Command", "a screen by name, or any kvctl command", True, ":"),
    Key("filter", "slash", "prompt('filter')", "Filter", "show only rows with this; !text: the others", True, "/"),
    Key("help", "question_mark", "help", "Help", "these keys", True, "?"),
    Key("back", "escape", "leave", "Back", "end the filter, or leave this page"),
    Key("last", "minus", "last", "Last", "the screen before this one", False, "-"),
    Key("copy", "y", "copy", "Copy", "copy what is under the cursor as a kvctl command", True),
    Key("hold", "space", "hold", "Pause", "let the screen stand still, or go on"),
    Key("palette", "ctrl+p", "command_palette", "Palette", "every screen and action, by name"),
    Key("quit_console", "q", "quit", "Quit", "leave; nothing is stopped or healed by that", True),
)

REPLAY_KEYS = (
    Key("step_on", "full_stop", "replay('step', 1)", "Step", "one sample on", shown_as="."),
    Key("step_back", "comma", "replay('step', -1)", "Step back", "one sample back", shown_as=","),
    Key(
        "jump_on", "right_square_bracket", "replay('jump', 1)", "Next", "where the next fault begins", shown_as="]"
    ),
    Key(
        "jump_back",
        "left_square_bracket",
        "replay('jump', -1)",
        "Last",
        "where the last fault began",
        shown_as="[",
    ),
    Key("seek_on", "right_curly_bracket", "replay('seek_s', 10)", "On", "ten seconds on", shown_as="}"),
    Key("seek_back", "left_curly_bracket", "replay('seek_s', -10)", "Back", "ten seconds back", shown_as="{"),
    Key("faster", "greater_than_sign", "replay('faster', 1)", "Faster", "up to 60 times", shown_as=">"),
    Key("slower", "less_than_sign", "replay('faster', -1)", "Slower", "down to a quarter", shown_as="<"),
)

TABLE_KEYS = (
    Key("up", "up,k", "move(-1)", "Up", "a row up"),
    Key("down", "down,j", "move(1)", "Down", "a row down"),
    Key("page_up", "pageup,ctrl+b", "page(-1)", "Page up", "a page up"),
    Key("page_down", "pagedown,ctrl+f", "page(1)", "Page down", "a page down"),
    Key("top", "home,g", "end(-1)", "First", "to the first row"),
    Key("bottom", "end,G", "end(1)", "Last", "to the last row"),
    Key("open", "enter", "open", "Open", "look at what is under the cursor", True),
    Key("sort", "s", "sort", "Sort", "sort by the next column (a click on its title does it too)"),
    Key("reverse", "S", "reverse", "Reverse", "sort the other way round"),
)

PROMPT_KEYS = (
    Key("prompt_done", "enter", "submit", "Done", "run what stands there, or keep the filter", True),
    Key("prompt_end", "escape", "app.leave", "Back", "as if nothing had been typed", True),
)

PANE_KEYS = (
    Key("scroll_up", "up,k", "scroll_by(-1)", "Up", "a line up"),
    Key("scroll_down", "down,j", "scroll_by(1)", "Down", "a line down"),
)


def bindings(keys: Iterable[Key]) -> list[BindingType]:
    """As Textual takes them."""
    return [
        Binding(
            key.keys, key.action, key.label, show=key.show, key_display=key.shown_as or None, tooltip=key.about,
            id=key.id,
        )
        for key in keys
    ]  # fmt: skip


def read_keymap(path: Path, known: Iterable[str]) -> dict[str, str]:
    """The user's own keys. Raises `Invalid`; empty where there is no such file."""
    try:
        table = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise Invalid(f"cannot read {path}: {error}") from error
    names = set(known)
    for name, key in table.items():
        if name not in names:
            raise Invalid(f"{path}: there is no key {name!r} to set; there are {', '.join(sorted(names))}")
        if not isinstance(key, str) or not key:
            raise Invalid(f'{path}: {name} must be a key such as "ctrl+h"')
    return {name: str(key) for name, key in table.items()}
