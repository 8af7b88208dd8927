"""Faults -> views: those of processes and those inside nodes in one table. Pure.

Promises: a fault is ACTIVE only where a node, or its process, was seen to have it; PARTIAL where some of
the nodes it concerns do not (one restarted, say). Never: talks to a node.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from kvctl import faultlog
from kvctl.health import span
from kvctl.nodefaults import Told, in_force
from kvctl.output import Table, View, show, utc
from kvctl.render import Object
from kvnode.protocol import faults as inside
from kvnode.protocol.faults import Fault

ACTIVE, PARTIAL, HEALED = "ACTIVE", "PARTIAL", "HEALED"


class Listed(Struct, frozen=True, kw_only=True):
    """A fault, wherever it is."""

    id: str
    target: str
    kind: str
    value: str | None = None
    since: int
    expires: int | None
    state: str
    nodes: tuple[str, ...]
    """The nodes that have it."""


def of_process(fault: faultlog.Fault, state: str | None = None) -> Listed:
    """A fault of a process."""
    return Listed(
        id=fault.id, target=fault.target, kind=fault.kind, since=fault.since,
        expires=None if state == HEALED else fault.expires, state=state or fault.state, nodes=(fault.target,),
    )  # fmt: skip


def of_nodes(told: Told, state: str | None = None) -> list[Listed]:
    """The faults inside nodes."""
    return [_of_node(fault, told.on(fault.id), state) for fault in told.each()]


def _of_node(fault: Fault, on: Sequence[str], state: str | None) -> Listed:
    return Listed(
        id=fault.id, target=target_of(fault), kind=fault.kind, value=value_of(fault), since=fault.since,
        expires=None if state == HEALED else fault.expires_at,
        state=state or (ACTIVE if in_force(fault, on) else PARTIAL), nodes=tuple(sorted(on)),
    )  # fmt: skip


def target_of(fault: Fault) -> str:
    """Where it strikes: `n1,n2|n3` a partition, `n1>n2` one way, `n1`."""
    joint = "|" if fault.kind == inside.PARTITION and not fault.one_way else ">"
    return joint.join(",".join(names) for names in (fault.nodes, fault.peers) if names)


def value_of(fault: Fault) -> str | None:
    """How much: `30%`, `100ms +-20ms`, `-5s`; None where there is nothing to say."""
    if fault.kind in inside.SHARES:
        return f"{fault.amount * 100:g}%"
    if not fault.amount:
        return None
    return _time(fault.amount) + (f" +-{_time(fault.jitter_ms)}" if fault.jitter_ms else "")


def _time(ms: float) -> str:
    return f"{ms:g}ms" if ms % 1000 else f"{ms / 1000:g}s"


def fault_json(fault: Listed) -> Object:
    """A fault as an object."""
    return {
        "id": fault.id,
        "target": fault.target,
        "kind": fault.kind,
        "value": fault.value,
        "since": utc(fault.since),
        "expires": utc(fault.expires),
        "state": fault.state,
        "nodes": list(fault.nodes),
    }


def faults_view(command: str, faults: Sequence[Listed], wall_ms: int) -> View:
    """Faults, one a row."""
    objects = [{**fault_json(f), "left_s": _left_s(f, wall_ms)} for f in faults]
    rows = tuple(
        (show(f.id), show(f.target), show(f.kind), utc(f.since) or "-", _left(f, wall_ms), f.state,
         show(f.value or "-"))
        for f in faults
    )  # fmt: skip
    table = Table(("ID", "TARGET", "KIND", "SINCE", "LEFT", "STATE", "VALUE"), rows)
    return View(command, {"faults": objects, "count": len(objects)}, table, objects)


def _left_s(fault: Listed, wall_ms: int) -> float | None:
    return None if fault.expires is None else max(0, fault.expires - wall_ms) / 1000


def _left(fault: Listed, wall_ms: int) -> str:
    if fault.state == HEALED:
        return "-"
    return "until healed" if fault.expires is None else span(max(0, fault.expires - wall_ms))
