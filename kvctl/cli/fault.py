"""`kvctl fault`: kill, stop, restart, pause and wipe nodes of `kvctl up`, and undo it.

Promises: what destroys data or takes a quorum away is asked about first (`--yes` off a terminal);
a fault is listed until it is over. Never: touches a node `kvctl up` did not start.
"""

from __future__ import annotations

import time
from typing import Annotated

import typer

from kvctl.cli.base import Ctl, DryRun, Yes, command, group
from kvctl.cli.where import ClusterName, NodeArg, own_cluster, quorum_risk
from kvctl.cli.words import Usage, seconds, some_seconds

app = group("Break nodes of `kvctl up` on purpose, and heal them.")


def register(parent: typer.Typer) -> None:
    """Add this group."""
    parent.add_typer(app, name="fault")


For = Annotated[str | None, typer.Option("--for", metavar="TIME", help="Heal it after this time: 10s, 1m.")]
PAUSE_S = 10.0


def _inflict(
    ctl: Ctl, kind: str, target: str, for_s: float | None, *, yes: bool, dry_run: bool, name: str | None
) -> None:
    from kvctl.procfaults import inflict
    from kvctl.render_cluster import faults_view

    cluster = own_cluster(ctl, name)
    cluster.node(target)
    risks = [f"{kind} {target}: {risk}" for risk in (quorum_risk(cluster, target),) if risk]
    if kind == "wipe":
        risks.append(f"wipe {target}: its data directory {cluster.directory(target) / 'data'} is deleted")
    if dry_run:
        return would(ctl, f"fault.{kind}", f"{kind} {target}", risks)
    if risks:
        ctl.confirm("; ".join(risks), yes=yes)
    fault = inflict(cluster, target, kind, for_s)
    return ctl.show(faults_view(f"fault.{kind}", [fault], time.time_ns() // 1_000_000))


def would(ctl: Ctl, name: str, what: str, risks: list[str]) -> None:
    """What `--dry-run` prints."""
    from kvctl.output import Table, View, show

    table = Table(("WOULD", "RISK"), ((show(what), show("; ".join(risks) or "none")),))
    ctl.show(View(name, {"dry_run": True, "would": what, "risks": risks}, table))


@command(app)
def kill(
    ctl: Ctl,
    target: NodeArg,
    for_: For = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    name: ClusterName = None,
) -> None:
    """SIGKILL a node. It stays down until healed."""
    _inflict(ctl, "kill", target, some_seconds(for_), yes=yes, dry_run=dry_run, name=name)


@command(app)
def stop(
    ctl: Ctl,
    target: NodeArg,
    for_: For = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    name: ClusterName = None,
) -> None:
    """SIGTERM a node: it finishes what it acknowledged, and stays down until healed."""
    _inflict(ctl, "stop", target, some_seconds(for_), yes=yes, dry_run=dry_run, name=name)


@command(app)
def pause(
    ctl: Ctl,
    target: NodeArg,
    for_: For = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    name: ClusterName = None,
) -> None:
    """SIGSTOP a node for a while (10 s): it is there, and says nothing."""
    for_s = PAUSE_S if for_ is None else seconds(for_)
    _inflict(ctl, "pause", target, for_s, yes=yes, dry_run=dry_run, name=name)


@command(app)
def wipe(
    ctl: Ctl,
    target: NodeArg,
    for_: For = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    name: ClusterName = None,
) -> None:
    """SIGKILL a node and delete its data directory. It stays down until healed."""
    _inflict(ctl, "wipe", target, some_seconds(for_), yes=yes, dry_run=dry_run, name=name)


@command(app)
def restart(
    ctl: Ctl, target: NodeArg, yes: Yes = False, dry_run: DryRun = False, name: ClusterName = None
) -> None:
    """Stop a node that runs, and start it."""
    from kvctl import procfaults
    from kvctl.cli.node import started_view

    cluster = own_cluster(ctl, name)
    cluster.node(target)
    risk = quorum_risk(cluster, target)
    if dry_run:
        return would(ctl, "fault.restart", f"restart {target}", [risk] if risk else [])
    if risk:
        ctl.confirm(f"restart {target}: {risk} for a moment", yes=yes)
    process = procfaults.restart(cluster, target)
    cluster.wait_serves(target, process)
    return ctl.show(started_view("fault.restart", cluster, target, process.pid))


@command(app)
def ls(ctl: Ctl, name: ClusterName = None) -> None:
    """List the faults there are."""
    from kvctl.render_cluster import faults_view

    cluster = own_cluster(ctl, name)
    ctl.show(faults_view("fault.ls", cluster.faults().faults, time.time_ns() // 1_000_000))


@command(app)
def heal(
    ctl: Ctl,
    fault: Annotated[str | None, typer.Argument(metavar="[ID]", show_default=False)] = None,
    every: Annotated[bool, typer.Option("--all", help="Every fault there is.")] = False,
    name: ClusterName = None,
) -> None:
    """End a fault: a paused node goes on, a stopped one is started."""
    import msgspec

    from kvctl import procfaults
    from kvctl.render_cluster import faults_view

    if (fault is None) != every:
        raise Usage("name either a fault or --all", "kvctl fault ls")
    cluster = own_cluster(ctl, name)
    if fault is None:
        healed = procfaults.heal_all(cluster)
    else:
        healed = [procfaults.find(cluster, fault)]
        procfaults.heal(cluster, fault)
    for each in healed:
        process = cluster.process(each.target)
        if process is not None:
            cluster.wait_serves(each.target, process)
    over = [msgspec.structs.replace(f, state="HEALED", expires=None) for f in healed]
    ctl.show(faults_view("fault.heal", over, time.time_ns() // 1_000_000))
