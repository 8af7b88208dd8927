"""Running a scenario, in the simulator or on a real cluster: file and seed to verdict.

Promises: the same file and seed are the same work and faults; in the simulator, the same run. A run on a
real cluster leaves nothing behind. Never: passes what the file expects and did not get.
"""

from __future__ import annotations

import secrets
import shlex
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing

import msgspec

from kvctl.client import Client
from kvctl.errors import Invalid, Refused
from kvctl.local import Cluster
from kvctl.scenarios import load
from kvctl.scenarios.ending import look, quiet
from kvctl.scenarios.live import LiveGround
from kvctl.scenarios.machines import GuardedMachines, Machines, own_cluster
from kvctl.scenarios.striking import Striker
from kvctl.scenarios.verdict import Verdict
from kvnode.sim.campaign import Clients, Ending, Report, conclude, read_registers, run
from kvnode.sim.case import Case, Kind
from kvnode.sim.check import Violation
from kvnode.sim.clock import START, tenths
from kvnode.sim.scenario import Scenario, case_of

SERVES_WITHIN_S, CONVERGES_WITHIN_S = 30.0, 90.0
"""How long a mended cluster may take until all nodes serve, and until all owners hold the same."""


def run_in_sim(name: str, seed: int | None) -> Verdict:
    """Run it in the simulator. Raises what `load` does."""
    scenario = load(name)
    began = time.perf_counter()
    case = case_of(scenario, name, seed)
    return _verdict(scenario, case, run(case), "sim", time.perf_counter() - began)


def run_on_cluster(name: str, seed: int | None) -> Verdict:
    """Run it on a cluster of its own. Raises what `load` does, and `LaunchFailed`."""
    scenario = load(name)
    began = time.perf_counter()
    case = case_of(scenario, name, seed)
    with own_cluster(case.nodes, case.n, f"repair_interval_ms = {case.repair_interval_ms}\n") as (cluster, kept):
        report = run_live(case, cluster, Machines(cluster))
        verdict = _verdict(scenario, case, report, "cluster", time.perf_counter() - began)
        if not verdict.passed:
            kept.append(str(cluster.path))
            verdict = msgspec.structs.replace(verdict, left_in=str(cluster.path))
    return verdict


def run_on(cluster: Cluster, name: str, seed: int | None) -> Verdict:
    """Run it on a cluster of `kvctl up`, among keys of its own. Raises what `load` does, `Invalid`, `Refused`."""
    scenario = load(name)
    began = time.perf_counter()
    case = case_of(scenario, name, seed)
    fit(cluster, name, seed)
    prefix = f"scenario:{secrets.token_hex(4)}:"
    report = run_live(case, cluster, GuardedMachines(cluster), prefix)
    return _verdict(scenario, case, report, f"cluster --yes --name {cluster.name}", time.perf_counter() - began)


def outline(name: str, seed: int | None) -> tuple[str, list[str]]:
    """What a run would do, as a sentence; and what of it is for good. Raises what `load` does."""
    scenario = load(name)
    faults = case_of(scenario, name, seed).faults
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(Counter(f.kind for f in faults).items()))
    wiped = sorted({node for fault in faults if fault.kind == "wipe" for node in fault.nodes})
    what = f"{scenario.seconds} s of {scenario.workload.rate} operations a second with faults: {kinds or 'none'}"
    return what, [f"the data directory of {node} is deleted" for node in wiped]


def fit(cluster: Cluster, name: str, seed: int | None) -> None:
    """Raises `Invalid` or `Refused` where a scenario cannot be run on a cluster."""
    spec, case = cluster.spec, case_of(load(name), name, seed)
    names = [node.name for node in spec.nodes]
    if sorted(names) != sorted(f"n{i + 1}" for i in range(case.nodes)) or spec.n != case.n:
        wanted = f"{case.nodes} nodes, n1 to n{case.nodes}, with {case.n} copies of each key"
        raise Invalid(
            f"the scenario is for {wanted}; {spec.name} has {', '.join(names)} with {spec.n}", "kvctl up"
        )
    if not spec.allow_faults:
        raise Refused(f"{spec.name} was started with --no-allow-faults", "kvctl down, and kvctl up --allow-faults")
    idle = [name for name in names if name not in cluster.running()]
    if idle:
        raise Invalid(f"{', '.join(idle)} does not run", "kvctl up, or kvctl node start")


def run_live(
    case: Case,
    cluster: Cluster,
    machines: Machines,
    prefix: str = "",
    tell: Callable[[LiveGround], None] | None = None,
) -> Report:
    """One whole run on real processes; `tell` is called every second of it. Raises `Invalid`."""
    if case.changes:
        raise Invalid("the scenario changes the cluster's shape: that is run in the simulator", "--on sim")
    with closing(Client(",".join(cluster.addresses))) as client:
        client.dated([node.name for node in cluster.spec.nodes])
        ground = LiveGround(client, case, prefix)
        clients, striker = Clients(ground, case), Striker(ground, machines, case.faults)
        if tell is not None:
            for second in range(case.lasts_ms // 1_000):
                ground.timeline.at(START + tenths(second * 1_000), tell, ground)
        try:
            # Beyond its time a client asks for nothing more; what it has asked has a deadline.
            over, within_s = START + tenths(case.lasts_ms), (case.lasts_ms + 3 * case.load.timeout_ms) / 1000 + 10
            if not ground.run_until(lambda: ground.now() > over and clients.done, within_s):
                raise AssertionError("an operation without an end")  # noqa: TRY301 -- ends as any other
            why = striker.mend(SERVES_WITHIN_S) or quiet(ground, CONVERGES_WITHIN_S)
        except BaseException:
            striker.abandon()
            raise
        broken = _wrong("heals", why)
        for node, words in striker.ended.items():
            broken += _wrong("invariants_hold", f"{node} ended by itself: {words}")
        if case.load.mode == "strong":
            read_registers(ground, case, broken)
            ending = Ending({}, {}, broken)
        else:
            ending = look(ground, {op.key for op in case.ops}, broken)
        return conclude(case, ground.clients.calls, ending, clients.outcomes, striker.counts)


def _wrong(claim: str, why: str) -> list[Violation]:
    return [Violation(claim, b"", why)] if why else []


def _verdict(scenario: Scenario, case: Case, report: Report, on: str, took_s: float) -> Verdict:
    writes = sum(op.kind in (Kind.PUT, Kind.DELETE) for op in case.ops)
    return Verdict(
        scenario=case.name, report=report, nodes=case.nodes, keys=case.load.keys, took_s=took_s,
        replay=f"kvctl scenario run {shlex.quote(case.name)} --seed {case.seed} --on {on}",
        unmet=tuple(unmet(scenario, report, writes)), on=on.split()[0],
    )  # fmt: skip


def unmet(scenario: Scenario, report: Report, writes: int) -> list[str]:
    """What was expected and did not come true."""
    wanted, judged = scenario.expect, report.judgement
    found = []
    if judged.acknowledged * 100 < wanted.acked_percent_min * writes:
        found.append(f"{wanted.acked_percent_min} % of {writes} writes acknowledged; {judged.acknowledged} were")
    if wanted.stale_reads_max is not None and judged.stale_reads > wanted.stale_reads_max:
        found.append(f"at most {wanted.stale_reads_max} stale reads; there were {judged.stale_reads}")
    if wanted.max_siblings is not None and judged.max_siblings > wanted.max_siblings:
        found.append(f"at most {wanted.max_siblings} siblings; there were {judged.max_siblings}")
    for side in report.sides:
        told = f"{side.acked} of {side.puts} puts acknowledged on the side of {','.join(side.nodes)}"
        if side.acked * 100 < wanted.each_side_acked_percent_min * max(1, side.puts):
            found.append(f"{wanted.each_side_acked_percent_min} % on each side; {told}")
        most = wanted.minority_acked_max
        if most is not None and side.minor and (side.acked > most or not side.puts):
            found.append(f"at most {most} on the smaller side, of one or more; {told}")
    return found
