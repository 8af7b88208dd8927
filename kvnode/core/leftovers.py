"""Leftovers: copies of partitions that this node does not own any more, or never came to.

Promises: one is dropped, versions and registers, once a last exchange with every owner that is up, at least a
majority, has brought them what only it had; found again at each start, so a crash in between costs nothing.
Never: serves one; drops one that it owns, or is to own.
Input: rings, finished exchanges, ticks.

While a node has one it says that it keeps a hint as old as can be: no tombstone is reaped anywhere that
something in it might bring back (PROTOCOL-CASES 19, 27).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from msgspec import Struct

from kvnode.core.local import Local
from kvnode.core.merkle import span_of
from kvnode.core.outbox import Unreadable
from kvnode.protocol.ring import Partition, majority
from kvnode.protocol.types import Millis, NodeId

LEAVES_LEAST, LEAVES_MOST = 16, 32
"""Leaves dropped in one turn: one or two milliseconds' work, and one commit."""
LEAVES_ALONE = 128
"""...of a node that owns nothing any more: it keeps few others waiting, and its end waits for it."""
QUICK_MS, SLOW_MS = 15, 40
"""A part that was durable so soon lets the next be twice as large; one that took so long, half."""
REST = 2.0
"""How many times as long as a part took is for others, before the next; half of that, where it owns nothing."""
ACTIVE_MAX = 2
"""Exchanged at once; the others wait."""
RETRY_MS = 1_000
LOOK_MS = 10_000
"""How often one looks for what came after all: what was on its way to the disk when the owners changed."""
FROM_THE_BEGINNING = 1
"""Since when a leftover may be: no tombstone is older."""


class Leftover(Struct, gc=False):
    """One of them."""

    partition: Partition
    since: int
    exchanged: set[NodeId]
    due: Millis = 0
    dropping: int = -1
    """The leaf from which on it is to be dropped; -1 before its owners have what it has."""


class Leftovers:
    """Those of one node."""

    def __init__(self, local: Local) -> None:
        self._local = local
        self._outbox = local.outbox
        self._left: dict[int, Leftover] = {}
        self.down: Callable[[NodeId], bool] = lambda _: False
        """Whether a member is down, by more than one opinion."""
        self.exchange: Callable[[Partition, NodeId], bool] = lambda _, __: False
        """Begins an exchange. False where one of that partition is under way."""
        self._leaves = LEAVES_LEAST
        self._alone = False
        self._turn = 0
        """The turn in which a part was dropped, until that is durable."""
        self._began: Millis = 0
        self._next_drop: Millis = 0
        self._next_look: Millis = 0
        self.look()

    def look(self) -> None:
        """Find what is held and not owned: at the start, whenever another ring is held, and now and then."""
        local, routes = self._local, self._local.routes
        tree, q = local.store.tree, routes.ring.q
        self._alone = not any(map(routes.holds, range(q)))
        for p in [p for p, left in self._left.items() if routes.holds(p) or routes.since[p] != left.since]:
            del self._left[p]
        # Partitions of one slot each are many, and few of them are here.
        for p in range(q) if routes.shift else sorted(tree.slots()):
            if p not in self._left and not routes.holds(p) and tree.holds(span_of(Partition(p), q)):
                self._left[p] = Leftover(Partition(p), routes.since[p], set())

    @property
    def count(self) -> int:
        """Partitions of which there is one."""
        return len(self._left)

    @property
    def oldest(self) -> int:
        """What is said of the oldest hint while there is any; 0 while there is none."""
        return FROM_THE_BEGINNING if self._left else 0

    timed = property(lambda self: bool(self._left))

    def on_exchanged(self, partition: int, peer: NodeId) -> None:
        """An owner has all that is in it now."""
        left = self._left.get(partition)
        if left is not None:
            left.exchanged.add(peer)
            left.due = self._local.now

    def on_tick(self, now: Millis) -> None:
        """Exchange the next; drop what its owners have."""
        if self._turn and not self._outbox.in_flight(self._turn):
            self._pace(now)
        if now >= self._next_look:
            self._next_look = now + LOOK_MS
            self.look()
        dropping = [left for left in self._left.values() if left.dropping >= 0]
        asking = (left for left in self._left.values() if left.dropping < 0)
        for left in list(islice(asking, ACTIVE_MAX)):
            if now >= left.due:
                self._step(left, now)
        if dropping and not self._turn and now >= self._next_drop:
            self._drop(dropping)

    def _pace(self, now: Millis) -> None:
        """The last part is durable: what follows is for others, and the next is larger or smaller."""
        took, self._turn = now - self._began, 0
        if took <= QUICK_MS:
            self._leaves = min(2 * self._leaves, LEAVES_ALONE if self._alone else LEAVES_MOST)
        elif took > SLOW_MS:
            self._leaves = max(self._leaves // 2, LEAVES_LEAST)
        self._next_drop = now + took * (REST / 2 if self._alone else REST)

    def _step(self, left: Leftover, now: Millis) -> None:
        left.due = now + RETRY_MS
        owners = self._local.routes.owners[left.partition]
        up = [owner for owner in owners if not self.down(owner)]
        missing = [owner for owner in up if owner not in left.exchanged]
        if not missing and len(left.exchanged.intersection(owners)) >= majority(len(owners)):
            left.dropping = span_of(left.partition, self._local.routes.ring.q).start
        elif missing and self._local.routes.is_member:
            self.exchange(left.partition, missing[0])

    def _drop(self, dropping: list[Leftover]) -> None:
        """Drop a part, of one or of many: each commit takes its time, whatever is in it."""
        room = self._leaves
        for left in dropping:
            room -= self._drop_of(left, room)
            if room <= 0:
                break
        if room < self._leaves:
            self._turn, self._began = self._outbox.number, self._local.now

    def _drop_of(self, left: Leftover, room: int) -> int:
        """Drop up to so many leaves of one. How many those were."""
        store, outbox = self._local.store, self._outbox
        span = span_of(left.partition, self._local.routes.ring.q)
        end = span.start + span.size
        done = 0
        for leaf in store.tree.held_from(left.dropping, end):
            done += 1
            try:
                keys = [key for key, _ in store.leaf(leaf)]
                registers = [key for key, _ in store.registers_in(leaf)]
            except Unreadable:
                self._local.counters["unreadable_leaves"] += 1
                continue
            for key in keys:
                outbox.erase(key)
            for key in registers:
                outbox.keep_register(key, b"")
            left.dropping = leaf + 1
            if done >= room:
                return done
        if not done or not store.tree.holds(span):
            del self._left[left.partition]
            self._local.counters["partitions_dropped"] += 1
        else:
            left.dropping = span.start  # until the tree is empty: what is erased shows there once it is kept
        return done
