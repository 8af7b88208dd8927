"""The console in tests: a feed that stands still, a runner that notes what it was told to run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import cache, wraps
from pathlib import Path

from textual.events import Key
from textual.pilot import Pilot

from kvctl.console.actions import Action, Preview, Ran, Runner
from kvctl.console.app import Console
from kvctl.console.record import Recording
from kvctl.console.replay import Replay
from kvctl.console.view import ClusterView
from kvctl.console.widgets.table import KeyTable

STORY = Path(__file__).parent / "story.kvrec"
CALM, SPLIT, KILLED, DRAINING = 8, 22, 50, 57
"""Samples of the story: all is well; a partition; n3 is dead and hints for it grow; it is back and they go."""


QUIET_TURNS = 5
"""Turns of the loop in a row in which nobody had anything to do."""


def awaited(test: Callable[..., Coroutine[None, None, None]]) -> Callable[..., None]:
    """A test that awaits, as pytest calls it."""

    @wraps(test)
    def run(*args: object, **named: object) -> None:
        asyncio.run(test(*args, **named))

    return run


@cache
def view_of(index: int) -> ClusterView:
    """The view of a sample of the story."""
    return Replay(Recording(STORY), playing=False).view_at(index)


class Still:
    """A feed that shows what a test gives it, at a time that stands still."""

    replay: Replay | None = None
    notice = ""
    recording = ""

    def __init__(self, view: ClusterView, age_ms: int = 400) -> None:
        self.view, self.age_ms = view, age_ms
        self.looked = 0
        self._post: Callable[[ClusterView], None] = lambda view: None

    def start(self, post: Callable[[ClusterView], None]) -> None:
        """Show the first one."""
        self._post = post
        post(self.view)

    def show(self, view: ClusterView) -> None:
        """Show another one."""
        self.view = view
        self._post(view)

    def stop(self) -> None:
        """Nothing runs."""

    def now_ms(self) -> int:
        """A little later than the view."""
        return self.view.at_ms + self.age_ms

    def look_now(self) -> None:
        """Count it."""
        self.looked += 1


class Noted(Runner):
    """Runs nothing: notes the commands, and answers as it was told to."""

    def __init__(self, preview: Preview | None = None, ran: Ran | None = None) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.seen = preview or Preview()
        self.ran = ran or Ran(0, "", "")

    async def run(self, action: Action, *flags: str) -> Ran:
        """Note it."""
        self.lines.append(action.line)
        return self.ran

    async def preview(self, action: Action) -> Preview:
        """As told."""
        return self.seen

    async def carry_out(self, action: Action) -> Ran:
        """Note it, with the yes that it would get."""
        return await self.run(action)


@asynccontextmanager
async def opened(
    view: ClusterView | int = CALM, size: tuple[int, int] = (120, 36), *, readonly: bool = False,
    runner: Runner | None = None,
) -> AsyncIterator[tuple[Console, Pilot[None]]]:  # fmt: skip
    """The console, open on a view that stands still."""
    feed = Still(view_of(view) if isinstance(view, int) else view)
    app = Console(feed, readonly=readonly, runner=runner or Noted())
    async with app.run_test(size=size) as pilot:
        await settled(pilot)
        yield app, pilot


def screen_text(app: Console) -> str:
    """What is on the screen, as text."""
    return "\n".join("".join(segment.text for segment in line) for line in app.screen._compositor.render_strips())


def table(app: Console, name: str) -> KeyTable:
    """A table of the screen on top."""
    return app.screen.query_one(f"#{name}", KeyTable)


def typed(app: Console, *keys: str) -> None:
    """Keys that come in one piece, as of a paste or over a slow line: nobody waits between them."""
    for key in keys:
        character = {"colon": ":", "space": " ", "slash": "/"}.get(key, key)
        app.post_message(Key(key, character if len(character) == 1 else None))


async def settled(pilot: Pilot[None], seconds: float = 10.0) -> None:
    """Wait until all that was begun is done and painted: the loop has nothing left but timers and the world."""
    loop, app = asyncio.get_running_loop(), pilot.app
    end = time.monotonic() + seconds
    quiet = 0
    while quiet < QUIET_TURNS:
        assert time.monotonic() < end and app._exception is None, "it never rests"
        if app.animator._animations or app.animator._scheduled:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0)
        app.screen._on_timer_update()  # what would be painted at the next sixtieth of a second
        quiet = 0 if loop._ready else quiet + 1  # type: ignore[attr-defined]


async def until(pilot: Pilot[None], true: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for it."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited for in vain"
        await pilot.pause(0.02)
