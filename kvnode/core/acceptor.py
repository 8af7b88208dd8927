"""The acceptor: keeps the registers of the keys it owns, promises and accepts.

Promises: no promise or acceptance leaves before it is durable, and none is ever taken back; nothing is
acted on after its deadline. Never: votes while it may have lost a vote, or with a damaged register.
Input: Prepare, Accept, ReadRegister, CopyRegisters.

A register is kept apart from the key's versions. The node's own proposals come in by the same door,
and its own votes go out by it: they count after their commit like anyone's (PROTOCOL-CASES 11).
"""

from __future__ import annotations

from kvnode import config
from kvnode.core.consensus import Register, accept, decode_register, encode_register, promise
from kvnode.core.floors import floor_of, for_ballots
from kvnode.core.local import Local
from kvnode.core.outbox import Unreadable
from kvnode.core.rules import one_version
from kvnode.protocol.consensus import (
    NO_BALLOT,
    Accept,
    Accepted,
    CopyRegisters,
    Floor,
    Outbid,
    Prepare,
    Promised,
    ReadRegister,
    RegisterRead,
    RegisterRow,
    RegistersCopied,
)
from kvnode.protocol.replication import RECOVERING, UNREADABLE, ReplicaRefused
from kvnode.protocol.types import NodeId


class Acceptor:
    """This node's registers, as proposers see them."""

    def __init__(self, local: Local) -> None:
        self._local = local
        self._outbox = local.outbox

    # ---- votes -----------------------------------------------------------------------------

    def on_prepare(self, sender: NodeId, ask: Prepare) -> None:
        """Promise this ballot, or tell of a higher one."""
        register = self._register(sender, ask)
        if register is None:
            return None
        promised = promise(register, ask.ballot)
        if promised is None:
            return self._outbox.ack(sender, Outbid(ask.rid, register.promised))
        if promised != register:
            self._outbox.keep_register(ask.key, encode_register(promised))
        return self._outbox.ack(sender, Promised(ask.rid, register.accepted, register.value))

    def on_accept(self, sender: NodeId, ask: Accept) -> None:
        """Take this value, or tell of a higher ballot."""
        register = self._register(sender, ask)
        if register is None:
            return None
        if not one_version(ask.record):
            self._local.counters["malformed_records"] += 1
            return self._outbox.send(sender, ReplicaRefused(ask.rid, "malformed record"))
        accepted = accept(register, ask.ballot, ask.record)
        if accepted is None:
            return self._outbox.ack(sender, Outbid(ask.rid, register.promised))
        if accepted != register:
            self._outbox.keep_register(ask.key, encode_register(accepted))
        return self._outbox.ack(sender, Accepted(ask.rid))

    def on_read_register(self, sender: NodeId, ask: ReadRegister) -> None:
        """Tell what was promised and accepted, once it is durable."""
        register = self._readable(sender, ask.rid, ask.key)
        if register is not None:
            told = RegisterRead(ask.rid, register.promised, register.accepted, register.value)
            self._outbox.ack(sender, told)

    def _register(self, sender: NodeId, ask: Prepare | Accept) -> Register | None:
        """The register a ballot is for, if it may be acted on; else the sender is told."""
        left = ask.deadline - self._local.steady
        if not 0 <= left <= config.BALLOT_LIFE_MS + config.SKEW_MS:
            # Too far ahead is as bad as past: a node that lost its votes waits out the longest life.
            self._local.counters["late_ballots"] += 1
            why = "its deadline has passed" if left < 0 else "its deadline is too far ahead"
            self._outbox.send(sender, ReplicaRefused(ask.rid, why))
            return None
        return self._readable(sender, ask.rid, ask.key, ballot=True)

    def _readable(self, sender: NodeId, rid: int, key: bytes, *, ballot: bool = False) -> Register | None:
        local = self._local
        partition = local.routes.partition(key)
        why = ""
        if not local.routes.holds(partition):
            why = f"not an owner at epoch {local.routes.epoch}"
        elif partition in local.voteless:
            why = RECOVERING
        else:
            try:
                if ballot:
                    return for_ballots(self._outbox, partition, key)
                return decode_register(self._outbox.register(key))
            except Unreadable:
                local.counters["unreadable"] += 1
                why = UNREADABLE
        self._outbox.send(sender, ReplicaRefused(rid, why))
        return None

    # ---- for those who lost theirs ---------------------------------------------------------

    def on_copy_registers(self, sender: NodeId, ask: CopyRegisters) -> None:
        """A page of the registers that the sender owns too. It may not be durable yet: told when it is."""
        local = self._local
        shared = [p for p, peers in enumerate(local.routes.peers) if peers is not None and sender in peers]
        lost = sum(p in local.voteless for p in shared)
        if lost:
            # Who votes in some of them has something to tell: a waiver is to wait for that.
            why = RECOVERING if lost == len(shared) else f"{lost} of {len(shared)} partitions: {RECOVERING}"
            return self._outbox.send(sender, ReplicaRefused(ask.rid, why))
        try:
            page = self._outbox.registers(ask.after, b"", config.REGISTERS_PAGE)
        except Unreadable:
            return self._outbox.send(sender, ReplicaRefused(ask.rid, UNREADABLE))
        rows: list[RegisterRow] = []
        size, last = 0, b""
        for key, kept in page:
            register, last = decode_register(kept), key
            if register.accepted != NO_BALLOT and local.routes.partition(key) in shared:
                rows.append(RegisterRow(key, register.accepted, register.value))
                size += len(key) + len(register.value)
                if size >= config.EXCHANGE_BYTES_TARGET:
                    break
        done = not page or (last == page[-1][0] and len(page) < config.REGISTERS_PAGE)
        floors = [Floor(p, floor_of(self._outbox, p)) for p in shared if done]
        told = tuple(floor for floor in floors if floor.ballot != NO_BALLOT)
        return self._outbox.ack(sender, RegistersCopied(ask.rid, tuple(rows), b"" if done else last, told))
