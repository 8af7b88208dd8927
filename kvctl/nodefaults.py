"""Faults inside nodes: set, listed and healed by asking each node directly.

Promises: a fault is told as active only when every node that matters has acknowledged it; one that could
not be set everywhere is taken back, and ends by its own timer where even that was not possible.
Never: relies on the cluster to pass a word on: it may be the cluster that is cut.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping

from msgspec import Struct

from kvctl.client import EACH_S, Client
from kvctl.errors import Indeterminate, KvError, Unavailable
from kvctl.orders import worst
from kvnode.protocol.faults import PARTITION, Fault, FaultList, HealFault, ListFaults, SetFault
from kvnode.protocol.types import NodeId


class Told(Struct, frozen=True):
    """What nodes say of their faults."""

    faults: Mapping[NodeId, tuple[Fault, ...]]
    """By node, of those that answered."""
    failed: Mapping[NodeId, KvError]
    """Why the others did not."""

    def on(self, fault_id: str) -> list[NodeId]:
        """The nodes that have this fault."""
        return [node for node, faults in self.faults.items() if any(f.id == fault_id for f in faults)]

    def each(self) -> list[Fault]:
        """Every fault once, oldest first."""
        found: dict[str, Fault] = {}
        for faults in self.faults.values():
            for fault in faults:
                found.setdefault(fault.id, fault)
        return sorted(found.values(), key=lambda f: (f.since, f.id))


def new_id() -> str:
    """An id that no other fault has: consoles know nothing of each other, so chance keeps them apart."""
    return f"x{secrets.randbits(32):08x}"


def in_force(fault: Fault, on: Collection[str]) -> bool:
    """Whether it works as it was asked for, when only these nodes have it: either end of a cut will do."""
    if fault.kind == PARTITION:
        return all(a in on or b in on for a in fault.nodes for b in fault.peers)
    return set(fault.nodes) <= set(on)


def gather(client: Client, nodes: Collection[str] | None = None) -> Told:
    """The faults of these nodes (all)."""
    return _sorted(client.ask_each(lambda rid, _: ListFaults(rid), nodes))


def inflict(client: Client, fault: Fault, for_ms: int, timeout: float) -> Told:
    """Set a fault in every node it concerns. Raises what a node said, or that it said nothing."""
    concerned = [member.id for member in client.ring().members if fault.concerns(member.id)]
    dated = client.dated(concerned, min(timeout, EACH_S))
    silent = [node for node in concerned if node not in dated]
    outcomes = client.ask_each(lambda rid, _: SetFault(rid, fault, for_ms), dated, timeout)
    outcomes |= {node: Unavailable(f"{node} does not answer", "kvctl status") for node in silent}
    told = _sorted(outcomes)
    refused = {n: e for n, e in told.failed.items() if not isinstance(e, Unavailable | Indeterminate)}
    if refused or (told.failed and not in_force(fault, told.on(fault.id))):
        heal(client, fault.id, timeout)
        what = f"{fault.kind} was not set"
        if any(error.applied == "maybe" for error in told.failed.values()):
            what += f" (where it was after all, it ends by itself within {for_ms / 1000:g}s)"
        failed = refused or told.failed
        hint = next((error.hint for error in failed.values() if error.hint), "kvctl fault ls")
        raise worst(failed, what, hint)
    return told


def heal(client: Client, fault_id: str, timeout: float) -> Told:
    """End a fault (all, if the id is empty) wherever it is. What each node says it has ended."""
    return _sorted(client.ask_each(lambda rid, _: HealFault(rid, fault_id), None, timeout))


def _sorted(outcomes: Mapping[NodeId, object]) -> Told:
    faults = {node: o.faults for node, o in outcomes.items() if isinstance(o, FaultList)}
    failed = {
        node: o if isinstance(o, KvError) else Indeterminate(f"it answered with {type(o).__name__}")
        for node, o in outcomes.items()
        if node not in faults
    }
    return Told(faults, failed)
