"""Keys: found by a prefix, page by page; enter looks at one.

Promises: nothing is scanned until it is asked for; a search that was cut says so; what a terminal would obey is
shown escaped. Never: scans more than a page unasked.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual import work
from textual.binding import BindingType
from textual.widget import Widget

from kvctl.client import Client
from kvctl.console.actions import Action
from kvctl.console.keymap import Key, bindings
from kvctl.console.page import Page, Prompt
from kvctl.console.screens.key import KeyPage, arg_of
from kvctl.console.view import ClusterView
from kvctl.console.widgets import table
from kvctl.console.widgets.dialogs import Form
from kvctl.console.widgets.pane import Text
from kvctl.console.widgets.table import Column, KeyTable
from kvctl.console.widgets.tones import Line
from kvctl.errors import KvError
from kvctl.model import Item
from kvctl.output import show
from kvnode.protocol.ring import partition_of

PAGE = 200
VALUE_CHARS = 200
COLUMNS = (
    Column("KEY", most=48), Column("KIND"), Column("SIBLINGS", right=True), Column("BYTES", right=True, rank=2),
    Column("PART", right=True, rank=3), Column("OWNERS", most=24, rank=4), Column("VALUE", flex=True, rank=1),
)  # fmt: skip
ACTS = (
    Key("more_keys", "m", "more", "More", "the next page", True),
    Key("put_key", "P", "put", "Put", "write a key", True),
    Key("all_keys", "a", "search('')", "All", "search without a prefix", True),
)


class Keys(Page):
    """Keys by prefix."""

    NAME = "keys"
    FOCUS = "#keys"
    BINDINGS: ClassVar[list[BindingType]] = bindings(ACTS)

    def body(self) -> Iterable[Widget]:
        """What was searched, and what was found."""
        yield Text(id="searched")
        yield KeyTable(COLUMNS, id="keys", empty="press / and type a prefix, or a for all keys")

    def on_mount(self) -> None:
        """Nothing is asked yet."""
        self.query_one("#keys").border_title = "Keys"
        self._items: list[Item] = []
        self._raw: dict[str, bytes] = {}
        self._prefix: str | None = None
        self._told: Line = ((" nothing has been searched", "dim"),)
        self._more = False
        super().on_mount()

    def show(self, view: ClusterView, now_ms: int) -> None:
        """What was found does not change by itself."""
        self.query_one("#searched", Text).show([self._told])
        self._raw = {show(item.key): item.key for item in self._items}
        self.query_one("#keys", KeyTable).show([row_of(view, item) for item in self._items])

    def filter(self, text: str) -> None:
        """As it is typed nothing is asked; enter does."""

    def on_input_submitted(self, event: object) -> None:
        """A slash searches by prefix here."""
        prompt = self.query_one(Prompt)
        if prompt.kind == "filter":
            text = prompt.value
            prompt.end()
            self.take_focus()
            self.action_search(text)
        else:
            super().on_input_submitted(event)  # type: ignore[arg-type]

    def action_search(self, prefix: str) -> None:
        """From the first key with this prefix."""
        self._prefix, self._items = prefix, []
        self._scan(PAGE)

    def action_more(self) -> None:
        """The next page."""
        if self._more and self._prefix is not None:
            self._scan(len(self._items) + PAGE)

    @work(exclusive=True, group="ask")
    async def _scan(self, limit: int) -> None:
        prefix = (self._prefix or "").encode("utf-8", "surrogateescape")
        name = show(prefix) or "(any)"
        self._told = ((f" searching {name} ...", "dim"),)
        self.renew()

        def scan(client: Client) -> list[Item]:
            return list(client.scan(prefix, limit))

        try:
            self._items = await self.board.asker.ask(scan)
        except KvError as error:
            self._told, self._more = ((f" {name}: {error.message}", "bad"),), False
        else:
            self._more = len(self._items) >= limit
            more = "; there are more: m" if self._more else ""
            self._told = ((f" prefix {name}: {len(self._items)} keys{more}", "plain"),)
        self.renew()

    def on_key_table_opened(self, event: KeyTable.Opened) -> None:
        """Its page."""
        self.app.push_screen(KeyPage(self._raw[event.key]))

    def subject(self) -> Action:
        """The key under the cursor."""
        key = self._raw.get(self.query_one("#keys", KeyTable).cursor_key)
        if key is None:
            return Action(("scan", *((self._prefix,) if self._prefix else ())))
        return Action(("explain", "--", arg_of(key)))

    @work
    async def action_put(self) -> None:
        """A form."""
        fields = [("key", "", ""), ("value", "", "as text"), ("mode", "eventual", "eventual, quorum or strong")]
        told = await self.app.push_screen_wait(Form("Put", fields, "Put"))
        if told and told["key"]:
            self.board.act(Action(("put", "--mode", told["mode"], "--", told["key"], told["value"])))


def row_of(view: ClusterView, item: Item) -> table.Row:
    """A key and what was read of it."""
    values = item.siblings
    first = show(values[0].value[:VALUE_CHARS]) if values else "(deleted)"
    part, owners = "-", "-"
    if view.ring is not None:
        at = partition_of(item.key, view.ring.q)
        part, owners = str(at), ",".join(map(show, view.ring.owner_ids(at)))
    size = sum(len(v.value) for v in values)
    return table.Row(
        show(item.key),
        (
            show(item.key), ("register", "accent") if item.register else "value",
            (str(len(values)), "warn" if len(values) > 1 else "plain"), f"{size:,}", part, owners, first,
        ),
        (show(item.key), str(item.register), len(values), size, int(part) if part != "-" else None, owners, first),
    )  # fmt: skip
