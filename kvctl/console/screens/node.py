"""One node: what it says of itself, how it sees the others, its last minutes, its log.

Promises: where its log cannot be read, the events of it and about it are shown instead. Never: reads a log that
is not of this machine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

from textual.binding import BindingType
from textual.containers import Horizontal
from textual.widget import Widget

from kvctl.console.actions import Action
from kvctl.console.facts import fact_lines, figure_lines, sight_lines
from kvctl.console.keymap import Key, bindings
from kvctl.console.page import Page
from kvctl.console.telling import event_line
from kvctl.console.view import ClusterView
from kvctl.console.widgets.pane import Pane
from kvctl.console.widgets.tones import Line
from kvctl.output import show
from kvnode.protocol.messages import Event

LOG_BYTES = 16_384
LOG_LINES = 60
LEVELS = {"WARNING": "warn", "ERROR": "bad", "CRITICAL": "bad"}
ACTS = (
    Key("kill", "ctrl+k", "act('kill')", "Kill", "SIGKILL this node (asks first)", True),
    Key("pause_node", "P", "act('pause')", "Hold", "SIGSTOP it for ten seconds (asks first)"),
    Key("stop_node", "T", "act('stop')", "Stop", "SIGTERM it (asks first)"),
    Key("restart", "R", "act('restart')", "Restart", "stop and start it (asks first), or start it", True),
)


class NodePage(Page):
    """One node."""

    NAME = "node"
    FOCUS = "#log"
    BINDINGS: ClassVar[list[BindingType]] = bindings(ACTS)

    def __init__(self, node: str) -> None:
        super().__init__()
        self.node = node

    def body(self) -> Iterable[Widget]:
        """What it is, what it does, what it logged."""
        with Horizontal(id="halves"):
            yield Pane(id="facts")
            yield Pane(id="figures")
        yield Pane(id="log")

    def on_mount(self) -> None:
        """Titles."""
        self.query_one("#facts").border_title = f"Node {show(self.node)}".replace("[", "\\[")
        self.query_one("#figures").border_title = "Lately"
        log = self.query_one("#log", Pane)
        log.border_title = "Events" if self.board.cluster is None else "Log"
        log.following = True
        super().on_mount()

    def show(self, view: ClusterView, now_ms: int) -> None:
        """All of it."""
        row = view.row(self.node)
        facts, figures = self.query_one("#facts", Pane), self.query_one("#figures", Pane)
        gone: list[Line] = [((f"{self.node} is no member of the ring any more", "warn"),)]
        facts.show(gone if row is None else fact_lines(row, now_ms, facts.room))
        told = [] if row is None else [*figure_lines(view, row, figures.room), *sight_lines(row, figures.room)]
        figures.show(told)
        self.query_one("#log", Pane).show(self._log())

    def _log(self) -> Sequence[Line]:
        cluster = self.board.cluster
        if cluster is None:
            about = events_about(self.node, self.board.happened())[-LOG_LINES:]
            return [event_line(event) for event in about] or [(("nothing has happened", "dim"),)]
        return log_lines(tail(cluster.directory(self.node) / "log"))

    def subject(self) -> Action:
        """This node."""
        return Action(("node", "info", self.node))

    def action_act(self, kind: str) -> None:
        """Break or mend it."""
        self.board.act(Action(("fault", kind, self.node)))


def events_about(node: str, events: Sequence[Event]) -> list[Event]:
    """Those that it told, and those that name it."""
    named = re.compile(rf"(?<![\w-]){re.escape(node)}(?![\w-])")
    return [event for event in events if event.node == node or named.search(event.text)]


def tail(path: Path) -> list[str]:
    """The last lines of a file; none where there is none."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, 2)
            file.seek(max(0, end - LOG_BYTES))
            raw = file.read()
    except OSError:
        return []
    lines = raw.decode("utf-8", "surrogateescape").splitlines()
    return lines[-LOG_LINES:] if end <= LOG_BYTES else lines[1:][-LOG_LINES:]


def log_lines(lines: Sequence[str]) -> list[Line]:
    """JSON lines of a log for people; what is none is shown as it is."""
    found: list[Line] = []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict):
            found.append((line,))
            continue
        level = str(entry.get("level", ""))
        found.append((
            (f"{str(entry.get('at', ''))[11:19]} ", "dim"), (f"{level:<8}", LEVELS.get(level.upper(), "dim")),
            (f"{entry.get('kind', '')!s:<10} ", "accent"), str(entry.get("text", "")),
        ))  # fmt: skip
    return found or [(("it logged nothing", "dim"),)]
