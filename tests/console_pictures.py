"""Pictures of the console for the README, drawn from the recording that the tests replay: they cannot lie.

python -m tests.console_pictures DIRECTORY        (make pictures)
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from kvctl.console.app import Console
from tests.console_pilot import DRAINING, SPLIT, Noted, Still, view_of

PICTURES = {
    "overview": (SPLIT, ("1",)), "nodes": (SPLIT, ("3",)), "plots": (DRAINING, ("8",)), "ring": (SPLIT, ("2",)),
}  # fmt: skip
FONTS = "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


async def draw(directory: Path) -> None:
    """Each picture, as SVG."""
    directory.mkdir(exist_ok=True)
    for name, (moment, keys) in PICTURES.items():
        app = Console(Still(view_of(moment)), runner=Noted())
        async with app.run_test(size=(120, 36)) as pilot:
            await pilot.pause(0.2)
            for key in keys:
                await pilot.press(key)
                await pilot.pause(0.2)
            picture = app.export_screenshot(title="kvctl dashboard")
        start, end = picture.find("@font-face"), picture.rfind("@font-face")
        assert 0 <= start < end, "Textual draws its SVG another way now"
        # No font is fetched from anywhere: those of the reader do.
        rest = picture[picture.find("}", end) + 1 :]
        picture = picture[:start] + rest.replace("Fira Code, monospace", FONTS).replace("Fira Code", "monospace")
        assert "http" not in picture.replace("http://www.w3.org/2000/svg", "").replace(
            "https://www.textualize.io", ""
        )
        (directory / f"console-{name}.svg").write_text(picture)
        print(directory / f"console-{name}.svg")


if __name__ == "__main__":
    asyncio.run(draw(Path(sys.argv[1])))
