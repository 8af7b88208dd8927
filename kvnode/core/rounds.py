"""When exchanges begin, and with whom: rounds in the background, what is urgent, what operators order.

Promises: each pair of owners exchanges each partition about once in `repair_interval_ms`; at most two
exchanges are begun by a node at a time, and none of a partition that is being exchanged.
Never: begins anything while paused, or with who is no owner beside us any more. The exchanges themselves:
`antientropy.py`.
Input: RunRepair, PauseRepair, ticks.

    round     of two owners the one in the earlier place begins, each pair in its turn
    urgent    a recovering node, with every other owner; pairs known to have missed a write
    ordered   `kvctl repair run`: all of this node's pairs, before the others
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from kvnode import config
from kvnode.core.exchanges import Pair, Totals
from kvnode.core.local import Local
from kvnode.protocol.messages import Done, ExchangeView, PauseRepair, RepairView, RunRepair
from kvnode.protocol.ring import Partition
from kvnode.protocol.types import Address, Millis, NodeId, WallMillis


class Exchanges(Protocol):
    """What carries the exchanges out."""

    @property
    def finished(self) -> Mapping[Pair, WallMillis]:
        """When the last finished exchange of a partition with an owner began."""
        ...

    @property
    def totals(self) -> Totals:
        """Over all exchanges of this boot."""
        ...

    @property
    def active(self) -> int:
        """Exchanges under way."""
        ...

    def begin(self, pair: Pair) -> None:
        """Begin one."""
        ...

    def exchanging(self, partition: int) -> bool:
        """Whether one of this partition is under way."""
        ...

    def views(self) -> tuple[ExchangeView, ...]:
        """How far each has come."""
        ...


class Rounds:
    """Whose turn it is."""

    def __init__(self, local: Local, exchanges: Exchanges) -> None:
        self._local = local
        self._exchanges = exchanges
        self._queue: dict[Pair, None] = {}
        self._round: deque[Pair] = deque()
        self._next_pair: Millis = 0
        self._next_urgent: Millis = 0
        self._paused = False
        self._routes = local.routes
        self._mine: list[Pair] = self._pairs()
        """The pairs of the ring that was looked at last."""
        self._since: WallMillis = 0
        """Since when they are these; 0 for the whole boot."""
        self.answering: Callable[[int], bool] = lambda _: False
        """Whether a partition is being exchanged by someone else's beginning."""
        self.urgent: Callable[[], list[tuple[int, NodeId]]] = list
        """Pairs that are known to differ."""

    def _pairs(self) -> list[Pair]:
        """The pairs that are ours to begin: the other owners in later places."""
        me = self._local.me
        found = []
        for p, owners in enumerate(self._local.routes.owners):
            if me in owners:
                found += [(Partition(p), peer) for peer in owners[owners.index(me) + 1 :]]
        return found

    def on_run(self, client: Address, ask: RunRepair) -> None:
        """An operator wants exchanges now."""
        wanted = [pair for pair in self._mine if ask.partition in (-1, pair[0])]
        self._queue = dict.fromkeys(wanted) | self._queue
        self._local.outbox.send(client, Done(ask.rid, len(wanted)))

    def on_pause(self, client: Address, ask: PauseRepair) -> None:
        """An operator wants no exchanges, or wants them again."""
        self._paused = ask.paused
        self._local.event("repair", "paused by an operator" if ask.paused else "resumed by an operator")
        self._local.outbox.send(client, Done(ask.rid, len(self._queue)))

    def on_busy(self, pair: Pair) -> None:
        """The other side was exchanging this partition with someone else: after the others, then."""
        self._queue.setdefault(pair)

    # ---- time ------------------------------------------------------------------------------

    @property
    def timed(self) -> bool:
        """Whether an exchange waits to begin."""
        return bool(self._queue) and not self._paused

    @property
    def busy(self) -> bool:
        """Nothing here keeps a client waiting."""
        return False

    @property
    def quiet(self) -> bool:
        """Whether no exchange is under way or waiting."""
        return not self._exchanges.active and not self._queue

    def on_peer_lost(self, peer: NodeId) -> None:
        """Its turn comes again."""

    def on_tick(self, now: Millis) -> None:
        """See whose turn it is, begin what there is room for."""
        if self._routes is not self._local.routes:
            self._look_again()
        if now >= self._next_pair:
            self._take_turn(now)
        if now >= self._next_urgent:
            self._next_urgent = now + config.URGENT_REPAIRS_MS
            for partition, peer in self.urgent():
                if peer in (self._local.routes.peers[partition] or ()):
                    self._queue.setdefault((Partition(partition), peer))
        if self._queue and not self._paused:
            self._fill()

    def _look_again(self) -> None:
        """Another ring is held: where the pairs are others, a new round begins with those never exchanged."""
        before, self._mine, self._routes = self._mine, self._pairs(), self._local.routes
        if self._mine != before:
            self._round.clear()
            self._since = self._local.wall

    def _take_turn(self, now: Millis) -> None:
        """Queue the next pair of the round: all of them take turns in one interval."""
        interval = self._local.settings.repair_interval_ms
        if not self._next_pair:
            # Nodes that start together do not begin together.
            self._next_pair = now + interval * self._local.rng.random() / max(1, len(self._mine))
            return
        if not self._round:
            pairs = list(self._mine)
            self._local.rng.shuffle(pairs)
            finished = self._exchanges.finished
            self._round.extend(sorted(pairs, key=lambda pair: pair in finished))
        self._next_pair = now + interval / max(1, len(self._mine))
        if self._round:
            self._queue.setdefault(self._round.popleft())

    def _fill(self) -> None:
        avoided = self._local.peers.avoided
        for pair in list(self._queue):
            if self._exchanges.active >= config.EXCHANGES_ACTIVE_MAX:
                return
            if self._exchanges.exchanging(pair[0]) or self.answering(pair[0]):
                continue  # one after the other: what the first brings, the second need not
            del self._queue[pair]
            if pair[1] not in (self._local.routes.peers[pair[0]] or ()):
                continue  # since it was queued the owners changed: it would bring back a copy that was dropped
            if pair[1] not in avoided:  # else its turn comes again
                self._exchanges.begin(pair)

    # ---- what operators see ----------------------------------------------------------------

    def view(self) -> RepairView:
        """How it stands."""
        peers = self._local.routes.peers
        pairs = [(Partition(p), peer) for p, others in enumerate(peers) for peer in others or ()]
        oldest = min((self._exchanges.finished.get(pair, 0) for pair in pairs), default=0)
        active = self._exchanges.views()
        waiting = len(self._queue)
        view = self._exchanges.totals.view(active, waiting=waiting, oldest=oldest, paused=self._paused)
        return msgspec.structs.replace(view, since_ms=self._since)
