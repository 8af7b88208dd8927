"""Joining: how a node with an empty directory learns of the cluster it is to stand outside of.

Promises: every reason why it cannot be is one clear sentence. Never: serves, votes or owns anything; it asks one
question as a client does, and keeps the ring it is told.
"""

from __future__ import annotations

import time

import zmq

from kvnode import config
from kvnode.protocol.codec import CLIENT, PROTOCOL_VERSION, Greeting, Reader, encode_batches, encode_greeting
from kvnode.protocol.messages import Hello, Welcome
from kvnode.protocol.ring import Ring

WAIT_S = 15.0
"""Seeds that have not answered after so long are not there, or not what they should be."""
ASK_MS = 500


class CannotJoin(Exception):
    """Why this node cannot stand outside that cluster."""


def ask_for_ring(seeds: tuple[str, ...], wait_s: float = WAIT_S) -> Ring:
    """The latest ring that any of these nodes tells of. Raises `CannotJoin`."""
    context = zmq.Context()
    prefix = encode_greeting(Greeting(PROTOCOL_VERSION, 0, CLIENT, "", 0))
    poller, dealers = zmq.Poller(), []
    try:
        for seed in seeds:
            dealer = context.socket(zmq.DEALER)
            dealer.setsockopt(zmq.LINGER, 0)
            dealer.setsockopt(zmq.MAXMSGSIZE, config.FRAME_BYTES_MAX)
            dealer.connect(f"tcp://{seed}")
            poller.register(dealer, zmq.POLLIN)
            dealers.append(dealer)
        deadline = time.monotonic() + wait_s
        reader, other = Reader(), False
        while time.monotonic() < deadline:
            for dealer in dealers:
                for frame in encode_batches(prefix, [Hello(1)]):
                    if dealer.poll(0, zmq.POLLOUT):
                        dealer.send(frame)
            for dealer, _ in poller.poll(ASK_MS):
                read = reader.read(dealer.recv())
                other = other or (read is not None and read.greeting.version != PROTOCOL_VERSION)
                for message in read.messages if read is not None else ():
                    if isinstance(message, Welcome):
                        return message.ring
        text = "speaks another version of the protocol" if other else "no node of a cluster answers there"
        raise CannotJoin(f"cannot join by way of {', '.join(seeds)}: {text}. Is the address right, and is it up?")
    finally:
        for dealer in dealers:
            dealer.close(0)
        context.term()


def may_stand_outside(ring: Ring, name: str, address: str, cluster: str) -> None:
    """Whether a node of this name and address can be outside this cluster, or is a member whose disk is new.

    `cluster`: its name, if one was given. Raises `CannotJoin`.
    """
    if cluster and ring.cluster != cluster:
        raise CannotJoin(f"the nodes named by --join are of cluster {ring.cluster!r}, not {cluster!r}")
    if any(former.id == name for former in ring.removed):
        raise CannotJoin(
            f"{name} was removed from cluster {ring.cluster}, and a removed name never returns: choose another"
        )
    for member in ring.members:
        if member.id == name and member.address != address:
            raise CannotJoin(f"{name} is a member already, at {member.address}: give this node another name")
        if member.id != name and member.address == address:
            raise CannotJoin(f"{member.id} has the address {address} already: listen on another one")
