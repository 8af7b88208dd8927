"""Single-decree consensus: what an acceptor keeps, and how a proposer counts. Values only.

Promises: of two ballots whose majorities overlap the later one sees what the earlier one chose; a
node counts once, whatever it repeats. Never: knows the time, a key, or what the value means.

    promise   ballot above all promised ─► promised
    accept    ballot not below it       ─► promised, accepted, value
    chosen    = accepted under one ballot by a majority; every later ballot finds and keeps it

See Lamport, "Paxos Made Simple" (2001) §2, and Rystsov, "CASPaxos" (2018): a register is changed by
proposing a function of what the promises showed. Epochs of the ring can be decided the same way.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec
from msgspec import Struct

from kvnode.protocol.consensus import NO_BALLOT, Ballot
from kvnode.protocol.types import NodeId


class Register(Struct, frozen=True, array_like=True, gc=False):
    """What one acceptor has promised and accepted."""

    promised: Ballot
    accepted: Ballot
    value: bytes
    """Accepted; empty where nothing was."""


EMPTY = Register(NO_BALLOT, NO_BALLOT, b"")

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Register)


def encode_register(register: Register) -> bytes:
    """As it is kept."""
    return _encoder.encode(register)


def decode_register(kept: bytes) -> Register:
    """What was kept; the empty register where nothing was."""
    return _decoder.decode(kept) if kept else EMPTY


def promise(register: Register, ballot: Ballot) -> Register | None:
    """The register with this promise; None when a higher one was made. Asked twice, it promises twice."""
    if ballot < register.promised:
        return None
    return Register(ballot, register.accepted, register.value)


def accept(register: Register, ballot: Ballot, value: bytes) -> Register | None:
    """The register with this value; None when a higher ballot was promised."""
    if ballot < register.promised:
        return None
    return Register(ballot, ballot, value)


def adopt(mine: Register, accepted: Ballot, value: bytes) -> Register:
    """What another acceptor accepted, if it is later: for a node that lost what it had."""
    if accepted <= mine.accepted:
        return mine
    return Register(max(mine.promised, accepted), accepted, value)


class Poll(Struct, gc=False):
    """One question to all acceptors, and who has answered it."""

    members: tuple[NodeId, ...]
    need: int
    agreed: set[NodeId]
    outbid: set[NodeId]
    lost: set[NodeId]
    """Those who refused or cannot be reached: not waited for, but counted if they answer yet."""
    sides: tuple[tuple[frozenset[NodeId], int], ...] = ()
    """Where there are two sets of acceptors, each with its own majority: those, in place of `need`."""

    def agree(self, node: NodeId) -> bool:
        """Count a node's yes. False when it has answered before, or was never asked."""
        if node not in self.members or node in self.agreed or node in self.outbid:
            return False
        self.agreed.add(node)
        return True

    @property
    def enough(self) -> bool:
        """Whether a majority said yes."""
        return self.suffice(self.agreed)

    def suffice(self, nodes: Collection[NodeId]) -> bool:
        """Whether these are a majority; of each set, where there are two."""
        if not self.sides:
            return len(nodes) >= self.need
        return all(len(side.intersection(nodes)) >= need for side, need in self.sides)

    @property
    def waiting(self) -> list[NodeId]:
        """Those who may answer yet."""
        return [n for n in self.members if n not in self.agreed and n not in self.outbid and n not in self.lost]

    @property
    def hopeless(self) -> bool:
        """Whether there cannot be enough any more."""
        return not self.suffice([*self.agreed, *self.waiting])

    def anew(self) -> Poll:
        """The same question, that nobody has answered."""
        return Poll(self.members, self.need, set(), set(), set(), self.sides)


def poll_of(members: tuple[NodeId, ...], need: int, sides: tuple[tuple[frozenset[NodeId], int], ...] = ()) -> Poll:
    """A question that nobody has answered."""
    return Poll(members, need, set(), set(), set(), sides)
