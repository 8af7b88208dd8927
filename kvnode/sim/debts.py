"""Debts: what clients asked one node for, and have not been told of yet.

Promises: a request that reached a node which then had its turns is answered by its deadline, or the run
ends; an answer that waits for the disk is one. Never: counts what was lost on the way, or with a boot.
"""

from __future__ import annotations

from heapq import heappop, heappush

from kvnode.core.outbox import Sends
from kvnode.protocol.messages import Failed, Get, Got, Message, Put, Scan, Scanned, Written
from kvnode.protocol.types import Address
from kvnode.sim.clock import Tenths, tenths

SLACK: Tenths = tenths(200)
"""Deadlines are kept in slices, and a forwarder hears of one when its owner does."""


class Debts:
    """Of one boot."""

    def __init__(self) -> None:
        self._owed: dict[tuple[Address, int], Get | Put | Scan] = {}
        self._due: list[tuple[Tenths, bytes, int]] = []

    # Tuples below: a union of types would be built anew at each call.

    def take_on(self, client: Address, message: Message, now: Tenths) -> None:
        """A message arrived: if it is a client's request, it is owed an answer."""
        if type(client) is bytes and isinstance(message, (Get, Put, Scan)) and message.timeout_ms:
            self._owed[client, message.rid] = message
            heappush(self._due, (now + tenths(message.timeout_ms) + SLACK, client, message.rid))

    def pay(self, sends: Sends) -> None:
        """These leave, now or once they are durable."""
        if self._owed:
            for client, messages in sends.items():
                for message in messages:
                    if isinstance(message, (Got, Written, Failed, Scanned)):
                        self._owed.pop((client, message.rid), None)

    def check(self, now: Tenths) -> None:
        """At the end of a turn: nobody waits for an answer that is overdue."""
        while self._due and self._due[0][0] < now:
            _, client, rid = heappop(self._due)
            ask = self._owed.get((client, rid))
            assert ask is None, f"{client!r} was told nothing by its deadline, and a moment, of {ask}"
