"""A key is in one world: a register is written in mode `strong` only, and read in any.

Promises: a put in another mode to a register that was accepted here is refused; a get in another mode
tells what was *accepted here*, chosen or not, with what slipped in beside it.
Never: shows a `strong` reader a version of the other world.
Input: Get and Put in modes `eventual` and `quorum`, where this node ever kept a register.

Versions can slip in: written through a node that lacks the register, or kept as a hint by one that is
no owner. They stay, as siblings for other modes, and are counted (PROTOCOL-CASES 14).
"""

from __future__ import annotations

from kvnode.core.consensus import decode_register
from kvnode.core.local import Local
from kvnode.core.outbox import Unreadable
from kvnode.core.versions import merge
from kvnode.protocol.messages import Error, Failed, Get, Got, Put
from kvnode.protocol.types import Address, Record, decode_record, encode_record


class Worlds:
    """Which keys are registers, as this node knows."""

    def __init__(self, local: Local) -> None:
        self._local = local
        self._outbox = local.outbox

    def accepted_here(self, key: bytes) -> Record:
        """The value of a key's register as this node accepted it, whether or not it is chosen."""
        if not self._outbox.any_registers:
            return ()
        try:
            value = decode_register(self._outbox.register(key)).value
        except Unreadable:
            return ()
        return decode_record(value) if value else ()

    def on_other_put(self, client: Address, ask: Put) -> None:
        """A put in another mode to a key that is a register."""
        local = self._local
        local.counters["refused_conflict"] += 1
        text, hint = "this key is a register: it is written in mode strong only", "write it with --mode strong"
        # What it shows may not be durable yet.
        self._outbox.ack(client, Failed(ask.rid, local.routes.epoch, Error.CONFLICT, text, hint, ask.retry))

    def on_other_get(self, client: Address, ask: Get, accepted: Record) -> None:
        """A get in another mode of a key that is a register."""
        try:
            held = self._outbox.read(ask.key)
        except Unreadable:
            held = None
        record = merge(accepted, held.record()) if held is not None else accepted
        self._local.counters["registers_read_elsewise"] += 1
        self._outbox.ack(client, Got(ask.rid, self._local.routes.epoch, encode_record(record)))
