"""A recording as one HTML file: a summary, plots with the windows of faults, what happened. Pure.

Promises: the file stands alone: no script, nothing fetched; what a recording holds is text in it, never markup.
Never: a figure that the summary does not have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from html import escape
from math import log10

from kvctl.console.figures import clock, count, rate, share, took
from kvctl.console.summary import Summary, thinned
from kvctl.console.view import Point
from kvctl.health import span
from kvctl.output import show, utc

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 1000, 170, 62, 12, 22, 20
POINTS_MAX = 1_000
COLOURS = ("#2b7a3d", "#b5651d", "#2a6f97")
VERDICTS = {"READ-WRITE": "#7fbf7f", "SPLIT": "#f0c36d", "PARTIAL": "#e88c7d", "NO QUORUM": "#d9534f",
            "CANNOT SEE": "#999999", "LOOKING": "#dddddd"}  # fmt: skip
Figure = Callable[[Point], "float | None"]
PLOTS: tuple[tuple[str, bool, Callable[[float], str], tuple[tuple[str, Figure], ...]], ...] = (
    ("Latency of all client requests", True, took,
     (("p50", lambda p: p.p50_ms), ("p99", lambda p: p.p99_ms), ("p99.9", lambda p: p.p999_ms))),
    ("Requests a second", False, rate,
     (("all", lambda p: p.ops_s), ("puts", lambda p: p.puts_s), ("gets", lambda p: p.gets_s))),
    ("Requests that failed a second", False, rate, (("errors", lambda p: p.errors_s),)),
    ("Hints kept", False, rate, (("hints", lambda p: None if p.hints is None else float(p.hints)),)),
    ("Share of partitions with a quorum", False, share, (("served", lambda p: p.served),)),
)  # fmt: skip
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 66rem; padding: 0 1rem; color: #222; }
h1 { margin-bottom: 0 } h2 { margin: 2rem 0 .5rem } .dim { color: #666 } .notice { color: #a33 }
table { border-collapse: collapse } td, th { text-align: left; padding: .15rem 1rem .15rem 0; vertical-align: top }
td.n, th.n { text-align: right } code { font: 13px ui-monospace, monospace; overflow-wrap: anywhere }
svg { width: 100%; height: auto; display: block; margin: .6rem 0 } svg text { font: 11px system-ui, sans-serif }
@media (prefers-color-scheme: dark) { body { background: #14181d; color: #ddd } .dim { color: #999 }
  svg text { fill: #ccc } }
"""


def html_of(found: Summary) -> str:
    """The whole file."""
    took_s = span(found.until_ms - found.since_ms)
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>kvctl report: {_text(found.cluster)}</title><style>{STYLE}</style>",
        f"<h1>Cluster {_text(found.cluster)}</h1>",
        f"<p class=dim>{utc(found.since_ms)} to {utc(found.until_ms)}: {took_s}, {found.samples} samples</p>",
        f"<p class=notice>{_text(found.notice)}</p>" if found.notice else "",
        "<h2>What could be done</h2>", _verdicts(found),
        "<h2>Faults</h2>", _faults(found), "<h2>Figures</h2>", *_plots(found),
        "<h2>Nodes</h2>", _nodes(found), "<h2>What happened</h2>", _events(found), "</html>",
    ]  # fmt: skip
    return "\n".join(part for part in parts if part)


def _text(text: str) -> str:
    """Text, harmless for a browser and a reader."""
    return escape(show(text)[:2_000])


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], numbers: frozenset[int] = frozenset()) -> str:
    """`rows` are HTML already."""

    def row(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(
            f"<{tag}{' class=n' if i in numbers else ''}>{cell}</{tag}>" for i, cell in enumerate(cells)
        )

    return f"<table>{row(heads, 'th')}{''.join(row(cells, 'td') for cells in rows)}</table>"


def _verdicts(found: Summary) -> str:
    total = max(1, found.until_ms - found.since_ms)
    times = sorted(found.times().items(), key=lambda each: -each[1])
    rows = [(_text(word), span(ms), f"{ms / total:.1%}") for word, ms in times]
    bands = "".join(_band(found, s.word, s.since_ms, s.until_ms) for s in found.spans)
    return f"<svg viewBox='0 0 {WIDTH} 26' role=img>{bands}</svg>" + _table(("verdict", "for", "share"), rows)


def _band(found: Summary, word: str, since_ms: int, until_ms: int) -> str:
    left, right = _x(found, since_ms), _x(found, until_ms)
    return (
        f"<rect x={left:.1f} y=4 width={max(0.5, right - left):.1f} height=18 "
        f"fill='{VERDICTS.get(word, '#ccc')}'><title>{_text(word)} {clock(since_ms)}</title></rect>"
    )


def _faults(found: Summary) -> str:
    if not found.windows:
        return "<p>None was set.</p>"
    rows = [
        (_text(w.id), _text(w.kind), _text(w.target), clock(w.since_ms),
         clock(w.until_ms) if w.until_ms else "still there",
         span((w.until_ms or found.until_ms) - w.since_ms))
        for w in found.windows
    ]  # fmt: skip
    return _table(("id", "kind", "target", "from", "to", "lasted"), rows)


def _nodes(found: Summary) -> str:
    rows = [
        (_text(n.node), span(n.down_ms), span(n.silent_ms), count(n.hints_most), took(n.p99_worst_ms))
        for n in found.nodes.values()
    ]
    heads = ("node", "down for", "silent for", "hints it kept, at most", "worst p99")
    return _table(heads, rows, frozenset({3, 4}))


def _events(found: Summary) -> str:
    rows = [
        (clock(e.wall_ms), _text(e.node), _text(e.kind), f"<code>{_text(e.text)}</code>") for e in found.events
    ]
    return _table(("at", "node", "kind", "what"), rows) if rows else "<p>No event was told.</p>"


# ---- plots -----------------------------------------------------------------------------------


def _x(found: Summary, at_ms: int) -> float:
    span_ms = max(1, found.until_ms - found.since_ms)
    return LEFT + (min(max(at_ms, found.since_ms), found.until_ms) - found.since_ms) / span_ms * (
        WIDTH - LEFT - RIGHT
    )


def _plots(found: Summary) -> Iterator[str]:
    points = thinned(found.points, POINTS_MAX)
    for title, log, form, figures in PLOTS:
        values = [v for p in points for _, get in figures if (v := get(p)) is not None]
        top = max(values, default=1.0) or 1.0
        low = max(min((v for v in values if v > 0), default=top / 10), 1e-3) if log else 0.0
        if log and low >= top:
            low = top / 10
        yield _plot(found, points, title, (low, top, log), form, figures)


def _plot(
    found: Summary,
    points: Sequence[Point],
    title: str,
    scale: tuple[float, float, bool],
    form: Callable[[float], str],
    figures: Sequence[tuple[str, Figure]],
) -> str:
    low, top, log = scale
    inner = HEIGHT - TOP - BOTTOM

    def y(value: float) -> float:
        part = log10(max(value, low) / low) / log10(top / low) if log else value / top
        return TOP + (1 - part) * inner

    parts = [f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role=img aria-label='{_text(title)}'>"]
    for w in found.windows:
        left, right = _x(found, w.since_ms), _x(found, w.until_ms or found.until_ms)
        parts.append(
            f"<rect x={left:.1f} y={TOP} width={max(1.0, right - left):.1f} height={inner} fill='#f0a030' "
            f"fill-opacity=.16><title>{_text(w.kind)} {_text(w.target)}</title></rect>"
            f"<text x={left + 2:.1f} y={TOP + 11} fill='#a06000'>{_text(w.kind)}</text>"
        )
    for part in (0.0, 0.5, 1.0):
        value = low * (top / low) ** part if log else top * part
        parts.append(
            f"<line x1={LEFT} x2={WIDTH - RIGHT} y1={y(value):.1f} y2={y(value):.1f} stroke='#888' "
            f"stroke-opacity=.3 /><text x={LEFT - 6} y={y(value) + 4:.1f} text-anchor=end fill='#666'>"
            f"{escape(form(value))}</text>"
        )
    for i, (name, get) in enumerate(figures):
        parts += [
            f"<polyline fill=none stroke='{COLOURS[i]}' stroke-width=1.5 points='{line}' />"
            for line in _lines(found, points, get, y)
        ]
        parts.append(f"<text x={LEFT + 330 + 70 * i} y=14 fill='{COLOURS[i]}'>{escape(name)}</text>")
    parts.append(f"<text x={LEFT} y=14 font-weight=bold fill='#666'>{escape(title)}</text>")
    for part in (0.0, 0.25, 0.5, 0.75, 1.0):
        at = found.since_ms + round((found.until_ms - found.since_ms) * part)
        anchor = "start" if part == 0 else "end" if part == 1 else "middle"
        parts.append(
            f"<text x={_x(found, at):.1f} y={HEIGHT - 5} text-anchor={anchor} fill='#666'>{clock(at)}</text>"
        )
    return "".join((*parts, "</svg>"))


def _lines(found: Summary, points: Sequence[Point], get: Figure, y: Callable[[float], float]) -> Iterator[str]:
    """Runs of known values: a gap ends a line."""
    run: list[str] = []
    for point in points:
        value = get(point)
        if value is not None:
            run.append(f"{_x(found, point.at_ms):.1f},{y(value):.1f}")
        elif run:
            yield " ".join(run)
            run = []
    if run:
        yield " ".join(run)
