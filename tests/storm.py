"""`python -m tests.numbers storm`: a hundred rounds of faults on real processes under load, judged by the checker.

Promises: faults and operations are drawn from a seed, which is printed; each round has keys of its own, which
are judged once all is over and healed. Never: loses a disk: with two gone at once a copy would rightly be lost.
"""

from __future__ import annotations

import gc
import os
import time
from random import Random, SystemRandom

from msgspec.structs import replace

from kvctl.scenarios.live import LiveGround
from kvctl.scenarios.machines import Machines, own_cluster
from kvctl.scenarios.running import run_live
from kvnode.sim.campaign import Report
from kvnode.sim.case import KINDS, Case, Fault, Load, Planned, plan
from kvnode.sim.clock import START, derive

ROUNDS = int(os.environ.get("STORM_ROUNDS", "100"))
SEED = int(os.environ.get("STORM_SEED", str(SystemRandom().getrandbits(32))))
ROUND_MS, QUIET_MS = 6_500, 3_000
NODES, KEYS, RATE, CLIENTS = 5, 200, 560, 64
LOAD = Load(clients=CLIENTS, keys=KEYS, rate=RATE, gets=18, puts=74, deletes=7, scans=1, timeout_ms=1_000)
STRIKES = tuple(kind for kind in KINDS if kind != "wipe")
AMOUNTS = {
    "delay": (20, 100, 400), "drop": (5, 30), "duplicate": (10, 50), "reorder": (10, 50), "corrupt": (2, 20),
    "slow-disk": (20, 100, 500), "skew": (-5_000, -200, 200, 5_000),
}  # fmt: skip


def storm_case(seed: int, rounds: int) -> Case:
    """What is done when."""
    faults: list[Fault] = []
    ops: list[Planned] = []
    for number in range(rounds):
        rng = derive(seed, f"round {number}")
        begins = number * ROUND_MS
        load = replace(LOAD, mode=rng.choice(("eventual", "quorum")))
        for op in plan(rng, load, ROUND_MS):
            key = b"r%03d:%b" % (number, op.key)
            ops.append(replace(op, number=len(ops), at_ms=begins + op.at_ms, key=key))
        faults += [one(rng, begins + rng.randrange(ROUND_MS)) for _ in range(rng.randint(1, 4))]
    faults.sort(key=lambda fault: fault.at_ms)
    return Case(
        name="storm", seed=seed, nodes=NODES, n=3, load=LOAD, lasts_ms=rounds * ROUND_MS + QUIET_MS,
        ops=tuple(ops), faults=tuple(faults),
    )  # fmt: skip


def one(rng: Random, at_ms: int) -> Fault:
    """Something that breaks for a while."""
    kind = rng.choice(STRIKES)
    names = [f"n{i + 1}" for i in range(NODES)]
    struck, others = rng.sample(names, rng.choice((1, 1, 1, 2))), ()
    if kind == "partition":
        mixed, at = rng.sample(names, NODES), rng.randint(1, NODES - 1)
        struck, others = mixed[:at], tuple(sorted(mixed[at:]))
    if kind == "skew":
        struck = struck[:1]
    if kind == "kill" and rng.randrange(3) == 0:
        struck = names  # all at once: what was acknowledged and is on no disk is gone
    amount = rng.choice(AMOUNTS.get(kind, (0,)))
    return Fault(
        at_ms=at_ms, lasts_ms=rng.randint(300, 4_000), kind=kind, nodes=tuple(sorted(struck)), others=others,
        one_way=kind == "partition" and rng.randrange(3) == 0, amount=amount,
        jitter=amount // 2 if kind == "delay" else 0,
    )  # fmt: skip


def storm() -> None:
    """All rounds; what came of them."""
    case, began = storm_case(SEED, ROUNDS), time.monotonic()
    print(
        f"storm  seed {SEED}: {ROUNDS} rounds, {len(case.faults)} faults, {len(case.ops)} operations", flush=True
    )
    gc.disable()  # what is recorded stays: looking through it again and again would stall the clients
    with own_cluster(NODES, case.n, "") as (cluster, kept):
        report = run_live(case, cluster, Machines(cluster), tell=Progress())
        print(told(report, time.monotonic() - began), flush=True)
        if not report.passed:
            kept.append(str(SEED))
            print(f"storm  data and logs are in {cluster.path}; again: STORM_SEED={SEED} make storm", flush=True)


class Progress:
    """A line each ten rounds."""

    def __init__(self) -> None:
        self._next = 10

    def __call__(self, ground: LiveGround) -> None:
        number = (ground.now() - START) // 10 // ROUND_MS
        if number >= self._next:
            self._next += 10
            print(f"storm  {number} rounds, {len(ground.clients.calls)} operations", flush=True)


def told(report: Report, took_s: float) -> str:
    """The figures."""
    judged = report.judgement
    lines = [
        f"storm  {ROUNDS} rounds, {judged.acknowledged} acknowledged, {judged.indeterminate} unknown, "
        f"{judged.failed} refused, {judged.lost} lost, {len(judged.violations)} violations, "
        f"{len(judged.unjudged)} not judged, {took_s:.0f} s, seed {report.seed}",
        f"storm  faults {report.faults}, {judged.stale_reads} stale reads in mode eventual",
        f"storm  outcomes {report.outcomes}",
    ]
    lines += [f"storm  {v.claim} of {v.key!r}: {v.text[:2_000]}" for v in judged.violations[:20]]
    return "\n".join(lines)
