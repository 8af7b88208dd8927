"""The claims on versions: none lost, none invented, none under another's name, none back from the dead.

Promises: each claim takes time near linear in the operations on its key, and yields a text a violation.
Never: judges what one client sees after another; that is `visibility`.

How a version may rightly be gone. Let W's past cover the dot of V. Either W's writer had a context
that came from a record with V in it; or W was written blind, with V already asked for. And W itself
is there in the end, or rightly gone. RELIABILITY 2, "eventual mode", items 1, 2 and 5.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from kvnode.protocol.types import Actor, Past, Record, Time
from kvnode.sim.history import Dot, Op, dot_of
from kvnode.sim.story import KeyStory, Known, Writers, covers, raise_to


def one_dot_one_value(story: KeyStory) -> Iterator[str]:
    """A dot names one version, everywhere and always."""
    for known in story.sightings:
        first = story.versions[known.dot]
        if (known.value, known.past) != (first.value, first.past):
            yield f"{known.dot} is {first.value!r} {first.where}, but {known.value!r} {known.where}"


def no_invention(story: KeyStory) -> Iterator[str]:
    """What is shown or held was written to that key, by an operation not told to have failed."""
    for known in story.versions.values():
        writers = story.writers(known.dot, known.value)
        if not writers.ops:
            yield f"{known.value!r} ({known.dot}), {known.where}, was never written"
        elif writers.all_failed:
            yield f"{known.value!r} is {known.where}, but its writer was told that it failed"
    for read in story.reads:
        for v in read.shown:
            writers = story.writers(dot_of(v), v.value)
            if writers.ops and read.ended is not None and writers.asked > read.ended:
                yield f"{v.value!r} was shown by {read.number} before it was written"


def past_is_given(story: KeyStory) -> Iterator[str]:
    """A version covers what its writer's context covered, and nothing else."""
    for known in story.versions.values():
        ops = story.writers(known.dot, known.value).ops
        if ops and not any(_may_cover(op, known.past) for op in ops):
            given = [op.given for op in ops]
            yield f"{known.value!r} ({known.where}) covers {known.past}, but its writer gave {given}"


def _may_cover(op: Op, past: Past) -> bool:
    if op.given is not None:
        return all(op.given.get(actor, 0) >= time for actor, time in past.items())
    return not (op.covers_nothing and past)


# ---- nothing is lost ---------------------------------------------------------------------------


class Buried:
    """What may rightly be gone, given the versions that may stand over it so far."""

    def __init__(self) -> None:
        self._seen: dict[Dot, list[Past]] = {}
        """Dot -> the pasts of versions whose writers had seen it."""
        self._blind: dict[Actor, tuple[list[Time], list[int]]] = {}
        """Actor -> times ascending, each with until when a blind writer that covers so far may have met it;
        the later times are descending, as only what is covered longest or furthest counts."""

    def add(self, past: Past, writers: Writers) -> None:
        """A version that is there in the end, or rightly gone."""
        for op in writers.ops:
            if op.given is not None:
                for dot in op.saw:
                    self._seen.setdefault(dot, []).append(past)
        if writers.blind_until is not None:
            for actor, time in past.items():
                self._stand(actor, time, writers.blind_until)

    def _stand(self, actor: Actor, time: Time, until: int) -> None:
        times, untils = self._blind.setdefault(actor, ([], []))
        at = bisect_left(times, time)
        if at < len(times) and untils[at] >= until:
            return
        end = at + (at < len(times) and times[at] == time)
        while at and untils[at - 1] <= until:
            at -= 1
        times[at:end], untils[at:end] = [time], [until]

    def rightly(self, dot: Dot, asked: int) -> bool:
        """Whether a version that was asked for then may be gone."""
        if any(covers(past, dot) for past in self._seen.get(dot, ())):
            return True
        times, untils = self._blind.get(dot.actor, ((), ()))
        at = bisect_left(times, dot.time)
        return at < len(times) and asked <= untils[at]


def no_lost_write(story: KeyStory) -> Iterator[str]:
    """What was acknowledged or shown is there in the end, or rightly gone."""
    buried = Buried()
    # A dot is above its whole past, so whatever covers a version comes before it in this order.
    for dot, known in sorted(story.versions.items(), key=lambda item: (item[0].time, item[0].actor), reverse=True):
        writers = story.writers(dot, known.value)
        if dot in story.final or buried.rightly(dot, writers.asked):
            buried.add(known.past, writers)
        elif not story.disks_lost or dot in story.acknowledged:
            over = [k.value for k in story.versions.values() if covers(k.past, dot)]
            yield f"{known.value!r} ({dot}), {known.where}, is gone; covered by {over[:5] or 'nothing'}"


def told_is_durable(story: KeyStory) -> Iterator[str]:
    """When a client was told of a write, as many nodes as it was told had it on disk."""
    for op in (*story.writes, *story.reads):
        if op.held_then is None:
            continue
        told = [dot_of(version) for version in op.shown] if op.reads else [op.dot]
        disks = op.held_then if op.quorum else (*op.held_then, *op.kept_then)
        need = (1 if op.reads else op.acked) - story.disks_lost
        for dot in told:
            assert dot is not None
            if _at_once(disks, dot) < need and (have := _in_all(story, disks, dot)) < need:
                yield f"operation {op.number} was told of {dot}, which {have} nodes had on disk, not {need}"


def _at_once(disks: tuple[Record, ...], dot: Dot) -> int:
    return sum(any(dot_of(v) == dot or covers(v.past, dot) for v in record) for record in disks)


def _in_all(story: KeyStory, disks: tuple[Record, ...], dot: Dot) -> int:
    """As `_at_once`, through versions in between too; a disk may hold versions nobody ever saw."""
    have = 0
    for record in disks:
        known = tuple(v for v in record if dot_of(v) in story.versions)
        reached: Past = {}
        for version in record:
            raise_to(reached, version.past)
        middle = (story.reach[d] for d in story.versions if covers(reached, d))
        have += story.shows(known, dot) or covers(reached, dot) or any(covers(past, dot) for past in middle)
    return have


# ---- nothing comes back ------------------------------------------------------------------------


def deletes_stay(story: KeyStory) -> Iterator[str]:
    """Once all is quiet, no value is held that an acknowledged delete covers."""
    buried: Past = {}
    for dot, op in story.acknowledged.items():
        if op.value is None:
            raise_to(buried, story.reach[dot])
    for owner, record in story.replicas.items():
        for v in record:
            if v.value is not None and covers(buried, dot_of(v)):
                yield f"{v.value!r} ({dot_of(v)}), held by {owner}, is covered by an acknowledged delete"


def siblings_are_concurrent(story: KeyStory) -> Iterator[str]:
    """Of the versions of one record, none covers another, and none was written by one who had seen another."""
    records = [(f"shown by {op.number}", op.shown) for op in story.reads if len(op.shown) > 1]
    records += [(f"held by {owner}", record) for owner, record in story.replicas.items() if len(record) > 1]
    for where, record in records:
        covered: Past = {}
        saw: set[Dot] = set()
        for v in record:
            raise_to(covered, v.past)
            writer = story.acknowledged.get(dot_of(v))
            if writer is not None and writer.given is not None:
                saw |= {dot for dot in writer.saw if covers(writer.given, dot)}
        for v in record:
            if covers(covered, dot_of(v)) or dot_of(v) in saw:
                known = Known(dot_of(v), v.past, v.value, where)
                yield f"{known.value!r} ({known.dot}), {where}, stands beside one that was written over it"
