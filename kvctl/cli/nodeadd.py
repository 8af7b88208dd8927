"""`kvctl node add`: one more local node, known to all and member of nothing yet.

Promises: it is known to every member that is up when this returns; one that did not start leaves no trace.
Never: changes who owns what: that is for `kvctl cluster join` and a commit.
"""

from __future__ import annotations

from typing import Annotated

import typer

from kvctl.cli.base import Ctl, command
from kvctl.cli.where import ClusterName, own_cluster


def register(app: typer.Typer) -> None:
    """Add this command to the group `node`."""
    command(app)(add)


Weight = Annotated[int, typer.Option(metavar="W", min=0, max=1000, help="Its share, relative to the others'.")]
HostLabel = Annotated[str, typer.Option("--host-label", metavar="H", help="Copies are kept on different hosts.")]
Rack = Annotated[str, typer.Option(metavar="R", help="...and on different racks, where there are enough.")]


def add(
    ctl: Ctl,
    node: Annotated[
        str, typer.Argument(metavar="[ID]", show_default=False, help="Its name; else the next nK.")
    ] = "",
    weight: Weight = 1,
    host: HostLabel = "",
    rack: Rack = "",
    name: ClusterName = None,
) -> None:
    """Start one more node. It waits outside the cluster until `cluster join` is committed."""
    from kvctl import addnode
    from kvctl.cli.node import started_view

    cluster = own_cluster(ctl, name)
    ring = ctl.client(",".join(cluster.addresses)).ring()
    spec, process = addnode.add_next(cluster, ring, node, addnode.Labels(weight, host, rack))
    ctl.show(started_view("node.add", cluster, spec.name, process.pid))
    ctl.note(f"next: kvctl cluster join {spec.name}")
