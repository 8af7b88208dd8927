"""Partition: one split, two answers. AP writes on both sides, CP decides each key on one."""

from __future__ import annotations

import time
from typing import NamedTuple

from rich.table import Table
from rich.text import Text

from kvctl import Client, KvError
from kvnode.protocol.messages import ClusterReport, Status
from kvnode.protocol.ring import partition_of

from .stage import Stage

TITLE = "Partition: available on both sides, or consistent on one"
MINOR, MAJOR = ("n1", "n2"), ("n3", "n4", "n5")
KEYS = 40
MODES = {"eventual": "AP: eventual", "strong": "CP: strong"}


class Side(NamedTuple):
    """What clients of one side were told."""

    acked: int
    refused: int
    unknown: int
    slowest_ms: float


def tell(stage: Stage) -> None:
    """Cut two nodes off from three, write the same keys on both sides in both modes, and heal."""
    stage.title(TITLE)
    stage.say("The same network failure, met in two ways. Two nodes are cut off from the other three:")
    stage.kvctl("fault", "partition", ",".join(MINOR), ",".join(MAJOR), "--dry-run")
    cut = stage.kvctl("fault", "partition", ",".join(MINOR), ",".join(MAJOR), "--for", "60s")
    stage.claim("every node has acknowledged the cut", cut.exit == 0)
    with stage.client() as client:
        stage.claim("each side holds the other to be down", stage.wait("the split seen", lambda: split(client)))
        told = {
            (mode, side): writes(client, mode, side, nodes)
            for mode in MODES
            for side, nodes in (("n1 n2", MINOR), ("n3 n4 n5", MAJOR))
        }
        stage.say(f"\nClients of each side put {KEYS} keys, once in mode eventual and once in mode strong:")
        stage.show(table(told))
        both = [told["eventual", side].acked for side in ("n1 n2", "n3 n4 n5")]
        stage.claim("AP: both sides acknowledge every put", both == [KEYS, KEYS])
        minor, major = (told["strong", side] for side in ("n1 n2", "n3 n4 n5"))
        sides = f"{minor.acked} and {major.acked} of {KEYS}"
        stage.claim(
            f"CP: each key is writeable on one side at most ({sides})", 0 < minor.acked + major.acked <= KEYS
        )
        owned = sum(majority_in(client, f"strong:{i}", MINOR) for i in range(KEYS))
        stage.claim(
            f"CP: n1 and n2 decide only the {owned} keys of which they own two copies", minor.acked <= owned
        )
        stage.claim(
            "CP: nobody is left in doubt, or waits a second", minor.unknown == 0 and minor.slowest_ms < 1_000
        )

        stage.say("\nThe network heals. What did each mode make of it?")
        stage.kvctl("fault", "heal", "--all")
        with stage.witness.rest():  # while anyone writes, some copy is always a moment behind
            settled = stage.kvctl("wait", "converged", "--timeout", "60s")
        stage.claim("hints drained, replicas equal", settled.exit == 0)
        values = {key: seen(client, key, "eventual") for key in keys("eventual")}
        stage.kvctl("get", "eventual:0", "--siblings")
        stage.claim(
            f"AP: nothing acknowledged is lost: all {KEYS} keys have both values, as siblings to be merged",
            all(set(found) == {b"n1 n2", b"n3 n4 n5"} for found in values.values()),
        )
        decided = [seen(client, key, "strong") for key in keys("strong")]
        stage.kvctl("get", "strong:0", "--mode", "strong")
        stage.claim(
            "CP: every key has one value, of the side that could decide", all(len(v) == 1 for v in decided)
        )


def keys(mode: str) -> list[str]:
    """The keys of a mode."""
    return [f"{mode}:{i}" for i in range(KEYS)]


def writes(client: Client, mode: str, side: str, nodes: tuple[str, ...]) -> Side:
    """Put every key through the nodes of one side."""
    acked = refused = unknown = 0
    slowest = 0.0
    for i, key in enumerate(keys(mode)):
        began = time.monotonic()
        try:
            client.put(key, side.encode(), mode=mode, via=nodes[i % len(nodes)], siblings=mode == "eventual")
            acked += 1
        except KvError as error:
            unknown += error.applied == "maybe"
            refused += error.applied != "maybe"
        slowest = max(slowest, (time.monotonic() - began) * 1000)
    return Side(acked, refused, unknown, slowest)


def seen(client: Client, key: str, mode: str) -> list[bytes]:
    """The values of a key, whoever is asked."""
    return [sibling.value for sibling in client.fetch(key, mode=mode).siblings]


def majority_in(client: Client, key: str, nodes: tuple[str, ...]) -> bool:
    """Whether these nodes own a majority of a key's copies."""
    ring = client.ring()
    owners = ring.owner_ids(partition_of(key.encode(), ring.q))
    return sum(owner in nodes for owner in owners) > len(owners) // 2


def split(client: Client) -> bool:
    """Whether each node holds all of the other side to be down."""
    told = client.ask_each(lambda rid, _: Status(rid, 200))
    views = {
        (report.id, view.node): view.state
        for node, answer in told.items()
        if isinstance(answer, ClusterReport)
        for report in answer.reports
        if report is not None and report.id == node
        for view in report.peers
    }
    return all(views.get(pair) == "down" for a in MINOR for b in MAJOR for pair in ((a, b), (b, a)))


def table(told: dict[tuple[str, str], Side]) -> Table:
    """Both modes side by side."""
    shown = Table(box=None, padding=(0, 2), header_style="dim")
    for head in ("", "SIDE", "ACKED", "REFUSED", "UNKNOWN", "SLOWEST"):
        shown.add_column(head, justify="left" if head in ("", "SIDE") else "right")
    for (mode, side), count in told.items():
        style = "green" if count.acked == KEYS else "yellow"
        shown.add_row(
            Text(MODES[mode], "bold"), side, Text(str(count.acked), style), str(count.refused), str(count.unknown),
            f"{count.slowest_ms:.0f} ms",
        )  # fmt: skip
    return shown
