"""`kvctl bench`: throughput and latency of a workload against a running cluster.

Promises: the figures are those of CONTRACT, in every format; Ctrl-C prints what there is.
Never: counts the warm-up, or a value that was not the one written.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from kvctl.cli.base import Ctl, command
from kvctl.cli.data import Mode, R, W, mode_word
from kvctl.cli.words import Usage, count, seconds

if TYPE_CHECKING:
    from kvctl.bench import Plan, Result
    from kvctl.output import View
    from kvnode.protocol.messages import Welcome

PERCENTS = (50, 95, 99, 99.9)


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app)(bench)


def bench(
    ctl: Ctl,
    op: Annotated[str | None, typer.Option(metavar="OP", help="get, put or mixed (half and half).")] = None,
    workload: Annotated[
        str | None, typer.Option(metavar="W", help="YCSB's a, b, c, d or f, instead of --op.")
    ] = None,
    in_flight: Annotated[int, typer.Option(metavar="N", help="Requests in flight.")] = 50,
    duration: Annotated[str, typer.Option(metavar="TIME", help="How long to measure.")] = "10s",
    value_size: Annotated[int, typer.Option(metavar="BYTES", help="Bytes of a value.")] = 100,
    keys: Annotated[int, typer.Option(metavar="N", help="Keys written first, and used.")] = 10_000,
    rate: Annotated[
        float | None, typer.Option(metavar="N", help="Requests a second; default: as many as it takes.")
    ] = None,
    mode: Mode = "eventual",
    r: R = None,
    w: W = None,
) -> None:
    """Measure gets, puts or a mix. Gets read keys that the bench wrote first, and check each value."""
    from kvctl.bench import Bench, Plan
    from kvctl.requests import count_of

    if op is None and workload is None:
        op = "mixed"
    plan = Plan(
        op=op,
        workload=workload,
        in_flight=in_flight,
        duration_s=seconds(duration),
        value_bytes=value_size,
        keys=keys,
        mode=mode_word(mode),
        r=count_of(count(r, "r"), "r"),
        w=count_of(count(w, "w"), "w"),
        rate=rate,
    )
    problem = plan.problem()
    if problem:
        raise Usage(problem)
    client = ctl.client()
    run = Bench(client, plan)
    live = sys.stderr.isatty()
    run.load(lambda done: _progress(f"writing {done} of {keys} keys") if live else None)
    result = run.run(lambda share, ops: _progress(f"{share:4.0%}  {ops} done") if live else None)
    if live:
        _progress("")
    ctl.show(bench_view(plan, result, client.welcome(), r, w))


def _progress(text: str) -> None:
    sys.stderr.write(f"\r{text:<60}\r")
    sys.stderr.flush()


def bench_view(plan: Plan, result: Result, welcome: Welcome, r: str | None, w: str | None) -> View:
    """The figures of a run."""
    from kvctl.output import Table, View
    from kvnode.protocol.ring import majority

    n = min(welcome.ring.n, len(welcome.ring.members))
    words = {None: majority(n), "one": 1, "quorum": majority(n), "all": n}
    percentiles = result.latency.percentiles_ms(PERCENTS)
    name = "op" if plan.op is not None else "workload"
    figures = {
        "ops": result.ops,
        "ops_per_s": round(result.ops_per_s, 1),
        "p50_ms": percentiles[0],
        "p95_ms": percentiles[1],
        "p99_ms": percentiles[2],
        "p999_ms": percentiles[3],
        "max_ms": result.latency.max_us / 1000 if result.ops else None,
    }
    data = figures | {
        name: plan.op or plan.workload,
        "in_flight": plan.in_flight,
        "duration_s": round(result.took_s, 3),
        "value_bytes": plan.value_bytes,
        "keys": plan.keys,
        "mode": plan.mode,
        "n": n,
        "r": words.get(r) or int(r or 0),
        "w": words.get(w) or int(w or 0),
        "durability": welcome.durability,
        "errors": dict(sorted(result.errors.items())),
        "not_found": result.not_found,
        "client_cpu": round(result.client_cpu, 3),
        "fsync_ms": None if result.fsync_ms is None else round(result.fsync_ms, 3),
    }
    failed = sum(result.errors.values())
    row = (
        str(plan.op or plan.workload),
        str(plan.in_flight),
        *(_figure(f) for f in figures.values()),
        str(failed),
    )
    columns = (
        name.upper(),
        "IN FLIGHT",
        "OPS",
        "OPS/S",
        "P50 MS",
        "P95 MS",
        "P99 MS",
        "P99.9 MS",
        "MAX MS",
        "ERRORS",
    )
    below = [
        f"N={n} R={data['r']} W={data['w']} {plan.mode}, {plan.value_bytes}-byte values, {welcome.durability}"
    ]
    below += [f"{count} x {kind}" for kind, count in sorted(result.errors.items())]
    return View("bench", data, Table(columns, (row,), frozenset(columns[1:]), None, (), tuple(below)))


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"
