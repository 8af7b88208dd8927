"""The client's sockets: one DEALER a node, dialled when first needed, watched for breaking.

Promises: a broken connection is noticed when the kernel does, not when a deadline passes; a frame
that is malformed or of another cluster is dropped. Never: blocks.
"""

from __future__ import annotations

import secrets
from typing import TypeAlias

import zmq
from zmq.utils.monitor import parse_monitor_message

from kvnode import config
from kvnode.protocol.codec import (
    CLIENT,
    PROTOCOL_VERSION,
    Greeting,
    Reader,
    encode_batches,
    encode_greeting,
)
from kvnode.protocol.messages import Message

DIAL_S = 1.0
"""How long a fresh connection may take before it counts as broken."""
WATCHED = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED


NOBLOCK = int(zmq.NOBLOCK)

Heard: TypeAlias = list[tuple[str, list[Message]]]
"""Addresses, and what each of them said."""


class Link:
    """One connection."""

    __slots__ = ("address", "backlog", "connected", "dialled_at", "monitor", "socket")

    def __init__(self, address: str, socket: zmq.Socket[bytes], now: float) -> None:
        self.address = address
        self.socket = socket
        self.monitor: zmq.Socket[bytes] = socket.get_monitor_socket(WATCHED)
        self.dialled_at = now
        self.connected = False
        self.backlog: list[bytearray] = []

    def close(self) -> None:
        """Close both sockets."""
        self.socket.disable_monitor()
        self.socket.close(0)


class Links:
    """All connections of one client."""

    def __init__(self) -> None:
        self._context = zmq.Context()
        self._links: dict[str, Link] = {}
        self._by_socket: dict[zmq.Socket[bytes], Link] = {}
        self.poller = zmq.Poller()
        self._reader = Reader()
        self._greeting = encode_greeting(
            Greeting(PROTOCOL_VERSION, 0, CLIENT, f"client-{secrets.token_hex(4)}", secrets.randbits(32))
        )
        self.other_version: int | None = None
        """The protocol version of a node that speaks another one; None while all speak ours."""

    def sockets(self) -> list[zmq.Socket[bytes]]:
        """Every socket to watch."""
        return [socket for link in self._links.values() for socket in (link.socket, link.monitor)]

    def send(self, out: dict[str, list[Message]], now: float) -> list[str]:
        """Hand over batches; what a fresh connection cannot take yet waits. Returns broken addresses."""
        broken = []
        for address, messages in out.items():
            link = self._links.get(address) or self._dial(address, now)
            link.backlog.extend(encode_batches(self._greeting, messages))
            if not self._push(link) and now - link.dialled_at > DIAL_S:
                link.backlog.clear()
                broken.append(address)
        return broken

    def _dial(self, address: str, now: float) -> Link:
        socket = self._context.socket(zmq.DEALER)
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.IMMEDIATE, 1),
            (zmq.SNDHWM, config.SEND_HWM),
            (zmq.RCVHWM, config.SEND_HWM),
            (zmq.MAXMSGSIZE, config.FRAME_BYTES_MAX),
            (zmq.RECONNECT_IVL, config.REDIAL_MS),
            (zmq.RECONNECT_IVL_MAX, config.REDIAL_MS_MAX),
            (zmq.HEARTBEAT_IVL, config.HEARTBEAT_MS),
            (zmq.HEARTBEAT_TIMEOUT, 3 * config.HEARTBEAT_MS),
        ):
            socket.setsockopt(option, value)
        link = Link(address, socket, now)
        socket.connect(f"tcp://{address}")
        self._links[address] = link
        for watched in (link.socket, link.monitor):
            self._by_socket[watched] = link
            self.poller.register(watched, zmq.POLLIN)
        return link

    def _push(self, link: Link) -> bool:
        """Send what waits on a link. False while it is not connected."""
        backlog = link.backlog
        while backlog:
            try:
                link.socket.send(backlog[0], NOBLOCK)
            except zmq.ZMQError:
                return False
            backlog.pop(0)
        return True

    def hear(
        self, ready: list[tuple[zmq.Socket[bytes], int]]
    ) -> tuple[list[tuple[str, list[Message]]], list[str]]:
        """What has arrived on these sockets, and the addresses whose connection broke."""
        heard: Heard = []
        broken: list[str] = []
        for socket, _ in ready:
            link = self._by_socket[socket]
            if socket is link.socket:
                self._drain(link, heard)
            elif self._watch(link):
                self._drain(link, heard)
                link.backlog.clear()
                broken.append(link.address)
        return heard, broken

    def _drain(self, link: Link, heard: Heard) -> None:
        recv = link.socket.recv
        for _ in range(config.TURN_FRAMES_MAX):
            try:
                frame = recv(NOBLOCK)
            except zmq.Again:
                return
            read = self._reader.read(memoryview(frame))
            if read is None:
                continue
            if read.greeting.version != PROTOCOL_VERSION:
                self.other_version = read.greeting.version
            else:
                heard.append((link.address, read.messages))

    def _watch(self, link: Link) -> bool:
        """Read a connection's events. True when it broke."""
        broke = False
        while True:
            try:
                event = parse_monitor_message(link.monitor.recv_multipart(zmq.NOBLOCK))["event"]
            except zmq.Again:
                return broke
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                link.connected = True
                broke = False
                self._push(link)
            elif link.connected:
                link.connected = False
                broke = True

    def overdue(self, now: float) -> list[str]:
        """Addresses that have not come up in the time for it."""
        late = [k for k in self._links.values() if k.backlog and not k.connected and now - k.dialled_at > DIAL_S]
        for link in late:
            link.backlog.clear()
        return [link.address for link in late]

    def close(self) -> None:
        """Close everything; nothing lingers."""
        for link in self._links.values():
            link.close()
        self._links.clear()
        self._context.destroy(0)
