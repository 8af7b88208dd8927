"""`make mutants`: plant every bug of the list, and tell who caught it.

Exit 0: each was caught. 1: one survived, hung, or could not be planted. 2: nothing was proven, for the
list is wrong or the unmutated tree fails.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tests.mutants.listing import Mutant, Result, Wrong, chosen, load
from tests.mutants.runner import Bench

SURVEY = (
    "simulate hostile quorum 1min 1..5", "simulate hostile eventual 1min 1..5", "short 1..30", "short-loud 1..15",
    "strong 1..30",
)  # fmt: skip
"""What seeds alone are given to find a bug: random work, made for no bug in particular."""
SURVEY_S = 240
COLOURS = {"caught": "green", "survived": "bold red", "timeout": "yellow", "broken": "magenta", "stale": "magenta"}
SCHEMA = "kvctl.mutants/v1"


def main(words: Sequence[str]) -> int:
    """The exit code."""
    asked = _parser().parse_args(words)
    out, err = Console(), Console(stderr=True)
    began = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what was started ends with us
    try:
        mutants = chosen(load(), asked.only)
        with tempfile.TemporaryDirectory(prefix="mutants-") as home:
            results = _run(Bench(Path(home)), mutants, asked, err)
    except Wrong as wrong:
        err.print(f"kvctl mutants: {wrong}", style="red", markup=False)
        return 2
    except KeyboardInterrupt:
        return 130
    if results is None:
        return 2
    _show(results, asked.output, out, err, time.monotonic() - began)
    return 0 if asked.survey or all(result.fate == "caught" for result in results) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description="Plant bugs, see who notices.")
    parser.add_argument("--only", metavar="NAME", action="append", default=[], help="this one; may be given again")
    parser.add_argument("--jobs", metavar="N", type=int, default=os.cpu_count() or 1, help="processes at a time")
    parser.add_argument("-o", "--output", metavar="table|json|FILE.json", default="table")
    parser.add_argument("--survey", action="store_true", help="have seeds look, and no test; exit 0")
    return parser


def _run(bench: Bench, mutants: Sequence[Mutant], asked: argparse.Namespace, err: Console) -> list[Result] | None:
    jobs = max(1, asked.jobs)
    if asked.survey:
        mutants = [msgspec.structs.replace(mutant, caught_by=SURVEY, deadline_s=SURVEY_S) for mutant in mutants]
    began = time.monotonic()
    for wrong in (failures := bench.baseline(mutants, jobs)):
        err.print(
            f"unmutated, this fails, so nothing is proven: {wrong}", style="red", markup=False, soft_wrap=True
        )
    if failures:
        return None
    err.print(f"unmutated, all catchers pass: {time.monotonic() - began:.0f} s", style="dim")

    def tell(result: Result) -> None:
        line = f"{result.fate:>8} {result.name} ({result.seconds} s) {result.by}"
        err.print(line, markup=False, highlight=False, soft_wrap=True)

    return bench.try_all(mutants, jobs, tell)


def _show(results: list[Result], output: str, out: Console, err: Console, seconds: float) -> None:
    fates = Counter(result.fate for result in results)
    data = {
        "schema": SCHEMA, "mutants": len(results), "seconds": round(seconds, 1), "fates": dict(fates),
        "results": [msgspec.to_builtins(result) for result in results],
    }  # fmt: skip
    encoded = msgspec.json.format(msgspec.json.encode(data), indent=2)
    if output == "json":
        sys.stdout.write(encoded.decode() + "\n")
        return
    if output != "table":
        Path(output).write_bytes(encoded + b"\n")
    table = Table(title=f"{len(results)} planted bugs, {fates['caught']} caught", title_justify="left")
    for column in ("mutant", "breaks", "fate", "by"):
        table.add_column(column, overflow="fold")
    table.add_column("s", justify="right")
    for result in results:
        by = result.by.removeprefix("tests/") if result.fate == "caught" else f"{result.by} {result.how}".strip()
        fate = f"[{COLOURS[result.fate]}]{result.fate}[/]"
        table.add_row(result.name, result.breaks, fate, escape(by), f"{result.seconds:.1f}")
    out.print(table)
    err.print(f"{seconds:.0f} s", style="dim")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
