"""The striker: does the faults of a case to a real cluster, each at its time, and ends them.

Promises: only what a node or a process was seen to obey is counted; a fault inside a node that restarts or
wakes is set again for what is left of it; `mend` undoes all. A node that ends and should not is noticed.
Never: waits for a node: it is asked, and asked again.

    process   kill, stop, wipe, pause    a signal; in the end the node is started, or goes on
    inside    all others                 SetFault to each node it concerns, until one acknowledges it or it is over
"""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from kvctl import session as wire
from kvctl.errors import KvError
from kvctl.nodefaults import heal, in_force
from kvctl.scenarios.live import LiveGround
from kvctl.scenarios.machines import Machines
from kvnode.protocol.faults import FaultList, HealFault, SetFault
from kvnode.protocol.messages import ClientRequest, Hello, Welcome
from kvnode.protocol.types import NodeId
from kvnode.sim.case import BAD_DISKS, INSIDE, PROCESS, Fault
from kvnode.sim.clock import START, tenths

ANSWERS_S = 0.5
"""How long a node may take to answer an order before it is given again."""
AGAIN_MS = 50
WATCH_MS = 200
"""How often the processes are looked at."""
ON_PURPOSE = "injected fault"
"""What a node's last words say when a fault inside it ended it."""


class Striker:
    """The faults of one run."""

    def __init__(self, ground: LiveGround, machines: Machines, faults: Sequence[Fault]) -> None:
        self._ground = ground
        self._machines = machines
        self._timeline = ground.timeline
        self._session = ground.client.pump.session
        self._over = False
        self._active: dict[int, Fault] = {}
        self._set_on: dict[int, set[str]] = {}
        """Of each fault inside nodes, those that have it."""
        self._mark = f"s{secrets.randbits(32):08x}"
        self.counts: Counter[str] = Counter()
        """How often each kind was done."""
        self.ended: dict[str, str] = {}
        """Nodes that ended by themselves, and what they said last."""
        for place, fault in enumerate(faults):
            self._timeline.at(START + tenths(fault.at_ms), self._begin, place, fault)
        self._watch()

    # ---- faults ----------------------------------------------------------------------------

    def _begin(self, place: int, fault: Fault) -> None:
        if self._over:
            return
        self._active[place] = fault
        if fault.kind in PROCESS:
            if not self._strike(fault):
                del self._active[place]
                return
            self.counts[fault.kind] += 1
        else:
            self._set_on[place] = set()
            order = fault.as_order(self._id(place))
            for name in self._ground.names:
                if order.concerns(NodeId(name)):
                    self._set(place, name)
        self._timeline.after(tenths(fault.lasts_ms), self._end, place)

    def _strike(self, fault: Fault) -> bool:
        struck = False
        for name in fault.nodes:
            done = self._machines.strike(name, fault.kind, fault.lasts_ms / 1000)
            if done or fault.kind == "wipe":
                self._ground.serving.discard(name)
            struck |= done
        return struck

    def _end(self, place: int) -> None:
        if self._over:
            return
        fault = self._active.pop(place)
        if fault.kind in (*PROCESS, *BAD_DISKS):
            for name in fault.nodes:
                self._rise(name)

    def _rise(self, name: str) -> None:
        """Have a node run, unless a fault keeps it from it."""
        if any(name in fault.nodes and fault.kind in PROCESS for fault in self._active.values()):
            return
        if self._machines.rise(name):
            self._greet(name)
        else:
            self._timeline.after(tenths(AGAIN_MS), self._rise, name)

    # ---- orders to nodes -------------------------------------------------------------------

    def _id(self, place: int) -> str:
        return f"{self._mark}-{place}"

    def _left_ms(self, place: int) -> int:
        fault = self._active.get(place)
        if fault is None:
            return 0
        return (START + tenths(fault.at_ms + fault.lasts_ms) - self._ground.now()) // 10

    def _set(self, place: int, name: str) -> None:
        """Tell a node of a fault, again and again until it acknowledges it or it is over."""
        left_ms, address = self._left_ms(place), self._ground.addresses[name]
        if left_ms <= 0 or name in self._set_on[place]:
            return None
        if name in self._ground.serving and self._session.knows_time(address):
            order = self._active[place].as_order(self._id(place))
            ask = SetFault(self._session.next_rid(), order, left_ms)
            return self._order(name, ask, partial(self._was_set, place, name))
        if name in self._ground.serving:
            self._session.ask_time(address)
        return self._timeline.after(tenths(AGAIN_MS), self._set, place, name)

    def _was_set(self, place: int, name: str, call: wire.Call) -> None:
        if isinstance(call.outcome, FaultList):
            self._obeyed(place, name)
        else:
            self._timeline.after(tenths(AGAIN_MS), self._set, place, name)

    def _obeyed(self, place: int, name: str) -> None:
        fault = self._active.get(place)
        if fault is not None:
            was = self._works(place, fault)
            self._set_on[place].add(name)
            self.counts[fault.kind] += self._works(place, fault) and not was

    def _works(self, place: int, fault: Fault) -> bool:
        return in_force(fault.as_order("x"), self._set_on[place])

    def _greet(self, name: str) -> None:
        """Ask a node that was started whether it serves; then it has its faults again."""
        self._order(name, Hello(self._session.next_rid()), partial(self._greeted, name))

    def _greeted(self, name: str, call: wire.Call) -> None:
        if not isinstance(call.outcome, Welcome):
            if self._machines.running(name):
                self._timeline.after(tenths(AGAIN_MS), self._greet, name)
            elif self._on_purpose(name):
                # It was still ending, of a full disk perhaps, when it was to be started.
                self._timeline.after(tenths(AGAIN_MS), self._rise, name)
            return
        self._ground.serving.add(name)
        for place, fault in self._active.items():
            if fault.kind in INSIDE and fault.as_order("x").concerns(NodeId(name)):
                self._set_on[place].discard(name)
                self._set(place, name)

    def _order(self, name: str, ask: ClientRequest, told: object) -> None:
        deadline = time.monotonic() + ANSWERS_S
        call = wire.Call(ask, deadline, self._ground.addresses[name], notify=told)  # type: ignore[arg-type]
        self._session.start(call)

    # ---- the processes ---------------------------------------------------------------------

    def _watch(self) -> None:
        """Notice nodes that have ended."""
        for name in list(self._ground.serving):
            if not self._machines.running(name):
                self._ground.serving.discard(name)
                self._on_purpose(name)
        if not self._over:
            self._timeline.after(tenths(WATCH_MS), self._watch)

    def _on_purpose(self, name: str) -> bool:
        """Whether a fault ended a node that has ended; else it is noted."""
        words = self._machines.cluster.last_words(name)
        held = any(name in fault.nodes and fault.kind in PROCESS for fault in self._active.values())
        if ON_PURPOSE in words:
            # It may have ended before its answer had left.
            for place, fault in self._active.items():
                if fault.kind in BAD_DISKS and name in fault.nodes:
                    self._obeyed(place, name)
        if held or ON_PURPOSE in words:
            return True
        self.ended[name] = words
        return False

    # ---- the end of it ---------------------------------------------------------------------

    def mend(self, within_s: float) -> str:
        """Undo all; wait until every node serves. Why not, as a sentence; empty when they do."""
        self._over = True
        for place in self._inside():
            for name in self._ground.serving:
                self._order(name, HealFault(self._session.next_rid(), self._id(place)), _ignore)
        self._active.clear()
        for name in self._ground.names:
            self._ground.serving.discard(name)
            self._rise(name)
        if self._ground.run_until(lambda: len(self._ground.serving) == len(self._ground.names), within_s):
            return ""
        silent = [name for name in self._ground.names if name not in self._ground.serving]
        words = "; ".join(self._machines.cluster.last_words(name) for name in silent)
        return f"{', '.join(silent)} did not serve within {within_s:g} s: {words}"

    def abandon(self) -> None:
        """Undo what can be undone at once: the run was broken off."""
        self._over = True
        self._machines.mend()
        with suppress(KvError):
            for place in self._inside():
                heal(self._ground.client, self._id(place), ANSWERS_S)

    def _inside(self) -> list[int]:
        return [place for place, fault in self._active.items() if fault.kind in INSIDE]


def _ignore(_: wire.Call) -> None:
    """Whether it was healed shows: nodes end their faults by themselves."""
