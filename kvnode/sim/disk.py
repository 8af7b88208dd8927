"""The disk: makes writes visible at once and durable later, and forgets in between when power fails.

Promises: a turn counts as durable only when it and all before it would survive a crash; after one,
exactly a prefix of the turns is there: all that were durable, and maybe some that nobody was told of.
Never: tears a turn, reorders two, or keeps an actor: that knowledge ends with the boot.

    submit(7) ──► visible ──► [commit: seeded time, one group at a time] ──► durable == 7
                     └─ crash: a random prefix of what was not yet durable survives
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import nsmallest
from random import Random

import msgspec

from kvnode.core.merkle import HashTree, leaf_of
from kvnode.core.outbox import GONE, Aside, Hint, HintKey, Stored, Unreadable
from kvnode.core.registers import weigh
from kvnode.core.versions import ABSENT, NO_ACTOR, Held, held_of, merge_held
from kvnode.protocol.types import Record
from kvnode.sim.clock import Tenths, tenths
from kvnode.sim.events import Timeline, Trace

Writes = dict[bytes, Held]
DISK_ID_BITS = 63


class SimDisk:
    """One node's disk: it outlives the boots. Also the core's `Store`."""

    COMMIT: tuple[Tenths, Tenths] = (3, 20)
    """Shortest and longest time a commit takes, on a disk that is well."""

    def __init__(self, name: str, timeline: Timeline, trace: Trace, rng: Random) -> None:
        self._name = name
        self._timeline = timeline
        self._trace = trace
        self._rng = rng
        self._view: Writes = {}
        self._leaves: dict[int, dict[bytes, None]] = {}
        self.tree = HashTree()
        """Of the view: what `get` shows."""
        self._facts: dict[str, bytes] = {}
        self._platter: Writes = {}
        self._platter_hints: dict[HintKey, Hint] = {}
        self._platter_facts: dict[str, bytes] = {}
        self._registers: dict[bytes, bytes] = {}
        self._register_leaves: dict[int, dict[bytes, None]] = {}
        self._platter_registers: dict[bytes, bytes] = {}
        self._pending: deque[tuple[int, Writes, Aside | None]] = deque()
        self.disk_id = rng.getrandbits(DISK_ID_BITS)
        """Drawn anew when the disk is wiped."""
        self.wiped = False
        self._damaged: dict[bytes, None] = {}
        self._committing = False
        self._opened = 0
        """How often it was opened: a commit of an earlier boot means nothing to this one."""
        self._stalled_until: Tenths = 0
        self._fail_next = False
        self._full = False
        self.written = 0
        """Records submitted, of all boots."""
        self.durable = 0
        """The last turn of this boot that would survive a crash."""
        self.failed = False
        """Whether a commit failed: nothing more can be acknowledged in this boot."""
        self.commit = self.COMMIT
        self.on_commit: Callable[[], None] = _ignore
        """Called when a commit has returned, well or not."""

    # ---- the core's Store ------------------------------------------------------------------

    def get(self, key: bytes) -> Held | None:
        """What is held of a key."""
        if self._damaged and key in self._damaged:
            raise Unreadable
        return self._view.get(key)

    def scan(self, after: bytes, prefix: bytes, limit: int) -> list[Stored]:
        """Up to `limit` keys above `after` that start with `prefix`, in byte order."""
        keys = nsmallest(limit, (k for k in self._view if k > after and k.startswith(prefix)))
        return [Stored(key, self._read(key)) for key in keys]

    def leaf(self, leaf: int) -> list[tuple[bytes, Held | None]]:
        """Every key in a leaf of the tree, and what is held of it."""
        keys = sorted(self._leaves.get(leaf, ()))
        return [(key, None if key in self._damaged else self._view[key]) for key in keys]

    def mend_leaf(self, leaf: int) -> bool:
        """Count a leaf of the tree anew from its records and registers."""
        entries = [(key, self._view[key].digest) for key in self._leaves.get(leaf, ())]
        entries += [(key, weigh(self._registers[key]).mark) for key in self._register_leaves.get(leaf, ())]
        return self.tree.replace(leaf, entries)

    def hints(self) -> dict[HintKey, Hint]:
        """Every hint that outlived the last boot."""
        return dict(self._platter_hints)

    def fact(self, name: str) -> bytes:
        """What was last noted under this name."""
        return self._facts.get(name, b"")

    def register(self, key: bytes) -> bytes:
        """A key's register."""
        return self._registers.get(key, b"")

    def registers(self, after: bytes, prefix: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """Up to `limit` registers of keys above `after` that start with `prefix`, in byte order."""
        return sorted(i for i in self._registers.items() if i[0] > after and i[0].startswith(prefix))[:limit]

    def registers_in(self, leaf: int) -> list[tuple[bytes, bytes | None]]:
        """Every key in a leaf of the tree that has a register, and that."""
        return [(key, self._registers[key]) for key in sorted(self._register_leaves.get(leaf, ()))]

    def _read(self, key: bytes) -> Held:
        held = self.get(key)
        assert held is not None
        return held

    # ---- the loop's side -------------------------------------------------------------------

    def open(self) -> None:
        """A boot begins: what is on the platter is held, by no actor of this boot."""
        self._opened += 1
        self._view, self._leaves, self.tree = {}, {}, HashTree()
        self._show({key: _of_no_actor(held) for key, held in self._platter.items()})
        self._facts = dict(self._platter_facts)
        self._registers, self._register_leaves = {}, {}
        self._show_registers(self._platter_registers)
        self.durable = 0
        self.failed = False

    def _show(self, writes: Writes) -> None:
        """Make these what `get`, `scan`, `leaf` and the tree show."""
        for key, held in writes.items():
            old = self._view.pop(key, None)
            self.tree.change(key, old.digest if old is not None else ABSENT, held.digest)
            keys = self._leaves.setdefault(leaf_of(key), {})
            if held is GONE:
                keys.pop(key, None)
            else:
                self._view[key], keys[key] = held, None

    def _show_registers(self, registers: dict[bytes, bytes]) -> None:
        for key, register in registers.items():
            self.tree.change(key, weigh(self._registers.pop(key, b"")).mark, weigh(register).mark)
            keys = self._register_leaves.setdefault(leaf_of(key), {})
            if register:
                self._registers[key], keys[key] = register, None
            else:
                keys.pop(key, None)

    def submit(self, number: int, writes: Writes, aside: Aside | None = None) -> None:
        """Make these writes visible, and begin their commit as turn `number`."""
        assert not self.failed
        assert number > (self._pending[-1][0] if self._pending else self.durable)
        if self._full:
            return self._fail("no room for a write")
        self._show(writes)
        if aside is not None:
            self._facts |= aside.facts
            self._show_registers(aside.registers)
        if self._damaged:
            self._damaged = {key: None for key in self._damaged if key not in writes}
        self.written += len(writes)
        self._pending.append((number, writes, aside))
        if not self._committing:
            self._begin()
        return None

    def _persist(self, writes: Writes, aside: Aside | None) -> None:
        """A turn reaches the platter."""
        for key, held in writes.items():
            if held is GONE:
                self._platter.pop(key, None)
            else:
                self._platter[key] = held
        if aside is not None:
            self._platter_facts |= aside.facts
            for key, register in aside.registers.items():
                if register:
                    self._platter_registers[key] = register
                else:
                    self._platter_registers.pop(key, None)
            for where, hint in aside.hints.items():
                if hint is None:
                    self._platter_hints.pop(where, None)
                else:
                    self._platter_hints[where] = msgspec.structs.replace(hint, held=_of_no_actor(hint.held))

    @property
    def settled(self) -> bool:
        """Whether everything submitted is durable."""
        return not self._pending

    def sync(self) -> None:
        """Everything submitted becomes durable, now."""
        while self._pending:
            self.durable, writes, aside = self._pending.popleft()
            self._persist(writes, aside)

    def crash(self) -> None:
        """The power goes: a prefix of what was not durable may have reached the platter."""
        survivors = self._rng.randrange(len(self._pending) + 1) if self._pending else 0
        for _ in range(survivors):
            _, writes, aside = self._pending.popleft()
            self._persist(writes, aside)
        self._trace.note("disk", self._name, f"keeps {survivors} unsynced turns, loses {len(self._pending)}")
        self._opened += 1
        self._pending.clear()
        self._view, self._leaves, self.tree = {}, {}, HashTree()
        self._committing = False

    def wipe(self) -> None:
        """Someone removes the data directory of a node that is down: the next boot is on another disk."""
        assert not self._view
        assert not self._pending
        self._trace.note("disk", self._name, f"wiped, {len(self._platter)} keys gone")
        self._platter, self._platter_hints, self._platter_facts, self._damaged = {}, {}, {}, {}
        self._platter_registers = {}
        self.disk_id = self._rng.getrandbits(DISK_ID_BITS)
        self.wiped = True

    # ---- behind the node's back ------------------------------------------------------------

    def plant(self, key: bytes, held: Held) -> None:
        """Merge a record into what is there, durably, as if it had come long ago."""
        held = merge_held(self._platter.get(key), held.blob)
        self._show({key: held})
        self._platter[key] = held

    def forget(self, key: bytes, value: bytes) -> None:
        """Take the versions with this value out of a record."""
        held = held_of(tuple(v for v in self._platter[key].record() if v.value != value))
        self._show({key: held})
        self._platter[key] = held

    def accepted(self, key: bytes) -> bytes:
        """The register of this key that would survive a crash now."""
        return self._platter_registers.get(key, b"")

    def drop_hints(self) -> None:
        """Lose every hint."""
        self._platter_hints.clear()

    def snapshot(self) -> tuple[Writes, dict[str, bytes]]:
        """A backup of what would survive a crash now."""
        return dict(self._platter), dict(self._platter_facts)

    def restore(self, backup: tuple[Writes, dict[str, bytes]]) -> None:
        """Put a backup in place of what is there; the node is down."""
        self._platter, self._platter_facts = dict(backup[0]), dict(backup[1])

    # ---- faults ----------------------------------------------------------------------------

    def stall(self, ms: float) -> None:
        """No commit returns before this much time has passed."""
        self._stalled_until = max(self._stalled_until, self._timeline.now + tenths(ms))

    def fail_next_commit(self) -> None:
        """The next commit fails; what it had written by then is anyone's guess."""
        self._fail_next = True

    def fill(self) -> None:
        """There is no room from now on: the next turn that writes fails, and leaves no trace."""
        self._full = True

    def mend(self) -> None:
        """No stall or failure is to come any more."""
        self._fail_next = self._full = False
        self._stalled_until = 0

    def damage(self, key: bytes) -> None:
        """The copy of this key fails its checksum from now on."""
        self._damaged[key] = None

    def holds(self, key: bytes) -> Record:
        """What of this key would survive a crash now; nothing of a damaged copy."""
        held = self.holds_as(key)
        return held.record() if held is not None else ()

    def holds_as(self, key: bytes) -> Held | None:
        """The same, as it is kept."""
        return self._platter.get(key) if key not in self._damaged else None

    def keeps(self, key: bytes) -> Record:
        """The merge of all hints of this key that would survive a crash now."""
        held = None
        for (_, name), hint in sorted(self._platter_hints.items()):
            if name == key:
                held = merge_held(held, hint.held.blob)
        return held.record() if held is not None else ()

    @property
    def hinted(self) -> dict[HintKey, Hint]:
        """Every hint that would survive a crash now."""
        return self._platter_hints

    @property
    def keys(self) -> list[bytes]:
        """Every key that would survive a crash now, in order."""
        return sorted(self._platter)

    # ---- commits ---------------------------------------------------------------------------

    def _begin(self) -> None:
        """Commit all that is pending, as one group."""
        self._committing = True
        low, high = self.commit
        last = self._pending[-1][0]
        wait = low + int(self._rng.random() * (high - low + 1))
        self._timeline.after(wait, self._returned, self._opened, last)

    def _returned(self, opened: int, last: int) -> None:
        if opened != self._opened:
            return None
        if self._timeline.now < self._stalled_until:
            return self._timeline.at(self._stalled_until, self._returned, opened, last)
        if self._fail_next:
            return self._fail("a commit failed")
        while self._pending and self._pending[0][0] <= last:
            self.durable, writes, aside = self._pending.popleft()
            self._persist(writes, aside)
        self._committing = False
        if self._pending:
            self._begin()
        return self.on_commit()

    def _fail(self, why: str) -> None:
        self._fail_next = False
        self.failed = True
        self._trace.note("disk", self._name, why)
        self.on_commit()


def _of_no_actor(held: Held) -> Held:
    return msgspec.structs.replace(held, actor=NO_ACTOR) if held.actor != NO_ACTOR else held


def _ignore() -> None:
    """Nobody waits for the disk."""
