"""Forwarding: a request that reached a node which does not own its key goes on to one that does.

Once no owner can be reached, an `eventual` request is coordinated here, by a fallback.

Promises: one hop; the client hears from us whatever becomes of the owner. Never: retries what may
have been applied, except an `eventual` put, which then says that it is a retry (PROTOCOL-CASES 5).
Input: Get and Put of keys owned elsewhere, Got, Written and Failed from owners, lost peers, ticks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import msgspec
from msgspec import Struct

from kvnode import config
from kvnode.core.deadlines import Deadlines
from kvnode.core.local import Local
from kvnode.core.rules import with_time_left
from kvnode.protocol.messages import Error, Failed, Get, Got, Put, Written, safe_to_retry
from kvnode.protocol.types import EVENTUAL, STRONG, Address, Millis, NodeId


class Forwarded(Struct, gc=False):
    """A request on its one hop."""

    client: Address
    ask: Get | Put
    owner: NodeId
    tried: tuple[NodeId, ...]
    deadline: Millis
    stale: bool = False
    """Refused, for want of the latest ring."""


StandIn = Callable[[Address, Get | Put, tuple[NodeId, ...]], None]
"""Coordinates a request in place of these owners of its key."""


class Forwarder:
    """Requests of others' keys, on their way to an owner."""

    def __init__(self, local: Local, stand_in: StandIn) -> None:
        self._local = local
        self._stand_in = stand_in
        self._pending: dict[int, Forwarded] = {}
        self._deadlines = Deadlines()

    def on_request(self, client: Address, ask: Get | Put) -> None:
        """Send a client's request on to an owner of its key."""
        local = self._local
        if isinstance(ask, Put) and ask.deadline and local.steady > ask.deadline:
            text = "its deadline has passed, by this node's clock"
            return local.outbox.send(client, self._failed(ask, Error.REFUSED, text))
        if not local.routes.is_member:
            text = f"{local.me} is no member of this cluster: ask one that is"
            return local.outbox.send(client, self._failed(ask, Error.REFUSED, text))
        if ask.forwarded:
            text = f"{local.me} does not own this key at epoch {local.routes.epoch}"
            return local.outbox.send(client, self._failed(ask, Error.REFUSED, text))
        if len(self._pending) >= config.PENDING_MAX:
            text = f"{config.PENDING_MAX} requests are being forwarded here"
            return local.outbox.send(client, self._failed(ask, Error.OVERLOADED, text))
        timeout = local.settings.lasts(ask.timeout_ms)
        return self._send(client, ask, (), local.now + timeout)

    def _send(self, client: Address, ask: Get | Put, tried: tuple[NodeId, ...], deadline: Millis) -> None:
        local = self._local
        owner = self._choose(ask.key, tried)
        stands_in = ask.mode == EVENTUAL and local.me not in local.routes.leaving
        if stands_in and (owner is None or owner in local.peers.avoided):
            remaining = max(1, int(deadline - local.now))
            ask = msgspec.structs.replace(ask, timeout_ms=remaining)
            if isinstance(ask, Put):
                ask = msgspec.structs.replace(ask, retry=ask.retry or bool(tried))
            return self._stand_in(client, ask, local.routes.owners[local.routes.partition(ask.key)])
        if owner is None or (ask.mode == STRONG and owner in local.peers.avoided):
            maybe = bool(tried) and isinstance(ask, Put)
            error = Error.INDETERMINATE if maybe else Error.UNAVAILABLE
            return local.outbox.send(client, self._failed(ask, error, "no owner of this key can be reached"))
        rid = local.next_rid()
        remaining = max(1, int(deadline - local.now))
        epoch = local.routes.epoch_of(ask.key)
        onward: Get | Put = msgspec.structs.replace(
            ask, rid=rid, forwarded=True, timeout_ms=remaining, epoch=epoch
        )
        if isinstance(onward, Put):
            until = local.steady + local.ahead.get(owner, 0) + remaining
            onward = msgspec.structs.replace(onward, retry=ask.retry or bool(tried), deadline=until)  # type: ignore[union-attr]
        self._pending[rid] = Forwarded(client, ask, owner, (*tried, owner), deadline)
        self._deadlines.add(rid, deadline)
        local.counters["forwarded"] += 1
        return local.outbox.send(owner, onward)

    def _choose(self, key: bytes, tried: tuple[NodeId, ...]) -> NodeId | None:
        """The first owner not tried yet, those worth waiting for before the others."""
        routes = self._local.routes
        owners = [o for o in routes.owners[routes.partition(key)] if o not in tried]
        avoided = self._local.peers.avoided
        return next((o for o in owners if o not in avoided), owners[0] if owners else None)

    def on_reply(self, sender: NodeId, reply: Got | Written | Failed) -> None:
        """The owner's answer, passed on under the client's own request id."""
        forwarded = self._pending.get(reply.rid)
        if forwarded is None or forwarded.owner != sender:
            return self._local.ignore("forwarded_reply")
        del self._pending[reply.rid]
        passed = msgspec.structs.replace(reply, rid=forwarded.ask.rid)
        if isinstance(passed, Failed) and isinstance(forwarded.ask, Put) and len(forwarded.tried) > 1:
            # This owner left no trace, but the one before it may have.
            passed = msgspec.structs.replace(passed, maybe_applied=True)
        return self._local.outbox.send(forwarded.client, passed)

    def on_stale(self, sender: NodeId, rid: int) -> bytes | None:
        """An owner knows a later epoch, and has not begun: the request, whose key is told, is to go out again."""
        forwarded = self._pending.get(rid)
        if forwarded is None or forwarded.owner != sender:
            return None
        forwarded.stale = True
        return forwarded.ask.key

    def on_ring(self, changed: Collection[int]) -> list[tuple[Address, Get | Put]]:
        """Some partitions have other owners, or are to: what was refused for that is to be asked anew."""
        again: list[tuple[Address, Get | Put]] = []
        for rid, forwarded in list(self._pending.items()):
            if forwarded.stale and self._local.routes.partition(forwarded.ask.key) in changed:
                del self._pending[rid]
                left = forwarded.deadline - self._local.now
                again.append((forwarded.client, with_time_left(forwarded.ask, left)))
        return again

    def on_peer_lost(self, peer: NodeId) -> None:
        """An owner cannot be reached: try the next where that is safe, else say that we do not know."""
        for rid, forwarded in list(self._pending.items()):
            if forwarded.owner != peer:
                continue
            del self._pending[rid]
            ask = forwarded.ask
            if safe_to_retry(ask):
                self._send(forwarded.client, ask, forwarded.tried, forwarded.deadline)
            else:
                self._give_up(forwarded, f"{peer} was lost while it coordinated the write")

    @property
    def busy(self) -> bool:
        """Whether a client still waits for an answer."""
        return bool(self._pending)

    @property
    def timed(self) -> bool:
        """Whether anything here has a deadline."""
        return bool(self._pending)

    def on_tick(self, now: Millis) -> None:
        """Answer the requests whose owner did not."""
        for rid in self._deadlines.due(now):
            forwarded = self._pending.pop(rid, None)
            if forwarded is not None:
                if self._local.peers.avoid(forwarded.owner, now):
                    self._local.event("avoided", f"{forwarded.owner} did not answer a forwarded request")
                self._give_up(forwarded, f"{forwarded.owner} did not answer in time")

    def _give_up(self, forwarded: Forwarded, why: str) -> None:
        failed = self._failed(forwarded.ask, Error.INDETERMINATE, why)
        self._local.outbox.send(forwarded.client, failed)

    def _failed(self, ask: Get | Put, error: Error, why: str) -> Failed:
        maybe = error == Error.INDETERMINATE and isinstance(ask, Put)
        return Failed(ask.rid, self._local.routes.epoch, error, why, "kvctl status", maybe)
