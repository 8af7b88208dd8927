"""Replies about keys -> views: get, put, delete, scan, explain. Pure.

Promises: JSON exactly as CONTRACT ("Data") writes it; 64-bit numbers are strings; what is unknown is
null. Never: talks to a node, or prints.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import msgspec

from kvctl.model import Item, Sibling, Written
from kvctl.output import Json, Table, View, key_fields, show, text_or_base64, utc
from kvnode.protocol import messages as m
from kvnode.protocol.ring import SLOTS
from kvnode.protocol.types import MODES, Record, Version, decode_record, time_to_wall

MODE_NAMES = {number: name for name, number in MODES.items()}
SUBSETS_MAX = 2_000
"""Sets of replicas an explanation looks at; beyond it, it says less."""

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
        # Neither hints nor read repair exist yet: nothing was hinted, nothing repaired.
        "hinted": [],
        "repaired": [],
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


def written_view(command: str, written: Written, *, conditional: bool) -> View:
    """A receipt."""
    data: Object = {
        **key_fields(written.key),
        "acked": written.acked,
        "w": written.w,
        "context": written.context,
        "story": story_json(written.story),
    }
    if conditional:
        data["condition"] = "best_effort"
    row = (show(written.key), str(written.acked), str(written.w), written.context)
    table = Table(("KEY", "ACKED", "W", "CONTEXT"), (row,), frozenset({"ACKED", "W"}), 3)
    return View(command, data, table)


# ---- scan, export --------------------------------------------------------------------------


def scan_json(item: Item) -> Object:
    """A row of a scan."""
    whole = item_json(item)
    return {name: whole[name] for name in ("key", "key_encoding", "value", "encoding", "siblings")}


def scan_row(item: Item) -> tuple[str, ...]:
    """A row of a scan as text; siblings stand beside each other."""
    return (show(item.key), " | ".join(show(s.value) for s in item.siblings), str(len(item.siblings)))


def scan_table(rows: Sequence[tuple[str, ...]]) -> Table:
    """A scan as a table."""
    return Table(("KEY", "VALUE", "SIBLINGS"), tuple(rows), frozenset({"SIBLINGS"}), 2)


def export_line(item: Item) -> Object:
    """A line of NDJSON that `import` takes back."""
    key = key_fields(item.key)
    line: Object = {"key": key["key"]}
    if key["key_encoding"] != "utf-8":
        line["key_encoding"] = key["key_encoding"]
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


# ---- explain -------------------------------------------------------------------------------


def explain_view(key: bytes, told: m.Explained, q: int) -> View:
    """Where a key lives, and what each owner holds of it."""
    records = {r.node: _record(r) for r in told.replicas}
    replicas: list[Object] = [
        {
            "node": r.node,
            "state": r.state if records[r.node] is not None else "malformed",
            "siblings": [_version_json(v) for v in records[r.node] or ()],
            "digest": r.digest.hex() or None,
        }
        for r in told.replicas
    ]
    data: Object = {
        **key_fields(key),
        "slot": told.slot,
        "partition": told.partition,
        "epoch": told.epoch,
        "owners": list(told.owners),
        # Fallbacks and hints do not exist yet.
        "fallbacks": [],
        "replicas": replicas,
        "hints": [],
    }
    table = Table(
        ("NODE", "STATE", "SIBLINGS", "DIGEST"),
        tuple((show(r["node"]), show(r["state"]), str(len(r["siblings"])), r["digest"] or "-") for r in replicas),
    )
    return View("explain", data, table, replicas, _explain_text(key, told, q, records))


def _record(replica: m.ReplicaState) -> Record | None:
    """What a replica sent, decoded; None when it is no record."""
    try:
        return decode_record(replica.record) if replica.record else ()
    except msgspec.MsgspecError:
        return None


def _version_json(version: Version) -> Object:
    value, encoding = (None, "utf-8") if version.value is None else text_or_base64(version.value)
    return {
        "dot": dot_json(version.actor, version.time),
        "value": value,
        "encoding": encoding,
        "tombstone": version.value is None,
        "written_at": utc(time_to_wall(version.time)),
        "expires_at": utc(version.expires_at or None),
    }


def _version_text(version: Version) -> str:
    return "(deleted)" if version.value is None else f'"{_short(show(version.value))}"'


def _short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _explain_text(key: bytes, told: m.Explained, q: int, records: dict[Any, Record | None]) -> str:
    """The picture: the ring, the owners, their versions, and what a read would say."""
    width = 64
    at = min(told.slot * width // SLOTS, width - 1)
    lines = [
        f"key {show(key)}  slot {told.slot} of {SLOTS}  partition {told.partition} of {q}  epoch {told.epoch}",
        "",
        "0 |" + "-" * at + "^" + "-" * (width - at - 1) + f"| {SLOTS}",
        "   " + " " * at + f"owners: {' > '.join(map(show, told.owners))}",
        "",
    ]
    for replica in told.replicas:
        digest = replica.digest.hex()[:12] or "-"
        lines.append(f"{show(replica.node)}  {show(replica.state)}  digest {digest}")
        for v in records[replica.node] or ():
            lines.append(f"    {v.actor:016x}/{v.time}  {utc(time_to_wall(v.time))}  {_version_text(v)}")
    answering = [r.node for r in told.replicas if r.state in ("present", "absent") and records[r.node] is not None]
    lines += ["", "a read would return now:"]
    for r in range(1, len(told.owners) + 1):
        lines.append(f"  R={r}  {_returns(r, [records[node] or () for node in answering])}")
    return "\n".join(lines)


def _returns(r: int, held: list[Record]) -> str:
    """What reading any `r` of these copies can give."""
    if r > len(held):
        return f"Unavailable: {len(held)} of the owners answer"
    outcomes: dict[str, None] = {}
    for count, some in enumerate(combinations(held, r)):
        if count == SUBSETS_MAX:
            break
        values = [_version_text(v) for v in merged(some) if v.value is not None]
        outcomes[" + ".join(dict.fromkeys(values)) or "not found"] = None
    return "  or  ".join(outcomes) + ("   (depends on who answers first)" if len(outcomes) > 1 else "")


def merged(records: Sequence[Record]) -> Record:
    """The versions of several copies that none of the others has seen."""
    all_of = {(v.actor, v.time): v for record in records for v in record}
    kept = [
        v
        for v in all_of.values()
        if not any(o.past.get(v.actor, 0) >= v.time for o in all_of.values() if o is not v)
    ]
    return tuple(sorted(kept, key=lambda v: (v.time, v.actor)))
