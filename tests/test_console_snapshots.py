"""Pictures of every screen, from a recording of a real cluster, on a clock that stands still.

`pytest tests/test_console_snapshots.py --snapshot-update` draws them anew; look at them before committing.
One session visits all screens: starting the console for each would cost more than all the rest.
"""

from __future__ import annotations

import asyncio

import pytest
from pytest_textual_snapshot import SVGImageExtension
from syrupy.assertion import SnapshotAssertion

from kvctl.console.app import Console
from kvctl.console.asking import Asker
from kvctl.console.keymap import PLACES
from tests.console_pilot import DRAINING, KILLED, SPLIT, Noted, Still, awaited, settled, view_of

MOMENTS = {"hints": KILLED, "repair": DRAINING, "plots": DRAINING, "events": DRAINING}
"""When each screen has most to show; the others during the partition."""
SIZES = {"120x36": (120, 36), "80x24": (80, 24)}
PAGES = {
    "node": ("3", "enter"), "partition": ("2", "enter"), "help": ("6", "question_mark"), "new-fault": ("6", "n"),
    "kill": ("3", "ctrl+k"),
}  # fmt: skip


class Silent(Asker):
    """Asks nobody: a picture of a page does not wait."""

    async def ask(self, question: object) -> object:  # type: ignore[override]
        """Never answered."""
        return await asyncio.Event().wait()


async def drawn(size: tuple[int, int], visits: dict[str, tuple[int, tuple[str, ...]]]) -> dict[str, str]:
    """The console at several moments, after some keys: name -> picture."""
    app = Console(Still(view_of(SPLIT)), runner=Noted(), asker=Silent(None))
    found = {}
    async with app.run_test(size=size) as pilot:
        feed = app.feed
        assert isinstance(feed, Still)
        for name, (moment, keys) in visits.items():
            feed.show(view_of(moment))
            await settled(pilot)
            for key in keys:
                await pilot.press(key)
                await settled(pilot)
            await pilot.wait_for_scheduled_animations()
            found[name] = app.export_screenshot()
            while len(app.screen_stack) > 1:
                app.pop_screen()
                await settled(pilot)
    return found


@pytest.mark.parametrize("colour", ["dark", "colourless"])
@pytest.mark.parametrize("size", SIZES)
@awaited
async def test_screens(
    snapshot: SnapshotAssertion, monkeypatch: pytest.MonkeyPatch, size: str, colour: str
) -> None:
    """Each screen at both sizes, dark and with NO_COLOR: states, marks and names are words and signs."""
    if colour == "colourless":
        monkeypatch.setenv("NO_COLOR", "1")
    visits = {p.name: (MOMENTS.get(p.name, SPLIT), (p.number,)) for p in PLACES}
    for name, picture in (await drawn(SIZES[size], visits)).items():
        assert snapshot(name=f"{name}-{size}-{colour}", extension_class=SVGImageExtension) == picture


@awaited
async def test_pages_and_dialogs(snapshot: SnapshotAssertion) -> None:
    """What lies over a screen, where there is least room; and the first screen when nothing is wrong."""
    visits = {name: (SPLIT, keys) for name, keys in PAGES.items()} | {"calm": (8, ("1",))}
    for name, picture in (await drawn((80, 24), visits)).items():
        assert snapshot(name=name, extension_class=SVGImageExtension) == picture
