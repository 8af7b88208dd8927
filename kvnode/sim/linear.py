"""Is a history of one register linearizable? Wing and Gong's search, just in time, with memoisation.

Promises: True exactly when the operations can be put in one order that respects time, in which each
does what its client was told; one whose outcome is unknown may be anywhere after it began, or nowhere.
None where that takes too long to say: it is no pass. Never: knows how the store works: a register, a
condition, a clock.

    ann  |--- put x ---|          bob  |-- get: nothing --|      cid          |-- get: x --|
    order: get nothing, put x, get x

It walks through the calls and returns in time. What may be so far is a set of configurations: a value, and
which of the operations under way were done already. Nothing is done before it must be: when an operation
returns that was not done, others under way may be done before it, in any order that leads to it.

*Unknown outcomes* cost little, however many there are. Such an operation is done only right before one that
needs it: one that shows or expects its value, or that found another one than it expected. Anywhere else
it could be left out, or done later. And a configuration in which fewer of them were done can do all that
another one of the same value can: the other is dropped.

See Wing and Gong (1993); Lowe, "Testing for linearizability" (2017) §3 for just in time and memoisation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

ANY = b"\0any"
"""Expected by a put that has no condition."""
UNSEEN = b"\0unseen"
FOREVER = 1 << 62
CONFIGURATIONS_MAX = 1_000_000
"""Looked at in all; a history that takes more is not judged."""


class RegisterOp(Struct, frozen=True, kw_only=True):
    """One operation on one register. Every value is put by one operation."""

    number: int
    client: str
    reads: bool
    value: bytes | None
    """Put, or shown; None: deleted, absent."""
    expects: bytes | None = ANY
    """The value that must be there for a put to be done."""
    failed: bool = False
    """Its client was told that what it expected is not there."""
    sure: bool = True
    """Whether its client was told anything."""
    invoked: int
    ended: int = FOREVER


class TooMuch(Exception):
    """More configurations than anyone should wait for."""


def linearizable(history: Iterable[RegisterOp], most: int = CONFIGURATIONS_MAX) -> bool | None:
    """Whether there is such an order; None where it takes more than so many steps to say. Empty at first."""
    ops = _alike(sorted(history, key=lambda op: (op.invoked, op.number)))
    # Of a call and a return at one time the call comes first: they overlap.
    events = [(op.invoked, False, i) for i, op in enumerate(ops)]
    events += [(op.ended, True, i) for i, op in enumerate(ops) if op.sure]
    search = Search(ops, most)
    try:
        for _, returned, i in sorted(events):
            if not returned:
                search.call(i)
            elif not search.returned(i):
                return False
    except TooMuch:
        return None
    return True


class Search:
    """What may be, after the events so far."""

    def __init__(self, ops: Sequence[RegisterOp], most: int) -> None:
        self._ops = ops
        self._left = most
        self._open: dict[int, int] = {}
        """Place of an operation under way, of those that return -> its bit."""
        self._unsure = 0
        """The bits of those nobody was told of: they stay under way for good."""
        self._puts: dict[bytes | None, list[tuple[RegisterOp, int]]] = {}
        """Those, by the value that is there after them."""
        self._free: list[int] = []
        self._bits = 0
        self._may: dict[bytes | None, list[int]] = {None: [0]}
        """Value -> which operations under way were done when it is there; none is a superset of another that
        differs in unknown ones only."""

    def call(self, i: int) -> None:
        """An operation begins."""
        if self._free:
            bit = self._free.pop()
        else:
            bit, self._bits = 1 << self._bits, self._bits + 1
        op = self._ops[i]
        if op.sure:
            self._open[i] = bit
        else:
            self._unsure |= bit
            self._puts.setdefault(op.value, []).append((op, bit))

    def returned(self, i: int) -> bool:
        """An operation's client is told: by now it was done. Whether that can be."""
        bit = self._open[i]
        queue = deque((value, done) for value, dones in self._may.items() for done in dones)
        seen: dict[bytes | None, list[int]] = {}
        for value, done in queue:
            self._add(seen, value, done)
        may: dict[bytes | None, list[int]] = {}
        while queue:
            value, done = queue.popleft()
            if done & bit:
                self._add(may, value, done ^ bit)
                continue
            for after, then in self._steps(value, done):
                if self._add(seen, after, then):
                    queue.append((after, then))
        self._may = may
        del self._open[i]
        self._free.append(bit)
        return bool(may)

    def _steps(self, value: bytes | None, done: int) -> Iterator[tuple[bytes | None, int]]:
        """What may be done next, with what must be right before it; and what is there then."""
        for j, bit in self._open.items():
            if done & bit:
                continue
            op = self._ops[j]
            allowed, after = step(op, value)
            if allowed:
                yield after, done | bit
                continue
            if op.failed:
                before = self._anything_else(value, done)
            else:
                before = self._leading_to(op.value if op.reads else op.expects, value, done)
            for between, then in before:
                yield step(op, between)[1], then | bit

    def _leading_to(
        self, wanted: bytes | None, value: bytes | None, done: int
    ) -> Iterator[tuple[bytes | None, int]]:
        """The unknown ones that leave this value, each after those that it needs itself."""
        alike = set()
        for op, bit in self._puts.get(wanted, ()):
            if done & bit or op.expects in alike:
                continue
            alike.add(op.expects)
            if op.expects in (ANY, value):
                yield wanted, done | bit
            else:
                yield from ((wanted, then) for _, then in self._leading_to(op.expects, value, done | bit))

    def _anything_else(self, value: bytes | None, done: int) -> Iterator[tuple[bytes | None, int]]:
        """The unknown ones that leave another value than this one."""
        for other, puts in self._puts.items():
            if other == value:
                continue
            alike = set()
            for op, bit in puts:
                if not done & bit and op.expects in (ANY, value) and op.expects not in alike:
                    alike.add(op.expects)
                    yield other, done | bit

    def _add(self, to: dict[bytes | None, list[int]], value: bytes | None, done: int) -> bool:
        """Add a configuration, unless one is there that can do all it can."""
        self._left -= 1
        if self._left < 0:
            raise TooMuch
        known = to.setdefault(value, [])
        sure = ~self._unsure
        for other in known:
            if other & done == other and (done ^ other) & sure == 0:
                return False
        known[:] = [other for other in known if other & done != done or (done ^ other) & sure]
        known.append(done)
        return True


def _alike(ops: Sequence[RegisterOp]) -> list[RegisterOp]:
    """The same, with one value for all that nobody was shown and nobody expected: which of them is there
    makes no difference."""
    known = {op.value for op in ops if op.reads} | {op.expects for op in ops} | {None}
    return [op if op.value in known else replace(op, value=UNSEEN) for op in ops]


def step(op: RegisterOp, value: bytes | None) -> tuple[bool, bytes | None]:
    """Whether an operation may be done when this is there, and what is there then."""
    if op.reads:
        return op.value == value, value
    holds = op.expects == ANY or op.expects == value
    if not op.sure:
        return holds, op.value  # done in vain is not done at all
    if op.failed:
        return not holds, value
    return holds, op.value
