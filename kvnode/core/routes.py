"""The ring, turned once per epoch into what every request needs: who owns this key, and do I?

Promises: always of exactly one ring. Never: consults anything but the ring.
"""

from __future__ import annotations

from hashlib import blake2b

from kvnode.protocol.ring import Partition, Ring, hash_slot, shift_of
from kvnode.protocol.types import NodeId


class Routes:
    """Lookups by partition, from the point of view of one member."""

    __slots__ = ("_fallbacks", "epoch", "members", "others", "owners", "peers", "ring", "shift")

    def __init__(self, ring: Ring, me: NodeId) -> None:
        self.ring = ring
        self.epoch = ring.epoch
        self.shift = shift_of(ring.q)
        self.members: tuple[NodeId, ...] = tuple(m.id for m in ring.members)
        self.others: tuple[NodeId, ...] = tuple(m for m in self.members if m != me)
        self.owners: list[tuple[NodeId, ...]] = [ring.owner_ids(p) for p in range(ring.q)]
        start = self.members.index(me)
        after = {m: (i - start) % len(self.members) for i, m in enumerate(self.members)}
        self.peers: list[tuple[NodeId, ...] | None] = [
            tuple(sorted((o for o in owners if o != me), key=after.__getitem__)) if me in owners else None
            for owners in self.owners
        ]
        """The other owners of a partition; None where this member is not one.

        In the order of the members after this one: reads ask the first R - 1, so what a node asks in
        one turn goes to few peers in large frames, and each member is asked as often as any other.
        """

        self._fallbacks: dict[Partition, tuple[NodeId, ...]] = {}

    def fallbacks(self, partition: Partition) -> tuple[NodeId, ...]:
        """Who stands in for an owner of a partition: the other members, in an order of the partition's own.

        By rendezvous hashing (Thaler and Ravishankar 1998): the same on every node, and a member that
        leaves moves nothing but its own place.
        """
        found = self._fallbacks.get(partition)
        if found is None:
            owners = self.owners[partition]
            rest = [member for member in self.members if member not in owners]
            rest.sort(key=lambda member: blake2b(f"{partition} {member}".encode(), digest_size=8).digest())
            found = self._fallbacks[partition] = tuple(rest)
        return found

    def partition(self, key: bytes) -> Partition:
        """The partition of a key."""
        return Partition(hash_slot(key) >> self.shift)
