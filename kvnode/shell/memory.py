"""The memory engine: everything in a dict, gone with the process. For tests and caches.

Promises: the same behaviour as any engine, except that nothing outlives the process.
Never: touches a disk.
"""

from __future__ import annotations

import contextlib
import os
import secrets

import msgspec

from kvnode.core.merkle import HashTree, leaf_of
from kvnode.core.outbox import GONE, Aside, Hint, HintKey, Stored
from kvnode.core.registers import counted, weigh
from kvnode.core.versions import ABSENT, Held
from kvnode.protocol.ring import Ring
from kvnode.shell.order import KeyOrder
from kvnode.shell.store import EngineStats, Identity

DISK_ID_BITS = 63
SORT_ALL = 1 << 62


class MemoryEngine:
    """A store in memory."""

    name = "memory"
    durability = "none"
    behind = False

    def __init__(self, node: str) -> None:
        self.identity = Identity(node, secrets.randbits(DISK_ID_BITS), 1, None)
        self.tree = HashTree()
        self._records: dict[bytes, Held] = {}
        self._leaves: dict[int, set[bytes]] = {}
        self._facts: dict[str, bytes] = {}
        self._registers: dict[bytes, bytes] = {}
        self._register_leaves: dict[int, set[bytes]] = {}
        self._order = KeyOrder(SORT_ALL)
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._turn = 0
        self._keys = 0
        self._value_bytes = 0
        self._closed = False

    def get(self, key: bytes) -> Held | None:
        """What is held of a key."""
        return self._records.get(key)

    def scan(self, after: bytes, prefix: bytes, limit: int) -> list[Stored]:
        """Up to `limit` keys above `after` that start with `prefix`, in byte order."""
        records = self._records
        return [Stored(key, records[key]) for key in self._order.page(after, prefix, limit)]

    def leaf(self, leaf: int) -> list[tuple[bytes, Held | None]]:
        """Every key in a leaf of the tree, and what is held of it."""
        return [(key, self._records[key]) for key in sorted(self._leaves.get(leaf, ()))]

    def hints(self) -> dict[HintKey, Hint]:
        """None: nothing is here from before."""
        return {}

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
        keys = self._register_leaves.get(leaf, ())
        return [(key, self._registers[key]) for key in sorted(keys)]

    def submit(self, number: int, writes: dict[bytes, Held], aside: Aside | None = None) -> None:
        """Keep these writes."""
        assert number > self._turn
        for key, held in writes.items():
            old = self._records.get(key)
            self.tree.change(key, old.digest if old is not None else ABSENT, held.digest)
            if old is not None and old.live_bytes:
                self._keys -= 1
                self._value_bytes -= len(key) + old.live_bytes
            if held is GONE:
                self._forget(key)
                continue
            if old is None:
                self._order.fresh.append(key)
                self._leaves.setdefault(leaf_of(key), set()).add(key)
            if held.live_bytes:
                self._keys += 1
                self._value_bytes += len(key) + held.live_bytes
            self._records[key] = held
        if aside is not None:
            self._facts |= aside.facts
            for key, register in aside.registers.items():
                self._keep_register(key, register)
        self._turn = number
        os.eventfd_write(self._wake, 1)

    def _keep_register(self, key: bytes, register: bytes) -> None:
        old = self._registers.pop(key, b"")
        was, weight = weigh(old), weigh(register)
        self.tree.change(key, was.mark, weight.mark)
        before, now = counted(key, was), counted(key, weight)
        self._keys += bool(now) - bool(before)
        self._value_bytes += now - before
        self._register_leaves.setdefault(leaf_of(key), set()).discard(key)
        if register:
            self._registers[key] = register
            self._register_leaves[leaf_of(key)].add(key)

    def _forget(self, key: bytes) -> None:
        if self._records.pop(key, None) is not None:
            self._leaves[leaf_of(key)].discard(key)
            self._order.remove(key)

    def mend_leaf(self, leaf: int) -> bool:
        """Add a leaf up from what is held. True if it was wrong."""
        entries = [(key, self._records[key].digest) for key in self._leaves.get(leaf, ())]
        entries += [(key, weigh(self._registers[key]).mark) for key in self._register_leaves.get(leaf, ())]
        return self.tree.replace(leaf, entries)

    def durable(self) -> int:
        """The last turn: memory is as durable as this engine gets."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        return self._turn

    def fileno(self) -> int:
        """Readable after a submit."""
        return self._wake

    def save_ring(self, ring: Ring) -> None:
        """Keep this ring."""
        self.identity = msgspec.structs.replace(self.identity, ring=ring)

    def stats(self) -> EngineStats:
        """Figures for status."""
        return EngineStats(self._keys, self._value_bytes, 0, 0, {})

    def close(self) -> None:
        """Let go. Safe to call twice."""
        if not self._closed:
            self._closed = True
            os.close(self._wake)
