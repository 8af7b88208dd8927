"""A real cluster as the ground of a case: clients on one session, time by one monotonic clock.

Promises: a history in the very form the simulator records; what was asked is dated before it leaves, what
was told after it came, by this process's clock alone. Never: claims to know what a disk held.

    timeline (what is due) ──► Ground.put, get, scan ──► Session ──► nodes
       ▲ real time drives it                               │
       └──────────── call.on_done ◄──── call.result ◄──────┘
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from msgspec.structs import replace

from kvctl import session as wire
from kvctl.client import Client, Pump
from kvctl.errors import KvError
from kvctl.session import Outcome
from kvnode.config import Settings
from kvnode.protocol.messages import Error, Failed, Got, Put, Scanned, Written
from kvnode.protocol.ring import partition_of
from kvnode.protocol.types import NodeId
from kvnode.sim.case import AN_OWNER, Case
from kvnode.sim.client import Ask, Call
from kvnode.sim.clock import START, Tenths
from kvnode.sim.events import Timeline
from kvnode.sim.ground import Ground
from kvnode.sim.history import Dot

LOOK_S = 0.02
"""Longest wait for the network before the timeline is looked at."""


class LiveClients:
    """The clients of a case, all on one session."""

    def __init__(self, pump: Pump, addresses: dict[str, str], now: Callable[[], Tenths], *, routed: bool) -> None:
        """`routed`: the session chooses the node, and tries again by itself; else the case does both."""
        self._pump = pump
        self._addresses = addresses
        self._now = now
        self._routed = routed
        self._number = 0
        self.waiting = 0
        self.calls: list[Call] = []
        """Every operation there was, in the order they began."""

    def next_number(self) -> int:
        """Of an operation, as the history counts them; the session has ids of its own."""
        self._number += 1
        return self._number

    def call(self, client: bytes, node: NodeId, ask: Ask, saw: frozenset[Dot] = frozenset()) -> Call:
        """Say this to a node."""
        call = Call(client, node, ask, self._now(), saw)
        self.calls.append(call)
        self.waiting += 1
        deadline = time.monotonic() + ask.timeout_ms / 1000
        pinned = "" if self._routed else self._addresses[node]
        said = replace(ask, rid=self._pump.session.next_rid())
        self._pump.session.start(wire.Call(said, deadline, pinned, notify=partial(self._told, call)))
        return call

    def _told(self, call: Call, sent: wire.Call) -> None:
        self.waiting -= 1
        first = call.ask
        if isinstance(sent.ask, Put) and isinstance(first, Put) and sent.ask.retry and not first.retry:
            # The session tried again: of the first try, a write of its own, nobody was told anything.
            again = Call(
                call.client, call.node, replace(first, rid=self.next_number(), retry=True), call.invoked, call.saw
            )
            again.on_done = call.on_done
            call = again
            self.calls.append(call)
        call.result = _reply(call.ask.rid, sent.outcome)
        call.replied = self._now()
        if call.on_done is not None:
            call.on_done(call)


def _reply(rid: int, outcome: Outcome | None) -> Got | Written | Scanned | Failed | None:
    """What a client of the simulator would have been told; None where it was told nothing."""
    if isinstance(outcome, KvError):
        maybe = outcome.applied == "maybe"
        error = Error(outcome.exit) if outcome.exit in set(Error) else Error.UNAVAILABLE
        return Failed(rid, 0, error, outcome.message, maybe_applied=maybe)
    assert isinstance(outcome, Got | Written | Scanned)
    return outcome


class LiveGround(Ground):
    """A running cluster."""

    def __init__(self, client: Client, case: Case, prefix: str = "") -> None:
        """`prefix`: how every key begins, where the cluster has others' keys too."""
        ring = client.ring()
        self.client = client
        self.timeline = Timeline()
        self.deadline_ms = Settings().deadline_ms
        self.addresses = {str(member.id): member.address for member in ring.members}
        self.names = tuple(f"n{i + 1}" for i in range(case.nodes))
        self.serving: set[str] = set(self.names)
        """Those that answer, as far as is known here."""
        self._prefix = prefix.encode()
        self._began = time.monotonic()
        routed = case.load.via == AN_OWNER
        self.clients = LiveClients(client.pump, self.addresses, self.now, routed=routed)

    @property
    def asking(self) -> LiveClients:
        """Its clients."""
        return self.clients

    def serves(self, name: str) -> bool:
        """Whether nothing is known against it."""
        return name in self.serving

    def owners(self, key: str | bytes) -> tuple[NodeId, ...]:
        """The owners of a key, the first place first."""
        ring = self.client.ring()
        return ring.owner_ids(partition_of(self.key_of(key), ring.q))

    def key_of(self, key: str | bytes) -> bytes:
        """With the prefix."""
        return self._prefix + super().key_of(key)

    # ---- time ------------------------------------------------------------------------------

    def now(self) -> Tenths:
        """Since the case began, as the timeline counts."""
        return START + int((time.monotonic() - self._began) * 10_000)

    def run_until(self, done: Callable[[], bool], within_s: float) -> bool:
        """Let what is due happen, and hear what is told, until this holds. False if it does not in time."""
        timeline, pump = self.timeline, self.client.pump
        end = time.monotonic() + within_s
        while not done():
            if time.monotonic() > end:
                return False
            now = self.now()
            timeline.run_to(now)
            due = timeline.next_at
            wait_s = LOOK_S if due is None else min(LOOK_S, max(0.0, (due - now) / 10_000))
            pump.turn(wait_s)
        return True

    def wait(self, call: Call) -> Call:
        """Until an operation is over: it has a deadline."""
        self.run_until(call.done, 3_600.0)
        return call
