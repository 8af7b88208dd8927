"""Figures as people read them. Pure.

Promises: what is not known is `-`, never 0. Never: more digits than the figure is good for.
"""

from __future__ import annotations

from datetime import UTC, datetime

from kvctl.console.view import ClusterView
from kvctl.health import size, span

UNKNOWN = "-"


def rate(value: float | None) -> str:
    """A second: `12.4k`, `853`, `0.4`."""
    if value is None:
        return UNKNOWN
    if value >= 1_000_000:
        return f"{value / 1_000_000:.1f}M"
    if value >= 10_000:
        return f"{value / 1000:.1f}k"
    return f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:.1f}"


def took(value: float | None) -> str:
    """Milliseconds: `0.8ms`, `12ms`, `1.2s`."""
    if value is None:
        return UNKNOWN
    if value >= 1000:
        return f"{value / 1000:.1f}s"
    return f"{value:.0f}ms" if value >= 10 else f"{value:.1f}ms"


def count(value: int | None) -> str:
    """`1,204`."""
    return UNKNOWN if value is None else f"{value:,}"


def share(value: float | None) -> str:
    """`20.5%`."""
    return UNKNOWN if value is None else f"{value:.1%}" if value < 1 else "100%"


def clock(wall_ms: int, *, zone: bool = False) -> str:
    """`14:03:27`, in UTC."""
    try:
        text = datetime.fromtimestamp(wall_ms / 1000, UTC).strftime("%H:%M:%S")
    except (OverflowError, ValueError, OSError):
        text = "??:??:??"
    return text + "Z" if zone else text


def age(ms: int) -> str:
    """`0.4s`, `12s`, `3m05s`."""
    return f"{max(0, ms) / 1000:.1f}s" if ms < 10_000 else span(ms)


def trend(view: ClusterView) -> str:
    """Whether hints grow or go."""
    known = [point.hints for point in view.points[-4:] if point.hints is not None]
    if len(known) < 2 or known[-1] == known[0]:
        return " "
    return "▲" if known[-1] > known[0] else "▼"


__all__ = ["UNKNOWN", "age", "clock", "count", "rate", "share", "size", "span", "took", "trend"]
