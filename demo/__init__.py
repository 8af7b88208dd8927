"""Stories: each runs alone on a cluster of its own, and checks what it claims."""

from __future__ import annotations

from types import ModuleType

from kvnode.sim.check import DIVERGED, LOST, RESURRECTED

from . import conflict, crash, grow, hints, merkle, partition, quorum, register, replace
from .stage import Stage

STORIES: dict[str, ModuleType] = {
    "quorum": quorum, "conflict": conflict, "partition": partition, "register": register, "hints": hints,
    "merkle": merkle, "crash": crash, "grow": grow, "replace": replace,
}  # fmt: skip


TOUR = [name for name in STORIES if name not in ("grow", "replace")]
"""Those of failure, told together on five nodes. The others change which nodes there are, and take their time."""


def verdict(stage: Stage) -> None:
    """What the checker makes of all that the witness was told, through all of the stories."""
    stage.title("The checker's verdict on all of it")
    stage.say("Behind the stories, four clients kept writing and reading keys of their own. Now all is whole and")
    stage.say("quiet, the checker goes through their history, and through what each owner holds of each key.")
    judged = stage.witness.end().judgement
    stage.say(
        f"\n  {judged.operations} operations: {judged.acknowledged} writes acknowledged, "
        f"{judged.indeterminate} unknown, {judged.failed} refused"
    )
    for name, claims in (("lost", LOST), ("resurrected", RESURRECTED), ("diverged", DIVERGED)):
        stage.say(f"  {sum(v.claim in claims for v in judged.violations)} {name}")
    stage.say(f"  {judged.stale_reads} stale reads in mode eventual, {judged.max_siblings} siblings at most")
    for text in (*(f"{v.claim} of {v.key!r}: {v.text}" for v in judged.violations), *judged.unjudged):
        stage.say(f"  {text}")
    stage.claim("no promise was broken, as the checker sees it", judged.passed and judged.acknowledged > 0)


def run(names: list[str]) -> int:
    """Tell these stories on one cluster. The exit code: 0 only if every claim held."""
    with Stage(disk_lost=not {"merkle", "replace"}.isdisjoint(names)) as stage:
        for name in names:
            STORIES[name].tell(stage)
        verdict(stage)
        failed = [claim for claim in stage.claims if not claim.holds]
        stage.title("What was proved")
        for claim in stage.claims:
            stage.say(f"  {'ok  ' if claim.holds else 'FAIL'}  {claim.text}")
        stage.say(f"\n{len(stage.claims) - len(failed)} of {len(stage.claims)} claims held.")
        stage.say("\nTo see it happen: kvctl demo --dashboard plays this while the console shows it.")
        stage.say("On a cluster of yours: kvctl up, then kvctl dashboard (? lists the keys, q quits).")
    return 1 if failed else 0
