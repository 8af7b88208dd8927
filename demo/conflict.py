"""Conflict: two people edit one cart at once. Neither edit is lost, and whoever reads next merges them."""

from __future__ import annotations

from .stage import Stage

TITLE = "Conflict: concurrent writes become siblings, and a reader merges them"


def tell(stage: Stage) -> None:
    """Two writers with the same context, then a merge."""
    stage.title(TITLE)
    stage.kvctl("put", "cart:2", "milk")
    context = stage.kvctl("get", "cart:2", "-o", "json", show=False).json["context"]
    stage.say("Alice and Bob both read the cart. Each got the value, and a context that says what they saw:")
    stage.say(f"  {context}")

    stage.say("\nAlice adds eggs, Bob adds bread. Each hands back the context of what they had read.")
    stage.kvctl("put", "cart:2", "milk,eggs", "--context", context)
    stage.kvctl("put", "cart:2", "milk,bread", "--context", context)
    read = stage.kvctl("get", "cart:2")
    stage.claim("the store does not pick a winner: a plain get reports a conflict (exit 7)", read.exit == 7)
    both = stage.kvctl("get", "cart:2", "--siblings", "-o", "json", show=False).json
    values = sorted(sibling["value"] for sibling in both["siblings"])
    stage.claim("both edits are there, as siblings", values == ["milk,bread", "milk,eggs"])

    stage.say("\nCarol merges them, handing back the context of both.")
    merged = stage.kvctl("put", "cart:2", "milk,bread,eggs", "--context", both["context"])
    stage.claim("the merge is accepted", merged.exit == 0)
    after = stage.kvctl("get", "cart:2", "-o", "json", show=False).json
    stage.claim("one value is left", after["value"] == "milk,bread,eggs" and len(after["siblings"]) == 1)

    stage.say("\nA slow client still holds the old context and writes with it.")
    stage.kvctl("put", "cart:2", "milk,jam", "--context", context)
    late = stage.kvctl("get", "cart:2", "--siblings", "-o", "json", show=False).json
    values = sorted(sibling["value"] for sibling in late["siblings"])
    stage.claim("its write cannot bury what it had not seen", values == ["milk,bread,eggs", "milk,jam"])
