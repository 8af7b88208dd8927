"""What a recording tells as a whole: how long what was available, who was down, what broke and healed. Pure.

Promises: times are sums of the gaps between samples, and what could not be seen is a time of its own.
Never: an average where the worst is what counts.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from kvctl.console.record import Recording
from kvctl.console.troubles import verdict_of
from kvctl.console.view import ClusterView, Point, Window, advance
from kvctl.health import DOWN
from kvctl.output import utc
from kvctl.render import Object
from kvnode.protocol.messages import Event

GAP_MS_MAX = 5_000
"""A longer gap between samples is counted as not seen."""
EVENTS_MAX = 500
NOISE = ("heard", "avoided")


class NodeTime(Struct):
    """A node, and how long it was away."""

    node: str
    down_ms: int = 0
    silent_ms: int = 0
    hints_most: int = 0
    p99_worst_ms: float | None = None


class Span(Struct):
    """A verdict, from when to when."""

    word: str
    since_ms: int
    until_ms: int


class Summary(Struct, kw_only=True):
    """A recording as a whole."""

    cluster: str = ""
    notice: str = ""
    since_ms: int = 0
    until_ms: int = 0
    samples: int = 0
    spans: list[Span] = []
    nodes: dict[str, NodeTime] = {}
    windows: tuple[Window, ...] = ()
    points: list[Point] = []
    events: list[Event] = []
    errors: float = 0.0
    """Requests that failed, of those that nodes told of."""
    requests: float = 0.0

    def times(self) -> dict[str, int]:
        """Verdict -> how long it held, in ms."""
        found: dict[str, int] = {}
        for span in self.spans:
            found[span.word] = found.get(span.word, 0) + span.until_ms - span.since_ms
        return found

    def json(self) -> Object:
        """For programs."""
        known = [p for p in self.points if p.p99_ms is not None]
        return {
            "cluster": self.cluster,
            "notice": self.notice or None,
            "since": utc(self.since_ms),
            "until": utc(self.until_ms),
            "samples": self.samples,
            "verdicts_s": {word: round(ms / 1000, 1) for word, ms in self.times().items()},
            "requests": round(self.requests),
            "errors": round(self.errors),
            "p99_worst_ms": max((p.p99_ms for p in known if p.p99_ms is not None), default=None),
            "hints_most": max((p.hints for p in self.points if p.hints is not None), default=None),
            "least_served": min((p.served for p in self.points if p.served is not None), default=None),
            "faults": [
                {"id": w.id, "kind": w.kind, "target": w.target,
                 "since": utc(w.since_ms), "until": utc(w.until_ms)}
                for w in self.windows
            ],
            "nodes": [
                {"node": n.node, "down_s": n.down_ms / 1000, "silent_s": n.silent_ms / 1000,
                 "hints_most": n.hints_most, "p99_worst_ms": n.p99_worst_ms}
                for n in self.nodes.values()
            ],
        }  # fmt: skip


def summarise(recording: Recording) -> Summary:
    """Go through all of it, once."""
    found = Summary(
        notice=recording.notice, samples=len(recording), since_ms=recording.at_ms(0),
        until_ms=recording.at_ms(len(recording) - 1),
    )  # fmt: skip
    view = ClusterView()
    windows: dict[tuple[str, int], Window] = {}
    events: dict[tuple[str, int, int], Event] = {}
    for i in range(len(recording)):
        before = view.at_ms or recording.at_ms(0)
        view = advance(view, *recording.read(i))
        gap = view.at_ms - before
        _take(found, view, gap if 0 <= gap <= GAP_MS_MAX else 0, before)
        windows |= {(w.id, w.since_ms): w for w in view.windows}
        events |= {(e.node, e.number, e.wall_ms): e for e in view.sample.events if e.kind not in NOISE}
    found.windows = tuple(sorted(windows.values(), key=lambda w: w.since_ms))
    found.events = sorted(events.values(), key=lambda e: (e.wall_ms, e.node, e.number))[:EVENTS_MAX]
    found.cluster = view.ring.cluster if view.ring is not None else ""
    return found


def _take(found: Summary, view: ClusterView, gap_ms: int, before_ms: int) -> None:
    """One sample, and the time since the last."""
    point = view.point
    found.points.append(point)
    word = verdict_of(view).word
    since = before_ms if gap_ms else view.at_ms
    last = found.spans[-1] if found.spans else None
    if last is not None and last.word == word and last.until_ms == since:
        last.until_ms = view.at_ms
    else:
        found.spans.append(Span(word, since, view.at_ms))
    found.requests += (point.ops_s or 0) * gap_ms / 1000
    found.errors += (point.errors_s or 0) * gap_ms / 1000
    for row in view.rows:
        node = found.nodes.setdefault(row.id, NodeTime(row.id))
        node.down_ms += gap_ms if row.state == DOWN else 0
        node.silent_ms += gap_ms if not row.fresh else 0
        node.hints_most = max(node.hints_most, row.point.hints)
        if row.point.p99_ms is not None:
            node.p99_worst_ms = max(node.p99_worst_ms or 0.0, row.point.p99_ms)


def thinned(points: Sequence[Point], most: int) -> list[Point]:
    """At most so many points; of each group, the one with the worst latency."""
    if len(points) <= most:
        return list(points)
    size = -(-len(points) // most)
    groups = (points[i : i + size] for i in range(0, len(points), size))
    return [max(group, key=lambda p: (p.p99_ms or 0.0, p.hints or 0)) for group in groups]
