"""The rules of `kvctl check`: a state and a sentence each. Pure.

Promises: a rule judges what the reports tell, and says on what ground. Never: a rule that a healthy
cluster, fresh or at rest, does not pass.
"""

from __future__ import annotations

from msgspec import Struct

from kvctl.conditions import ring_ready
from kvctl.health import (
    DOWN,
    SUSPECT,
    epoch_agreed,
    held,
    margin,
    reports_of,
    short_of_quorum,
    silent,
    size,
    span,
    states,
    up_of,
)
from kvctl.shape import replicas, settled, shares
from kvnode.config import CLOCK_AHEAD_MAX_MS, DISK_WARN_BYTES, Settings
from kvnode.protocol.messages import ClusterReport

OK, WARN, FAIL = "OK", "WARN", "FAIL"
CLOCK_WARN_MS = 1_000
"""Clocks further apart than this are told of; a minute apart, times are refused."""
REPAIR_WARN_MS = 10 * Settings().repair_interval_ms
"""Ten rounds missed: something keeps a partition from being compared."""
REPAIR_FAIL_MS = Settings().grace_ms
"""From here on tombstones cannot be reaped, and a copy that missed a delete is not to be trusted."""


OFF_SHARE = 1.001
"""A whole number of partitions is within one of any share."""


class Finding(Struct, frozen=True):
    """What a rule of `check` found."""

    rule: str
    state: str
    detail: str


def findings(told: ClusterReport) -> list[Finding]:
    """Every rule, in the order they are shown."""
    rules = (
        _ring, _members, _coverage, _quorum, _writable, _hints, _clocks, _repair_age, _missed, _recovering,
        _votes, _disk, _balance,
    )  # fmt: skip
    return [rule(told) for rule in rules]


def verdict(found: list[Finding]) -> str:
    """The worst state of all."""
    worst = {f.state for f in found}
    return FAIL if FAIL in worst else WARN if WARN in worst else OK


def _members(told: ClusterReport) -> Finding:
    """Who is held to be suspect or down; what that costs is for the rules below."""
    by_state: dict[str, list[str]] = {}
    for member, state in zip(told.ring.members, states(told), strict=True):
        by_state.setdefault(state, []).append(member.id)
    odd = [f"{', '.join(by_state[state])} {state}" for state in (DOWN, SUSPECT) if state in by_state]
    odd += [f"{node} did not answer" for node in silent(told) if node not in by_state.get(DOWN, ())]
    if odd:
        return Finding("members", WARN, f"{'; '.join(odd)} (as {told.asked} concludes)")
    return Finding("members", OK, f"all {len(told.ring.members)} members are up")


def _ring(told: ClusterReport) -> Finding:
    problem = ring_ready(told)
    if problem and epoch_agreed(told) and (told.ring.moves or told.ring.leaving):
        # What is on its way is as it should be, and not at rest.
        return Finding("ring agreed", WARN, problem)
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


def _hints(told: ClusterReport) -> Finding:
    """Hints that are being delivered are no harm; those that cannot be are a copy less."""
    kept = held(told)
    if not kept:
        return Finding("hints", OK, "no node that answers keeps a hint")
    stuck = sorted({h.hints.owner for h in kept if not h.hints.reachable})
    count, taken = sum(h.hints.count for h in kept), size(sum(h.hints.bytes for h in kept))
    oldest = span(max(h.age_ms for h in kept))
    text = f"{count} hints are kept ({taken}, the oldest for {oldest})"
    if stuck:
        return Finding("hints", WARN, f"{text}; {', '.join(stuck)} cannot be reached to take them")
    return Finding("hints", WARN, f"{text}; they are being delivered")


def _clocks(told: ClusterReport) -> Finding:
    walls = [r.wall_ms for r in reports_of(told)]
    spread = max(walls) - min(walls)
    state = OK if spread < CLOCK_WARN_MS else WARN if spread < CLOCK_AHEAD_MAX_MS else FAIL
    return Finding("clock skew", state, f"the clocks are at most {spread} ms apart")


def _repair_age(told: ClusterReport) -> Finding:
    """How long ago, at the most, a partition was last compared with another owner."""
    if all(r.repair is None for r in reports_of(told)):
        return Finding("repair age", OK, "no node that answers compares copies")
    age, node, never = max(_ages(told))
    state = OK if age < REPAIR_WARN_MS else WARN if age < REPAIR_FAIL_MS else FAIL
    text = f"at most {span(age)} ({node})"
    if never:
        text = f"{node} has had {span(age)} since {never} and has not compared all"
    paused = [r.id for r in reports_of(told) if r.repair is not None and r.repair.paused]
    if paused:
        return Finding(
            "repair age", max(state, WARN, key=(OK, WARN, FAIL).index), f"{text}; paused on {', '.join(paused)}"
        )
    return Finding("repair age", state, text)


def _ages(told: ClusterReport) -> list[tuple[float, str, str]]:
    """(Age of the exchange that lies longest back, node, what began the wait where there never was one)."""
    ages: list[tuple[float, str, str]] = []
    for r in reports_of(told):
        if r.repair is not None and r.repair.oldest_ms:
            ages.append((r.wall_ms - r.repair.oldest_ms, r.id, ""))
        elif r.repair is not None and r.repair.since_ms:
            ages.append((r.wall_ms - r.repair.since_ms, r.id, "its owners changed"))
        elif r.repair is not None:
            ages.append((r.uptime_ms, r.id, "its start"))
    return ages


def _missed(told: ClusterReport) -> Finding:
    """Writes that an owner missed and for which no hint is kept: the next exchange mends them."""
    missed = [r for r in reports_of(told) if r.needs_repair]
    if not missed:
        return Finding("needs repair", OK, "no owner is known to have missed a write without a hint")
    told_by = ", ".join(f"{r.id} {r.needs_repair}" for r in missed)
    return Finding("needs repair", WARN, f"copies known to have missed a write without a hint: {told_by}")


def _recovering(told: ClusterReport) -> Finding:
    """Nodes that lost their disk, or were away for too long, and are being made whole."""
    found = [f"{r.id} in {r.recovering} partitions" for r in reports_of(told) if r.recovering]
    if not found:
        return Finding("recovering", OK, "every copy counts for quorum reads")
    return Finding("recovering", WARN, f"not counted for quorum reads yet: {', '.join(found)}")


def _votes(told: ClusterReport) -> Finding:
    """Nodes that cast no ballots in some partitions, where mode `strong` and scans wait for them."""
    lost = [f"{r.id} in {r.voteless} partitions" for r in reports_of(told) if r.voteless]
    if lost:
        way_out = "where most disks of one were lost, it stays so until `kvctl repair waive`"
        return Finding("votes", WARN, f"no ballots yet of {', '.join(lost)}, whose registers were lost; {way_out}")
    waived = [f"{r.id} in {r.waived} partitions" for r in reports_of(told) if r.waived]
    given_up = f"; what lost disks held was given up: {', '.join(waived)}" if waived else ""
    return Finding("votes", OK, f"every owner casts ballots{given_up}")


def _disk(told: ClusterReport) -> Finding:
    least = min(reports_of(told), key=lambda r: r.disk_free_bytes)
    state = OK if least.disk_free_bytes >= DISK_WARN_BYTES else WARN
    return Finding("disk", state, f"{size(least.disk_free_bytes)} free at the least ({least.id})")


def _balance(told: ClusterReport) -> Finding:
    """Replicas by weight, as they will be when what is pending is done; who leaves, or weighs nothing, apart."""
    ring = settled(told.ring)
    held, due = replicas(ring), shares(ring)
    counts = [held[node] for node in due] or [0]
    text = f"{min(counts)}..{max(counts)} partitions a node" + " once the moves are done" * bool(told.ring.moves)
    off = {node: held[node] for node, share in due.items() if abs(held[node] - share) > OFF_SHARE}
    if not off:
        return Finding("balance", OK, text)
    worst = max(off, key=lambda node: abs(off[node] - due[node]))
    return Finding("balance", WARN, f"{text}; {worst} has {held[worst]}, its share is {due[worst]:.0f}")
