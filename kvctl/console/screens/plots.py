"""Plots: latency, throughput, errors and hints over time, with the windows of faults behind them.

Promises: all four have one time axis; a gap is a gap. Never: an average of percentiles: each is of all requests
of its second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar

from textual.binding import BindingType
from textual.containers import Grid
from textual.widget import Widget

from kvctl.console.actions import Action
from kvctl.console.figures import rate, took
from kvctl.console.keymap import Key, bindings
from kvctl.console.page import Page
from kvctl.console.view import ClusterView, Point
from kvctl.console.widgets.plot import Plot, Series, picture_of

SPANS_S = (30, 60, 120, 300, 600)
ACTS = (
    Key("zoom_in", "plus,equals_sign", "zoom(-1)", "Zoom in", "a shorter time", True, "+"),
    Key("zoom_out", "underscore,o", "zoom(1)", "Zoom out", "a longer time, up to ten minutes", True, "_"),
    Key("pan_back", "h,left", "pan(1)", "Earlier", "to the left", True, "h"),
    Key("pan_on", "l,right", "pan(-1)", "Later", "to the right, up to now", True, "l"),
)
Figure = Callable[[Point], "float | None"]
PLOTS: tuple[tuple[str, str, bool, tuple[tuple[str, str, Figure], ...]], ...] = (
    ("latency", "Latency, of all client requests", True, (
        ("p99.9", "three", lambda p: p.p999_ms), ("p99", "two", lambda p: p.p99_ms),
        ("p50", "one", lambda p: p.p50_ms))),
    ("throughput", "Requests a second", False, (
        ("puts", "two", lambda p: p.puts_s), ("gets", "three", lambda p: p.gets_s),
        ("all", "one", lambda p: p.ops_s))),
    ("errors", "Requests that failed a second", False, (("errors", "two", lambda p: p.errors_s),)),
    ("kept", "Hints kept", False, (
        ("hints", "three", lambda p: None if p.hints is None else float(p.hints)),)),
)  # fmt: skip


class Plots(Page):
    """Four plots."""

    NAME = "plots"
    FOCUS = "#none"
    BINDINGS: ClassVar[list[BindingType]] = bindings(ACTS)

    def body(self) -> Iterable[Widget]:
        """Two by two."""
        with Grid(id="plots"):
            for name, _, _, _ in PLOTS:
                yield Plot(took if name == "latency" else rate, id=name)

    def on_mount(self) -> None:
        """Titles."""
        self._span, self._back = 2, 0.0
        for name, title, _, _ in PLOTS:
            self.query_one(f"#{name}").border_title = title
        super().on_mount()

    def show(self, view: ClusterView, now_ms: int) -> None:
        """All four."""
        span_ms = SPANS_S[self._span] * 1000
        until = view.at_ms - round(self._back * span_ms)
        points = [p for p in view.points if until - span_ms <= p.at_ms <= until]
        times = [p.at_ms for p in points]
        for name, _, log, figures in PLOTS:
            series = tuple(Series(label, tone, tuple(map(get, points))) for label, tone, get in figures)
            plot = self.query_one(f"#{name}", Plot)
            plot.show(picture_of(times, series, view.windows, until - span_ms, log=log))
            told = plot.named()
            plot.border_subtitle = told if self._back == 0 else f"until {round(self._back * span_ms / 1000)}s ago"

    def action_zoom(self, by: int) -> None:
        """Shorter or longer."""
        self._span = min(max(0, self._span + by), len(SPANS_S) - 1)
        self.renew()

    def action_pan(self, by: int) -> None:
        """Half a width back, or on."""
        self._back = min(max(0.0, self._back + by / 2), 20.0)
        self.renew()

    def subject(self) -> Action:
        """The figures as a command."""
        return Action(("status", "-o", "wide"))
