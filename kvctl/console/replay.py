"""Plays a recording: the same samples, at their own pace or another; seek, step, jump from fault to fault.

Promises: a view is that of its sample, whichever way it was reached, as far as the plots go back; while it is
paused nothing moves. Never: looks at the time of day: the clock is handed in, so a test can hold it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from msgspec import Struct

from kvctl.console.record import Recording
from kvctl.console.view import POINTS_MAX, POINTS_MAX_LARGE, ClusterView, advance

SPEEDS = (0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
POSTS_PER_S_MAX = 10
"""At high speed, not every sample is shown; all are taken in."""
GAP_MS_MAX = 2_000
"""A longer pause in the recording is cut to this."""
LARGE = 32
STOP_S = 2.0

Post = Callable[[ClusterView], None]
Clock = Callable[[], float]


class Position(Struct, frozen=True):
    """Where a replay is."""

    index: int
    count: int
    playing: bool
    speed: float


class Replay:
    """A recording, and a place in it."""

    def __init__(self, recording: Recording, clock: Clock = time.monotonic, *, playing: bool = True) -> None:
        self.recording = recording
        self._clock = clock
        self._lock = threading.Condition()
        self._view = ClusterView()
        self._index = -1
        self._wanted: int | None = 0
        self._playing = playing
        self._speed = SPEEDS.index(1.0)
        self._ended = False
        self._due = 0.0
        self._posted = -1.0
        self._thread: threading.Thread | None = None

    # ---- at the controls -------------------------------------------------------------------

    @property
    def position(self) -> Position:
        """Where it is."""
        with self._lock:
            index = self._index if self._wanted is None else self._wanted
            return Position(max(0, index), len(self.recording), self._playing, SPEEDS[self._speed])

    def toggle(self) -> None:
        """Pause, or go on; at the end, from the beginning."""
        with self._lock:
            self._playing = not self._playing
            if self._playing and self._index == len(self.recording) - 1:
                self._wanted = 0
            self._due = self._clock()
            self._lock.notify()

    def seek(self, index: int) -> None:
        """Go to a sample."""
        with self._lock:
            self._wanted = min(max(0, index), len(self.recording) - 1)
            self._lock.notify()

    def step(self, by: int) -> None:
        """So many samples on, or back, and pause there."""
        at = self.position.index
        with self._lock:
            self._playing = False
        self.seek(at + by)

    def seek_s(self, seconds: float) -> None:
        """So much later, or earlier."""
        at = self.position.index
        self.seek(self.recording.at(self.recording.at_ms(at) + round(seconds * 1000)))

    def jump(self, step: int) -> None:
        """To where the next fault begins, or the one before."""
        self.seek(self.recording.jump(self.position.index, step))

    def faster(self, step: int) -> None:
        """Another speed."""
        with self._lock:
            self._speed = min(max(0, self._speed + step), len(SPEEDS) - 1)
            self._due = self._clock()
            self._lock.notify()

    # ---- playing ---------------------------------------------------------------------------

    def view_at(self, index: int) -> ClusterView:
        """The view of a sample, its plots filled as far as they go back."""
        if self._index + 1 == index:
            self._view = advance(self._view, *self.recording.read(index))
        elif self._index != index:
            sample, ring = self.recording.read(index)
            large = ring is not None and len(ring.members) > LARGE
            view = ClusterView()
            for i in range(max(0, index - (POINTS_MAX_LARGE if large else POINTS_MAX)), index):
                view = advance(view, *self.recording.read(i))
            self._view = advance(view, sample, ring)
        self._index = index
        return self._view

    def start(self, post: Post) -> None:
        """Show the first sample, and begin to play; `post` is called in a thread."""
        self._thread = threading.Thread(target=self._run, args=(post,), name="replay", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        with self._lock:
            self._ended = True
            self._lock.notify()
        if self._thread is not None:
            self._thread.join(STOP_S)

    def _run(self, post: Post) -> None:
        while True:
            with self._lock:
                wanted, wait_s = self._next()
                if self._ended:
                    return
                if wanted is None:
                    self._lock.wait(wait_s)
                    continue
                sought = self._wanted is not None
                self._wanted = None
            view = self.view_at(wanted)
            self._schedule()
            now = self._clock()
            if sought or not self._playing or now - self._posted >= 1 / POSTS_PER_S_MAX:
                self._posted = now
                post(view)

    def _next(self) -> tuple[int | None, float | None]:
        """The sample to show now, or how long to wait (None: until something is pressed)."""
        if self._wanted is not None:
            return self._wanted, None
        if not self._playing:
            return None, None
        if self._index >= len(self.recording) - 1:
            self._playing = False
            return self._index, None
        left = self._due - self._clock()
        return (self._index + 1, None) if left <= 0 else (None, left)

    def _schedule(self) -> None:
        """When the sample after this one is due."""
        index = self._index
        if index + 1 < len(self.recording):
            gap_ms = self.recording.at_ms(index + 1) - self.recording.at_ms(index)
            gap_s = min(max(0, gap_ms), GAP_MS_MAX) / 1000 / SPEEDS[self._speed]
            # From when it was due, so that the time it took is not added; but never a burst to catch up.
            now = self._clock()
            self._due = (self._due if now - self._due < gap_s else now) + gap_s
