"""Faults: what is broken on purpose, until when, and how to break or heal more.

Promises: a fault is set by a form, looked at by a dry run, confirmed, and then told by the nodes that have it;
those that are over stay listed with their time. Never: sets one without its end being said.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

from textual import work
from textual.binding import BindingType
from textual.widget import Widget

from kvctl.console.actions import Action
from kvctl.console.figures import clock, span
from kvctl.console.keymap import Key, bindings
from kvctl.console.page import Page
from kvctl.console.troubles import ends
from kvctl.console.view import ClusterView, Window
from kvctl.console.widgets import table
from kvctl.console.widgets.dialogs import Form, Show
from kvctl.console.widgets.table import Column, KeyTable
from kvctl.output import show, utc
from kvctl.render_faults import ACTIVE, Listed

COLUMNS = (
    Column("ID", most=12), Column("KIND"), Column("TARGET", most=40), Column("VALUE", most=18), Column("SINCE"),
    Column("ENDS", most=24), Column("STATE"), Column("ON", flex=True, rank=1),
)  # fmt: skip
PAST_COLUMNS = (
    Column("ID", most=12), Column("KIND"), Column("TARGET", most=40), Column("FROM"), Column("TO"),
    Column("LASTED", right=True), Column("", flex=True, rank=3),
)  # fmt: skip
KINDS = (
    "kill", "stop", "pause", "wipe", "restart", "partition", "delay", "drop", "duplicate", "reorder", "corrupt",
    "slow-disk", "full-disk", "fail-fsync", "skew",
)  # fmt: skip
FIELDS = (
    ("kind", "kill", " ".join(KINDS)),
    ("target", "", "n3, or n1,n2 against the next field, or n1>n2"),
    ("value", "", "the other side, 100ms, 30%, 5s; empty for kill and the like"),
    ("for", "", "when it ends by itself: 30s, 2m; empty: its default"),
)
VALUELESS = ("kill", "stop", "pause", "wipe", "restart", "full-disk", "fail-fsync")
ACTS = (
    Key("new_fault", "n", "new", "New", "break something: a form, a dry run, a question", True),
    Key("heal_one", "x", "heal", "Heal", "end the fault under the cursor", True),
    Key("heal_all", "H", "heal_all", "Heal all", "end every fault there is", True),
    Key("again_fault", "a", "again", "Again", "the last fault once more (asks first)"),
    Key("run_scenario", "c", "scenario", "Scenario", "run a scenario on this cluster (asks first)", True),
)


class Faults(Page):
    """All faults."""

    NAME = "faults"
    FOCUS = "#faults"
    BINDINGS: ClassVar[list[BindingType]] = bindings(ACTS)

    def body(self) -> Iterable[Widget]:
        """Those in force, those that are over."""
        yield KeyTable(COLUMNS, id="faults", empty="no fault is in force: n breaks something")
        yield KeyTable(PAST_COLUMNS, id="over", empty="none has ended since this console looks")

    def on_mount(self) -> None:
        """Titles."""
        self.query_one("#faults").border_title = "Faults in force"
        self.query_one("#over").border_title = "Over"
        super().on_mount()

    def show(self, view: ClusterView, now_ms: int) -> None:
        """All of it."""
        self.query_one("#faults", KeyTable).show([row_of(fault, now_ms) for fault in view.faults])
        over = [w for w in reversed(view.windows) if w.until_ms is not None]
        self.query_one("#over", KeyTable).show([past_row(w) for w in over])

    def on_key_table_opened(self, event: KeyTable.Opened) -> None:
        """All of it."""
        fault = next((f for f in self.board.view.faults if f.id == event.key), None)
        if fault is not None:
            facts = (
                ("id", fault.id), ("kind", fault.kind), ("target", fault.target), ("value", fault.value or "-"),
                ("since", utc(fault.since) or "-"), ("ends", ends(fault, self.board.now_ms())),
                ("state", fault.state),
                ("on", ", ".join(fault.nodes)), ("heal it", f"kvctl fault heal {fault.id}"),
            )  # fmt: skip
            self.app.push_screen(Show("Fault", [((f"{name:<8}", "dim"), text) for name, text in facts]))

    def subject(self) -> Action:
        """The fault under the cursor."""
        fault = self.query_one("#faults", KeyTable).cursor_key
        return Action(("fault", "heal", fault) if fault else ("fault", "ls"))

    def action_heal(self) -> None:
        """End it."""
        fault = self.query_one("#faults", KeyTable).cursor_key
        if fault:
            self.board.act(Action(("fault", "heal", fault)))

    def action_heal_all(self) -> None:
        """End all."""
        self.board.act(Action(("fault", "heal", "--all")))

    def action_again(self) -> None:
        """The last one that was set from here."""
        if self.board.last_fault is not None:
            self.board.act(self.board.last_fault)

    @work
    async def action_new(self) -> None:
        """A form; what it says is asked about like any fault."""
        told = await self.app.push_screen_wait(Form("Break something", FIELDS, "Look"))
        if told is None:
            return
        action = fault_of(told)
        if isinstance(action, str):
            self.board.tell(action, "bad")
        else:
            self.board.last_fault = action
            self.board.act(action)

    @work
    async def action_scenario(self) -> None:
        """One that is shipped, or a file; on this cluster."""
        from kvctl.scenarios import shipped

        cluster = self.board.cluster
        if cluster is None:
            self.board.tell("scenarios run on a cluster of kvctl up only", "bad")
            return
        names = ", ".join(shipped())
        told = await self.app.push_screen_wait(
            Form("Run a scenario", [("scenario", "", f"a file, or: {names}")], "Look")
        )
        if told and told["scenario"].strip():
            argv = ("scenario", "run", told["scenario"].strip(), "--on", "cluster", "--name", cluster.name)
            self.board.act(Action(argv), show=True)


def fault_of(told: Mapping[str, str]) -> Action | str:
    """What a form asks for; or what is missing in it."""
    kind, target, value, ends_after = (told[name].strip() for name in ("kind", "target", "value", "for"))
    if not kind or not target:
        return "a fault has a kind and a target"
    if value and kind in VALUELESS:
        return f"{kind} takes no value"
    if not value and kind not in VALUELESS:
        return f"{kind} takes a value: the other side, a time or a share"
    argv = ("fault", kind, target, *((value,) if value else ()), *(("--for", ends_after) if ends_after else ()))
    return Action(argv)


def row_of(fault: Listed, now_ms: int) -> table.Row:
    """A fault in force."""
    return table.Row(
        fault.id,
        (
            show(fault.id), (fault.kind, "bad"), show(fault.target), show(fault.value or "-"), clock(fault.since),
            ends(fault, now_ms).removeprefix("by itself "),
            (fault.state, "warn" if fault.state == ACTIVE else "bad"),
            ",".join(map(show, fault.nodes)),
        ),
    )  # fmt: skip


def past_row(window: Window) -> table.Row:
    """One that is over."""
    until = window.until_ms or window.since_ms
    return table.Row(
        f"{window.id} {window.since_ms}",
        (
            show(window.id), window.kind, show(window.target), clock(window.since_ms), clock(until),
            span(until - window.since_ms), "",
        ),
    )  # fmt: skip
