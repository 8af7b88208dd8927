"""Ports of loopback that the operating system chose, kept for the nodes that are to listen on them.

Promises: while a reservation lasts, its ports are given to nobody: neither to one who asks for any free port, nor
to a connection as the port it comes from (a node that starts first connects to those that do not listen yet).
Never: keeps a port from a node: ZeroMQ sets SO_REUSEADDR, and so may listen where somebody only holds.
"""

from __future__ import annotations

import socket
from types import TracebackType
from typing import Self

from kvctl.errors import KvError

HOST = "127.0.0.1"
TRIES = 100


class Reservation:
    """So many ports, from now until `close`."""

    def __init__(self, count: int, *, in_a_row: bool = False) -> None:
        """Raises `KvError` where there are no `count` free ports (`in_a_row`: that follow one another)."""
        why: Exception | None = None
        for _ in range(TRIES):
            self._held: list[socket.socket] = []
            try:
                first = self._hold(0)
                for i in range(1, count):
                    self._hold(first + i if in_a_row else 0)
            except (OSError, OverflowError) as error:
                why = error
                self.close()
            else:
                return
        raise KvError(f"no {count} ports {'in a row ' * in_a_row}are free: {why}")

    def _hold(self, port: int) -> int:
        held = socket.socket()
        self._held.append(held)
        held.bind((HOST, port))
        # Only now: bound with it, it would share what somebody else holds.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return _port(held)

    @property
    def ports(self) -> list[int]:
        """All different."""
        return [_port(held) for held in self._held]

    def close(self) -> None:
        """They are anybody's again."""
        for held in self._held:
            held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _port(held: socket.socket) -> int:
    return int(held.getsockname()[1])
