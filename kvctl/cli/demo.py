"""`kvctl demo`: stories on a real cluster of their own, each checking what it claims.

Promises: exit 0 only if every claim held. Never: touches a cluster of yours.
"""

from __future__ import annotations

from typing import Annotated

import typer

from kvctl.cli.base import Ctl, command
from kvctl.cli.words import Usage


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app)(demo)


def demo(
    ctl: Ctl,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Which story; `tour` for those of failure.")
    ] = None,
    dashboard: Annotated[
        bool, typer.Option("--dashboard", help="Tell it (or the tour) while the console shows it.")
    ] = False,
) -> None:
    """List the stories, or tell one."""
    from kvctl_demo import STORIES, TOUR, run

    from kvctl.output import Table, View

    if name is None and dashboard:
        name = "tour"
    if name is None:
        rows = (
            *((story, module.TITLE) for story, module in STORIES.items()),
            ("tour", f"{', '.join(TOUR)}: one after another"),
        )
        data = {"stories": [{"name": story, "title": title} for story, title in rows]}
        lines = tuple(data["stories"])
        return ctl.show(View("demo", data, Table(("NAME", "STORY"), rows), lines))
    if name != "tour" and name not in STORIES:
        raise Usage(f"there is no story {name!r}: one of {', '.join(STORIES)}, or tour")
    if dashboard:
        from kvctl.cli.dashboard import need_terminal
        from kvctl.console.touring import watch

        need_terminal()
        raise typer.Exit(watch(name))
    raise typer.Exit(run(TOUR if name == "tour" else [name]))
