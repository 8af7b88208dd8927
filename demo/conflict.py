"""Conflict: two people edit one cart at once. Neither edit is lost, and whoever reads next merges them."""

from __future__ import annotations

from kvctl import last_write, union_by

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

    stage.say("\nThat is for a program to merge: the Python client has merges of its own, and takes yours.")
    with stage.client() as kv:
        stage.say('>>> kv.get_merged("cart:2", union_by(b","))')
        cart = kv.get_merged("cart:2", union_by(b","))
        stage.say(f"{cart!r}")
        stage.claim("a union keeps what anyone put in", cart == b"bread,eggs,jam,milk")
        stage.claim("and is written back: one value is left", len(kv.get("cart:2").siblings) == 1)

        first = kv.put("name:2", b"Ann").context
        for name in (b"Anna", b"Anne"):
            kv.put("name:2", name, context=first)
        stage.say('>>> kv.get_merged("name:2", last_write)')
        stage.claim("the last write wins, where one asks for that", kv.get_merged("name:2", last_write) == b"Anne")

        kv.update("cart:2", lambda old: (old or b"") + b",tea")
        stage.claim("read, change, write back in one call", kv.get("cart:2").value == b"bread,eggs,jam,milk,tea")
