"""Seeds in which tombstones are reaped: a third of the writes are deletes, the grace is two minutes, things break.

    KVSIM_REAPING=1..60 python -m pytest tests/test_sim_reaping.py      # others

The grace of all other seeds is a day, so that nothing in them is ever reaped.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial

import msgspec
import pytest

from kvnode.config import Settings
from kvnode.sim import campaign, check
from kvnode.sim.case import Case, Load, plan
from kvnode.sim.claims import Buried
from kvnode.sim.clock import derive
from kvnode.sim.profiles import draw
from kvnode.sim.story import KeyStory
from kvnode.sim.world import World

FIRST, LAST = (int(end) for end in os.environ.get("KVSIM_REAPING", "4..5").split(".."))
HASTY = partial(Settings, grace_ms=120_000, scrub_interval_ms=15_000)


def no_lost_write(story: KeyStory) -> Iterator[str]:
    """As the checker's, but a tombstone may be gone; whether what it covered is back, other claims tell."""
    buried = Buried()
    for dot, known in sorted(story.versions.items(), key=lambda item: (item[0].time, item[0].actor), reverse=True):
        writers = story.writers(dot, known.value)
        if dot in story.final or known.value is None or buried.rightly(dot, writers.asked):
            buried.add(known.past, writers)
        elif not story.disks_lost or dot in story.acknowledged:
            yield f"{known.value!r} ({dot}), {known.where}, is gone"


def case_of(seed: int, profile: str) -> Case:
    """Few operations on many keys, and a fault now and then: else no key is left alone for long enough."""
    case = draw(seed, profile, minutes=8)
    load = Load(
        clients=4, keys=60, rate=2, gets=30, puts=35, deletes=33, timeout_ms=1_000, single=case.load.single
    )
    ops = plan(derive(seed, "operations"), load, case.lasts_ms)
    return msgspec.structs.replace(case, load=load, ops=ops, faults=case.faults[::4], repair_interval_ms=20_000)


@pytest.mark.parametrize("profile", ["rough", "hostile"])
@pytest.mark.parametrize("seed", range(FIRST, LAST + 1))
def test_no_seed_undoes_a_delete_that_was_reaped(seed: int, profile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dozens of records are reaped while nodes are killed, cut off and their clocks wrong; nothing comes back."""
    worlds: list[World] = []
    init = World.__init__

    def remember(self: World, *args: object, **more: object) -> None:
        init(self, *args, **more)  # type: ignore[arg-type]
        worlds.append(self)

    monkeypatch.setattr(World, "__init__", remember)
    monkeypatch.setattr(campaign, "Settings", HASTY)
    monkeypatch.setitem(check.CLAIMS, "no_lost_write", no_lost_write)
    report = campaign.run(case_of(seed, profile))
    assert report.passed, (seed, profile, report.judgement.violations[:3], report.judgement.unjudged)
    reaped = sum(node.local.counters["reaped"] for node in worlds[0].nodes.values())
    print(f"seed {seed}, {profile}: {reaped} records reaped, {report.faults}")
    assert reaped or profile == "hostile"
