"""Replies about the shape of a cluster -> views: staged changes, plans, progress, the ring. Pure.

Promises: `cluster plan -o json` exactly as CONTRACT ("Cluster") writes it, and more beside it.
Never: talks to a node, or prints.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from kvctl.health import size, span
from kvctl.output import Table, View, show
from kvctl.render import Object
from kvctl.shape import Cost, Progress, Transfer, progress, replicas, settled, transfers
from kvnode.protocol.messages import Change, ChangeKind, ClusterReport, Plan
from kvnode.protocol.ring import Ring

WORDS = {
    ChangeKind.JOIN: "join", ChangeKind.LEAVE: "leave", ChangeKind.REPLACE: "replace",
    ChangeKind.FORCE_REMOVE: "force-remove",
}  # fmt: skip


# ---- staged --------------------------------------------------------------------------------


def change_json(change: Change) -> Object:
    """A staged change."""
    new = change.member.id if change.kind == ChangeKind.REPLACE and change.member is not None else None
    return {"change": WORDS[change.kind], "node": change.node, "new": new}


def change_text(change: Change) -> str:
    """A staged change, as it was typed."""
    new = f" {change.member.id}" if change.kind == ChangeKind.REPLACE and change.member is not None else ""
    return f"{WORDS[change.kind]} {change.node}{new}"


def staged_view(command: str, epoch: int, changes: Sequence[Change]) -> View:
    """What is staged now."""
    objects = [change_json(change) for change in changes]
    rows = tuple((show(o["change"]), show(o["node"]), show(o["new"] or "-")) for o in objects)
    below = () if rows else ("nothing is staged",)
    table = Table(("CHANGE", "NODE", "NEW"), rows, below=below)
    return View(command, {"epoch": epoch, "staged": objects, "count": len(objects)}, table, objects)


# ---- plan ----------------------------------------------------------------------------------


def plan_view(plan: Plan, found: Cost, way: Progress) -> View:
    """`cluster plan`: what a commit would do."""
    data: Object = {
        "plan": plan.id,
        "epoch": plan.epoch,
        "changes": [change_json(change) for change in plan.changes],
        "moves": [_transfer_json(transfer) for transfer in found.transfers],
        "replicas_moved": found.replicas_moved,
        "optimum": plan.optimum,
        "bytes": found.bytes,
        "time_s": None if found.time_s is None else round(found.time_s, 1),
        "before": found.before,
        "after": found.after,
        "margin_before": round(found.margin_before, 4),
        "margin": round(found.margin_after, 4),
        "warnings": list(found.warnings),
        "problem": plan.problem or None,
        "progress": progress_json(way) if way.partitions else None,
    }
    nodes = sorted(found.before.keys() | found.after.keys())
    takes, gives = Counter(t.taker for t in found.transfers), Counter(t.giver for t in found.transfers)
    rows = tuple(
        (
            show(node), str(found.before.get(node, "-")), str(found.after.get(node, "-")),
            f"+{takes[node]}" if takes[node] else "-", f"-{gives[node]}" if gives[node] else "-",
        )
        for node in nodes
    )  # fmt: skip
    columns = ("NODE", "BEFORE", "AFTER", "TAKES", "GIVES")
    table = Table(
        columns, rows, frozenset(columns[1:]), above=plan_head(plan, found), below=_below(plan, found, way)
    )
    return View("cluster.plan", data, table)


def plan_head(plan: Plan, found: Cost) -> tuple[str, ...]:
    """A plan in a line or two."""
    what = ", ".join(show(change_text(change)) for change in plan.changes) or "nothing staged"
    volume = "an unknown amount" if found.bytes is None else f"about {size(found.bytes)}"
    least = "without a throttle" if found.time_s is None else f"{span(found.time_s * 1000)} at the throttle"
    time = "under 1s at the throttle" if found.time_s is not None and found.time_s < 1 else least
    cost = f"{found.replicas_moved} replicas move (at least {plan.optimum} must), {volume}, {time}"
    return (
        f"Plan {plan.id} for epoch {plan.epoch}: {what}",
        f"{cost}; margin {found.margin_before:.0%} -> {found.margin_after:.0%}",
    )


def _below(plan: Plan, found: Cost, way: Progress) -> tuple[str, ...]:
    lines = [f"[WARN] {show(warning)}" for warning in found.warnings]
    if plan.problem:
        lines.append(f"It cannot be committed: {show(plan.problem)}")
    if way.partitions:
        lines.append(progress_text(way))
    return tuple(lines)


def _transfer_json(transfer: Transfer) -> Object:
    return {"partition": transfer.partition, "from": transfer.giver, "to": transfer.taker}


# ---- progress ------------------------------------------------------------------------------


def progress_json(way: Progress) -> Object:
    """How far transfers have come."""
    return {
        "partitions_left": way.partitions,
        "bytes_left": way.bytes_left,
        "bytes_per_s": round(way.bytes_per_s),
        "left_s": None if way.left_ms is None else round(way.left_ms / 1000, 1),
        "waiting": way.waiting,
        "dropping": way.dropping,
    }


def progress_text(way: Progress) -> str:
    """How far transfers have come, for people; empty when there are none."""
    if not way.partitions:
        return ""
    left = "" if way.bytes_left is None else f", {size(way.bytes_left)} left"
    rate = f" at {size(round(way.bytes_per_s))}/s" if way.bytes_per_s else ""
    time = "" if way.left_ms is None else f", about {span(way.left_ms)} to go"
    waits = "; ".join(f"{show(node)} waits: {show(text)}" for node, text in sorted(way.waiting.items()))
    return f"Moving {way.partitions} partitions{left}{rate}{time}{'; ' + waits if waits else ''}"


# ---- the ring ------------------------------------------------------------------------------


def ring_view(told: ClusterReport) -> View:
    """`ring show`: the members, what each owns and is to own, and what is on its way."""
    ring, way = told.ring, progress(told)
    now, then = replicas(ring), replicas(settled(ring))
    moving = tuple(transfers(ring))
    takes, gives = Counter(t.taker for t in moving), Counter(t.giver for t in moving)
    members: list[Object] = [
        {
            "id": member.id, "address": member.address, "host": member.host, "rack": member.rack,
            "weight": member.weight, "member": ring.membership(member.id), "replicas": now[member.id],
            "primaries": ring.places(member.id)[1], "replicas_after": then[member.id],
        }
        for member in ring.members
    ]  # fmt: skip
    data: Object = {
        "cluster": ring.cluster, "cluster_id": f"{ring.cluster_id:016x}", "epoch": ring.epoch,
        "branch": f"{ring.branch:016x}" if ring.branch else None, "n": ring.n, "q": ring.q, "members": members,
        "moves": [_transfer_json(transfer) for transfer in moving], "removed": [m.id for m in ring.removed],
        "progress": progress_json(way) if way.partitions else None,
    }  # fmt: skip
    columns = (
        "NODE", "MEMBER", "HOST", "RACK", "WEIGHT", "REPLICAS", "FIRST", "AFTER", "TAKES", "GIVES", "ADDRESS",
    )  # fmt: skip
    rows = tuple(
        (
            show(m["id"]), m["member"], show(m["host"]), show(m["rack"] or "-"), str(m["weight"]),
            str(m["replicas"]), str(m["primaries"]), str(m["replicas_after"]), f"+{takes[m['id']]}",
            f"-{gives[m['id']]}", show(m["address"]),
        )
        for m in members
    )  # fmt: skip
    head = f"Ring of {show(ring.cluster)}, epoch {ring.epoch}: {ring.q} partitions, n={ring.n}"
    right = frozenset(columns[4:10])
    below = (progress_text(way),) if way.partitions else ()
    return View("ring.show", data, Table(columns, rows, right, 10, (head,), below), members)


def owners_view(ring: Ring) -> View:
    """`ring owners`: the owners of every partition, and who is to be."""
    pending = {move.partition: [ring.members[i].id for i in move.owners] for move in ring.moves}
    width = 16384 // ring.q
    objects: list[Object] = [
        {
            "partition": p, "slots": [p * width, (p + 1) * width - 1], "owners": list(ring.owner_ids(p)),
            "next": pending.get(p), "since": ring.since[p],
        }
        for p in range(ring.q)
    ]  # fmt: skip
    rows = tuple(
        (
            str(o["partition"]), f"{o['slots'][0]}..{o['slots'][1]}", ",".join(map(show, o["owners"])),
            ",".join(map(show, o["next"])) if o["next"] else "-", str(o["since"]),
        )
        for o in objects
    )  # fmt: skip
    columns = ("PARTITION", "SLOTS", "OWNERS", "NEXT", "SINCE")
    data: Object = {"epoch": ring.epoch, "q": ring.q, "partitions": objects}
    return View("ring.owners", data, Table(columns, rows, frozenset({"PARTITION", "SINCE"})), objects)
