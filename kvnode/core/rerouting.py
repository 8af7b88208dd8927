"""Rerouting: what a node does with what is under way when it holds another ring.

Promises: in a partition whose owners or moves changed, nothing goes on by the old ones: requests begin anew
in what is left of their time, puts that were minted go to the owners of now, exchanges and burials are dropped;
what this node came to own without having it, it does not count for.
Never: touches what is under way in other partitions, but pages of scans, which span them all.
"""

from __future__ import annotations

from collections.abc import Callable

from kvnode.core.antientropy import AntiEntropy
from kvnode.core.forward import Forwarder
from kvnode.core.hints import Hints
from kvnode.core.local import Local
from kvnode.core.membership import Membership
from kvnode.core.reader import Reader
from kvnode.core.reaper import Reaper
from kvnode.core.recovery import Recovery
from kvnode.core.registering import Registering
from kvnode.core.routes import Routes
from kvnode.core.scanner import Scanner
from kvnode.core.shaping import Shaping
from kvnode.core.writeback import WriteBack
from kvnode.core.writer import Writer
from kvnode.protocol import messages as m
from kvnode.protocol.types import Address, NodeId

Ask = Callable[[Address, m.Get | m.Put | m.Scan], object]


class Rerouting:
    """Everything of one node that knows owners."""

    def __init__(
        self,
        local: Local,
        ask: Ask,
        *,
        shaping: Shaping,
        registering: Registering,
        recovery: Recovery,
        membership: Membership,
        exchanges: AntiEntropy,
        reaper: Reaper,
        hints: Hints,
        writer: Writer,
        reader: Reader,
        write_back: WriteBack,
        forwarder: Forwarder,
        scanner: Scanner,
    ) -> None:
        """`ask`: the door for what clients ask."""
        self._local = local
        self._ask = ask
        self._shaping = shaping
        self._registering = registering
        self._recovery = recovery
        self._membership = membership
        self._reader, self._write_back, self._forwarder, self._scanner = reader, write_back, forwarder, scanner
        self._exchanges, self._reaper, self._hints, self._writer = exchanges, reaper, hints, writer
        shaping.rerouted = self.on_ring
        reaper.unsettled = registering.reaper.unsettled = self._unsettled

    def on_ring(self, before: Routes, changed: frozenset[int]) -> None:
        """Another ring is held."""
        peers = self._local.routes.peers
        gained = {p for p in changed if peers[p] is not None and before.peers[p] is None}
        unproven = self._recovery.on_ring({p for p in gained if not self._has(p, before)})
        self._registering.on_ring(changed, unproven)
        self._exchanges.on_ring(changed)
        self._reaper.on_ring(changed)
        self._hints.on_ring(changed)
        self._writer.on_ring(changed)
        again = [*self._reader.on_ring(changed), *self._write_back.on_ring(changed)]
        for client, ask in [*again, *self._forwarder.on_ring(changed), *self._scanner.on_ring()]:
            self._again(client, ask)

    def _has(self, partition: int, before: Routes) -> bool:
        """Whether this node holds all of a partition it has just come to own, or there is nothing to hold."""
        owners = self._local.routes.owners[partition]
        return self._shaping.taking.proven(partition) or not set(before.owners[partition]).intersection(owners)

    def _again(self, client: Address, ask: m.Get | m.Put | m.Scan) -> None:
        """Begin a request anew, in what is left of its time. One that was forwarded here goes no further."""
        if not ask.timeout_ms:  # this node slept, or its disk did: a put of now would be one too late
            text = "the deadline passed while the owners changed"
            maybe = isinstance(ask, m.Put)
            failed = m.Failed(ask.rid, self._local.routes.epoch, m.Error.INDETERMINATE, text, maybe_applied=maybe)
            return self._local.outbox.send(client, failed)
        if isinstance(client, str) and isinstance(ask, m.Get | m.Put):
            partition = self._local.routes.partition(ask.key)
            if self._local.routes.peers[partition] is None:
                return self._local.outbox.send(client, m.Stale(ask.rid, self._local.routes.since[partition]))
        self._ask(client, ask)
        return None

    def on_stale(self, sender: NodeId, stale: m.Stale) -> None:
        """What we sent is of an epoch that is over: it is asked anew once we hold the ring, if we do not yet."""
        asked = self._forwarder.on_stale(sender, stale.rid)
        if asked is None:
            return None
        partition = self._local.routes.partition(asked)
        if self._local.routes.since[partition] < stale.epoch:
            return self._shaping.topology.want(sender)
        for client, ask in self._forwarder.on_ring({partition}):
            self._again(client, ask)
        return None

    def _unsettled(self, partition: int) -> str:
        """Why nothing may be forgotten in a partition now; empty where its owners are settled."""
        routes = self._local.routes
        if partition in routes.pending:
            return "its partition is being moved"
        if any(self._membership.epoch_of(member) < routes.since[partition] for member in routes.others):
            return "a member has not been heard of since the owners changed"
        return ""
