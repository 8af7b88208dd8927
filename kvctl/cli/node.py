"""`kvctl node`: the nodes one by one: list, look at, start, stop, read the log.

Promises: what a node says of itself comes from that node; start, stop and logs are for nodes of
`kvctl up`. Never: stops a node that would take a quorum away without asking.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kvctl.cli import nodeadd
from kvctl.cli.base import Ctl, DryRun, Yes, command, group
from kvctl.cli.where import ClusterName, NodeArg, known_faults, local_cluster, own_cluster, quorum_risk
from kvctl.errors import KvError, Unavailable

if TYPE_CHECKING:
    from kvctl.local import Cluster
    from kvctl.output import View
    from kvctl.render import Object
    from kvnode.protocol.messages import ClusterReport, NodeReport
    from kvnode.protocol.ring import Member

app = group("Look at nodes, and start or stop those of `kvctl up`.")


def register(parent: typer.Typer) -> None:
    """Add this group."""
    nodeadd.register(app)
    parent.add_typer(app, name="node")


FOLLOW_S = 0.2


@command(app)
def ls(
    ctl: Ctl,
    matrix: Annotated[bool, typer.Option("--matrix", help="Who sees whom: a row an observer.")] = False,
) -> None:
    """List the nodes, with their state and process."""
    from kvctl.render_cluster import nodes_view
    from kvctl.shape import known

    if matrix:
        from kvctl.render_liveness import matrix_view

        return ctl.show(matrix_view(ctl.client().status()))
    cluster = local_cluster(ctl)
    try:
        told = ctl.client().status()
    except KvError:
        if cluster is None:
            raise
        # Nothing answers, and that is worth showing: the processes are known all the same.
        return ctl.show(
            nodes_view([_local_node(cluster, n.name, n.address, None, None) for n in cluster.spec.nodes])
        )
    return ctl.show(
        nodes_view([_local_node(cluster, m.id, m.address, r, told.ring.membership(m.id)) for m, r in known(told)])
    )


def _local_node(
    cluster: Cluster | None, name: str, address: str, report: NodeReport | None, member: str | None
) -> Object:
    process = cluster.process(name) if cluster is not None else None
    data = str(cluster.directory(name) / "data") if cluster is not None else None
    pid = report.pid if report is not None else process.pid if process is not None else None
    return {
        "id": name, "address": address, "state": "down" if report is None else "up", "pid": pid, "data": data,
        "member": member,
    }  # fmt: skip


@command(app)
def info(ctl: Ctl, node: NodeArg) -> None:
    """All a node says of itself."""
    from kvctl.render_cluster import fields_view, info_json

    told, member, report = _one(ctl, node)
    ctl.show(fields_view("node.info", info_json(told, member, report, known_faults(ctl, told))))


@command(app)
def stats(ctl: Ctl, node: NodeArg) -> None:
    """A node's counters since it started."""
    from kvctl.render_cluster import stats_view

    _, _, report = _one(ctl, node)
    if report is None:
        raise Unavailable(f"{node} does not answer", f"kvctl node logs {node}")
    ctl.show(stats_view(report))


def _one(ctl: Ctl, node: str) -> tuple[ClusterReport, Member, NodeReport | None]:
    """A member and its report. Raises `NoSuchObject`."""
    from kvctl.local import NoSuchObject
    from kvctl.shape import known

    told = ctl.client().status()
    for member, report in known(told):
        if member.id == node:
            return told, member, report
    raise NoSuchObject(f"the cluster has no node {node}", "kvctl node ls")


@command(app)
def start(ctl: Ctl, node: NodeArg, name: ClusterName = None) -> None:
    """Start a node that is down, with its data."""
    from kvctl import procfaults

    cluster = own_cluster(ctl, name)
    process = procfaults.start(cluster, node)
    cluster.wait_serves(node, process)
    ctl.show(started_view("node.start", cluster, node, process.pid))


@command(app)
def stop(ctl: Ctl, node: NodeArg, yes: Yes = False, dry_run: DryRun = False, name: ClusterName = None) -> None:
    """Stop a node: it finishes what it acknowledged."""
    from kvctl import procfaults
    from kvctl.cli.fault import would
    from kvctl.output import Table, View, show

    cluster = own_cluster(ctl, name)
    cluster.node(node)
    risk = quorum_risk(cluster, node)
    if dry_run:
        return would(ctl, "node.stop", f"stop {node}", [risk] if risk else [])
    if risk:
        ctl.confirm(f"stop {node}: {risk}", yes=yes)
    left = False
    with suppress(KvError):
        left = node in cluster.former()
    clean = procfaults.stop(cluster, node)
    if not clean:
        ctl.note(f"{node} did not end by itself and was killed")
    if left:
        cluster.forget(node)
        ctl.note(f"{node} has left the cluster: kvctl up starts it no more")
    data: Object = {"node": node, "state": "stopped", "clean": clean}
    return ctl.show(View("node.stop", data, Table(("NODE", "STATE"), ((show(node), "stopped"),))))


def started_view(schema: str, cluster: Cluster, node: str, pid: int) -> View:
    """A node that was started."""
    from kvctl.output import Table, View, show

    address = cluster.node(node).address
    table = Table(("NODE", "ADDRESS", "PID"), ((show(node), address, str(pid)),))
    return View(schema, {"node": node, "address": address, "pid": pid}, table)


@command(app)
def logs(
    ctl: Ctl,
    node: NodeArg,
    lines: Annotated[
        int, typer.Option("--lines", "-n", metavar="N", min=0, help="So many of the last lines.")
    ] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it grows; Ctrl-C ends.")] = False,
    name: ClusterName = None,
) -> None:
    """The last lines of a node's log."""
    cluster = own_cluster(ctl, name)
    cluster.node(node)
    path = cluster.directory(node) / "log"
    try:
        with path.open(errors="surrogateescape") as file:
            last = list(deque(file, maxlen=lines))
            at = file.tell()
    except FileNotFoundError:
        last, at = [], 0
    _show_lines(ctl, last)
    if follow:
        for line in _growing(path, at):
            _show_lines(ctl, [line])


def _growing(path: Path, at: int) -> Iterator[str]:
    """Lines as they are added; the file may be rotated away and begun anew."""
    while True:
        time.sleep(FOLLOW_S)
        if not path.exists():
            continue
        if path.stat().st_size < at:
            at = 0
        with path.open(errors="surrogateescape") as file:
            file.seek(at)
            for line in iter(file.readline, ""):
                if not line.endswith("\n"):
                    break
                at += len(line.encode("utf-8", "surrogateescape"))
                yield line


def _show_lines(ctl: Ctl, lines: list[str]) -> None:
    import sys

    from kvctl.output import Table, View, show

    objects: list[Object] = []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            entry = {"text": line.rstrip("\n")}
        objects.append(entry if isinstance(entry, dict) else {"text": line.rstrip("\n")})
    names = ("at", "level", "kind", "text")
    rows = tuple(tuple(show(str(o.get(n, "-"))) for n in names) for o in objects)
    table = Table(tuple(n.upper() for n in names), rows)
    if ctl.form in ("table", "wide"):
        print("\n".join("  ".join(row) for row in rows) if rows else "", end="\n" if rows else "")
    else:
        ctl.show(View("node.logs", {"lines": objects, "count": len(objects)}, table, objects))
    sys.stdout.flush()
