"""The rules of a request: how many replicas it needs, and what is wrong with it.

Promises: pure functions of the request and of what was read; the same answer on every node.
Never: a default that is not written in CONTRACT ("Words and defaults").
"""

from __future__ import annotations

from functools import lru_cache

from kvnode.core.versions import covers, live
from kvnode.protocol.messages import Condition, Put
from kvnode.protocol.ring import majority
from kvnode.protocol.types import ALL, DEFAULT, EVENTUAL, MAJORITY, QUORUM, Past, Record


@lru_cache(maxsize=1024)
def needed_r(asked: int, mode: int, owners: int) -> tuple[int, str]:
    """How many replicas a get must hear, or what is wrong with its `r`."""
    need, problem = _resolve(asked, owners, "r")
    floor = owners - majority(owners) + 1
    if not problem and mode == QUORUM and need < floor:
        return 0, f"mode quorum needs r >= {floor} of {owners} owners, so that reads and writes overlap"
    return need, problem


@lru_cache(maxsize=1024)
def needed_w(asked: int, mode: int, owners: int) -> tuple[int, str]:
    """How many replicas a put must reach, or what is wrong with its `w`."""
    need, problem = _resolve(asked, owners, "w")
    if not problem and mode == QUORUM and need < majority(owners):
        return 0, f"mode quorum needs w >= {majority(owners)} of {owners} owners, a majority"
    return need, problem


def _resolve(asked: int, owners: int, letter: str) -> tuple[int, str]:
    if asked in (DEFAULT, MAJORITY):
        return majority(owners), ""
    if asked == ALL:
        return owners, ""
    if 1 <= asked <= owners:
        return asked, ""
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


def pair_problem(ask: Put, limit: int) -> str:
    """What is wrong with the size of a pair; empty when it fits."""
    size = len(ask.key) + (len(ask.value) if ask.value is not None else 0)
    return f"key and value are {size} bytes together, the most is {limit}" if size > limit else ""
