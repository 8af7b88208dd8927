"""What members say to each other.

Promises: whatever can write carries a deadline, whatever depends on the ring its epoch.
Never: obeyed when a client says it.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from kvnode import config
from kvnode.protocol.consensus import RegisterRow
from kvnode.protocol.reports import NodeReport
from kvnode.protocol.requests import ReplicaState, Row
from kvnode.protocol.types import WireKey
from kvnode.protocol.wire import Blob, Digest, Rid, Text, Wire

UNREADABLE = "unreadable"
"""Refused: the copy here is damaged."""
RECOVERING = "recovering"
"""Refused: the copy here may lack what this node once acknowledged."""
BUSY = "busy"
"""Refused: another exchange of the partition is under way here; ask again in a moment."""


class ReadReplica(Wire, frozen=True, tag=40):
    """What do you hold of this key? The asker holds a record of this digest."""

    rid: Rid
    epoch: int
    key: WireKey
    digest: Digest
    strict: bool = False
    """For a `quorum` read: only a node that is sure to hold every write it acknowledged may answer."""


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
    """The page: all that is held of each key up to its end."""

    rid: Rid
    rows: tuple[Row, ...]
    more: bool
    """Whether there may be more after it."""
    registers: Annotated[tuple[RegisterRow, ...], Meta(max_length=config.SCAN_PAGE_MAX)] = ()
    end: Annotated[bytes, Meta(max_length=config.KEY_BYTES_MAX)] = b""
    """Where there is more: the last key of the page, shown or not; empty: that of the last row."""


class Report(Wire, frozen=True, tag=48):
    """Tell of yourself."""

    rid: Rid
    roots: bool = False


class ExplainReplica(Wire, frozen=True, tag=61):
    """Tell what you hold of this key, for its owners or as one."""

    rid: Rid
    key: WireKey


class ReplicaExplained(Wire, frozen=True, tag=62):
    """What a node holds of a key."""

    rid: Rid
    state: ReplicaState


class Reported(Wire, frozen=True, tag=49):
    """What a node says of itself."""

    rid: Rid
    report: NodeReport
