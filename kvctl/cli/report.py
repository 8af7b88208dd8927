"""`kvctl report`: a recording of the console as a summary, and as one HTML file for a post-mortem.

Promises: the file stands alone; a recording cut short is told up to the cut, with a note. Never: overwrites
a file without being told to.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kvctl.cli.base import Ctl, command
from kvctl.errors import Refused

if TYPE_CHECKING:
    from kvctl.console.summary import Summary
    from kvctl.output import View


def register(app: typer.Typer) -> None:
    """Add this command."""
    command(app)(report)


def report(
    ctl: Ctl,
    file: Annotated[Path, typer.Argument(metavar="FILE", show_default=False, help="Of `dashboard --record`.")],
    html: Annotated[
        Path | None, typer.Option("--html", metavar="OUT", help="Where to write the page; FILE.html unless told.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite OUT.")] = False,
) -> None:
    """Sum up a recording, with plots, as one HTML file."""
    from kvctl.console.record import Recording
    from kvctl.console.report import html_of
    from kvctl.console.summary import summarise

    out = html if html is not None else file.with_name(file.name + ".html")
    if out.exists() and not force:
        raise Refused(f"{out} exists", "--force, or --html OTHER")
    found = summarise(Recording(file))
    out.write_text(html_of(found), encoding="utf-8")
    if found.notice:
        ctl.note(f"{file}: {found.notice}")
    ctl.note(f"written: {out}")
    ctl.show(_view(found, out))


def _view(found: Summary, out: Path) -> View:
    from kvctl.console.figures import took
    from kvctl.health import span
    from kvctl.output import Table, View, show, utc

    data = found.json() | {"html": str(out)}
    rows = [
        ("cluster", show(found.cluster)),
        ("from", utc(found.since_ms) or "-"),
        ("lasted", span(found.until_ms - found.since_ms)),
        *((word.lower(), span(ms)) for word, ms in found.times().items()),
        ("requests", f"{data['requests']:,}"),
        ("failed", f"{data['errors']:,}"),
        ("worst p99", took(data["p99_worst_ms"])),
        ("most hints", "-" if data["hints_most"] is None else f"{data['hints_most']:,}"),
        ("faults", ", ".join(f"{show(w.kind)} {show(w.target)}" for w in found.windows) or "none"),
        ("page", show(str(out))),
    ]
    return View("report", data, Table(("REPORT", ""), tuple(rows)))
