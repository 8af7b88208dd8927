"""What a node says of itself, and of the cluster as it sees it.

Promises: values only; null where something is not known. Never: a figure that costs a scan to get.
"""

from __future__ import annotations

from msgspec import Struct

from kvnode.protocol.faults import Fault
from kvnode.protocol.types import NodeId
from kvnode.protocol.wire import Digest, Text


class PeerView(Struct, frozen=True, array_like=True, gc=False):
    """What one node thinks of another."""

    node: NodeId
    state: Text
    """`up`, `suspect` or `down`, concluded from all observers."""
    phi: float
    """How surprising its silence is to this node."""
    silent_ms: int
    """Since it was last heard of."""
    suspected_by: tuple[NodeId, ...]
    """The observers that suspect it, as far as this node knows."""


class HintsFor(Struct, frozen=True, array_like=True, gc=False):
    """The hints a node keeps for one owner."""

    owner: NodeId
    count: int
    bytes: int
    oldest_ms: int
    """Since when, by its wall clock, it has kept the oldest."""
    delivered: int
    """So far, of this boot."""
    per_s: float
    """Delivered a second, lately; 0 while none is under way."""
    reachable: bool
    """Whether they can be delivered now."""


class ExchangeView(Struct, frozen=True, array_like=True, gc=False):
    """One exchange of a partition with another owner: how far it has come."""

    partition: int
    peer: NodeId
    step: Text
    """`root`, `branches`, `leaves`, `keys`, `records`."""
    size: int
    """Leaves in the spans compared now."""
    nodes_compared: int
    keys_compared: int
    keys_repaired: int
    bytes_sent: int
    """By both sides: hashes, keys and records."""


class RepairView(Struct, frozen=True, array_like=True, gc=False):
    """Anti-entropy on one node."""

    paused: bool
    active: tuple[ExchangeView, ...]
    waiting: int
    """Exchanges asked for that have not begun."""
    exchanges: int
    """Finished, of this boot; the four below count over all of them."""
    nodes_compared: int
    keys_compared: int
    keys_repaired: int
    bytes_sent: int
    failed: int
    """Given up: the other side could not be reached, or did not answer."""
    oldest_ms: int
    """When, by this node's wall clock, the exchange that lies longest back began; 0 while one never was."""
    since_ms: int = 0
    """Since when the pairs it compares are these, by the same clock: the owners changed; 0 for the whole boot."""


class RootHash(Struct, frozen=True, array_like=True, gc=False):
    """The root of a partition's tree."""

    partition: int
    hash: Digest


class MovesView(Struct, frozen=True, array_like=True, gc=False):
    """Transfers on one node: what it is yet to take over, and what it gives."""

    partitions_left: int
    """Partitions this node is to take over, and has not yet."""
    partitions_taken: int
    """Taken over, of this boot."""
    bytes_received: int
    """Of keys and records, of this boot."""
    bytes_sent: int
    """Given to others, of this boot."""
    bytes_left: int
    """Yet to be received, as far as their sources have told."""
    bytes_per_s: float
    """Received, lately; 0 while nothing is under way."""
    left_ms: int | None
    """Until all is received, at that rate; null while it cannot be told."""
    throttle_bytes_per_s: int
    """At most so much is received a second; 0 without a bound."""
    dropping: int
    """Partitions of which this node still has a copy that it is to drop."""
    waiting: Text = ""
    """What the transfers wait for; empty while they go on, or there are none."""


class NodeReport(Struct, frozen=True, array_like=True, gc=False):
    """What a node says of itself."""

    id: NodeId
    epoch: int
    boot: int
    pid: int
    uptime_ms: int
    wall_ms: int
    keys: int
    value_bytes: int
    """Key and value bytes of live values held, uncompressed."""
    disk_bytes: int
    durability: Text
    engine: Text
    writable: bool
    problem: Text
    """Why this node takes no writes; empty while it does."""
    p50_ms: float | None
    p99_ms: float | None
    """Of the client requests coordinated here; null before the first."""
    avoided: tuple[NodeId, ...]
    """The peers this node does not wait for now."""
    rss_bytes: int
    disk_free_bytes: int
    version: Text
    counters: dict[str, int]
    incarnation: int = 0
    disk_id: int = 0
    peers: tuple[PeerView, ...] = ()
    hints: tuple[HintsFor, ...] = ()
    needs_repair: int = 0
    """(Partition, owner) pairs that this node knows to have missed a write for which no hint is kept."""
    repair: RepairView | None = None
    recovering: int = 0
    """Partitions in which this node does not count for `quorum` reads yet: its disk was lost or long away."""
    roots: tuple[RootHash, ...] = ()
    """Of the partitions it owns; only when they were asked for."""
    faults: tuple[Fault, ...] = ()
    """Those in force in it, because someone asked for them."""
    took: tuple[int, ...] = ()
    """Client requests coordinated here, of this boot, by how long they took: `Histogram.coarse`."""
    member: Text = "normal"
    """`outside`, `joining`, `normal` or `leaving`, by the ring this node holds."""
    moves: MovesView | None = None
    branch: int = 0
    voteless: int = 0
    """Partitions in which this node casts no ballots, as its registers there were lost."""
    waived: int = 0
    """...in which an operator gave up what lost disks held."""
