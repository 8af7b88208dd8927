"""Merkle: a node loses its disk. Hash trees find what is missing, and only that is sent."""

from __future__ import annotations

from kvctl import KvError

from .stage import Stage

TITLE = "Merkle: a wiped disk is made whole by comparing hash trees"
KEYS = 2_000


def tell(stage: Stage) -> None:
    """Fill, wipe, repair, and repair again for nothing."""
    stage.title(TITLE)
    pairs = {b"photo:%05d" % i: b"pixels of %d" % i for i in range(KEYS)}
    with stage.client() as client:
        for _ in range(3):
            failed = [
                key for key, outcome in client.put_many(pairs, w="all").items() if isinstance(outcome, KvError)
            ]
            if not failed:
                break
            pairs = {key: pairs[key] for key in failed}
    stage.claim(f"{KEYS} keys are written to all their owners", not failed)
    stage.wait("no hints", lambda: stage.kvctl("wait", "hints-drained", "--timeout", "60s", show=False).exit == 0)
    with stage.witness.rest():
        wipe(stage)


def wipe(stage: Stage) -> None:
    """Lose n2's disk, and watch the trees find what is missing."""
    # What n2 missed so far, of writes with W of the three, comes to it first: it is counted.
    stage.kvctl("wait", "converged", "--timeout", "60s", show=False)
    before = keys(stage, "n2")

    stage.say(f"\nn2 owns {before} keys. Its process is killed, and its data directory deleted.")
    stage.kvctl("fault", "wipe", "n2", "--yes")
    stage.kvctl("fault", "restart", "n2")
    stage.wait("n2", stage.all_up)
    stage.say("It comes back under its old name with an empty disk, and begins to compare with the other owners:")
    stage.say(
        "each partition has a hash tree on each of them, and where two roots differ they go down to what does."
    )
    first = stage.kvctl("repair", "run", "--timeout", "60s")
    stage.claim("the repair ran through, and no exchange failed", first.exit == 0)
    stage.kvctl("repair", "status")
    stage.claim(f"n2 holds its {before} keys again", stage.wait("n2's keys", lambda: keys(stage, "n2") == before))

    stage.say("\nOnce more. Now every pair of owners has equal roots, and nothing below a root is looked at.")
    second = stage.kvctl("repair", "run", "--timeout", "60s", "-o", "json", show=False).json
    stage.say(
        f"  {second['exchanges']} exchanges: {second['nodes_compared']} nodes of trees compared, "
        f"{second['keys_compared']} keys compared, {second['keys_repaired']} repaired, "
        f"{second['bytes_sent']} bytes sent"
    )
    stage.claim("the second run compares roots only", second["keys_compared"] == 0 == second["keys_repaired"])
    settled = stage.kvctl("wait", "converged", "--timeout", "60s")
    stage.claim("all owners of every partition have equal roots", settled.exit == 0)


def keys(stage: Stage, name: str) -> int:
    """How many keys a node holds as an owner; -1 while it does not say."""
    held: int | None = next(n["keys"] for n in stage.status()["nodes"] if n["id"] == name)
    return -1 if held is None else held
