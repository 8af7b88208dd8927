"""`kvctl repair`: anti-entropy, watched and ordered.

Promises: `run` exits 0 only when every node took the order, went through with it, and no exchange failed;
what it cost is printed in any case; `waive` says first what may be lost. Never: waits longer than `--timeout`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated

import typer

from kvctl.cli.base import Ctl, DryRun, Yes, command, group
from kvctl.cli.words import seconds
from kvctl.errors import Indeterminate, Invalid, KvError, Refused

if TYPE_CHECKING:
    from kvctl.repair import Run
    from kvnode.protocol.messages import ClusterReport

app = group("Anti-entropy: compare the copies of each partition, and make them equal.")
POLL_S, WATCH_S = 0.1, 1.0

Show = Callable[["Run", "ClusterReport"], None]
"""Show a run, and the status it was last seen in."""
Watch = Annotated[bool, typer.Option("--watch", help="Show the exchanges as they go.")]


def register(parent: typer.Typer) -> None:
    """Add this group."""
    parent.add_typer(app, name="repair")


@command(app)
def status(ctl: Ctl, watch: Watch = False) -> None:
    """What each node has compared, and compares now."""
    from kvctl.output import plain
    from kvctl.render_repair import repair_view

    while True:
        view = repair_view(ctl.client().status())
        if watch and ctl.form in ("table", "wide") and not plain(sys.stdout):
            print("\x1b[H\x1b[2J", end="")
        ctl.show(view)
        if not watch:
            return
        sys.stdout.flush()
        time.sleep(WATCH_S)


@command(app)
def run(
    ctl: Ctl,
    partition: Annotated[int | None, typer.Option(metavar="P", help="This partition only.")] = None,
    watch: Watch = False,
    timeout: Annotated[
        str, typer.Option("--timeout", metavar="TIME", help="Give up waiting after this time: exit 4.")
    ] = "10m",
) -> None:
    """Compare all copies now and repair what differs."""
    from kvctl.health import reports_of
    from kvctl.orders import obeyed
    from kvctl.render_repair import run_view
    from kvctl.repair import Run
    from kvnode.protocol.messages import RunRepair

    begun = time.monotonic()
    client = ctl.client()
    ring = client.ring()
    if partition is not None and not 0 <= partition < ring.q:
        raise Invalid(f"partition must be 0..{ring.q - 1}, not {partition}")
    wanted = range(ring.q) if partition is None else (partition,)
    owners = {owner for p in wanted for owner in ring.owner_ids(p)}
    before = client.status()
    held_up = [r.id for r in reports_of(before) if r.repair is not None and r.repair.paused and r.id in owners]
    if held_up:
        raise Refused(f"repair is paused on {', '.join(held_up)}", "kvctl repair resume")
    which = -1 if partition is None else partition
    order = obeyed(client.ask_each(lambda rid, _: RunRepair(rid, which), owners, ctl.timeout_s))
    going = Run(before, order.done)
    with watching(watch) as show:
        timely = _follow(ctl, going, begun + seconds(timeout), show)
    covered = sum(any(owner in order.done for owner in ring.owner_ids(p)) for p in wanted)
    totals = going.totals(covered, round((time.monotonic() - begun) * 1000))
    ctl.show(run_view(totals))
    if not timely:
        raise Indeterminate(f"{', '.join(going.open)} did not finish within {timeout}", "kvctl repair status")
    problem = order.problem("the repair", "kvctl status")
    if problem is not None:
        raise problem
    if totals["failed"] or totals["skipped"] or going.lost:
        gone = f"; {', '.join(sorted(going.lost))} went down or restarted meanwhile" if going.lost else ""
        text = f"{totals['failed']} exchanges failed, {totals['skipped']} were not begun{gone}"
        raise KvError(text, "kvctl check, then kvctl repair run")


def _follow(ctl: Ctl, going: Run, deadline: float, show: Show) -> bool:
    """Poll until the run is done. False when it is not, in time."""
    while going.open:
        if time.monotonic() > deadline:
            return False
        with suppress(KvError):
            told = ctl.client().status()
            going.see(told)
            show(going, told)
        if going.open:
            time.sleep(POLL_S)
    return True


@contextmanager
def watching(watch: bool) -> Iterator[Show]:
    """Show a run on stderr: a picture that changes on a terminal, a line for each change elsewhere."""
    from kvctl.output import plain
    from kvctl.render_repair import walk_lines

    last = ""

    def tell(going: Run, told: ClusterReport) -> None:
        nonlocal last
        text = "\n".join(("; ".join(going.progress()), *walk_lines(told)))
        if text != last:
            print(text, file=sys.stderr, flush=True)
        last = text

    if not watch:
        yield lambda _, __: None
        return
    if plain(sys.stderr):
        yield tell
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(console=Console(stderr=True), transient=True, auto_refresh=False) as live:
        yield lambda going, told: live.update(
            Text("\n".join((*going.progress(), "", *walk_lines(told)))), refresh=True
        )


@command(app)
def pause(ctl: Ctl) -> None:
    """Begin no more exchanges, on any member."""
    _set(ctl, paused=True)


@command(app)
def resume(ctl: Ctl) -> None:
    """Begin exchanges again, on every member."""
    _set(ctl, paused=False)


def _set(ctl: Ctl, *, paused: bool) -> None:
    from kvctl.orders import obeyed, obeyed_view
    from kvnode.protocol.messages import PauseRepair

    word = "pause" if paused else "resume"
    result = obeyed(ctl.client().ask_each(lambda rid, _: PauseRepair(rid, paused), None, ctl.timeout_s))
    ctl.show(obeyed_view(f"repair.{word}", result, "waiting"))
    problem = result.problem(f"repair {word}", "kvctl repair status")
    if problem is not None:
        raise problem


@command(app)
def waive(ctl: Ctl, yes: Yes = False, dry_run: DryRun = False) -> None:
    """Give up what lost disks held, so that their nodes vote again."""
    from kvctl.cli.fault import would
    from kvctl.health import reports_of, silent
    from kvctl.orders import obeyed, obeyed_view
    from kvnode.protocol.messages import WaiveVotes

    told = ctl.client().status()
    lost = {report.id: report.voteless for report in reports_of(told) if report.voteless}
    what = f"give up what lost disks held ({', '.join(f'{n} partitions of {node}' for node, n in lost.items())})"
    if not lost:
        what = "give up nothing: every node that answers casts ballots in all its partitions"
    risks = ["strong writes that only those disks acknowledged are gone for good"] * bool(lost)
    risks += [f"so are those that only {node} holds, which is down" for node in silent(told)] * bool(lost)
    if dry_run:
        return would(ctl, "repair.waive", what, risks)
    if lost:
        ctl.confirm(f"{what}: {'; '.join(risks)}", yes=yes)
    result = obeyed(ctl.client().ask_each(lambda rid, _: WaiveVotes(rid), list(lost), ctl.timeout_s))
    ctl.show(obeyed_view("repair.waive", result, "partitions"))
    problem = result.problem("the waiver", "kvctl check")
    if problem is not None:
        raise problem
    return None
