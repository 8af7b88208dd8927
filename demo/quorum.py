"""Quorum: how many copies a write needs, who holds them, and what happens when some are gone."""

from __future__ import annotations

from .stage import Stage

TITLE = "Quorum: N copies, W to write, R to read"


def tell(stage: Stage) -> None:
    """Write, lose owners one by one, and see which requests still go through."""
    stage.title(TITLE)
    stage.say("Every key has N=3 owners among the five nodes. Where does this one live?")
    stage.kvctl("explain", "cart:1")
    first, second, third = stage.owners("cart:1")

    put = stage.kvctl("put", "cart:1", "milk", "-w", "all", "-o", "json", show=False).json
    stage.say(f"A put with -w all answers when {first}, {second} and {third} have it on disk.")
    stage.claim("all three owners acknowledged the write", put["acked"] == 3)

    stage.say(f"\nNow one owner dies, by SIGKILL: {third}.")
    stage.kvctl("fault", "kill", third)
    put = stage.kvctl("put", "cart:1", "milk,eggs", "-o", "json", show=False)
    stage.claim("with one of three owners gone, W=2 still succeeds", put.exit == 0 and put.json["acked"] >= 2)
    get = stage.kvctl("get", "cart:1", "--mode", "quorum", "-o", "json", show=False)
    stage.claim("a quorum read sees the latest write", get.exit == 0 and get.json["value"] == "milk,eggs")
    stage.say("In mode quorum only owners count, never a node that stands in for one.")
    refused = stage.kvctl("put", "cart:1", "bread", "-w", "all", "--mode", "quorum")
    stage.claim("W=3 cannot be met, and the store says so (exit 4 or 6)", refused.exit in (4, 6))

    stage.say(f"\nA second owner dies: {second}. Only {first} is left.")
    stage.kvctl("fault", "kill", second, "--yes")
    unavailable = stage.kvctl("get", "cart:1", "--mode", "quorum")
    stage.claim("a quorum read is refused rather than answered wrongly", unavailable.exit in (4, 6))
    one = stage.kvctl("get", "cart:1", "-r", "one")
    stage.claim("a read with R=1 still answers", one.exit == 0)

    stage.say("\nBoth come back, with their data.")
    stage.kvctl("fault", "restart", second)
    stage.kvctl("fault", "restart", third)
    stage.wait("all nodes up", stage.all_up)
    back = stage.kvctl("put", "cart:1", "milk,eggs,bread", "-w", "all", "-o", "json", show=False)
    stage.claim("all three owners acknowledge again", back.exit == 0 and back.json["acked"] == 3)
