"""The ring as a value: which members own which partition, and where a key lives.

Promises: the same ring and key give the same owners everywhere, in every process.
Never: changes; a new ring is a new value with a higher epoch.

    key ── hash tag ── CRC16 mod 16384 ──► slot ── slot * q / 16384 ──► partition ──► owners[partition]

The hash is Redis Cluster's to the bit, so its clients can route to us. Equal fixed partitions are
strategy 3 of Dynamo §6.2: a change of members moves whole partitions and never re-cuts one.
"""

from __future__ import annotations

from binascii import crc_hqx
from typing import NewType

from msgspec import Struct

from kvnode.protocol.types import NodeId

SLOTS = 16384
Q_MIN, Q_MAX = 16, SLOTS
Partition = NewType("Partition", int)


class Member(Struct, frozen=True, array_like=True):
    """One node of the cluster, as the ring knows it."""

    id: NodeId
    address: str
    """`host:port` the node listens on."""
    host: str
    """Copies of a partition are kept on different hosts."""
    rack: str = ""
    """...and on different racks, where there are enough."""
    weight: int = 1
    """Share of the partitions relative to the others."""
    disk_id: int = 0
    """The data directory this member was admitted with; 0 until one is known."""


class Ring(Struct, frozen=True, array_like=True):
    """Members, and the ordered owners of every partition, at one epoch."""

    cluster: str
    cluster_id: int
    epoch: int
    n: int
    q: int
    members: tuple[Member, ...]
    owners: tuple[tuple[int, ...], ...]
    """`owners[p]`: indices into `members`, the first place first."""
    since: tuple[int, ...]
    """`since[p]`: the epoch in which the owners of `p` last changed."""

    def owner_ids(self, partition: int) -> tuple[NodeId, ...]:
        """The owners of a partition, the first place first."""
        members = self.members
        return tuple(members[i].id for i in self.owners[partition])

    def member(self, node: NodeId) -> Member | None:
        """The member of that name, or None."""
        return next((m for m in self.members if m.id == node), None)

    def places(self, node: NodeId) -> tuple[int, int]:
        """How many partitions a member owns, and of how many it is the first owner."""
        index = next((i for i, m in enumerate(self.members) if m.id == node), -1)
        owned = sum(index in places for places in self.owners)
        first = sum(bool(places) and places[0] == index for places in self.owners)
        return owned, first


def hash_slot(key: bytes) -> int:
    """The slot 0..16383 of a key: CRC16/XMODEM of its hash tag, as Redis Cluster defines it.

    The hash tag is what stands between the first `{` and the next `}`, if that is not empty;
    otherwise the whole key.
    """
    if b"{" in key:
        start = key.index(b"{") + 1
        end = key.find(b"}", start)
        if end > start:
            key = key[start:end]
    return crc_hqx(key, 0) & 0x3FFF


def shift_of(q: int) -> int:
    """How far to shift a slot right to get its partition, when there are `q` of them."""
    assert Q_MIN <= q <= Q_MAX
    assert q & (q - 1) == 0
    return (SLOTS // q).bit_length() - 1


def partition_of(key: bytes, q: int) -> Partition:
    """The partition of a key in a ring of `q` equal ones."""
    return Partition(hash_slot(key) >> shift_of(q))


def majority(owners: int) -> int:
    """The smallest number of `owners` replicas that any other such number must overlap."""
    return owners // 2 + 1
