"""The console in a real browser: headless Chromium opens the page of `kvctl serve`, and a key is pressed there.

Driven by the DevTools protocol: what the page was sent is read from its own web socket.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from tests.conftest import Kvctl, eventually
from tests.procs import free_ports

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
SHOWN_S = 40.0


class Tab:
    """One page, by its DevTools socket."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self.received = ""
        """All the page was sent on its own socket."""

    async def do(self, method: str, **params: object) -> dict[str, object]:
        """Ask, and take in what comes meanwhile."""
        number = next(self._ids)
        await self._socket.send_json({"id": number, "method": method, "params": params})
        while True:
            told = await self._take()
            if told.get("id") == number:
                return told.get("result", {})  # type: ignore[return-value]

    async def _take(self) -> dict[str, object]:
        told: dict[str, object] = json.loads((await self._socket.receive()).data)
        if told.get("method") == "Network.webSocketFrameReceived":
            frame = told["params"]["response"]  # type: ignore[index]
            raw = frame["payloadData"]
            text = base64.b64decode(raw).decode("utf-8", "replace") if frame["opcode"] == 2 else raw
            self.received += text
        return told

    async def until(self, text: str) -> None:
        """Until the page was sent this."""
        async with asyncio.timeout(SHOWN_S):
            while text not in self.received:
                await self._take()


async def visit(port: int, url: str) -> str:
    """Open the page, wait for the cluster, press 6. The body's classes in the end."""
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{port}/json") as answer:
            pages = [page for page in await answer.json() if page["type"] == "page"]
        async with session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=1 << 26) as socket:
            tab = Tab(socket)
            await tab.do("Network.enable")
            await tab.do("Page.navigate", url=url)
            await tab.until("READ-ONLY")
            await tab.until("3 up")
            await tab.do("Runtime.evaluate", expression="document.querySelector('.xterm-helper-textarea').focus()")
            await tab.do("Input.insertText", text="6")
            await tab.until("Faults in force")
            told = await tab.do("Runtime.evaluate", expression="document.body.className")
            return str(told["result"]["value"])  # type: ignore[index]


def test_a_browser_shows_the_cluster_and_takes_keys(three: Kvctl, tmp_path: Path) -> None:
    """The page opens its socket, draws, and a key goes to another screen."""
    port, debug = free_ports(2)
    assert CHROMIUM is not None
    serve = [sys.executable, "-m", "kvctl", "serve", "--port", str(port)]
    browse = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
        f"--user-data-dir={tmp_path / 'c'}",
        f"--remote-debugging-port={debug}", "--remote-allow-origins=*", "--window-size=1300,800", "about:blank",
    ]  # fmt: skip
    quiet = subprocess.DEVNULL
    server = subprocess.Popen(serve, env=three.env, stdout=quiet, stderr=quiet)
    browser = subprocess.Popen(browse, stdout=quiet, stderr=quiet)

    def listening(at: int, path: str) -> bool:
        import urllib.error
        import urllib.request

        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{at}/{path}", timeout=2):
                return True
        except OSError:
            return False

    try:
        assert eventually(lambda: listening(port, "") and listening(debug, "json"), 40)
        classes = asyncio.run(visit(debug, f"http://127.0.0.1:{port}/"))
        assert "-first-byte" in classes
    finally:
        for process in (browser, server):
            process.terminate()
            process.wait(20)
