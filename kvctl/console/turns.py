"""Keys take turns: the next one acts on what the one before it has made.

Textual forwards a key to the widget that has the focus at that moment, and lets it bubble from queue to queue
until somebody acts on it. Keys that come in one piece (a paste, a fast hand, a slow line) so go to the widget
that had the focus before the first of them was acted on: `:faults` typed at once would be eight commands.

Promises: keys are forwarded in their order, each after all that the one before it caused on its way. Never:
keeps a key for longer than `TURN_S`, whatever became of the widget the one before it went to.

    key ─► focused ─► ... ─► screen ─► app        a mark follows it from queue to queue, twice; then the next
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from textual import events
from textual.message_pump import MessagePump

if TYPE_CHECKING:
    from textual.app import App
    from textual.timer import Timer

TURN_S = 0.25
TRIPS = 2
"""Once behind the key; once behind what it was answered with (a submitted line, a screen that was pushed)."""


class Turns:
    """Keys on their way to a widget, one at a time."""

    def __init__(self, app: App[None], forward: Callable[[events.Key], Awaitable[None]]) -> None:
        self._app, self._forward = app, forward
        self._waiting: deque[events.Key] = deque()
        self._busy = False
        self._turn = 0
        self._limit: Timer | None = None

    async def take(self, key: events.Key) -> None:
        """Forward it: now, or when its turn comes."""
        self._waiting.append(key)
        if not self._busy:
            await self._next()

    async def _next(self) -> None:
        if self._limit is not None:
            self._limit.stop()
        if not self._waiting:
            self._busy = False
            return
        self._busy = True
        self._turn += 1
        turn, key = self._turn, self._waiting.popleft()
        self._limit = self._app.set_timer(TURN_S, lambda: self._end(turn))
        await self._forward(key)
        await self._follow(self._first(), turn, TRIPS)

    async def _end(self, turn: int) -> None:
        """The turn is over, unless it was already."""
        if turn == self._turn and self._busy:
            await self._next()

    async def _follow(self, pump: MessagePump, turn: int, trips: int) -> None:
        """Leave a mark behind the key in the queue of this one, and from there in its parent's."""

        async def passed() -> None:
            if turn != self._turn:
                return
            if pump is not self._app:
                await self._follow(pump._parent or self._app, turn, trips)
            elif trips > 1:
                await self._follow(self._first(), turn, trips - 1)
            else:
                await self._end(turn)

        if not pump.call_later(passed):
            await self._end(turn)  # that widget is going: so is what the key was for

    def _first(self) -> MessagePump:
        return self._app.focused or self._app.screen
