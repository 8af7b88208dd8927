"""`kvctl simulate`: whole clusters on a virtual clock, a seed each, judged by the checker.

Promises: the same seed is the same run, to the hash of every frame; a failure prints the one command
that runs it again; all cores are used, a process each. Never: touches a real cluster, or a network.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from kvctl.cli.base import Ctl, command
from kvctl.cli.words import Usage
from kvnode.protocol.types import MODES

if TYPE_CHECKING:
    from kvctl.output import View
    from kvctl.scenarios.verdict import Verdict

SEEDS_MAX = 1_000_000
MINUTES_MAX, NODES_MAX, RATE_MAX = 24 * 60, 64, 10_000


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app)(simulate)


def simulate(
    ctl: Ctl,
    seed: Annotated[str, typer.Option(metavar="N|A..B", help="Which run, or a range of runs.")] = "1",
    nodes: Annotated[int, typer.Option(metavar="N", help="Nodes of the cluster.")] = 5,
    minutes: Annotated[int, typer.Option(metavar="N", help="Simulated minutes of work.")] = 10,
    profile: Annotated[str, typer.Option(metavar="P", help="calm, rough or hostile.")] = "rough",
    mode: Annotated[str, typer.Option(metavar="MODE", help=f"{' or '.join(MODES)}.")] = "eventual",
    rate: Annotated[int, typer.Option(metavar="N", help="Operations a second.")] = 20,
    reshape: Annotated[bool, typer.Option("--reshape", help="Nodes join, leave, are replaced.")] = False,
    jobs: Annotated[int | None, typer.Option(metavar="N", help="Processes; default: one a core.")] = None,
    faults: Annotated[
        str | None, typer.Option("--faults", metavar="LIST", help="Only these of its faults: 3,7-9.")
    ] = None,
    ops: Annotated[
        str | None, typer.Option("--ops", metavar="LIST", help="Only these of its operations: 12,40-80.")
    ] = None,
    shrink: Annotated[bool, typer.Option("--shrink", help="Cut a failing run down to a small one.")] = False,
) -> None:
    """Run simulated clusters, break them, heal them, and check every promise. Exit 1 if any seed fails."""
    from kvctl.scenarios.simulating import Wanted

    seeds = _seeds(seed)
    wanted = Wanted(
        nodes=_within("nodes", nodes, NODES_MAX), minutes=_within("minutes", minutes, MINUTES_MAX),
        profile=_word("profile", profile, ("calm", "rough", "hostile")),
        mode=_word("mode", mode, tuple(MODES)), rate=_within("rate", rate, RATE_MAX), reshape=reshape,
        faults=_list("faults", faults), ops=_list("ops", ops),
    )  # fmt: skip
    cores = _within("jobs", jobs if jobs is not None else os.cpu_count() or 1, 1_024)
    if (faults is not None or ops is not None or shrink) and len(seeds) > 1:
        raise Usage("--faults, --ops and --shrink are for one seed")
    verdicts = []
    for verdict in _run(seeds, wanted, cores):
        verdicts.append(verdict)
        if ctl.form == "jsonl":  # a campaign of hours is worth reading, and keeping, while it runs
            ctl.show(_view([verdict]))
            sys.stdout.flush()
    if ctl.form != "jsonl":
        ctl.show(_view(verdicts))
    failed = [verdict for verdict in verdicts if not verdict.passed]
    for verdict in failed[:20]:
        ctl.note(verdict.explain())
    if failed and shrink:
        _shrink(ctl, seeds[0], wanted)
    if failed:
        raise typer.Exit(1)


def _run(seeds: range, wanted: object, cores: int) -> Iterator[Verdict]:
    from kvctl.scenarios.simulating import Wanted, run_all

    assert isinstance(wanted, Wanted)
    live, failed = sys.stderr.isatty(), 0
    for done, verdict in enumerate(run_all(seeds, wanted, cores), 1):
        failed += not verdict.passed
        if live:
            _progress(f"{done} of {len(seeds)} seeds, {failed} failed")
        yield verdict
    if live:
        _progress("")


def _shrink(ctl: Ctl, seed: int, wanted: object) -> None:
    from kvctl.scenarios.simulating import Wanted, shrunk

    assert isinstance(wanted, Wanted)
    ctl.note("shrinking: up to 200 runs")
    ctl.note(shrunk(seed, wanted))


def _progress(text: str) -> None:
    sys.stderr.write(f"\r{text:<60}\r")
    sys.stderr.flush()


def _view(verdicts: list[Verdict]) -> View:
    from kvctl.output import Json, Table, View

    lines = tuple(verdict.as_json() for verdict in verdicts)
    data: dict[str, Json] = dict(lines[0])
    if len(verdicts) > 1:
        bad = [verdict.seed for verdict in verdicts if not verdict.passed]
        data = {"seeds": len(verdicts), "passed": len(verdicts) - len(bad), "failed": bad}
    columns = (
        "SEED",
        "VERDICT",
        "OPS",
        "ACKED",
        "LOST",
        "STALE",
        "SIBLINGS",
        "FAULTS",
        "SIM S",
        "EVENTS",
        "TOOK S",
    )
    rows = tuple(
        (
            str(v.seed), v.word, str(v.judgement.operations), str(v.judgement.acknowledged), str(v.judgement.lost),
            str(v.judgement.stale_reads), str(v.judgement.max_siblings), str(sum(v.report.faults.values())),
            str((v.report.sim_ms or 0) // 1000), str(v.report.events), f"{v.took_s:.1f}",
        )
        for v in verdicts
    )  # fmt: skip
    return View("simulate", data, Table(columns, rows, frozenset(columns) - {"VERDICT"}), lines)


# ---- words of the command line -----------------------------------------------------------------


def _seeds(text: str) -> range:
    match = re.fullmatch(r"(\d{1,12})(?:\.\.(\d{1,12}))?", text)
    if match is None:
        raise Usage(f"--seed {text!r} is no seed and no range: write 7 or 1..100")
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first or last - first >= SEEDS_MAX:
        raise Usage(f"--seed {text!r}: from a lower to a higher one, at most {SEEDS_MAX} of them")
    return range(first, last + 1)


def _within(name: str, number: int, most: int) -> int:
    if not 1 <= number <= most:
        raise Usage(f"--{name} must be 1..{most}, not {number}")
    return number


def _word(name: str, text: str, words: tuple[str, ...]) -> str:
    if text not in words:
        raise Usage(f"--{name} must be one of {', '.join(words)}; not {text!r}")
    return text


def _list(name: str, text: str | None) -> str | None:
    if text is not None and not re.fullmatch(r"(\d{1,9}(-\d{1,9})?(,\d{1,9}(-\d{1,9})?)*)?", text):
        raise Usage(f"--{name} {text!r} is no list of numbers: write 3,7-9; or nothing in quotes for none")
    return text
