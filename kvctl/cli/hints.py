"""`kvctl hints`: writes kept for owners that could not take them: look, deliver, drop, slow down.

Promises: each member is asked directly, and one that was not reached is named and costs the exit code;
dropping says first how many, of whom and for whom. Never: drops a hint without a yes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from kvctl.cli.base import Ctl, DryRun, Yes, command, group
from kvctl.cli.words import per_second

if TYPE_CHECKING:
    from kvctl.client import Make
    from kvctl.health import Held
    from kvctl.orders import Obeyed
    from kvnode.protocol.messages import ClusterReport

app = group("Hints: writes that members keep for owners which could not take them.")


def register(parent: typer.Typer) -> None:
    """Add this group."""
    parent.add_typer(app, name="hints")


@command(app)
def ls(ctl: Ctl) -> None:
    """Who keeps hints for whom, and how fast they go."""
    from kvctl.render_repair import hints_view

    ctl.show(hints_view(ctl.client().status()))


@command(app)
def deliver(
    ctl: Ctl,
    owner: Annotated[str, typer.Argument(metavar="[ID]", show_default=False, help="Those for this owner.")] = "",
) -> None:
    """Deliver hints now, as fast as the throttle allows."""
    from kvctl.orders import obeyed_view
    from kvnode.protocol.messages import DeliverHints

    _member(ctl.client().status(), owner)
    result = _ask(ctl, lambda rid, _: DeliverHints(rid, owner), _holders(ctl, owner))
    ctl.show(obeyed_view("hints.deliver", result, "hints", owner=owner or None))
    _judge(result, "the delivery")


@command(app)
def drop(
    ctl: Ctl,
    owner: Annotated[str, typer.Argument(metavar="ID", show_default=False)],
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Forget the hints for an owner: writes may be lost."""
    from kvctl.cli.fault import would
    from kvctl.health import held, silent
    from kvctl.orders import obeyed_view
    from kvnode.protocol.messages import DropHints

    told = ctl.client().status()
    kept = [h for h in held(told) if h.hints.owner == owner]
    if not kept:
        _member(told, owner)
    quiet = [node for node in silent(told) if node != owner]
    what = drop_text(owner, kept)
    risks = ["writes acknowledged through them may be lost"] * bool(kept)
    risks += [f"{', '.join(quiet)} did not answer, and may keep more"] * bool(quiet)
    if dry_run:
        return would(ctl, "hints.drop", what, risks)
    ctl.confirm(": ".join((what, "; ".join(risks))) if risks else what, yes=yes)
    result = _ask(ctl, lambda rid, _: DropHints(rid, owner), _holders(ctl, owner))
    ctl.show(obeyed_view("hints.drop", result, "hints", owner=owner))
    return _judge(result, "the drop")


@command(app)
def throttle(
    ctl: Ctl,
    rate: Annotated[str, typer.Argument(metavar="RATE", show_default=False, help="Hints a second: 500 or 500/s.")],
) -> None:
    """Deliver at most so many hints a second."""
    from kvctl.orders import obeyed_view
    from kvnode.protocol.messages import ThrottleHints

    per_s = per_second(rate)
    result = _ask(ctl, lambda rid, _: ThrottleHints(rid, per_s), None)
    ctl.show(obeyed_view("hints.throttle", result, "per_s", per_s=per_s))
    _judge(result, "the throttle")


def drop_text(owner: str, kept: list[Held]) -> str:
    """How many hints would go, and whose they are."""
    if not kept:
        return f"drop the hints for {owner}, of which none is known"
    where = ", ".join(f"{h.hints.count} on {h.holder}" for h in kept)
    return f"drop {sum(h.hints.count for h in kept)} hints for {owner} ({where})"


def _member(told: ClusterReport, owner: str) -> None:
    """Raises `NoSuchObject` for a name that no member has."""
    from kvctl.local import NoSuchObject

    if owner and all(member.id != owner for member in told.ring.members):
        raise NoSuchObject(f"the cluster has no node {owner}, and no hints for it are kept", "kvctl hints ls")


def _holders(ctl: Ctl, owner: str) -> list[str]:
    """Who may keep hints for an owner: all but itself, so that it may be down meanwhile."""
    return [member.id for member in ctl.client().ring().members if member.id != owner]


def _ask(ctl: Ctl, make: Make, nodes: list[str] | None) -> Obeyed:
    from kvctl.orders import obeyed

    return obeyed(ctl.client().ask_each(make, nodes, ctl.timeout_s))


def _judge(result: Obeyed, what: str) -> None:
    problem = result.problem(what, "kvctl hints ls")
    if problem is not None:
        raise problem
