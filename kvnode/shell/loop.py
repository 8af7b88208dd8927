"""The poll loop: one thread, one turn after another. All of the node's life is here.

Promises: acks leave only after the commit they wait for; a slow disk stops neither reads nor
heartbeats; a bug stops the node rather than let it go on wrong.
Never: sleeps, logs or allocates per request.

    poll ─► drain sockets ─► node.begin, receive..., end ─► send `sends`
      ▲                                                     submit `writes` to the engine
      └──────── acks of every turn whose commit has returned ◄────┘

Load makes turns bigger and cheaper per operation: batching is the flow control, not a timer.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable

import zmq

from kvnode import config
from kvnode.core.node import Node
from kvnode.core.outbox import Sends
from kvnode.protocol.messages import Event, Message
from kvnode.protocol.types import Address, NodeId
from kvnode.shell.faulty import Commits, Injector, Links
from kvnode.shell.store import StoreFailed


class Loop:
    """Drives one node with one engine over one transport."""

    def __init__(self, node: Node, faults: Injector, tell: Callable[[Event], None]) -> None:
        self._node = node
        self._faults = faults
        self._engine: Commits = faults.engine
        self._transport: Links = faults.transport
        self._tell = tell
        self._told = 0
        self._neighbours = 0
        """Those that were dialled: changes with the ring, and with who is known outside."""
        self._waiting: deque[tuple[int, Sends]] = deque()
        """Acks of turns whose commit has not returned, with the turn that must be durable first."""
        self._submitted = 0
        self._durable = 0
        self._to_self: list[Message] = []
        self._lost: list[NodeId] = []
        self._look_at_engine = 0.0
        self._stop_read, self._stop_write = os.pipe()
        os.set_blocking(self._stop_write, False)
        self.failure = ""
        """Why the node stopped by itself; empty while it runs."""

    def stop(self) -> None:
        """End `run` soon. Safe to call from a signal handler."""
        os.write(self._stop_write, b"x")

    def run(self) -> None:
        """Serve until stopped, or until the engine fails."""
        router = self._transport.router
        engine_fd = self._engine.fileno()
        everything, quiet = zmq.Poller(), zmq.Poller()
        for poller in (everything, quiet):
            poller.register(engine_fd, zmq.POLLIN)
            poller.register(self._stop_read, zmq.POLLIN)
        everything.register(router, zmq.POLLIN)
        try:
            while True:
                # While a flush is behind, nothing more is read: the sockets fill, senders wait.
                behind = self._engine.behind
                ready = dict((quiet if behind else everything).poll(self._patience()))
                if self._stop_read in ready:
                    break
                self._node.local.deaf = behind
                self.turn(listen=router in ready, engine_ready=engine_fd in ready)
                if self._node.halt:
                    # Whoever left as it was asked to has come to a good end.
                    self.failure = "" if self._node.shaping.topology.left else self._node.halt
                    return
            self._drain()
        except StoreFailed as failed:
            self.failure = str(failed)

    def turn(self, *, listen: bool = True, engine_ready: bool = True) -> None:
        """One turn. Raises `StoreFailed` when nothing more can be acknowledged."""
        node, faults = self._node, self._faults
        now, wall = time.monotonic_ns() / 1e6, time.time_ns() // 1_000_000
        if faults.active:
            self._lost += faults.turn(now)
            wall += faults.skew_ms
            self._engine, self._transport, engine_ready = faults.engine, faults.transport, True
        transport = self._transport
        node.begin(now, wall)
        if engine_ready or now >= self._look_at_engine:
            self._look_at_engine = now + config.POLL_MS_MAX
            self._durable = self._engine.durable()
            node.committed(self._durable)
        self._release()
        for message in self._take_own():
            node.receive(node.id, message)
        if listen:
            receive = node.receive
            for sender, messages in transport.receive():
                for message in messages:
                    receive(sender, message)
        turn = node.end()
        if node.shaping.neighbours != self._neighbours:
            self._neighbours = node.shaping.neighbours
            faults.join_ring(node.ring, node.shaping.outsiders.members())
        lost = transport.tell(turn.control) if turn.control else []
        if turn.sends:
            lost += transport.send(self._others(turn.sends))
        if turn.writes or turn.aside is not None:
            self._engine.submit(turn.number, turn.writes, turn.aside)
            self._submitted = turn.number
        if turn.acks:
            self._waiting.append((self._submitted, turn.acks))
            self._release()
        self._lost += lost
        if node.local.events.number != self._told:
            self._tell_events()

    def _tell_events(self) -> None:
        for event in self._node.local.events.after(self._told):
            self._tell(event)
        self._told = self._node.local.events.number

    def _release(self) -> None:
        """Send the acks whose commit has returned, and tell the node of peers that were lost."""
        while self._waiting and self._waiting[0][0] <= self._durable:
            _, acks = self._waiting.popleft()
            self._lost += self._transport.send(self._others(acks))
        if self._lost:
            lost, self._lost = dict.fromkeys(self._lost), []
            for peer in lost:
                self._node.lost(peer)

    def _others(self, sends: Sends) -> list[tuple[Address, list[Message]]]:
        """Batches to everyone else; what this node says to itself waits for the next turn."""
        own = sends.pop(self._node.id, None)
        if own is not None:
            self._to_self += own
        return list(sends.items())

    def _take_own(self) -> list[Message]:
        own, self._to_self = self._to_self, []
        return own

    def _patience(self) -> int:
        """Milliseconds until a timer is due; none where there is something to do already."""
        if self._to_self or self._lost:
            return 0
        now = self._node.local.now
        bound = self._faults.patience(now) if self._faults.active else config.POLL_MS_MAX
        if self._transport.keeping and not self._transport.retry():
            return min(bound, config.REDIAL_MS)
        until = math.ceil(self._node.wake_at - now)
        return max(0, min(until, bound))

    def _drain(self) -> None:
        """Before a clean stop: finish what was received, acknowledge what was written."""
        deadline = time.monotonic() + config.STOP_S_MAX
        self.turn()
        poller = zmq.Poller()
        poller.register(self._engine.fileno(), zmq.POLLIN)
        while (self._waiting or self._to_self or self._node.busy) and time.monotonic() < deadline:
            poller.poll(config.DEADLINE_SLICE_MS)
            self.turn()
