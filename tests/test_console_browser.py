"""`kvctl serve` in a real browser: a headless Chromium opens the page, and the console is there, looking only.

Driven by the Chrome DevTools Protocol: what the page's socket received, and what its terminal drew.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.conftest import Kvctl, eventually
from tests.procs import free_ports

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WAIT_S = 60
CONTROLS = re.compile(rb"\x1b(\[[0-9;?=<>]*[a-zA-Z]|[()][A-Z0-9]|[=>78M]|\][^\x07\x1b]*(\x07|\x1b\\))")
COLOURS = """
(() => {
  const layer = document.querySelector("canvas.xterm-text-layer");
  if (!layer || !layer.width) return 0;
  const pixels = new Uint32Array(layer.getContext("2d").getImageData(0, 0, layer.width, layer.height).data.buffer);
  return new Set(pixels).size;
})()
"""
"""How many colours the terminal's layer of text shows: one, while it is blank."""
FOCUS = "document.querySelector('.xterm-helper-textarea').focus()"

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here"),
    pytest.mark.timeout(300),
]


class Page:
    """A page, by its DevTools socket."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0
        self.received = b""
        """What the server has sent to the page's own socket."""

    async def call(self, method: str, **words: object) -> Any:
        """Ask, and wait for the answer; events meanwhile are noted."""
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": words})
        while True:
            told = json.loads((await self._socket.receive(timeout=WAIT_S)).data)
            if told.get("id") == self._number:
                assert "error" not in told, told
                return told["result"]
            frame = told.get("params", {}).get("response", {})
            if told.get("method") == "Network.webSocketFrameReceived" and frame.get("opcode") == 2:
                self.received += base64.b64decode(frame["payloadData"])

    @property
    def text(self) -> str:
        """What was sent to its terminal, without the controls."""
        return CONTROLS.sub(b"", self.received).decode(errors="replace")

    async def until(self, pattern: str) -> None:
        """Until this has been sent."""
        deadline = time.monotonic() + WAIT_S
        while not re.search(pattern, self.text, re.DOTALL):
            assert time.monotonic() < deadline, f"{pattern!r} never came: {self.text[-3000:]}"
            await self.call("Runtime.evaluate", expression="0")
            await asyncio.sleep(0.1)

    async def colours(self) -> int:
        """How many colours its terminal shows."""
        told = await self.call("Runtime.evaluate", expression=COLOURS, returnByValue=True)
        return int(told["result"]["value"])

    async def press(self, key: str) -> None:
        """A key of one character."""
        for kind in ("keyDown", "keyUp"):
            text = {"text": key} if kind == "keyDown" else {}
            code = {"windowsVirtualKeyCode": ord(key.upper())}
            await self.call("Input.dispatchKeyEvent", type=kind, key=key, **text, **code)


@contextmanager
def chromium(home: Path) -> Iterator[str]:
    """A browser of our own; the address of its DevTools."""
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    flags += ["--remote-debugging-port=0", f"--user-data-dir={home}", "--window-size=1280,800", "about:blank"]
    with (home / "log").open("wb") as log:
        browser = subprocess.Popen([str(CHROMIUM), *flags], stdout=log, stderr=log)
    try:
        found: list[str] = []

        def listens() -> bool:
            found[:] = re.findall(r"listening on ws://([^/\s]+)/", (home / "log").read_text(errors="replace"))
            return bool(found)

        assert eventually(listens, WAIT_S), (home / "log").read_text(errors="replace")
        yield found[0]
    finally:
        browser.terminate()
        try:
            browser.wait(10)
        except subprocess.TimeoutExpired:
            browser.kill()
            browser.wait()


@pytest.fixture
def served(kvctl: Kvctl) -> Iterator[str]:
    """Three nodes, and their console on a port of this machine."""
    kvctl.up(3)
    port = free_ports(1)[0]
    server = subprocess.Popen(
        [sys.executable, "-m", "kvctl", "serve", "--port", str(port)], env=kvctl.env, stderr=subprocess.DEVNULL
    )
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.terminate()
        with suppress(subprocess.TimeoutExpired):
            server.wait(10)
        server.kill()
        server.wait()


async def look(address: str, devtools: str) -> None:
    """Open the page; see the first screen drawn; go to another one; try to break something in vain."""
    async with aiohttp.ClientSession() as web:
        deadline = time.monotonic() + WAIT_S
        while True:
            with suppress(aiohttp.ClientError):
                async with web.get(f"http://{address}/") as page:
                    assert page.status == 200
                    break
            assert time.monotonic() < deadline, "the server does not answer"
            await asyncio.sleep(0.1)
        async with web.get(f"http://{devtools}/json") as listing:
            target = next(t for t in await listing.json() if t["type"] == "page")
        async with web.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
            page = Page(socket)
            await page.call("Network.enable")
            await page.call("Page.navigate", url=f"http://{address}/")
            await page.until("READ-WRITE.*READ-ONLY")
            await page.until("nothing is broken")
            while await page.colours() < 4:
                assert time.monotonic() < deadline + WAIT_S, "nothing was drawn"
                await asyncio.sleep(0.1)
            await page.call("Runtime.evaluate", expression=FOCUS)
            await page.press("6")
            await page.until("Faults in force")
            await page.press("H")
            await page.until("nothing is done")


def test_the_console_is_in_the_browser_and_only_looks(served: str, tmp_path: Path) -> None:
    """A headless Chromium draws the first screen and another one; what would break something is refused."""
    home = tmp_path / "chromium"
    home.mkdir()
    with chromium(home) as devtools:
        asyncio.run(look(served, devtools))


def test_a_page_of_another_site_is_refused(served: str) -> None:
    """Neither a name that was rebound to this machine nor a foreign page's socket gets in."""

    async def ask(**headers: str) -> int:
        async with aiohttp.ClientSession() as web:
            deadline = time.monotonic() + WAIT_S
            while True:
                with suppress(aiohttp.ClientConnectionError):
                    async with web.get(f"http://{served}/", headers=headers) as told:
                        return told.status
                assert time.monotonic() < deadline, "the server does not answer"
                await asyncio.sleep(0.1)

    assert asyncio.run(ask()) == 200
    assert asyncio.run(ask(Host="evil.example")) == 403
    assert asyncio.run(ask(Origin="http://evil.example")) == 403
