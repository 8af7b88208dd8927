"""The two sets of owners of a partition on its way, as quorums need them. Values only.

Promises: what is written has its number in each set, and a strict read too; a number that one of them
cannot have is refused. Never: looks at who can be reached.
"""

from __future__ import annotations

from collections.abc import Callable

from kvnode.core.consensus import Poll, poll_of
from kvnode.core.quorum import Quorum, Side
from kvnode.core.routes import Routes
from kvnode.core.rules import needed_r
from kvnode.protocol.messages import Get, Put
from kvnode.protocol.ring import majority
from kvnode.protocol.types import NodeId

Needed = Callable[[int, int, int], tuple[int, str]]
"""`needed_r` or `needed_w`: how many of so many owners, or what is wrong with that."""


def set_sides(routes: Routes, me: NodeId, partition: int, quorum: Quorum, need: Callable[[int], int]) -> None:
    """Have a quorum count in both sets, where there are two. `need`: how many of so many owners."""
    if partition in routes.pending:
        sides = routes.sides(partition)
        quorum.sides = tuple(Side(quorum.bits_of(side, me), need(len(side))) for side in sides)
        quorum.need = quorum.sides[0].need
        quorum.recount()


def needed_in_each(needed: Needed, ask: Get | Put, asked: int, owners: int, routes: Routes) -> tuple[int, str]:
    """What is needed in the owners of now, so many, or what is wrong with it there or in the next ones."""
    if not routes.pending:
        return needed(asked, ask.mode, owners)
    found = [needed(asked, ask.mode, len(side)) for side in routes.sides(routes.partition(ask.key))]
    return found[0][0], next((problem for _, problem in found if problem), "")


def poll_for(routes: Routes, partition: int) -> Poll:
    """A question to all who own a partition, or are to: a majority of each set must agree."""
    sides = routes.sides(partition)
    both = tuple((frozenset(side), majority(len(side))) for side in sides) if len(sides) > 1 else ()
    return poll_of(routes.holders(partition), majority(len(sides[0])), both)


def needed_by(ask: Get | Put, owners: int) -> int:
    """How many of so many owners a request must hear; a put, before it mints, a majority."""
    return needed_r(ask.r, ask.mode, owners)[0] if isinstance(ask, Get) else majority(owners)
