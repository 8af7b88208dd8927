"""What is broken, why, and when it heals: the first thing an operator asks. Pure.

Promises: every time left follows from a fault's own end or from a rate that was measured; where nothing
moves it says what it waits for. Never: a time left that is a guess.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

from msgspec import Struct

from kvctl.console.sample import GONE, HELD
from kvctl.console.view import ClusterView, Row
from kvctl.health import DOWN, SUSPECT, span
from kvctl.render_faults import Listed
from kvnode.protocol import faults as inside

CRITICAL, DEGRADED, NOTE = "CRITICAL", "DEGRADED", "NOTE"
LEVELS = (CRITICAL, DEGRADED, NOTE)
CLOCK_WARN_MS = 2_000
DISK_WARN_BYTES = 1_000_000_000


class Trouble(Struct, frozen=True):
    """One thing that is not as it should be."""

    key: str
    level: str
    what: str
    why: str
    heals: str
    command: tuple[str, ...] = ()
    """A kvctl command that helps."""


class Verdict(Struct, frozen=True):
    """Can I read and write now?"""

    word: str
    level: str
    """Empty when all is well."""
    text: str


def verdict_of(view: ClusterView) -> Verdict:
    """The answer in a word, and in a sentence."""
    if not view.at_ms:
        return Verdict("LOOKING", NOTE, "no answer yet")
    if view.problem or view.ring is None:
        return Verdict("CANNOT SEE", CRITICAL, view.problem or "no node has told of a ring")
    reach, q = view.reach, view.ring.q
    short = q - reach.served
    if short == 0 and len(reach.sides) > 1:
        told = ", ".join(f"{','.join(side.nodes)} {side.served}" for side in reach.sides)
        text = f"each partition has a quorum on one side only ({told} of {q}); each side takes eventual puts"
        return Verdict("SPLIT", DEGRADED, text)
    if short == 0:
        left = f"one more failure would leave {reach.margin:.0%} of them"
        if reach.margin == 1:
            left = "any one more node may fail"
        level = "" if all(have == len(o) for have, o in zip(reach.live, view.ring.owners, strict=True)) else NOTE
        return Verdict("READ-WRITE", level, f"every partition has a quorum for reads and writes; {left}")
    eventual = "puts of mode eventual are taken" if reach.writable else "nothing can be written"
    if reach.served == 0:
        return Verdict("NO QUORUM", CRITICAL, f"no partition has a quorum; {eventual}")
    return Verdict("PARTIAL", CRITICAL, f"{short} of {q} partitions have no quorum; {eventual}")


def troubles_of(view: ClusterView, now_ms: int) -> list[Trouble]:
    """All that is not as it should be, the worst first."""
    if view.problem:
        found = [
            Trouble(
                "blind",
                CRITICAL,
                "nothing can be seen",
                view.problem,
                "as soon as one node answers",
                ("up",) if view.sample.processes else (),
            )
        ]
    elif view.ring is None:
        found = [Trouble("looking", NOTE, "nothing is known yet", "no node has answered", "in a moment")]
    else:
        found = [*_quorum(view), *_sides(view, now_ms), *_epochs(view)]
    found += [t for row in view.rows for t in _node(view, row, now_ms)]
    found += _faults(view, now_ms)
    found += _hints(view)
    found += _repair(view)
    return sorted(found, key=lambda t: LEVELS.index(t.level))


def ends(fault: Listed, now_ms: int) -> str:
    """When a fault ends, for people."""
    if fault.expires is None:
        return "until healed"
    return f"by itself in {span(max(0, fault.expires - now_ms) + 999)}"


def _quorum(view: ClusterView) -> Iterator[Trouble]:
    assert view.ring is not None
    short = view.ring.q - view.reach.served
    if not short:
        return
    out = ", ".join(row.id for row in view.rows if row.state == DOWN or not row.fresh)
    yield Trouble(
        "quorum",
        CRITICAL,
        f"{short} of {view.ring.q} partitions have no quorum",
        f"{out} cannot be reached" if out else "their owners do not reach each other",
        "when enough owners are back",
    )


def _sides(view: ClusterView, now_ms: int) -> Iterator[Trouble]:
    """Nodes that all tell us something, and do not reach each other."""
    sides = view.reach.sides
    if len(sides) < 2:
        return
    named = " | ".join(",".join(side.nodes) for side in sides)
    assert view.ring is not None
    told = f"quorums {' | '.join(str(side.served) for side in sides)} of {view.ring.q}"
    cuts = [fault for fault in view.faults if fault.kind == inside.PARTITION]
    heals = "when they hear each other again"
    command: tuple[str, ...] = ()
    if cuts:
        last = max(cuts, key=lambda fault: fault.expires or 0)
        told = f"{', '.join(fault.id for fault in cuts)} {inside.PARTITION}; {told}"
        heals, command = ends(last, now_ms), ("fault", "heal", cuts[0].id if len(cuts) == 1 else "--all")
    yield Trouble("split", DEGRADED, f"nodes are cut off: {named}", told, heals, command)


def _epochs(view: ClusterView) -> Iterator[Trouble]:
    epochs = {row.report.epoch for row in view.rows if row.fresh and row.report is not None}
    if len(epochs) > 1:
        told = ", ".join(f"{row.id} {row.report.epoch}" for row in view.rows if row.fresh and row.report)
        yield Trouble(
            "epoch", DEGRADED, "the ring is not agreed", f"epochs: {told}", "by gossip, in a second or two"
        )
    walls = [row.report.wall_ms for row in view.rows if row.fresh and row.report is not None]
    if walls and max(walls) - min(walls) > CLOCK_WARN_MS:
        apart = span(max(walls) - min(walls))
        yield Trouble(
            "clocks", DEGRADED, f"clocks are {apart} apart", "the nodes' own wall clocks", "not by itself"
        )


def _node(view: ClusterView, row: Row, now_ms: int) -> Iterator[Trouble]:
    report = row.report
    if not row.fresh or (row.state in (DOWN, SUSPECT) and len(view.reach.sides) < 2):
        yield _away(row, now_ms)
    if not row.fresh or report is None:
        return
    if not report.writable:
        why = report.problem or "it does not say why"
        yield Trouble(
            f"stuck {row.id}",
            DEGRADED,
            f"{row.id} takes no writes",
            why,
            "by a restart",
            ("fault", "restart", row.id) if row.process else (),
        )
    if report.recovering:
        yield Trouble(
            f"recovering {row.id}",
            DEGRADED,
            f"{row.id} counts for no quorum read in {report.recovering} partitions",
            "its disk was lost, or away for long",
            "as the other owners vouch, or by exchanges",
            ("repair", "run"),
        )
    if report.voteless:
        yield Trouble(
            f"votes {row.id}",
            DEGRADED,
            f"{row.id} casts no ballots in {report.voteless} partitions",
            "its disk was lost; mode strong and scans wait there",
            "as others tell it their registers; where most disks were lost, by `kvctl repair waive`",
        )
    if report.disk_free_bytes < DISK_WARN_BYTES:
        free = f"{report.disk_free_bytes / 1e6:.0f} MB free"
        yield Trouble(f"disk {row.id}", DEGRADED, f"the disk of {row.id} is almost full", free, "not by itself")


def _away(row: Row, now_ms: int) -> Trouble:
    """A node that is down, suspected, or silent, and what is known of why."""
    process = row.process.state if row.process is not None else ""
    fault = next(iter(row.faults), None)
    word = "down" if row.state == DOWN else "suspected" if row.state == SUSPECT else "silent"
    silent = f"silent for {span(now_ms - row.heard_ms)}" if row.heard_ms is not None else "not heard of yet"
    if row.fresh:
        why = f"{row.observers - row.seen_by} of {row.observers} others do not hear it, it answers us"
    elif process == GONE:
        why = f"its process is gone, {silent}"
    elif process == HELD:
        why = f"its process is paused, {silent}"
    else:
        why = f"{silent}, seen by {row.seen_by} of {row.observers}"
    command: tuple[str, ...] = ()
    if fault is not None:
        heals, command = ends(fault, now_ms), ("fault", "heal", fault.id)
        why = f"{fault.id} {fault.kind} {fault.target}; {why}"
    elif process == GONE:
        heals, command = "when it is started", ("node", "start", row.id)
    elif row.state == SUSPECT and row.fresh:
        heals = "as it is heard again"
    else:
        heals = "when it answers"
    return Trouble(f"node {row.id}", DEGRADED, f"{row.id} is {word}", why, heals, command)


def _faults(view: ClusterView, now_ms: int) -> Iterator[Trouble]:
    """Faults that struck no node down."""
    told = {fault.id for row in view.rows if row.state != "up" or not row.fresh for fault in row.faults[:1]}
    if len(view.reach.sides) > 1:
        told |= {fault.id for fault in view.faults if fault.kind == inside.PARTITION}
    for fault in view.faults:
        if fault.id in told:
            continue
        level = DEGRADED if fault.kind == inside.PARTITION else NOTE
        value = f" {fault.value}" if fault.value else ""
        yield Trouble(
            f"fault {fault.id}",
            level,
            f"{fault.kind} {fault.target}{value}",
            f"fault {fault.id} is {fault.state}",
            ends(fault, now_ms),
            ("fault", "heal", fault.id),
        )


def _hints(view: ClusterView) -> Iterator[Trouble]:
    """Per owner: what waits for it, and how fast that goes."""
    owners = dict.fromkeys(held.hints.owner for held in view.hints)
    for owner in owners:
        kept = [held for held in view.hints if held.hints.owner == owner]
        count, rate = sum(h.hints.count for h in kept), sum(h.hints.per_s for h in kept)
        what = f"{count:,} hint{'' if count == 1 else 's'} for {owner}"
        why = f"kept by {', '.join(h.holder for h in kept)}, the oldest for {span(max(h.age_ms for h in kept))}"
        if rate > 0:
            heals = f"in {span(ceil(count / rate) * 1000)}, at {rate:,.0f}/s"
        elif not any(h.hints.reachable for h in kept):
            heals = f"waits for {owner}"
        else:
            heals = "delivery begins soon"
        yield Trouble(f"hints {owner}", NOTE, what, why, heals, ("hints", "deliver", owner))


def _repair(view: ClusterView) -> Iterator[Trouble]:
    missed = [row for row in view.rows if row.fresh and row.report is not None and row.report.needs_repair]
    if missed:
        told = ", ".join(f"{row.id} {row.report.needs_repair}" for row in missed if row.report)
        yield Trouble(
            "missed",
            NOTE,
            "copies missed a write for which there is no hint",
            told,
            "by the next exchange",
            ("repair", "run"),
        )
    paused = [
        row.id for row in view.rows if row.fresh and row.report and row.report.repair and row.report.repair.paused
    ]
    if paused:
        yield Trouble(
            "paused",
            NOTE,
            "repair is paused",
            f"on {', '.join(paused)}",
            "when it is resumed",
            ("repair", "resume"),
        )
