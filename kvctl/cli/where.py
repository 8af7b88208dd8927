"""Which local cluster a command is about, and what a fault there would break.

Promises: a node that `kvctl up` did not start is never touched (`Refused`, exit 8).
Never: takes a name for an address, or the other way round.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from kvctl import endpoints
from kvctl.cli.base import Ctl
from kvctl.errors import KvError, Refused

if TYPE_CHECKING:
    from kvctl.blast import Blast
    from kvctl.faultlog import Fault
    from kvctl.local import Cluster
    from kvctl.render_cluster import Faults
    from kvnode.protocol.messages import ClusterReport
    from kvnode.protocol.messages import Fault as InsideFault

ClusterName = Annotated[
    str | None, typer.Option("--name", metavar="NAME", help="The local cluster; default: the one connected to.")
]
NodeArg = Annotated[str, typer.Argument(metavar="NODE", show_default=False)]


def local_cluster(ctl: Ctl, name: str | None = None) -> Cluster | None:
    """The local cluster that was named, or that the endpoints belong to; None for a remote one.

    Raises `NoEndpoint`, `NoSuchObject`.
    """
    from kvctl import local

    if name is not None:
        return local.load(name)
    found = endpoints.resolve(ctl.connect)
    kind, _, cluster = found.origin.partition(" ")
    if kind == "cluster":
        return local.load(cluster)
    for candidate in reversed(local.names()):
        with suppress(KvError):
            cluster_here = local.load(candidate)
            if set(cluster_here.addresses) & set(found.addresses):
                return cluster_here
    return None


def own_cluster(ctl: Ctl, name: str | None) -> Cluster:
    """The same, for commands that work on processes. Raises `Refused` for a cluster that is not ours."""
    cluster = local_cluster(ctl, name)
    if cluster is None:
        raise Refused(
            "these nodes were not started by kvctl up: their processes are not ours to touch",
            "kvctl fault ... --name CLUSTER for a local one",
        )
    return cluster


def askable(cluster: Cluster | None, nodes: Collection[str]) -> set[str]:
    """Those that may answer: one without a process, where that is known, has no faults inside."""
    gone = set() if cluster is None else {node.name for node in cluster.spec.nodes} - set(cluster.running())
    return set(nodes) - gone


def known_faults(ctl: Ctl, told: ClusterReport) -> Faults:
    """Node -> the faults of its process, and those inside it where the report does not tell them."""
    from kvctl.health import silent
    from kvctl.nodefaults import gather

    found: dict[str, list[Fault | InsideFault]] = {}
    quiet: set[str] = set(silent(told))
    with suppress(KvError):
        cluster = local_cluster(ctl)
        for fault in cluster.faults().faults if cluster is not None else ():
            found.setdefault(fault.target, []).append(fault)
        quiet &= askable(cluster, quiet)
    if quiet:
        # It may be a fault that keeps them from answering the node that was asked.
        for node, faults in gather(ctl.client(), quiet).faults.items():
            found.setdefault(node, []).extend(faults)
    return found


def quorum_risk(cluster: Cluster, target: str) -> str:
    """What stopping this node would break, as a sentence; empty when every partition keeps its quorum."""
    radius = loss_of(cluster, target)
    return f"without {target}, {radius.risk}" if radius is not None and radius.risk else ""


def loss_of(cluster: Cluster, target: str) -> Blast | None:
    """The blast radius of losing this node; None when no node answers."""
    from kvctl.blast import loss
    from kvctl.client import Client
    from kvctl.nodefaults import gather

    try:
        with Client(",".join(cluster.addresses)) as client:
            told = gather(client, askable(cluster, [member.id for member in client.ring().members]))
            return loss(client.ring(), told.faults.keys(), told.each(), target)
    except KvError:
        return None
