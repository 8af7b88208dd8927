"""Where views come from: a live cluster, or a recording.

Promises: views are made in a thread of the feed's own, and posted one by one; what goes wrong with a recording
being written is a notice, and the console goes on. Never: touches a widget.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from kvctl.console.record import Recorder
from kvctl.console.replay import Replay
from kvctl.console.sample import Sample
from kvctl.console.sampler import Sampler, wall_ms
from kvctl.console.view import ClusterView, advance
from kvnode.protocol.ring import Ring

Post = Callable[[ClusterView], None]


class Feed(Protocol):
    """Posts views until it is stopped."""

    @property
    def replay(self) -> Replay | None:
        """The controls, of a recording."""
        ...

    @property
    def notice(self) -> str:
        """What is wrong, as a sentence."""
        ...

    @property
    def recording(self) -> str:
        """The file that is being written; empty for none."""
        ...

    def start(self, post: Post) -> None:
        """Begin; `post` may be called in any thread."""
        ...

    def stop(self) -> None:
        """End."""
        ...

    def now_ms(self) -> int:
        """The time that ages are told by."""
        ...

    def look_now(self) -> None:
        """Something was just changed: look before the second is over."""
        ...


class Live:
    """A cluster, and maybe a recording being written."""

    replay: Replay | None = None

    def __init__(self, sampler: Sampler, recorder: Recorder | None = None, path: str = "") -> None:
        self._sampler = sampler
        self._recorder = recorder
        self._view = ClusterView()
        self.notice = ""
        self.recording = path

    def start(self, post: Post) -> None:
        """Begin to look."""

        def take(sample: Sample, ring: Ring | None) -> None:
            self._view = advance(self._view, sample, ring)
            if self._recorder is not None:
                self._write(sample, ring)
            post(self._view)

        self._sampler.start(take)

    def _write(self, sample: Sample, ring: Ring | None) -> None:
        assert self._recorder is not None
        try:
            self._recorder.take(sample, ring)
        except OSError as error:
            self.notice = f"recording ended: {error.strerror or error}"
            self._recorder, self.recording = None, ""

    def stop(self) -> None:
        """End, and close the recording."""
        self._sampler.stop()
        if self._recorder is not None:
            self._recorder.close()

    def now_ms(self) -> int:
        """The time of day."""
        return wall_ms()

    def look_now(self) -> None:
        """Look before the second is over."""
        self._sampler.look_now()


class Played:
    """A recording."""

    recording = ""

    def __init__(self, replay: Replay) -> None:
        self.replay: Replay | None = replay
        self._replay = replay
        self._at_ms = replay.recording.at_ms(0)
        notice = replay.recording.notice
        self.notice = f"{replay.recording.path.name}: {notice}" if notice else ""

    def start(self, post: Post) -> None:
        """Begin to play."""

        def take(view: ClusterView) -> None:
            self._at_ms = view.at_ms
            post(view)

        self._replay.start(take)

    def stop(self) -> None:
        """End."""
        self._replay.stop()

    def now_ms(self) -> int:
        """The time of the sample that is shown."""
        return self._at_ms

    def look_now(self) -> None:
        """Nothing to look at."""
