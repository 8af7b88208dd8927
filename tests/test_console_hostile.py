"""What nodes, keys and values may hold, on the screen: shown, never obeyed; cut, never overflowing."""

from __future__ import annotations

import asyncio
import threading
import time
import unicodedata
from collections.abc import Callable

import msgspec
import pytest

from kvctl.client import Client
from kvctl.console.actions import Action
from kvctl.console.app import Console
from kvctl.console.asking import Answer, Asker
from kvctl.console.keymap import PLACES
from kvctl.console.sample import Sample
from kvctl.console.screens.key import KeyPage, Seen
from kvctl.console.view import ClusterView, advance
from kvctl.model import Item
from kvctl.render_faults import ACTIVE, Listed
from kvnode.protocol.consensus import Ballot
from kvnode.protocol.messages import Event, Explained, RegisterState, ReplicaState
from kvnode.protocol.ring import Member
from kvnode.protocol.types import Actor, NodeId, Time, Version, encode_record
from tests.console_pilot import CALM, SPLIT, Noted, Still, awaited, opened, screen_text, settled, view_of
from tests.reports import N1, N2, N3, WALL, hints, report, ring3

ESCAPES = "\x1b[31mred\x1b]0;title\x07\x9b2J\r\n\t\x00"
BIDI = "\u202eright\u2066to\u200fleft"
LONG = "x" * 10_240
NASTY = ESCAPES + BIDI + LONG
LONGEST = NodeId("n" * 64)
TIME = Time((WALL << 16) + 3)


def harmless(text: str) -> None:
    """No character that a terminal obeys, or that turns text around."""
    bad = {c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp", "Cs")}
    assert not bad, f"sent to the terminal: {bad!r}"


def nasty_view() -> ClusterView:
    """A cluster whose every text is an attack, and whose names are as long as names get."""
    ring = msgspec.structs.replace(
        ring3(), cluster=NASTY, members=(*ring3().members[:2], Member(LONGEST, NASTY, NASTY))
    )
    reports = (
        report(N1, problem=NASTY, writable=False, engine=NASTY, version=NASTY, hints=(hints(LONGEST, 5),),
               avoided=(NodeId(NASTY),)),
        None,
        report(LONGEST, durability=NASTY),
    )  # fmt: skip
    fault = Listed(id=NASTY, target=NASTY, kind=NASTY, value=NASTY, since=-1, expires=1 << 80, state=ACTIVE,
                   nodes=(LONGEST, NASTY))  # fmt: skip
    events = tuple(Event(i, wall, N1, NASTY, NASTY) for i, wall in enumerate((-(1 << 60), 0, WALL, 1 << 62)))
    return advance(
        ClusterView(), Sample(at_ms=WALL, asked=N1, reports=reports, faults=(fault,), events=events), ring
    )


@pytest.mark.parametrize("size", [(120, 36), (30, 9)])
@awaited
async def test_no_screen_sends_what_a_terminal_obeys(size: tuple[int, int]) -> None:
    """Names, problems, events, faults: escape sequences, direction marks, 10 KB lines."""
    async with opened(nasty_view(), size) as (app, pilot):
        for keys in (*((place.number,) for place in PLACES), ("3", "enter"), ("2", "enter"), ("6", "enter")):
            for key in keys:
                await pilot.press(key)
                await settled(pilot)
            text = screen_text(app)
            harmless(text)
            assert all(len(line) <= size[0] for line in text.splitlines()), keys
            while len(app.screen_stack) > 1:
                app.pop_screen()
                await settled(pilot)


class Told(Asker):
    """Answers as a test wants it."""

    def __init__(self, answer: object) -> None:
        super().__init__(None)
        self._answer = answer

    async def ask(self, question: Callable[[Client], Answer]) -> Answer:
        """As told."""
        return self._answer  # type: ignore[return-value]


def versions(*values: bytes | None) -> bytes:
    """A record of siblings."""
    return encode_record(tuple(Version(Actor(i + 1), Time(TIME + i), {}, value) for i, value in enumerate(values)))


def seen_of(key: bytes, *records: bytes, register: RegisterState | None = None) -> Seen:
    """What was asked of a key on three owners."""
    states = tuple(
        ReplicaState(
            n, "register" if register else "present" if r else "absent", r, b"\x01" * 16, register=register
        )
        for n, r in zip((N1, N2, N3), records, strict=True)
    )
    told = Explained(1, 1, 77, 1, (N1, N2, N3), states, (), (ReplicaState(N2, "absent", b"", b"", (N3,)),))
    return Seen(told, Item(key, records[0]), 16)


async def key_page(key: bytes, seen: Seen, runner: Noted) -> Console:
    """The console, to be opened on a key."""
    app = Console(Still(view_of(CALM)), runner=runner, asker=Told(seen))
    app.page = KeyPage(key)  # type: ignore[attr-defined]
    return app


@awaited
async def test_siblings_stand_side_by_side_whatever_is_in_them() -> None:
    """Binary, escapes, ten kilobytes; a copy that is no record; what is kept for whom."""
    key = b"\x1b[2J\xff\xe2\x80\xae{tag}"
    values = (b"\x00\x01\xfe" * 50, NASTY.encode(), None, "\U0001f600 wide 宽".encode())
    seen = seen_of(key, versions(*values), versions(values[0]), b"\xc1 no record")
    for size in ((120, 36), (40, 10)):
        app = await key_page(key, seen, Noted())
        async with app.run_test(size=size) as pilot:
            app.push_screen(KeyPage(key))
            await settled(pilot)
            text = screen_text(app)
            harmless(text)
            pane = app.screen.query_one("#key").text
            assert "malformed" in pane
            assert "(deleted)" in pane
            assert "n2 keeps a hint for n3" in pane
            assert "a read would return now" in pane


@awaited
async def test_a_register_shows_what_was_promised_and_accepted() -> None:
    """By each owner; and its writes are conditional, in mode strong."""
    ballot = Ballot(TIME, 9)
    state = RegisterState(ballot, ballot, versions(b"held"))
    runner = Noted()
    app = await key_page(b"lock", seen_of(b"lock", versions(b"held"), b"", b"", register=state), runner)
    async with app.run_test(size=(120, 36)) as pilot:
        app.push_screen(KeyPage(b"lock"))
        await settled(pilot)
        text = screen_text(app)
        assert "kind register" in text
        assert "accepted" in text
        assert "accepted by n1, n2, n3" in text
        await pilot.press("ctrl+d")
        await settled(pilot)
        await pilot.press("right", "enter")
        await settled(pilot)
        (line,) = runner.lines
        assert line.startswith("kvctl delete --mode strong --if-match c1.")


@awaited
async def test_a_merge_covers_what_was_shown_and_no_more() -> None:
    """It is put with the context that was read: who writes meanwhile stays a sibling."""
    runner = Noted()
    seen = seen_of(b"cart:1", versions(b"milk", b"bread"), versions(b"milk"), versions(b"bread"))
    app = await key_page(b"cart:1", seen, runner)
    async with app.run_test(size=(120, 36)) as pilot:
        app.push_screen(KeyPage(b"cart:1"))
        await settled(pilot)
        await pilot.press("M")
        await settled(pilot)
        await pilot.press("enter")
        await settled(pilot)
        assert runner.lines == [Action(("put", "--context", seen.item.context, "--", "cart:1", "milk,bread")).line]


@awaited
async def test_every_node_down_is_shown_and_not_the_end() -> None:
    """CANNOT SEE on every screen, with what to do; old figures are not shown as new ones."""
    view = view_of(CALM)
    nothing = Sample(at_ms=view.at_ms + 30_000, problem="no answer from 127.0.0.1:1", reports=(None,) * 5)
    async with opened(advance(view, nothing, None)) as (app, pilot):
        for place in PLACES:
            await pilot.press(place.number)
            await settled(pilot)
            text = screen_text(app)
            assert "CANNOT SEE" in text, place.name
            assert "30s old" in text, place.name
        await pilot.press("1")
        await settled(pilot)
        assert "nothing can be seen" in screen_text(app)


class Flood(Still):
    """Posts from a thread, from the very start, as fast as it can."""

    def start(self, post: Callable[[ClusterView], None]) -> None:
        """Begin."""
        self.end = threading.Event()

        def run() -> None:
            while not self.end.is_set():
                post(view_of(SPLIT))
                post(view_of(CALM))
                time.sleep(0.0005)

        threading.Thread(target=run, daemon=True).start()

    def stop(self) -> None:
        """End."""
        self.end.set()


@awaited
async def test_views_may_come_at_any_moment_of_a_screens_making() -> None:
    """From the feed's thread, as fast as they like, while the console starts and screens are made and left."""
    view_of(SPLIT)
    app = Console(Flood(view_of(CALM)), runner=Noted())
    async with app.run_test(size=(80, 24)) as pilot:
        for place in (*PLACES, *PLACES[:2]):
            app.action_go(place.name)
            await asyncio.sleep(0.08)
        await pilot.press("enter")
        app.feed.stop()


@awaited
async def test_a_view_before_the_first_answer_and_a_ring_that_changes_under_a_page() -> None:
    """Nothing known; then a ring; then one without the node whose page is open."""
    async with opened(ClusterView()) as (app, pilot):
        for place in PLACES:
            await pilot.press(place.number)
            await settled(pilot)
            assert "LOOKING" in screen_text(app)
        feed = app.feed
        assert isinstance(feed, Still)
        feed.show(view_of(CALM))
        await pilot.press("3")
        await settled(pilot)
        await pilot.press("end", "enter")
        await settled(pilot)
        assert "Node n5" in screen_text(app)
        small = ring3()
        sample = Sample(at_ms=view_of(CALM).at_ms + 1000, asked=N1, reports=(report(N1), report(N2), report(N3)))
        feed.show(advance(view_of(CALM), sample, small))
        await settled(pilot)
        assert "n5 is no member of the ring any more" in screen_text(app)
        for place in PLACES:
            await pilot.press(place.number)
            await settled(pilot)
