"""What members say to agree on the value of a register.

Promises: every ballot carries a deadline by the receiver's own clock; a reply names its question.
Never: obeyed when a client says it.

    Prepare ─► Promised     no lower ballot any more; here is what was accepted last
    Accept  ─► Accepted     this value, under this ballot, durably
            ─► Outbid       a higher ballot was promised
    ReadRegister ─► RegisterRead       what is promised and accepted: a majority that agrees needs no ballot
    CopyRegisters ─► RegistersCopied   a page of them, for a member that lost its own
    ReapRegister ─► RegisterReapAnswer a deleted one goes once all owners hold just its tombstone
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

from msgspec import Meta, Struct

from kvnode import config
from kvnode.protocol.types import Actor, Time, WireKey
from kvnode.protocol.wire import Blob, Count, Rid, Wire


class Ballot(NamedTuple):
    """A proposal's place among all others. `by` is drawn at the proposer's boot: none is used twice."""

    time: Time
    by: Actor


NO_BALLOT = Ballot(0, 0)
"""Below every other: nothing was promised, or accepted."""


class Prepare(Wire, frozen=True, tag=66):
    """Promise to take no ballot below this one, and tell what you accepted."""

    rid: Rid
    epoch: Count
    key: WireKey
    ballot: Ballot
    deadline: Count
    """Wall ms of the receiver's steady clock, after which this must not be acted on."""


class Promised(Wire, frozen=True, tag=67):
    """Promised, and durable; what was accepted last, and under which ballot."""

    rid: Rid
    accepted: Ballot
    record: Blob


class Accept(Wire, frozen=True, tag=68):
    """Take this value, unless you have promised a higher ballot."""

    rid: Rid
    epoch: Count
    key: WireKey
    ballot: Ballot
    record: Blob
    deadline: Count


class Accepted(Wire, frozen=True, tag=69):
    """Accepted, and durable."""

    rid: Rid


class Outbid(Wire, frozen=True, tag=70):
    """Not done: this ballot was promised."""

    rid: Rid
    promised: Ballot


class ReadRegister(Wire, frozen=True, tag=71):
    """What have you promised and accepted?"""

    rid: Rid
    epoch: Count
    key: WireKey


class RegisterRead(Wire, frozen=True, tag=72):
    """This; all of it durable."""

    rid: Rid
    promised: Ballot
    accepted: Ballot
    record: Blob


class CopyRegisters(Wire, frozen=True, tag=73):
    """The registers that both of us keep, above this key: I have lost mine."""

    rid: Rid
    after: Annotated[bytes, Meta(max_length=config.KEY_BYTES_MAX)]


class RegisterRow(Struct, frozen=True, array_like=True, gc=False):
    """A key and what was accepted of it."""

    key: WireKey
    accepted: Ballot
    record: Blob


class Floor(Struct, frozen=True, array_like=True, gc=False):
    """Below this ballot a partition takes nothing for a register that is not there."""

    partition: Count
    ballot: Ballot


class RegistersCopied(Wire, frozen=True, tag=74):
    """A page of them; `after` is where the next begins, empty when there is none."""

    rid: Rid
    rows: Annotated[tuple[RegisterRow, ...], Meta(max_length=config.REGISTERS_PAGE)]
    after: Annotated[bytes, Meta(max_length=config.KEY_BYTES_MAX)]
    floors: tuple[Floor, ...] = ()
    """With the last page: those of the partitions we share."""


class ReapRegister(Wire, frozen=True, tag=75):
    """Do you hold exactly this tombstone, with nothing promised since? If told to, drop it."""

    rid: Rid
    epoch: Count
    key: WireKey
    ballot: Ballot
    deadline: Count
    drop: bool


class RegisterReapAnswer(Wire, frozen=True, tag=76):
    """Whether it was exactly that, durably."""

    rid: Rid
    same: bool
