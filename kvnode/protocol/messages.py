"""Every message that crosses the wire, gathered, and the union the codec decodes.

Promises: a frozen, tagged, array-like struct each, so a field's place is its name on the wire.
Never: a field without a bound. Requests are nouns (`ReadReplica`), replies are answers (`ReplicaRead`).

    client ── Get, Put ──► coordinator ── ReadReplica, WriteReplica ──► owners
    client ◄─ Got, Written, Failed ─┘ ◄── ReplicaSame, ReplicaRead, ReplicaWritten ─┘

`rid` pairs a reply with its request. It carries a number drawn at the sender's boot, so a reply from
before a crash can never be counted toward a request made after it (PROTOCOL-CASES 11).
"""

from __future__ import annotations

from typing import TypeAlias

from kvnode.protocol.replication import (
    ReadReplica,
    ReplicaRead,
    ReplicaRefused,
    ReplicaSame,
    ReplicaScanned,
    ReplicaWritten,
    Report,
    Reported,
    ScanReplica,
    WriteReplica,
)
from kvnode.protocol.requests import (
    Answer,
    ClusterReport,
    Event,
    EventList,
    Events,
    Explain,
    Explained,
    Failed,
    Get,
    Got,
    Hello,
    NodeReport,
    Put,
    ReplicaState,
    Row,
    Scan,
    Scanned,
    Status,
    Story,
    Welcome,
    Written,
)
from kvnode.protocol.types import EVENTUAL
from kvnode.protocol.wire import Blob, Condition, Count, Error, Rid, Text, Token, Wire

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

__all__ = [
    "CONTROL",
    "Answer",
    "Blob",
    "ClientReply",
    "ClientRequest",
    "ClusterReport",
    "Condition",
    "Count",
    "Error",
    "Event",
    "EventList",
    "Events",
    "Explain",
    "Explained",
    "Failed",
    "Get",
    "Got",
    "Hello",
    "Message",
    "NodeReport",
    "Put",
    "ReadReplica",
    "ReplicaRead",
    "ReplicaRefused",
    "ReplicaSame",
    "ReplicaScanned",
    "ReplicaState",
    "ReplicaWritten",
    "Report",
    "Reported",
    "Rid",
    "Row",
    "Scan",
    "ScanReplica",
    "Scanned",
    "Status",
    "Story",
    "Text",
    "Token",
    "Welcome",
    "Wire",
    "WriteReplica",
    "Written",
    "safe_to_retry",
]
