"""`kvctl autoscale`: watches bytes and load per node, and says, or does, what would be right.

Promises: each decision is printed with its reason, once; without `--apply` nothing is changed.
Never: begins a change while a member is unwell or another change is under way (`kvctl/autoscale.py`).
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from kvctl.cli.base import Ctl, command
from kvctl.cli.words import Usage, byte_count, seconds

if TYPE_CHECKING:
    from kvctl.autoscale import Decision
    from kvctl.client import Client
    from kvctl.launchers import Launcher
    from kvctl.render import Object
    from kvctl.scaler import Turn

AGAIN_S = 10.0
"""How long the same decision is not told again."""


def register(app: typer.Typer) -> None:
    """Add this command."""
    command(app)(autoscale)


def autoscale(
    ctl: Ctl,
    least: Annotated[int, typer.Option("--min", metavar="N", help="Never fewer members.")],
    most: Annotated[int, typer.Option("--max", metavar="N", help="Never more.")],
    high_bytes: Annotated[str, typer.Option(metavar="SIZE", help="Grow above so many bytes a member.")],
    low_bytes: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Shrink below (a quarter of the high one).")
    ] = None,
    high_ops: Annotated[
        float | None, typer.Option(metavar="N", min=0, help="Grow above so many requests a second a member.")
    ] = None,
    low_ops: Annotated[float | None, typer.Option(metavar="N", min=0, help="Shrink only below so many.")] = None,
    cooldown: Annotated[str, typer.Option(metavar="TIME", help="Rest after a change.")] = "60s",
    every: Annotated[str, typer.Option(metavar="TIME", help="Look so often.")] = "5s",
    apply: Annotated[bool, typer.Option("--apply", help="Carry decisions out; else they are only told.")] = False,
    launcher: Annotated[
        str, typer.Option(metavar="local|command='...'", help="Where nodes come from, and go.")
    ] = "local",
    once: Annotated[bool, typer.Option("--once", help="Look once, and end.")] = False,
) -> None:
    """Grow under load and shrink without it, one change at a time. Prints why it acts or waits."""
    from kvctl.autoscale import Limits
    from kvctl.client import Client
    from kvctl.scaler import Scaler

    high = byte_count(high_bytes)
    low = high // 4 if low_bytes is None else byte_count(low_bytes)
    limits = Limits(
        least=least, most=most, high_bytes=high, low_bytes=low, high_ops=high_ops, low_ops=low_ops,
        cooldown_s=seconds(cooldown),
    )  # fmt: skip
    problem = limits.problem()
    if problem:
        raise Usage(problem)
    pause_s = max(0.1, seconds(every))
    scaler = Scaler(lambda: Client(ctl.connect), limits, _launcher(ctl, launcher) if apply else None)
    told: Decision | None = None
    told_at = 0.0
    while True:
        turn = scaler.turn()
        again = told is None or (turn.decision.do, turn.decision.cause) != (told.do, told.cause)
        if again or turn.plan or turn.retired or turn.problem or time.monotonic() - told_at > AGAIN_S:
            told, told_at = turn.decision, time.monotonic()
            _tell(ctl, turn, applied=apply)
        if once:
            return
        time.sleep(pause_s)


def _launcher(ctl: Ctl, text: str) -> Launcher:
    from kvctl.cli.where import own_cluster
    from kvctl.launchers import CommandLauncher, LocalLauncher, command_words

    if text == "local":
        return LocalLauncher(own_cluster(ctl, None))
    words = command_words(text)
    client: Client = ctl.client()
    return CommandLauncher(words, len(client.ring().members))


def _tell(ctl: Ctl, turn: Turn, *, applied: bool) -> None:
    """A decision, as a line."""
    from kvctl.health import size
    from kvctl.output import escape, schema, to_json, utc

    decision, members = turn.decision, turn.members
    at = utc(time.time_ns() // 1_000_000)
    if ctl.form in ("json", "jsonl"):
        line: Object = {
            "schema": schema("autoscale"), "at": at, "decision": decision.do, "cause": decision.cause,
            "reason": decision.reason, "node": decision.node, "members": members or None,
            "bytes_per_member": round(turn.bytes / members) if members else None,
            "ops_per_s": None if turn.ops_per_s is None else round(turn.ops_per_s, 1),
            "applied": applied and turn.plan is not None, "plan": turn.plan, "retired": list(turn.retired),
            "problem": turn.problem or None,
        }  # fmt: skip
        print(to_json(line))
    else:
        each = f"{members} members of {size(round(turn.bytes / members))}" if members else "no answer"
        print(f"{at}  {decision.do:<6}  {each}  {escape(decision.reason)}")
        for more in _more(turn, applied=applied):
            print(f"{'':26}{escape(more)}")
    sys.stdout.flush()


def _more(turn: Turn, *, applied: bool) -> list[str]:
    from kvctl.autoscale import Do

    found = []
    if turn.plan:
        found.append(f"plan {turn.plan} is committed")
    elif turn.decision.do == Do.GROW and not applied:
        found.append("would be done by: kvctl node add; kvctl cluster join ID; kvctl cluster plan; ... commit")
    elif turn.decision.do == Do.SHRINK and not applied:
        found.append(f"would be done by: kvctl cluster leave {turn.decision.node}; kvctl cluster plan; ... commit")
    if turn.retired:
        found.append(f"{', '.join(turn.retired)} had left, and was ended")
    if turn.problem:
        found.append(f"not done: {turn.problem}")
    return found
