"""`kvctl scenario`: declared stories of work and faults, run and judged.

Promises: exit 0 only if every promise was kept and every expectation met; a failing run prints the one
command that replays it. Never: breaks a cluster it did not start without a yes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from kvctl.cli.base import Ctl, DryRun, Yes, command, group
from kvctl.cli.words import Usage

if TYPE_CHECKING:
    from kvctl.output import View
    from kvctl.scenarios.verdict import Verdict

PLACES = ("sim", "cluster")


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
        (name, str(s.nodes), str(s.seconds), s.workload.mode, str(len(s.fault)), s.about)
        for name, s in found.items()
    )
    lines: tuple[dict[str, Json], ...] = tuple(
        {"name": name, "about": s.about, "nodes": s.nodes, "seconds": s.seconds, "mode": s.workload.mode}
        for name, s in found.items()
    )
    columns = ("NAME", "NODES", "SECONDS", "MODE", "FAULTS", "ABOUT")
    table = Table(columns, rows, frozenset(("NODES", "SECONDS", "FAULTS")))
    ctl.show(View("scenario-ls", {"scenarios": lines}, table, lines))


def run(
    ctl: Ctl,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A TOML file, or the name of a shipped scenario.")],
    seed: Annotated[int | None, typer.Option(metavar="N", help="Another seed than the file's.")] = None,
    on: Annotated[
        str, typer.Option("--on", metavar="WHERE", help="sim, or cluster: real nodes, started for this.")
    ] = "sim",
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="With --on cluster: this cluster of `kvctl up`.")
    ] = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Run a scenario and judge it: exit 0 on pass, 1 on fail."""
    from kvctl.scenarios.running import outline, run_in_sim, run_on_cluster

    if on not in PLACES:
        raise Usage(f"--on must be {' or '.join(PLACES)}; not {on!r}")
    if seed is not None and not 0 <= seed < 1 << 62:
        raise Usage("--seed must be 0 or more")
    if name is not None and on != "cluster":
        raise Usage("--name is for --on cluster: a simulated cluster has no name")
    if dry_run:
        return _would(ctl, file, seed, name)
    if on == "sim":
        verdict = run_in_sim(file, seed)
    elif name is None:
        ctl.note(f"{outline(file, seed)[0]}; then all is mended and judged")
        verdict = run_on_cluster(file, seed)
    else:
        verdict = _run_on(ctl, file, seed, name, yes=yes)
    ctl.show(_view(verdict))
    if not verdict.passed:
        ctl.note(verdict.explain())
        raise typer.Exit(1)
    return None


def _run_on(ctl: Ctl, file: str, seed: int | None, name: str, *, yes: bool) -> Verdict:
    """On a cluster that serves others too: ask first."""
    from kvctl.local import load
    from kvctl.scenarios.running import fit, outline, run_on

    cluster = load(name)
    fit(cluster, file, seed)
    what, risks = outline(file, seed)
    ctl.confirm("; ".join([f"{what}, on cluster {name}", *risks]), yes=yes)
    return run_on(cluster, file, seed)


def _would(ctl: Ctl, file: str, seed: int | None, name: str | None) -> None:
    from kvctl.cli.fault import would
    from kvctl.scenarios.running import outline

    what, risks = outline(file, seed)
    would(ctl, "scenario-run", what, risks if name is not None else [])


def _view(verdict: Verdict) -> View:
    from kvctl.output import Table, View

    judged, report = verdict.judgement, verdict.report
    rows = [
        ("verdict", verdict.word),
        ("operations", str(judged.operations)),
        ("writes acknowledged", str(judged.acknowledged)),
        ("indeterminate", str(judged.indeterminate)),
        ("failed", str(judged.failed)),
        ("lost", str(judged.lost)),
        ("linearizable", {True: "yes", False: "no", None: "-"}[judged.linearizable]),
        ("stale reads", str(judged.stale_reads)),
        ("most siblings", str(judged.max_siblings)),
        ("faults", ", ".join(f"{n} {kind}" for kind, n in report.faults.items()) or "none"),
    ]
    rows += [(f"puts to {','.join(s.nodes)}, cut", f"{s.acked} of {s.puts}") for s in report.sides]
    if report.sim_ms is None:
        rows += [("took", f"{verdict.took_s:.1f} s on {verdict.nodes} real nodes")]
    else:
        rows += [("simulated", f"{report.sim_ms / 1000:.0f} s in {verdict.took_s:.1f} s")]
        rows += [("trace", report.trace_hash or "")]
    return View("scenario-run", verdict.as_json(), Table((f"SEED {verdict.seed}", ""), tuple(rows)))
