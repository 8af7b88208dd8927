"""Shrinking: from a case that fails to a small one that still does (Zeller's ddmin).

Promises: the small case was run, and broke one of the same claims; a bound on runs. Never: adds anything.

    faults first, for they are few and explain most; then operations; halves, quarters, ... single ones
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from kvnode.sim.case import Case, keep

RUNS_MAX = 200
"""Runs of one shrinking; then the smallest case so far is what there is."""

Fails = Callable[[Case], bool]


class Small(NamedTuple):
    """What is left of a case."""

    case: Case
    faults: list[int]
    """Places in the original's faults."""
    ops: list[int]
    runs: int


def shrink(case: Case, fails: Fails, runs_max: int = RUNS_MAX) -> Small:
    """The smallest case found that still fails. `case` itself does."""
    runs = 0
    faults, ops = list(range(len(case.faults))), [op.number for op in case.ops]

    def still(some_faults: list[int], some_ops: list[int]) -> bool:
        nonlocal runs
        runs += 1
        return runs <= runs_max and fails(keep(case, set(some_faults), set(some_ops)))

    before = -1
    while before != len(faults) + len(ops) and runs < runs_max:
        before = len(faults) + len(ops)
        faults = _smaller(faults, lambda some: still(some, ops))  # noqa: B023 -- called at once
        ops = _smaller(ops, lambda some: still(faults, some))  # noqa: B023
    return Small(keep(case, set(faults), set(ops)), faults, ops, min(runs, runs_max))


def _smaller(items: list[int], fails: Callable[[list[int]], bool]) -> list[int]:
    """Without whatever can be left out, in ever smaller chunks."""
    chunk = len(items)
    while chunk:
        at = 0
        while at < len(items):
            rest = items[:at] + items[at + chunk :]
            if fails(rest):
                items = rest
            else:
                at += chunk
        chunk //= 2
    return items


def spans(numbers: list[int]) -> str:
    """`3,7-9,12`, as a command line has them."""
    parts: list[str] = []
    for number in numbers:
        first, _, last = parts[-1].rpartition("-") if parts else ("", "", "-9")
        if int(last) == number - 1:
            parts[-1] = f"{first or last}-{number}"
        else:
            parts.append(str(number))
    return ",".join(parts)


def numbers(text: str) -> set[int]:
    """What `spans` wrote. Raises `ValueError`."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found
