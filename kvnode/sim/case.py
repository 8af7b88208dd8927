"""A case: everything a run does, as data: who asks for what when, and what breaks when.

Promises: drawn from a seed once, then plain values, so a case can be cut down and run again.
Never: depends on what happens in the run; that is for `campaign`.
"""

from __future__ import annotations

from enum import Enum
from random import Random

from msgspec import Struct

from kvnode.protocol.messages import Condition
from kvnode.protocol.types import ALL, DEFAULT


class Fault(Struct, frozen=True, kw_only=True):
    """One thing that breaks, and when it is mended."""

    at_ms: int
    lasts_ms: int
    kind: str
    """One of `KINDS`."""
    nodes: tuple[str, ...] = ()
    """Whom it strikes; of a partition, one side."""
    others: tuple[str, ...] = ()
    """Of a partition, the other side."""
    one_way: bool = False
    amount: int = 0
    """Of delay, slow-disk and skew: milliseconds; of drop and duplicate: per cent."""


KINDS = (
    "kill", "wipe", "pause", "partition", "delay", "drop", "duplicate", "slow-disk", "fail-fsync", "skew",
)  # fmt: skip
"""As `kvctl fault` has them. Reordering comes with `delay`; the simulated network never corrupts."""


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
    quorum: bool = False
    strong: bool = False
    condition: Condition = Condition.NONE
    """Of a write in mode `strong`; one that needs a context is done without where its client has none."""
    count: int = DEFAULT
    """R or W."""
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

    @property
    def disks_lost(self) -> bool:
        """Whether some disk is lost for good."""
        return any(fault.kind == "wipe" for fault in self.faults)


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
    quorum = load.mode == "quorum"
    free = load.single and not quorum
    reads = kind in (Kind.GET, Kind.SCAN)
    count = rng.choice((DEFAULT, DEFAULT, 1, ALL)) if free else DEFAULT
    return Planned(
        number=number, at_ms=at_ms, client=f"c{rng.randrange(load.clients)}", kind=kind,
        key=b"k%d" % rng.randrange(load.keys), quorum=quorum, count=count, informed=rng.randrange(10) < 8,
        keeps_siblings=not reads and kind is Kind.PUT and rng.randrange(20) == 0, retries=rng.randrange(10) < 7,
        via=rng.getrandbits(30),
    )  # fmt: skip


def _strong(rng: Random, load: Load, number: int, at_ms: int, kind: Kind) -> Planned:
    """Half of the writes have a condition; a put that must find nothing is rarely done."""
    dice = rng.randrange(100)
    condition = Condition.MATCH if dice < 40 else Condition.ABSENT if dice < 50 else Condition.NONE
    return Planned(
        number=number, at_ms=at_ms, client=f"c{rng.randrange(load.clients)}", kind=kind,
        key=b"k%d" % rng.randrange(load.keys), strong=True, condition=condition, retries=False,
        via=rng.getrandbits(30),
    )  # fmt: skip


def keep(case: Case, faults: set[int], ops: set[int]) -> Case:
    """The case with these of its faults, by place, and these of its operations, by number."""
    return Case(
        name=case.name, seed=case.seed, nodes=case.nodes, n=case.n, load=case.load, lasts_ms=case.lasts_ms,
        ops=tuple(op for op in case.ops if op.number in ops),
        faults=tuple(fault for i, fault in enumerate(case.faults) if i in faults),
        repair_interval_ms=case.repair_interval_ms,
    )  # fmt: skip
