"""A cluster as the console shows it: an immutable value, made of the last one and a new sample. Pure.

Promises: what no node told is None; a silent node keeps its last report with its age, and no figure of it
counts as fresh; rates follow from the nodes' own counters. Never: looks at a clock.

    advance(view, sample) ─► view'      the same samples give the same view: recordings are that
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct

from kvctl.console.rates import Rates, percentiles, rates_of, total
from kvctl.console.reach import Reach, reach_of
from kvctl.console.sample import Process, Sample, told_of
from kvctl.health import DOWN, SUSPECT, UP, Held, held
from kvctl.nodefaults import Told
from kvctl.render_faults import Listed, of_nodes
from kvnode.protocol.messages import Event, NodeReport
from kvnode.protocol.ring import Ring
from kvnode.protocol.types import NodeId

POINTS_MAX = 600
"""Ten minutes of plots."""
POINTS_MAX_LARGE = 120
"""...and of clusters of more than `LARGE` nodes, two."""
LARGE = 32
EVENTS_MAX = 2_000
WINDOWS_MAX = 200
SINCE_MS_MAX = 3_600_000
"""A fault that says it began longer ago, or in the future, is dated by the console's clock."""


class NodePoint(Struct, frozen=True, array_like=True, gc=False):
    """One node at one time."""

    ops_s: float | None = None
    p99_ms: float | None = None
    hints: int = 0


class Point(Struct, frozen=True, gc=False):
    """The cluster at one time; None where it could not be seen."""

    at_ms: int
    ops_s: float | None = None
    gets_s: float | None = None
    puts_s: float | None = None
    errors_s: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    p999_ms: float | None = None
    hints: int | None = None
    up: int = 0
    served: float | None = None
    """Share of partitions with a quorum."""
    repaired_s: float | None = None
    """Keys repaired a second."""
    hints_for: tuple[tuple[NodeId, int], ...] = ()
    nodes: tuple[NodePoint, ...] = ()


class Row(Struct, frozen=True):
    """A node."""

    id: NodeId
    address: str
    state: str
    """What most of the others that tell us conclude."""
    seen_by: int
    observers: int
    report: NodeReport | None
    """Its last; how old it is, `heard_ms` says."""
    heard_ms: int | None
    """When it last told of itself, by the console's clock; None if never."""
    fresh: bool
    """Whether that was in the last sample."""
    direct: bool
    """Whether it could be asked by the console only, not by the node that gathers."""
    process: Process | None
    partitions: int
    primaries: int
    hints_for_it: int
    point: NodePoint
    errors_s: float | None
    faults: tuple[Listed, ...]
    phi: float | None = None
    """How surprising its silence is to whom it surprises most."""


class Window(Struct, frozen=True):
    """A fault, from when to when it was there."""

    id: str
    kind: str
    target: str
    since_ms: int
    until_ms: int | None = None


class Kept(Struct, frozen=True):
    """The last report of a node, and when it came."""

    report: NodeReport
    at_ms: int


class ClusterView(Struct, frozen=True, kw_only=True):
    """All there is to show."""

    at_ms: int = 0
    """Of the last sample; 0 before the first."""
    seen_ms: int = 0
    """Of the last sample in which any node answered."""
    sample: Sample = Sample(at_ms=0)
    ring: Ring | None = None
    rows: tuple[Row, ...] = ()
    reach: Reach = Reach()
    hints: tuple[Held, ...] = ()
    faults: tuple[Listed, ...] = ()
    windows: tuple[Window, ...] = ()
    events: tuple[Event, ...] = ()
    points: tuple[Point, ...] = ()
    kept: Mapping[NodeId, Kept] = {}

    @property
    def problem(self) -> str:
        """Why nothing can be seen now; empty when something can."""
        return self.sample.problem

    def row(self, node: str) -> Row | None:
        """A node's row."""
        return next((row for row in self.rows if row.id == node), None)

    @property
    def point(self) -> Point:
        """The newest figures."""
        return self.points[-1] if self.points else Point(0)


def advance(view: ClusterView, sample: Sample, ring: Ring | None) -> ClusterView:
    """The view after one more look. `ring`: the one of this sample, or the last that was known."""
    ring = ring or view.ring
    events = _joined(view.events, sample.events)
    if ring is None or sample.problem or len(sample.reports) != len(ring.members):
        return _blind(view, sample, ring, events)
    told = told_of(ring, sample)
    faults = (*sample.faults, *_inside(sample))
    reach = reach_of(ring, sample.reports)
    hints = tuple(held(told))
    kept = dict(view.kept) | {r.id: Kept(r, sample.at_ms) for r in sample.reports if r is not None}
    kept = {member.id: kept[member.id] for member in ring.members if member.id in kept}
    rates = {r.id: rates_of(view.kept.get(r.id), r, sample.at_ms) for r in sample.reports if r is not None}
    rows = _rows(ring, sample, kept, hints, faults, rates)
    point = _point(sample, ring, reach, hints, rows, rates)
    most = POINTS_MAX if len(rows) <= LARGE else POINTS_MAX_LARGE
    return ClusterView(
        at_ms=sample.at_ms,
        seen_ms=sample.at_ms if sample.asked else view.seen_ms,
        sample=sample,
        ring=ring,
        rows=rows,
        reach=reach,
        hints=hints,
        faults=faults,
        windows=_windows(view.windows, faults, sample.at_ms),
        events=events,
        points=(*view.points[-most + 1 :], point),
        kept=kept,
    )


def _blind(view: ClusterView, sample: Sample, ring: Ring | None, events: tuple[Event, ...]) -> ClusterView:
    """Nothing was seen: what was known stays, and is said to be old."""
    processes = {p.node: p for p in sample.processes}
    rows = tuple(
        msgspec.structs.replace(
            row, fresh=False, state=DOWN, seen_by=0, observers=0, point=NodePoint(), errors_s=None,
            process=processes.get(row.id), phi=None, faults=tuple(f for f in sample.faults if row.id in f.nodes),
        )
        for row in view.rows
    )  # fmt: skip
    return msgspec.structs.replace(
        view, at_ms=sample.at_ms, sample=sample, ring=ring, rows=rows, events=events, hints=(),
        reach=Reach(), faults=sample.faults, windows=_windows(view.windows, sample.faults, sample.at_ms),
        points=(*view.points[-POINTS_MAX + 1 :], Point(sample.at_ms)),
    )  # fmt: skip


def _rows(
    ring: Ring,
    sample: Sample,
    kept: Mapping[NodeId, Kept],
    hints: Sequence[Held],
    faults: Sequence[Listed],
    rates: Mapping[NodeId, Rates],
) -> tuple[Row, ...]:
    processes = {p.node: p for p in sample.processes}
    states = _states(ring, sample)
    owned, first = _places(ring)
    waiting: dict[NodeId, int] = {}
    for each in hints:
        waiting[each.hints.owner] = waiting.get(each.hints.owner, 0) + each.hints.count
    rows = []
    for i, member in enumerate(ring.members):
        last, told = kept.get(member.id), sample.reports[i]
        state, seen_by, observers, phi = states[i]
        rate = rates.get(member.id, Rates())
        rows.append(
            Row(
                member.id, member.address, state, seen_by, observers,
                last.report if last else None, last.at_ms if last else None, told is not None,
                member.id in sample.direct, processes.get(member.id), owned[i], first[i],
                waiting.get(member.id, 0),
                NodePoint(rate.ops_s, percentiles([rate])[1], sum(h.count for h in told.hints) if told else 0),
                rate.errors_s, tuple(f for f in faults if member.id in f.nodes), phi,
            )
        )  # fmt: skip
    return tuple(rows)


def _places(ring: Ring) -> tuple[list[int], list[int]]:
    """Partitions each member owns, and of how many it is the first owner."""
    owned, first = [0] * len(ring.members), [0] * len(ring.members)
    for owners in ring.owners:
        for owner in owners:
            owned[owner] += 1
        first[owners[0]] += 1
    return owned, first


def _states(ring: Ring, sample: Sample) -> list[tuple[str, int, int, float | None]]:
    """(State, observers that hold it to be up, observers, the highest phi) of each member."""
    opinions: dict[NodeId, list[str]] = {member.id: [] for member in ring.members}
    phis: dict[NodeId, float] = {}
    for report in sample.reports:
        for peer in report.peers if report is not None else ():
            if peer.node in opinions:
                opinions[peer.node].append(peer.state)
                if peer.phi > phis.get(peer.node, -1.0):
                    phis[peer.node] = peer.phi
    found = []
    for member, report in zip(ring.members, sample.reports, strict=True):
        told = opinions[member.id]
        up = told.count(UP)
        if not told:
            state = DOWN if report is None else UP
        elif told.count(DOWN) * 2 > len(told):
            state = DOWN
        else:
            state = UP if up == len(told) else SUSPECT
        found.append((state, up, len(told), phis.get(member.id)))
    return found


def _inside(sample: Sample) -> list[Listed]:
    """The faults inside nodes."""
    told = Told({r.id: r.faults for r in sample.reports if r is not None and r.faults}, {})
    return of_nodes(told)


def _windows(old: tuple[Window, ...], faults: Sequence[Listed], at_ms: int) -> tuple[Window, ...]:
    """Faults that are new open a window, those that are gone close theirs."""
    there = {fault.id for fault in faults}
    open_ids = {window.id for window in old if window.until_ms is None}
    if there == open_ids:
        return old
    closed = [
        msgspec.structs.replace(w, until_ms=at_ms) if w.until_ms is None and w.id not in there else w for w in old
    ]
    fresh = [
        # By our clock: that of a node may be off, and a window begins where we saw it begin.
        Window(f.id, f.kind, f.target, min(at_ms, f.since) if abs(at_ms - f.since) < SINCE_MS_MAX else at_ms)
        for f in faults
        if f.id not in open_ids
    ]
    return (*closed, *fresh)[-WINDOWS_MAX:]


def _joined(old: tuple[Event, ...], new: Sequence[Event]) -> tuple[Event, ...]:
    """By time; a late one goes to its place."""
    if not new:
        return old
    return tuple(sorted((*old, *new), key=lambda e: (e.wall_ms, e.node, e.number))[-EVENTS_MAX:])


def _point(
    sample: Sample,
    ring: Ring,
    reach: Reach,
    hints: Sequence[Held],
    rows: Sequence[Row],
    rates: Mapping[NodeId, Rates],
) -> Point:
    """The figures of the whole."""
    all_rates = list(rates.values())
    p50, p99, p999 = percentiles(all_rates)
    waiting: dict[NodeId, int] = {row.id: row.hints_for_it for row in rows if row.hints_for_it}
    return Point(
        sample.at_ms, total(r.ops_s for r in all_rates), total(r.gets_s for r in all_rates),
        total(r.puts_s for r in all_rates), total(r.errors_s for r in all_rates), p50, p99, p999,
        sum(h.hints.count for h in hints) if sample.asked else None,
        sum(row.state == UP for row in rows), reach.served / ring.q,
        total(r.repaired_s for r in all_rates), tuple(waiting.items()), tuple(row.point for row in rows),
    )  # fmt: skip
