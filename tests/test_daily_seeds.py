"""Seeds nobody has run before: others each day, in all weather and modes; and those that once found a bug, always.

KVSIM_DAY=20781 python -m pytest tests/test_daily_seeds.py    # of another day, by its number since 1970
"""

from __future__ import annotations

import os
import time

import pytest

from kvctl.scenarios.simulating import Wanted, run_one
from kvnode.sim.workload import run

DAY = int(os.environ.get("KVSIM_DAY", str(int(time.time()) // 86_400)))
A_DAY = 5
FOUND_A_BUG = (75, 94, 98, 107, 146, 179)
"""Of `tests/test_sim_seeds.py`, which runs them among others; CHANGELOG and ARCHITECTURE say what each found."""


@pytest.mark.parametrize("mode", ["eventual", "quorum", "strong"])
@pytest.mark.parametrize("profile", ["rough", "hostile"])
def test_the_seeds_of_the_day_break_no_promise(profile: str, mode: str) -> None:
    """A failure here is a bug that was there yesterday: the command it prints shows it again."""
    wanted = Wanted(minutes=1, profile=profile, mode=mode)
    for seed in range(DAY * 1_000, DAY * 1_000 + A_DAY):
        verdict = run_one(seed, wanted)
        assert verdict.passed, verdict.explain()


@pytest.mark.parametrize("seed", FOUND_A_BUG)
def test_a_seed_that_found_a_bug_finds_none(seed: int) -> None:
    """Whatever other seeds are run."""
    verdict = run(seed)
    assert not verdict.violations, verdict.explain()
