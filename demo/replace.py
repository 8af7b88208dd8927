"""Replace: a node dies for good under load. Another takes its places, and the copies are whole again."""

from __future__ import annotations

import time

from .crash import Writer, missing, writing
from .grow import PAUSE_S, filled, moved, optimal, planned
from .stage import Stage

TITLE = "Replace: a dead node's places go to a new one while clients write and read"
WHOLE_WITHIN_S = 90.0
WHOLE_WITHIN = f"{WHOLE_WITHIN_S:.0f}s"
NOTICED_S = 2.5


def tell(stage: Stage) -> None:
    """Lose a node for good, and put another in its place."""
    stage.title(TITLE)
    dead = [n["id"] for n in stage.status()["nodes"] if n["member"] == "normal"][-1]
    kept = filled(stage, b"ledger")
    with stage.client() as client, stage.client() as others:
        writer = Writer(client, b"entry", PAUSE_S)
        with writing(writer):
            new = replace(stage, dead)
        stage.say(f"\nMeanwhile {len(writer.acknowledged)} puts were acknowledged; {writer.failed} failed.")
        stage.claim("writes went on all the while", len(writer.acknowledged) > 0)
        lost = missing(others, kept | writer.acknowledged)
    stage.claim(f"all {len(kept) + len(writer.acknowledged)} acknowledged writes are there", not lost)
    settled = stage.kvctl("wait", "converged", "--timeout", "30s")
    stage.claim(f"{new} and the others hold the same, partition by partition", settled.exit == 0)


def replace(stage: Stage, dead: str) -> str:
    """Kill, wipe, replace. The name of the new node."""
    stage.say(f"\n{dead} is killed, and its disk is gone: it will not come back.")
    stage.kvctl("fault", "wipe", dead, "--yes")
    begun = time.monotonic()
    time.sleep(NOTICED_S)
    held = next(n["partitions"] for n in stage.status()["nodes"] if n["id"] == dead)
    stage.say(f"Nothing moves by itself: {dead} may have been on its way back. An operator decides.")
    new = str(stage.kvctl("node", "add", "-o", "json", show=False).json["node"])
    stage.kvctl("cluster", "replace", dead, new)
    plan = planned(stage)
    one_to_one = {(move["from"], move["to"]) for move in plan["moves"]} == {(dead, new)}
    stage.claim(
        f"the {held} places of {dead} go to {new}, and nothing else moves",
        one_to_one and optimal(plan) and plan["replicas_moved"] == held,
    )
    stage.kvctl("cluster", "commit")
    moved(stage, WHOLE_WITHIN)
    took_s = time.monotonic() - begun
    stage.claim(f"whole again {took_s:.0f} s after the kill", took_s < WHOLE_WITHIN_S)
    members = [n["id"] for n in stage.status()["nodes"] if n["member"] != "outside"]
    stage.claim(f"{dead} is no member any more, {new} is", dead not in members and new in members)
    return new
