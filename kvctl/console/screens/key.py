"""One key: where it lives, and each replica's versions side by side; merge, put, delete.

Promises: what each owner holds is that owner's word, asked when the page is opened; a merge covers what was
shown here, and no more: what is written meanwhile stays a sibling. Never: a write without its command shown.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import ClassVar

import msgspec
from msgspec import Struct
from rich.cells import cell_len
from textual import work
from textual.binding import BindingType
from textual.widget import Widget

from kvctl.client import Client
from kvctl.console.actions import Action
from kvctl.console.askingpage import AGAIN, AskingPage
from kvctl.console.figures import clock
from kvctl.console.keymap import Key, bindings
from kvctl.console.view import ClusterView
from kvctl.console.widgets.dialogs import Form
from kvctl.console.widgets.pane import Pane
from kvctl.console.widgets.tones import Cell, Line, clean, fit, text_of, tone_of, width_of, wrapped
from kvctl.model import Item
from kvctl.output import show, utc
from kvctl.render_explain import explain_view
from kvctl.render_register import is_register, register_lines
from kvnode.protocol import messages as m
from kvnode.protocol.ring import SLOTS
from kvnode.protocol.types import Version, decode_record, time_to_wall

COLUMN = 56
VALUE_LINES = 6
TOLD = ("present", "register", "absent")
"""States of a replica that told what it holds."""
ACTS = (
    Key("put_key", "P", "put", "Put", "write another value over what is shown", True),
    Key("merge", "M", "merge", "Merge", "write one value over all siblings shown", True),
    Key("delete_key", "ctrl+d", "delete", "Delete", "write a tombstone over what is shown (asks first)", True),
    AGAIN,
)


class Seen(Struct, frozen=True):
    """What was asked for."""

    told: m.Explained
    item: Item
    q: int


def look(client: Client, key: bytes) -> Seen:
    """Each owner's copy, and what a read returns."""
    told = client.explain(key)
    item = client.fetch(key, mode="strong" if is_register(told) else "eventual")
    return Seen(told, item, client.ring().q)


def arg_of(key: bytes) -> str:
    """A key as the command line takes it: its very bytes."""
    return os.fsdecode(key)


class KeyPage(AskingPage[Seen]):
    """One key."""

    NAME = "key"
    FOCUS = "#key"
    BINDINGS: ClassVar[list[BindingType]] = bindings(ACTS)

    def __init__(self, key: bytes) -> None:
        super().__init__()
        self.key = key

    def body(self) -> Iterable[Widget]:
        """One pane."""
        yield Pane(id="key")

    def on_mount(self) -> None:
        """The title."""
        self.query_one("#key").border_title = f"Key {clean(show(self.key))[:60]}".replace("[", "\\[")
        super().on_mount()

    def question(self, client: Client) -> Seen:
        """Its copies, and what a read returns."""
        return look(client, self.key)

    def show(self, view: ClusterView, now_ms: int) -> None:
        """All of it."""
        pane = self.query_one("#key", Pane)
        if isinstance(self.told, str):
            pane.show([((self.told, "dim"),)])
        else:
            pane.border_subtitle = f"asked {clock(self.asked_ms)}"
            pane.show(key_lines(self.key, self.told, self.size.width - 4))

    def subject(self) -> Action:
        """This key."""
        return Action(("explain", "--", arg_of(self.key)))

    # ---- writing ---------------------------------------------------------------------------

    def _over(self) -> tuple[str, ...]:
        """Flags of a write that covers what is shown, and no more."""
        if isinstance(self.told, str):
            return ()
        if is_register(self.told.told):
            return ("--mode", "strong", "--if-match", self.told.item.context)
        return ("--context", self.told.item.context)

    @work
    async def action_put(self) -> None:
        """A form."""
        await self._write("Put", self._newest())

    @work
    async def action_merge(self) -> None:
        """A form that begins with all siblings, one after another."""
        if isinstance(self.told, str) or len(self.told.item.siblings) < 2:
            self.board.tell("there is one value at most: nothing to merge", "dim")
            return
        values = [v.value.decode("utf-8", "replace") for v in self.told.item.siblings]
        await self._write(f"Merge {len(values)} siblings", ",".join(values))

    async def _write(self, title: str, value: str) -> None:
        told = await self.app.push_screen_wait(Form(title, [("value", value, "as text")], "Write"))
        if told is None:
            return
        if b"\0" in self.key:
            self.board.tell("a key with a zero byte cannot be named on a command line", "bad")
            return
        await self._done(Action(("put", *self._over(), "--", arg_of(self.key), told["value"])))

    def _newest(self) -> str:
        if isinstance(self.told, str) or not self.told.item.siblings:
            return ""
        return self.told.item.siblings[-1].value.decode("utf-8", "replace")

    @work
    async def action_delete(self) -> None:
        """A tombstone."""
        await self._done(Action(("delete", *self._over(), "--", arg_of(self.key))))

    async def _done(self, action: Action) -> None:
        await self.board.act(action).wait()
        self.action_again()


# ---- drawing ---------------------------------------------------------------------------------


def key_lines(key: bytes, seen: Seen, width: int) -> list[Line]:
    """Its place in the ring; replicas side by side; hints; what a read returns."""
    told = seen.told
    across = max(10, width - 8)
    at = min(told.slot * across // SLOTS, across - 1)
    lines: list[Line] = [
        (("slot ", "dim"), f"{told.slot} of {SLOTS}", ("  partition ", "dim"), f"{told.partition} of {seen.q}",
         ("  epoch ", "dim"), str(told.epoch), ("  kind ", "dim"),
         ("register" if is_register(told) else "value", "accent")),
        (("ring ", "dim"), ("─" * at, "dim"), ("▲", "accent"), ("─" * (across - at - 1), "dim")),
        (("owners ", "dim"), " > ".join(map(show, told.owners)), ("   fallbacks ", "dim"),
         " > ".join(map(show, told.fallbacks)) or "-"),
        (),
    ]  # fmt: skip
    lines += [sameness(told), ()]
    each = max(24, min(COLUMN, (width - 2) // max(1, len(told.replicas))))
    together = max(1, width // each)
    columns = [replica_lines(r, each - 2) for r in told.replicas]
    for first in range(0, len(columns), together):
        lines += side_by_side(columns[first : first + together], each)
        lines.append(())
    holders = [(r.node, owner) for r in (*told.hints, *told.replicas) for owner in r.hints]
    lines += [
        ((f"{show(node)} keeps a hint for {show(owner)}", "warn"),) for node, owner in dict.fromkeys(holders)
    ]
    return [*lines, *(part for line in read_lines(key, seen) for part in wrapped(line, width))]


def sameness(told: m.Explained) -> Line:
    """Whether the owners hold the same; who tells nothing."""
    copies = [r for r in told.replicas if r.state in TOLD]
    silent = [show(r.node) for r in told.replicas if r.state not in TOLD]
    if len({(r.digest, r.register.record if r.register is not None else b"") for r in copies}) > 1:
        return (("the owners hold different things: hints, reads and exchanges will mend it", "warn"),)
    if silent:
        return ((f"those that answer hold the same; {', '.join(silent)} did not answer", "warn"),)
    return ((f"all {len(told.replicas)} owners hold the same", "good"),)


def replica_lines(replica: m.ReplicaState, width: int) -> list[Line]:
    """What one owner holds, in a column."""
    state = "good" if replica.state in ("present", "register") else "warn" if replica.state == "absent" else "bad"
    lines: list[Line] = [
        ((fit(show(replica.node), width), "head"),),
        ((replica.state, state), (f"  {replica.digest.hex()[:12] or '-'}", "dim")),
    ]
    try:
        record = decode_record(replica.record) if replica.record else ()
    except msgspec.MsgspecError:
        return [*lines, (("malformed", "bad"),)]
    for version in record:
        lines += version_lines(version, width)
    for line in register_lines(replica.register):
        lines += [((part, "accent"),) for part in chopped(line.strip(), width)]
    if replica.grave:
        lines += [((part, "dim"),) for part in chopped(f"not reaped: {replica.grave}", width)]
    return lines


def version_lines(version: Version, width: int) -> list[Line]:
    """Dot, time, value, what it has seen."""
    at = utc(time_to_wall(version.time))
    dot = f"{version.actor:016x}"[:8]
    if at and len(at) + 2 > width:
        at = at.partition("T")[2]  # the day is the least of it
    lines: list[Line] = [(), ((fit(f"● {dot}/{version.time}", width), "two"),), ((f"  {at or '-'}", "dim"),)]
    if version.value is None:
        lines.append((("  (deleted)", "warn"),))
    else:
        parts = chopped(show(version.value[: width * VALUE_LINES * 4]), width - 2)
        lines += [(f"  {part}",) for part in parts[:VALUE_LINES]]
        if len(parts) > VALUE_LINES:
            lines.append(((f"  … {len(version.value):,} bytes", "dim"),))
    if version.past:
        others = f"{len(version.past)} other{'s' if len(version.past) > 1 else ''}"
        lines.append(((f"  has seen {others}", "dim"),))
    return lines


def chopped(text: str, width: int) -> list[str]:
    """Text in pieces of a width, whatever is in it."""
    text, pieces, piece = clean(text), [], ""
    for char in text:
        if cell_len(piece) + cell_len(char) > width:
            pieces.append(piece)
            piece = ""
        piece += char
    return [*pieces, piece]


def side_by_side(columns: Sequence[Sequence[Line]], each: int) -> list[Line]:
    """Columns of lines as lines; what is too long for its column is cut, and never moves the next."""
    lines: list[Line] = []
    for y in range(max(map(len, columns), default=0)):
        line: list[Cell] = []
        for column in columns:
            cells = column[y] if y < len(column) else ()
            room = each
            for cell in cells:
                text = text_of(cell)
                text = text if width_of(text) < room else fit(text, room - 1)
                line.append((text, tone_of(cell)))
                room -= width_of(text)
            line.append(" " * room)
        lines.append(tuple(line))
    return lines


def read_lines(key: bytes, seen: Seen) -> list[Line]:
    """What reads would return now: the words of `kvctl explain`."""
    text = explain_view(key, seen.told, seen.q).text or ""
    lines = text.splitlines()
    first = next(
        (i for i, line in enumerate(lines) if line.startswith(("a read would", "a register:"))), len(lines)
    )
    return [(), *(((line, "head" if i == 0 else "plain"),) for i, line in enumerate(lines[first:]))]
