"""The layers of the store: memtable, frozen memtable, cache and table, read and written as one.

Promises: a read sees the newest of a key and never goes backwards, whatever a flush is doing;
counters and hash tree are exact, also right after a crash.
Never: holds an entry in memory for each stored key, or writes to the disk.

    newest   memtable ─► frozen memtable (a flush is writing it) ─► hot cache ─► table   oldest

The tree is the saved leaves, which agree with the table, and what the memtables have changed since.
A key that is `GONE` in a memtable is not there, though the table may have a row of it.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from kvnode import config
from kvnode.core.merkle import LEAVES, SLOT_LEAVES, HashTree, leaf_of
from kvnode.core.outbox import GONE, Aside, Hint, HintKey, Stored, Unreadable
from kvnode.core.registers import counted as counted_register
from kvnode.core.registers import weigh
from kvnode.core.versions import Held
from kvnode.shell.sqlite.cache import HotCache
from kvnode.shell.sqlite.format import Batch
from kvnode.shell.sqlite.memtable import EMPTY, Memtable, counted
from kvnode.shell.sqlite.table import TableReader

UNUSABLE = (sqlite3.Error, ValueError, Unreadable)
"""What reading a damaged file raises, and a figure in it that is none."""


class Layers:
    """What a directory holds. The loop's thread calls it."""

    def __init__(self, path: Path, boot: int, cache_bytes: int) -> None:
        """Begin with what the table holds. Raises `UNUSABLE`."""
        self.table = TableReader(path, boot)
        self.keys, self.value_bytes = self.table.meta("keys"), self.table.meta("value_bytes")
        self.memtable = Memtable()
        self.frozen = EMPTY
        self.cache = HotCache(cache_bytes)
        self.leaves_rebuilt = 0
        self.tree = HashTree()
        self._held = self.memtable.records
        self._absent: set[bytes] = set()
        self._facts = self.table.facts()
        self._register_leaves = bytearray(LEAVES)
        """Whether a register of a key in this leaf was ever kept: a key of any other is none, without a look."""
        for key in self.table.register_keys():
            self._register_leaves[leaf_of(key)] = True
        self._registers_kept = True in self._register_leaves
        self._doubtful: set[int] = set()
        """Leaves of damaged rows that the writes being applied stand over."""
        self._interrupted = self.table.meta("flushing") != 0
        """Whether the last flush of an earlier boot was."""
        self._added_up: set[int] = set()
        """Leaves that the replay after that need not look at again."""
        self._load_leaves()

    def _load_leaves(self) -> None:
        """Begin the tree with what was saved; what is damaged is added up from the rows."""
        for slot, page in self.table.pages():
            if page is not None:
                self.tree.load(slot, page)
                continue
            self.memtable.mended.add(slot)
            for leaf in range(slot * SLOT_LEAVES, (slot + 1) * SLOT_LEAVES):
                self._add_up(leaf)

    def replay(self, batch: Batch) -> None:
        """Apply a batch of the log. Raises `UNUSABLE`."""
        if self._interrupted:
            # The table has some rows of this batch, and its saved leaves know of some of those. Each is
            # added up before the replay first changes it; from then on it is right.
            registers = batch.aside.registers if batch.aside is not None else {}
            for leaf in {leaf_of(key) for key in chain(batch.writes, registers)} - self._added_up:
                self._add_up(leaf)
                self._added_up.add(leaf)
        self.apply(batch.writes)
        if batch.aside is not None:
            self.set_aside(batch.aside)

    def _add_up(self, leaf: int) -> None:
        """Make a leaf what the rows in the table give."""
        self.tree.replace(leaf, self.table.digests(leaf))
        self.leaves_rebuilt += 1

    # ---- reading ---------------------------------------------------------------------------

    def get(self, key: bytes) -> Held | None:
        """What is held of a key. Raises `Unreadable`."""
        held = self._held.get(key) or self.frozen.records.get(key)
        if held is not None:
            return held if held is not GONE else None
        held = self.cache.get(key)
        if held is not None:
            return held
        if key in self._absent:
            return None
        held = self.table.get(key)
        if held is not None:
            self.cache.put(key, held)
        else:
            if len(self._absent) >= config.ABSENT_REMEMBERED:
                self._absent.clear()
            self._absent.add(key)
        return held

    def scan(self, after: bytes, prefix: bytes, limit: int) -> Iterator[Stored]:
        """Up to `limit` keys above `after` that start with `prefix`, in byte order. Raises `Unreadable`."""
        left = step = limit
        while True:
            rows = dict(self.table.rows(after, prefix, step))
            keys = set(rows)
            for layer in (self.frozen, self.memtable):
                if layer.records:
                    keys.update(layer.order.page(after, prefix, step))
            # Each source's first keys together contain the first of all of them.
            found = sorted(keys)[:step]
            for row in self._newest(found, rows):
                yield row
                left -= 1
                if not left:
                    return
            if len(found) < step:
                return
            # Some were dropped and are still in the table, or were never there: on behind them.
            after, step = found[-1], config.SCAN_PAGE_MAX

    def _newest(self, keys: list[bytes], rows: dict[bytes, bytes]) -> Iterator[Stored]:
        newest, frozen = self._held, self.frozen.records
        for key in keys:
            held = newest.get(key) or frozen.get(key)
            # Decoded last: damage to a row that was written again since is nobody's concern.
            if held is None:
                held = self.table.decode(key, rows[key])
            if held is not GONE:
                yield Stored(key, held)

    def leaf(self, leaf: int) -> list[tuple[bytes, Held | None]]:
        """Every key in a leaf, and what is held of it; None where that is damaged.

        Raises `Unreadable` when not even the keys can be told.
        """
        found: list[tuple[bytes, Held | None]] = []
        for key in self._keys_in(leaf):
            held = self._held.get(key) or self.frozen.records.get(key)
            if held is None:
                try:
                    held = self.table.get(key)
                except Unreadable:
                    found.append((key, None))
                    continue
            if held is not None and held is not GONE:
                found.append((key, held))
        return found

    def _keys_in(self, leaf: int) -> list[bytes]:
        """The keys of a leaf, and maybe some of which there is nothing."""
        return sorted({*self.table.keys_in(leaf), *self.frozen.keys_in(leaf), *self.memtable.keys_in(leaf)})

    def hints(self) -> dict[HintKey, Hint]:
        """Every hint: those in the table, and what came after them. Raises `UNUSABLE`."""
        found = self.table.hints()
        for layer in (self.frozen, self.memtable):
            for of, hint in layer.hints.items():
                if hint is not None:
                    found[of] = hint
                else:
                    found.pop(of, None)
        return found

    def fact(self, name: str) -> bytes:
        """What was last noted under this name; empty when nothing was."""
        return self._facts.get(name, b"")

    def register(self, key: bytes) -> bytes:
        """A key's register; empty where there is none. Raises `Unreadable`."""
        for layer in (self.memtable, self.frozen):
            if key in layer.registers:
                return layer.registers[key]
        if self._registers_kept and self._register_leaves[leaf_of(key)]:
            return self.table.register(key)
        return b""

    def registers(self, after: bytes, prefix: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """Up to `limit` registers of keys above `after` that start with `prefix`. Raises `Unreadable`."""
        page: list[tuple[bytes, bytes]] = []
        step = limit
        while self._registers_kept:
            rows = dict(self.table.register_rows(after, prefix, step))
            fresh = self.frozen.registers | self.memtable.registers
            keys = rows.keys() | {key for key in fresh if key > after and key.startswith(prefix)}
            found = sorted(keys)[:step]
            for key in found:
                register = fresh[key] if key in fresh else self.table.decode_register(key, rows[key])
                if register:
                    page.append((key, register))
            if len(page) >= limit or len(found) < step:
                break
            after, step = found[-1], config.SCAN_PAGE_MAX
        return page[:limit]

    def registers_in(self, leaf: int) -> list[tuple[bytes, bytes | None]]:
        """Every key in a leaf that has a register, and that; None where it is damaged. Raises `Unreadable`."""
        found: list[tuple[bytes, bytes | None]] = []
        for key in self._keys_in(leaf) if self._register_leaves[leaf] else ():
            try:
                register = self.register(key)
            except Unreadable:
                found.append((key, None))
                continue
            if register:
                found.append((key, register))
        return found

    # ---- writing ---------------------------------------------------------------------------

    def set_aside(self, aside: Aside) -> None:
        """Keep hints for the flush, facts and registers to be read; the registers are in tree and counters."""
        for key, register in aside.registers.items():
            self._change_register(key, register)
        self.memtable.set_aside(aside)
        if self._doubtful:
            self._settle_doubts()
        self._facts |= aside.facts

    def _change_register(self, key: bytes, register: bytes) -> None:
        """What a register adds to the tree and to the counters, in place of the one that was there."""
        leaf = leaf_of(key)
        if key in self.memtable.registers:
            old = self.memtable.registers[key]
        else:
            old = self._replace_register(key, register)
            self.memtable.place(key, leaf)
            if self.frozen is not EMPTY and leaf // SLOT_LEAVES not in self.frozen.pages:
                self.frozen.pages[leaf // SLOT_LEAVES] = self.tree.page(leaf // SLOT_LEAVES)  # as in `apply`
        self._registers_kept = self._register_leaves[leaf] = True
        was, weight = weigh(old), weigh(register)
        self.tree.change(key, was.mark, weight.mark)
        before, now = counted_register(key, was), counted_register(key, weight)
        self.keys += bool(now) - bool(before)
        self.value_bytes += now - before

    def _replace_register(self, key: bytes, register: bytes) -> bytes:
        """Note what the memtable's first register of a key stands over. Returns that, empty if it is nothing."""
        try:
            old = self.register(key)
        except Unreadable:
            self._doubtful.add(leaf_of(key))  # as in `_replace`
            old = register
        if old:
            self.memtable.replaced_registers[key] = counted_register(key, weigh(old))
        return old

    def apply(self, writes: dict[bytes, Held]) -> None:
        """Put records into the memtable; keep the tree and the counters."""
        # The hottest loop of a write: one function, and what it adds up is stored once.
        held_of_key, fresh, change = self._held, self.memtable.order.fresh, self.tree.change
        leaves, pages = self.memtable.leaves, self.frozen.pages
        flushing = self.frozen is not EMPTY
        overhead = config.ENTRY_OVERHEAD_BYTES
        keys = value_bytes = grown = 0
        for key, held in writes.items():
            live, entry = held.live_bytes, len(held.blob)
            old = held_of_key.get(key)
            if old is None:
                old = self._replace(key, held)
                leaf = leaf_of(key)
                if leaves.setdefault(leaf, key) is not key:  # `place`, without the call
                    self.memtable.crowded.setdefault(leaf, []).append(key)
                if flushing and leaf // SLOT_LEAVES not in pages:
                    # Before it first changes during a flush, which saves it as it was when the flush was
                    # due. That change is of a key new to this memtable. `Steps` reads the tree first.
                    pages[leaf // SLOT_LEAVES] = self.tree.page(leaf // SLOT_LEAVES)
                fresh.append(key)
                grown += len(key) + entry + overhead
            else:
                grown += entry - len(old.blob)
            held_of_key[key] = held
            change(key, old.digest, held.digest)
            if old.live_bytes:
                keys -= 1
                value_bytes -= len(key) + old.live_bytes
            if live:
                keys += 1
                value_bytes += len(key) + live
        self.memtable.bytes += grown
        self.keys += keys
        self.value_bytes += value_bytes
        if self._doubtful:
            self._settle_doubts()

    def _replace(self, key: bytes, held: Held) -> Held:
        """Note what the memtable's first record of a key stands over. Returns that, `GONE` if it is nothing."""
        old = self.frozen.records.get(key) or self.cache.take(key)
        if old is None:
            if key in self._absent:
                self._absent.discard(key)
                return GONE
            try:
                old = self.table.get(key)
            except Unreadable:
                # It was counted while it could be read; as what, is lost with it. As much as this one.
                # The same goes for its leaf, but that can be added up once this one is in.
                self._doubtful.add(leaf_of(key))
                old = held
                self.memtable.replaced[key] = counted(key, old)
                return old
        if old is None or old is GONE:
            return GONE
        self.memtable.replaced[key] = counted(key, old)
        return old

    def _settle_doubts(self) -> None:
        """What damaged rows had in their leaves is lost with them: add up what can be read."""
        for leaf in self._doubtful:
            with contextlib.suppress(Unreadable):  # not even its keys can be told: it stays as it was
                self.tree.replace(leaf, self._entries(leaf)[0])
        self.leaves_rebuilt += len(self._doubtful)
        self._doubtful.clear()

    def mend_leaf(self, leaf: int) -> bool:
        """Add a leaf up from what is held, here and with the next flush on disk. True if it was wrong.

        One with a damaged record is left as it is. Raises `Unreadable` when its keys cannot be told.
        """
        entries, damaged = self._entries(leaf)
        if damaged:
            return False
        wrong = self.tree.replace(leaf, entries)
        if wrong:
            self.memtable.mended.add(leaf // SLOT_LEAVES)
        return wrong

    def _entries(self, leaf: int) -> tuple[list[tuple[bytes, bytes]], bool]:
        """What can be read of a leaf, as its hash has it; and whether there is more. Raises `Unreadable`."""
        records, registers = self.leaf(leaf), self.registers_in(leaf)
        entries = [(key, held.digest) for key, held in records if held is not None]
        entries += [(key, weigh(register).mark) for key, register in registers if register is not None]
        return entries, len(entries) < len(records) + len(registers)

    # ---- flushes ---------------------------------------------------------------------------

    def freeze(self) -> None:
        """Begin a new memtable; this one is to be flushed."""
        assert self.frozen is EMPTY
        self.frozen, self.memtable = self.memtable, Memtable()
        self._held = self.memtable.records

    def thaw(self) -> Memtable:
        """Hand out the frozen memtable: the table shows all that is in it."""
        assert self.frozen is not EMPTY
        thawed, self.frozen = self.frozen, EMPTY
        return thawed

    def close(self) -> None:
        """Close the table."""
        self.table.close()
