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

from kvnode.protocol.consensus import (
    Accept,
    Accepted,
    CopyRegisters,
    Outbid,
    Prepare,
    Promised,
    ReadRegister,
    ReapRegister,
    RegisterRead,
    RegisterReapAnswer,
    RegistersCopied,
)
from kvnode.protocol.faults import Fault, FaultList, HealFault, ListFaults, SetFault
from kvnode.protocol.liveness import Alive, AskDisk, Beat, DiskRemembered, Gossip, Suspicion
from kvnode.protocol.repair import (
    Accepting,
    Branches,
    CompareKeys,
    CompareTree,
    Dots,
    ExchangeDone,
    HintKept,
    KeepHint,
    KeysCompared,
    ReadHint,
    Reap,
    ReapAnswer,
    SpanHash,
    TreeCompared,
)
from kvnode.protocol.replication import (
    ExplainReplica,
    ReadReplica,
    ReplicaExplained,
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
from kvnode.protocol.reports import ExchangeView, HintsFor, MovesView, NodeReport, PeerView, RepairView, RootHash
from kvnode.protocol.requests import (
    Answer,
    ClusterReport,
    DeliverHints,
    Done,
    DropHints,
    Event,
    EventList,
    Events,
    Explain,
    Explained,
    Failed,
    Get,
    Got,
    Hello,
    Hinted,
    Outsider,
    PauseRepair,
    Put,
    RegisterState,
    ReplicaState,
    Row,
    RunRepair,
    Scan,
    Scanned,
    Status,
    Story,
    ThrottleHints,
    WaiveVotes,
    Welcome,
    Written,
)
from kvnode.protocol.topology import (
    AskBatch,
    AskPlan,
    AskRing,
    AskVotes,
    Batch,
    CancelMoves,
    Change,
    ChangeKind,
    ClearStaged,
    CommitPlan,
    Committed,
    DecreeAccept,
    DecreeAccepted,
    DecreeOutbid,
    DecreePrepare,
    DecreePromised,
    KeptRegister,
    Knock,
    MovesReady,
    Plan,
    Planned,
    RingTold,
    StageChange,
    Staged,
    StagedNow,
    StagedTold,
    Stale,
    ThrottleMoves,
    VotesKnown,
)
from kvnode.protocol.types import EVENTUAL
from kvnode.protocol.wire import Blob, Condition, Count, Error, Rid, Text, Token, Wire

Message: TypeAlias = (
    Hello | Get | Put | Scan | Explain | Status | Events
    | DeliverHints | DropHints | ThrottleHints | RunRepair | PauseRepair | WaiveVotes | SetFault | HealFault
    | ListFaults
    | Welcome | Got | Written | Failed | Scanned | Explained | ClusterReport | EventList | Done | FaultList
    | ReadReplica | ReplicaSame | ReplicaRead | WriteReplica | ReplicaWritten | ReplicaRefused
    | ScanReplica | ReplicaScanned | Report | Reported | ExplainReplica | ReplicaExplained
    | Beat | Gossip | AskDisk | DiskRemembered | KeepHint | HintKept | ReadHint
    | CompareTree | TreeCompared | CompareKeys | KeysCompared | ExchangeDone | Reap | ReapAnswer
    | Prepare | Promised | Accept | Accepted | Outbid | ReadRegister | RegisterRead | CopyRegisters
    | RegistersCopied | ReapRegister | RegisterReapAnswer
    | StageChange | ClearStaged | AskPlan | CommitPlan | CancelMoves | ThrottleMoves
    | StagedNow | Planned | Committed
    | AskRing | RingTold | StagedTold | Knock | Stale | DecreePrepare | DecreePromised | DecreeAccept
    | DecreeAccepted | DecreeOutbid | AskVotes | VotesKnown | AskBatch | Batch | MovesReady
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


ClientRequest: TypeAlias = (
    Hello | Get | Put | Scan | Explain | Status | Events
    | DeliverHints | DropHints | ThrottleHints | RunRepair | PauseRepair | WaiveVotes | SetFault | HealFault
    | ListFaults
    | StageChange | ClearStaged | AskPlan | CommitPlan | CancelMoves | ThrottleMoves
)  # fmt: skip
ClientReply: TypeAlias = (
    Welcome | Got | Written | Failed | Scanned | Explained | ClusterReport | EventList | Done | FaultList
    | StagedNow | Planned | Committed
)  # fmt: skip

CONTROL = frozenset(
    {Report, Reported, Beat, Gossip, AskDisk, DiskRemembered, AskRing, Knock, AskVotes, VotesKnown}
)
"""Message types that travel in the control lane and are handled first in a turn."""

__all__ = [
    "CONTROL",
    "Accept",
    "Accepted",
    "Accepting",
    "Alive",
    "Answer",
    "AskBatch",
    "AskDisk",
    "AskPlan",
    "AskRing",
    "AskVotes",
    "Batch",
    "Beat",
    "Blob",
    "Branches",
    "CancelMoves",
    "Change",
    "ChangeKind",
    "ClearStaged",
    "ClientReply",
    "ClientRequest",
    "ClusterReport",
    "CommitPlan",
    "Committed",
    "CompareKeys",
    "CompareTree",
    "Condition",
    "CopyRegisters",
    "Count",
    "DecreeAccept",
    "DecreeAccepted",
    "DecreeOutbid",
    "DecreePrepare",
    "DecreePromised",
    "DeliverHints",
    "DiskRemembered",
    "Done",
    "Dots",
    "DropHints",
    "Error",
    "Event",
    "EventList",
    "Events",
    "ExchangeDone",
    "ExchangeView",
    "Explain",
    "ExplainReplica",
    "Explained",
    "Failed",
    "Fault",
    "FaultList",
    "Get",
    "Gossip",
    "Got",
    "HealFault",
    "Hello",
    "HintKept",
    "Hinted",
    "HintsFor",
    "KeepHint",
    "KeptRegister",
    "KeysCompared",
    "Knock",
    "ListFaults",
    "Message",
    "MovesReady",
    "MovesView",
    "NodeReport",
    "Outbid",
    "Outsider",
    "PauseRepair",
    "PeerView",
    "Plan",
    "Planned",
    "Prepare",
    "Promised",
    "Put",
    "ReadHint",
    "ReadRegister",
    "ReadReplica",
    "Reap",
    "ReapAnswer",
    "ReapRegister",
    "RegisterRead",
    "RegisterReapAnswer",
    "RegisterState",
    "RegistersCopied",
    "RepairView",
    "ReplicaExplained",
    "ReplicaRead",
    "ReplicaRefused",
    "ReplicaSame",
    "ReplicaScanned",
    "ReplicaState",
    "ReplicaWritten",
    "Report",
    "Reported",
    "Rid",
    "RingTold",
    "RootHash",
    "Row",
    "RunRepair",
    "Scan",
    "ScanReplica",
    "Scanned",
    "SetFault",
    "SpanHash",
    "StageChange",
    "Staged",
    "StagedNow",
    "StagedTold",
    "Stale",
    "Status",
    "Story",
    "Suspicion",
    "Text",
    "ThrottleHints",
    "ThrottleMoves",
    "Token",
    "TreeCompared",
    "VotesKnown",
    "WaiveVotes",
    "Welcome",
    "Wire",
    "WriteReplica",
    "Written",
    "safe_to_retry",
]
