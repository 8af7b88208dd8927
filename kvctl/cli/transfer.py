"""Import and export: NDJSON, one key a line, the same form both ways.

Promises: a bad line is named by its number on stderr and the rest is written; exit 0 only if each
line was acknowledged. Never: more than a chunk in memory.

    {"key","key_encoding"?,"value","encoding"?,"expires_at"?}     or "siblings": [{"value",...}, ...]
    {"key","key_encoding"?,"value","encoding"?,"register":true}   a register: written in mode `strong`

A register is written whatever it holds, as a plain key would be; a key that is in the other world there,
as a register or as versions, stays as it is, and its line fails.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import IO, TYPE_CHECKING, Annotated

import typer

from kvctl.cli.base import Ctl, command, key_bytes
from kvctl.errors import Invalid, KvError

if TYPE_CHECKING:
    from kvctl.client import Client
    from kvctl.model import Written
    from kvctl.ndjson import Line
    from kvctl.requests import Key

CHUNK = 512
"""Puts in one pipelined batch."""
LINE_BYTES_MAX = 16 * 1024 * 1024


def register(app: typer.Typer) -> None:
    """Add these commands."""
    command(app, "import")(import_)
    command(app)(export)


def export(ctl: Ctl, prefix: Annotated[str, typer.Argument(metavar="[PREFIX]", show_default=False)] = "") -> None:
    """Print keys and values as NDJSON, in byte order; `kvctl import` takes it back."""
    from kvctl.output import View, to_json
    from kvctl.render import export_line, scan_row, scan_table

    items = ctl.client().scan(key_bytes(prefix))
    with counting(ctl, "exported") as tick:
        match ctl.form_given:
            case None | "jsonl":
                for item in items:
                    print(to_json(export_line(item)))
                    tick(1)
            case "json":
                lines = [export_line(item) for item in items]
                ctl.show(View("export", {"items": lines, "count": len(lines)}, scan_table(())))
            case _:
                ctl.show(View("export", {}, scan_table([scan_row(item) for item in items])))


def import_(
    ctl: Ctl, file: Annotated[str, typer.Argument(metavar="FILE|-", show_default=False, help="- reads stdin.")]
) -> None:
    """Write the keys of an NDJSON file. A bad line is told and skipped: exit 9."""
    from kvctl.output import Table, View, to_json
    from kvctl.output import schema as schema_of

    client = ctl.client()
    begun = time.monotonic()
    imported = failed = 0
    errors: list[KvError] = []
    with ExitStack() as stack:
        source = sys.stdin.buffer if file == "-" else stack.enter_context(open(file, "rb"))
        tick = stack.enter_context(counting(ctl, "imported"))
        for number, error in written(client, source):
            if error is None:
                imported += 1
                tick(1)
            else:
                failed += 1
                ctl.note(f"line {number}: {error.message}")
                errors.append(error)
    took_ms = round((time.monotonic() - begun) * 1000)
    summary = {"imported": imported, "failed": failed, "took_ms": took_ms}
    table = Table(("IMPORTED", "FAILED", "TOOK_MS"), ((str(imported), str(failed), str(took_ms)),))
    if ctl.form_given is None and not sys.stdout.isatty():
        print(to_json({**summary, "schema": schema_of("import")}))
    else:
        ctl.show(View("import", summary, table))
    if errors:
        # Bad lines first: they stay bad, while the others may pass when tried again.
        kind = next((type(e) for e in errors if isinstance(e, Invalid)), type(errors[0]))
        text = f"{failed} of {imported + failed} lines were not imported"
        raise kind(text, "mend them and import them again", maybe_applied=errors[-1].applied == "maybe")


def written(client: Client, source: IO[bytes]) -> Iterator[tuple[int, KvError | None]]:
    """Write every line; what became of it, in no particular order."""
    from kvctl.ndjson import parse

    chunk: dict[bytes, tuple[int, Line]] = {}
    for number, raw in enumerate(iter(lambda: source.readline(LINE_BYTES_MAX), b""), 1):
        if not raw.strip():
            continue
        try:
            line = parse(raw, time.time_ns() // 1_000_000)
        except Invalid as error:
            yield number, error
            continue
        if line.plain:
            # Two lines of one key must be written in their order, so they are never in one batch.
            if line.key in chunk or len(chunk) >= CHUNK:
                yield from flush(client, chunk)
                chunk = {}
            chunk[line.key] = (number, line)
            continue
        yield from flush(client, chunk)
        chunk = {}
        yield number, _one_by_one(client, line)
    yield from flush(client, chunk)


def flush(client: Client, chunk: dict[bytes, tuple[int, Line]]) -> Iterable[tuple[int, KvError | None]]:
    """Write a batch of plain lines, pipelined."""
    results: dict[Key, Written | KvError] = {}
    for mode in ("eventual", "strong"):
        pairs: dict[Key, bytes] = {
            key: line.values[0].value for key, (_, line) in chunk.items() if line.register == (mode == "strong")
        }
        results |= client.put_many(pairs, mode=mode)
    for key, (number, _) in chunk.items():
        result = results[key]
        yield number, result if isinstance(result, KvError) else None


def _one_by_one(client: Client, line: Line) -> KvError | None:
    """Write a line with siblings or a time to live."""
    try:
        for each in line.values:
            client.put(line.key, each.value, ttl=each.ttl_s, siblings=len(line.values) > 1)
    except KvError as error:
        return error
    return None


@contextmanager
def counting(ctl: Ctl, what: str) -> Iterator[Callable[[int], None]]:
    """A count on stderr while it runs, on a terminal only."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.completed:,.0f} " + what), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda n: progress.advance(task, n)
