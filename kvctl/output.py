"""What leaves on stdout: one value in five formats, and nothing a terminal could obey.

Promises: `table` for people, `tsv`, `json`, `jsonl` for programs, all from one `View`; JSON has
sorted keys and a schema; control characters, escape sequences and direction marks from keys, values
and names are always shown, never sent. Never: prints anything but data.

    View(command, data, table) ── table ─► Rich table on a TTY, aligned text without escapes off it
                               ── tsv ──► a row a line, no header
                               ── json ─► data + "schema"       ── jsonl ─► an object a row
"""

from __future__ import annotations

import base64
import datetime
import json
import os
import re
import sys
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import TextIO, TypeAlias

from msgspec import Struct

FORMATS = ("table", "wide", "json", "jsonl", "tsv")

Json: TypeAlias = "str | int | float | bool | Sequence[Json] | Mapping[str, Json] | None"

# C0, DEL, C1, line and paragraph separators: escaped without asking the Unicode tables.
_SUSPECT = re.compile(r"[^ -~]")
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"}
_JSON_RISKY = re.compile(r"[^\x00-~]")


class Table(Struct, frozen=True):
    """Rows of text. Columns from `wide_from` on are shown with `-o wide` only."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: frozenset[str] = frozenset()
    """Columns of numbers."""
    wide_from: int | None = None
    above: tuple[str, ...] = ()
    """Lines for people, over the table."""
    below: tuple[str, ...] = ()


class View(Struct, frozen=True):
    """A reply, ready for every format."""

    command: str
    """Names the schema: `kvctl.<command>/v1`."""
    data: Mapping[str, Json]
    table: Table
    lines: Sequence[Mapping[str, Json]] | None = None
    """The rows as objects, for jsonl; None where the reply is one object."""
    text: str | None = None
    """What people get in place of a table."""


# ---- escaping ------------------------------------------------------------------------------


def _escape(match: re.Match[str]) -> str:
    char = match[0]
    if unicodedata.category(char) not in _HIDDEN:
        return char
    code = ord(char)
    short = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(char)
    if short:
        return short
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def escape(text: str) -> str:
    """Text of ours that may quote something: what a terminal would obey is made visible."""
    return _SUSPECT.sub(_escape, text)


def show(raw: bytes | str) -> str:
    """A key, value or name, unambiguously: a backslash is doubled, bytes that are no text are \\xNN."""
    text = raw.decode("utf-8", "surrogateescape") if isinstance(raw, bytes) else raw
    return escape(text.replace("\\", "\\\\"))


def lines_of(text: str) -> str:
    """Text of ours over several lines, each escaped."""
    return "\n".join(escape(line) for line in text.split("\n"))


# ---- JSON ----------------------------------------------------------------------------------


def _json_escape(match: re.Match[str]) -> str:
    char = match[0]
    if unicodedata.category(char) not in _HIDDEN:
        return char
    code = ord(char)
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"


def to_json(value: Json, *, indent: int | None = None) -> str:
    """JSON with sorted keys that a terminal can show; NaN and infinity do not exist in it."""
    separators = (",", ": ") if indent else (",", ":")
    text = json.dumps(
        value, sort_keys=True, ensure_ascii=False, allow_nan=False, indent=indent, separators=separators
    )
    return _JSON_RISKY.sub(_json_escape, text)


def text_or_base64(raw: bytes) -> tuple[str, str]:
    """Bytes as JSON carries them, and their encoding."""
    try:
        return raw.decode(), "utf-8"
    except UnicodeDecodeError:
        return base64.b64encode(raw).decode(), "base64"


def key_fields(key: bytes) -> dict[str, Json]:
    """`key` and `key_encoding`."""
    text, encoding = text_or_base64(key)
    return {"key": text, "key_encoding": encoding}


def utc(wall_ms: int | None) -> str | None:
    """Wall milliseconds as RFC 3339 in UTC; None for none, and for times no calendar has."""
    if wall_ms is None:
        return None
    try:
        time = datetime.datetime.fromtimestamp(wall_ms / 1000, datetime.UTC)
    except (OverflowError, ValueError, OSError):
        return None
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


# ---- writing -------------------------------------------------------------------------------


def plain(stream: TextIO) -> bool:
    """Whether a stream must get no escape sequences."""
    return not stream.isatty() or bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"


def write(view: View, form: str, stream: TextIO) -> None:
    """Print a reply."""
    match form:
        case "json":
            print(to_json({**view.data, "schema": schema(view.command)}, indent=2), file=stream)
        case "jsonl":
            for line in (view.data,) if view.lines is None else view.lines:
                print(to_json({**line, "schema": schema(view.command)}), file=stream)
        case "tsv":
            for row in view.table.rows:
                print("\t".join(row), file=stream)
        case "table" | "wide":
            if view.text is not None:
                print(view.text, file=stream)
            else:
                write_table(view.table, stream, wide=form == "wide")
        case _:
            raise AssertionError(form)


def schema(command: str) -> str:
    """The schema of a command's JSON."""
    return f"kvctl.{command}/v1"


def write_table(table: Table, stream: TextIO, *, wide: bool) -> None:
    """Print a table: with Rich's styles on a TTY, as aligned text elsewhere."""
    shown = len(table.columns) if wide or table.wide_from is None else table.wide_from
    columns, rows = table.columns[:shown], [row[:shown] for row in table.rows]
    if plain(stream):
        for line in (*table.above, *aligned(columns, rows, table.right), *table.below):
            print(line, file=stream)
        return
    _write_rich(table, columns, rows, stream)


def aligned(columns: Sequence[str], rows: Sequence[Sequence[str]], right: frozenset[str]) -> Iterator[str]:
    """A table as lines, wide characters counted as two cells."""
    if not columns:
        return
    widths = [max(map(cells, column)) for column in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        parts = []
        for name, width, cell in zip(columns, widths, row, strict=True):
            pad = " " * (width - cells(cell))
            parts.append(pad + cell if name in right else cell + pad)
        yield "  ".join(parts).rstrip()


def cells(text: str) -> int:
    """How many terminal cells a text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


_STYLES = {
    "UN": "green", "SN": "yellow", "DN": "bold red",
    "OK": "green", "WARN": "yellow", "FAIL": "bold red", "ACTIVE": "yellow",
    "PARTIAL": "bold red", "HEALED": "green",
    "NOT REACHABLE": "bold red", "NOT DONE": "bold red", "paused": "yellow",
}  # fmt: skip
_SEEN = {"up": "green", "suspect": "yellow", "down": "bold red"}
_SEEN_SO = re.compile(r"(up|suspect|down) \d+\.\d")
"""A state with its phi, as the matrix of observers has it."""


def _style(cell: str) -> str:
    seen = _SEEN_SO.fullmatch(cell)
    return _SEEN[seen[1]] if seen else _STYLES.get(cell, "")


def _write_rich(
    table: Table, columns: Sequence[str], rows: Sequence[Sequence[str]], stream: TextIO
) -> None:  # pragma: no cover -- needs a terminal
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console(file=stream, highlight=False, markup=False, emoji=False, soft_wrap=False)
    grid = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        grid.add_column(Text(column), justify="right" if column in table.right else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(Text(cell, _style(cell)) for cell in row))
    for line in table.above:
        console.print(Text(line), soft_wrap=True)
    if columns:
        console.print(grid)
    for line in table.below:
        console.print(Text(line), soft_wrap=True)


def stdout() -> TextIO:
    """Where data goes; text that is no UTF-8 leaves as the bytes it came as."""
    return sys.stdout
