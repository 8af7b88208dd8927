"""Simulating: seeds to cases, cases to verdicts, on as many processes as there are cores.

Promises: verdicts come in the order of the seeds; a verdict does not depend on the number of processes.
Never: shares anything between two runs.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from msgspec import Struct

from kvctl.scenarios.verdict import Verdict
from kvnode.sim.campaign import run
from kvnode.sim.case import Case, keep
from kvnode.sim.profiles import draw
from kvnode.sim.shrink import numbers, shrink, spans


class Wanted(Struct, frozen=True, kw_only=True):
    """What was asked for, whatever the seed."""

    nodes: int = 5
    minutes: int = 10
    profile: str = "rough"
    mode: str = "eventual"
    rate: int = 20
    reshape: bool = False
    """Whether nodes join, leave and are replaced, whatever the profile says."""
    faults: str | None = None
    """Places of the only faults to do; None for all."""
    ops: str | None = None

    def case(self, seed: int) -> Case:
        """The case of a seed."""
        whole = draw(
            seed, self.profile, nodes=self.nodes, minutes=self.minutes, mode=self.mode, rate=self.rate,
            reshape=self.reshape,
        )  # fmt: skip
        faults = set(range(len(whole.faults))) if self.faults is None else numbers(self.faults)
        ops = {op.number for op in whole.ops} if self.ops is None else numbers(self.ops)
        return keep(whole, faults, ops)

    def replay(self, seed: int, faults: str | None = None, ops: str | None = None) -> str:
        """The command that runs it again."""
        words = [
            f"kvctl simulate --seed {seed} --nodes {self.nodes} --minutes {self.minutes}",
            f"--profile {self.profile} --mode {self.mode} --rate {self.rate}",
        ]
        words += ["--reshape"] if self.reshape else []
        faults, ops = faults if faults is not None else self.faults, ops if ops is not None else self.ops
        words += [f"--faults '{faults}'"] if faults is not None else []
        words += [f"--ops '{ops}'"] if ops is not None else []
        return " ".join(words)


def run_one(seed: int, wanted: Wanted) -> Verdict:
    """One seed, here."""
    began = time.perf_counter()
    case = wanted.case(seed)
    report = run(case)
    return Verdict(
        scenario=wanted.profile, report=report, nodes=case.nodes, keys=case.load.keys,
        took_s=time.perf_counter() - began, replay=wanted.replay(seed),
    )  # fmt: skip


def run_all(seeds: Iterable[int], wanted: Wanted, jobs: int) -> Iterator[Verdict]:
    """All seeds, in order."""
    seeds = list(seeds)
    if jobs == 1 or len(seeds) == 1:
        yield from (run_one(seed, wanted) for seed in seeds)
        return
    with ProcessPoolExecutor(min(jobs, len(seeds)), mp_context=multiprocessing.get_context("fork")) as pool:
        try:
            yield from pool.map(partial(run_one, wanted=wanted), seeds)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def shrunk(seed: int, wanted: Wanted) -> str:
    """A failing seed cut down, told."""
    case = wanted.case(seed)
    claims = run(case).claims
    small = shrink(case, lambda some: bool(run(some).claims & claims))
    places = sorted(numbers(wanted.faults)) if wanted.faults is not None else list(range(len(case.faults)))
    faults = [places[place] for place in small.faults]
    lines = [f"after {small.runs} runs: {len(small.faults)} faults, {len(small.ops)} operations"]
    lines += [f"  {f.at_ms:>8} ms  {f.kind} {','.join(f.nodes)} for {f.lasts_ms} ms" for f in small.case.faults]
    lines.append(f"  again: {wanted.replay(seed, spans(faults), spans(small.ops))}")
    return "\n".join(lines)
