"""What a flush does to the table, statement by statement.

Promises: after every statement the places name all rows there are, maybe more; each statement is
bounded in rows and bytes; once all are done, the saved leaves agree with the rows.
Never: commits, or walks a B-tree twice: each part goes through its table in the table's own order.

    hints, facts ─► places of new rows ─► rows, registers ─► places of dropped rows ─► saved leaves
                    in leaf order         in key order       in leaf order             in slot order

Saved leaves are copies of the tree as it was when the memtable was frozen: what the table holds once
the flush is done. A crash in between leaves rows, and some saved leaves, ahead of the other leaves;
`flushing` in the meta says so from the first transaction to the last. The next open then adds up each
leaf that its replay touches: no others can be wrong, and the next flush saves these.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from heapq import merge
from itertools import chain
from typing import TypeVar

from msgspec import Struct

from kvnode import config
from kvnode.core.merkle import LEAVES, SLOT_LEAVES, HashTree, leaf_of
from kvnode.core.outbox import GONE, HintKey
from kvnode.core.registers import counted as counted_register
from kvnode.core.registers import weigh
from kvnode.shell.sqlite.format import encode_fact, encode_hint, encode_page, encode_register_row, encode_row
from kvnode.shell.sqlite.memtable import Memtable, counted

PILE_BITS = 13
"""Leaves are sorted in piles of so many: a thousand, when a memtable is full."""

NEITHER = (
    ") AND NOT EXISTS (SELECT 1 FROM kv WHERE kv.key = places.key)"
    " AND NOT EXISTS (SELECT 1 FROM registers WHERE registers.key = places.key)"
)

Sortable = TypeVar("Sortable", bytes, HintKey)


class Step(Struct, frozen=True):
    """One statement, and what it changes of the table's counters."""

    sql: str
    args: tuple[object, ...]
    keys: int = 0
    value_bytes: int = 0


class Steps:
    """The steps of one flush after another; the flusher's thread walks them."""

    def __init__(self, boot: int, compress_min: int) -> None:
        self._boot = boot
        self._compress_min = compress_min

    def of(self, memtable: Memtable, tree: HashTree) -> Iterator[Step]:
        """All but the marks that the last transaction ends with."""
        yield Step("INSERT OR REPLACE INTO meta VALUES ('flushing', ?)", (b"1",))
        yield from self._hints(memtable)
        yield from _facts(memtable)
        leaves = in_leaf_order(memtable.leaves)
        gone: list[bytes] = []
        yield from _new_places(memtable, leaves)
        yield from self._rows(memtable, gone)
        yield from _registers(memtable, gone)
        yield from _dropped_places(gone)
        slots = {leaf // SLOT_LEAVES: None for leaf in leaves}
        yield from _pages(memtable, tree, sorted(memtable.mended | slots.keys()) if memtable.mended else slots)

    def _hints(self, memtable: Memtable) -> Iterator[Step]:
        kept = Gathered("INSERT OR REPLACE INTO hints VALUES ", "(?,?,?)", ",")
        delivered = Gathered("DELETE FROM hints WHERE ", "(owner=? AND key=?)", " OR ")
        for of in in_order(memtable.hints):
            hint = memtable.hints[of]
            if hint is None:
                delivered.add(*of)
            else:
                kept.add(*of, encode_hint(of, hint, self._compress_min))
            if kept.full:
                yield kept.step()
            if delivered.full:
                yield delivered.step()
        yield from chain(kept.rest(), delivered.rest())

    def _rows(self, memtable: Memtable, gone: list[bytes]) -> Iterator[Step]:
        """Write and drop rows; name the dropped ones."""
        written = Gathered("INSERT OR REPLACE INTO kv VALUES ", "(?,?)", ",")
        dropped = Gathered("DELETE FROM kv WHERE ", "key=?", " OR ")
        for key in in_order(memtable.records):
            held = memtable.records[key]
            if held is GONE:
                gathered = dropped
                gathered.add(key)
                gone.append(key)
            else:
                gathered = written
                gathered.add(key, encode_row(key, held, self._boot, self._compress_min))
            counts, replaced = counted(key, held), memtable.replaced.get(key, 0)
            gathered.keys += bool(counts) - bool(replaced)
            gathered.value_bytes += counts - replaced
            if gathered.full:
                yield gathered.step()
        yield from chain(written.rest(), dropped.rest())


def _facts(memtable: Memtable) -> Iterator[Step]:
    for name, fact in memtable.facts.items():
        if fact:
            yield Step("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, encode_fact(name, fact)))
        else:
            yield Step("DELETE FROM facts WHERE name=?", (name,))


def _registers(memtable: Memtable, gone: list[bytes]) -> Iterator[Step]:
    """Write and drop registers; name the dropped ones."""
    written = Gathered("INSERT OR REPLACE INTO registers VALUES ", "(?,?)", ",")
    dropped = Gathered("DELETE FROM registers WHERE ", "key=?", " OR ")
    for key in in_order(memtable.registers):
        register = memtable.registers[key]
        gathered = written if register else dropped
        if register:
            gathered.add(key, encode_register_row(key, register))
        else:
            gathered.add(key)
            gone.append(key)
        counts, replaced = counted_register(key, weigh(register)), memtable.replaced_registers.get(key, 0)
        gathered.keys += bool(counts) - bool(replaced)
        gathered.value_bytes += counts - replaced
        if gathered.full:
            yield gathered.step()
    yield from chain(written.rest(), dropped.rest())


def _new_places(memtable: Memtable, leaves: list[int]) -> Iterator[Step]:
    gathered = Gathered("INSERT OR IGNORE INTO places VALUES ", "(?,?)", ",")
    for leaf in leaves:
        for key in memtable.keys_in(leaf):
            if memtable.is_new(key):
                gathered.add(leaf, key)
                if gathered.full:
                    yield gathered.step()
    yield from gathered.rest()


def _dropped_places(gone: list[bytes]) -> Iterator[Step]:
    """A place goes once neither a record nor a register is there any more."""
    gathered = Gathered("DELETE FROM places WHERE (", "(leaf=? AND key=?)", " OR ", NEITHER)
    of_leaf: dict[int, list[bytes]] = {}
    for key in gone:
        of_leaf.setdefault(leaf_of(key), []).append(key)
    for leaf in in_leaf_order(of_leaf):
        for key in of_leaf[leaf]:
            gathered.add(leaf, key)
            if gathered.full:
                yield gathered.step()
    yield from gathered.rest()


def _pages(memtable: Memtable, tree: HashTree, slots: Iterable[int]) -> Iterator[Step]:
    """Save the leaves of these slots as they were when the memtable was frozen.

    The loop goes on changing the tree, but puts a page into `pages` before it changes that for the first
    time. So look at the tree first: when there is nothing in `pages` after that, it had not changed.
    """
    gathered = Gathered("INSERT OR REPLACE INTO leaves VALUES ", "(?,?)", ",")
    for slot in slots:
        now = tree.page(slot)
        gathered.add(slot, encode_page(slot, memtable.pages.get(slot, now)))
        if gathered.full:
            yield gathered.step()
    yield from gathered.rest()


class Gathered:
    """What one statement does to many rows; no more of them than a statement should hold."""

    def __init__(self, head: str, row: str, joint: str, tail: str = "") -> None:
        self._head, self._row, self._joint, self._tail = head, row, joint, tail
        self._args: list[object] = []
        self._rows = 0
        self._bytes = 0
        self.full = False
        """Whether it is as large as one may be: take the step."""
        self.keys = 0
        self.value_bytes = 0

    def add(self, *args: int | str | bytes) -> None:
        """One more row."""
        self._args += args
        self._rows += 1
        last = args[-1]
        if isinstance(last, bytes):
            self._bytes += len(last)
        self.full = self._rows >= config.FLUSH_ROWS or self._bytes >= config.FLUSH_BYTES

    def rest(self) -> Iterator[Step]:
        """What is left, if anything is."""
        if self._rows:
            yield self.step()

    def step(self) -> Step:
        """What was gathered. Begins the next."""
        sql = self._head + self._joint.join([self._row] * self._rows) + self._tail
        step = Step(sql, tuple(self._args), self.keys, self.value_bytes)
        self._args, self._rows, self._bytes, self.full, self.keys, self.value_bytes = [], 0, 0, False, 0, 0
        return step


def in_order(keys: Collection[Sortable]) -> Iterator[Sortable]:
    """Sorted, without holding the interpreter for one long sort."""
    every = list(keys)
    step = 4 * config.FLUSH_ROWS
    return merge(*(sorted(every[at : at + step]) for at in range(0, len(every), step)))


def in_leaf_order(leaves: Iterable[int]) -> list[int]:
    """The same for leaves, which are spread evenly: cheaper, for they need not be compared across piles."""
    piles: list[list[int]] = [[] for _ in range(LEAVES >> PILE_BITS)]
    for leaf in leaves:
        piles[leaf >> PILE_BITS].append(leaf)
    return [leaf for pile in piles for leaf in sorted(pile)]
