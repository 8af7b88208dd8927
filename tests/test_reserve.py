"""Ports that are kept for those who are to listen on them."""

from __future__ import annotations

import socket
import struct

import pytest
import zmq

from kvctl.reserve import HOST, Reservation

IP_LOCAL_PORT_RANGE = 51
"""Of Linux 6.3 and later: the ports that one socket may connect from."""


def test_nobody_else_is_given_a_reserved_port() -> None:
    """Neither by asking for it, nor by chance."""
    with Reservation(8) as first, Reservation(8) as second:
        assert len({*first.ports, *second.ports}) == 16
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind((HOST, first.ports[3]))


def test_a_node_listens_on_a_reserved_port_and_again_after_its_end() -> None:
    """As ZeroMQ does, and as anyone who sets the same option, once the one before has ended."""
    with Reservation(1) as reserved:
        port = reserved.ports[0]
        for _ in range(2):
            with socket.socket() as node:
                node.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                node.bind((HOST, port))
                node.listen()
                with socket.create_connection((HOST, port), 5) as client:
                    there, _ = node.accept()
                    with there:
                        client.sendall(b"here")
                        assert there.recv(4) == b"here"
        with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
            router.bind(f"tcp://{HOST}:{port}")


def test_no_connection_comes_from_a_reserved_port() -> None:
    """Else a node could not listen where another one, that started first, knocks from."""
    with socket.socket() as server, Reservation(1) as reserved:
        server.bind((HOST, 0))
        server.listen()
        port = reserved.ports[0]
        for expected in (False, True):
            with socket.socket() as client:
                try:
                    client.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, struct.pack("I", port << 16 | port))
                except OSError:
                    pytest.skip("this kernel cannot narrow the ports of one socket")
                assert (client.connect_ex(server.getsockname()) == 0) is expected
            reserved.close()


def test_ports_in_a_row_follow_one_another() -> None:
    """As `kvctl up --base-port` wants them."""
    with Reservation(12, in_a_row=True) as reserved:
        first = reserved.ports[0]
        assert reserved.ports == list(range(first, first + 12))
