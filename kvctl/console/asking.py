"""Questions that are asked once, when a page is opened: a key's copies, a partition's roots, a page of keys.

Promises: asked in a thread of its own, with a deadline; the answer or the reason comes back as a value.
Never: keeps the console from ending.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from kvctl.client import Client
from kvctl.errors import KvError

ASK_S = 3.0
Answer = TypeVar("Answer")


class Asker:
    """Asks the cluster that the console shows."""

    def __init__(self, connect: str | None) -> None:
        self._connect = connect

    async def ask(self, question: Callable[[Client], Answer]) -> Answer:
        """The answer. Raises `KvError`."""
        loop = asyncio.get_running_loop()
        told: asyncio.Future[Answer] = loop.create_future()

        def tell(answer: Answer | None, error: Exception | None) -> None:
            if told.done():
                return
            if error is not None:
                told.set_exception(error)
            else:
                told.set_result(answer)  # type: ignore[arg-type]

        def run() -> None:
            answer: Answer | None = None
            error: Exception | None = None
            try:
                with Client(self._connect, ASK_S) as client:
                    answer = question(client)
            except KvError as problem:
                error = problem
            except Exception as problem:  # noqa: BLE001 -- it is raised where it was asked
                error = problem
            with suppress(RuntimeError):  # the console has ended meanwhile
                loop.call_soon_threadsafe(tell, answer, error)

        threading.Thread(target=run, name="asker", daemon=True).start()
        return await told


class Mute(Asker):
    """Of a recording: there is nobody to ask."""

    def __init__(self) -> None:
        super().__init__(None)

    async def ask(self, question: Callable[[Client], Answer]) -> Answer:
        """Raises `KvError`."""
        raise KvError("a recording cannot be asked")
