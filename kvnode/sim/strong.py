"""Judging mode `strong`: the operations on each key, as their clients saw them, against one register.

Promises: a pure function of calls, of a simulated or a real cluster; a key whose history takes too long to
judge is no pass. Never: looks at a disk: what clients were told is all there is.

What a conditional write expected is found in its context: the dot of the version that was read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

from kvnode.protocol.context import decode_context
from kvnode.protocol.messages import Condition, Failed, Get, Got, Put, Scanned, Written
from kvnode.protocol.types import STRONG, decode_record
from kvnode.sim.check import Judgement, Violation
from kvnode.sim.client import Call
from kvnode.sim.history import Dot, dot_of
from kvnode.sim.linear import ANY, RegisterOp, linearizable
from kvnode.sim.registers import register_ops

CLAIM = "linearizable"
NOWHERE = b"\0nowhere"
"""Expected by a write whose context names a version that no client was shown: it was never there for it."""
TOLD_MAX = 40
"""Operations of a history that are told; the last ones."""


class Verdict(Struct, frozen=True):
    """What is to be said of all keys."""

    violations: list[Violation]
    unjudged: list[str]

    @property
    def linearizable(self) -> bool | None:
        """Of all keys; None where one could not be judged."""
        return False if self.violations else None if self.unjudged else True


def judge_keys(calls: Iterable[Call]) -> Verdict:
    """Each key's history."""
    calls = list(calls)
    values = _values(calls)
    by_key: dict[bytes, list[RegisterOp]] = {}
    for call in calls:
        if isinstance(call.ask, Get | Put) and call.ask.mode == STRONG:
            expects = {call.ask.rid: _expected(call.ask, values)} if isinstance(call.ask, Put) else {}
            by_key.setdefault(call.ask.key, []).extend(register_ops(call, call.ask.key, expects))
    verdict = Verdict([], [])
    for key, ops in sorted(by_key.items()):
        found = linearizable(ops)
        if found is False:
            verdict.violations.append(Violation(CLAIM, key, _text(ops)))
        elif found is None:
            verdict.unjudged.append(f"the history of {key!r}, {len(ops)} operations, takes too long to judge")
    return verdict


def judge_strong(calls: Sequence[Call], asked: Sequence[Call], unread: Iterable[str] = ()) -> Judgement:
    """The verdict on a whole run. `asked`: the calls of clients, without those of the judge; `unread`: what it
    could not read in the end."""
    verdict = judge_keys(calls)
    verdict.unjudged.extend(unread)
    writes = [call for call in asked if isinstance(call.ask, Put)]
    acknowledged = sum(isinstance(call.result, Written) for call in writes)
    if writes and not acknowledged:
        verdict.unjudged.append("no write was acknowledged: there was nothing to keep")
    unknown = [c for c in writes if c.result is None or (isinstance(c.result, Failed) and c.result.maybe_applied)]
    answered = sum(isinstance(call.result, Got | Scanned) for call in asked if not isinstance(call.ask, Put))
    return Judgement(
        violations=verdict.violations, unjudged=verdict.unjudged, operations=len(asked),
        acknowledged=acknowledged, indeterminate=len(unknown),
        failed=len(asked) - acknowledged - len(unknown) - answered, lost=0, stale_reads=0,
        max_siblings=max((len(c.values) for c in asked if isinstance(c.result, Got)), default=0),
        linearizable=verdict.linearizable,
    )  # fmt: skip


def _values(calls: Iterable[Call]) -> dict[Dot, bytes | None]:
    """What was written under each dot, as far as any client was told."""
    values: dict[Dot, bytes | None] = {}
    for call in calls:
        if isinstance(call.result, Written) and isinstance(call.ask, Put):
            values[Dot(call.result.actor, call.result.time)] = call.ask.value
        elif isinstance(call.result, Got) and call.result.record:
            values |= {dot_of(version): version.value for version in decode_record(call.result.record)}
    return values


def _expected(ask: Put, values: dict[Dot, bytes | None]) -> bytes | None:
    """The value that had to be there; `ANY` for none in particular."""
    if ask.condition == Condition.ABSENT:
        return None
    if ask.condition != Condition.MATCH:
        return ANY
    past = decode_context(ask.key, ask.context)
    return values.get(Dot(*next(iter(past.items()))), NOWHERE) if past else None


def _text(ops: list[RegisterOp]) -> str:
    told = sorted(ops, key=lambda op: (op.invoked, op.number))
    skipped = [f"... {len(told) - TOLD_MAX} more"] if len(told) > TOLD_MAX else []
    lines = ["no order of these explains what clients were told:", *skipped, *map(str, told[-TOLD_MAX:])]
    return "\n".join(lines)
