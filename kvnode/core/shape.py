"""The rings that follow a ring: a step of some moves done, members gone, what is pending given up. Values only.

Promises: each is of the next epoch, and names that epoch for every partition whose owners or moves it changes,
and for no other; owners stay distinct. Never: decides anything; one of several is chosen (`decree.py`).
"""

from __future__ import annotations

from collections.abc import Collection

from msgspec.structs import replace

from kvnode.protocol.ring import Move, Ring
from kvnode.protocol.types import NodeId


def flipped(ring: Ring, partitions: Collection[int]) -> Ring:
    """The pending step of these partitions is done; what is left of their moves goes on."""
    epoch = ring.epoch + 1
    owners, since = list(ring.owners), list(ring.since)
    moves: list[Move] = []
    for move in ring.moves:
        p = move.partition
        if p not in partitions:
            moves.append(move)
            continue
        owners[p] = _after_step(owners[p], move.owners)
        since[p] = epoch
        if set(owners[p]) == set(move.owners):
            owners[p] = move.owners
        else:
            moves.append(move)
    return replace(ring, epoch=epoch, owners=tuple(owners), since=tuple(since), moves=tuple(moves))


def _after_step(now: tuple[int, ...], then: tuple[int, ...]) -> tuple[int, ...]:
    """The first owner gained in the place of the first one lost."""
    gained = next((i for i in then if i not in now), None)
    lost = next((i for i in now if i not in then), None)
    if lost is None:
        return now if gained is None else (*now, gained)
    if gained is None:
        return tuple(i for i in now if i != lost)
    return tuple(gained if i == lost else i for i in now)


def cancelled(ring: Ring) -> Ring:
    """Nothing is pending any more, and nobody is leaving: what has been moved stays where it is."""
    epoch = ring.epoch + 1
    since = list(ring.since)
    for move in ring.moves:
        since[move.partition] = epoch
    return replace(ring, epoch=epoch, since=tuple(since), moves=(), leaving=(), lost=())


def departed(ring: Ring, gone: Collection[NodeId]) -> Ring:
    """Members that own nothing are members no more."""
    left = [i for i, member in enumerate(ring.members) if member.id not in gone]
    index = {old: new for new, old in enumerate(left)}
    return replace(
        ring, epoch=ring.epoch + 1,
        members=tuple(ring.members[i] for i in left),
        owners=tuple(tuple(index[i] for i in owners) for owners in ring.owners),
        moves=tuple(Move(move.partition, tuple(index[i] for i in move.owners)) for move in ring.moves),
        leaving=tuple(node for node in ring.leaving if node not in gone),
        lost=tuple(node for node in ring.lost if node not in gone),
        removed=(*ring.removed, *(member for member in ring.members if member.id in gone)),
    )  # fmt: skip


def idle(ring: Ring) -> list[NodeId]:
    """Members that are to leave, and have no place now or by any move."""
    used = {i for owners in ring.owners for i in owners} | {i for move in ring.moves for i in move.owners}
    return [member.id for i, member in enumerate(ring.members) if member.id in ring.leaving and i not in used]


def changed(old: Ring, new: Ring) -> frozenset[int]:
    """The partitions whose owners or moves are others."""
    if old.branch != new.branch:
        return frozenset(range(new.q))
    return frozenset(p for p in range(new.q) if old.since[p] != new.since[p])
