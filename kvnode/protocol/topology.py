"""What is said to change the shape of a cluster: stage, plan, commit; decide a ring, spread it; move partitions.

Promises: every list has a bound; what depends on the ring names its epoch, or the partition's.
Never: a ring that was not chosen: only those are told.

    client ── StageChange, AskPlan ──► any node ── Planned ──► client ── CommitPlan ──► Committed
    member ── DecreePrepare, DecreeAccept ──► the members of epoch e: the ring of e+1 is chosen by most of them
    member ── AskRing ──► RingTold         whoever is behind fetches it
    taker  ── AskBatch ──► Batch           a partition, leaf by leaf, from an owner it takes it over from
    taker  ── MovesReady ──► the member that proposes the flip
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated

from msgspec import Meta, Struct

from kvnode import config
from kvnode.protocol.consensus import Ballot
from kvnode.protocol.requests import Row
from kvnode.protocol.ring import Member, Ring
from kvnode.protocol.types import NodeId, WireKey
from kvnode.protocol.wire import Blob, Count, Digest, Rid, Text, Wire


class ChangeKind(IntEnum):
    """What is to become of a node."""

    JOIN = 0
    LEAVE = 1
    REPLACE = 2
    """Its places go to one that is outside."""
    FORCE_REMOVE = 3
    """It is lost, and with it a majority: a new branch begins without it."""


class Change(Struct, frozen=True, array_like=True, gc=False):
    """One staged change."""

    kind: ChangeKind
    node: NodeId
    """Which joins, leaves, is replaced or removed."""
    member: Member | None = None
    """Of JOIN, and of REPLACE the one that takes its places: as it would be a member."""


class Staged(Struct, frozen=True, array_like=True, gc=False):
    """An entry of the staged set: of two for one node the later stands."""

    node: NodeId
    stamp: Ballot
    change: Change | None
    """None: it was taken back."""


class Plan(Struct, frozen=True, array_like=True, gc=False):
    """What a commit would do: a pure function of a ring and the staged changes."""

    id: Text
    """The hash of both."""
    epoch: Count
    """Of the ring it was made from."""
    changes: tuple[Change, ...]
    ring: Ring
    """As it would be next: the owners of now, and the moves pending."""
    optimum: Count
    """Replicas that have to move at the least."""
    warnings: tuple[Text, ...] = ()
    problem: Text = ""
    """Why it cannot be committed; empty where it can."""


# ---- client -> node ------------------------------------------------------------------------


class StageChange(Wire, frozen=True, tag=16):
    """Stage this. Answered with `StagedNow`, or `Failed`."""

    rid: Rid
    kind: ChangeKind
    node: NodeId
    new: Text = ""
    """Of REPLACE: the node that takes its places."""


class ClearStaged(Wire, frozen=True, tag=17):
    """Forget every staged change. Answered with `StagedNow`."""

    rid: Rid


class AskPlan(Wire, frozen=True, tag=18):
    """What would be done? Answered with `Planned`."""

    rid: Rid


class CommitPlan(Wire, frozen=True, tag=19):
    """Do it, if that is still the plan. Answered with `Committed` once the next epoch is chosen, or `Failed`."""

    rid: Rid
    plan: Text
    timeout_ms: Count


class CancelMoves(Wire, frozen=True, tag=30):
    """Give up what is pending: what has been moved stays so. Answered like `CommitPlan`."""

    rid: Rid
    timeout_ms: Count


class ThrottleMoves(Wire, frozen=True, tag=31):
    """This node receives at most so many bytes a second by transfers; 0: without a bound. Answered with `Done`."""

    rid: Rid
    bytes_per_s: Count


# ---- node -> client ------------------------------------------------------------------------


class StagedNow(Wire, frozen=True, tag=32):
    """What is staged."""

    rid: Rid
    epoch: Count
    changes: tuple[Change, ...]


class Planned(Wire, frozen=True, tag=33):
    """The plan."""

    rid: Rid
    plan: Plan


class Committed(Wire, frozen=True, tag=34):
    """The ring of this epoch was chosen."""

    rid: Rid
    epoch: Count


# ---- spreading a ring ------------------------------------------------------------------------


class AskRing(Wire, frozen=True, tag=77):
    """This is the ring I hold, and the hash of what I know to be staged. Tell me what is newer."""

    branch: Count
    epoch: Count
    staged: Digest


class RingTold(Wire, frozen=True, tag=78):
    """A ring that was chosen."""

    ring: Ring


class StagedTold(Wire, frozen=True, tag=79):
    """Every staged change I know of, those taken back included."""

    entries: Annotated[tuple[Staged, ...], Meta(max_length=config.MEMBERS_MAX)]


class Knock(Wire, frozen=True, tag=80):
    """I am outside, and would be a member such as this."""

    member: Member
    boot: Count
    epoch: Count
    """Of the ring I hold."""
    keys: Count
    """Held here: one that is not empty may not join."""


class Stale(Wire, frozen=True, tag=81):
    """Not done: what you sent is of an earlier epoch of its partition than mine. Fetch the ring, ask again."""

    rid: Rid
    epoch: Count


# ---- deciding one ----------------------------------------------------------------------------


class DecreePrepare(Wire, frozen=True, tag=82):
    """Promise, for the epoch after this one, to take no ballot below, and tell what you accepted."""

    rid: Rid
    branch: Count
    epoch: Count
    ballot: Ballot


class DecreePromised(Wire, frozen=True, tag=83):
    """Promised, and durable; what was accepted last."""

    rid: Rid
    accepted: Ballot
    value: Blob


class DecreeAccept(Wire, frozen=True, tag=84):
    """Take this ring for the epoch after this one, unless you have promised a higher ballot."""

    rid: Rid
    branch: Count
    epoch: Count
    ballot: Ballot
    value: Blob


class DecreeAccepted(Wire, frozen=True, tag=85):
    """Accepted, and durable."""

    rid: Rid


class DecreeOutbid(Wire, frozen=True, tag=86):
    """Not done: this ballot was promised."""

    rid: Rid
    promised: Ballot


class AskVotes(Wire, frozen=True, tag=87):
    """Do you know another disk of mine that cast votes? If not, remember this one."""

    rid: Rid
    disk_id: Count


class VotesKnown(Wire, frozen=True, tag=88):
    """This is the disk whose votes of yours I know, durably."""

    rid: Rid
    disk_id: Count
    epoch: Count
    """Of the ring I hold."""


# ---- moving partitions -----------------------------------------------------------------------


class KeptRegister(Struct, frozen=True, array_like=True, gc=False):
    """A key's register: what was promised and accepted, and not to be merged with any other."""

    key: WireKey
    promised: Ballot
    accepted: Ballot
    record: Blob


class AskBatch(Wire, frozen=True, tag=89):
    """I take this partition over. What do you hold of it from this leaf on?"""

    rid: Rid
    epoch: Count
    """Of the partition."""
    partition: Count
    leaf: Count
    bytes_max: Count


class Batch(Wire, frozen=True, tag=90):
    """All that is held in some leaves, durably, and where the next begin."""

    rid: Rid
    rows: tuple[Row, ...]
    registers: tuple[KeptRegister, ...]
    floor: Ballot
    """Below it an absent register of this partition takes no ballot."""
    leaf: Count
    """From where to go on."""
    done: bool
    bytes_left: Count
    """About so much is there after it."""


class MovesReady(Wire, frozen=True, tag=91):
    """I hold all of these partitions, proven, as of these epochs of theirs: they may flip; and no other may."""

    partitions: Annotated[tuple[tuple[Count, Count], ...], Meta(max_length=config.SLOTS_MAX)]
