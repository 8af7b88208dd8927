"""The outbox: what a turn owes the world, and the view of the store that includes it.

Promises: `sends` may leave at once, `acks` only after every write of this turn and of earlier turns
is durable; a read sees every write made before it, durable or not.
Never: performs anything. The shell takes a `Turn`, carries it out, and reports the commit.

    receive ... receive, end ──► Turn(number, sends, writes, acks, aside, control)
                                     │ 1. control and sends leave at once
                                     │ 2. writes and aside: one durable group commit
                                     └ 3. acks leave, and `committed(number)` is called

Two turns may be in the disk's hands at once. What they wrote is visible, but not yet durable: a
reply that shows it must be an ack (PROTOCOL-CASES 18), so `read` says which it was.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from heapq import merge
from operator import attrgetter
from typing import Protocol, TypeAlias

from msgspec import Struct

from kvnode import config
from kvnode.core.merkle import HashTree
from kvnode.core.versions import ABSENT, Held, merge_held
from kvnode.protocol.messages import Message, Row
from kvnode.protocol.types import Address, NodeId, WallMillis

GONE = Held(b"", ABSENT)
"""Written in place of a record that is to be dropped: a reaped tombstone, a copy moved elsewhere."""


class Stored(Struct, frozen=True, gc=False):
    """A key and what is held of it."""

    key: bytes
    held: Held


class Hint(Struct, frozen=True, gc=False):
    """A record kept for an owner that could not take it."""

    held: Held
    since: WallMillis
    """When it was first kept here, by this node's steady clock: its age counts from then."""


HintKey: TypeAlias = tuple[NodeId, bytes]
"""For whom, and which key."""


class Aside(Struct, gc=False):
    """What a turn makes durable beside records."""

    hints: dict[HintKey, Hint | None]
    """None: it has been delivered."""
    facts: dict[str, bytes]
    """Small things a node must remember, by name; empty: to be forgotten."""
    registers: dict[bytes, bytes] = {}
    """Key -> its register, encoded: many, read on demand. Empty: it was reaped."""


class Store(Protocol):
    """The one synchronous port the core reads from."""

    @property
    def tree(self) -> HashTree:
        """The hashes of every record that `get` would show, and of every register, kept up to date."""
        ...

    def get(self, key: bytes) -> Held | None:
        """What is held of a key. Raises `Unreadable` when the copy on disk is damaged."""
        ...

    def scan(self, after: bytes, prefix: bytes, limit: int) -> Iterable[Stored]:
        """Up to `limit` keys above `after` that start with `prefix`, in byte order, read as they are taken.

        Not to be taken from in a later turn. Raises `Unreadable`, at the latest where the damaged key would come.
        """
        ...

    def leaf(self, leaf: int) -> list[tuple[bytes, Held | None]]:
        """Every key in a leaf of the tree and what is held of it, in byte order; None where that is damaged.

        Raises `Unreadable` where not even its keys can be told.
        """
        ...

    def mend_leaf(self, leaf: int) -> bool:
        """Count a leaf of the tree anew from its records. True when it was wrong."""
        ...

    def hints(self) -> dict[HintKey, Hint]:
        """Every hint, as it was when the store was opened. Called once, at boot."""
        ...

    def register(self, key: bytes) -> bytes:
        """A key's register, encoded; empty where there is none. Raises `Unreadable`."""
        ...

    def registers(self, after: bytes, prefix: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """Up to `limit` keys above `after` that start with `prefix`, and their registers, in byte order.

        Raises `Unreadable`.
        """
        ...

    def registers_in(self, leaf: int) -> list[tuple[bytes, bytes | None]]:
        """Every key in a leaf of the tree that has a register, and that, in byte order; None where it is damaged.

        Raises `Unreadable` where not even its keys can be told.
        """
        ...

    def fact(self, name: str) -> bytes:
        """What was last noted under this name; empty when nothing was. Turns in flight do not count."""
        ...


class Unreadable(Exception):
    """The copy of a key on this disk fails its checksum: it is neither served nor overwritten."""


Sends = dict[Address, list[Message]]


class Turn(Struct, gc=False):
    """What one turn owes the world."""

    number: int
    sends: Sends
    writes: dict[bytes, Held]
    """Key -> what is held of it from now on; the last write of a key in a turn is the one that counts."""
    acks: Sends
    aside: Aside | None = None
    """Hints, facts and registers; None in most turns."""
    control: Sends = {}
    """Heartbeats and the like: they leave at once too, in a lane of their own, and are not missed if lost."""

    def __bool__(self) -> bool:
        return bool(self.sends or self.writes or self.acks or self.aside or self.control)


class Outbox:
    """Collects a turn's effects. One per node and boot."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._number = 1
        self._sends: Sends = {}
        self._acks: Sends = {}
        self._writes: dict[bytes, Held] = {}
        self._aside: Aside | None = None
        self._control: Sends = {}
        self._committing: deque[tuple[int, dict[bytes, Held], dict[bytes, bytes]]] = deque()
        self.any_registers = _any(store)
        """Whether this node has ever kept one: what has to look for one tests that first."""
        self.volatile = False
        """Whether the last `read` or `scan` showed something not yet durable."""

    # ---- what the mechanisms call ----------------------------------------------------------

    def send(self, to: Address, message: Message) -> None:
        """Leave at once."""
        box = self._sends.get(to)
        if box is None:
            self._sends[to] = [message]
        else:
            box.append(message)

    def tell(self, to: Address, message: Message) -> None:
        """Leave at once, never behind data."""
        self._control.setdefault(to, []).append(message)

    def ack(self, to: Address, message: Message) -> None:
        """Leave once everything written so far is durable."""
        box = self._acks.get(to)
        if box is None:
            self._acks[to] = [message]
        else:
            box.append(message)

    def reply(self, to: Address, message: Message, *, volatile: bool) -> None:
        """An ack if it shows anything not yet durable, else a send."""
        if volatile:
            self.ack(to, message)
        else:
            self.send(to, message)

    def write(self, key: bytes, held: Held) -> None:
        """Make this what is held of the key."""
        self._writes[key] = held

    def merge(self, key: bytes, record: bytes) -> Held:
        """Merge an encoded record into what is held. What is held now.

        Raises `Unreadable` where a damaged copy is in the way, `msgspec.MsgspecError` on malformed bytes.
        """
        held = self.read(key)
        merged = merge_held(held, record)
        if merged is not held:
            self._writes[key] = merged
        return merged

    def erase(self, key: bytes) -> None:
        """Drop what is held of the key, and the actor it was minted under."""
        self._writes[key] = GONE

    def keep_hint(self, owner: NodeId, key: bytes, hint: Hint | None) -> None:
        """Keep a hint, or forget one."""
        self._set_aside().hints[owner, key] = hint

    def note(self, name: str, fact: bytes) -> None:
        """Remember a fact."""
        self._set_aside().facts[name] = fact

    def fact(self, name: str) -> bytes:
        """What was last noted under this name, in this turn too; empty when nothing was."""
        noted = self._aside.facts.get(name) if self._aside is not None else None
        return noted if noted is not None else self._store.fact(name)

    def keep_register(self, key: bytes, register: bytes) -> None:
        """Make this the key's register; empty: it has none any more. Whatever shows it must be an ack."""
        self._set_aside().registers[key] = register
        self.any_registers = True

    def register(self, key: bytes) -> bytes:
        """The key's register, what this turn made of it included. Raises `Unreadable`."""
        found = self._aside.registers.get(key) if self._aside is not None else None
        if found is None:
            for _, _, registers in reversed(self._committing):
                found = registers.get(key)
                if found is not None:
                    break
        return found if found is not None else self._store.register(key)

    def registers(self, after: bytes, prefix: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """A page of registers in byte order, what this turn made of them included. Raises `Unreadable`."""
        fresh: dict[bytes, bytes] = {}
        for _, _, registers in self._committing:
            fresh |= registers
        if self._aside is not None:
            fresh |= self._aside.registers
        fresh = {k: r for k, r in fresh.items() if k > after and k.startswith(prefix)}
        gone = sum(not register for register in fresh.values())
        merged = dict(self._store.registers(after, prefix, limit + gone)) | fresh
        return sorted((key, register) for key, register in merged.items() if register)[:limit]

    def _set_aside(self) -> Aside:
        if self._aside is None:
            self._aside = Aside({}, {})
        return self._aside

    def read(self, key: bytes) -> Held | None:
        """What is held of the key, writes of this turn included; sets `volatile`."""
        held = self._writes.get(key)
        if held is None and self._committing:
            for _, writes, _ in reversed(self._committing):
                held = writes.get(key)
                if held is not None:
                    break
        if held is not None:
            self.volatile = True
            return held if held is not GONE else None
        self.volatile = False
        return self._store.get(key)

    def scan(self, after: bytes, prefix: bytes, limit: int) -> tuple[tuple[Row, ...], bool]:
        """A page of rows in byte order, writes not yet durable included; and whether there may be more.

        Sets `volatile`. The page ends early at `SCAN_PAGE_BYTES_MAX`, but never before its first row.
        """
        fresh = {
            key: held
            for writes in self._layers()
            for key, held in writes.items()
            if key > after and key.startswith(prefix)
        }
        self.volatile = bool(fresh)
        gone = sum(held is GONE for held in fresh.values())
        stored = self._store.scan(after, prefix, limit + gone)
        rows: list[Row] = []
        size = 0
        for row in _with_fresh(stored, fresh) if fresh else stored:
            size += len(row.held.blob)
            if rows and size > config.SCAN_PAGE_BYTES_MAX:
                return tuple(rows), True
            rows.append(Row(row.key, row.held.blob))
            if len(rows) == limit:
                return tuple(rows), True
        return tuple(rows), False

    # ---- what the shell calls --------------------------------------------------------------

    def take(self) -> Turn:
        """End the turn: hand out what it owes, and begin the next."""
        turn = Turn(self._number, self._sends, self._writes, self._acks, self._aside, self._control)
        registers = self._aside.registers if self._aside is not None else {}
        if self._writes or registers:
            self._committing.append((self._number, self._writes, registers))
        self._number += 1
        self._sends, self._acks, self._writes, self._aside, self._control = {}, {}, {}, None, {}
        return turn

    @property
    def number(self) -> int:
        """Of the turn under way."""
        return self._number

    def in_flight(self, number: int) -> bool:
        """Whether what that turn wrote is not durable yet."""
        return bool(self._committing) and self._committing[0][0] <= number

    def committed(self, number: int) -> None:
        """Every turn up to this number is durable, and the store shows it."""
        while self._committing and self._committing[0][0] <= number:
            self._committing.popleft()

    def _layers(self) -> Iterator[dict[bytes, Held]]:
        """Oldest first."""
        for _, writes, _ in self._committing:
            yield writes
        yield self._writes


def _with_fresh(stored: Iterable[Stored], fresh: dict[bytes, Held]) -> Iterator[Stored]:
    """The rows of a store, and over them what is newer, both in byte order."""
    older = (row for row in stored if row.key not in fresh)
    newer = [Stored(key, fresh[key]) for key in sorted(fresh)]
    return (row for row in merge(older, newer, key=attrgetter("key")) if row.held is not GONE)


def _any(store: Store) -> bool:
    try:
        return bool(store.registers(b"", b"", 1))
    except Unreadable:
        return True
