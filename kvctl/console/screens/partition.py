"""One partition: its owners, their trees, the exchanges under way, some of its keys.

Promises: roots and keys are asked for when the page is opened, and say when that was. Never: asks again by
itself: a scan is work for the nodes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from msgspec import Struct
from textual.binding import BindingType
from textual.widget import Widget

from kvctl.client import Client
from kvctl.console.actions import Action
from kvctl.console.askingpage import AGAIN, AskingPage
from kvctl.console.figures import clock, size
from kvctl.console.keymap import Key, bindings
from kvctl.console.view import ClusterView
from kvctl.console.widgets.pane import Pane
from kvctl.console.widgets.tones import Line
from kvctl.errors import KvError
from kvctl.output import show
from kvnode.protocol.ring import SLOTS, partition_of

SCAN_MAX = 2_000
KEYS_MAX = 200
ACTS = (
    Key("repair_one", "r", "repair", "Repair", "compare the copies of this partition now", True),
    AGAIN,
)


class Asked(Struct, frozen=True):
    """What was asked for once."""

    roots: dict[str, bytes]
    keys: tuple[bytes, ...]
    scanned: int
    problem: str = ""
    """Why no more keys were looked at."""


def ask(client: Client, partition: int) -> Asked:
    """Each owner's root, and the keys among the first that are in this partition."""
    ring = client.ring()
    told = client.status(1.0, roots=True)
    roots = {
        str(report.id): root.hash
        for report in told.reports
        if report is not None
        for root in report.roots
        if root.partition == partition
    }
    found: list[bytes] = []
    scanned = 0
    try:
        for item in client.scan(limit=SCAN_MAX):
            scanned += 1
            if partition_of(item.key, ring.q) == partition and len(found) < KEYS_MAX:
                found.append(item.key)
    except KvError as error:  # the roots are known all the same
        return Asked(roots, tuple(found), scanned, error.message)
    return Asked(roots, tuple(found), scanned)


class PartitionPage(AskingPage[Asked]):
    """One partition."""

    NAME = "partition"
    FOCUS = "#partition"
    BINDINGS: ClassVar[list[BindingType]] = bindings(ACTS)

    def __init__(self, partition: int) -> None:
        super().__init__()
        self.partition = partition

    def body(self) -> Iterable[Widget]:
        """One pane."""
        yield Pane(id="partition")

    def on_mount(self) -> None:
        """The title."""
        self.query_one("#partition").border_title = f"Partition {self.partition}"
        super().on_mount()

    def question(self, client: Client) -> Asked:
        """Roots and keys."""
        return ask(client, self.partition)

    def show(self, view: ClusterView, now_ms: int) -> None:
        """All of it."""
        self.query_one("#partition", Pane).show(partition_lines(view, self.partition, self.told, self.asked_ms))

    def subject(self) -> Action:
        """This partition."""
        return Action(("repair", "run", "--partition", str(self.partition)))

    def action_repair(self) -> None:
        """Compare its copies."""
        self.board.act(self.subject())


def root_text(root: bytes | None) -> str:
    """As far as it tells trees apart."""
    if root is None:
        return "not told"
    return root.hex()[:16] if any(root) else "(no keys)"


def partition_lines(view: ClusterView, partition: int, asked: Asked | str, asked_ms: int) -> list[Line]:
    """Owners with their roots; exchanges; keys."""
    ring = view.ring
    if ring is None or partition >= ring.q:
        return [(("the ring has no such partition", "warn"),)]
    slots = SLOTS // ring.q
    lines: list[Line] = [
        (("slots         ", "dim"), f"{partition * slots}..{(partition + 1) * slots - 1}"),
        (("owners since  ", "dim"), f"epoch {ring.since[partition]}"),
        (),
        ((f"{'PLACE':<7}{'NODE':<22}{'STATE':<10}{'TREE ROOT':<18}", "head"),),
    ]
    roots = asked.roots if isinstance(asked, Asked) else {}
    known = {roots[node] for node in ring.owner_ids(partition) if node in roots}
    for place, owner in enumerate(ring.owners[partition]):
        row = view.rows[owner]
        state = row.state if row.fresh else "silent"
        root = roots.get(row.id)
        lines.append((f"{place + 1:<7}{show(row.id):<22}", (f"{state:<10}", "good" if state == "up" else "bad"),
                      (root_text(root), "plain" if len(known) <= 1 else "warn")))  # fmt: skip
    if isinstance(asked, str):
        lines += [(), ((asked, "dim"),)]
    else:
        untold = [show(node) for node in ring.owner_ids(partition) if node not in roots]
        word = ("all owners hold the same", "good")
        if len(known) > 1:
            word = ("the owners hold different things", "warn")
        elif untold:
            word = (f"{', '.join(untold)} did not tell; the others hold the same", "warn")
        lines += [(), (word, (f"   asked {clock(asked_ms)}", "dim"))]
    lines += [(), (("EXCHANGES UNDER WAY", "head"),)]
    walking = [
        (row.id, e) for row in view.rows if row.fresh and row.report and row.report.repair
        for e in row.report.repair.active if e.partition == partition
    ]  # fmt: skip
    lines += [
        (f"{show(node)} > {show(e.peer)}  ", (f"{e.step:<9}", "accent"),
         f"{e.nodes_compared} nodes, {e.keys_compared} keys compared, {e.keys_repaired} repaired, "
         f"{size(e.bytes_sent)}")
        for node, e in walking
    ] or [(("none", "dim"),)]  # fmt: skip
    if isinstance(asked, Asked):
        lines += [
            (),
            (("KEYS", "head"), (f"  {len(asked.keys)} among the first {asked.scanned} of the cluster", "dim")),
        ]
        lines += [(f"  {show(key)}",) for key in asked.keys]
        if asked.problem:
            lines.append(((f"  the search ended: {asked.problem}", "warn"),))
    return lines
