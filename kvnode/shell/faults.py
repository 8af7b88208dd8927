"""What the faults in force mean for one frame, one commit, the clock. Policy only; `faulty.py` performs it.

Promises: pure: time is an argument, chance a seeded `Random`; the same calls give the same fates; every
fault is over when its time has come, whoever asked for it. Never: touches a socket, a disk or a clock.

    a batch to n2 ─► cut? ─► dropped? ─► doubled? ─► each copy: delayed, held to be overtaken, damaged
    a commit      ─► slow: it has returned, and is told so later       (one at a time, as on a slow disk)
                  ─► fail: it was written, perhaps; nobody is told     full: it was not written
"""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import NamedTuple

import msgspec

from kvnode import config
from kvnode.protocol.faults import (
    CORRUPT,
    DELAY,
    DISKS,
    DROP,
    DUPLICATE,
    FAIL_FSYNC,
    FULL_DISK,
    LINKS,
    REORDER,
    SKEW,
    SLOW_DISK,
    Fault,
    spoilt,
)
from kvnode.protocol.types import Millis, NodeId, WallMillis


class Copy(NamedTuple):
    """What becomes of one copy of a batch."""

    delay_ms: float
    overtaken: bool
    """It does not keep its place: later ones may pass it."""
    damaged: bool


class Faults:
    """The faults in force in one node."""

    def __init__(self, me: NodeId, rng: Random, counters: Counter[str]) -> None:
        self._me = me
        self._rng = rng
        self.counters = counters
        """What they did is counted here."""
        self._ends: dict[str, Millis] = {}
        self._faults: dict[str, Fault] = {}
        self._note()

    # ---- which there are -------------------------------------------------------------------

    @property
    def all(self) -> tuple[Fault, ...]:
        """Oldest first."""
        return tuple(self._faults.values())

    def begin(self, fault: Fault, for_ms: int, now: Millis, wall: WallMillis) -> Fault:
        """Put a fault in force, in place of one of the same id. `wall` is the true wall clock."""
        assert fault.concerns(self._me)
        fault = msgspec.structs.replace(fault, since=wall, expires_at=wall + for_ms)
        self._faults[fault.id] = fault
        self._ends[fault.id] = now + for_ms
        self._note()
        return fault

    def end(self, fault: Fault) -> None:
        """A fault is over."""
        del self._faults[fault.id], self._ends[fault.id]
        self._note()

    def expire(self, now: Millis) -> list[Fault]:
        """End those whose time has come, and say which."""
        over = [fault for fault in self._faults.values() if self._ends[fault.id] <= now]
        for fault in over:
            self.end(fault)
        return over

    @property
    def next_end(self) -> Millis | None:
        """When the next one is over."""
        return min(self._ends.values(), default=None)

    def _note(self) -> None:
        """What is asked for often, worked out once."""
        faults = self._faults.values()
        self.on_links = any(fault.kind in LINKS for fault in faults)
        self.on_disk = any(fault.kind in DISKS for fault in faults)
        self.skew_ms = int(sum(fault.amount for fault in faults if fault.kind == SKEW))
        self.commit_ms = sum(fault.amount for fault in faults if fault.kind == SLOW_DISK)
        kinds = {fault.kind for fault in faults}
        self.disk_full, self.fsync_fails = FULL_DISK in kinds, FAIL_FSYNC in kinds

    # ---- frames ----------------------------------------------------------------------------

    def hears(self, peer: NodeId) -> bool:
        """Whether what this peer sends arrives."""
        if any(fault.cuts(peer, self._me) for fault in self._faults.values()):
            self.counters["fault_cut"] += 1
            return False
        return True

    def fates(self, peer: NodeId) -> list[Copy]:
        """What becomes of a batch to this peer: a copy or two, or none."""
        chance, counters = self._rng.random, self.counters
        delay, overtaken, copies, damaged = 0.0, False, 1, False
        for fault in self._faults.values():
            if fault.cuts(self._me, peer):
                counters["fault_cut"] += 1
                return []
            if not fault.strikes(self._me, peer):
                continue
            if fault.kind == DELAY:
                delay += max(0.0, fault.amount + fault.jitter_ms * (2 * chance() - 1))
                counters["fault_delayed"] += 1
            elif chance() < fault.amount:
                match fault.kind:
                    case _ if fault.kind == DROP:
                        counters["fault_dropped"] += 1
                        return []
                    case _ if fault.kind == DUPLICATE:
                        counters["fault_duplicated"] += 1
                        copies = 2
                    case _ if fault.kind == REORDER:
                        counters["fault_reordered"] += 1
                        overtaken = True
                    case _ if fault.kind == CORRUPT:
                        counters["fault_corrupted"] += 1
                        damaged = True
        held = config.FAULT_OVERTAKEN_MS if overtaken else 0
        return [
            Copy(delay + held, overtaken, damaged),
            *[Copy(delay, overtaken=False, damaged=False)] * (copies - 1),
        ]

    def damage(self, frame: bytes | bytearray, start: int) -> bytes:
        """The frame so that nobody can read its batch, which begins at `start`."""
        return spoilt(frame, start, self._rng)


class SlowCommits:
    """Commits that have returned, and are told of later: one under way at a time, the others in its wake."""

    def __init__(self) -> None:
        self._flying = 0
        """The last turn of the commit under way; 0 when none is."""
        self._lands_at: Millis = 0
        self._floor = 0
        """The last turn before it."""
        self._waiting = 0
        """The last turn that waits for the next commit."""
        self.bytes = 0
        """Of what is under way or waits."""

    @property
    def idle(self) -> bool:
        """Whether nothing is held back."""
        return not self._flying

    @property
    def lands_at(self) -> Millis | None:
        """When the commit under way may be told of."""
        return self._lands_at if self._flying else None

    def submit(self, number: int, size: int, now: Millis, delay_ms: float) -> None:
        """A turn was handed to the engine."""
        self.bytes += size
        if self._flying:
            self._waiting = number
        else:
            self._floor, self._flying, self._lands_at = number - 1, number, now + delay_ms

    def durable(self, real: int, now: Millis, delay_ms: float) -> int:
        """What to tell the loop, when the engine says `real`."""
        while self._flying and real >= self._flying and (now >= self._lands_at or not delay_ms):
            self._floor, self._flying, self.bytes = self._flying, 0, 0
            if self._waiting:
                self._flying, self._waiting, self._lands_at = self._waiting, 0, now + delay_ms
        return min(real, self._floor) if self._flying else real
