"""A transport and an engine with faults in them, and the switch that puts them in the loop's hands.

Promises: while no fault is in force the loop holds the real ones, and pays one attribute test a turn; a
fault ends by the node's own timer; what was held back when it ends still leaves, in order.
Never: blocks the loop; touches what clients say or are told.

    SetFault ─► FaultDesk ─► begin ─► active          the loop, each turn it is active:
      healed, expired, nothing held back ─► not         what is due, then the transport and engine of now
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterable
from random import Random
from typing import NamedTuple, Protocol

import zmq

from kvnode import config
from kvnode.core.local import Local
from kvnode.core.outbox import Aside, Sends
from kvnode.core.versions import Held
from kvnode.protocol.faults import Fault
from kvnode.protocol.messages import Message, Put
from kvnode.protocol.ring import Member, Ring
from kvnode.protocol.types import Address, Millis, NodeId, WallMillis
from kvnode.shell.faults import Copy, Faults, SlowCommits
from kvnode.shell.store import StoreFailed
from kvnode.shell.transport import Received, Transport

FULL = "a write failed (database or disk is full: an injected fault): restart the node, its faults end with it"
IO_ERROR = "a commit failed (disk I/O error: an injected fault): restart the node, its faults end with it"


class Links(Protocol):
    """What the loop needs of a transport."""

    @property
    def router(self) -> zmq.Socket[bytes]:
        """The socket to poll."""
        ...

    @property
    def keeping(self) -> bool:
        """Whether frames wait for a connection."""
        ...

    def receive(self) -> list[Received]:
        """What has arrived."""
        ...

    def tell(self, control: Sends) -> list[NodeId]:
        """Hand over control messages; the peers that could not take theirs."""
        ...

    def send(self, sends: Iterable[tuple[Address, list[Message]]]) -> list[NodeId]:
        """Hand over batches; the peers that could not take theirs."""
        ...

    def retry(self) -> bool:
        """Send what waits. True when nothing is left."""
        ...


class Commits(Protocol):
    """What the loop needs of an engine."""

    @property
    def behind(self) -> bool:
        """Whether nothing more should be read."""
        ...

    def submit(self, number: int, writes: dict[bytes, Held], aside: Aside | None = None) -> None:
        """Begin a turn's commit. Raises `StoreFailed`."""
        ...

    def durable(self) -> int:
        """The last durable turn. Raises `StoreFailed`."""
        ...

    def fileno(self) -> int:
        """Readable when `durable` may have something new."""
        ...


class Parcel(NamedTuple):
    """A batch that is held back."""

    due: Millis
    order: int
    peer: NodeId
    control: bool
    messages: list[Message]
    damaged: bool


class FaultyTransport:
    """The transport, and between it and the loop a bad network. Clients do not feel it."""

    def __init__(self, inner: Transport, faults: Faults) -> None:
        self._inner = inner
        self._faults = faults
        self._held: list[Parcel] = []
        self._order = itertools.count()
        self._last: dict[tuple[NodeId, bool], Millis] = {}
        """When the last batch of a lane that keeps its place leaves."""
        self._now: Millis = 0.0

    @property
    def router(self) -> zmq.Socket[bytes]:
        """The socket to poll."""
        return self._inner.router

    @property
    def keeping(self) -> bool:
        """Whether frames wait for a connection."""
        return self._inner.keeping

    def retry(self) -> bool:
        """Send what waits for a connection."""
        return self._inner.retry()

    @property
    def next_due(self) -> Millis | None:
        """When the next batch that is held back leaves."""
        return self._held[0].due if self._held else None

    def deliver(self, now: Millis) -> list[NodeId]:
        """Send what is due (all, once no fault is on any link). The peers that could not take theirs."""
        self._now = now
        lost: list[NodeId] = []
        while self._held and (self._held[0].due <= now or not self._faults.on_links):
            parcel = heapq.heappop(self._held)
            lost += self._hand_over(parcel.peer, parcel.messages, control=parcel.control, damaged=parcel.damaged)
        if not self._held:
            self._last.clear()
        return lost

    def receive(self) -> list[Received]:
        """What has arrived, but for what a partition keeps from us."""
        hears = self._faults.hears
        return [got for got in self._inner.receive() if not isinstance(got[0], str) or hears(NodeId(got[0]))]

    def tell(self, control: Sends) -> list[NodeId]:
        """Hand over control messages."""
        lost: list[NodeId] = []
        for to, messages in control.items():
            if isinstance(to, str):
                lost += self._post(NodeId(to), messages, control=True)
            else:
                lost += self._inner.tell({to: messages})
        return lost

    def send(self, sends: Iterable[tuple[Address, list[Message]]]) -> list[NodeId]:
        """Hand over batches."""
        lost: list[NodeId] = []
        for to, messages in sends:
            if isinstance(to, str):
                lost += self._post(NodeId(to), messages, control=False)
            else:
                self._inner.send([(to, messages)])
        return lost

    def _post(self, peer: NodeId, messages: list[Message], *, control: bool) -> list[NodeId]:
        lost: list[NodeId] = []
        for number, copy in enumerate(self._faults.fates(peer)):
            if number:
                # A second Put would be a second put, and might bury what was written between the two. No
                # transport of ours sends a request twice; a duplicate of any other message is harmless.
                messages = [message for message in messages if type(message) is not Put]
            due = self._due(peer, copy, control=control)
            if due <= self._now:
                lost += self._hand_over(peer, messages, control=control, damaged=copy.damaged)
            elif len(self._held) < config.FAULT_HELD_MAX:
                parcel = Parcel(due, next(self._order), peer, control, messages, copy.damaged)
                heapq.heappush(self._held, parcel)
            else:
                self._faults.counters["fault_held_too_many"] += 1
        return lost

    def _due(self, peer: NodeId, copy: Copy, *, control: bool) -> Millis:
        """When a copy leaves. As over TCP none passes an earlier one, but where that is the fault."""
        due = self._now + copy.delay_ms
        if not copy.overtaken:
            lane = peer, control
            due = self._last[lane] = max(due, self._last.get(lane, due))
        return due

    def _hand_over(self, peer: NodeId, messages: list[Message], *, control: bool, damaged: bool) -> list[NodeId]:
        if damaged:
            self._inner.send_damaged(peer, messages, self._faults.damage)
            return []
        return self._inner.tell({peer: messages}) if control else self._inner.send([(peer, messages)])


class FaultyEngine:
    """The engine, and between it and the loop a bad disk. Reads do not feel it: they go to the store."""

    def __init__(self, inner: Commits, faults: Faults) -> None:
        self._inner = inner
        self._faults = faults
        self._slow = SlowCommits()
        self._failing = 0
        """The first turn whose fsync fails; 0 while none does."""
        self.now: Millis = 0.0

    @property
    def idle(self) -> bool:
        """Whether it holds nothing back."""
        return self._slow.idle and not self._failing

    @property
    def next_due(self) -> Millis | None:
        """When a commit may be told of; None if its turn is past, then the engine itself wakes the loop."""
        at = self._slow.lands_at
        return at if at is not None and at > self.now else None

    @property
    def behind(self) -> bool:
        """Whether so much is held back that nothing more should be read, as for a real slow disk."""
        return self._inner.behind or self._slow.bytes > config.LOG_QUEUE_BYTES_MAX

    def fileno(self) -> int:
        """Readable when `durable` may have something new."""
        return self._inner.fileno()

    def submit(self, number: int, writes: dict[bytes, Held], aside: Aside | None = None) -> None:
        """Begin a turn's commit. A full disk takes none of it; one that cannot fsync, nobody knows what."""
        faults = self._faults
        if faults.disk_full:
            raise StoreFailed(FULL)
        self._inner.submit(number, writes, aside)
        if faults.fsync_fails and not self._failing:
            self._failing = number
        if faults.commit_ms or not self._slow.idle:
            size = sum(len(key) + len(held.blob) for key, held in writes.items())
            self._slow.submit(number, size, self.now, faults.commit_ms)

    def durable(self) -> int:
        """The last turn that may be told of as durable. Raises `StoreFailed`."""
        told = self._slow.durable(self._inner.durable(), self.now, self._faults.commit_ms)
        if self._failing and told >= self._failing:
            raise StoreFailed(IO_ERROR)
        return told


class Injector:
    """What the loop asks for its transport and engine while a fault is in force."""

    def __init__(self, local: Local, engine: Commits, transport: Transport, rng: Random) -> None:
        self._local = local
        self._real = engine, transport
        self._faults = Faults(local.me, rng, transport.counters)
        self._bad_transport = FaultyTransport(transport, self._faults)
        self._bad_engine = FaultyEngine(engine, self._faults)
        self.active = False
        """Whether `turn` must be called: the one thing that is looked at while all is well."""
        self.engine: Commits = engine
        self.transport: Links = transport
        self.skew_ms = 0
        """How far this turn's wall clock is off."""

    # ---- for the desk ----------------------------------------------------------------------

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Those in force."""
        return self._faults.all

    def begin(self, fault: Fault, for_ms: int, now: Millis, wall: WallMillis) -> Fault:
        """Put a fault in force: from the next turn on."""
        self.active = True
        return self._faults.begin(fault, for_ms, now, wall - self.skew_ms)

    def end(self, fault: Fault, now: Millis) -> None:
        """Undo a fault: from the next turn on."""
        self._faults.end(fault)

    def join_ring(self, ring: Ring, outside: tuple[Member, ...]) -> None:
        """Whom to speak to from now on: faults are between those and the loop."""
        self._real[1].join_ring(ring, outside)

    # ---- for the loop ----------------------------------------------------------------------

    def turn(self, now: Millis) -> list[NodeId]:
        """End what is over, send what is due. The peers that could not be handed theirs."""
        faults = self._faults
        for fault in faults.expire(now):
            self._local.event("fault", f"{fault.id} {fault.kind} is over")
        lost = self._bad_transport.deliver(now)
        self._bad_engine.now = now
        bad_disk = faults.on_disk or not self._bad_engine.idle
        bad_network = faults.on_links or self._bad_transport.next_due is not None
        self.engine = self._bad_engine if bad_disk else self._real[0]
        self.transport = self._bad_transport if bad_network else self._real[1]
        self.skew_ms = faults.skew_ms
        self.active = bool(faults.all) or bad_disk or bad_network
        return lost

    def patience(self, now: Millis) -> int:
        """Milliseconds until `turn` has something to do."""
        dues = (self._faults.next_end, self._bad_transport.next_due, self._bad_engine.next_due)
        due = min((due for due in dues if due is not None), default=math.inf)
        return max(0, min(config.POLL_MS_MAX, math.ceil(min(due - now, config.POLL_MS_MAX))))
