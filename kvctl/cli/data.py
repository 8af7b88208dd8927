"""Commands about keys: put, get, delete, scan, explain.

Promises: stdout carries the data and nothing else; `get` prints the value's very bytes and a newline
(on a terminal, made harmless), `--raw` not even the newline.
Never: picks one of several siblings.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from kvctl.cli.base import Ctl, command, key_bytes
from kvctl.cli.words import Usage, count, some_seconds
from kvctl.errors import Conflict, Invalid, NotFound
from kvnode.protocol.types import MODES

if TYPE_CHECKING:
    from kvctl.output import View

VALUE_BYTES_READ = 64 * 1024 * 1024
"""Most that is read from stdin as one value: far beyond what a node takes, which refuses with both sizes."""

KeyArg = Annotated[str, typer.Argument(metavar="KEY", show_default=False)]
W = Annotated[
    str | None, typer.Option("-w", metavar="N", help="Owners that must hold it: a number, one, quorum, all.")
]
R = Annotated[
    str | None, typer.Option("-r", metavar="N", help="Owners that must answer: a number, one, quorum, all.")
]
Mode = Annotated[
    str,
    typer.Option(metavar="MODE", help=f"{' or '.join(MODES)}.", autocompletion=lambda: list(MODES)),
]
Context = Annotated[str | None, typer.Option(metavar="C", help="What was read before: replace that, and no more.")]
IfMatch = Annotated[
    str | None,
    typer.Option(metavar="C", help="Only if the key is as this context saw it (best effort, but in mode strong)."),
]
Via = Annotated[
    str | None,
    typer.Option(metavar="NODE", help="Ask this node, whichever own the key; else the first owner in reach."),
]
Explain = Annotated[bool, typer.Option("--explain", help="Tell on stderr how the request went.")]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    command(app)(put)
    command(app)(get)
    command(app)(delete)
    command(app)(scan)
    command(app)(explain)


def mode_word(mode: str) -> str:
    """A mode that is built. Raises `Usage`."""
    if mode not in MODES:
        raise Usage(f"--mode must be {' or '.join(MODES)}, not {mode!r}")
    return mode


def put(
    ctl: Ctl,
    key: KeyArg,
    value: Annotated[str, typer.Argument(metavar="VALUE|-", show_default=False, help="- reads it from stdin.")],
    w: W = None,
    mode: Mode = "eventual",
    context: Context = None,
    if_absent: Annotated[
        bool, typer.Option("--if-absent", help="Only if the key has no value (best effort, but in mode strong).")
    ] = False,
    if_match: IfMatch = None,
    siblings: Annotated[bool, typer.Option("--siblings", help="Keep what is there beside it.")] = False,
    ttl: Annotated[str | None, typer.Option(metavar="TIME", help="Gone after this time: 60s, 5m, 1h.")] = None,
    via: Via = None,
    explain: Explain = False,
) -> None:
    """Write a value to W of the key's owners. A VALUE that begins with - comes after --."""
    from kvctl.render import story_text, written_view

    mode, w, lifetime = mode_word(mode), count(w, "w"), some_seconds(ttl)
    if sum((if_absent, siblings, if_match is not None, context is not None)) > 1:
        raise Usage("--context, --if-absent, --if-match and --siblings exclude each other")
    raw = stdin_bytes() if value == "-" else os.fsencode(value)
    written = ctl.client().put(
        key_bytes(key), raw, w=w, mode=mode, context=context, if_absent=if_absent, if_match=if_match,
        siblings=siblings, ttl=lifetime, via=via, story=ctl.wants_story or explain,
    )  # fmt: skip
    best_effort = (if_absent or if_match is not None) and mode != "strong"
    ctl.show(written_view("put", written, best_effort=best_effort))
    if explain and written.story is not None and not ctl.wants_story:
        ctl.note(story_text(written.story))


def get(
    ctl: Ctl,
    key: KeyArg,
    r: R = None,
    mode: Mode = "eventual",
    siblings: Annotated[bool, typer.Option("--siblings", help="Print all siblings, a line each.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="The exact bytes, without a newline.")] = False,
    via: Via = None,
    explain: Explain = False,
) -> None:
    """Print the value of a key. Absent: exit 5. Several siblings without --siblings: exit 7."""
    from kvctl.render import get_view, siblings_text, story_text

    mode, r = mode_word(mode), count(r, "r")
    if raw and (siblings or ctl.form_given):
        raise Usage("--raw excludes --siblings and -o")
    item = ctl.client().fetch(key_bytes(key), r=r, mode=mode, via=via, story=ctl.wants_story or explain)
    if explain and item.story is not None and not ctl.wants_story:
        ctl.note(story_text(item.story))
    if ctl.wants_story:
        ctl.show(get_view(item))
    if not item.found:
        raise NotFound(f"no value under {key!r}" if key.isprintable() else "no value under this key", item)
    if len(item.siblings) > 1 and not siblings:
        listed = "" if ctl.wants_story else "\n" + siblings_text(item)
        hint = "kvctl get KEY --siblings -o json, then put the merged value with its context"
        raise Conflict(f"the key has {len(item.siblings)} siblings{listed}", hint)
    if not ctl.wants_story:
        _print_values(ctl, [s.value for s in item.siblings], raw=raw, wide=ctl.form == "wide", view=get_view(item))


def _print_values(ctl: Ctl, values: list[bytes], *, raw: bool, wide: bool, view: View) -> None:
    """Values as bytes; on a terminal escaped, so that no value can drive it."""
    from kvctl.output import show

    if wide:
        ctl.show(view)
        return
    sys.stdout.flush()
    for value in values:
        text = show(value).encode("utf-8", "backslashreplace") if sys.stdout.isatty() and not raw else value
        sys.stdout.buffer.write(text if raw else text + b"\n")
    sys.stdout.buffer.flush()


def delete(
    ctl: Ctl,
    key: KeyArg,
    w: W = None,
    mode: Mode = "eventual",
    context: Context = None,
    if_match: IfMatch = None,
    via: Via = None,
    explain: Explain = False,
) -> None:
    """Delete a key: write a tombstone over what R owners hold, or over what --context saw."""
    from kvctl.render import story_text, written_view

    mode, w = mode_word(mode), count(w, "w")
    if context is not None and if_match is not None:
        raise Usage("--context and --if-match exclude each other")
    written = ctl.client().delete(
        key_bytes(key), w=w, mode=mode, context=context, if_match=if_match, via=via,
        story=ctl.wants_story or explain,
    )  # fmt: skip
    ctl.show(written_view("delete", written, best_effort=if_match is not None and mode != "strong"))
    if explain and written.story is not None and not ctl.wants_story:
        ctl.note(story_text(written.story))


def scan(
    ctl: Ctl,
    prefix: Annotated[str, typer.Argument(metavar="[PREFIX]", show_default=False)] = "",
    limit: Annotated[int | None, typer.Option(metavar="N", min=0, help="At most so many keys.")] = None,
) -> None:
    """List keys and values in byte order. Not a snapshot."""
    from kvctl.output import View, schema, to_json
    from kvctl.render import scan_json, scan_row, scan_table

    items = ctl.client().scan(key_bytes(prefix), limit)
    match ctl.form:
        case "tsv":
            for item in items:
                print("\t".join(scan_row(item)[:2]))
        case "jsonl":
            for item in items:
                print(to_json({**scan_json(item), "schema": schema("scan")}))
        case "json":
            rows = [scan_json(item) for item in items]
            ctl.show(View("scan", {"items": rows, "count": len(rows)}, scan_table(())))
        case _:
            ctl.show(View("scan", {}, scan_table([scan_row(item) for item in items])))


def explain(ctl: Ctl, key: KeyArg) -> None:
    """Show where a key lives, what each owner holds, and what a read would return."""
    from kvctl.render_explain import explain_view

    raw = key_bytes(key)
    told = ctl.client().explain(raw)
    ctl.show(explain_view(raw, told, ctl.client().ring().q))


def stdin_bytes() -> bytes:
    """All of stdin, as one value. Raises `Invalid` where it is endless."""
    raw = sys.stdin.buffer.read(VALUE_BYTES_READ + 1)
    if len(raw) > VALUE_BYTES_READ:
        raise Invalid(f"the value on stdin is larger than {VALUE_BYTES_READ} bytes")
    return raw
