"""The autoscaler's policy: what the cluster looks like -> grow, shrink, or wait, and why. Pure.

Promises: nothing is begun while a member is suspect, down or silent, while anything moves or is staged, or
before the cool-down is over; one change at a time; never beyond the limits, nor below n members. A change
never calls for its opposite: what is too full for one node fewer is not emptied, so it does not swing.
Never: acts; that is for the loop in `cli/autoscale.py`.

    fullest mean over all members    > high   grow
                                     < low, and one member fewer would not be above high   shrink
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from msgspec import Struct

from kvctl.health import UP, reports_of, size, states
from kvctl.shape import progress
from kvnode.protocol.messages import Change, ClusterReport
from kvnode.protocol.types import NodeId


class Do(StrEnum):
    """What to do now."""

    GROW = "grow"
    SHRINK = "shrink"
    WAIT = "wait"
    """Something stands in the way, or has to pass."""
    REST = "rest"
    """Nothing need be done."""


class Limits(Struct, frozen=True, kw_only=True):
    """What the operator asked for. Loads are per member; None where they do not matter."""

    least: int
    most: int
    high_bytes: int
    low_bytes: int
    high_ops: float | None = None
    low_ops: float | None = None
    cooldown_s: float = 60.0

    def problem(self) -> str:
        """What is wrong with them, as a sentence; empty when nothing is."""
        if not 1 <= self.least <= self.most:
            return f"--min {self.least} --max {self.most}: it must be 1 <= min <= max"
        if not 0 <= self.low_bytes < self.high_bytes:
            return f"--low-bytes {self.low_bytes} must be below --high-bytes {self.high_bytes}"
        if (self.low_ops or 0) >= (self.high_ops or float("inf")):
            return f"--low-ops {self.low_ops} must be below --high-ops {self.high_ops}"
        return ""


class Seen(Struct, frozen=True, kw_only=True):
    """The cluster at one moment."""

    now_s: float
    n: int
    members: tuple[NodeId, ...]
    """In the order in which they came."""
    odd: tuple[str, ...] = ()
    """`n3 suspect`: members that are not plainly up, or did not answer."""
    agreed: bool = True
    """Whether all are on one epoch."""
    moving: str = ""
    """What is on its way, as a sentence; empty when nothing is."""
    staged: int = 0
    """Changes that are staged, by whomever."""
    bytes: int
    """Of all members together."""
    ops_per_s: float | None = None
    """Of all members together; None before it can be told."""


class Decision(Struct, frozen=True):
    """What to do, and why."""

    do: Do
    cause: str
    """In a word."""
    reason: str
    """In a sentence."""
    node: NodeId | None = None
    """Who leaves."""


def decide(seen: Seen, limits: Limits, changed_s: float) -> Decision:
    """What to do now; `changed_s`: when the last change was done."""
    stop = _obstacle(seen, limits, changed_s)
    return stop if stop is not None else _by_load(seen, limits)


def _obstacle(seen: Seen, limits: Limits, changed_s: float) -> Decision | None:
    """Why nothing may be begun now."""
    if seen.odd:
        return Decision(Do.WAIT, "unwell", f"{', '.join(seen.odd)}: first everybody is up")
    if seen.moving:
        return Decision(Do.WAIT, "moving", seen.moving)
    if not seen.agreed:
        return Decision(Do.WAIT, "disagree", "the members are on different epochs")
    if seen.staged:
        return Decision(Do.WAIT, "staged", f"{seen.staged} changes are staged by someone: one change at a time")
    left = changed_s + limits.cooldown_s - seen.now_s
    if left > 0:
        return Decision(
            Do.WAIT, "cool-down", f"the last change was done just now: {left:.0f} s of cool-down are left"
        )
    return None


def _by_load(seen: Seen, limits: Limits) -> Decision:
    count = len(seen.members)
    if count < limits.least:
        return Decision(Do.GROW, "below-min", f"{count} members, at least {limits.least} are wanted")
    if count > limits.most:
        return _shrink(seen, "above-max", f"{count} members, at most {limits.most} are wanted")
    above = _above(seen, limits, count)
    if above and count == limits.most:
        return Decision(Do.REST, "at-max", f"{above}, but {count} members are the most there may be")
    if above:
        return Decision(Do.GROW, "high", above)
    if not _below(seen, limits, count):
        return Decision(Do.REST, "between", f"{_load(seen, count)}: between the watermarks")
    if count <= max(limits.least, seen.n):
        return Decision(
            Do.REST, "at-min", f"{_load(seen, count)}: low, but {count} members are the fewest there may be"
        )
    fuller = _above(seen, limits, count - 1)
    if fuller:
        return Decision(Do.REST, "between", f"{_load(seen, count)}: low, but with one member fewer {fuller}")
    return _shrink(seen, "low", f"{_load(seen, count)}: below the low watermark")


def _shrink(seen: Seen, cause: str, reason: str) -> Decision:
    """Whoever came last leaves first: the order in which a StatefulSet goes, too."""
    if len(seen.members) <= seen.n:
        return Decision(Do.REST, "at-n", f"{reason}, but each key has {seen.n} copies")
    return Decision(Do.SHRINK, cause, reason, seen.members[-1])


def _above(seen: Seen, limits: Limits, count: int) -> str:
    """Which high watermark would be passed with so many members, as a sentence."""
    if seen.bytes > limits.high_bytes * count:
        return f"{size(round(seen.bytes / count))} a member, the high watermark is {size(limits.high_bytes)}"
    if limits.high_ops is not None and (seen.ops_per_s or 0) > limits.high_ops * count:
        return (
            f"{(seen.ops_per_s or 0) / count:.0f} requests/s a member, the high watermark is {limits.high_ops:.0f}"
        )
    return ""


def _below(seen: Seen, limits: Limits, count: int) -> bool:
    """Whether every load is below its low watermark. One without a low watermark does not hold anything up."""
    if seen.bytes >= limits.low_bytes * count:
        return False
    return limits.low_ops is None or (seen.ops_per_s is not None and seen.ops_per_s < limits.low_ops * count)


def _load(seen: Seen, count: int) -> str:
    ops = "" if seen.ops_per_s is None else f", {seen.ops_per_s / count:.0f} requests/s"
    return f"{size(round(seen.bytes / count))}{ops} a member"


# ---- seeing ----------------------------------------------------------------------------------


class Eyes:
    """Turns reports into what the policy sees; remembers how many requests there had been."""

    def __init__(self) -> None:
        self._before: dict[tuple[NodeId, int], int] = {}
        self._at_s = 0.0

    def see(self, told: ClusterReport, staged: Sequence[Change], now_s: float) -> Seen:
        """The cluster now. Requests a second are over the time since it was seen last."""
        ring = told.ring
        counts = {(r.id, r.boot): r.counters.get("requests", 0) for r in reports_of(told)}
        known = self._before.keys() & counts.keys()
        since_s = now_s - self._at_s
        ops = sum(counts[key] - self._before[key] for key in known) / since_s if known and since_s > 0 else None
        self._before, self._at_s = counts, now_s
        odd = tuple(
            f"{member.id} {state if state != UP else 'does not answer'}"
            for member, state, report in zip(ring.members, states(told), told.reports, strict=True)
            if state != UP or report is None
        )
        return Seen(
            now_s=now_s, n=ring.n, members=tuple(m.id for m in ring.members), odd=odd,
            agreed=len({r.epoch for r in reports_of(told)}) <= 1, moving=_moving(told), staged=len(staged),
            bytes=sum(r.value_bytes for r in reports_of(told)), ops_per_s=ops,
        )  # fmt: skip


def _moving(told: ClusterReport) -> str:
    """What is on its way: moves, members that are yet to go, copies that are yet to be dropped."""
    from kvctl.render_shape import progress_text

    way = progress(told)
    if way.partitions:
        return progress_text(way)
    if told.ring.leaving:
        return f"{', '.join(told.ring.leaving)} is yet to leave"
    return f"{way.dropping} copies are yet to be dropped" if way.dropping else ""
