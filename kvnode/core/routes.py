"""The ring, turned once per epoch into what every request needs: who owns this key, and do I?

Promises: always of exactly one ring. Never: consults anything but the ring.

While a move of a partition is pending there are two sets of owners: those of now, and the next ones. What
is written goes to both, and needs W in each; `asked` names all of them, `sides` the two sets.
"""

from __future__ import annotations

from hashlib import blake2b

from kvnode.protocol.ring import Partition, Ring, Step, hash_slot, shift_of
from kvnode.protocol.types import NodeId

MIXED = -1
"""Partitions changed last in different epochs."""


class Routes:
    """Lookups by partition, from the point of view of one node, a member or not."""

    __slots__ = (
        "_fallbacks", "_me", "asked", "epoch", "is_member", "known", "leaving", "members", "others", "owners",
        "peers", "pending", "ring", "shift", "since", "taking", "uniform",
    )  # fmt: skip

    def __init__(self, ring: Ring, me: NodeId) -> None:
        self.ring = ring
        self._me = me
        self.epoch = ring.epoch
        self.shift = shift_of(ring.q)
        self.members: tuple[NodeId, ...] = tuple(m.id for m in ring.members)
        self.is_member = me in self.members
        self.known = frozenset((*self.members, me))
        """Who may speak as a member; a node hears itself, too."""
        self.leaving = frozenset(ring.leaving)
        self.others: tuple[NodeId, ...] = tuple(m for m in self.members if m != me)
        # Few sets of owners own many partitions: each is made once.
        owners_of = {places: tuple(self.members[i] for i in places) for places in set(ring.owners)}
        self.owners: list[tuple[NodeId, ...]] = [owners_of[places] for places in ring.owners]
        start = self.members.index(me) if self.is_member else 0
        after = {m: (i - start) % len(self.members) for i, m in enumerate(self.members)}
        peers_of = {
            owners: tuple(sorted((o for o in owners if o != me), key=after.__getitem__)) if me in owners else None
            for owners in owners_of.values()
        }
        self.peers: list[tuple[NodeId, ...] | None] = [peers_of[owners] for owners in self.owners]
        """The other owners of a partition; None where this member is not one.

        In the order of the members after this one: reads ask the first R - 1, so what a node asks in
        one turn goes to few peers in large frames, and each member is asked as often as any other.
        """
        self.since = ring.since
        self.uniform = ring.since[0] if len(set(ring.since)) == 1 else MIXED
        """The epoch in which all partitions changed last, if that is one: nobody need look for the partition."""
        self.pending: dict[int, Step] = {move.partition: ring.step(move) for move in ring.moves}
        """Partitions on their way, and what happens to each next."""
        self.taking: frozenset[int] = frozenset(p for p, step in self.pending.items() if step.gained == me)
        """Those that this node is to own next."""
        self.asked = list(self.peers)
        """`peers`, and the next owner where one is to come."""
        for partition, step in self.pending.items():
            peers = self.peers[partition]
            if step.gained is not None and peers is not None:
                self.asked[partition] = (*peers, step.gained)
        self._fallbacks: dict[Partition, tuple[NodeId, ...]] = {}

    def sides(self, partition: int) -> tuple[tuple[NodeId, ...], ...]:
        """The sets of owners of which each must have its quorum: two while a move is pending, else one."""
        owners = self.owners[partition]
        step = self.pending.get(partition)
        if step is None:
            return (owners,)
        following = tuple(o for o in owners if o != step.lost)
        if step.gained is not None:
            following = (*following, step.gained)
        return owners, following

    def holders(self, partition: int) -> tuple[NodeId, ...]:
        """The owners of now, and the next one."""
        step = self.pending.get(partition)
        owners = self.owners[partition]
        return owners if step is None or step.gained is None else (*owners, step.gained)

    def holds(self, partition: int) -> bool:
        """Whether this node keeps what is written there: as an owner, or as the next one."""
        return self.peers[partition] is not None or partition in self.taking

    def takers(self, partition: int) -> tuple[NodeId, ...]:
        """Who must have all of a partition before its pending step is done: the one gained, else all who stay."""
        step = self.pending[partition]
        if step.gained is not None:
            return (step.gained,)
        return tuple(o for o in self.owners[partition] if o != step.lost) if step.lost is not None else ()

    def fallbacks(self, partition: Partition) -> tuple[NodeId, ...]:
        """Who stands in for an owner of a partition: the other members, in an order of the partition's own.

        By rendezvous hashing (Thaler and Ravishankar 1998): the same on every node, and a member that
        leaves moves nothing but its own place. One that is to leave keeps nothing more.
        """
        found = self._fallbacks.get(partition)
        if found is None:
            holders = self.holders(partition)
            rest = [member for member in self.members if member not in holders and member not in self.leaving]
            rest.sort(key=lambda member: blake2b(f"{partition} {member}".encode(), digest_size=8).digest())
            found = self._fallbacks[partition] = tuple(rest)
        return found

    def partition(self, key: bytes) -> Partition:
        """The partition of a key."""
        return Partition(hash_slot(key) >> self.shift)

    def epoch_of(self, key: bytes) -> int:
        """The epoch in which the partition of a key changed last: what is said of the key names it."""
        return self.uniform if self.uniform != MIXED else self.since[hash_slot(key) >> self.shift]
