"""From an open engine to a serving node, and back.

Promises: the ring is durable before the node serves; a data directory decides alone which cluster
it belongs to. Never: serves another cluster's data.
"""

from __future__ import annotations

import gc
import logging
import random
import secrets
import signal
import sys
from collections.abc import Callable
from typing import NamedTuple

import zmq

from kvnode.config import Settings
from kvnode.core.local import Local
from kvnode.core.node import Node
from kvnode.core.topology import RING, held_ring
from kvnode.protocol.messages import Event
from kvnode.protocol.ring import Member, Ring
from kvnode.protocol.types import NodeId
from kvnode.shell.faulty import Injector
from kvnode.shell.joining import CannotJoin
from kvnode.shell.loop import Loop
from kvnode.shell.store import Engine, StoreFailed
from kvnode.shell.transport import Transport
from kvnode.shell.vitals import ProcessVitals

SWITCH_S = 0.0005
"""How long the loop may keep the interpreter from the engine's threads: a commit that has returned
should not wait Python's usual 5 ms to be noticed."""


class Labels(NamedTuple):
    """What a node that joins says of itself."""

    host: str
    rack: str
    weight: int


class CannotServe(Exception):
    """Why the node will not start."""


def serve(
    me: NodeId,
    address: str,
    founding: Callable[[], Ring],
    engine: Engine,
    settings: Settings,
    log: logging.Logger,
    *,
    allow_faults: bool = False,
    labels: Labels | None = None,
) -> str:
    """Serve until SIGTERM or SIGINT. Returns why the node stopped by itself, or "".

    With `allow_faults` it lets clients break it on purpose, for a time. `founding`: the first ring of an empty
    directory. `labels`: what it would be as a member, if it is outside.
    Raises `CannotServe` when it cannot start.
    """
    ring = settle_ring(me, address, founding, engine, log)
    boot = engine.identity.boot
    try:
        transport = Transport(me, boot, address)
    except zmq.ZMQError as error:
        raise CannotServe(f"cannot listen on {address}: {error.strerror}") from error
    try:
        transport.join_ring(ring)
        rng = random.Random(secrets.randbits(128))
        disk_id = engine.identity.disk_id
        local = Local(me, boot, ring, engine, rng, settings, engine.durability, disk_id)
        vitals = ProcessVitals(engine, transport.counters)
        node = Node(local, vitals)
        if labels is not None:
            node.shaping.outsiders.as_member = Member(
                me, address, labels.host or me, labels.rack, labels.weight, disk_id
            )
        node.shaping.keys = lambda: vitals().keys
        faults = Injector(local, engine, transport, random.Random(secrets.randbits(64)))
        node.fault_desk.breakable = faults if allow_faults else None
        loop = Loop(node, faults, log_event(log))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: loop.stop())
        sys.setswitchinterval(SWITCH_S)
        gc.collect()
        gc.freeze()
        log.info("%s serves %s at epoch %d, boot %d", me, address, ring.epoch, boot, extra={"kind": "start"})
        loop.run()
    finally:
        transport.close()
    if not loop.failure:
        log.info("%s stopped", me, extra={"kind": "stop"})
    return loop.failure


def settle_ring(
    me: NodeId, address: str, founding: Callable[[], Ring], engine: Engine, log: logging.Logger
) -> Ring:
    """The ring this node serves: what its directory says, or in a new one the founding ring."""
    if engine.identity.ring is None:
        try:
            engine.save_ring(founding())
        except StoreFailed as failed:
            raise CannotServe(str(failed)) from failed
        except CannotJoin as problem:
            raise CannotServe(str(problem)) from problem
    else:
        log.info("the data directory decides: the ring in it is used, the flags are not", extra={"kind": "start"})
    assert engine.identity.ring is not None
    ring = held_ring(engine.fact(RING), engine.identity.ring)
    member = ring.member(me)
    if member is not None and member.address != address:
        raise CannotServe(
            f"the ring says {me} is at {member.address}, --listen says {address}: a member does not move. "
            "Listen there, or have an empty node under another name take its place (cluster replace)"
        )
    if member is None and any(former.id == me for former in ring.removed):
        raise CannotServe(
            f"{me} was removed from cluster {ring.cluster}: its data is not served, and its name never returns. "
            "Start with an empty directory and another name"
        )
    return ring


def log_event(log: logging.Logger) -> Callable[[Event], None]:
    """How the loop puts a node's events into its log."""

    def tell(event: Event) -> None:
        log.info("%s", event.text, extra={"kind": event.kind})

    return tell
