"""The process faults of a local cluster, as named objects in its directory.

Promises: a fault is ACTIVE only after the process was seen to obey; ids never repeat in a cluster.
Never: a fault nobody can see: `kvctl fault ls` reads this file, whoever wrote it.

    {"next": 3, "faults": [{"id": "f1", "target": "n3", "kind": "pause", "since": ..., "expires": ...}]}
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
from msgspec import Struct

from kvctl.processes import Process

PENDING, ACTIVE = "PENDING", "ACTIVE"


class Fault(Struct, frozen=True, kw_only=True):
    """Something done to a node's process, and how it ends."""

    id: str
    target: str
    kind: str
    """`kill`, `stop`, `wipe` or `pause`."""
    since: int
    """Wall milliseconds."""
    expires: int | None
    """Wall milliseconds at which the timer process heals it; None when only a command does."""
    state: str = PENDING
    timer: Process | None = None
    """The detached process that ends it."""


class FaultLog(Struct):
    """All faults of a cluster."""

    next: int = 1
    faults: list[Fault] = []

    def add(self, target: str, kind: str, since: int, expires: int | None) -> Fault:
        """A new fault, PENDING."""
        fault = Fault(id=f"f{self.next}", target=target, kind=kind, since=since, expires=expires)
        self.next += 1
        self.faults.append(fault)
        return fault

    def put(self, fault: Fault) -> Fault:
        """Replace the fault of that id."""
        self.faults = [fault if f.id == fault.id else f for f in self.faults]
        return fault

    def drop(self, fault: Fault) -> None:
        """Forget a fault."""
        self.faults = [f for f in self.faults if f.id != fault.id]

    def of(self, target: str) -> list[Fault]:
        """The faults of a node."""
        return [f for f in self.faults if f.target == target]


def read_faults(path: Path) -> FaultLog:
    """The log, empty where there is none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=FaultLog)
    except FileNotFoundError:
        return FaultLog()


def write_whole(path: Path, value: object) -> None:
    """Write JSON in one step: a reader sees the old file or the new one."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n")
    draft.replace(path)
