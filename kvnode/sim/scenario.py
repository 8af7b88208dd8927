"""Scenarios: a cluster, a workload, faults and expectations, as a TOML file declares them.

Promises: pure; what is wrong with a file is one sentence that names the place; the same file and seed
are the same case. Never: runs anything, or knows on what it will be run.

    title = "A node is killed again and again"
    nodes = 5                                   # n1..n5; n (3), seed (1), seconds (60), quiet (5)
    [workload]                                  # keys, clients, rate, mode, gets, puts, deletes, scans, ...
    rate = 50
    [[fault]]                                   # at a time, or at random ones: every = "3s..8s"
    every = "10s"
    kind = "kill"
    node = "any"                                # n2; n1,n2; any; any 2; all. Of a partition: `from` and `to`
    for = "1s..4s"
    [expect]                                    # beside every promise there is, which always holds
    acked_percent_min = 90
"""

from __future__ import annotations

import re
import tomllib
from random import Random
from typing import Any

import msgspec
from msgspec import Struct, field

from kvnode.protocol.types import MODES
from kvnode.sim.case import KINDS, Case, Fault, Load, plan
from kvnode.sim.clock import derive

_TIME = re.compile(r"(\d{1,9})(ms|s|m)")
_UNITS = {"ms": 1, "s": 1_000, "m": 60_000}
NODES_MAX, SECONDS_MAX, OPS_MAX, FAULTS_MAX = 64, 86_400, 5_000_000, 100_000


class ScenarioWrong(Exception):
    """The file is no scenario."""


class Workload(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[workload]`: see `Load`."""

    keys: int = 20
    clients: int = 8
    rate: int = 20
    mode: str = "eventual"
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
    node: str = "any"
    side: str | None = field(name="from", default=None)
    other: str | None = field(name="to", default=None)
    one_way: bool = False
    amount: str | None = None
    """A time of delay, slow-disk and skew (`-1h` is `-60m`); per cent of drop and duplicate: `30%`."""


class Expect(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[expect]`: what must come true beside every promise."""

    acked_percent_min: int = 0
    """Of the writes that were asked for."""
    stale_reads_max: int | None = None
    max_siblings: int | None = None


class Scenario(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole file."""

    title: str
    story: str = ""
    seed: int = 1
    nodes: int = 5
    n: int = 3
    seconds: int = 60
    """Of work and faults; then all is healed."""
    quiet: int = 5
    """Seconds of work without faults in the end, of those."""
    repair_interval: str = "10s"
    workload: Workload = Workload()
    fault: tuple[Break, ...] = ()
    expect: Expect = Expect()


def parse(text: str) -> Scenario:
    """What a file says. Raises `ScenarioWrong`."""
    try:
        raw: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ScenarioWrong(f"it is no TOML: {error}") from error
    try:
        scenario = msgspec.convert(raw, Scenario)
    except msgspec.ValidationError as error:
        raise ScenarioWrong(str(error)) from error
    problem = _problem(scenario)
    if problem:
        raise ScenarioWrong(problem)
    case_of(scenario, "checked")  # words of faults are judged where they are read
    return scenario


def _problem(s: Scenario) -> str:
    load = s.workload
    bounds = (
        ("nodes", s.nodes, 1, NODES_MAX), ("n", s.n, 1, s.nodes), ("seconds", s.seconds, 1, SECONDS_MAX),
        ("quiet", s.quiet, 0, s.seconds), ("workload.keys", load.keys, 1, 100_000),
        ("workload.clients", load.clients, 1, 1_000), ("workload.rate", load.rate, 1, 100_000),
        ("workload.value_bytes", load.value_bytes, 0, 9_000), ("seed", s.seed, 0, 1 << 62),
        ("expect.acked_percent_min", s.expect.acked_percent_min, 0, 100),
    )  # fmt: skip
    for name, value, low, high in bounds:
        if not low <= value <= high:
            return f"{name} must be {low}..{high}, not {value}"
    if s.seconds * load.rate > OPS_MAX:
        return f"seconds times workload.rate must be at most {OPS_MAX}"
    if load.mode not in MODES:
        return f'workload.mode must be {" or ".join(MODES)}, not "{load.mode}"'
    parts = (load.gets, load.puts, load.deletes, load.scans)
    if min(parts) < 0 or not sum(parts):
        return "workload.gets, puts, deletes and scans are shares: none below 0, and not all of them 0"
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
            raise ScenarioWrong(f"fault {place + 1} ({wanted.kind}): {error}") from error
    faults.sort(key=lambda fault: fault.at_ms)
    # Where a disk is lost, one copy is no promise.
    single = not any(fault.kind == "wipe" for fault in faults)
    asked = Load(
        clients=load.clients, keys=load.keys, rate=load.rate, mode=load.mode, gets=load.gets, puts=load.puts,
        deletes=load.deletes, scans=load.scans, value_bytes=load.value_bytes,
        timeout_ms=_time(load.timeout), single=single,
    )  # fmt: skip
    return Case(
        name=name, seed=seed, nodes=scenario.nodes, n=scenario.n, load=asked, lasts_ms=lasts_ms,
        ops=plan(derive(seed, "operations"), asked, lasts_ms), faults=tuple(faults),
        repair_interval_ms=_time(scenario.repair_interval),
    )  # fmt: skip


def _faults(rng: Random, wanted: Break, scenario: Scenario) -> list[Fault]:
    if wanted.kind not in KINDS:
        raise ScenarioWrong(f"no such kind: one of {', '.join(KINDS)}")
    if (wanted.at is None) == (wanted.every is None):
        raise ScenarioWrong('give it a time, at = "5s", or a pace, every = "3s..8s"; not both')
    end = (scenario.seconds - scenario.quiet) * 1_000
    if wanted.at is not None:
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
    if wanted.kind != "partition":
        struck = _nodes(rng, wanted.node, names)
        others: tuple[str, ...] = ()
    else:
        if wanted.side is None:
            raise ScenarioWrong('say from which nodes: from = "n1,n2", or from = "any 2"')
        struck = _nodes(rng, wanted.side, names)
        rest = tuple(name for name in names if name not in struck)
        others = rest if wanted.other is None else _nodes(rng, wanted.other, list(rest))
        if not others or set(struck) & set(others):
            raise ScenarioWrong("a partition has two sides, and no node is on both")
    return Fault(
        at_ms=at_ms, lasts_ms=_drawn(rng, wanted.lasts), kind=wanted.kind, nodes=struck, others=others,
        one_way=wanted.one_way, amount=_amount(wanted),
    )  # fmt: skip


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
    strangers = [name for name in chosen if name not in names]
    if strangers:
        raise ScenarioWrong(f"{strangers[0]!r} is none of {', '.join(names)}; nor is it `any`, `any 2` or `all`")
    return chosen


def _amount(wanted: Break) -> int:
    text = wanted.amount
    if wanted.kind not in ("delay", "drop", "duplicate", "slow-disk", "skew"):
        if text is not None:
            raise ScenarioWrong("it has no amount")
        return 0
    if text is None:
        raise ScenarioWrong('it needs an amount: a time such as "200ms", or of drop and duplicate "30%"')
    if wanted.kind in ("drop", "duplicate"):
        match = re.fullmatch(r"(\d{1,3})%", text)
        if match is None or int(match[1]) > 100:
            raise ScenarioWrong(f"amount {text!r} is no share: write 30%")
        return int(match[1])
    return -_time(text[1:]) if wanted.kind == "skew" and text.startswith("-") else _time(text)


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
