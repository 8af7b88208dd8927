"""Replies about keys -> views: get, put, delete, scan. Pure; `explain` is in `render_explain.py`.

Promises: JSON exactly as CONTRACT ("Data") writes it; 64-bit numbers are strings; what is unknown is
null. Never: talks to a node, or prints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kvctl.model import Item, Sibling, Written
from kvctl.output import Json, Table, View, key_fields, show, text_or_base64, utc
from kvnode.protocol import messages as m
from kvnode.protocol.types import MODES

MODE_NAMES = {number: name for name, number in MODES.items()}

Object = dict[str, Any]
"""A JSON object being built."""


def dot_json(actor: int, time: int) -> list[Json]:
    """A dot: 64-bit numbers are strings."""
    return [f"{actor:016x}", str(time)]


def story_json(story: m.Story | None) -> Json:
    """How a request went."""
    if story is None:
        return None
    answers = []
    for a in story.answers:
        answer: Object = {"node": a.node, "kind": a.kind, "ok": a.ok, "ms": round(a.ms, 3), "told": a.told}
        if a.told in ("digest", "value"):
            answer[a.told] = True
        answers.append(answer)
    told: Object = {
        "coordinator": story.coordinator,
        "mode": MODE_NAMES.get(story.mode, str(story.mode)),
        "epoch": story.epoch,
        "partition": story.partition,
        "owners": list(story.owners),
        "answers": answers,
        "hinted": [{"for": h.owner, "on": h.holder} for h in story.hinted],
        "repaired": list(story.repaired),
        "strict": story.strict,
        "took_ms": story.took_ms,
    }
    if story.condition:
        told["condition"] = story.condition
    return told


def story_text(story: m.Story) -> str:
    """How a request went, for people."""
    lines = [
        f"coordinator {show(story.coordinator)}  mode {MODE_NAMES.get(story.mode)}  epoch {story.epoch}  "
        f"partition {story.partition}  owners {', '.join(map(show, story.owners))}  took {story.took_ms:.1f} ms"
    ]
    lines += [
        f"  {show(a.node)}  {show(a.kind)}  {'ok' if a.ok else 'no'}  {a.ms:.1f} ms  {show(a.told)}"
        for a in story.answers
    ]
    lines += [f"  {show(h.holder)}  keeps a hint for {show(h.owner)}" for h in story.hinted]
    if story.repaired:
        lines.append(f"  found stale, being repaired: {', '.join(map(show, story.repaired))}")
    return "\n".join(lines)


# ---- get -----------------------------------------------------------------------------------


def sibling_json(sibling: Sibling) -> Object:
    """One live value."""
    value, encoding = text_or_base64(sibling.value)
    return {
        "value": value,
        "encoding": encoding,
        "dot": dot_json(sibling.actor, sibling.time),
        "written_at": utc(sibling.written_at),
        "expires_at": utc(sibling.expires_at or None),
    }


def item_json(item: Item) -> Object:
    """An item as `get -o json` shows it: `value` is null unless there is exactly one."""
    siblings = item.siblings
    value, encoding = text_or_base64(siblings[0].value) if len(siblings) == 1 else (None, "utf-8")
    return {
        **key_fields(item.key),
        "found": item.found,
        "value": value,
        "encoding": encoding,
        "siblings": [sibling_json(s) for s in siblings],
        "context": item.context,
        "story": story_json(item.story),
    }


def get_view(item: Item) -> View:
    """`get`, in the formats that are not simply the value."""
    rows = tuple(
        (show(s.value), utc(s.written_at) or "-", utc(s.expires_at or None) or "-") for s in item.siblings
    )
    return View("get", item_json(item), Table(("VALUE", "WRITTEN", "EXPIRES"), rows))


def siblings_text(item: Item) -> str:
    """Every sibling, and how to merge them, for stderr."""
    lines = [f"  {utc(s.written_at)}  {s.actor:016x}  {show(s.value)}" for s in item.siblings]
    key = show(item.key)
    return "\n".join(
        [*lines, "merge them, then:", f"  kvctl put {key} MERGED --context {item.context}"],
    )


def written_view(command: str, written: Written, *, best_effort: bool) -> View:
    """A receipt."""
    data: Object = {
        **key_fields(written.key),
        "acked": written.acked,
        "w": written.w,
        "context": written.context,
        "story": story_json(written.story),
    }
    if best_effort:
        data["condition"] = "best_effort"
    row = (show(written.key), str(written.acked), str(written.w), written.context)
    table = Table(("KEY", "ACKED", "W", "CONTEXT"), (row,), frozenset({"ACKED", "W"}), 3)
    return View(command, data, table)


# ---- scan, export --------------------------------------------------------------------------


def scan_json(item: Item) -> Object:
    """A row of a scan."""
    whole = item_json(item)
    told = {name: whole[name] for name in ("key", "key_encoding", "value", "encoding", "siblings")}
    return {**told, "register": item.register}


def scan_row(item: Item) -> tuple[str, ...]:
    """A row of a scan as text; siblings stand beside each other."""
    values = " | ".join(show(s.value) for s in item.siblings)
    return (show(item.key), values, "register" if item.register else "-", str(len(item.siblings)))


def scan_table(rows: Sequence[tuple[str, ...]]) -> Table:
    """A scan as a table."""
    return Table(("KEY", "VALUE", "KIND", "SIBLINGS"), tuple(rows), frozenset({"SIBLINGS"}), 3)


def export_line(item: Item) -> Object:
    """A line of NDJSON that `import` takes back."""
    key = key_fields(item.key)
    line: Object = {"key": key["key"]}
    if key["key_encoding"] != "utf-8":
        line["key_encoding"] = key["key_encoding"]
    if item.register:
        line["register"] = True
    values = []
    for s in item.siblings:
        text, encoding = text_or_base64(s.value)
        value: Object = {"value": text}
        if encoding != "utf-8":
            value["encoding"] = encoding
        if s.expires_at:
            value["expires_at"] = utc(s.expires_at)
        values.append(value)
    return line | values[0] if len(values) == 1 else line | {"siblings": values}
