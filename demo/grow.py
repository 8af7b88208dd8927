"""Grow: a sixth node joins under load, and another one leaves. Nothing is lost, and nobody waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from kvctl import KvError

from .crash import Writer, missing, writing
from .stage import Stage

TITLE = "Grow: a node joins and another leaves while clients write and read"
KEYS, VALUE = 10_000, b"x" * 300
MOVED_WITHIN = "60s"
PAUSE_S = 0.02


def tell(stage: Stage) -> None:
    """Add a node, let it join, and let another leave."""
    stage.title(TITLE)
    photos = filled(stage, b"album")
    with stage.client() as client, stage.client() as others:
        writer = Writer(client, b"post", PAUSE_S)
        with writing(writer):
            node = join(stage)
            after_join = len(writer.acknowledged)
            leave(stage, "n2")
        stage.say(
            f"\nMeanwhile {len(writer.acknowledged)} puts were acknowledged, {after_join} of them by the time "
            f"{node} had joined; {writer.failed} failed."
        )
        stage.claim("no write failed while the cluster changed its shape", writer.failed == 0 and after_join > 0)
        lost = missing(others, photos | writer.acknowledged)
    stage.claim(f"all {len(photos) + len(writer.acknowledged)} acknowledged writes are there", not lost)
    settled = stage.kvctl("wait", "converged", "--timeout", "30s")
    stage.claim("the copies of every partition are equal", settled.exit == 0)


def filled(stage: Stage, prefix: bytes) -> dict[bytes, bytes]:
    """Keys that are there before anything moves."""
    pairs = {b"%s:%06d" % (prefix, i): VALUE for i in range(KEYS)}
    with stage.client() as client:
        failed = [k for k, outcome in client.put_many(pairs).items() if isinstance(outcome, KvError)]
    stage.claim(f"{KEYS} keys are there to begin with", not failed)
    return pairs


def join(stage: Stage) -> str:
    """A new node: started, staged, planned, committed, watched."""
    stage.say("\nA new node is started. It is known to all, and owns nothing yet:")
    node = str(stage.kvctl("node", "add", "-o", "json", show=False).json["node"])
    stage.kvctl("node", "ls")
    stage.kvctl("cluster", "join", node)
    stage.say("Joining is only staged. The plan says what it would move, and what it would cost:")
    plan = planned(stage)
    stage.claim(f"the plan moves {plan['replicas_moved']} replicas, the fewest there can be", optimal(plan))
    takers = {move["to"] for move in plan["moves"]}
    stage.claim("nothing moves between those who were there", takers == {node})
    stage.kvctl("cluster", "commit")
    moved(stage)
    counts = [n["partitions"] for n in stage.status()["nodes"]]
    stage.claim(f"{node} has its share, as everyone: {min(counts)}..{max(counts)} partitions", spread(counts) <= 1)
    return node


def leave(stage: Stage, node: str) -> None:
    """A node gives away all it has, and goes."""
    stage.say(f"\nNow {node} is to go. It serves until others have all that it has.")
    stage.kvctl("cluster", "leave", node)
    plan = planned(stage)
    stage.claim("only what the leaver has moves", optimal(plan) and {m["from"] for m in plan["moves"]} == {node})
    stage.kvctl("cluster", "commit")
    moved(stage)
    members = [n["id"] for n in stage.status()["nodes"] if n["member"] != "outside"]
    stage.claim(f"{node} has left: {', '.join(members)} remain", node not in members)
    stage.kvctl("node", "stop", node)


def planned(stage: Stage) -> Any:
    """Show a plan to the audience, and look at it closely."""
    stage.kvctl("cluster", "plan")
    return stage.kvctl("cluster", "plan", "-o", "json", show=False).json


def optimal(plan: Any) -> bool:
    """Whether a plan moves about the least possible."""
    moved_now: int = plan["replicas_moved"]
    return 0 < moved_now <= 1.05 * plan["optimum"]


def moved(stage: Stage, within: str = MOVED_WITHIN) -> None:
    """Watch the transfers until there are none."""
    watch(stage, lambda: stage.kvctl("status", "-o", "json", show=False).json["moves"])
    done = stage.kvctl("wait", "ring-ready", "--timeout", within)
    stage.claim(f"everything is where it belongs within {within}", done.exit == 0)


def watch(stage: Stage, left: Callable[[], Any]) -> None:
    """Tell the audience how far the transfers are, once a second."""
    deadline = time.monotonic() + float(MOVED_WITHIN.removesuffix("s"))
    while (way := left()) and time.monotonic() < deadline:
        amount = "" if way["bytes_left"] is None else f", {way['bytes_left'] / 1e6:.1f} MB"
        time_left = "" if way["left_s"] is None else f", about {way['left_s']:.0f} s to go"
        stage.say(f"  {way['partitions_left']} partitions are on their way{amount}{time_left}")
        time.sleep(1.0)


def spread(counts: list[int]) -> int:
    """How far apart they are."""
    return max(counts) - min(counts)
