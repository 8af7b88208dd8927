"""Local nodes that come later, and go: `kvctl node add`, and what the autoscaler's launcher does.

Promises: a node that was added is known to every member that is up when this returns; one that could not be
started leaves no trace. Never: takes a name that this cluster has had, or a port that something listens on.
"""

from __future__ import annotations

import re
import shutil
import socket
import time
from collections.abc import Collection
from contextlib import suppress

import msgspec
from msgspec import Struct

from kvctl.client import Client
from kvctl.errors import Invalid, KvError
from kvctl.health import UP, states
from kvctl.local import LOOK_S, START_S, Cluster, LaunchFailed, NodeSpec, check_ports
from kvctl.processes import Process
from kvctl.settings import NAME
from kvnode.protocol.messages import ClusterReport, Status
from kvnode.protocol.ring import Ring
from kvnode.protocol.types import NodeId

PORTS = 200
"""Ports that are tried after the last one of the cluster."""
IN_USE, TRIES_MAX = "Address already in use", 5
"""A port may be free when it is looked at and taken when the node binds it: then the next one is tried."""


class Labels(Struct, frozen=True):
    """What a node is to the assignment."""

    weight: int = 1
    host: str = ""
    rack: str = ""


NO_LABELS = Labels()


def add_next(cluster: Cluster, ring: Ring, name: str = "", labels: Labels = NO_LABELS) -> tuple[NodeSpec, Process]:
    """Add such a node, on another port where someone was quicker. Raises `Invalid`, `LaunchFailed`."""
    taken: set[str] = set()
    while True:
        plain = next_node(cluster, ring, name, taken)
        node = msgspec.structs.replace(plain, weight=labels.weight, host=labels.host, rack=labels.rack)
        try:
            return node, add(cluster, node)
        except LaunchFailed as failed:
            if IN_USE not in failed.message or len(taken) >= TRIES_MAX:
                raise
        taken.add(node.address)


def next_node(cluster: Cluster, ring: Ring, name: str = "", but: Collection[str] = ()) -> NodeSpec:
    """A node to add: of that name, or the next nK; on the next free port. Raises `Invalid`, `LaunchFailed`."""
    taken = {node.name for node in cluster.spec.nodes} | {m.id for m in (*ring.members, *ring.removed)}
    taken |= {path.name for path in cluster.path.iterdir() if path.is_dir()}
    if name and not NAME.fullmatch(name):
        raise Invalid(f"{name!r} is no name: letters, digits and ._- only, 64 at most")
    if any(name == former.id for former in ring.removed):
        raise Invalid(f"{name} was removed from this cluster, and a removed name never returns", "kvctl node add")
    if name in taken:
        raise Invalid(f"cluster {cluster.name} has, or has had, a node {name}", "kvctl node ls, kvctl node add")
    numbers = [int(match[1]) for each in taken if (match := re.fullmatch(r"n(\d{1,9})", each))]
    return NodeSpec(name or f"n{max(numbers, default=0) + 1}", _free_address(cluster, ring, but), joined=True)


def _free_address(cluster: Cluster, ring: Ring, but: Collection[str]) -> str:
    addresses = {*cluster.addresses, *(member.address for member in ring.members)}
    last = max(int(address.rpartition(":")[2]) for address in addresses)
    for port in range(last + 1, min(last + PORTS, 65536)):
        if f"127.0.0.1:{port}" in but:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return f"127.0.0.1:{port}"
    raise LaunchFailed(f"no port after {last} is free", "end what listens there")


def add(cluster: Cluster, node: NodeSpec) -> Process:
    """Start a node and wait until every member that is up knows it. Raises `LaunchFailed`."""
    check_ports([node.address])
    before = cluster.spec
    with cluster.changing():
        cluster.spec = msgspec.structs.replace(before, nodes=[*before.nodes, node])
        cluster.save()
        process = cluster.start(node.name)
    try:
        _wait_known(cluster, node, process)
    except BaseException:
        cluster.end(node.name)
        with cluster.changing():
            cluster.spec = before
            cluster.save()
        shutil.rmtree(cluster.directory(node.name), ignore_errors=True)
        raise
    return process


def _wait_known(cluster: Cluster, node: NodeSpec, process: Process) -> None:
    from kvctl import processes

    deadline = time.monotonic() + START_S
    while True:
        if not processes.alive(process):
            words = cluster.last_words(node.name)
            raise LaunchFailed(f"{node.name} ended while starting. Its last words:\n{words}")
        with suppress(KvError), Client(",".join(cluster.addresses)) as client:
            if not unaware(client, node.name):
                return
        if time.monotonic() > deadline:
            raise LaunchFailed(
                f"not every member came to know {node.name} within {START_S:.0f} s", f"kvctl node logs {node.name}"
            )
        time.sleep(LOOK_S)


def unaware(client: Client, node: str) -> list[str]:
    """The members that are up and do not know this node yet, or did not say."""
    told = client.status(0.5)
    up = [m.id for m, state in zip(told.ring.members, states(told), strict=True) if state == UP]
    answers = client.ask_each(lambda rid, _: Status(rid, 500), up)
    return [member for member in up if not _knows(answers.get(member), NodeId(node))]


def _knows(told: object, node: NodeId) -> bool:
    if not isinstance(told, ClusterReport):
        return False
    return told.ring.member(node) is not None or any(
        o.member.id == node and o.report is not None for o in told.outside
    )
