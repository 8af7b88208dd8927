"""The timeline: what happens when; and the trace: one hash for all that did.

Promises: events happen in the order of (time, the order they were asked for); the trace of a seed is
the same in every process, whatever its hash seed.
Never: cancels. Whoever asked for an event checks whether it still means anything when it comes.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from heapq import heappop, heappush

from kvnode.protocol.types import Address
from kvnode.sim.clock import START, Tenths, millis

Act = Callable[..., object]
Tell = Callable[[str], None]
Heap = list[tuple[Tenths, int, Act, tuple[object, ...]]]


class Timeline:
    """Events to come, earliest first."""

    __slots__ = ("_heap", "_sequence", "happened", "now")

    def __init__(self) -> None:
        self.now: Tenths = START
        self.happened = 0
        """Events so far."""
        self._heap: Heap = []
        self._sequence = 0

    def at(self, when: Tenths, act: Act, *args: object) -> None:
        """Have this happen at a time, not before now."""
        assert when >= self.now
        self._sequence += 1
        heappush(self._heap, (when, self._sequence, act, args))

    def after(self, wait: Tenths, act: Act, *args: object) -> None:
        """Have this happen some time from now."""
        self._sequence += 1
        heappush(self._heap, (self.now + wait, self._sequence, act, args))

    @property
    def next_at(self) -> Tenths | None:
        """When the next event is due; None when there is none."""
        return self._heap[0][0] if self._heap else None

    def step(self) -> None:
        """The next event happens."""
        when, _, act, args = heappop(self._heap)
        assert when >= self.now
        self.now = when
        self.happened += 1
        act(*args)

    def run_to(self, when: Tenths) -> None:
        """Everything up to a time happens; it is then that time."""
        heap = self._heap
        while heap and heap[0][0] <= when:
            self.now, _, act, args = heappop(heap)
            self.happened += 1
            act(*args)
        self.now = max(self.now, when)


class Trace:
    """Everything that happened, as one hash; and as lines, for whoever wants to read along."""

    __slots__ = ("_hash", "_links", "_tell", "_timeline")

    def __init__(self, timeline: Timeline, tell: Tell | None = None) -> None:
        self._timeline = timeline
        self._hash = blake2b(digest_size=16)
        self._tell = tell
        self._links: dict[tuple[Address, Address], bytes] = {}
        """How a link is written down: they are few, and frames are many."""

    @property
    def reads_along(self) -> bool:
        """Whether lines are wanted: making them costs more than the event."""
        return self._tell is not None

    def frame(self, sender: Address, to: Address, frame: bytes | bytearray) -> None:
        """A frame arrived."""
        link = self._links.get((sender, to))
        if link is None:
            link = self._links[sender, to] = b" frame %a %a " % (sender, to)
        self._hash.update(b"%d%b" % (self._timeline.now, link))
        self._hash.update(frame)

    def note(self, kind: str, who: str, text: str = "") -> None:
        """Something else happened."""
        self._hash.update(b"%d %a %a %a\n" % (self._timeline.now, kind, who, text))
        self.line(f"{who} {kind} {text}".rstrip())

    def line(self, text: str) -> None:
        """A line for whoever reads along; not hashed."""
        if self._tell is not None:
            self._tell(f"{millis(self._timeline.now - START):10.1f} ms  {text}")

    def digest(self) -> str:
        """The hash so far."""
        return self._hash.hexdigest()
