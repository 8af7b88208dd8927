"""Scenarios: a cluster, a workload, faults and expectations, as a TOML file declares them.

Promises: pure; what is wrong with a file is one sentence that names the place; the same file and seed
are the same case. Never: runs anything, or knows on what it will be run.

    about = "A node is killed again and again"
    nodes = 5                                   # n1..n5; n (3), seed (1), seconds (20), quiet (3)
    [workload]                                  # keys, clients, rate, mode, gets, puts, deletes, scans, via, ...
    rate = 50
    [[fault]]                                   # at a time, or at random ones: every = "3s..8s"
    every = "10s"
    kind = "kill"
    node = "any"                                # n2; n1,n2; any; any 2; all. Of a partition: `from` and `to`;
    for = "1s..4s"                              # of what is said to some nodes only: `peer`
    [[change]]                                  # of the cluster's shape; in the simulator
    at = "5s"
    kind = "join"                               # leave; replace, with `new`; cancel
    node = "n6"
    [expect]                                    # beside every promise there is, which always holds
    acked_percent_min = 90
"""

from __future__ import annotations

import re
import tomllib
from random import Random
from typing import Any, TypeVar

import msgspec
from msgspec import Struct, field

from kvnode import config
from kvnode.protocol.faults import problem_of, time_problem
from kvnode.protocol.types import MODES
from kvnode.sim.case import (
    AN_OWNER,
    ANY_NODE,
    INSIDE,
    KINDS,
    LINKS,
    RESHAPES,
    SHARES,
    Case,
    Fault,
    Load,
    Reshape,
    plan,
)
from kvnode.sim.clock import derive

Read = TypeVar("Read")
_FAULT = re.compile(r"\s*\[\[\s*fault\s*\]\]")
_TIME = re.compile(r"(\d{1,9})(ms|s|m)")
_UNITS = {"ms": 1, "s": 1_000, "m": 60_000}
AMOUNTS = ("delay", *SHARES, "slow-disk", "skew")
NODES_MAX, SECONDS_MAX, OPS_MAX, FAULTS_MAX = 64, 86_400, 5_000_000, 100_000


class ScenarioWrong(Exception):
    """The file is no scenario."""

    def __init__(self, why: str, place: int | None = None) -> None:
        super().__init__(why)
        self.place = place
        """The fault that is wrong, where one is."""


class Workload(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[workload]`: see `Load`."""

    keys: int = 20
    clients: int = 8
    rate: int = 20
    mode: str = "eventual"
    via: str = ANY_NODE
    """`any`: to a node drawn by the seed, whoever owns the key; `owner`: as the client library routes."""
    mixed_counts: bool = True
    """In mode `eventual`: R and W of one and of all are asked for too; else a majority, always."""
    gets: int = 50
    puts: int = 43
    deletes: int = 5
    scans: int = 2
    value_bytes: int = 0
    timeout: str = "2s"


class Break(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[fault]]`."""

    kind: str
    at: str | None = None
    every: str | None = None
    lasts: str = field(name="for", default="5s")
    node: str | None = None
    """`any` unless told."""
    peer: str | None = None
    """Of a fault on links: only what is said to these; to all unless told."""
    side: str | None = field(name="from", default=None)
    other: str | None = field(name="to", default=None)
    """The rest unless told. Who is on neither side is a bridge."""
    one_way: bool | None = None
    amount: str | None = None
    """A time of delay, slow-disk and skew (`-1h` is `-60m`); per cent of drop, duplicate, ...: `30%`."""
    jitter: str | None = None
    """Of delay: up to so much more or less."""


class Turn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[change]]`: what an operator wants from then on."""

    kind: str
    at: str
    node: str = ""
    new: str = ""


class Expect(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[expect]`: what must come true beside every promise."""

    acked_percent_min: int = 0
    """Of the writes that were asked for."""
    each_side_acked_percent_min: int = 0
    """Of the puts that the nodes of each side of a partition were asked for."""
    minority_acked_max: int | None = None
    """Of those that the nodes of its smaller side were asked for."""
    stale_reads_max: int | None = None
    max_siblings: int | None = None


class Scenario(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole file."""

    about: str
    """One line."""
    seed: int = 1
    nodes: int = 5
    n: int = 3
    seconds: int = 20
    """Of work and faults; then all is healed."""
    quiet: int = 3
    """Seconds of work without faults in the end, of those."""
    repair_interval: str = "10s"
    workload: Workload = Workload()
    fault: tuple[Break, ...] = ()
    change: tuple[Turn, ...] = ()
    expect: Expect = Expect()


def parse(text: str) -> Scenario:
    """What a file says. Raises `ScenarioWrong`."""
    try:
        raw: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ScenarioWrong(f"it is no TOML: {error}") from error
    listed = raw.pop("fault", [])
    if not isinstance(listed, list):
        raise ScenarioWrong("fault: each one is a table of its own, [[fault]]")
    scenario = _read(raw, Scenario, "")
    lines = [number for number, line in enumerate(text.splitlines(), 1) if _FAULT.match(line)]
    for place, one in enumerate(listed):
        where = (f"line {lines[place]}, " if len(lines) == len(listed) else "") + f"fault {place + 1}"
        fault = _read(one, Break, where)
        scenario = msgspec.structs.replace(scenario, fault=(*scenario.fault, fault))
    problem = _problem(scenario)
    if problem:
        raise ScenarioWrong(problem)
    try:
        case_of(scenario, "checked")  # words of faults are judged where they are read
    except ScenarioWrong as error:
        if error.place is None or len(lines) != len(listed):
            raise
        raise ScenarioWrong(f"line {lines[error.place]}, {error}") from error
    return scenario


def _read(raw: object, kind: type[Read], where: str) -> Read:
    """A table of the file. Raises `ScenarioWrong`."""
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `$")
        what = what.replace("Object contains unknown field", "unknown key").replace(
            "Object missing required", "no"
        )
        place = ", ".join(word for word in (where, path.strip(".`")) if word)
        raise ScenarioWrong(f"{place}: {what}" if place else what) from error


def _problem(s: Scenario) -> str:
    load = s.workload
    bounds = (
        ("nodes", s.nodes, 1, NODES_MAX), ("n", s.n, 1, s.nodes), ("seconds", s.seconds, 1, SECONDS_MAX),
        ("quiet", s.quiet, 0, s.seconds), ("workload.keys", load.keys, 1, 100_000),
        ("workload.clients", load.clients, 1, 1_000), ("workload.rate", load.rate, 1, 100_000),
        ("workload.value_bytes", load.value_bytes, 0, 9_000), ("seed", s.seed, 0, 1 << 62),
        ("expect.acked_percent_min", s.expect.acked_percent_min, 0, 100),
        ("expect.each_side_acked_percent_min", s.expect.each_side_acked_percent_min, 0, 100),
        ("workload.timeout, in ms,", _named("workload.timeout", load.timeout), 1, config.WRITE_DEADLINE_MAX_MS),
        ("repair_interval, in ms,", _named("repair_interval", s.repair_interval), 1_000, SECONDS_MAX * 1_000),
    )  # fmt: skip
    for name, value, low, high in bounds:
        if not low <= value <= high:
            return f"{name} must be {low}..{high}, not {value}"
    if s.seconds * load.rate > OPS_MAX:
        return f"seconds times workload.rate must be at most {OPS_MAX}"
    if load.mode not in MODES:
        return f'workload.mode must be one of {", ".join(MODES)}, not "{load.mode}"'
    parts = (load.gets, load.puts, load.deletes, load.scans)
    if min(parts) < 0 or not sum(parts):
        return "workload.gets, puts, deletes and scans are shares: none below 0, and not all of them 0"
    if load.via not in (ANY_NODE, AN_OWNER):
        return f'workload.via must be "any" or "owner", not "{load.via}"'
    sided = s.expect.each_side_acked_percent_min or s.expect.minority_acked_max is not None
    if sided and load.via != ANY_NODE:
        return 'expectations of sides need workload.via = "any": else clients go around the cut'
    if sided and not any(fault.kind == "partition" for fault in s.fault):
        return "expectations of sides need a partition"
    if not s.about.strip() or not s.about.isprintable():
        return "about is one line that says what happens"
    return ""


# ---- to a case ---------------------------------------------------------------------------------


def case_of(scenario: Scenario, name: str, seed: int | None = None) -> Case:
    """What is done when. Raises `ScenarioWrong`."""
    seed = scenario.seed if seed is None else seed
    load, lasts_ms = scenario.workload, scenario.seconds * 1_000
    faults: list[Fault] = []
    for place, wanted in enumerate(scenario.fault):
        rng = derive(seed, f"fault {place}")
        try:
            faults += _faults(rng, wanted, scenario)
        except ScenarioWrong as error:
            raise ScenarioWrong(f"fault {place + 1} ({wanted.kind}): {error}", place) from error
    faults.sort(key=lambda fault: fault.at_ms)
    # Where a disk is lost, one copy is no promise.
    lost = any(fault.kind == "wipe" for fault in faults) or any(one.kind == "replace" for one in scenario.change)
    single = load.mixed_counts and not lost
    asked = Load(
        clients=load.clients, keys=load.keys, rate=load.rate, mode=load.mode, gets=load.gets, puts=load.puts,
        deletes=load.deletes, scans=load.scans, value_bytes=load.value_bytes,
        timeout_ms=_time(load.timeout), single=single, via=load.via,
    )  # fmt: skip
    return Case(
        name=name, seed=seed, nodes=scenario.nodes, n=scenario.n, load=asked, lasts_ms=lasts_ms,
        ops=plan(derive(seed, "operations"), asked, lasts_ms), faults=tuple(faults),
        repair_interval_ms=_time(scenario.repair_interval), changes=_changes(scenario),
    )  # fmt: skip


def _changes(scenario: Scenario) -> tuple[Reshape, ...]:
    """What is to become of the cluster's shape, in the order of time. Raises `ScenarioWrong`."""
    first = {f"n{i}" for i in range(1, scenario.nodes + 1)}
    for place, turn in enumerate(scenario.change, 1):
        where = f"change {place} ({turn.kind})"
        if turn.kind not in RESHAPES:
            raise ScenarioWrong(f"{where}: no such kind: one of {', '.join(RESHAPES)}")
        if (turn.kind != "cancel") != bool(turn.node) or (turn.kind == "replace") != bool(turn.new):
            raise ScenarioWrong(
                f"{where}: join and leave have a node, replace has a node and a new one, cancel none"
            )
        new = turn.node if turn.kind == "join" else turn.new
        if new in first:
            raise ScenarioWrong(f"{where}: {new} is there from the beginning")
        if turn.kind == "leave" and len(scenario.change) == 1 and scenario.nodes <= scenario.n:
            raise ScenarioWrong(f"{where}: {scenario.nodes} nodes are too few for one to leave")
        if _named(where, turn.at) >= (scenario.seconds - scenario.quiet) * 1_000:
            raise ScenarioWrong(f"{where}: at {turn.at!r} is too late")
    found = [Reshape(at_ms=_time(t.at), kind=t.kind, node=t.node, new=t.new) for t in scenario.change]
    return tuple(sorted(found, key=lambda change: change.at_ms))


def _faults(rng: Random, wanted: Break, scenario: Scenario) -> list[Fault]:
    if wanted.kind not in KINDS:
        raise ScenarioWrong(f"no such kind: one of {', '.join(KINDS)}")
    if problem := _out_of_place(wanted):
        raise ScenarioWrong(problem)
    if (wanted.at is None) == (wanted.every is None):
        raise ScenarioWrong('give it a time, at = "5s", or a pace, every = "3s..8s"; not both')
    end = (scenario.seconds - scenario.quiet) * 1_000
    if wanted.at is not None:
        if _span(wanted.at)[1] >= end:
            raise ScenarioWrong(f"at {wanted.at!r} is too late: faults begin before {end / 1000:g}s")
        return [_one(rng, wanted, scenario, _drawn(rng, wanted.at))]
    assert wanted.every is not None
    low, high = _span(wanted.every)
    if low < 1 or end // low > FAULTS_MAX:
        raise ScenarioWrong(f"every {wanted.every!r} is too often")
    found: list[Fault] = []
    at_ms = rng.randint(low, high)
    while at_ms < end:
        found.append(_one(rng, wanted, scenario, at_ms))
        at_ms += rng.randint(low, high)
    return found


def _one(rng: Random, wanted: Break, scenario: Scenario, at_ms: int) -> Fault:
    names = [f"n{i}" for i in range(1, scenario.nodes + 1)]
    others: tuple[str, ...] = ()
    if wanted.kind != "partition":
        struck = _nodes(rng, wanted.node or "any", names)
        if wanted.peer is not None:
            others = _nodes(rng, wanted.peer, [name for name in names if name not in struck])
    else:
        assert wanted.side is not None
        struck = _nodes(rng, wanted.side, names)
        rest = tuple(name for name in names if name not in struck)
        others = rest if wanted.other is None else _nodes(rng, wanted.other, list(rest))
        if not others:
            raise ScenarioWrong("a partition has two sides")
    fault = Fault(
        at_ms=at_ms, lasts_ms=_drawn(rng, wanted.lasts), kind=wanted.kind, nodes=struck, others=others,
        one_way=bool(wanted.one_way), amount=_amount(wanted), jitter=_time(wanted.jitter or "0ms"),
    )  # fmt: skip
    problem = time_problem(fault.lasts_ms)
    if wanted.kind in INSIDE and not problem:
        problem = problem_of(fault.as_order("x"), names)
    if problem:
        raise ScenarioWrong(problem)
    return fault


def _out_of_place(wanted: Break) -> str:
    """Words that say nothing of such a fault, or that it lacks; empty if there are none."""
    cut = wanted.kind == "partition"
    for name, given, fits in (
        ("node", wanted.node, not cut), ("peer", wanted.peer, wanted.kind in LINKS and not cut),
        ("from", wanted.side, cut), ("to", wanted.other, cut), ("one_way", wanted.one_way, cut),
        ("jitter", wanted.jitter, wanted.kind == "delay"), ("amount", wanted.amount, wanted.kind in AMOUNTS),
    ):  # fmt: skip
        if given is not None and not fits:
            return f"it has no {name}"
    if cut and wanted.side is None:
        return 'say from which nodes: from = "n1,n2", or from = "any 2"'
    if wanted.kind in AMOUNTS and wanted.amount is None:
        return 'it needs an amount: a time such as "200ms"; of drop, duplicate, reorder and corrupt "30%"'
    return ""


def _nodes(rng: Random, text: str, names: list[str]) -> tuple[str, ...]:
    if text == "all":
        return tuple(names)
    match = re.fullmatch(r"any(?: (\d{1,3}))?", text)
    if match is not None:
        count = int(match[1] or 1)
        if not 1 <= count <= len(names):
            raise ScenarioWrong(f"{text!r}: there are {len(names)} nodes to choose from")
        return tuple(sorted(rng.sample(names, count)))
    chosen = tuple(part.strip() for part in text.split(","))
    if len(set(chosen)) < len(chosen):
        raise ScenarioWrong(f"{text!r} names a node twice")
    strangers = [name for name in chosen if name not in names]
    if strangers:
        raise ScenarioWrong(f"{strangers[0]!r} is none of {', '.join(names)}; nor is it `any`, `any 2` or `all`")
    return chosen


def _amount(wanted: Break) -> int:
    text = wanted.amount
    if text is None:
        return 0
    if wanted.kind in SHARES:
        match = re.fullmatch(r"(\d{1,3})%", text)
        if match is None or int(match[1]) > 100:
            raise ScenarioWrong(f"amount {text!r} is no share: write 30%")
        return int(match[1])
    return -_time(text[1:]) if wanted.kind == "skew" and text.startswith("-") else _time(text)


def _named(name: str, text: str) -> int:
    try:
        return _time(text)
    except ScenarioWrong as error:
        raise ScenarioWrong(f"{name}: {error}") from error


def _time(text: str) -> int:
    match = _TIME.fullmatch(text)
    if match is None:
        raise ScenarioWrong(f"{text!r} is no time: write 250ms, 30s or 5m")
    return int(match[1]) * _UNITS[match[2]]


def _span(text: str) -> tuple[int, int]:
    first, _, last = text.partition("..")
    low, high = _time(first), _time(last or first)
    if high < low:
        raise ScenarioWrong(f"{text!r} goes from the longer to the shorter")
    return low, high


def _drawn(rng: Random, text: str) -> int:
    return rng.randint(*_span(text))
