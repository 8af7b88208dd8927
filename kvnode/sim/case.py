"""A case: everything a run does, as data: who asks for what when, and what breaks when.

Promises: drawn from a seed once, then plain values, so a case can be cut down and run again.
Never: depends on what happens in the run; that is for `campaign`.
"""

from __future__ import annotations

from enum import Enum
from random import Random

from msgspec import Struct

from kvnode.protocol import faults as inside
from kvnode.protocol.types import ALL, DEFAULT, NodeId

ANY_NODE, AN_OWNER = "any", "owner"


class Fault(Struct, frozen=True, kw_only=True):
    """One thing that breaks, and when it is mended."""

    at_ms: int
    lasts_ms: int
    kind: str
    """One of `KINDS`."""
    nodes: tuple[str, ...] = ()
    """Whom it strikes; of a partition, one side."""
    others: tuple[str, ...] = ()
    """Of a partition, the other side; of another link fault, to whom (to all, if empty)."""
    one_way: bool = False
    amount: int = 0
    """Of delay, slow-disk and skew: milliseconds; of `SHARES`: per cent."""
    jitter: int = 0
    """Of delay: so many milliseconds more or less."""

    def as_order(self, name: str) -> inside.Fault:
        """As a real node is told of it; for kinds that are `INSIDE` one."""
        amount = self.amount / 100 if self.kind in SHARES else float(self.amount)
        return inside.Fault(
            name, self.kind, tuple(map(NodeId, self.nodes)), tuple(map(NodeId, self.others)), amount,
            float(self.jitter), self.one_way,
        )  # fmt: skip


PROCESS = ("kill", "stop", "wipe", "pause")
"""What befalls a process; the rest happens inside a node."""
BAD_DISKS = ("fail-fsync", "full-disk")
"""They end the process of a node that writes."""
INSIDE, LINKS, SHARES = inside.KINDS, inside.LINKS, inside.SHARES
KINDS = (*PROCESS, *INSIDE)
"""As `kvctl fault` has them."""
RESHAPES = ("join", "leave", "replace", "cancel")
"""As `kvctl cluster` has them."""


class Kind(Enum):
    """What a client asks for."""

    GET = "get"
    PUT = "put"
    DELETE = "delete"
    SCAN = "scan"


class Planned(Struct, frozen=True, kw_only=True):
    """One operation of one client, not before its time, nor before the client's last one is over."""

    number: int
    at_ms: int
    client: str
    kind: Kind
    key: bytes
    mode: str = "eventual"
    count: int = DEFAULT
    """R or W."""
    condition: str = ""
    """`absent` or `match`: a compare-and-set, in mode `strong`; `match` takes what its client saw last."""
    informed: bool = True
    """Whether it hands back the context it has, if any."""
    keeps_siblings: bool = False
    retries: bool = True
    """Whether it is tried again, where that is safe, when nobody can say what became of it."""
    via: int = 0
    """Chooses the node it goes to, among those that seem up."""


class Load(Struct, frozen=True, kw_only=True):
    """How much is asked for, and of what kind."""

    clients: int = 8
    keys: int = 20
    rate: int = 20
    """Operations a second, of all clients."""
    mode: str = "eventual"
    gets: int = 50
    puts: int = 43
    deletes: int = 5
    scans: int = 2
    value_bytes: int = 0
    """Values are at least this long."""
    timeout_ms: int = 2_000
    single: bool = True
    """Whether w=1 and r=1 are asked for too, in `eventual`."""
    via: str = ANY_NODE
    """To which node an operation goes: one drawn by its number, or as the client library routes."""


class Reshape(Struct, frozen=True, kw_only=True):
    """One change of the cluster's shape, that an operator wants from this time on."""

    at_ms: int
    kind: str
    """`join`, `leave`, `replace` or `cancel`."""
    node: str = ""
    """Which joins, leaves or is replaced."""
    new: str = ""
    """Of `replace`: which takes its places."""


class Case(Struct, frozen=True, kw_only=True):
    """One run."""

    name: str
    seed: int
    nodes: int
    n: int
    load: Load
    lasts_ms: int
    ops: tuple[Planned, ...]
    faults: tuple[Fault, ...]
    repair_interval_ms: int = 10_000
    changes: tuple[Reshape, ...] = ()

    @property
    def disks_lost(self) -> bool:
        """Whether some disk is lost for good: wiped, or of a node that an operator replaces."""
        wiped = any(fault.kind == "wipe" for fault in self.faults)
        return wiped or any(change.kind == "replace" for change in self.changes)


def plan(rng: Random, load: Load, lasts_ms: int) -> tuple[Planned, ...]:
    """The operations of a run, in the order of time."""
    kinds = (Kind.GET, Kind.PUT, Kind.DELETE, Kind.SCAN)
    weights = (load.gets, load.puts, load.deletes, load.scans)
    return tuple(
        _one(rng, load, number, number * 1000 // load.rate, rng.choices(kinds, weights)[0])
        for number in range(load.rate * lasts_ms // 1000)
    )


def _one(rng: Random, load: Load, number: int, at_ms: int, kind: Kind) -> Planned:
    if load.mode == "strong":
        return _strong(rng, load, number, at_ms, kind)
    free = load.single and load.mode == "eventual"
    reads = kind in (Kind.GET, Kind.SCAN)
    count = rng.choice((DEFAULT, DEFAULT, 1, ALL)) if free else DEFAULT
    return Planned(
        number=number, at_ms=at_ms, client=f"c{rng.randrange(load.clients)}", kind=kind,
        key=b"k%d" % rng.randrange(load.keys), mode=load.mode, count=count, informed=rng.randrange(10) < 8,
        keeps_siblings=not reads and kind is Kind.PUT and rng.randrange(20) == 0, retries=rng.randrange(10) < 7,
        via=rng.getrandbits(30),
    )  # fmt: skip


def _strong(rng: Random, load: Load, number: int, at_ms: int, kind: Kind) -> Planned:
    """Registers are not scanned, know no W and no siblings; half of the writes are under a condition."""
    return Planned(
        number=number, at_ms=at_ms, client=f"c{rng.randrange(load.clients)}",
        kind=Kind.GET if kind is Kind.SCAN else kind, key=b"k%d" % rng.randrange(load.keys), mode="strong",
        condition=rng.choice(("", "", "", "match", "match", "absent")), retries=False, via=rng.getrandbits(30),
    )  # fmt: skip


def keep(case: Case, faults: set[int], ops: set[int]) -> Case:
    """The case with these of its faults, by place, and these of its operations, by number."""
    return Case(
        name=case.name, seed=case.seed, nodes=case.nodes, n=case.n, load=case.load, lasts_ms=case.lasts_ms,
        ops=tuple(op for op in case.ops if op.number in ops),
        faults=tuple(fault for i, fault in enumerate(case.faults) if i in faults),
        repair_interval_ms=case.repair_interval_ms, changes=case.changes,
    )  # fmt: skip
