"""What clients and nodes say to each other.

Promises: a reply carries the `rid` of its request, and the ring's epoch where routing depends on it.
Never: anything only members may say; that is in `replication.py`.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from kvnode import config
from kvnode.protocol.consensus import Ballot
from kvnode.protocol.reports import NodeReport
from kvnode.protocol.ring import Member, Ring
from kvnode.protocol.types import NodeId, Past, Time, Value, WireKey
from kvnode.protocol.wire import Blob, Condition, Count, Error, Rid, Text, Token, Wire

# ---- client -> node ------------------------------------------------------------------------


class Hello(Wire, frozen=True, tag=1):
    """The first thing a client says; also how it asks for a newer ring."""

    rid: Rid


class Get(Wire, frozen=True, tag=2):
    """Read a key from `r` replicas."""

    rid: Rid
    key: WireKey
    r: int
    mode: Annotated[int, Meta(ge=0, le=2)]
    timeout_ms: Count
    story: bool = False
    forwarded: bool = False
    epoch: Count = 0
    """Of one that is forwarded: that of its partition, as the node that forwards it knows."""


class Put(Wire, frozen=True, tag=3):
    """Write a value, or a tombstone (`value=None`), to `w` replicas."""

    rid: Rid
    key: WireKey
    value: Value | None
    w: int
    mode: Annotated[int, Meta(ge=0, le=2)]
    timeout_ms: Count
    context: Token = b""
    """Empty: a blind write."""
    condition: Condition = Condition.NONE
    siblings: bool = False
    """Keep what is there beside the new value, whatever the coordinator holds."""
    retry: bool = False
    """An earlier try may have been applied: cover only the context of that first try."""
    ttl_ms: Annotated[int, Meta(ge=0, le=config.TTL_MS_MAX)] = 0
    deadline: Count = 0
    """Wall ms of the receiver's clock, as the sender knows it, after which this must not be applied: a
    late put would bury what was written since. 0 where the sender does not know that clock yet."""
    story: bool = False
    forwarded: bool = False
    epoch: Count = 0
    """Of one that is forwarded: that of its partition, as the node that forwards it knows."""


class Scan(Wire, frozen=True, tag=4):
    """One page of keys in byte order, each merged from `r` owners."""

    rid: Rid
    after: Annotated[bytes, Meta(max_length=config.KEY_BYTES_MAX)]
    prefix: Annotated[bytes, Meta(max_length=config.KEY_BYTES_MAX)]
    limit: Annotated[int, Meta(ge=1, le=config.SCAN_PAGE_MAX)]
    r: int
    timeout_ms: Count


class Explain(Wire, frozen=True, tag=5):
    """Where a key lives and what each owner holds of it."""

    rid: Rid
    key: WireKey
    timeout_ms: Count


class Status(Wire, frozen=True, tag=6):
    """What every node says of itself, gathered by the one asked."""

    rid: Rid
    timeout_ms: Count
    roots: bool = False
    """The roots of each node's partitions too."""


class Events(Wire, frozen=True, tag=7):
    """What happened on this node after the event numbered `after`."""

    rid: Rid
    after: Count


# Each acts on the node that is asked, on no other; a client that means all asks each.


class DeliverHints(Wire, frozen=True, tag=8):
    """Deliver the hints for this owner now (all, if empty), as fast as the throttle allows."""

    rid: Rid
    owner: Text


class DropHints(Wire, frozen=True, tag=9):
    """Forget the hints for this owner: an operator's decision, which may lose acknowledged writes."""

    rid: Rid
    owner: Text


class ThrottleHints(Wire, frozen=True, tag=10):
    """Deliver at most so many hints a second from now on."""

    rid: Rid
    per_s: Annotated[int, Meta(ge=1, le=config.HINTS_PER_S_CEILING)]


class RunRepair(Wire, frozen=True, tag=11):
    """Exchange this partition (all this node owns, if -1) with the other owners, as soon as may be."""

    rid: Rid
    partition: Annotated[int, Meta(ge=-1)]


class PauseRepair(Wire, frozen=True, tag=12):
    """Begin no more exchanges, or begin them again."""

    rid: Rid
    paused: bool


class WaiveVotes(Wire, frozen=True, tag=92):
    """Cast ballots again without what lost disks held: an operator's decision, which may lose strong writes."""

    rid: Rid


# ---- node -> client ------------------------------------------------------------------------


class Welcome(Wire, frozen=True, tag=20):
    """Who answers, and the ring to route by."""

    rid: Rid
    node: NodeId
    boot: Count
    ring: Ring
    durability: Text
    max_pair_bytes: Count
    deadline_ms: Count
    version: Text
    wall_ms: Count
    """The node's clock: what a client measures a put's deadline in."""


class Answer(Struct, frozen=True, array_like=True, gc=False):
    """One replica's part in a request."""

    node: NodeId
    kind: Text
    """`owner` or `fallback`."""
    ok: bool
    ms: float
    told: Text
    """`digest`, `value`, `absent`, `written`, or why not."""


class Hinted(Struct, frozen=True, array_like=True, gc=False):
    """A record kept for an owner by someone else."""

    owner: NodeId
    holder: NodeId


class Story(Struct, frozen=True, array_like=True, gc=False):
    """How a request went: made only when asked for."""

    coordinator: NodeId
    mode: int
    epoch: int
    partition: int
    owners: tuple[NodeId, ...]
    answers: tuple[Answer, ...]
    strict: bool
    took_ms: float
    condition: Text = ""
    """`best_effort` where a condition was judged by the coordinator alone."""
    hinted: tuple[Hinted, ...] = ()
    repaired: tuple[NodeId, ...] = ()
    """Owners found stale, that are being sent the merged record."""


class Got(Wire, frozen=True, tag=21):
    """The record of a key, merged from R replicas; `record` is empty when no replica holds one."""

    rid: Rid
    epoch: int
    record: Blob
    story: Story | None = None


class Written(Wire, frozen=True, tag=22):
    """A write is on `acked` >= W replicas. Dot and past give the context that covers it."""

    rid: Rid
    epoch: int
    acked: int
    w: int
    actor: Count
    time: Time
    past: Past
    story: Story | None = None


class Failed(Wire, frozen=True, tag=23):
    """A request that was not served, and whether it may have left a trace."""

    rid: Rid
    epoch: int
    error: Error
    message: Text
    hint: Text = ""
    maybe_applied: bool = False
    acked: int = 0
    need: int = 0
    story: Story | None = None


class Row(Struct, frozen=True, array_like=True, gc=False):
    """A key and its record, as a page of a scan carries it."""

    key: WireKey
    record: Blob


class Scanned(Wire, frozen=True, tag=24):
    """A page. `more` is false on the last one; `after` is the cursor of the next."""

    rid: Rid
    rows: tuple[Row, ...]
    after: bytes
    more: bool
    registers: tuple[WireKey, ...] = ()
    """Those among them that are registers: their record is what was accepted last, and what slipped in beside."""


class RegisterState(Struct, frozen=True, array_like=True, gc=False):
    """What one owner holds of a register."""

    promised: Ballot
    accepted: Ballot
    record: Blob
    """Accepted; empty where nothing was."""


class ReplicaState(Struct, frozen=True, array_like=True, gc=False):
    """What one owner holds of a key."""

    node: NodeId
    state: Text
    """`present`, `register`, `absent`, or why it did not say."""
    record: Blob
    digest: bytes
    hints: tuple[NodeId, ...] = ()
    """The owners for which this node keeps a hint of the key; then `record` is that hint, if it is no owner."""
    grave: Text = ""
    """Why the tombstone here has not been reaped; empty where there is none."""
    register: RegisterState | None = None
    """None where nothing was promised either."""


class Explained(Wire, frozen=True, tag=25):
    """Where a key lives, and each owner's copy."""

    rid: Rid
    epoch: int
    slot: int
    partition: int
    owners: tuple[NodeId, ...]
    replicas: tuple[ReplicaState, ...]
    """The owners', in their order."""
    fallbacks: tuple[NodeId, ...] = ()
    """Who stands in for an owner, in this order."""
    hints: tuple[ReplicaState, ...] = ()
    """Of the members that keep a hint of the key."""


class Outsider(Struct, frozen=True, array_like=True, gc=False):
    """A node that is known, but no member, and what it says of itself; None if it did not answer."""

    member: Member
    """As it would be one."""
    report: NodeReport | None


class ClusterReport(Wire, frozen=True, tag=26):
    """The reports of all members; None for one that did not answer."""

    rid: Rid
    ring: Ring
    reports: tuple[NodeReport | None, ...]
    asked: NodeId
    outside: tuple[Outsider, ...] = ()
    """Those the node that was asked knows."""


class Event(Struct, frozen=True, array_like=True, gc=False):
    """Something that happened on a node."""

    number: int
    wall_ms: int
    node: NodeId
    kind: Text
    text: Text


class EventList(Wire, frozen=True, tag=27):
    """Events in order."""

    rid: Rid
    events: tuple[Event, ...]


class Done(Wire, frozen=True, tag=28):
    """An order was carried out."""

    rid: Rid
    count: Count
    """Hints or exchanges that it touched."""
