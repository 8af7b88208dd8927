"""A page that shows what it asked for: a key's copies, a partition's roots, the plan.

Promises: asked when it is opened, and again by a key; the answer or the reason is there, with its time; what
was told before stays in sight until then. Never: waits for an answer with the screen.
"""

from __future__ import annotations

from typing import ClassVar, Generic

from textual import work

from kvctl.client import Client
from kvctl.console.asking import Answer
from kvctl.console.keymap import Key
from kvctl.console.page import Page
from kvctl.errors import KvError

AGAIN = Key("again", "f5,u", "again", "Again", "ask once more: what is shown is as of when it was asked", True)


class AskingPage(Page, Generic[Answer]):
    """A page with one question."""

    ASKS: ClassVar[str] = "asking the owners ..."
    """What stands there until the first answer."""

    def __init__(self) -> None:
        super().__init__()
        self.told: Answer | str = self.ASKS
        """The answer; or why there is none."""
        self.asked_ms = 0
        self.asking = False

    def question(self, client: Client) -> Answer:
        """What is asked, in a thread of its own. Raises `KvError`."""
        raise NotImplementedError

    def on_mount(self) -> None:
        """Ask at once."""
        super().on_mount()
        self.action_again()

    def action_again(self) -> None:
        """Ask again."""
        self._ask()

    @work(exclusive=True, group="ask")
    async def _ask(self) -> None:
        self.asking = True
        try:
            self.told = await self.board.asker.ask(self.question)
        except KvError as error:
            self.told = error.message
        self.asked_ms, self.asking = self.board.now_ms(), False
        self.renew()
