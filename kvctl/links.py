"""The client's sockets: one DEALER a node, dialled when first needed, watched for breaking.

Promises: a broken connection is noticed when the kernel does, not when a deadline passes; a frame
that is malformed or of another cluster is dropped. Never: blocks.
"""

from __future__ import annotations

import secrets
import struct
import sys
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import zmq
import zmq.backend

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
MONITOR_EVENT = struct.Struct("=hi")
"""A monitor's message: event and value (zmq_socket_monitor(3)). pyzmq's own reader of it imports asyncio."""
WATCHED = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED


# pyzmq's backend with plain numbers, for the reason given in `kvnode.shell.transport`.
_recv: Callable[..., bytes] = zmq.backend.Socket.recv
_send: Callable[..., object] = zmq.backend.Socket.send
_get: Callable[..., Any] = zmq.backend.Socket.get
NOBLOCK = int(zmq.NOBLOCK)
EVENTS, RCVMORE, POLLIN = int(zmq.EVENTS), int(zmq.RCVMORE), int(zmq.POLLIN)

Heard: TypeAlias = list[tuple[str, list[Message]]]
"""Addresses, and what each of them said."""


class Link:
    """One connection."""

    __slots__ = ("address", "backlog", "connected", "dialled_at", "monitor", "socket", "used")

    def __init__(self, address: str, socket: zmq.Socket[bytes], now: float) -> None:
        self.address = address
        self.socket = socket
        self.monitor: zmq.Socket[bytes] = socket.get_monitor_socket(WATCHED)
        self.dialled_at = now
        self.connected = False
        self.used = False
        """Whether anything was handed over since it broke last: what was not cannot have arrived."""
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
        return [link.socket for link in self._links.values()]

    def send(self, out: dict[str, list[Message]], now: float) -> dict[str, bool]:
        """Hand over batches; what a fresh connection cannot take yet waits.

        Returns the broken addresses, and for each whether nothing of its batch has left.
        """
        broken = {}
        for address, messages in out.items():
            link = self._links.get(address) or self._dial(address, now)
            frames = list(encode_batches(self._greeting, messages))
            link.backlog.extend(frames)
            if not self._push(link) and now - link.dialled_at > DIAL_S:
                broken[address] = len(link.backlog) >= len(frames)
                link.backlog.clear()
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
        self._by_socket[socket] = link
        self.poller.register(socket, zmq.POLLIN)
        return link

    def _push(self, link: Link) -> bool:
        """Send what waits on a link. False while it is not connected."""
        backlog = link.backlog
        while backlog:
            try:
                _send(link.socket, backlog[0], NOBLOCK)
            except zmq.ZMQError:
                return False
            link.used = True
            backlog.pop(0)
        return True

    def hear(self, ready: Iterable[tuple[zmq.Socket[bytes], int]]) -> Heard:
        """What has arrived on these sockets."""
        heard: Heard = []
        for socket, _ in ready:
            self._drain(self._by_socket[socket], heard)
        return heard

    def look(self, now: float) -> tuple[Heard, dict[str, bool]]:
        """Look after the connections: send what waited for one to come up, find those that broke.

        Returns the last words of the broken ones, and for each address whether anything was sent there.
        """
        heard: Heard = []
        broken: dict[str, bool] = {}
        for link in self._links.values():
            if self._watch(link):
                self._drain(link, heard)
                broken[link.address] = link.used
            elif link.backlog and not self._push(link) and now - link.dialled_at > DIAL_S:
                broken[link.address] = link.used
        for address in broken:
            self._links[address].backlog.clear()
            self._links[address].used = False
        return heard, broken

    @property
    def dialling(self) -> bool:
        """Whether something waits for a connection to come up: `look` soon."""
        return any(link.backlog for link in self._links.values())

    def _drain(self, link: Link, heard: Heard) -> None:
        socket = link.socket
        for _ in range(config.TURN_FRAMES_MAX):
            if not _get(socket, EVENTS) & POLLIN:
                return
            frame = _recv(socket, NOBLOCK)
            while _get(socket, RCVMORE):
                frame = _recv(socket, NOBLOCK)
            read = self._reader.read(frame)
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
                event, _ = MONITOR_EVENT.unpack(link.monitor.recv_multipart(zmq.NOBLOCK)[0])
            except zmq.Again:
                return broke
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                link.connected = True
                broke = False
            elif link.connected:
                link.connected = False
                broke = True

    def close(self) -> None:
        """Close everything; nothing lingers."""
        for link in self._links.values():
            link.close()
        self._links.clear()
        if isinstance(sys.exc_info()[1], KeyboardInterrupt):
            # It may have struck while a socket was being made. Only the traceback holds that one now, and
            # the context would wait for its end for ever; both go when the traceback does.
            return
        self._context.destroy(0)
