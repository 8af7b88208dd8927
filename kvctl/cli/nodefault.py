"""`kvctl fault` inside nodes: partition, delay, drop, duplicate, reorder, corrupt, disks, clocks.

Promises: every one ends by itself (30 s unless told), in the node, whether this console lives or not; what
takes a quorum away is asked about first. Never: leaves half a fault behind when it says that it failed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kvctl.cli.base import Ctl, DryRun, Yes, command
from kvctl.cli.where import ClusterName, NodeArg
from kvctl.cli.words import Usage, seconds, share, signed_seconds
from kvnode import config

if TYPE_CHECKING:
    from kvctl.client import Client
    from kvnode.protocol.faults import Fault

For = Annotated[str, typer.Option("--for", metavar="TIME", help="It ends by itself after this time: 10s, 1m.")]
LinkArg = Annotated[
    str, typer.Argument(metavar="NODE[>PEER]", show_default=False, help="What NODE sends (quote the >).")
]
ShareArg = Annotated[str, typer.Argument(metavar="SHARE", show_default=False, help="Of its batches: 30% or 0.3.")]
TimeArg = Annotated[str, typer.Argument(metavar="TIME", show_default=False)]
NodesArg = Annotated[str, typer.Argument(metavar="NODE,...", show_default=False)]


def _no_jitter(jitter: str | None) -> None:
    if jitter is not None:
        raise Usage("--jitter goes with delay: it is a time that differs, and a share has none")


NoJitter = Annotated[str | None, typer.Option("--jitter", hidden=True, callback=_no_jitter)]
FOR = f"{config.FAULT_FOR_MS // 1000}s"
SIGNED: dict[str, Any] = {"context_settings": {"ignore_unknown_options": True}}
"""`-5s` is a time here, not an option."""


SHARES = {
    "drop": "Lose a share of what a node sends.",
    "duplicate": "Send a share of what a node sends twice (but for forwarded puts).",
    "reorder": "Hold back a share of what a node sends, so that later batches pass it.",
    "corrupt": "Damage a share of what a node sends: peers must drop and count it.",
}
DISKS = {
    "full-disk": "Fail the next write of a node for want of room: it stops.",
    "fail-fsync": "Fail the next fsync of a node: it stops.",
}


def add(app: typer.Typer) -> None:
    """Add these commands to the group of faults."""
    command(app)(partition)
    command(app)(delay)
    for kind, about in SHARES.items():
        command(app, kind)(_of_share(kind, about))
    command(app)(slow_disk)
    for kind, about in DISKS.items():
        command(app, kind)(_of_disk(kind, about))
    command(app, **SIGNED)(skew)


def client_of(ctl: Ctl, name: str | None) -> Client:
    """A client of the cluster that was named, or else connected to. Raises `NoEndpoint`, `NoSuchObject`."""
    if name is None or ctl.connect is not None:
        return ctl.client()
    from kvctl.local import load

    return ctl.client(",".join(load(name).addresses))


def names(text: str) -> tuple[str, ...]:
    """`n1,n2`. Raises `Usage`."""
    found = tuple(dict.fromkeys(word.strip() for word in text.split(",")))
    if not all(found):
        raise Usage(f"{text!r} names no nodes: write n1,n2")
    return found


def link(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """`n1` or `n1>n2`. Raises `Usage`."""
    node, arrow, peer = text.partition(">")
    if not node or (arrow and not peer) or "," in text or ">" in peer:
        raise Usage(f"{text!r} is no link: write NODE or 'NODE>PEER', quoted")
    return (node,), (peer,) if peer else ()


class Order:
    """A fault as the command line asks for it."""

    def __init__(self, kind: str, nodes: tuple[str, ...], peers: tuple[str, ...] = (), **fields: Any) -> None:
        from kvctl.nodefaults import new_id
        from kvnode.protocol.faults import Fault
        from kvnode.protocol.types import NodeId

        named = tuple(map(NodeId, nodes)), tuple(map(NodeId, peers))
        self.fault: Fault = Fault(new_id(), kind, *named, **fields)

    def carry_out(self, ctl: Ctl, for_: str, *, yes: bool, dry_run: bool, name: str | None) -> None:
        """Look what it would break, ask, set it, and show it."""
        from kvctl import nodefaults
        from kvctl.blast import blast
        from kvctl.cli.fault import would
        from kvctl.render_faults import faults_view, of_nodes, target_of, value_of

        fault, for_ms = self.fault, round(seconds(for_) * 1000)
        client = client_of(ctl, name)
        _check(fault, for_ms, [member.id for member in client.ring().members])
        there = nodefaults.gather(client)
        radius = blast(client.ring(), there.faults.keys(), there.each(), fault)
        what = " ".join(word for word in (fault.kind, target_of(fault), value_of(fault), f"for {for_}") if word)
        risks = [f"{fault.kind} {target_of(fault)}: {radius.risk}"] * bool(radius.risk)
        if dry_run:
            return would(ctl, f"fault.{fault.kind}", what, risks, radius)
        if risks:
            ctl.confirm(risks[0], yes=yes)
        told = nodefaults.inflict(client, fault, for_ms, ctl.timeout_s)
        for node in told.failed:
            ctl.note(f"{node} did not answer: the others keep it cut off")
        return ctl.show(faults_view(f"fault.{fault.kind}", of_nodes(told), time.time_ns() // 1_000_000))


def _check(fault: Fault, for_ms: int, members: list[str]) -> None:
    """What the node would say, said before anything is asked. Raises `NoSuchObject`, `Invalid`."""
    from kvctl.errors import Invalid
    from kvctl.local import NoSuchObject
    from kvnode.protocol.faults import problem_of, time_problem

    for node in (*fault.nodes, *fault.peers):
        if node not in members:
            raise NoSuchObject(f"the cluster has no node {node}: it has {', '.join(members)}", "kvctl node ls")
    problem = problem_of(fault, members) or time_problem(for_ms)
    if problem:
        raise Invalid(problem, f"kvctl fault {fault.kind} --help")


def partition(
    ctl: Ctl,
    one: NodesArg,
    other: NodesArg,
    one_way: Annotated[bool, typer.Option("--one-way", help="Only what the first ones send is lost.")] = False,
    for_: For = FOR,
    yes: Yes = False,
    dry_run: DryRun = False,
    name: ClusterName = None,
) -> None:
    """Let nothing pass between these nodes and those. Clients reach them all."""
    order = Order("partition", names(one), names(other), one_way=one_way)
    order.carry_out(ctl, for_, yes=yes, dry_run=dry_run, name=name)


def delay(
    ctl: Ctl,
    target: LinkArg,
    by: TimeArg,
    jitter: Annotated[str, typer.Option("--jitter", metavar="TIME", help="Up to so much more or less.")] = "0s",
    for_: For = FOR,
    yes: Yes = False,
    dry_run: DryRun = False,
    name: ClusterName = None,
) -> None:
    """Delay what a node sends to another (to all): 100ms. Order is kept."""
    order = Order("delay", *link(target), amount=seconds(by) * 1000, jitter_ms=seconds(jitter) * 1000)
    order.carry_out(ctl, for_, yes=yes, dry_run=dry_run, name=name)


def _of_share(kind: str, about: str) -> Callable[..., None]:
    """The command of a fault that strikes a share of what a node sends."""

    def strike(
        ctl: Ctl,
        target: LinkArg,
        part: ShareArg,
        jitter: NoJitter = None,
        for_: For = FOR,
        yes: Yes = False,
        dry_run: DryRun = False,
        name: ClusterName = None,
    ) -> None:
        Order(kind, *link(target), amount=share(part)).carry_out(ctl, for_, yes=yes, dry_run=dry_run, name=name)

    strike.__doc__ = about
    return strike


def _of_disk(kind: str, about: str) -> Callable[..., None]:
    """The command of a fault after which a node stops."""

    def strike(
        ctl: Ctl,
        node: NodeArg,
        for_: For = FOR,
        yes: Yes = False,
        dry_run: DryRun = False,
        name: ClusterName = None,
    ) -> None:
        Order(kind, (node,)).carry_out(ctl, for_, yes=yes, dry_run=dry_run, name=name)

    strike.__doc__ = about
    return strike


def slow_disk(
    ctl: Ctl,
    node: NodeArg,
    by: TimeArg,
    for_: For = FOR,
    yes: Yes = False,
    dry_run: DryRun = False,
    name: ClusterName = None,
) -> None:
    """Delay each commit of a node: 200ms."""
    order = Order("slow-disk", (node,), amount=seconds(by) * 1000)
    order.carry_out(ctl, for_, yes=yes, dry_run=dry_run, name=name)


def skew(
    ctl: Ctl,
    node: NodeArg,
    by: TimeArg,
    for_: For = FOR,
    yes: Yes = False,
    dry_run: DryRun = False,
    name: ClusterName = None,
) -> None:
    """Turn the wall clock of a node: 5s ahead, -5s back."""
    order = Order("skew", (node,), amount=signed_seconds(by) * 1000)
    order.carry_out(ctl, for_, yes=yes, dry_run=dry_run, name=name)
