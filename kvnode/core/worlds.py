"""A key is in one world: a register is written in mode `strong` only, and read in any.

Promises: a put in another mode to a register that was accepted here is refused; a get in another mode
tells what was *accepted here*, chosen or not, with what slipped in beside it.
Never: shows a `strong` reader a version of the other world.
Input: Get and Put in modes `eventual` and `quorum`, where this node ever kept a register: only then is it asked.

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

    def takes_get(self, client: Address, ask: Get) -> bool:
        """Answer a get in another mode of a key that is a register. False when it is none."""
        local = self._local
        try:
            accepted = self._accepted(ask.key)
            held = self._outbox.read(ask.key) if accepted else None
        except Unreadable:
            return self._refuse_damaged(client, ask)
        if not accepted:
            return False
        record = merge(accepted, held.record()) if held is not None else accepted
        local.counters["registers_read_elsewise"] += 1
        self._outbox.ack(client, Got(ask.rid, local.routes.epoch, encode_record(record)))
        return True

    def takes_put(self, client: Address, ask: Put) -> bool:
        """Refuse a put in another mode to a key that is a register. False when it is none."""
        local = self._local
        try:
            if not self._accepted(ask.key):
                return False
        except Unreadable:
            return self._refuse_damaged(client, ask)
        local.counters["refused_conflict"] += 1
        text, hint = "this key is a register: it is written in mode strong only", "write it with --mode strong"
        # What it shows may not be durable yet.
        self._outbox.ack(client, Failed(ask.rid, local.routes.epoch, Error.CONFLICT, text, hint, ask.retry))
        return True

    def _accepted(self, key: bytes) -> Record:
        """The value of a key's register as this node accepted it, chosen or not. Raises `Unreadable`."""
        value = decode_register(self._outbox.register(key)).value
        return decode_record(value) if value else ()

    def _refuse_damaged(self, client: Address, ask: Get | Put) -> bool:
        """Whether the key is a register cannot be told: to guess would hide it, or write beside it."""
        local = self._local
        local.counters["refused_unavailable"] += 1
        text = "this owner's copy of the key is damaged: whether it is a register cannot be told"
        retried = isinstance(ask, Put) and ask.retry
        failed = Failed(ask.rid, local.routes.epoch, Error.UNAVAILABLE, text, "kvctl explain KEY", retried)
        self._outbox.send(client, failed)
        return True
