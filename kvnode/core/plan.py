"""A plan: what a commit of the staged changes would make of the ring. It is computed, and never changed.

Promises: a pure function of the ring and the staged changes, in whatever order they come, and its id names
both; the owners that its moves lead to keep every promise of `assignment.py`, and the least moves; what
cannot be committed has a `problem`, as a sentence. Never: looks at who is up, for then two nodes would
plan differently; that is judged when a plan is committed.

There are two ways to the next ring. JOIN, LEAVE and REPLACE keep every owner and say in `moves` where
partitions go; who leaves stays a member until it owns nothing. FORCE_REMOVE takes members out at once, with
their places: who is left owns the partitions, and the moves make them whole again. The branch that begins
with it is a random number, and is drawn by whoever commits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from math import ceil, floor

import msgspec

from kvnode import config
from kvnode.core.assignment import exact_shares
from kvnode.core.reassignment import reassign
from kvnode.protocol.ring import Member, Move, Ring
from kvnode.protocol.topology import Change, ChangeKind, Plan
from kvnode.protocol.types import NodeId

ID_BYTES = 6


def plan_of(ring: Ring, changes: Iterable[Change]) -> Plan:
    """What a commit of these changes would do to this ring."""
    staged = tuple(sorted(changes, key=lambda change: (change.node, change.kind)))
    name = plan_id(ring, staged)
    problem = problem_of(ring, staged)
    if problem:
        return Plan(name, ring.epoch, staged, ring, 0, (), problem)
    base = without(ring, {c.node for c in staged if c.kind == ChangeKind.FORCE_REMOVE})
    stays, after = _changed(ring, base, staged)
    if not staged and (after.owners, after.moves) == (base.owners, ()):
        problem = "nothing is staged, and every partition is where it belongs"
    warnings = tuple(_warnings(ring, base, stays, staged))
    return Plan(name, ring.epoch, staged, after, _optimum(base, stays), warnings, problem)


def plan_id(ring: Ring, staged: Sequence[Change]) -> str:
    """The hash of a ring and the changes staged for it."""
    return blake2b(msgspec.msgpack.encode((ring, staged)), digest_size=ID_BYTES).hexdigest()


# ---- what cannot be done -----------------------------------------------------------------------


def problem_of(ring: Ring, staged: Sequence[Change]) -> str:
    """Why these changes cannot be made to this ring; empty when they can."""
    forced = [c for c in staged if c.kind == ChangeKind.FORCE_REMOVE]
    if forced and len(forced) < len(staged):
        return "a forced removal is committed alone: it begins a new branch"
    if ring.moves and not forced:
        return f"{len(ring.moves)} partitions are on their way still: wait for them, or cancel what is pending"
    seen: set[str] = set()
    for change in staged:
        problem = _problem_with(ring, change)
        if problem:
            return problem
        names = {change.node} | ({change.member.id} if change.member is not None else set())
        if names & seen:
            return f"{min(names & seen)} is part of two changes"
        seen |= names
    added = [c.member.address for c in staged if c.member is not None]
    if len(set(added)) < len(added):
        return "two of the nodes that join have the same address"
    going = {*ring.leaving, *(c.node for c in staged if c.kind != ChangeKind.JOIN)}
    if not added and going >= {member.id for member in ring.members}:
        return "no member would be left"
    if len(ring.members) + len(added) > config.MEMBERS_MAX:
        return f"a cluster has at most {config.MEMBERS_MAX} members"
    return ""


def _problem_with(ring: Ring, change: Change) -> str:
    """What is wrong with one change, whatever the others are."""
    if change.kind in (ChangeKind.JOIN, ChangeKind.REPLACE):
        problem = newcomer_problem(ring, change.member)
        if problem:
            return problem
    if change.kind == ChangeKind.JOIN:
        return "" if change.member is not None and change.member.id == change.node else "it joins under two names"
    if ring.member(change.node) is None:
        return f"{change.node} is no member"
    if change.node in ring.leaving and change.kind != ChangeKind.FORCE_REMOVE:
        return f"{change.node} is leaving already"
    return ""


def newcomer_problem(ring: Ring, member: Member | None) -> str:
    """Why a node cannot become a member; empty when it can."""
    if member is None:
        return "nothing is known of the node that is to join"
    if ring.member(member.id) is not None:
        return f"{member.id} is a member already"
    if any(former.id == member.id for former in ring.removed):
        return (
            f"{member.id} was removed, and a removed name never returns: start the node empty, under another name"
        )
    same = next((m.id for m in ring.members if m.address == member.address), None)
    return f"{member.id} has the address of {same}, {member.address}" if same is not None else ""


# ---- the next ring -----------------------------------------------------------------------------


def without(ring: Ring, gone: set[NodeId]) -> Ring:
    """A ring without some members, at once: nothing is pending, and their places are nobody's."""
    if not gone:
        return ring
    left = [i for i, member in enumerate(ring.members) if member.id not in gone]
    index = {old: new for new, old in enumerate(left)}
    return msgspec.structs.replace(
        ring,
        members=tuple(ring.members[i] for i in left),
        owners=tuple(tuple(index[i] for i in owners if i in index) for owners in ring.owners),
        moves=(),
        leaving=tuple(node for node in ring.leaving if node not in gone),
        lost=tuple(node for node in ring.lost if node not in gone),
        removed=(*ring.removed, *(member for member in ring.members if member.id in gone)),
    )


def _changed(ring: Ring, base: Ring, staged: Sequence[Change]) -> tuple[list[Member], Ring]:
    """Who is a member in the end, and the ring that leads there; `base` is the ring without removed members."""
    replaced = {c.node: c.member.id for c in staged if c.kind == ChangeKind.REPLACE and c.member is not None}
    leavers = [c.node for c in staged if c.kind in (ChangeKind.LEAVE, ChangeKind.REPLACE)]
    members = (*base.members, *(c.member for c in staged if c.member is not None))
    index = {member.id: i for i, member in enumerate(members)}
    stays = [m for m in members if m.id not in leavers and m.id not in base.leaving]
    names = [[replaced.get(node, node) for node in base.owner_ids(p)] for p in range(base.q)]
    owners, moves, since = list(base.owners), [], list(base.since)
    unsettled = {move.partition for move in ring.moves}
    for p, indices in enumerate(reassign(stays, names, base.q, base.n)):
        to = tuple(index[stays[i].id] for i in indices)
        if not owners[p] or set(owners[p]) == set(to):
            # There is nothing left to copy, or only another comes first.
            owners[p] = to
        else:
            moves.append(Move(p, to))
            unsettled.add(p)
        if p in unsettled or ring.owner_ids(p) != tuple(members[i].id for i in owners[p]):
            since[p] = ring.epoch + 1
    return stays, msgspec.structs.replace(
        base, epoch=ring.epoch + 1, members=members, owners=tuple(owners), since=tuple(since), moves=tuple(moves),
        leaving=(*base.leaving, *leavers), lost=(*base.lost, *sorted(replaced)),
        joining=tuple(c.member.id for c in staged if c.member is not None),
    )  # fmt: skip


def _optimum(base: Ring, stays: Sequence[Member]) -> int:
    """Places that need another member, whatever the plan: what members lack, or what nobody may keep."""
    copies = min(base.n, len(stays))
    held = Counter(node for p in range(base.q) for node in base.owner_ids(p))
    shares = exact_shares(stays, base.q, copies)
    lacking = sum(max(0, floor(share) - held[m.id]) for m, share in zip(stays, shares, strict=True))
    kept = sum(min(held[m.id], ceil(share)) for m, share in zip(stays, shares, strict=True))
    # A partition without any owner left is nobody's to copy: its next owners have it at once.
    return max(0, max(lacking, base.q * copies - kept) - copies * sum(not owners for owners in base.owners))


def _warnings(ring: Ring, base: Ring, stays: Sequence[Member], staged: Sequence[Change]) -> Iterable[str]:
    """What an operator should know before the commit."""
    copies = min(base.n, len(stays))
    hosts = {member.host for member in stays}
    if copies < base.n:
        yield f"{len(stays)} members for n={base.n}: each key has {copies} cop{'y' if copies == 1 else 'ies'}"
    elif len(hosts) < copies:
        yield f"{len(hosts)} hosts for {copies} copies: some partitions keep several on one host"
    for change in staged:
        if change.member is not None and change.member.weight == 0:
            yield f"{change.member.id} has weight 0: it gets no partitions unless there is no one else"
    if any(change.kind == ChangeKind.FORCE_REMOVE for change in staged):
        nobody = sum(not owners for owners in base.owners)
        fewer = sum(len(b) < len(a) // 2 + 1 for a, b in zip(ring.owners, base.owners, strict=True)) - nobody
        yield "what only the removed members held is lost, and they never return under their names"
        yield f"{nobody} of {ring.q} partitions lose every copy, {fewer} more the majority of theirs"
