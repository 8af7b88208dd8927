"""Plan: stage changes of members, look at what a commit would move, commit it, watch the transfers.

Promises: what a commit would do is the nodes' own plan, asked for every two seconds while this screen is on
top; a commit names the very plan that was shown. Never: moves anything before a commit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

from msgspec import Struct
from textual import work
from textual.binding import BindingType
from textual.widget import Widget

from kvctl.client import Client
from kvctl.console import cells
from kvctl.console.actions import Action
from kvctl.console.askingpage import AskingPage
from kvctl.console.figures import count, size, span
from kvctl.console.keymap import Key, bindings
from kvctl.console.view import ClusterView, Row
from kvctl.console.widgets import table
from kvctl.console.widgets.dialogs import Form
from kvctl.console.widgets.pane import Text
from kvctl.console.widgets.table import Column, KeyTable
from kvctl.console.widgets.tones import Cell, Line, bar, wrapped
from kvctl.output import show
from kvctl.render_shape import change_text, plan_head, progress_text
from kvctl.shape import Cost, Progress, cost, progress
from kvnode.protocol.messages import ClusterReport, Plan
from kvnode.protocol.ring import Ring
from kvnode.protocol.types import NodeId

AGAIN_S = 2.0
COLUMNS = (
    Column("NODE", most=20), Column("MEMBER"), Column("BEFORE", right=True), Column("AFTER", right=True),
    Column("TAKES", right=True), Column("GIVES", right=True), Column("TO TAKE", right=True, rank=1),
    Column("DONE", rank=3), Column("LEFT", right=True, rank=2), Column("RATE", right=True, rank=2),
    Column("TIME LEFT", right=True, rank=1), Column("WAITS FOR", flex=True, rank=4),
)  # fmt: skip
ACTS = (
    Key("stage", "n", "stage", "Stage", "a change of members: join, leave, replace, force-remove", True),
    Key("commit", "C", "commit", "Commit", "carry out the plan that is shown (asks first)", True),
    Key("clear_staged", "X", "clear", "Clear", "forget all that is staged", True),
    Key("cancel_moves", "ctrl+x", "cancel", "Cancel", "end the transfers under way (asks first)", True),
)
FIELDS = (
    ("change", "join", "join, leave, replace, force-remove"),
    ("node", "", "the node; of replace, the one that goes"),
    ("new", "", "of replace: the one that comes"),
)


class Asked(Struct, frozen=True):
    """What the nodes plan, and how far they are."""

    plan: Plan
    cost: Cost
    way: Progress
    told: ClusterReport


def ask(client: Client) -> Asked:
    """One question for each."""
    told, plan = client.status(), client.plan()
    return Asked(plan, cost(plan, told), progress(told), told)


class PlanScreen(AskingPage[Asked]):
    """The staged changes, and what they mean."""

    NAME = "plan"
    ASKS = "asking for the plan ..."
    FOCUS = "#members"
    BINDINGS: ClassVar[list[BindingType]] = bindings(ACTS)

    def body(self) -> Iterable[Widget]:
        """The plan in words, as a strip, by node."""
        yield Text(id="plan-head", classes="frame")
        yield Text(id="plan-strip", classes="frame")
        yield KeyTable(COLUMNS, id="members", empty="no node has been seen")

    def on_mount(self) -> None:
        """Ask again and again."""
        for name, title in (("plan-head", "Plan"), ("plan-strip", "Ring, before and after"), ("members", "Nodes")):
            self.query_one(f"#{name}").border_title = title
        super().on_mount()
        self.set_interval(AGAIN_S, self._once_more)

    def question(self, client: Client) -> Asked:
        """The plan, and how far the last one is."""
        return ask(client)

    def _once_more(self) -> None:
        """Only where somebody looks, and not before the last answer: one that never comes in time is told too."""
        if self.is_current and not self.asking:
            self.action_again()

    def show(self, view: ClusterView, now_ms: int) -> None:
        """All of it."""
        asked = self.told
        head, strip = self.query_one("#plan-head", Text), self.query_one("#plan-strip", Text)
        if isinstance(asked, str):
            head.show([((asked, "dim"),)])
        else:
            head.show([part for line in head_lines(asked) for part in wrapped(line, head.size.width)])
            strip.show(strip_lines(asked.told.ring, asked.cost, strip.size.width))
        rows = [member_row(row, None if isinstance(asked, str) else asked) for row in view.rows]
        known = {row.id for row in view.rows}
        if not isinstance(asked, str):
            rows += [new_row(node, asked) for node in asked.cost.after if node not in known]
        self.query_one("#members", KeyTable).show(rows)

    def subject(self) -> Action:
        """The plan; or its commit, where there is one."""
        if not isinstance(self.told, str) and self.told.plan.changes and not self.told.plan.problem:
            return Action(("cluster", "commit", self.told.plan.id))
        return Action(("cluster", "plan"))

    @work
    async def action_stage(self) -> None:
        """A form."""
        told = await self.app.push_screen_wait(Form("Stage a change", FIELDS, "Stage"))
        if told is None:
            return
        action = change_of(told)
        if isinstance(action, str):
            self.board.tell(action, "bad")
        else:
            await self._done(action)

    @work
    async def action_commit(self) -> None:
        """The plan that is shown, and no other."""
        action = self.subject()
        if action.words[1] == "plan":
            self.board.tell("there is nothing to commit", "dim")
        else:
            await self._done(action)

    @work
    async def action_clear(self) -> None:
        """Forget what is staged."""
        await self._done(Action(("cluster", "clear")))

    @work
    async def action_cancel(self) -> None:
        """End what is under way."""
        await self._done(Action(("cluster", "cancel")))

    async def _done(self, action: Action) -> None:
        await self.board.act(action).wait()
        self.action_again()


def change_of(told: Mapping[str, str]) -> Action | str:
    """What a form asks for; or what is missing in it."""
    change, node, new = (told[name].strip() for name in ("change", "node", "new"))
    if change not in ("join", "leave", "replace", "force-remove"):
        return f"there is no change {change!r}: join, leave, replace or force-remove"
    if not node or (change == "replace") != bool(new):
        return "replace names two nodes, all others one"
    return Action(("cluster", change, node, *((new,) if new else ())))


def head_lines(asked: Asked) -> list[Line]:
    """What it would do, what is wrong with it, how far the last one is."""
    plan = asked.plan
    if not plan.changes:
        lines: list[Line] = [(("nothing is staged", "dim"), ": n stages a change; nothing moves before a commit")]
    else:
        staged = ", ".join(change_text(change) for change in plan.changes)
        lines = [((f"staged: {staged}", "head"),), *((line,) for line in plan_head(plan, asked.cost)[1:])]
        lines += [((f"! {warning}", "warn"),) for warning in asked.cost.warnings[:2]]
        if plan.problem:
            lines.append(((f"it cannot be committed: {plan.problem}", "bad"),))
        else:
            lines.append(((f"$ kvctl cluster commit {plan.id}", "accent"),))
    moving = progress_text(asked.way)
    return [*lines, ((moving, "warn"),)] if moving else lines


def strip_lines(ring: Ring, found: Cost, width: int) -> list[Line]:
    """First owners now, and as planned; a mark under each cell in which a replica moves."""
    room = max(8, width - 8)
    names = list(dict.fromkeys((*(member.id for member in ring.members), *found.after)))
    takers = {(t.partition, t.giver): t.taker for t in found.transfers if t.taker is not None}
    moving = {t.partition for t in found.transfers}
    parts = cells.parts(ring.q, room)
    firsts = [(part[0], ring.owner_ids(part[0])[0]) for part in parts]
    now = "".join(cells.letter(names.index(first)) for _, first in firsts)
    then = "".join(cells.letter(names.index(takers.get((p, first), first))) for p, first in firsts)
    moved = "".join("^" if any(p in moving for p in part) else " " for part in parts)
    legend: list[Cell] = [(f"{cells.letter(i)} {show(name)}  ", "plain") for i, name in enumerate(names[:12])]
    return [
        (("before  ", "dim"), now),
        (("after   ", "dim"), then),
        (("moves   ", "dim"), (moved, "warn")),
        (" " * 8, *legend),
    ]


def member_row(row: Row, asked: Asked | None) -> table.Row:
    """A member: what it holds, will hold, and has still to take."""
    report = row.report if row.fresh else None
    moves = report.moves if report is not None else None
    member = report.member if report is not None else "-"
    total = (moves.partitions_left + moves.partitions_taken) if moves is not None else 0
    share = moves.partitions_taken / total if moves is not None and total else None
    going = moves is not None and moves.partitions_left > 0
    return table.Row(
        row.id,
        (
            show(row.id), (member, "plain" if member == "normal" else "warn"), *_planned(row.id, asked),
            (count(moves.partitions_left) if moves is not None and going else "-", "warn" if going else "dim"),
            bar(share, 8) if share is not None and going else "",
            size(moves.bytes_left) if moves and going else "-",
            f"{size(round(moves.bytes_per_s))}/s" if moves and moves.bytes_per_s else "-",
            span(moves.left_ms) if moves and going and moves.left_ms is not None else "-",
            (moves.waiting if moves else "", "warn"),
        ),
    )  # fmt: skip


def new_row(node: str, asked: Asked) -> table.Row:
    """One that the plan would make a member."""
    return table.Row(node, (show(node), ("outside", "warn"), *_planned(node, asked), *("-",) * 5, ""))


def _planned(node: str, asked: Asked | None) -> tuple[Cell, Cell, Cell, Cell]:
    """Replicas before, after, taken, given."""
    if asked is None:
        return ("-", "-", "-", "-")
    before, after = asked.cost.before.get(NodeId(node)), asked.cost.after.get(NodeId(node))
    takes = sum(t.taker == node for t in asked.cost.transfers)
    gives = sum(t.giver == node for t in asked.cost.transfers)
    return (
        count(before), (count(after), "plain" if before == after else "accent"),
        (f"+{takes}" if takes else "-", "good" if takes else "dim"),
        (f"-{gives}" if gives else "-", "warn" if gives else "dim"),
    )  # fmt: skip
