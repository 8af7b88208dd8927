"""`kvctl dashboard`: the console. Textual is imported when it starts, and not before.

Promises: it starts also when no node answers, and shows that; leaving it changes nothing. Never: runs
without a terminal.
"""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kvctl.cli.base import Ctl, command
from kvctl.cli.words import Usage

if TYPE_CHECKING:
    from kvctl.console.feeds import Feed
    from kvctl.local import Cluster


def register(app: typer.Typer) -> None:
    """Add this command."""
    command(app)(dashboard)


def dashboard(
    ctl: Ctl,
    readonly: Annotated[bool, typer.Option("--readonly", help="Look, and change nothing.")] = False,
    record: Annotated[
        Path | None, typer.Option("--record", metavar="FILE", help="Write what is seen to a new file.")
    ] = None,
    replay: Annotated[
        Path | None, typer.Option("--replay", metavar="FILE", help="Show such a file instead of a cluster.")
    ] = None,
) -> None:
    """Open the console: see everything, touch anything."""
    if record is not None and replay is not None:
        raise Usage("--record and --replay exclude each other")
    need_terminal()
    gc.disable()  # until the first screen stands: there is nothing to collect among what is imported
    from kvctl.console.actions import Runner
    from kvctl.console.app import Console
    from kvctl.console.asking import Asker, Mute

    cluster = None if replay is not None else _cluster(ctl)
    feed = _replayed(replay) if replay is not None else _live(ctl, record, cluster)
    asker = Mute() if replay is not None else Asker(ctl.connect)
    app = Console(feed, readonly=readonly, runner=Runner(ctl.connect), asker=asker, cluster=cluster)
    app.run()
    if app.crash is not None:
        raise app.crash


def need_terminal() -> None:
    """Raises `Usage` where there is none."""
    served = "TEXTUAL_DRIVER" in os.environ  # by `kvctl serve`: the terminal is a browser
    if not served and not (sys.stdin.isatty() and sys.stdout.isatty() and sys.stderr.isatty()):
        raise Usage("the console needs a terminal", "kvctl status --watch, or kvctl report FILE of a recording")


def _cluster(ctl: Ctl) -> Cluster | None:
    """The local cluster this is about, whose processes and logs can be seen too. Raises `NoEndpoint`."""
    from kvctl.cli.where import local_cluster

    return local_cluster(ctl)


def _live(ctl: Ctl, record: Path | None, cluster: Cluster | None) -> Feed:
    from kvctl import endpoints
    from kvctl.console.feeds import Live
    from kvctl.console.record import Recorder
    from kvctl.console.sampler import Looker, Sampler

    addresses = endpoints.resolve(ctl.connect).addresses
    recorder = Recorder(record) if record is not None else None
    return Live(Sampler(Looker(addresses, cluster)), recorder, str(record or ""))


def _replayed(path: Path) -> Feed:
    from kvctl.console.feeds import Played
    from kvctl.console.record import Recording
    from kvctl.console.replay import Replay

    return Played(Replay(Recording(path)))
