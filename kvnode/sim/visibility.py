"""The claims on what is seen: by a read after a write, and by one client from one operation to the next.

Promises: one sweep over the operations of a key in the order of time, near linear. Never: compares each
read with each write: what was acknowledged is one time an actor, and a read reaches it or does not.

    quorum_reads_see    a `quorum` read shows, or has covered, every write acknowledged in that mode before
    read_your_writes    ...those of its own client, named apart: a client notices
    monotonic_reads     ...and what an earlier `quorum` read showed, of whichever client, acknowledged or not
    deletes_are_seen    ...and shows no value that a delete, acknowledged in that mode before, covers
    stale reads         counted, whatever the mode: a promise of `quorum` alone
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from kvnode.protocol.types import Actor, Past, Record, Time
from kvnode.sim.history import Dot, Op, dot_of
from kvnode.sim.story import KeyStory, covers, raise_to


class Due:
    """Versions a read must show or have covered."""

    def __init__(self, story: KeyStory) -> None:
        self._story = story
        self._latest: dict[Actor, Time] = {}
        self._all: dict[Actor, list[tuple[Time, int]]] = {}
        """Actor -> its times in order, each with the operation that told of it."""
        self._added: set[Dot] = set()

    def add(self, dot: Dot, number: int) -> None:
        """From now on this one too."""
        if dot not in self._added:
            self._added.add(dot)
            self._latest[dot.actor] = max(self._latest.get(dot.actor, 0), dot.time)
            insort(self._all.setdefault(dot.actor, []), (dot.time, number))

    def missing(self, shown: Record) -> Iterator[tuple[Dot, int]]:
        """Those that a record neither shows nor covers."""
        reach = self._story.reach_of(shown)
        dots = {dot_of(version) for version in shown}
        for actor, latest in self._latest.items():
            seen = reach.get(actor, 0)
            if seen < latest:
                times = self._all[actor]
                for time, number in times[bisect_right(times, (seen, 1 << 62)) :]:
                    if (dot := Dot(actor, time)) not in dots:
                        yield dot, number


class Step(NamedTuple):
    """A moment at which an operation begins to count, or is judged."""

    at: int
    over: bool
    """Whether it ends here, and counts from now on; else a read begins, and is judged, before what ends then."""
    op: Op


def steps(ops: Sequence[Op]) -> list[Step]:
    """Acknowledged writes and answered reads where they begin to count, and reads where they are judged."""
    found = [Step(op.invoked, False, op) for op in ops if op.reads]
    found += [Step(op.ended, True, op) for op in ops if op.ended is not None and (op.reads or op.dot is not None)]
    return sorted(found, key=lambda step: (step.at, step.over, step.op.number))


def quorum_reads_see(story: KeyStory) -> Iterator[str]:
    """A `quorum` read shows, or has covered, every write acknowledged in that mode before it began."""
    due = Due(story)
    for _, over, op in steps([op for op in (*story.writes, *story.reads) if op.quorum]):
        if op.dot is not None:
            due.add(op.dot, op.number)
        elif op.reads and not over:
            for dot, number in due.missing(op.shown):
                value = story.versions[dot].value
                yield f"read {op.number} does not see {value!r}, acknowledged as {number} before it began"


def read_your_writes(story: KeyStory) -> Iterator[str]:
    """A `quorum` read sees what its own client was told was written in that mode."""
    mine: dict[str, Due] = {}
    for _, over, op in steps([op for op in (*story.writes, *story.reads) if op.quorum]):
        due = mine.setdefault(op.client, Due(story))
        if op.dot is not None:
            due.add(op.dot, op.number)
        elif op.reads and not over:
            for dot, number in due.missing(op.shown):
                value = story.versions[dot].value
                yield f"read {op.number} of {op.client} does not see its own write {number}, {value!r}"


def monotonic_reads(story: KeyStory) -> Iterator[str]:
    """A `quorum` read sees what an earlier one saw, whoever asked: it was written back (`core/writeback`)."""
    due = Due(story)
    for _, over, op in steps([op for op in story.reads if op.quorum]):
        if over:
            for dot in map(dot_of, op.shown):
                # What nobody was told is written may go with the only disk it was on.
                if not story.disks_lost or dot in story.acknowledged:
                    due.add(dot, op.number)
        else:
            for dot, number in due.missing(op.shown):
                value = story.versions[dot].value
                yield f"read {op.number} of {op.client} does not see {value!r}, which read {number} showed before"


def deletes_are_seen(story: KeyStory) -> Iterator[str]:
    """A `quorum` read shows no value that a delete, acknowledged in that mode before, covers."""
    buried: Past = {}
    for _, over, op in steps([op for op in (*story.writes, *story.reads) if op.quorum]):
        if op.dot is not None and op.value is None:
            raise_to(buried, story.reach[op.dot])
        elif op.reads and not over:
            for v in op.shown:
                if v.value is not None and covers(buried, dot_of(v)):
                    yield f"read {op.number} shows {v.value!r} ({dot_of(v)}), deleted before it began"


def stale_reads(story: KeyStory) -> int:
    """How many reads did not see a write that had been acknowledged, in any mode, before they began."""
    due, stale = Due(story), 0
    for _, over, op in steps((*story.writes, *story.reads)):
        if op.dot is not None:
            due.add(op.dot, op.number)
        elif op.reads and not over:
            stale += next(due.missing(op.shown), None) is not None
    return stale
