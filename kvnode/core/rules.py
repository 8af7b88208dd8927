"""The rules of a request: how many replicas it needs, and what is wrong with it.

Promises: pure functions of the request and of what was read; the same answer on every node.
Never: a default that is not written in CONTRACT ("Words and defaults").
"""

from __future__ import annotations

from functools import lru_cache
from typing import TypeVar

import msgspec

from kvnode.core.versions import covers, live
from kvnode.protocol.context import BadContext, decode_context, join
from kvnode.protocol.messages import Condition, Get, Put, Scan
from kvnode.protocol.ring import majority
from kvnode.protocol.types import ALL, DEFAULT, EVENTUAL, MAJORITY, QUORUM, Past, Record, decode_record


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


Asked = TypeVar("Asked", Get | Put, Scan)


def with_time_left(ask: Asked, left_ms: float) -> Asked:
    """A request that is to begin anew, with what is left of its time; 0 where nothing is."""
    return msgspec.structs.replace(ask, timeout_ms=max(0, int(left_ms)))


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


def strong_problem(ask: Get | Put, limit: int) -> str:
    """What is wrong with a request in mode `strong`; empty when it can be served."""
    if (ask.r if isinstance(ask, Get) else ask.w) not in (DEFAULT, MAJORITY):
        return "mode strong always asks a majority of the owners: leave r and w out"
    if isinstance(ask, Get):
        return ""
    if ask.siblings:
        return "mode strong keeps no siblings"
    if ask.ttl_ms:
        return "mode strong has no time to live: clocks differ, and a register must not"
    if ask.context and ask.condition != Condition.MATCH:
        return "in mode strong a context is a condition: give it as if_match (--if-match)"
    if ask.condition == Condition.MATCH:
        try:
            decode_context(ask.key, ask.context)
        except BadContext as error:
            return str(error)
    return pair_problem(ask, limit)


def strong_condition_problem(ask: Put, current: Record) -> str:
    """Why a conditional put must not change a register that holds this; empty when it may."""
    if ask.condition == Condition.ABSENT and any(v.value is not None for v in current):
        return "the key exists"
    if ask.condition == Condition.MATCH and decode_context(ask.key, ask.context) != join(current):
        return "the key has changed since that context"
    return ""


def pair_problem(ask: Put, limit: int) -> str:
    """What is wrong with the size of a pair; empty when it fits."""
    size = len(ask.key) + (len(ask.value) if ask.value is not None else 0)
    return f"key and value are {size} bytes together, the most is {limit}" if size > limit else ""


def one_version(record: bytes) -> bool:
    """Whether this is what a register holds: a record of one version."""
    try:
        return len(decode_record(record)) == 1
    except msgspec.MsgspecError:
        return False
