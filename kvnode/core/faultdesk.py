"""Where orders to break this node arrive: the shell obeys them, if it was started to.

Promises: a node that was not started with `--allow-faults` refuses, and says how to allow it; what is told
as in force is so from the next turn on, before anything that follows the answer.
Never: breaks anything itself.
Input: SetFault, HealFault, ListFaults.
"""

from __future__ import annotations

from typing import Protocol

from kvnode import config
from kvnode.core.local import Local
from kvnode.protocol.faults import (
    Fault,
    FaultList,
    FaultOrder,
    HealFault,
    ListFaults,
    SetFault,
    problem_of,
    time_problem,
)
from kvnode.protocol.messages import Error, Failed
from kvnode.protocol.types import Address, Millis, WallMillis

UNWANTED = "this node was not started with --allow-faults"


class Breakable(Protocol):
    """The shell's side: what stands between this node and its network, disk and clock."""

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Those in force."""
        ...

    def begin(self, fault: Fault, for_ms: int, now: Millis, wall: WallMillis) -> Fault:
        """Put this fault in force, in place of one of the same id. As it is now told."""
        ...

    def end(self, fault: Fault, now: Millis) -> None:
        """Undo it."""
        ...


class FaultDesk:
    """Takes fault orders of clients."""

    def __init__(self, local: Local) -> None:
        self._local = local
        self.breakable: Breakable | None = None
        """Set by a shell that allows faults."""

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Those in force here."""
        return self.breakable.faults if self.breakable is not None else ()

    def on_order(self, client: Address, order: FaultOrder) -> None:
        """Obey, or say why not."""
        local, breakable = self._local, self.breakable
        match order:
            case ListFaults(rid=rid):
                local.outbox.send(client, FaultList(rid, self.faults))
            case _ if breakable is None:
                self._refuse(client, order, Error.REFUSED, UNWANTED, "kvnode run --allow-faults, or kvctl up")
            case SetFault():
                self._set(client, order, breakable)
            case HealFault(rid=rid, id=wanted):
                healed = tuple(f for f in breakable.faults if wanted in ("", f.id))
                for fault in healed:
                    breakable.end(fault, local.now)
                    local.event("fault", f"{fault.id} {fault.kind} is healed")
                local.outbox.send(client, FaultList(rid, healed))

    def _set(self, client: Address, order: SetFault, breakable: Breakable) -> None:
        local, fault = self._local, order.fault
        if order.deadline and local.steady > order.deadline:
            text = "its deadline has passed, by this node's clock"
            return self._refuse(client, order, Error.REFUSED, text, "kvctl fault ls")
        problem = problem_of(fault, local.routes.members) or time_problem(order.for_ms)
        if not problem and not fault.concerns(local.me):
            problem = f"{local.me} has no part in this fault"
        if not problem and len(breakable.faults) >= config.FAULTS_MAX:
            problem = f"{config.FAULTS_MAX} faults are in force here already"
        if problem:
            return self._refuse(client, order, Error.INVALID, problem, "kvctl fault ls")
        fault = breakable.begin(fault, order.for_ms, local.now, local.wall)
        local.event("fault", f"{fault.id} {fault.kind} is in force for {order.for_ms / 1000:g} s")
        return local.outbox.send(client, FaultList(order.rid, (fault,)))

    def _refuse(self, client: Address, order: FaultOrder, error: Error, why: str, hint: str) -> None:
        self._local.outbox.send(client, Failed(order.rid, self._local.routes.epoch, error, why, hint))
