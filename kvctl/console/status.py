"""The two lines on top of every screen. Pure.

Promises: the age of what is shown is always there; what does not fit is left out from the least needed on.
Never: a figure that is older than the age says.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from rich.cells import cell_len

from kvctl.console.figures import age, clock, rate, took, trend
from kvctl.console.replay import Position
from kvctl.console.troubles import CRITICAL, DEGRADED, verdict_of
from kvctl.console.view import ClusterView
from kvctl.console.widgets.tones import Cell, Line, spark
from kvctl.health import DOWN, SUSPECT, UP
from kvnode.protocol.ring import majority

STALE_MS = 2_500
"""Older than that, the age is a warning."""
TONES = {"": "good", "NOTE": "good", DEGRADED: "warn", CRITICAL: "bad"}


class State(Struct):
    """What the console itself is doing."""

    readonly: bool = False
    held: bool = False
    recording: str = ""
    since_ms: int = 0
    position: Position | None = None
    notice: str = ""


def status_lines(state: State, view: ClusterView, now_ms: int, width: int) -> list[Line]:
    """Who and how; how much and how fast."""
    return [_first(state, view, now_ms, width), _second(state, view, width)]


def _first(state: State, view: ClusterView, now_ms: int, width: int) -> Line:
    verdict = verdict_of(view)
    left: list[tuple[int, Cell]] = [(0, (" kvctl ", "head"))]
    ring = view.ring
    if ring is not None:
        states = [row.state for row in view.rows]
        away = [f"{states.count(s)} {s}" for s in (SUSPECT, DOWN) if s in states]
        agreed = len({r.report.epoch for r in view.rows if r.fresh and r.report}) <= 1
        left += [
            (1, (f"{ring.cluster}  ", "accent")),
            (2, f"{len(view.rows)} nodes "),
            (2, (f"{states.count(UP)} up ", "good" if not away else "plain")),
            (2, ((" ".join(away) + " ") if away else "", "bad" if DOWN in states else "warn")),
            (4, f" N{ring.n} R{majority(ring.n)} W{majority(ring.n)} "),
            (3, (f" ring {ring.epoch} {'agreed' if agreed else 'NOT AGREED'} ", "plain" if agreed else "bad")),
        ]
    left += [(0, "  "), (0, (verdict.word, TONES[verdict.level]))]
    return fitted(left, _right(state, view, now_ms), width)


def _right(state: State, view: ClusterView, now_ms: int) -> list[tuple[int, Cell]]:
    """What the console does, the time, and how old all this is."""
    right: list[tuple[int, Cell]] = []
    if state.readonly:
        right.append((1, ("READ-ONLY  ", "warn")))
    if state.recording:
        right.append((3, (f"REC {age(now_ms - state.since_ms)}  ", "bad")))
    if state.position is not None:
        place = state.position
        word = "" if place.playing else " PAUSED"
        right.append((1, (f"REPLAY {place.index + 1}/{place.count} x{place.speed:g}{word}  ", "accent")))
        return [*right, (0, (clock(view.at_ms, zone=True) + " ", "plain"))]
    if state.held:
        right.append((1, ("PAUSED  ", "warn")))
    old = now_ms - view.seen_ms
    tone = "plain" if old < STALE_MS else "bad"
    told = f"{age(old)} old" if view.seen_ms else "no data"
    return [*right, (2, f"{clock(now_ms, zone=True)}  "), (0, (f"{told} ", tone))]


def _second(state: State, view: ClusterView, width: int) -> Line:
    if state.notice:
        return fitted([(0, (f" {state.notice}", "warn"))], [], width)
    point, points = view.point, view.points
    wide = 12 if width >= 110 else 8
    left: list[tuple[int, Cell]] = [
        (0, f" ops/s {rate(point.ops_s)} "),
        (2, (spark([p.ops_s for p in points], wide), "one")),
        (1, f"  p50 {took(point.p50_ms)}"),
        (0, f"  p99 {took(point.p99_ms)} "),
        (2, (spark([p.p99_ms for p in points], wide), "two")),
        (1, (f"  err/s {rate(point.errors_s)}", "warn" if point.errors_s else "plain")),
        (0, (f"  hints {'-' if point.hints is None else format(point.hints, ',')} {trend(view)}",
             "warn" if point.hints else "plain")),
        (3, (f" {spark([None if p.hints is None else float(p.hints) for p in points], wide)}", "three")),
    ]  # fmt: skip
    faults = len(view.faults)
    return fitted(
        left, [(0, (f"faults {faults} " if faults else "no faults ", "warn" if faults else "dim"))], width
    )


def fitted(left: Sequence[tuple[int, Cell]], right: Sequence[tuple[int, Cell]], width: int) -> Line:
    """Both ends of a line; cells of the highest rank are left out first, until it fits."""
    shown = [*left, *right]

    def size() -> int:
        return sum(cell_len(c if isinstance(c, str) else c[0]) for _, c in shown)

    while size() >= width and any(rank for rank, _ in shown):
        most = max(rank for rank, _ in shown)
        shown = [(rank, cell) for rank, cell in shown if rank != most]
    kept = [cell for pair in left if pair in shown for cell in (pair[1],)]
    rest = [cell for pair in right if pair in shown for cell in (pair[1],)]
    return [*kept, " " * max(1, width - size()), *rest]
