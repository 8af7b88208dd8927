"""Running a scenario in the simulator: file and seed to verdict.

Promises: the same file and seed are the same run. Never: passes what the file expects and did not get.
"""

from __future__ import annotations

import shlex
import time

from kvctl.scenarios import load
from kvctl.scenarios.verdict import Verdict
from kvnode.sim.campaign import Report, run
from kvnode.sim.case import Kind
from kvnode.sim.scenario import Scenario, case_of


def run_in_sim(name: str, seed: int | None) -> Verdict:
    """Run it. Raises what `load` does."""
    scenario = load(name)
    began = time.perf_counter()
    case = case_of(scenario, name, seed)
    report = run(case)
    writes = sum(op.kind in (Kind.PUT, Kind.DELETE) for op in case.ops)
    return Verdict(
        scenario=name, report=report, nodes=case.nodes, keys=case.load.keys, took_s=time.perf_counter() - began,
        replay=f"kvctl scenario run {shlex.quote(name)} --seed {case.seed} --on sim",
        unmet=tuple(unmet(scenario, report, writes)),
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
    return found
