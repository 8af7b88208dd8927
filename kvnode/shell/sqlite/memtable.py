"""The memtable: recent writes, and what the table has of the keys in it.

Promises: one dict lookup a read. Never: changes once it is frozen, but for `pages`.
"""

from __future__ import annotations

from kvnode import config
from kvnode.core.outbox import GONE, Aside, Hint, HintKey
from kvnode.core.versions import Held
from kvnode.shell.order import KeyOrder


def counted(key: bytes, held: Held) -> int:
    """Key and live bytes of a record, as the counters have it; 0 when nothing of it lives."""
    return len(key) + held.live_bytes if held.live_bytes else 0


class Memtable:
    """Records, hints, facts and registers written since the last flush began."""

    __slots__ = (
        "bytes", "crowded", "facts", "hints", "leaves", "mended", "order", "pages", "records", "registers",
        "replaced", "replaced_registers",
    )  # fmt: skip

    def __init__(self) -> None:
        self.records: dict[bytes, Held] = {}
        """Newest of each key; `GONE` where the table's row is to go."""
        self.replaced: dict[bytes, int] = {}
        """Key that the table will have a row of when this one is flushed -> what is `counted` of it: a crash
        in the middle of a flush leaves some rows new and some old, and counters that must say which."""
        self.leaves: dict[int, bytes] = {}
        """Leaf of the hash tree -> a key in it, mostly the only one: a container for each would cost memory,
        and time when the garbage collector looks through them."""
        self.crowded: dict[int, list[bytes]] = {}
        """Leaf -> its other keys."""
        self.mended: set[int] = set()
        """Slots of the tree to be saved though nothing of them is in here: what is saved of them is wrong."""
        self.pages: dict[int, bytes] = {}
        """Filled once it is frozen: leaves as they were then, of slots that were written to since."""
        self.hints: dict[HintKey, Hint | None] = {}
        self.facts: dict[str, bytes] = {}
        self.registers: dict[bytes, bytes] = {}
        """Newest of each key, encoded; empty where the table's row is to go."""
        self.replaced_registers: dict[bytes, int] = {}
        """As `replaced`, of registers."""
        self.order = KeyOrder(config.SCAN_SORT_MAX)
        self.bytes = 0

    def keys_in(self, leaf: int) -> list[bytes]:
        """The keys of a leaf."""
        first = self.leaves.get(leaf)
        return [first, *self.crowded.get(leaf, ())] if first is not None else []

    def place(self, key: bytes, leaf: int) -> None:
        """Note that a key of this leaf is in here."""
        if self.leaves.setdefault(leaf, key) is not key:
            self.crowded.setdefault(leaf, []).append(key)

    def is_new(self, key: bytes) -> bool:
        """Whether the table will have a row of this key, record or register, that it has not now."""
        held = self.records.get(key, GONE)
        if held is not GONE and key not in self.replaced:
            return True
        return bool(self.registers.get(key)) and key not in self.replaced_registers

    def set_aside(self, aside: Aside) -> None:
        """Take in what is no record. It counts like records, so that a node that gets no others flushes too."""
        self.hints |= aside.hints
        self.facts |= aside.facts
        self.registers |= aside.registers
        self.bytes += aside_bytes(aside)


def aside_bytes(aside: Aside) -> int:
    """What an aside costs in memory, about."""
    hints = sum(
        len(key) + (len(hint.held.blob) if hint is not None else 0) for (_, key), hint in aside.hints.items()
    )
    facts = sum(len(name) + len(fact) for name, fact in aside.facts.items())
    registers = sum(len(key) + len(register) for key, register in aside.registers.items())
    entries = len(aside.hints) + len(aside.facts) + len(aside.registers)
    return hints + facts + registers + entries * config.ENTRY_OVERHEAD_BYTES


EMPTY = Memtable()
"""Stands where nothing is frozen."""
