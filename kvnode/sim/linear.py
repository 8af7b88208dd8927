"""Is a history of one register linearizable? Wing and Gong's search, with memoisation.

Promises: True exactly when the operations can be put in one order that respects time, in which each
does what its client was told; one whose outcome is unknown may be anywhere after it began, or nowhere.
Never: knows how the store works: a register, a condition, a clock.

    ann  |--- put x ---|          bob  |-- get: nothing --|      cid          |-- get: x --|
    order: get nothing, put x, get x

See Wing and Gong (1993); Lowe, "Testing for linearizability" (2017), for the memoisation: what is left to
do depends only on which operations are done and on the value, not on the order they were done in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

ANY = b"\0any"
"""Expected by a put that has no condition."""
UNSEEN = b"\0unseen"
FOREVER = 1 << 62
CONFIGURATIONS_MAX = 2_000_000
"""A history that takes more is no test: make it shorter."""


Configuration: TypeAlias = tuple[int, bytes | None, bool]
"""Which operations are done, as bits; what is there; and whether the last was one nobody was told of."""


class TooMuch(Exception):
    """A history that cannot be judged in reasonable time and memory: no verdict."""


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


def linearizable(history: Iterable[RegisterOp]) -> bool:
    """Whether there is such an order. The register is empty at first. Raises `TooMuch`."""
    ops = _alike(sorted(history, key=lambda op: (op.invoked, op.number)))
    required = sum(1 << i for i, op in enumerate(ops) if op.sure)
    stack: list[Configuration] = [(0, None, False)]
    seen = set(stack)
    while stack:
        done, value, idle = stack.pop()
        if done & required == required:
            return True
        for i in _next(ops, done):
            if idle and not ops[i].reads and ops[i].expects == ANY:
                continue  # the one before it, of which nobody was told, would be for nothing: leave it out
            allowed, after = step(ops[i], value)
            if allowed and (found := (done | 1 << i, after, not ops[i].sure)) not in seen:
                seen.add(found)
                stack.append(found)
        if len(seen) > CONFIGURATIONS_MAX:
            raise TooMuch(f"{len(ops)} operations overlap too much to be judged")
    return False


def _alike(ops: Sequence[RegisterOp]) -> list[RegisterOp]:
    """The same, with one value for all that nobody was shown and nobody expected: which of them is there
    makes no difference."""
    known = {op.value for op in ops if op.reads} | {op.expects for op in ops} | {None}
    return [op if op.value in known else replace(op, value=UNSEEN) for op in ops]


def _next(ops: Sequence[RegisterOp], done: int) -> list[int]:
    """The operations that may come next: those that began before any that is not done yet had ended.

    Of several that are alike, and of which nobody was told, the first does for all. They come in the order
    they began, so whatever begins after the earliest end so far cannot end before it.
    """
    left = (1 << len(ops)) - 1 & ~done
    earliest_end, found, unsure = FOREVER, [], set()
    while left:
        lowest = left & -left
        left ^= lowest
        i = lowest.bit_length() - 1
        op = ops[i]
        if op.invoked > earliest_end:
            break
        earliest_end = min(earliest_end, op.ended)
        if not op.sure:
            if (op.value, op.expects) in unsure:
                continue
            unsure.add((op.value, op.expects))
        found.append(i)
    return found


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
