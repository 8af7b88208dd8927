"""What each side of a partition could still do: the puts its nodes were asked for while it lasted.

Promises: only puts that had all their time while the cut was in force; a retry is no new put.
Never: says what is right: a scenario's expectations do.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from kvnode.protocol.messages import Put, Written
from kvnode.sim.case import Case, Fault
from kvnode.sim.client import Call
from kvnode.sim.clock import START, Tenths, tenths

SETTLES_MS = 500
"""Within this time of its beginning a cut may not be in force everywhere yet."""


class Side(Struct, frozen=True, kw_only=True):
    """One side of one partition."""

    nodes: tuple[str, ...]
    minor: bool
    """Whether the other side has more nodes."""
    puts: int
    acked: int


def sides(case: Case, calls: Iterable[Call]) -> list[Side]:
    """Both sides of every partition, in the order of time; of those that cut both ways."""
    calls = [call for call in calls if isinstance(call.ask, Put) and call.ask.value is not None]
    calls = [call for call in calls if not (isinstance(call.ask, Put) and call.ask.retry)]
    return [
        _side(case, cut, mine, theirs, calls)
        for cut in case.faults
        if cut.kind == "partition" and not cut.one_way
        for mine, theirs in ((cut.nodes, cut.others), (cut.others, cut.nodes))
    ]


def _side(case: Case, cut: Fault, mine: tuple[str, ...], theirs: tuple[str, ...], puts: Iterable[Call]) -> Side:
    begins = _at(cut.at_ms + SETTLES_MS)
    ends = _at(min(cut.at_ms + cut.lasts_ms, case.lasts_ms) - case.load.timeout_ms)
    asked = [call for call in puts if call.node in mine and begins <= call.invoked <= ends]
    acked = sum(isinstance(call.result, Written) for call in asked)
    return Side(nodes=mine, minor=len(mine) < len(theirs), puts=len(asked), acked=acked)


def _at(ms: int) -> Tenths:
    return START + tenths(ms)
