"""The story of one key: everything anyone was told of it or holds of it, indexed for the claims.

Promises: built in time near linear in the operations; a version's reach is what it covers, at once or
through versions in between (a long past is pruned, Dynamo §4.4, and may have forgotten it).
Never: judges; that is `claims` and `visibility`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from typing import NamedTuple

from kvnode.protocol.types import Actor, Past, Record, Time, Version
from kvnode.sim.history import Dot, Op, Outcome, dot_of

Replicas = Mapping[str, Record]
NEVER_ENDED = 1 << 62


class Known(NamedTuple):
    """A version that someone was told of, or that a disk holds."""

    dot: Dot
    past: Past
    value: bytes | None
    where: str


class Writers:
    """The operations that may have made a version, summed up once: a tombstone may have many."""

    __slots__ = ("all_failed", "asked", "blind_until", "ops")

    def __init__(self, ops: Sequence[Op]) -> None:
        self.ops = ops
        self.asked = min((op.invoked for op in ops), default=0)
        """When the first of them was asked for."""
        self.all_failed = bool(ops) and all(op.outcome is Outcome.FAILED for op in ops)
        blind = [op for op in ops if op.given is None and not op.covers_nothing]
        ends = [NEVER_ENDED if op.ended is None else op.ended for op in blind]
        self.blind_until: int | None = max(ends, default=None) if ops else NEVER_ENDED
        """Until when one of them, writing blind, may have met other versions; None if none was blind."""


class KeyStory:
    """All that is known of one key."""

    def __init__(self, key: bytes, ops: Sequence[Op], replicas: Replicas, *, disks_lost: bool = False) -> None:
        self.disks_lost = disks_lost
        self.key = key
        self.writes = [op for op in ops if not op.reads]
        self.reads = [op for op in ops if op.reads]
        self.replicas = replicas
        self.sightings = list(_sightings(self.writes, self.reads, replicas))
        self.versions: dict[Dot, Known] = {}
        for known in self.sightings:
            self.versions.setdefault(known.dot, known)
        self.final = {dot_of(version) for version in merged(replicas.values())}
        self.acknowledged = {op.dot: op for op in self.writes if op.dot is not None}
        self._exact = {dot: Writers((op,)) for dot, op in self.acknowledged.items()}
        by_value: dict[bytes | None, list[Op]] = {}
        for op in self.writes:
            by_value.setdefault(op.value, []).append(op)
        self._by_value = {value: Writers(ops) for value, ops in by_value.items()}
        self._nobody = Writers(())

    def writers(self, dot: Dot, value: bytes | None) -> Writers:
        """The operations that may have made a version: one where a client was told its dot.

        Otherwise its value names the operation and its retries, and a tombstone may be any delete's:
        an acknowledged one too may have made two dots, for nodes retry on their own (`core.forward`).
        """
        exact = self._exact.get(dot)
        return exact if exact is not None else self._by_value.get(value, self._nobody)

    # ---- what covers what ------------------------------------------------------------------

    @cached_property
    def reach(self) -> dict[Dot, Past]:
        """Of each known version, everything it covers, at once or through known versions in between."""
        found: dict[Dot, Past] = {}
        behind: dict[Actor, tuple[list[Time], list[Past]]] = {}
        # A dot is above its whole past, so what a version covers comes before it in this order.
        for dot in sorted(self.versions, key=lambda dot: (dot.time, dot.actor)):
            past = self.versions[dot].past
            reach, done = dict(past), 0
            for actor, time in past.items():
                times, pasts = behind.get(actor, _NOTHING)
                at = bisect_right(times, time)
                if at and id(pasts[at - 1]) != done:
                    done = id(pasts[at - 1])
                    raise_to(reach, pasts[at - 1])
            found[dot] = reach
            times, pasts = behind.setdefault(dot.actor, ([], []))
            times.append(dot.time)
            pasts.append(_join(pasts[-1], reach) if pasts else reach)
        return found

    def reach_of(self, shown: Record) -> Past:
        """What the versions of a record cover together."""
        if len(shown) == 1:
            return self.reach[dot_of(shown[0])]
        together: Past = {}
        for version in shown:
            raise_to(together, self.reach[dot_of(version)])
        return together

    def shows(self, shown: Record, dot: Dot) -> bool:
        """Whether a version is shown, or covered by what is shown."""
        if any(dot_of(version) == dot or covers(version.past, dot) for version in shown):
            return True
        return any(covers(self.reach[dot_of(version)], dot) for version in shown)


_NOTHING: tuple[list[Time], list[Past]] = ([], [])


def covers(past: Past, dot: Dot) -> bool:
    """Whether a past covers a version."""
    return past.get(dot.actor, 0) >= dot.time


def raise_to(past: Past, other: Past) -> None:
    """Have a past cover what another one does."""
    for actor, time in other.items():
        if past.get(actor, 0) < time:
            past[actor] = time


def _join(old: Past, new: Past) -> Past:
    """Both; the newer one itself where it covers the older."""
    if all(new.get(actor, 0) >= time for actor, time in old.items()):
        return new
    both = dict(old)
    raise_to(both, new)
    return both


def merged(records: Iterable[Record]) -> list[Version]:
    """The versions that no other version's past covers, whoever holds them; by the definition, not by speed."""
    union = {dot_of(version): version for version in chain.from_iterable(records)}
    return [v for dot, v in sorted(union.items()) if not any(covers(w.past, dot) for w in union.values())]


def _sightings(writes: list[Op], reads: list[Op], replicas: Replicas) -> Iterator[Known]:
    for op in writes:
        if op.dot is not None and op.past is not None:
            yield Known(op.dot, op.past, op.value, f"acknowledged as {op.number}")
    for op in reads:
        for v in op.shown:
            yield Known(dot_of(v), v.past, v.value, f"shown by {op.number}")
    for owner, record in replicas.items():
        for v in record:
            yield Known(dot_of(v), v.past, v.value, f"held by {owner}")
