"""Orders to all members: each is asked directly, and what came of it is told by name. Pure.

Promises: a member that could not be reached, or did not answer, is in the error: its state is as it was, or
unknown. Never: counts silence as done.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from kvctl.errors import Indeterminate, KvError, Unavailable
from kvctl.output import Table, View, show
from kvctl.render import Object
from kvctl.session import Outcome
from kvnode.protocol.messages import Done
from kvnode.protocol.types import NodeId


class Obeyed(Struct, frozen=True):
    """What came of an order."""

    done: Mapping[NodeId, int]
    """The members that carried it out, with what they counted."""
    failed: Mapping[NodeId, KvError]

    @property
    def total(self) -> int:
        """Hints or exchanges it touched."""
        return sum(self.done.values())

    def problem(self, what: str, next_step: str) -> KvError | None:
        """Why it was not done everywhere: one error for all members, of the class that leaves most open."""
        if not self.failed:
            return None
        what = f"{what} was not done"
        return worst(self.failed, what, next_step, acked=len(self.done))


def worst(failed: Mapping[NodeId, KvError], what: str, next_step: str, *, acked: int = 0) -> KvError:
    """One error for several members, of the class that leaves most open."""
    told = "; ".join(f"{node}: {error.message}" for node, error in failed.items())
    text = f"{what} on {', '.join(failed)} ({told})"
    kinds = {type(error) for error in failed.values()}
    for kind in (Indeterminate, Unavailable):
        if kind in kinds:
            return kind(text, next_step, maybe_applied=kind is Indeterminate, acked=acked)
    return next(iter(kinds))(text, next_step, acked=acked)


def obeyed(outcomes: Mapping[NodeId, Outcome]) -> Obeyed:
    """Replies, sorted into done and not."""
    done = {node: o.count for node, o in outcomes.items() if isinstance(o, Done)}
    failed = {
        node: o if isinstance(o, KvError) else Indeterminate(f"it answered with {type(o).__name__}")
        for node, o in outcomes.items()
        if node not in done
    }
    return Obeyed(done, failed)


def obeyed_view(command: str, result: Obeyed, what: str, **fields: str | int | None) -> View:
    """One row a member; `what` names that which is counted."""
    nodes: list[Object] = [
        *({"node": node, "done": True, what: count, "error": None} for node, count in result.done.items()),
        *({"node": node, "done": False, what: None, "error": e.message} for node, e in result.failed.items()),
    ]
    rows = tuple(
        (show(n["node"]), "done" if n["done"] else "NOT DONE", "-" if n[what] is None else str(n[what]))
        for n in nodes
    )
    table = Table(("NODE", "ORDER", what.upper()), rows, frozenset({what.upper()}))
    return View(command, {"nodes": nodes, what: result.total, **fields}, table, nodes)
