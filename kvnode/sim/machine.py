"""One machine: a real node, the real loop's order of doing things, a fake disk and a fake transport.

Promises: a turn does what `shell.loop.Loop.turn` does, in its order; acks leave only when the disk
says so; a crash leaves nothing but the platter; a restart is a new boot.
Never: changes what the node says. An assertion of the node's is the world's, and ends the run.

    begin ─► durable? committed ─► acks due ─► own messages ─► frames ─► end ─► sends ─► submit ─► acks
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from kvnode import config
from kvnode.config import Settings
from kvnode.core.local import Local
from kvnode.core.node import Node
from kvnode.core.outbox import Sends
from kvnode.core.topology import RING, held_ring
from kvnode.protocol.codec import NODE, PROTOCOL_VERSION, Greeting, Reader, encode_batches, encode_greeting
from kvnode.protocol.messages import CONTROL, Get, Message, NodeReport, Put
from kvnode.protocol.ring import Member, Ring
from kvnode.protocol.types import Address, NodeId
from kvnode.sim.clock import SkewedClock, Tenths, derive, millis, tenths
from kvnode.sim.debts import Debts
from kvnode.sim.disk import SimDisk
from kvnode.sim.events import Timeline, Trace
from kvnode.sim.network import Network

REQUESTS = frozenset({Get, Put})
"""What must not arrive twice."""
WAKES_WITHIN: Tenths = 5
"""A turn begins up to half a millisecond after what woke it, so turns are of one message or of many."""


class Surroundings(NamedTuple):
    """What all machines of a world share."""

    seed: int
    timeline: Timeline
    trace: Trace
    network: Network
    ring: Ring
    settings: Settings
    founded: bool
    """Whether the first disks are as old as the cluster, so that nothing can have been lost."""
    on_ring: Callable[[Ring], None] = lambda _: None
    """Told when a node holds another ring."""


class SimNode:
    """A machine that can crash, restart and stand still."""

    def __init__(self, name: NodeId, around: Surroundings, ring: Ring | None = None) -> None:
        """`ring`: of one that is outside, what it was told when it first asked."""
        self.name = name
        self.boot = 0
        self.up = False
        self.paused = False
        self.why_down = ""
        self.clock = SkewedClock()
        self.disk = SimDisk(name, around.timeline, around.trace, derive(around.seed, f"disk {name}"))
        self.disk.on_commit = self._wake
        self._around = around
        self._first_ring = ring or around.ring
        self._founded = around.founded and ring is None
        self._timeline = around.timeline
        self._rng = derive(around.seed, f"machine {name}")
        self._reader = Reader()
        self._turn_at: Tenths = 0
        """When the next turn is; 0 while there is none to come."""
        self._start()
        around.network.attach(name, self)

    # ---- life and death --------------------------------------------------------------------

    def _start(self) -> None:
        around = self._around
        self.boot += 1
        self.up, self.paused = True, False
        self.disk.open()
        rng = derive(around.seed, f"{self.name} disk {self.disk.disk_id} boot {self.boot}")
        ring = held_ring(self.disk.fact(RING), self._first_ring)
        self.local = Local(self.name, self.boot, ring, self.disk, rng, around.settings, "fsync", self.disk.disk_id)
        self.node = Node(
            self.local, self._vitals, founded=self._founded and self.boot == 1 and not self.disk.wiped
        )
        self.node.shaping.outsiders.as_member = Member(
            self.name, f"{self.name}:7000", self.name, disk_id=self.disk.disk_id
        )
        self.node.shaping.keys = lambda: len(self.disk.keys)
        greeting = Greeting(PROTOCOL_VERSION, around.ring.cluster_id, NODE, self.name, self.boot)
        self._greeting = encode_greeting(greeting)
        self._epoch = self.node.ring.epoch
        self._inbox: deque[tuple[Address, bytes | bytearray]] = deque()
        self._waiting: deque[tuple[int, Sends]] = deque()
        self._debts = Debts()
        self._submitted = 0
        self._to_self: list[Message] = []
        self._lost: list[NodeId] = []
        self._turn_at = 0
        self._wake()

    def crash(self, why: str = "") -> None:
        """The machine stops, at once. Only what is on the platter will be there again."""
        assert self.up
        self.why_down = why
        self._around.trace.note("crash", self.name, why)
        self.up, self.paused = False, False
        self._turn_at = 0
        self._inbox.clear()
        self.disk.crash()

    def stop(self) -> None:
        """End as SIGTERM ends a process: what was written is committed and acknowledged, then nothing more."""
        assert self.up
        if not self.disk.failed:
            self.disk.sync()
            self._release()
        self.crash("stopped")

    def restart(self) -> None:
        """A new boot."""
        assert not self.up
        self._around.trace.note("restart", self.name)
        self._start()

    def pause(self) -> None:
        """Stand still: frames and commits pile up (SIGSTOP)."""
        assert self.up
        self._around.trace.note("pause", self.name)
        self.paused = True

    def resume(self) -> None:
        """Go on, with whatever has piled up."""
        assert self.paused
        self._around.trace.note("resume", self.name)
        self.paused = False
        self._turn_at = 0
        self._wake()

    @property
    def idle(self) -> bool:
        """Whether nothing is to be done until something comes from outside."""
        if not self.up:
            return True
        busy = self._inbox or self._waiting or self._to_self or self._lost
        return not (busy or self.node.timed) and self.disk.settled

    # ---- turns -----------------------------------------------------------------------------

    def arrive(self, sender: Address, frame: bytes | bytearray) -> None:
        """A frame waits at the socket."""
        self._inbox.append((sender, frame))
        self._wake()

    def _wake(self) -> None:
        """Something is ready: have a turn soon, unless there is one already."""
        soonest = self._timeline.now + WAKES_WITHIN
        if self.up and not self.paused and not 0 < self._turn_at <= soonest:
            self._turn_in(int(self._rng.random() * (WAKES_WITHIN + 1)))

    def _turn_in(self, wait: Tenths) -> None:
        self._turn_at = self._timeline.now + wait
        self._timeline.at(self._turn_at, self._due, self.boot, self._turn_at)

    def _due(self, boot: int, at: Tenths) -> None:
        if boot == self.boot and at == self._turn_at and self.up and not self.paused:
            self._turn()

    def _turn(self) -> None:
        node, disk, now = self.node, self.disk, self._timeline.now
        node.begin(millis(now), self.clock.wall(now))
        if disk.failed or node.halt:
            # The real loop raises StoreFailed here and the process ends: a new boot, by an operator.
            return self.crash(node.halt or "its disk failed")
        node.committed(disk.durable)
        if self._waiting or self._lost:
            self._release()
        own, self._to_self = self._to_self, []
        for message in own:
            node.receive(self.name, message)
        if self._inbox:
            for sender, messages in self._received():
                for message in messages:
                    self._debts.take_on(sender, message, now)
                    node.receive(sender, message)
        turn = node.end()
        if node.ring.epoch > self._epoch:
            self._epoch = node.ring.epoch
            self._around.on_ring(node.ring)
        node.check_invariants()
        self._debts.pay(turn.sends)
        self._debts.pay(turn.acks)
        self._debts.check(now)
        lost = self._send(turn.control) if turn.control else []
        if turn.sends:
            lost += self._send(turn.sends)
        if turn.writes or turn.aside is not None:
            disk.submit(turn.number, turn.writes, turn.aside)
            self._submitted = turn.number
        if turn.acks:
            self._waiting.append((self._submitted, turn.acks))
            self._release()
        if lost:
            self._lost += lost
        self._turn_in(self._patience())
        return None

    def _release(self) -> None:
        """Send the acks whose commit has returned, and tell the node of peers that were lost."""
        while self._waiting and self._waiting[0][0] <= self.disk.durable:
            self._lost += self._send(self._waiting.popleft()[1])
        if self._lost:
            lost, self._lost = dict.fromkeys(self._lost), []
            for peer in lost:
                self.node.lost(peer)

    def _patience(self) -> Tenths:
        if self._to_self or self._lost or self._inbox:
            return 1
        wait = min(config.POLL_MS_MAX, self.node.wake_at - millis(self._timeline.now))
        return max(1, tenths(wait))

    # ---- the transport's part --------------------------------------------------------------

    def _received(self) -> list[tuple[Address, list[Message]]]:
        """What has arrived, up to a bound, control messages first."""
        control: list[tuple[Address, list[Message]]] = []
        data: list[tuple[Address, list[Message]]] = []
        for _ in range(min(len(self._inbox), config.TURN_FRAMES_MAX)):
            sender, frame = self._inbox.popleft()
            read = self._reader.read(bytes(frame))
            if read is None:
                assert self._around.network.spoilt, "a frame was damaged, and not on purpose"
                continue
            greeting, messages = read
            if greeting.role == NODE:
                assert greeting.cluster_id == self._around.ring.cluster_id
            if self._around.trace.reads_along:
                self._around.trace.line(f"{sender!r} > {self.name}: {messages}")
            (control if type(messages[0]) in CONTROL else data).append((sender, messages))
        return control + data

    def _send(self, sends: Sends) -> list[NodeId]:
        """Hand over batches; what this node says to itself waits for the next turn. Who was lost."""
        lost: list[NodeId] = []
        network = self._around.network
        for to, messages in sends.items():
            if to == self.name:
                self._to_self += messages
                continue
            frames = encode_batches(self._greeting, messages)
            once = not REQUESTS.isdisjoint(map(type, messages))
            handed = network.send(self.name, to, frames, once=once)
            if not handed and isinstance(to, str):
                lost.append(NodeId(to))
        return lost

    def _vitals(self) -> NodeReport:
        """What a shell would know of its process."""
        return NodeReport(
            id=NodeId(""), epoch=0, boot=0, pid=1, uptime_ms=0, wall_ms=0, keys=len(self.disk.keys),
            value_bytes=0, disk_bytes=0, durability="fsync", engine="sim", writable=True, problem="",
            p50_ms=None, p99_ms=None, avoided=(), rss_bytes=0, disk_free_bytes=0, version="sim", counters={},
        )  # fmt: skip
