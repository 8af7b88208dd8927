"""What a cluster report says of the cluster: who is up, what it can still do, what is wrong. Pure.

Promises: figures follow from the ring and the reports alone; what no report tells is None.
Never: an opinion that cannot be traced to a rule here.
"""

from __future__ import annotations

from collections import Counter

from msgspec import Struct

from kvnode.config import CLOCK_AHEAD_MAX_MS, DISK_WARN_BYTES
from kvnode.protocol.messages import ClusterReport, NodeReport
from kvnode.protocol.ring import Ring, majority

OK, WARN, FAIL = "OK", "WARN", "FAIL"
CLOCK_WARN_MS = 1_000
"""Clocks further apart than this are told of; a minute apart, times are refused."""


class Finding(Struct, frozen=True):
    """What a rule of `check` found."""

    rule: str
    state: str
    detail: str


def reports_of(told: ClusterReport) -> list[NodeReport]:
    """The reports there are."""
    return [report for report in told.reports if report is not None]


def up_of(told: ClusterReport) -> set[int]:
    """The members that answered, by their index in the ring."""
    return {i for i, report in enumerate(told.reports) if report is not None}


def epoch_agreed(told: ClusterReport) -> bool:
    """Whether every member that is up reports one epoch."""
    return len({report.epoch for report in reports_of(told)}) == 1


def short_of_quorum(ring: Ring, up: set[int]) -> int:
    """Partitions of which fewer than a majority of owners is up: no default read or write there."""
    return sum(sum(o in up for o in owners) < majority(len(owners)) for owners in ring.owners)


def margin(ring: Ring, up: set[int]) -> float:
    """Share of partitions that keep a quorum when the worst further node is lost."""
    worst = max((short_of_quorum(ring, up - {node}) for node in up), default=ring.q)
    return (ring.q - worst) / ring.q


def ring_ready(told: ClusterReport) -> str:
    """Why the ring is not ready, as a sentence; empty when it is."""
    if not epoch_agreed(told):
        return "the nodes are on different epochs"
    ring = told.ring
    wanted = min(ring.n, len(ring.members))
    if any(len(set(owners)) < wanted for owners in ring.owners):
        return f"a partition has fewer than {wanted} owners"
    return ""


# ---- the rules of `check` ------------------------------------------------------------------


def findings(told: ClusterReport) -> list[Finding]:
    """Every rule, in the order they are shown."""
    return [rule(told) for rule in (_ring, _coverage, _quorum, _writable, _clocks, _disk, _balance)]


def verdict(found: list[Finding]) -> str:
    """The worst state of all."""
    states = {f.state for f in found}
    return FAIL if FAIL in states else WARN if WARN in states else OK


def _ring(told: ClusterReport) -> Finding:
    problem = ring_ready(told)
    if problem:
        epochs = ", ".join(f"{r.id} {r.epoch}" for r in reports_of(told))
        return Finding("ring agreed", FAIL, f"{problem} ({epochs})")
    return Finding(
        "ring agreed", OK, f"all {len(reports_of(told))} nodes that answer are on epoch {told.ring.epoch}"
    )


def _coverage(told: ClusterReport) -> Finding:
    ring, up = told.ring, up_of(told)
    missing = [sum(o not in up for o in owners) for owners in ring.owners]
    if not any(missing):
        return Finding("coverage", OK, f"all {ring.q} partitions have all their owners up")
    down = ", ".join(m.id for i, m in enumerate(ring.members) if i not in up)
    lost = sum(m == len(owners) for m, owners in zip(missing, ring.owners, strict=True))
    text = f"{sum(map(bool, missing))} of {ring.q} partitions miss owners; down: {down}"
    if lost:
        return Finding("coverage", FAIL, f"{text}; {lost} have no owner up at all")
    return Finding("coverage", WARN, text)


def _quorum(told: ClusterReport) -> Finding:
    ring, up = told.ring, up_of(told)
    short = short_of_quorum(ring, up)
    if short:
        return Finding(
            "r and w available", FAIL, f"{short} of {ring.q} partitions cannot meet the default r and w"
        )
    left = margin(ring, up)
    text = f"the default r and w can be met everywhere; after one more failure in {left:.0%} of partitions"
    return Finding("r and w available", OK, text)


def _writable(told: ClusterReport) -> Finding:
    stuck = [r for r in reports_of(told) if not r.writable]
    if not stuck:
        return Finding("writable", OK, "every node that answers takes writes")
    able = up_of(told) - {i for i, r in enumerate(told.reports) if r is not None and not r.writable}
    state = FAIL if short_of_quorum(told.ring, able) else WARN
    return Finding("writable", state, "; ".join(f"{r.id}: {r.problem or 'takes no writes'}" for r in stuck))


def _clocks(told: ClusterReport) -> Finding:
    walls = [r.wall_ms for r in reports_of(told)]
    spread = max(walls) - min(walls)
    state = OK if spread < CLOCK_WARN_MS else WARN if spread < CLOCK_AHEAD_MAX_MS else FAIL
    return Finding("clock skew", state, f"the clocks are at most {spread} ms apart")


def _disk(told: ClusterReport) -> Finding:
    least = min(reports_of(told), key=lambda r: r.disk_free_bytes)
    state = OK if least.disk_free_bytes >= DISK_WARN_BYTES else WARN
    return Finding("disk", state, f"{size(least.disk_free_bytes)} free at the least ({least.id})")


def _balance(told: ClusterReport) -> Finding:
    ring = told.ring
    held = Counter(o for owners in ring.owners for o in owners)
    counts = [held[i] / member.weight for i, member in enumerate(ring.members)]
    spread = max(counts) - min(counts)
    text = f"{min(held.values())}..{max(held.values())} partitions a node"
    return Finding("balance", OK if spread <= 2 else WARN, text)


def size(count: int) -> str:
    """Bytes for people."""
    value = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def span(ms: float) -> str:
    """A length of time for people."""
    s = int(ms // 1000)
    if s < 60:
        return f"{s}s"
    if s < 3600:
        return f"{s // 60}m{s % 60:02d}s"
    return f"{s // 3600}h{s % 3600 // 60:02d}m" if s < 86400 else f"{s // 86400}d{s % 86400 // 3600:02d}h"
