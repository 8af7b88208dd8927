"""Hints: a node dies under load, others keep its writes for it, and hand them over when it is back."""

from __future__ import annotations

import time

from kvctl import Client
from kvnode.protocol.ring import partition_of

from .crash import Writer, missing, writing
from .stage import Stage

TITLE = "Hints: others keep what a dead node misses, and deliver it when it returns"
BATCH_S = 0.05
"""Between two batches of 50: slow enough to look at, and to be handed over in a few seconds."""
BEFORE_S, AFTER_S = 0.5, 1.5


def owned(client: Client, node: str, pairs: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Those of which this node is an owner."""
    ring = client.ring()
    return {key: value for key, value in pairs.items() if node in ring.owner_ids(partition_of(key, ring.q))}


def tell(stage: Stage) -> None:
    """Kill n3 while writing, see the hints, bring it back, then read from n3 alone."""
    stage.title(TITLE)
    client = stage.client()
    writer = Writer(client, b"mail", pause_s=BATCH_S)
    stage.say("A client writes new keys with W=2. In the middle of it, n3 is killed and stays dead.")
    with writing(writer):
        time.sleep(BEFORE_S)
        stage.kvctl("fault", "kill", "n3")
        before = dict(writer.acknowledged)
        stage.claim(
            "the others conclude that n3 is down", stage.wait("n3 down", lambda: state(stage, "n3") == "down")
        )
        time.sleep(AFTER_S)
    since = {key: value for key, value in writer.acknowledged.items() if key not in before}
    theirs = owned(client, "n3", since)
    stage.say(f"{len(since)} puts acknowledged since it died; n3 is an owner of {len(theirs)} of these keys.")
    stage.claim("writes went on without it", bool(theirs))

    stage.say("\nA third copy of each was made all the same: by a node that is no owner, as a hint for n3.")
    stage.kvctl("hints", "ls")
    kept = node(stage, "n3")["hints_for_it"]
    stage.claim(f"every one of them is kept for n3: {kept} hints", kept >= len(theirs) > 0)
    stage.kvctl("explain", next(iter(theirs)).decode())

    stage.say("\nn3 comes back. Nobody does anything; the holders notice, and deliver.")
    stage.kvctl("fault", "restart", "n3")
    drained = stage.kvctl("wait", "hints-drained", "--timeout", "60s")
    stage.claim(
        "every hint was delivered and forgotten", drained.exit == 0 and node(stage, "n3")["hints_for_it"] == 0
    )

    stage.say("\nDoes n3 really have them on its own disk? Kill all the others, and ask n3 alone (R=1).")
    mine = owned(client, "n3", writer.acknowledged)
    for name in ("n1", "n2", "n4", "n5"):
        stage.kvctl("fault", "kill", name, "--yes", show=False)
    lost = missing(client, mine, r=1)
    client.close()
    stage.claim(f"all {len(mine)} acknowledged keys that n3 owns are on n3 itself", bool(mine) and not lost)
    stage.kvctl("fault", "heal", "--all", show=False)
    stage.wait("all nodes up", stage.all_up)


def node(stage: Stage, name: str) -> dict[str, int]:
    """A node as `kvctl status` shows it."""
    found: dict[str, int] = next(n for n in stage.status()["nodes"] if n["id"] == name)
    return found


def state(stage: Stage, name: str) -> object:
    """Whether the others hold a node to be up."""
    return node(stage, name)["state"]
