"""`kvctl fault`: kill, stop, restart, pause and wipe nodes of `kvctl up`; list and heal faults of every kind.

Promises: what destroys data or takes a quorum away is asked about first (`--yes` off a terminal);
a fault is listed until it is over. Never: touches a process `kvctl up` did not start.
Faults inside nodes are set in `nodefault.py`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from kvctl.cli import nodefault
from kvctl.cli.base import Ctl, DryRun, Yes, command, group
from kvctl.cli.where import ClusterName, NodeArg, askable, local_cluster, loss_of, own_cluster, quorum_risk
from kvctl.cli.words import Usage, seconds, some_seconds
from kvctl.errors import NoEndpoint, Refused

if TYPE_CHECKING:
    from kvctl.blast import Blast
    from kvctl.local import Cluster
    from kvctl.render import Object
    from kvctl.render_faults import Listed

app = group("Break nodes on purpose: their processes, their network, disk and clock; and heal them.")


def register(parent: typer.Typer) -> None:
    """Add this group."""
    nodefault.add(app)
    parent.add_typer(app, name="fault")


For = Annotated[str | None, typer.Option("--for", metavar="TIME", help="Heal it after this time: 10s, 1m.")]
PAUSE_S = 10.0


def _inflict(
    ctl: Ctl, kind: str, target: str, for_s: float | None, *, yes: bool, dry_run: bool, name: str | None
) -> None:
    from kvctl.procfaults import inflict
    from kvctl.render_faults import faults_view, of_process

    cluster = own_cluster(ctl, name)
    cluster.node(target)
    risks = [f"{kind} {target}: {risk}" for risk in (quorum_risk(cluster, target),) if risk]
    if kind == "wipe":
        risks.append(f"wipe {target}: its data directory {cluster.directory(target) / 'data'} is deleted")
    if dry_run:
        return would(ctl, f"fault.{kind}", f"{kind} {target}", risks, loss_of(cluster, target))
    if risks:
        ctl.confirm("; ".join(risks), yes=yes)
    fault = inflict(cluster, target, kind, for_s)
    return ctl.show(faults_view(f"fault.{kind}", [of_process(fault)], time.time_ns() // 1_000_000))


def would(ctl: Ctl, name: str, what: str, risks: list[str], radius: Blast | None = None) -> None:
    """What `--dry-run` prints; with the blast radius, where it could be worked out."""
    from kvctl.output import Table, View, show

    extra: Object = {} if radius is None else {"blast": radius.json()}
    details = () if radius is None else tuple(radius.lines())
    table = Table(("WOULD", "RISK"), ((show(what), show("; ".join(risks) or "none")),), below=details)
    ctl.show(View(name, {"dry_run": True, "would": what, "risks": risks, **extra}, table))


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
    """List the faults there are: of processes, and inside nodes."""
    from kvctl.nodefaults import gather
    from kvctl.render_faults import faults_view, of_nodes, of_process

    cluster = local_cluster(ctl, name)
    found = [] if cluster is None else [of_process(fault) for fault in cluster.faults().faults]
    try:
        client = nodefault.client_of(ctl, name)
        told = gather(client, askable(cluster, [member.id for member in client.ring().members]))
    except NoEndpoint:
        if cluster is None:
            raise
        ctl.note("no node answers: only faults of processes are known")
    else:
        found += of_nodes(told)
        if told.failed:
            ctl.note(f"{', '.join(told.failed)} did not answer: what faults are in there is not known")
    ctl.show(faults_view("fault.ls", found, time.time_ns() // 1_000_000))


@command(app)
def heal(
    ctl: Ctl,
    fault: Annotated[str | None, typer.Argument(metavar="[ID]", show_default=False)] = None,
    every: Annotated[bool, typer.Option("--all", help="Every fault there is.")] = False,
    name: ClusterName = None,
) -> None:
    """End a fault: a paused node goes on, a stopped one is started, a cut is mended."""
    from kvctl.render_faults import faults_view

    if (fault is None) != every or fault == "":
        raise Usage("name either a fault or --all", "kvctl fault ls")
    cluster = local_cluster(ctl, name)
    healed = [] if cluster is None else _heal_processes(cluster, fault)
    if every or not healed:
        # After the processes, so that a node that was paused hears it as well.
        healed += _heal_inside(ctl, fault or "", name, alone=cluster is None)
    ctl.show(faults_view("fault.heal", healed, time.time_ns() // 1_000_000))


def _heal_processes(cluster: Cluster, fault: str | None) -> list[Listed]:
    """Those that were ended; none where no process has this fault."""
    from kvctl import procfaults
    from kvctl.local import LaunchFailed
    from kvctl.render_faults import HEALED, of_process

    if fault is None:
        healed = procfaults.heal_all(cluster)
    else:
        healed = [f for f in cluster.faults().faults if f.id == fault]
        for each in healed:
            procfaults.heal(cluster, each.id)
    for each in healed:
        process = cluster.process(each.target)
        if process is None:
            continue
        try:
            cluster.wait_serves(each.target, process)
        except LaunchFailed:
            # A node that left the cluster meanwhile ends by itself, and is none of it any more.
            if any(node.name == each.target for node in cluster.spec.nodes):
                raise
    return [of_process(f, HEALED) for f in healed]


def _heal_inside(ctl: Ctl, fault: str, name: str | None, *, alone: bool) -> list[Listed]:
    """Those that were ended in nodes. Raises `NoSuchObject`, or what keeps a node from hearing it."""
    from kvctl.local import NoSuchObject
    from kvctl.nodefaults import heal as heal_inside
    from kvctl.orders import worst
    from kvctl.render_faults import HEALED, of_nodes

    try:
        told = heal_inside(nodefault.client_of(ctl, name), fault, ctl.timeout_s)
    except NoEndpoint:
        if fault or alone:
            raise
        return []
    # One that allows no faults has none.
    deaf = {node: error for node, error in told.failed.items() if not isinstance(error, Refused)}
    healed = of_nodes(told, HEALED)
    if fault and not healed:
        if deaf:
            raise worst(deaf, f"{fault} was not found, and may be", "kvctl fault ls")
        raise NoSuchObject(f"there is no fault {fault}", "kvctl fault ls")
    for node in deaf:
        ctl.note(f"{node} did not answer: a fault in there ends by itself")
    return healed
