"""The transport: batches of messages over ZeroMQ, one frame a peer a turn.

Promises: never blocks; what cannot be handed over is counted and reported as lost; a malformed,
foreign or oversized frame is dropped and counted.
Never: takes a frame of another cluster; which names are members is for the node to say.

    ROUTER  one, bound: hears everyone, answers clients
    DEALER  two to each peer (data, control): what this node says to it. They set no routing id: a
            restarted peer that reused one would be ignored while its old connection half-lives.

Every message is one frame (`protocol.codec`). `IMMEDIATE` makes a peer that is not
connected refuse at once instead of queueing into the void.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any

import zmq
import zmq.backend

from kvnode import config
from kvnode.core.outbox import Sends
from kvnode.protocol.codec import (
    CLIENT,
    NODE,
    PROTOCOL_VERSION,
    Greeting,
    Reader,
    encode_batches,
    encode_greeting,
)
from kvnode.protocol.messages import CONTROL, Message, Put
from kvnode.protocol.ring import Member, Ring
from kvnode.protocol.types import Address, NodeId

# The hot path calls pyzmq's backend with plain numbers: its sugar (enums, defaults, an exception to
# say that nothing is there) costs one to four microseconds a call.
_recv: Callable[..., bytes] = zmq.backend.Socket.recv
_send: Callable[..., object] = zmq.backend.Socket.send
_get: Callable[..., Any] = zmq.backend.Socket.get
NOBLOCK = int(zmq.NOBLOCK)
SNDMORE = int(zmq.NOBLOCK | zmq.SNDMORE)
EVENTS, RCVMORE, POLLIN = int(zmq.EVENTS), int(zmq.RCVMORE), int(zmq.POLLIN)

Received = tuple[Address, list[Message]]


class Transport:
    """This node's sockets."""

    def __init__(self, me: NodeId, boot: int, listen: str) -> None:
        self._me = me
        self._boot = boot
        self._context = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._tune(self._router)
        self._router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._data: dict[NodeId, zmq.Socket[bytes]] = {}
        self._control: dict[NodeId, zmq.Socket[bytes]] = {}
        self._addresses: dict[NodeId, str] = {}
        self._former: dict[NodeId, str] = {}
        self._cluster_id = 0
        self._greeting = b""
        self._reader = Reader()
        self._kept: dict[NodeId, deque[tuple[float, zmq.Socket[bytes], bytearray]]] = {}
        self.counters: Counter[str] = Counter()
        try:
            self._router.bind(f"tcp://{listen}")
        except zmq.ZMQError:
            self.close()
            raise

    @property
    def router(self) -> zmq.Socket[bytes]:
        """The socket to poll."""
        return self._router

    def join_ring(self, ring: Ring, outside: tuple[Member, ...] = ()) -> None:
        """Speak for this ring's cluster, to its members and to those known outside.

        Former members are spoken to when they ask, and until the ring is another one.
        """
        self._cluster_id = ring.cluster_id
        self._greeting = encode_greeting(Greeting(PROTOCOL_VERSION, ring.cluster_id, NODE, self._me, self._boot))
        wanted = {m.id: m.address for m in (*outside, *ring.members) if m.id != self._me}
        self._former = {m.id: m.address for m in ring.removed if m.id not in wanted and m.id != self._me}
        for peer in [p for p in self._addresses if wanted.get(p) != self._addresses[p]]:
            self._data.pop(peer).close(0)
            self._control.pop(peer).close(0)
            del self._addresses[peer]
        for peer, address in wanted.items():
            if peer not in self._addresses:
                self._reach(peer, address)

    def _reach(self, peer: NodeId, address: str) -> None:
        self._addresses[peer] = address
        self._data[peer] = self._dial(address)
        self._control[peer] = self._dial(address)

    def _dial(self, address: str) -> zmq.Socket[bytes]:
        dealer = self._context.socket(zmq.DEALER)
        self._tune(dealer)
        dealer.setsockopt(zmq.IMMEDIATE, 1)
        dealer.setsockopt(zmq.RECONNECT_IVL, config.REDIAL_MS)
        dealer.setsockopt(zmq.RECONNECT_IVL_MAX, config.REDIAL_MS_MAX)
        dealer.connect(f"tcp://{address}")
        return dealer

    def _tune(self, socket: zmq.Socket[bytes]) -> None:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDHWM, config.SEND_HWM)
        socket.setsockopt(zmq.RCVHWM, config.SEND_HWM)
        socket.setsockopt(zmq.MAXMSGSIZE, config.FRAME_BYTES_MAX)
        socket.setsockopt(zmq.HANDSHAKE_IVL, 5_000)
        socket.setsockopt(zmq.HEARTBEAT_IVL, config.HEARTBEAT_MS)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 3 * config.HEARTBEAT_MS)
        socket.setsockopt(zmq.HEARTBEAT_TTL, 3 * config.HEARTBEAT_MS)

    # ---- hearing ---------------------------------------------------------------------------

    def receive(self) -> list[Received]:
        """What has arrived, up to a bound, control messages first. Call it when the router is ready."""
        data: list[Received] = []
        control: list[Received] = []
        router = self._router
        for turn in range(config.TURN_FRAMES_MAX):
            if turn and not _get(router, EVENTS) & POLLIN:
                break
            try:
                connection = _recv(router, NOBLOCK)
            except zmq.Again:  # called without need
                break
            received = self._accept(connection, _recv(router, NOBLOCK))
            while _get(router, RCVMORE):
                # A message of ours has one frame: whoever sends more is not one of us.
                _recv(router, NOBLOCK)
                received = self._drop("malformed")
            if received is not None:
                messages = received[1]
                first = messages[0] if messages else None
                (control if type(first) in CONTROL else data).append(received)
        return control + data if control else data

    def _accept(self, connection: bytes, frame: bytes) -> Received | None:
        """A frame's sender and messages, or None for one that is dropped."""
        read = self._reader.read(frame)
        if read is None:
            return self._drop("malformed")
        greeting, messages = read
        if greeting.version != PROTOCOL_VERSION:
            return self._drop("other_version")
        if greeting.role == NODE:
            if greeting.cluster_id != self._cluster_id:
                return self._drop("foreign")
            peer = NodeId(greeting.name)
            if peer in self._former and peer not in self._addresses:
                self._reach(peer, self._former[peer])
            return peer, messages
        if greeting.role != CLIENT or greeting.cluster_id not in (0, self._cluster_id):
            return self._drop("foreign")
        return connection, messages

    def _drop(self, why: str) -> Received | None:
        self.counters["dropped_" + why] += 1
        return None

    # ---- speaking --------------------------------------------------------------------------

    def tell(self, control: Sends) -> list[NodeId]:
        """Hand over control messages: at once or never. Returns the peers that could not take theirs."""
        lost: list[NodeId] = []
        for to, messages in control.items():
            if not isinstance(to, str):
                self._send_client(to, messages)
                continue
            dealer = self._control.get(NodeId(to))
            try:
                for frame in encode_batches(self._greeting, messages) if dealer is not None else ():
                    _send(dealer, frame, NOBLOCK)
            except zmq.ZMQError:
                lost.append(NodeId(to))
        return lost

    def send(self, sends: Iterable[tuple[Address, list[Message]]]) -> list[NodeId]:
        """Hand over batches. Returns the peers that could not take theirs."""
        lost: list[NodeId] = []
        for to, messages in sends:
            if isinstance(to, str):
                if not self._send_peer(NodeId(to), messages):
                    lost.append(NodeId(to))
            else:
                self._send_client(to, messages)
        return lost

    def send_damaged(
        self, peer: NodeId, messages: list[Message], damage: Callable[[bytearray, int], bytes]
    ) -> None:
        """For fault injection: what `damage` makes of a batch's frames, the second argument being its start."""
        dealer = self._data.get(peer)
        for frame in encode_batches(self._greeting, messages) if dealer is not None else ():
            try:
                _send(dealer, damage(frame, len(self._greeting)), NOBLOCK)
            except zmq.ZMQError:
                self.counters["lost"] += len(messages)

    def _send_peer(self, peer: NodeId, messages: list[Message]) -> bool:
        """Hand a batch to a peer. False when its connection is down: the batch is then kept a moment."""
        dealer = self._data.get(peer)
        if dealer is None:
            self.counters["lost"] += len(messages)
            return False
        if peer in self._kept and not self.retry():
            return self._keep_all(peer, dealer, messages)
        for frame in encode_batches(self._greeting, messages):
            try:
                _send(dealer, frame, NOBLOCK)
            except zmq.ZMQError:
                return self._keep_all(peer, dealer, messages)
        return True

    def _keep_all(self, peer: NodeId, dealer: zmq.Socket[bytes], messages: list[Message]) -> bool:
        """Keep a batch a moment, but no put of a client's: that counts as lost, is asked of another owner, and
        must not be done here after that."""
        kept = [message for message in messages if type(message) is not Put]
        for frame in encode_batches(self._greeting, kept) if kept else ():
            self._keep(peer, dealer, frame)
        return False

    def _keep(self, peer: NodeId, dealer: zmq.Socket[bytes], frame: bytearray) -> None:
        kept = self._kept.setdefault(peer, deque())
        if len(kept) >= config.KEPT_FRAMES_MAX:
            kept.popleft()
            self.counters["lost"] += 1
        kept.append((time.monotonic() + config.KEPT_MS / 1000, dealer, frame))

    @property
    def keeping(self) -> bool:
        """Whether frames wait for a connection to come up: call `retry` soon."""
        return bool(self._kept)

    def retry(self) -> bool:
        """Send what was kept for peers whose connection has come up. True when nothing is left.

        A restarted peer asks before our connection back to it is up; without this its first
        requests would lose their answers and hang until their deadline.
        """
        now = time.monotonic()
        for peer, kept in list(self._kept.items()):
            while kept:
                expires, dealer, frame = kept[0]
                if expires <= now or dealer.closed:
                    self.counters["lost"] += 1
                else:
                    try:
                        _send(dealer, frame, NOBLOCK)
                    except zmq.ZMQError:
                        break
                kept.popleft()
            if not kept:
                del self._kept[peer]
        return not self._kept

    def _send_client(self, client: bytes, messages: list[Message]) -> None:
        for frame in encode_batches(self._greeting, messages):
            try:
                _send(self._router, client, SNDMORE)
                _send(self._router, frame, NOBLOCK)
            except zmq.ZMQError:
                self.counters["clients_gone"] += 1
                return

    def close(self) -> None:
        """Close every socket; nothing lingers."""
        for socket in (*self._data.values(), *self._control.values(), self._router):
            socket.close(0)
        self._context.term()
