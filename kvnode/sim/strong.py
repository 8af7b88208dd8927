"""Calls in mode `strong` as histories of registers, and the verdict on them: is each key linearizable?

Promises: of a simulated or a real cluster alike; a history that takes too long to judge is told, and no
pass; what nobody was told is in it as maybe. Never: searches by itself; that is `linear`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kvnode.protocol.messages import Error, Failed, Get, Got, Put, Written
from kvnode.protocol.types import STRONG
from kvnode.sim.check import Judgement, Violation
from kvnode.sim.client import Call
from kvnode.sim.linear import FOREVER, RegisterOp, linearizable

TOLD_MAX = 40
"""Operations of a broken history that are told."""


def shown(call: Call) -> bytes | None:
    """The value an answered operation saw, or wrote."""
    if isinstance(call.ask, Put):
        return call.ask.value
    return call.values[0] if call.values else None


def register_op(call: Call) -> RegisterOp | None:
    """A call as a checker takes it; None if it left no trace and told nothing, or is in another mode."""
    ask, told = call.ask, call.result
    if not isinstance(ask, Get | Put) or ask.mode != STRONG:
        return None
    client, ended = call.client.decode(), call.replied if call.replied is not None else FOREVER
    if isinstance(ask, Get):
        if not isinstance(told, Got):
            return None
        return RegisterOp(
            number=ask.rid, client=client, reads=True, value=shown(call), invoked=call.invoked, ended=ended
        )
    failed = isinstance(told, Failed) and not told.maybe_applied
    if failed and told.error != Error.CONFLICT:  # type: ignore[union-attr]
        return None
    sure = failed or isinstance(told, Written)
    return RegisterOp(
        number=ask.rid, client=client, reads=False, value=ask.value, expects=call.expects, failed=failed,
        sure=sure, invoked=call.invoked, ended=ended if sure else FOREVER,
    )  # fmt: skip


def histories(calls: Iterable[Call]) -> dict[bytes, list[RegisterOp]]:
    """What was done to each register, in the order of the keys."""
    found: dict[bytes, list[RegisterOp]] = {}
    for call in calls:
        op = register_op(call)
        if op is not None:
            assert isinstance(call.ask, Get | Put)
            found.setdefault(call.ask.key, []).append(op)
    return dict(sorted(found.items()))


def judge_registers(calls: Sequence[Call]) -> Judgement:
    """The verdict on a whole run in mode `strong`."""
    violations, unjudged = [], []
    registers = histories(calls)
    for key, ops in registers.items():
        found = linearizable(ops)
        if found is None:
            unjudged.append(f"the history of {key!r}, {len(ops)} operations, takes too long to judge")
        elif not found:
            violations.append(Violation("linearizable", key, _told(ops)))
    puts = [call for call in calls if isinstance(call.ask, Put)]
    acknowledged = sum(isinstance(call.result, Written) for call in puts)
    if puts and not acknowledged:
        unjudged.append("no write was acknowledged: there was nothing to keep")
    refused = sum(isinstance(c.result, Failed) and not c.result.maybe_applied for c in calls)
    unknown = sum(not op.sure for ops in registers.values() for op in ops)
    return Judgement(
        violations=violations, unjudged=unjudged, operations=len(calls), acknowledged=acknowledged,
        indeterminate=unknown, failed=refused, lost=0, stale_reads=0, max_siblings=0,
        linearizable=None if unjudged else not violations, registers=len(registers),
        shortest=min(map(len, registers.values()), default=0),
    )  # fmt: skip


def _told(ops: Sequence[RegisterOp]) -> str:
    ops = sorted(ops, key=lambda op: op.invoked)
    more = f"\n... and {len(ops) - TOLD_MAX} more" if len(ops) > TOLD_MAX else ""
    return "no order explains what clients were told:\n" + "\n".join(map(str, ops[:TOLD_MAX])) + more
