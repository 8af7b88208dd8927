"""Reassignment: the owners of every partition after a change of members, with the least moved.

Promises: all that `assignment.py` promises of the owners, whatever they were before; a ring that has
it already stays as it is; members who come take over places, members who go leave theirs to those
who lack some, and nothing else moves unless balance, hosts or racks cannot be had otherwise.
Never: depends on the order of a set, the hash seed, or chance.

    holes      places without a member: of those who left, or of two owners who may not stand together
    over       members that hold more places than they are to have
    short      members that hold fewer

Most places find a new member at once. What is stuck goes along a path: this partition takes b, who
gives up another one to c, who has room. Partitions and members with their bounds (`places.py`) are a
flow network in which a full flow exists, the one `assign` makes, so from every hole and from every
member that is over there is a path to one that is short: this always ends. The paths tried first give
back to owners what was taken from them, or go through places that were newly given anyway; such detours
cost nothing. Paths with the fewest steps are valid as a whole, for a shortcut would be shorter still
(the argument for matroid intersection, Schrijver 2003, §41.2).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush

from msgspec import Struct

from kvnode.core.assignment import Owners, even_out, rank, seed_of
from kvnode.core.places import Bounds
from kvnode.protocol.ring import Member
from kvnode.protocol.types import NodeId

HOLE = -1


class Step(Struct, frozen=True):
    """Of one partition, a place goes from one member (or nobody) to another."""

    partition: int
    giver: int
    taker: int


class Layout:
    """Who has which place, while places change hands."""

    def __init__(self, members: Sequence[Member], before: list[list[int]], copies: int) -> None:
        """`before`: the owners that are still members; holes at the places of the others."""
        self.seeds = [seed_of(member.id) for member in members]
        held = [0] * len(members)
        for owners in before:
            for i in owners:
                if i != HOLE:
                    held[i] += 1
        self.bounds = Bounds(members, len(before), copies, held)
        self.before = [frozenset(owners) - {HOLE} for owners in before]
        self.places: list[list[int]] = []
        self.of: list[set[int]] = [set() for _ in members]
        """The partitions each member has a place in."""
        for partition, owners in enumerate(before):
            chosen: list[int] = []
            for i in owners:
                kept = [c for c in chosen if c != HOLE]
                fits = i != HOLE and len(kept) < copies and self.bounds.fits([*kept, i])
                chosen.append(i if fits else HOLE)
            while len(chosen) > copies:
                # Fewer are wanted than stay where members went to other hosts: the later places go.
                chosen.remove(HOLE) if HOLE in chosen else chosen.pop()
            chosen += [HOLE] * (copies - len(chosen))
            self.places.append(chosen)
            for i in chosen:
                if i != HOLE:
                    self.of[i].add(partition)

    def spare(self, member: int) -> int:
        """How many places a member lacks; below zero, how many it has too many."""
        return self.bounds.places[member] - len(self.of[member])

    def short(self) -> list[int]:
        """The members that lack places."""
        return [i for i in range(len(self.of)) if self.spare(i) > 0]

    def holes(self) -> Iterator[int]:
        """A partition for each hole."""
        for partition, owners in enumerate(self.places):
            yield from (partition for i in owners if i == HOLE)

    def may(self, partition: int, giver: int, taker: int) -> bool:
        """Whether one could take the place of the other (or a hole) in a partition."""
        owners = self.places[partition]
        if taker in owners:
            return False
        return self.bounds.plain or self.bounds.fits([*(i for i in owners if i not in (HOLE, giver)), taker])

    def fits(self, partition: int) -> bool:
        """Whether the owners of a partition may stand together."""
        owners = [i for i in self.places[partition] if i != HOLE]
        return len(set(owners)) == len(owners) and self.bounds.fits(owners)

    def move(self, partition: int, giver: int, taker: int) -> None:
        """Hand a place over."""
        owners = self.places[partition]
        owners[owners.index(giver)] = taker
        if giver != HOLE:
            self.of[giver].remove(partition)
        if taker != HOLE:
            self.of[taker].add(partition)

    def in_order(self, member: int) -> list[int]:
        """A member's partitions, in an order of its own: so that what it gives is spread."""
        seed = self.seeds[member]
        return sorted(self.of[member], key=lambda partition: rank(partition, seed))


def reassign(members_after: Sequence[Member], owners_before: Sequence[Sequence[NodeId]], q: int, n: int) -> Owners:
    """Owners of each partition as indices into `members_after`, the first place first.

    A member that stands in for another gets its places, and no other moves, if the other's name in
    `owners_before` is replaced with its own.
    """
    assert members_after
    assert len(owners_before) == q
    copies = min(n, len(members_after))
    index = {member.id: i for i, member in enumerate(members_after)}
    before = [[index.get(node, HOLE) for node in owners] for owners in owners_before]
    layout = Layout(members_after, before, copies)
    _fill(layout)
    _even(layout)
    assert not any(True for _ in layout.holes())
    assert all(layout.spare(i) == 0 for i in range(len(members_after)))
    return _first_places(layout, before, copies)


# ---- what finds a place at once ----------------------------------------------------------------


class Takers:
    """The members that are short, the one that lacks most first."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._heap = [(-layout.spare(i), rank(0, layout.seeds[i]), i) for i in layout.short()]
        heapify(self._heap)

    def give(self, partition: int, giver: int) -> bool:
        """Give a place to the first that may have it."""
        layout = self._layout
        passed = []
        found = False
        while self._heap and not found:
            entry = heappop(self._heap)
            taker = entry[2]
            found = layout.may(partition, giver, taker)
            if found:
                layout.move(partition, giver, taker)
                entry = (-layout.spare(taker), rank(partition + 1, layout.seeds[taker]), taker)
            if entry[0] < 0:
                passed.append(entry)
        for entry in passed:
            heappush(self._heap, entry)
        return found


def _fill(layout: Layout) -> None:
    """Give holes, and what members have too many, to members that are short, where that is plain."""
    takers = Takers(layout)
    for partition in list(layout.holes()):
        takers.give(partition, HOLE)
    for giver in range(len(layout.of)):
        partitions = iter(layout.in_order(giver)) if layout.spare(giver) < 0 else iter(())
        for partition in partitions:
            if layout.spare(giver) >= 0:
                break
            takers.give(partition, giver)


# ---- what needs a path -------------------------------------------------------------------------


def _even(layout: Layout) -> None:
    """Let what is still stuck go along paths."""
    for partition in list(layout.holes()):
        _settle(layout, partition, HOLE)
    for giver in range(len(layout.of)):
        while layout.spare(giver) < 0:
            _settle(layout, HOLE, giver)


def _settle(layout: Layout, partition: int, giver: int) -> None:
    """Find a member for a hole, or for one place of a member that has too many."""
    path = _cheap_path(layout, partition, giver)
    if not _walk(layout, path):
        _undo(layout, path)
        walked = _walk(layout, _short_path(layout, partition, giver))
        assert walked


def _walk(layout: Layout, path: list[Step]) -> bool:
    """Go along a path. Whether all partitions on it look as they may."""
    for step in path:
        layout.move(step.partition, step.giver, step.taker)
    return all(layout.fits(step.partition) for step in path)


def _undo(layout: Layout, path: list[Step]) -> None:
    for step in reversed(path):
        layout.move(step.partition, step.taker, step.giver)


class Search:
    """The members that can be reached, each with the step that reaches it first."""

    def __init__(self, layout: Layout, partition: int, giver: int) -> None:
        self._layout = layout
        self._came: dict[int, Step] = {}
        self.queue = [giver] if giver != HOLE else []
        self.left = dict.fromkeys(i for i in range(len(layout.of)) if i != giver)
        """Members not reached yet."""
        self.short = layout.short()
        self.end = HOLE
        """The first member reached that is short."""
        if giver == HOLE:
            self.reach(partition, HOLE)

    def reach(self, partition: int, giver: int, among: Sequence[int] = ()) -> None:
        """Reach those of `among` (or whom not) that could take this place, the short ones first."""
        for taker in among or (*self.short, *self.left):
            if self.end != HOLE:
                return
            if taker in self.left and self._layout.may(partition, giver, taker):
                del self.left[taker]
                self._came[taker] = Step(partition, giver, taker)
                self.queue.append(taker)
                if self._layout.spare(taker) > 0:
                    self.end = taker

    def path(self) -> list[Step]:
        """The steps to a member that is short, the first one first; empty while none is reached."""
        steps: list[Step] = []
        at = self.end
        while at in self._came:
            steps.append(self._came[at])
            at = steps[-1].giver
        return steps[::-1]


def _short_path(layout: Layout, partition: int, giver: int) -> list[Step]:
    """The path of the fewest steps."""
    search = Search(layout, partition, giver)
    for i in search.queue:
        for p in layout.in_order(i) if search.end == HOLE else ():
            search.reach(p, i)
    return search.path()


def _cheap_path(layout: Layout, partition: int, giver: int) -> list[Step]:
    """A path on which few owners lose what they had before."""
    search = Search(layout, partition, giver)
    done = 0
    while search.end == HOLE:
        # Whoever can be reached by steps that cost nothing...
        assert done < len(search.queue)
        last = done
        while last < len(search.queue) and search.end == HOLE:
            i = search.queue[last]
            last += 1
            for p in layout.in_order(i):
                if i not in layout.before[p]:
                    search.reach(p, i)
                elif back := sorted(layout.before[p].difference(layout.places[p])):
                    search.reach(p, i, back)
        # ...and then by one that takes from an owner a place it had before.
        reached, done = search.queue[done:last], last
        for among in (search.short, ()):
            for i in reached:
                for p in layout.in_order(i) if search.end == HOLE else ():
                    search.reach(p, i, among)
    return search.path()


# ---- who comes first ---------------------------------------------------------------------------


def _first_places(layout: Layout, before: list[list[int]], copies: int) -> Owners:
    """Keep whose place comes first where that is balanced; the others keep their order."""
    places = layout.places
    low = [len(owned) // copies for owned in layout.of]
    high = [-(-len(owned) // copies) for owned in layout.of]
    first = [owners[0] for owners in places]
    count = [0] * len(layout.of)
    for i in first:
        count[i] += 1
    even_out(places, first, count, low, high)
    return tuple((first[p], *(i for i in owners if i != first[p])) for p, owners in enumerate(places))
