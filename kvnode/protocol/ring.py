"""The ring as a value: which members own which partition, and where a key lives.

Promises: the same ring and key give the same owners everywhere, in every process.
Never: changes; a new ring is a new value with a higher epoch.

    key ── hash tag ── CRC16 mod 16384 ──► slot ── slot * q / 16384 ──► partition ──► owners[partition]

The hash is Redis Cluster's to the bit, so its clients can route to us. Equal fixed partitions are
strategy 3 of Dynamo §6.2: a change of members moves whole partitions and never re-cuts one.

A change of owners is *pending* before it is done: `moves` says who will own a partition then, and while it
is there the old owners and the next ones are both written to. Each partition goes there in *steps*, one
owner gained for one lost at a time.
"""

from __future__ import annotations

from binascii import crc_hqx
from typing import NamedTuple, NewType

from msgspec import Struct

from kvnode.protocol.types import NodeId

SLOTS = 16384
Q_MIN, Q_MAX = 16, SLOTS
Partition = NewType("Partition", int)

OUTSIDE, JOINING, NORMAL, LEAVING = "outside", "joining", "normal", "leaving"
"""What a node is to a cluster: known, but no member; a member yet to get partitions; one; on its way out."""


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


class Move(Struct, frozen=True, array_like=True):
    """A partition on its way to other owners."""

    partition: int
    owners: tuple[int, ...]
    """Indices into `members`, in order, as they will be when the move is done."""


class Step(NamedTuple):
    """What happens to a partition next: one owner more, one less, or one for another."""

    gained: NodeId | None
    lost: NodeId | None


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
    """`since[p]`: the epoch in which the owners of `p`, or where it moves, last changed."""
    moves: tuple[Move, ...] = ()
    """What is pending, by partition, at most one of each."""
    leaving: tuple[NodeId, ...] = ()
    """Members that are to go: each does once it owns nothing and keeps no hint."""
    lost: tuple[NodeId, ...] = ()
    """Those of them that an operator has replaced: once down, nobody waits for their hints."""
    removed: tuple[Member, ...] = ()
    """Former members. A removed id never returns."""
    branch: int = 0
    """0, or the random number that the last `force-remove` began: nodes of another branch are strangers."""
    joining: tuple[NodeId, ...] = ()
    """Who came with the moves that are, or were last, pending."""

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

    def step(self, move: Move) -> Step:
        """The next step of a move: the first owner to be lost gives its place to the first one gained."""
        now = self.owners[move.partition]
        gained = next((self.members[i].id for i in move.owners if i not in now), None)
        lost = next((self.members[i].id for i in now if i not in move.owners), None)
        return Step(gained, lost)

    def membership(self, node: NodeId) -> str:
        """`outside`, `joining`, `normal` or `leaving`."""
        index = next((i for i, m in enumerate(self.members) if m.id == node), -1)
        if index < 0:
            return OUTSIDE
        if node in self.leaving:
            return LEAVING
        gains = any(index in move.owners and index not in self.owners[move.partition] for move in self.moves)
        return JOINING if gains and node in self.joining else NORMAL


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
