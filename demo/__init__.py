"""Stories: each runs alone on a cluster of its own, and checks what it claims."""

from __future__ import annotations

from types import ModuleType

from . import conflict, crash, hints, merkle, partition, quorum
from .stage import Stage

STORIES: dict[str, ModuleType] = {
    "quorum": quorum, "conflict": conflict, "partition": partition, "hints": hints, "merkle": merkle,
    "crash": crash,
}  # fmt: skip


def run(names: list[str]) -> int:
    """Tell these stories on one cluster. The exit code: 0 only if every claim held."""
    with Stage() as stage:
        for name in names:
            STORIES[name].tell(stage)
        failed = [claim for claim in stage.claims if not claim.holds]
        stage.title("What was proved")
        for claim in stage.claims:
            stage.say(f"  {'ok  ' if claim.holds else 'FAIL'}  {claim.text}")
        stage.say(f"\n{len(stage.claims) - len(failed)} of {len(stage.claims)} claims held.")
    return 1 if failed else 0
