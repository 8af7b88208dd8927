"""The application: one view, ten screens, one way to act.

Promises: views come from the feed's thread by message and are shown on the screen on top; a command is run as
one and its outcome shown; `q` quits from anywhere. Never: blocks on a node; acts when it is read-only.

    Feed ─► Seen(view) ─► screen on top                  key ─► Action ─► asked ─► kvctl ... ─► last line
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, ClassVar

from textual import events, work
from textual.app import App, ScreenStackError, SystemCommand
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.screen import Screen
from textual.theme import Theme

from kvctl.console import keymap
from kvctl.console.actions import DESTROYS, Action, Runner, error_of, parse
from kvctl.console.asking import Asker, Mute
from kvctl.console.feeds import Feed
from kvctl.console.helping import help_lines
from kvctl.console.page import Page, Prompt
from kvctl.console.screens import SCREENS
from kvctl.console.screens.key import KeyPage
from kvctl.console.screens.node import NodePage
from kvctl.console.status import State
from kvctl.console.turns import Turns
from kvctl.console.view import ClusterView
from kvctl.console.widgets.dialogs import Confirm, Show
from kvctl.console.widgets.tones import Line, clean
from kvctl.endpoints import home
from kvctl.errors import Invalid
from kvnode.protocol.messages import Event
from kvnode.protocol.types import NodeId

if TYPE_CHECKING:
    from kvctl.console.touring import Tour
    from kvctl.local import Cluster

TICK_S = 1.0
QUIET_MS = 1_400
SAID_S = 15.0
"""How long what was said stays on the last line."""
NIGHT = Theme(
    name="kvctl", dark=True, primary="#5fafff", secondary="#5fd7d7", accent="#d7afff", success="#87d787",
    warning="#ffc66d", error="#ff6b6b", foreground="#d8dee9", background="#0f1419", surface="#161c24",
    panel="#1d2530",
)  # fmt: skip
LAST_LINES = 200


def settle() -> None:
    """What stands with the first screen will stand to the end: the collector need not look at it again.

    It stopped everything for 110 ms now and then, in the middle of a key.
    """
    gc.freeze()
    gc.enable()


class Seen(Message):
    """A new view has come."""

    def __init__(self, view: ClusterView) -> None:
        super().__init__()
        self.view = view

    def can_replace(self, message: Message) -> bool:
        """Only the newest matters."""
        return isinstance(message, Seen)


class Console(App[None]):
    """The console."""

    TITLE = "kvctl"
    CSS_PATH = "console.tcss"
    ENABLE_COMMAND_PALETTE = True
    BINDINGS: ClassVar[list[BindingType]] = keymap.bindings(keymap.APP_KEYS)
    MODES: ClassVar = {name: screen for name, screen in SCREENS.items()}  # noqa: C416 -- a type of its own
    DEFAULT_MODE = "overview"

    def __init__(
        self,
        feed: Feed,
        *,
        readonly: bool = False,
        runner: Runner | None = None,
        asker: Asker | None = None,
        cluster: Cluster | None = None,
        tour: Tour | None = None,
    ) -> None:
        """`runner` runs commands, `asker` asks for keys; `cluster`: the local one, for its logs; `tour`: the
        story being told meanwhile."""
        super().__init__()
        self.feed = feed
        self.runner = runner or Runner()
        self.cluster = cluster
        self.tour = tour
        self.asker = asker or Mute()
        self.view = ClusterView()
        self.state = State(readonly=readonly or feed.replay is not None)
        self.state.recording, self.state.since_ms = feed.recording, feed.now_ms()
        self._said: Line = ()
        self._said_until = 0.0
        self._noted = 0
        self.journal: list[Event] = []
        """The commands that were run, as events."""
        self.last_fault: Action | None = None
        self._before = ""
        self._turns = Turns(self, super().on_event)
        self.crash: Exception | None = None
        """What ended it, if it was a bug."""
        if feed.replay is not None:
            for key in keymap.REPLAY_KEYS:
                self.bind(key.keys, key.action, description=key.label, show=False, key_display=key.shown_as)

    def on_mount(self) -> None:
        """Keys, quiet over SSH, and the first look."""
        self.register_theme(NIGHT)
        self.theme = NIGHT.name
        if os.environ.get("SSH_CONNECTION") or os.environ.get("SSH_TTY") or self.is_web:
            self.animation_level = "none"
        try:
            self.set_keymap(keymap.read_keymap(home() / "keys.toml", self.key_ids()))
        except Invalid as error:
            self.tell(error.message, "bad")
        self.feed.start(self._take)
        self.set_interval(TICK_S, self._tick)
        if not self.is_headless:
            self.call_after_refresh(settle)

    def on_unmount(self) -> None:
        """Leave nothing running."""
        self.runner.interrupt()
        self.feed.stop()

    def _handle_exception(self, error: Exception) -> None:
        """A bug: the terminal is given back, and whoever ran us tells of it, without a traceback."""
        if self.is_headless:
            super()._handle_exception(error)
        else:
            self.crash = error
            self.exit(return_code=1)

    def _take(self, view: ClusterView) -> None:
        """From the feed's thread."""
        self.post_message(Seen(view))

    def key_ids(self) -> set[str]:
        """The keys that can be set: of all screens."""
        owners: list[type] = [Console, *SCREENS.values()]
        found = {key.id for key in (*keymap.TABLE_KEYS, *keymap.PANE_KEYS, *keymap.REPLAY_KEYS)}
        return found | {
            b.id for o in owners for b in vars(o).get("BINDINGS", ()) if isinstance(b, Binding) and b.id
        }

    # ---- views -----------------------------------------------------------------------------

    def now_ms(self) -> int:
        """The time ages are told by."""
        return self.feed.now_ms()

    def on_seen(self, message: Seen) -> None:
        """Show it, unless the screen stands still."""
        self.state.notice = self.feed.notice
        self._listen()
        if not self.state.held or self.feed.replay is not None:
            self.view = message.view
        self._renew()

    def _tick(self) -> None:
        """Ages grow also when nothing comes; while views come, they do it."""
        if self.now_ms() - self.view.at_ms > QUIET_MS:
            self._renew()

    def _renew(self) -> None:
        self.state.position = self.feed.replay.position if self.feed.replay is not None else None
        self.state.recording = self.feed.recording
        try:
            screen = self.screen
        except ScreenStackError:
            return  # a view that came before the first screen, or after the last
        if isinstance(screen, Page):
            screen.renew()

    def tell(self, text: str, tone: str = "plain", seconds: float = SAID_S) -> None:
        """Say something on the last line, for so long."""
        self._said, self._said_until = (" ", (text, tone)), monotonic() + seconds
        self._renew()

    @property
    def last_line(self) -> Line:
        """What was said last, if that was just now."""
        return self._said if monotonic() < self._said_until else ()

    def note(self, text: str, node: str = "console", kind: str = "command") -> None:
        """What is done or told from here is an event as well."""
        self._noted += 1
        event = Event(self._noted, self.now_ms(), NodeId(node), kind, text)
        self.journal = [*self.journal, event][-LAST_LINES:]

    def happened(self) -> list[Event]:
        """On the nodes, and here, in the order of time."""
        if not self.journal:
            return list(self.view.events)
        return sorted((*self.view.events, *self.journal), key=lambda e: (e.wall_ms, e.node, e.number))

    def _listen(self) -> None:
        """What the story being told has to say."""
        if self.tour is None:
            return
        for line in self.tour.news():
            self.note(line, "demo", "story")
            self.tell(line, "accent", inf)
        if self.tour.over:
            self.state.notice = "the story is over, and its cluster gone: q leaves, and prints it"

    async def on_event(self, event: events.Event) -> None:
        """Keys, each in its turn; all else as it comes."""
        if isinstance(event, events.Key) and not event.is_forwarded:
            await self._turns.take(event)
        else:
            await super().on_event(event)

    # ---- going about -----------------------------------------------------------------------

    def action_go(self, name: str) -> None:
        """To a screen."""
        if self.current_mode != name:
            self._before = self.current_mode
            self.switch_mode(name)

    def action_last(self) -> None:
        """To the one before."""
        if self._before:
            self.action_go(self._before)

    def action_leave(self) -> None:
        """Out of a prompt, a filter, a page of one thing."""
        screen = self.screen
        if isinstance(screen, Page) and screen.end_prompt():
            return
        if len(self.screen_stack) > 1:
            self.pop_screen()

    def action_prompt(self, kind: str) -> None:
        """Ask for a command or a filter."""
        if isinstance(self.screen, Page):
            self.screen.query_one(Prompt).ask(kind)

    def action_help(self) -> None:
        """The keys of this screen."""
        if isinstance(self.screen, Page):
            self.push_screen(Show("Keys", help_lines(self.screen, min(self.size.width - 4, 106))))

    def action_hold(self) -> None:
        """Let it stand still, or go on."""
        if self.feed.replay is not None:
            self.feed.replay.toggle()
        else:
            self.state.held = not self.state.held
        self._renew()

    def action_replay(self, what: str, by: float) -> None:
        """At the controls of a replay."""
        if self.feed.replay is not None:
            getattr(self.feed.replay, what)(by)

    def action_copy(self) -> None:
        """What is under the cursor, as a command."""
        subject = self.screen.subject() if isinstance(self.screen, Page) else None
        if subject is not None:
            self.copy_to_clipboard(subject.line)
            self.tell(f"copied: {subject.line}", "accent")

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """The palette: screens first."""
        for place in keymap.PLACES:
            title = f"{place.name.capitalize()} ({place.number})"
            yield SystemCommand(title, place.about, lambda name=place.name: self.action_go(name))
        there = {f"go('{place.name}')" for place in keymap.PLACES} | {"command_palette"}
        for active in screen.active_bindings.values():
            binding = active.binding
            if active.enabled and binding.id and active.node in (screen, self) and binding.action not in there:
                title = f"{binding.description} ({self.get_key_display(binding)})"
                yield SystemCommand(title, binding.tooltip, lambda key=binding.key: self.simulate_key(key))
        yield from (command for command in super().get_system_commands(screen) if command.title == "Theme")

    def command(self, text: str) -> None:
        """What was typed after a colon."""
        word, _, rest = text.partition(" ")
        if word in ("q", "quit", "exit"):
            self.exit()
        elif word in SCREENS and not rest:
            self.action_go(word)
        elif word in SCREENS and rest.startswith("/"):
            self.action_go(word)
            self.call_after_refresh(self._filter, rest[1:])
        elif word == "key" and rest:
            self.push_screen(KeyPage(rest.encode("utf-8", "surrogateescape")))
        elif word == "node" and rest and self.view.row(rest) is not None:
            self.push_screen(NodePage(rest))
        elif word == "help":
            self.action_help()
        else:
            action = parse(text)
            if isinstance(action, str):
                self.tell(action, "bad")
            else:
                self.act(action, show=True)

    def _filter(self, text: str) -> None:
        if isinstance(self.screen, Page):
            self.screen.filter(text)

    # ---- acting ----------------------------------------------------------------------------

    @work(group="act")
    async def act(self, action: Action, *, show: bool = False) -> None:
        """Run a command: asked about, if it must be; its outcome is told, and with `show` all it printed."""
        if self.state.readonly and (not action.reads or self.feed.replay is not None):
            why = "a replay" if self.feed.replay is not None else "read-only"
            self.tell(f"this is {why}, nothing is done: {action.line}", "warn")
            return
        if action.asks and not await self.asked(action):
            return
        self.tell(f"$ {action.line} ...", "accent")
        self.note(f"$ {action.line}")
        if action.reads:
            ran = await self.runner.run(action, "-o", "table")
        else:
            ran = await self.runner.carry_out(action)
        self.feed.look_now()
        if ran.code and not (show and ran.out):
            self.tell(f"FAILED ({ran.code}): {error_of(ran)}", "bad")
            return
        self.tell(f"done: {action.line}", "good")
        if show and ran.out.strip():
            lines = [(clean(line),) for line in (*ran.out.splitlines(), *ran.error.splitlines())]
            await self.push_screen(Show(action.line, lines))

    async def asked(self, action: Action) -> bool:
        """Whether it is to be done: the user says so, knowing what it breaks."""
        self.tell(f"looking what it would break: {action.line}", "dim")
        seen = await self.runner.preview(action)
        if seen.problem:
            self.tell(f"cannot be done: {seen.problem}", "bad")
            return False
        risky = seen.breaks_quorum or action.verb in DESTROYS
        details = [*(f"! {risk}" for risk in seen.risks), *([seen.margin] if seen.margin else ())]
        dialog = Confirm(action.means, details, action.line, action.target if risky else "")
        agreed = await self.push_screen_wait(dialog)
        if not agreed:
            self.tell(f"not done: {action.line}", "dim")
        return agreed
