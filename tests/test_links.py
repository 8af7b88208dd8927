"""The client's sockets: what broke, and whether anything can have arrived there."""

from __future__ import annotations

import pytest
import zmq

from kvctl.links import DIAL_S, Links
from kvnode.protocol.messages import Hello, Message, Put
from kvnode.protocol.types import EVENTUAL
from tests.conftest import eventually
from tests.procs import free_ports


def test_what_never_came_up_took_nothing() -> None:
    """So a request that waited for it was certainly not applied."""
    links = Links()
    address = f"127.0.0.1:{free_ports(1)[0]}"
    try:
        assert links.send({address: [Hello(1)]}, 0.0) == {}
        assert links.look(DIAL_S / 2) == ([], {})
        assert links.look(DIAL_S * 2) == ([], {address: False})
        assert not links.dialling
    finally:
        links.close()


def test_what_broke_after_something_was_sent_may_have_taken_it() -> None:
    """Handed over is all that is known: the node may have read it."""
    links = Links()
    router: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.ROUTER)
    address = f"127.0.0.1:{router.bind_to_random_port('tcp://127.0.0.1')}"
    gone: dict[str, bool] = {}

    def broke() -> bool:
        gone.update(links.look(0.0)[1])
        return bool(gone)

    try:
        links.send({address: [Hello(1)]}, 0.0)
        assert eventually(lambda: links.look(0.0) == ([], {}) and not links.dialling)
        router.close(0)
        assert eventually(broke)
        assert gone == {address: True}
    finally:
        router.close(0)
        links.close()


@pytest.mark.parametrize(("frames_that_leave", "untouched"), [(0, True), (1, False)])
def test_a_batch_that_has_left_in_part_may_have_been_taken(
    monkeypatch: pytest.MonkeyPatch, frames_that_leave: int, untouched: bool
) -> None:
    """The first frame of two leaves, then the connection takes no more: its puts may be applied."""
    left = 1  # the greeting's

    def send(*_: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise zmq.Again

    monkeypatch.setattr("kvctl.links._send", send)
    links = Links()
    address = f"127.0.0.1:{free_ports(1)[0]}"
    puts: list[Message] = [Put(i, b"k", bytes(900_000), 0, EVENTUAL, 1_000) for i in range(6)]
    try:
        links.send({address: [Hello(1)]}, 0.0)
        left = frames_that_leave
        assert links.send({address: puts}, DIAL_S * 2) == {address: untouched}
    finally:
        links.close()


@pytest.mark.timeout(10)
def test_an_interrupt_while_a_socket_is_made_does_not_hang_the_close() -> None:
    """Ctrl-C struck between the making of a socket and the context's note of it: 4 of 150 runs hung so."""
    links = Links()
    half_made: zmq.Socket[bytes] = zmq.Socket(links._context, zmq.DEALER)

    with pytest.raises(KeyboardInterrupt):
        try:
            raise KeyboardInterrupt
        finally:
            links.close()

    half_made.close(0)
