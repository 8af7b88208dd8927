"""`kvctl events`: what happened on the nodes, merged by time.

Promises: with `-f` every event is shown once, also across a node's restart.
Never: hides that a node could not be asked: its events come when it answers again.
"""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from typing import Annotated

import typer

from kvctl.cli.base import Ctl, command
from kvctl.cli.words import some_seconds
from kvctl.errors import KvError

FOLLOW_S = 0.5


def register(app: typer.Typer) -> None:
    """Add this command."""
    command(app)(events)


def events(
    ctl: Ctl,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as they happen; Ctrl-C ends.")] = False,
    since: Annotated[str | None, typer.Option(metavar="TIME", help="Not older than this: 5m, 1h.")] = None,
) -> None:
    """Show what happened on the nodes."""
    from kvctl.output import Json, schema, to_json
    from kvctl.render_cluster import event_json, events_view

    back = some_seconds(since)
    oldest = 0 if back is None else time.time_ns() // 1_000_000 - int(back * 1000)
    found = [e for e in ctl.client().events() if e.wall_ms >= oldest]
    if not follow:
        return ctl.show(events_view(found))
    seen = {(e.node, e.number, e.wall_ms) for e in found}
    while True:
        for event in found:
            line: dict[str, Json] = {**event_json(event), "schema": schema("events")}
            if ctl.form in ("json", "jsonl"):
                print(to_json(line))
            else:
                print("\t".join(events_view([event]).table.rows[0]))
        sys.stdout.flush()
        time.sleep(FOLLOW_S)
        found = []
        # A node that restarts counts from 1 again, so numbers alone do not tell what is new.
        with suppress(KvError):
            found = [
                e
                for e in ctl.client().events()
                if (e.node, e.number, e.wall_ms) not in seen and e.wall_ms >= oldest
            ]
        seen |= {(e.node, e.number, e.wall_ms) for e in found}
