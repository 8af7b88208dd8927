"""Lanes: of each key, this node makes one `strong` write at a time; the others wait in line. Values only.

Promises: first come, first served; bounded, a line as all of them. Never: decides anything by it.

Two writes of one key at one node would outbid each other, and an outbid write mostly ends as
*indeterminate*. Between nodes nothing prevents that but that clients go to the first owner.
"""

from __future__ import annotations

from collections import deque

from kvnode import config
from kvnode.core.proposal import Round
from kvnode.protocol.types import Millis


class Lanes:
    """Who writes which key, and who waits to."""

    def __init__(self) -> None:
        self._lines: dict[bytes, deque[Round]] = {}
        """Key that is being written -> the writes that wait."""
        self.waiting = 0

    def busy(self, key: bytes) -> bool:
        """Whether a write of this key is under way."""
        return key in self._lines

    def full(self, key: bytes) -> bool:
        """Whether no more may wait for this key."""
        return len(self._lines.get(key, ())) >= config.STRONG_LINE_MAX

    def enter(self, one: Round) -> bool:
        """Whether a write may begin; else it waits in line."""
        line = self._lines.get(one.ask.key)
        if line is None:
            self._lines[one.ask.key] = deque()
            return True
        line.append(one)
        self.waiting += 1
        return False

    def leave(self, key: bytes) -> Round | None:
        """A write is over. The one whose turn it is, if any waits."""
        line = self._lines[key]
        if not line:
            del self._lines[key]
            return None
        self.waiting -= 1
        return line.popleft()

    def overdue(self, now: Millis) -> list[Round]:
        """Those that waited until their deadline: they are in no line any more."""
        late = (
            [one for line in self._lines.values() for one in line if one.deadline <= now] if self.waiting else []
        )
        for one in late:
            self._lines[one.ask.key].remove(one)
        self.waiting -= len(late)
        return late
