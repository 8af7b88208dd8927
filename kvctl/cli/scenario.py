"""`kvctl scenario`: declared stories of work and faults, run and judged.

Promises: exit 0 only if every promise was kept and every expectation met; a failing run prints the one
command that replays it. Never: accepts a place to run that is not built.
"""

from __future__ import annotations

from typing import Annotated

import typer

from kvctl.cli.base import Ctl, command, group
from kvctl.cli.words import Usage

PLACES = ("sim",)


def register(app: typer.Typer) -> None:
    """Add the group."""
    scenario = group("Declared stories of work and faults, run and judged.")
    command(scenario, "ls")(ls)
    command(scenario, "run")(run)
    app.add_typer(scenario, name="scenario")


def ls(ctl: Ctl) -> None:
    """List the scenarios that are shipped."""
    from kvctl.output import Json, Table, View
    from kvctl.scenarios import shipped

    found = shipped()
    rows = tuple(
        (name, str(s.nodes), str(s.seconds), s.workload.mode, str(len(s.fault)), s.title)
        for name, s in found.items()
    )
    lines: tuple[dict[str, Json], ...] = tuple(
        {"name": name, "title": s.title, "nodes": s.nodes, "seconds": s.seconds, "mode": s.workload.mode}
        for name, s in found.items()
    )
    columns = ("NAME", "NODES", "SECONDS", "MODE", "FAULTS", "TITLE")
    table = Table(columns, rows, frozenset(("NODES", "SECONDS", "FAULTS")))
    ctl.show(View("scenario-ls", {"scenarios": lines}, table, lines))


def run(
    ctl: Ctl,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A TOML file, or the name of a shipped scenario.")],
    seed: Annotated[int | None, typer.Option(metavar="N", help="Another seed than the file's.")] = None,
    on: Annotated[str, typer.Option("--on", metavar="WHERE", help="Where to run it: sim.")] = "sim",
) -> None:
    """Run a scenario and judge it: exit 0 on pass, 1 on fail."""
    from kvctl.output import Table, View
    from kvctl.scenarios.running import run_in_sim

    if on not in PLACES:
        raise Usage(f"--on must be {' or '.join(PLACES)}; not {on!r}")
    if seed is not None and not 0 <= seed < 1 << 62:
        raise Usage("--seed must be 0 or more")
    verdict = run_in_sim(file, seed)
    data = verdict.as_json()
    judged = verdict.judgement
    rows = (
        ("verdict", verdict.word),
        ("operations", str(judged.operations)),
        ("writes acknowledged", str(judged.acknowledged)),
        ("indeterminate", str(judged.indeterminate)),
        ("failed", str(judged.failed)),
        ("lost", str(judged.lost)),
        ("linearizable", {True: "yes", False: "no", None: "-"}[judged.linearizable]),
        ("stale reads", str(judged.stale_reads)),
        ("most siblings", str(judged.max_siblings)),
        ("faults", ", ".join(f"{n} {kind}" for kind, n in verdict.report.faults.items()) or "none"),
        ("simulated", f"{verdict.report.sim_ms / 1000:.0f} s in {verdict.took_s:.1f} s"),
        ("trace", verdict.report.trace_hash),
    )
    ctl.show(View("scenario-run", data, Table((f"SEED {verdict.seed}", ""), rows)))
    if not verdict.passed:
        ctl.note(verdict.explain())
        raise typer.Exit(1)
