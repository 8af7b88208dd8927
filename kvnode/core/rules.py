"""The rules of a request: how many replicas it needs, and what is wrong with it.

Promises: pure functions of the request and of what was read; the same answer on every node.
Never: a default that is not written in CONTRACT ("Words and defaults").
"""

from __future__ import annotations

from kvnode.core.versions import covers, live
from kvnode.protocol.messages import Condition, Get, Put
from kvnode.protocol.ring import majority
from kvnode.protocol.types import ALL, DEFAULT, EVENTUAL, MAJORITY, QUORUM, Past, Record


def resolve_r(ask: Get, owners: int) -> tuple[int, str]:
    """How many replicas a get must hear, or what is wrong with its `r`."""
    need, problem = _resolve(ask.r, owners, "r")
    floor = owners - majority(owners) + 1
    if not problem and ask.mode == QUORUM and need < floor:
        return 0, f"mode quorum needs r >= {floor} of {owners} owners, so that reads and writes overlap"
    return need, problem


def resolve_w(ask: Put, owners: int) -> tuple[int, str]:
    """How many replicas a put must reach, or what is wrong with its `w`."""
    need, problem = _resolve(ask.w, owners, "w")
    if not problem and ask.mode == QUORUM and need < majority(owners):
        return 0, f"mode quorum needs w >= {majority(owners)} of {owners} owners, a majority"
    return need, problem


def _resolve(asked: int, owners: int, letter: str) -> tuple[int, str]:
    match asked:
        case d if d in (DEFAULT, MAJORITY):
            return majority(owners), ""
        case a if a == ALL:
            return owners, ""
        case n if 1 <= n <= owners:
            return n, ""
        case _:
            return 0, f"{letter}={asked} is not possible: this key has {owners} owner{'s' * (owners > 1)}"


def reads_first(ask: Put) -> bool:
    """Whether a put must see R owners before it may mint."""
    if ask.condition != Condition.NONE:
        return True
    if ask.context or ask.siblings:
        return False
    return ask.mode == QUORUM or (ask.value is None and ask.mode == EVENTUAL)


def condition_problem(ask: Put, record: Record, past: Past | None, wall: int) -> str:
    """Why a conditional put must not go ahead; empty when it may."""
    if ask.condition == Condition.ABSENT and live(record, wall):
        return "the key exists"
    if ask.condition == Condition.MATCH and not all(covers(past or {}, v) for v in record):
        return "the key has changed since that context"
    return ""


def pair_problem(key: bytes, value: bytes, limit: int) -> str:
    """What is wrong with the size of a pair; empty when it fits."""
    size = len(key) + len(value)
    return f"key and value are {size} bytes together, the most is {limit}" if size > limit else ""
