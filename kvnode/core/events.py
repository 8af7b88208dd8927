"""What happened on this node, for people: a bounded list with numbers that never repeat in a boot.

Promises: the newest events are here, in order. Never: written on the hot path.
"""

from __future__ import annotations

from collections import deque

from kvnode import config
from kvnode.protocol.messages import Event
from kvnode.protocol.types import NodeId, WallMillis


class EventLog:
    """Events of one node."""

    def __init__(self, node: NodeId) -> None:
        self._node = node
        self._events: deque[Event] = deque(maxlen=config.EVENTS_MAX)
        self.number = 0
        """The number of the newest event."""

    def add(self, wall: WallMillis, kind: str, text: str) -> None:
        """Remember that something happened."""
        self.number += 1
        self._events.append(Event(self.number, wall, self._node, kind, text[: config.TEXT_CHARS_MAX]))

    def after(self, number: int) -> tuple[Event, ...]:
        """The events newer than the one of this number."""
        if number >= self.number:
            return ()
        return tuple(event for event in self._events if event.number > number)
