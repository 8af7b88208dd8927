"""`kvctl cluster`: change which nodes there are. Changes are staged, looked at as a plan, and committed.

Promises: nothing moves before a commit; a commit is of a plan that was printed, for the very ring it was
printed for (else exit 7). Never: throws a copy away without a yes.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from kvctl.cli.base import Ctl, DryRun, Yes, command, group
from kvctl.cli.words import byte_rate
from kvctl.errors import Conflict, Invalid, KvError

if TYPE_CHECKING:
    from kvctl.render import Object
    from kvnode.protocol.messages import ChangeKind, ClusterReport, Plan
    from kvnode.protocol.ring import Ring

app = group("Change which nodes the cluster has: stage changes, look at the plan, commit it.")
DECIDE_S = 10.0
"""Least time a commit is given: a majority has to agree, and sync it."""

Id = Annotated[str, typer.Argument(metavar="ID", show_default=False)]


def register(parent: typer.Typer) -> None:
    """Add this group."""
    parent.add_typer(app, name="cluster")


# ---- stage ---------------------------------------------------------------------------------


@command(app)
def join(ctl: Ctl, node: Id, dry_run: DryRun = False) -> None:
    """Stage that a node which waits outside becomes a member."""
    from kvctl.guards import newcomer_problem
    from kvnode.protocol.messages import ChangeKind

    _raise(newcomer_problem(ctl.client().status(), node))
    _stage(ctl, ChangeKind.JOIN, node, dry_run=dry_run)


@command(app)
def leave(ctl: Ctl, node: Id, yes: Yes = False, dry_run: DryRun = False) -> None:
    """Stage that a member gives all it has to the others and goes."""
    from kvctl.guards import leaving_risk, member_problem
    from kvnode.protocol.messages import ChangeKind

    told = ctl.client().status()
    _raise(member_problem(told, node))
    risk = leaving_risk(told, node, ctl.client().plan().changes)
    _stage(ctl, ChangeKind.LEAVE, node, risk=risk, yes=yes, dry_run=dry_run)


@command(app)
def replace(
    ctl: Ctl,
    old: Annotated[str, typer.Argument(metavar="OLD", show_default=False, help="The member that goes.")],
    new: Annotated[str, typer.Argument(metavar="NEW", show_default=False, help="The node that takes its places.")],
    dry_run: DryRun = False,
) -> None:
    """Stage that a node which waits outside takes the places of a member."""
    from kvctl.guards import member_problem, newcomer_problem
    from kvnode.protocol.messages import ChangeKind

    told = ctl.client().status()
    _raise(member_problem(told, old))
    if old == new:
        raise Invalid(f"{old} cannot take its own places", f"kvctl node add, then kvctl cluster replace {old} NEW")
    _raise(newcomer_problem(told, new))
    _stage(ctl, ChangeKind.REPLACE, old, new, dry_run=dry_run)


@command(app)
def force_remove(ctl: Ctl, node: Id, yes: Yes = False, dry_run: DryRun = False) -> None:
    """Stage that a lost member is cut off: the way out when a majority is gone for good."""
    from kvctl.guards import removal_problem, removal_risk
    from kvnode.protocol.messages import ChangeKind

    told = ctl.client().status()
    _raise(removal_problem(told, node))
    _stage(ctl, ChangeKind.FORCE_REMOVE, node, risk=removal_risk(told, [node]), yes=yes, dry_run=dry_run)


def _stage(
    ctl: Ctl,
    kind: ChangeKind,
    node: str,
    new: str = "",
    *,
    risk: str = "",
    yes: bool = False,
    dry_run: bool = False,
) -> None:
    from kvctl.cli.fault import would
    from kvctl.render_shape import WORDS, staged_view

    word = WORDS[kind]
    what = f"stage: {word} {node} {new}".rstrip()
    if dry_run:
        return would(ctl, f"cluster.{word}", what, [risk] if risk else [])
    if risk:
        ctl.confirm(f"{what}: {risk}", yes=yes)
    staged = ctl.client().stage(kind, node, new)
    ctl.show(staged_view(f"cluster.{word}", staged.epoch, staged.changes))
    return ctl.note("next: kvctl cluster plan")


def _raise(problem: KvError | None) -> None:
    if problem is not None:
        raise problem


@command(app)
def clear(ctl: Ctl) -> None:
    """Forget every staged change."""
    from kvctl.render_shape import staged_view

    staged = ctl.client().clear_staged()
    ctl.show(staged_view("cluster.clear", staged.epoch, staged.changes))


# ---- plan and commit -------------------------------------------------------------------------


@command(app)
def plan(ctl: Ctl) -> None:
    """Show what a commit would do: moves, bytes, time, balance, and the failure margin before and after."""
    from kvctl import planlog
    from kvctl.render_shape import plan_view
    from kvctl.shape import cost, progress

    told, found = ctl.client().status(), ctl.client().plan()
    ctl.show(plan_view(found, cost(found, told), progress(told)))
    if not found.problem:
        planlog.remember(found.ring.cluster_id, planlog.Printed(found.id, found.epoch))
        ctl.note(f"next: kvctl cluster commit {found.id}")
    elif found.changes:
        raise Conflict(f"this plan cannot be committed: {found.problem}", "kvctl cluster clear")
    else:
        ctl.note(f"{found.problem}. next: kvctl cluster join ID, leave ID, or replace OLD NEW")


@command(app)
def commit(
    ctl: Ctl,
    wanted: Annotated[
        str | None, typer.Argument(metavar="[PLAN]", show_default=False, help="Default: the one printed last.")
    ] = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Carry out a plan that was printed. Returns once the members have agreed; transfers go on."""
    from kvctl import planlog
    from kvctl.cli.fault import would
    from kvctl.render_shape import change_text
    from kvctl.shape import transfers

    begun = time.monotonic()
    client = ctl.client()
    found = client.plan()
    check_meant(found, wanted, client.ring())
    moved = sum(t.taker is not None for t in transfers(found.ring))
    changes = ", ".join(map(change_text, found.changes)) or "balance"
    what = f"commit plan {found.id} ({changes}): {moved} replicas move"
    risks = _losses(client.status(), found)
    if dry_run:
        return would(ctl, "cluster.commit", what, risks)
    if risks:
        ctl.confirm(f"{what}; {'; '.join(risks)}", yes=yes)
    epoch = client.commit(found, max(DECIDE_S, ctl.timeout_s))
    planlog.forget(found.ring.cluster_id)
    _decided(ctl, "cluster.commit", epoch, begun, plan=found.id, replicas_moved=moved)
    return ctl.note("next: kvctl wait ring-ready, or kvctl status --watch")


def check_meant(found: Plan, wanted: str | None, ring: Ring) -> None:
    """Raises `Conflict` unless this is the plan that is meant."""
    from kvctl import planlog

    nothing = bool(found.problem) and not found.changes
    if wanted is None:
        if nothing:
            raise Conflict(found.problem, "kvctl cluster join ID, leave ID, or replace OLD NEW")
        printed = planlog.last(ring.cluster_id)
        if printed is None:
            raise Conflict("no plan was printed since the last commit", "kvctl cluster plan")
        wanted = printed.plan
    if wanted != found.id:
        now = "nothing is staged" if nothing else f"it would be plan {found.id} of epoch {found.epoch}"
        raise Conflict(
            f"plan {wanted} is stale: since it was printed the ring, or what is staged, has changed ({now} now)",
            "kvctl cluster plan",
        )
    if found.problem:
        raise Conflict(f"plan {found.id} cannot be committed: {found.problem}", "kvctl cluster plan")


def _losses(told: ClusterReport, found: Plan) -> list[str]:
    """What a plan throws away for good."""
    from kvctl.guards import removal_risk
    from kvnode.protocol.messages import ChangeKind

    gone = [change.node for change in found.changes if change.kind == ChangeKind.FORCE_REMOVE]
    return [removal_risk(told, gone)] if gone else []


@command(app)
def cancel(ctl: Ctl) -> None:
    """Give up the moves that are pending. What has been moved stays where it is."""
    begun = time.monotonic()
    epoch = ctl.client().cancel(max(DECIDE_S, ctl.timeout_s))
    _decided(ctl, "cluster.cancel", epoch, begun)
    ctl.note("next: kvctl cluster plan shows what would restore the balance")


def _decided(ctl: Ctl, schema: str, epoch: int, begun: float, **more: str | int) -> None:
    from kvctl.output import Table, View, show

    took_ms = round((time.monotonic() - begun) * 1000)
    data: Object = {"epoch": epoch, "took_ms": took_ms, **more}
    names = ("EPOCH", *(name.upper() for name in more), "TOOK_MS")
    row = (str(epoch), *(show(str(value)) for value in more.values()), str(took_ms))
    ctl.show(View(schema, data, Table(names, (row,))))


@command(app)
def throttle(
    ctl: Ctl,
    rate: Annotated[
        str, typer.Argument(metavar="RATE", show_default=False, help="Bytes a second a node: 10MB/s; none.")
    ],
) -> None:
    """Let every node receive at most so many bytes a second by transfers."""
    from kvctl.orders import obeyed, obeyed_view
    from kvnode.protocol.messages import ThrottleMoves

    per_s = byte_rate(rate)
    client = ctl.client()
    # Those that wait outside too: it is who joins that receives.
    outside = [one.member for one in client.status().outside]
    result = obeyed(client.ask_each(lambda rid, _: ThrottleMoves(rid, per_s), None, ctl.timeout_s, outside))
    ctl.show(obeyed_view("cluster.throttle", result, "bytes_per_s", bytes_per_s=per_s))
    _raise(result.problem("the throttle", "kvctl status"))
