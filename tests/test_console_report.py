"""The report of a recording, and the console in a browser."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import urllib.error
import urllib.request
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from kvctl.console.record import Recorder, Recording
from kvctl.console.report import html_of
from kvctl.console.sample import Sample
from kvctl.console.summary import summarise
from kvnode.protocol.messages import Event
from tests.conftest import Kvctl, eventually
from tests.console_pilot import STORY
from tests.procs import free_ports
from tests.reports import N1, N2, N3, WALL, report, ring3


class Page(HTMLParser):
    """What a browser would make of a page: its tags, its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note it."""
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        """Note it."""
        self.text += data


def test_a_report_tells_the_story_and_stands_alone(kvctl: Kvctl, tmp_path: Path) -> None:
    """Verdicts, faults, nodes, plots; no script, nothing fetched; never over a file unasked."""
    out = tmp_path / "r.html"
    ran = kvctl("report", str(STORY), "--html", str(out), "-o", "json")
    assert ran.code == 0, ran.errors
    told = ran.json
    assert [fault["kind"] for fault in told["faults"]] == ["partition", "delay", "kill"]
    assert told["verdicts_s"]["SPLIT"] > 10
    assert sum(told["verdicts_s"].values()) == pytest.approx(79, abs=3)
    assert told["hints_most"] > 1000
    (dead,) = [node for node in told["nodes"] if node["node"] == "n3"]
    assert dead["silent_s"] > 8
    page = Page(out.read_text())
    assert page.tags.count("svg") == 6
    assert not page.links
    assert "script" not in page.tags
    assert "partition" in page.text
    again = kvctl("report", str(STORY), "--html", str(out))
    assert again.code == 8
    assert kvctl("report", str(STORY), "--html", str(out), "--force").code == 0


def test_what_a_recording_holds_is_text_never_markup(tmp_path: Path) -> None:
    """Names and events full of tags and escape sequences."""
    nasty = "<script>alert(1)</script>\x1b[2J'\"\u202e"
    ring = msgspec.structs.replace(ring3(), cluster=nasty)
    recorder = Recorder(tmp_path / "r")
    for i in range(3):
        recorder.take(
            Sample(
                at_ms=WALL + i * 1000, asked=N1, reports=(report(N1), report(N2), report(N3)),
                events=(Event(i + 1, WALL, N1, nasty, nasty),),
            ),
            ring,
        )  # fmt: skip
    recorder.close()
    page = html_of(summarise(Recording(tmp_path / "r")))
    assert "script" not in Page(page).tags
    assert "<script>alert" in Page(page).text
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e]", page)


def test_a_recording_cut_short_is_reported_with_a_note(kvctl: Kvctl, tmp_path: Path) -> None:
    """On stderr, and on the page."""
    (tmp_path / "cut").write_bytes(STORY.read_bytes()[:-900])
    ran = kvctl("report", str(tmp_path / "cut"))
    assert ran.code == 0
    assert "cut short" in ran.errors
    assert "cut short" in (tmp_path / "cut.html").read_text()


def test_the_console_in_a_browser_is_for_its_own_page_only(three: Kvctl) -> None:
    """The page is served; another host's name and another site's socket are refused; it draws the cluster."""
    import aiohttp

    (port,) = free_ports(1)
    command = [sys.executable, "-m", "kvctl", "serve", "--port", str(port)]
    server = subprocess.Popen(command, env=three.env, stderr=subprocess.PIPE)
    url = f"http://127.0.0.1:{port}/"

    def get(**headers: str) -> int:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    async def socket(origin: str) -> bytes:
        seen = b""
        async with aiohttp.ClientSession() as session:
            socket = session.ws_connect(f"{url}ws?width=120&height=36", headers={"Origin": origin})
            async with socket as ws, asyncio.timeout(20):
                await ws.send_json(["resize", {"width": 120, "height": 36}])
                async for message in ws:
                    seen += message.data if isinstance(message.data, bytes) else message.data.encode()
                    if b"READ-ONLY" in seen and b"3 up" in seen:
                        break
        return seen

    try:
        assert eventually(lambda: get() == 200)
        assert get(Host="evil.example") == 403
        assert get(Origin="http://evil.example") == 403
        with pytest.raises(aiohttp.WSServerHandshakeError):
            asyncio.run(socket("http://evil.example"))
        assert b"3 up" in asyncio.run(socket(f"http://127.0.0.1:{port}"))
    finally:
        server.terminate()
        server.wait(10)
        assert server.stderr is not None
        server.stderr.close()
