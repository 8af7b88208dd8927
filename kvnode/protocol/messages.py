"""Every message that crosses the wire, and the union the codec decodes.

Promises: a frozen, tagged, array-like struct each, so a field's place is its name on the wire.
Never: a field without a bound. Requests are nouns (`ReadReplica`), replies are answers (`ReplicaRead`).

    client ── Get, Put ──► coordinator ── ReadReplica, WriteReplica ──► owners
    client ◄─ Got, Written, Failed ─┘ ◄── ReplicaSame, ReplicaRead, ReplicaWritten ─┘

`rid` pairs a reply with its request. It carries a number drawn at the sender's boot, so a reply from
before a crash can never be counted toward a request made after it (PROTOCOL-CASES 11).
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, TypeAlias

from msgspec import Meta, Struct

from kvnode import config
from kvnode.protocol.ring import Ring
from kvnode.protocol.types import EVENTUAL, NodeId, Past, Time, Value, WireKey

Rid: TypeAlias = Annotated[int, Meta(ge=0)]
Blob: TypeAlias = Annotated[bytes, Meta(max_length=config.FRAME_BYTES_MAX)]
"""An encoded record; empty where there is none."""
Token: TypeAlias = Annotated[bytes, Meta(max_length=config.FRAME_BYTES_MAX)]
"""A client's context as it gave it, not yet checked."""
Text: TypeAlias = Annotated[str, Meta(max_length=config.TEXT_CHARS_MAX)]
Count: TypeAlias = Annotated[int, Meta(ge=0)]


class Error(IntEnum):
    """Why a request failed. Names and exit codes: CONTRACT, rules."""

    INVALID = 9
    """The request itself cannot be served: bad key, value, context, r, w or mode."""
    UNAVAILABLE = 6
    """R or W cannot be met with the replicas that can be reached."""
    INDETERMINATE = 4
    """The deadline passed with fewer than W acknowledgements: it may have been applied."""
    CONFLICT = 7
    """A condition failed, or there are more siblings than the limit."""
    REFUSED = 8
    """This node may not do that now."""
    OVERLOADED = 1
    """Too much in flight here; nothing was stored."""


class Condition(IntEnum):
    """What must hold before a put is applied; judged after a read of R owners."""

    NONE = 0
    ABSENT = 1
    MATCH = 2


class Wire(Struct, frozen=True, array_like=True, tag=True, gc=False):
    """A message."""


# ---- client -> node ------------------------------------------------------------------------


class Hello(Wire, frozen=True, tag=1):
    """The first thing a client says; also how it asks for a newer ring."""

    rid: Rid


class Get(Wire, frozen=True, tag=2):
    """Read a key from `r` replicas."""

    rid: Rid
    key: WireKey
    r: int
    mode: Annotated[int, Meta(ge=0, le=1)]
    timeout_ms: Count
    story: bool = False
    forwarded: bool = False


class Put(Wire, frozen=True, tag=3):
    """Write a value, or a tombstone (`value=None`), to `w` replicas."""

    rid: Rid
    key: WireKey
    value: Value | None
    w: int
    mode: Annotated[int, Meta(ge=0, le=1)]
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


class Events(Wire, frozen=True, tag=7):
    """What happened on this node after the event numbered `after`."""

    rid: Rid
    after: Count


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


class ReplicaState(Struct, frozen=True, array_like=True, gc=False):
    """What one owner holds of a key."""

    node: NodeId
    state: Text
    """`present`, `absent`, or why it did not say."""
    record: Blob
    digest: bytes


class Explained(Wire, frozen=True, tag=25):
    """Where a key lives, and each owner's copy."""

    rid: Rid
    epoch: int
    slot: int
    partition: int
    owners: tuple[NodeId, ...]
    replicas: tuple[ReplicaState, ...]


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


class ClusterReport(Wire, frozen=True, tag=26):
    """The reports of all members; None for one that did not answer."""

    rid: Rid
    ring: Ring
    reports: tuple[NodeReport | None, ...]
    asked: NodeId


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


# ---- node -> node --------------------------------------------------------------------------


class ReadReplica(Wire, frozen=True, tag=40):
    """What do you hold of this key? The asker holds a record of this digest."""

    rid: Rid
    epoch: int
    key: WireKey
    digest: Annotated[bytes, Meta(max_length=16)]


class ReplicaSame(Wire, frozen=True, tag=41):
    """The same as you."""

    rid: Rid


class ReplicaRead(Wire, frozen=True, tag=42):
    """Something else: this record, or none (empty)."""

    rid: Rid
    record: Blob


class WriteReplica(Wire, frozen=True, tag=43):
    """Merge this record into yours, unless the deadline (wall ms) has passed."""

    rid: Rid
    epoch: int
    key: WireKey
    record: Blob
    deadline: int


class ReplicaWritten(Wire, frozen=True, tag=44):
    """Merged, and durable at this node's level."""

    rid: Rid


class ReplicaRefused(Wire, frozen=True, tag=45):
    """Not done, and why."""

    rid: Rid
    reason: Text


class ScanReplica(Wire, frozen=True, tag=46):
    """One page of what you hold, in byte order."""

    rid: Rid
    epoch: int
    after: Annotated[bytes, Meta(max_length=config.KEY_BYTES_MAX)]
    prefix: Annotated[bytes, Meta(max_length=config.KEY_BYTES_MAX)]
    limit: Annotated[int, Meta(ge=1, le=config.SCAN_PAGE_MAX)]


class ReplicaScanned(Wire, frozen=True, tag=47):
    """The page, and whether there is more after it."""

    rid: Rid
    rows: tuple[Row, ...]
    more: bool


class Report(Wire, frozen=True, tag=48):
    """Tell of yourself."""

    rid: Rid


class Reported(Wire, frozen=True, tag=49):
    """What a node says of itself."""

    rid: Rid
    report: NodeReport


Message: TypeAlias = (
    Hello | Get | Put | Scan | Explain | Status | Events
    | Welcome | Got | Written | Failed | Scanned | Explained | ClusterReport | EventList
    | ReadReplica | ReplicaSame | ReplicaRead | WriteReplica | ReplicaWritten | ReplicaRefused
    | ScanReplica | ReplicaScanned | Report | Reported
)  # fmt: skip


def safe_to_retry(ask: Get | Put) -> bool:
    """Whether a request that may have been applied can be sent again, to another owner.

    Reads can. Of writes only `eventual` ones that do not depend on what they find: a second blind
    delete would cover, and so undo, a write made since the first (PROTOCOL-CASES 5).
    """
    if isinstance(ask, Get):
        return True
    if ask.mode != EVENTUAL or ask.condition != Condition.NONE:
        return False
    return ask.value is not None or bool(ask.context)


ClientRequest: TypeAlias = Hello | Get | Put | Scan | Explain | Status | Events
ClientReply: TypeAlias = Welcome | Got | Written | Failed | Scanned | Explained | ClusterReport | EventList

CONTROL = frozenset({Report, Reported})
"""Message types that travel in the control lane and are handled first in a turn."""
