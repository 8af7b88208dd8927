"""`explain` -> its view: where a key lives, who stands in, what each copy is, what a read would say. Pure.

Promises: JSON exactly as CONTRACT ("Data") writes it; a copy that cannot be decoded is told as
`malformed`. Never: trusts what a node sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import TypeAlias

import msgspec

from kvctl.output import Table, View, key_fields, show, text_or_base64, utc
from kvctl.render import Object, dot_json
from kvctl.render_register import is_register, register_json, register_lines, register_read
from kvnode.protocol import messages as m
from kvnode.protocol.ring import SLOTS
from kvnode.protocol.types import NodeId, Record, Version, decode_record, time_to_wall

SUBSETS_MAX = 2_000
"""Sets of replicas an explanation looks at; beyond it, it says less."""
WIDTH = 64
"""Cells of the ring when it is drawn as a line."""

Records: TypeAlias = Mapping[NodeId, Record | None]
"""Node -> what it sent, decoded; None where it is no record."""


def explain_view(key: bytes, told: m.Explained, q: int) -> View:
    """Where a key lives, what each owner holds of it, and who keeps it for whom."""
    records = {r.node: _record(r) for r in told.replicas}
    replicas: list[Object] = [
        {
            "node": r.node,
            "state": r.state if records[r.node] is not None else "malformed",
            "siblings": [_version_json(v) for v in records[r.node] or ()],
            "digest": r.digest.hex() or None,
            "grave": r.grave or None,
            "register": register_json(r.register),
        }
        for r in told.replicas
    ]
    data: Object = {
        **key_fields(key),
        "slot": told.slot,
        "partition": told.partition,
        "epoch": told.epoch,
        "owners": list(told.owners),
        "fallbacks": list(told.fallbacks),
        "replicas": replicas,
        "hints": [
            {
                "for": owner,
                "on": r.node,
                "siblings": [_version_json(v) for v in _record(r) or ()],
                "digest": r.digest.hex() or None,
            }
            for r, owner in _hints(told)
        ],
    }
    table = Table(
        ("NODE", "STATE", "SIBLINGS", "DIGEST"),
        tuple((show(r["node"]), show(r["state"]), str(len(r["siblings"])), r["digest"] or "-") for r in replicas),
    )
    return View("explain", data, table, replicas, "\n".join(_picture(key, told, q, records)))


def _hints(told: m.Explained) -> Iterator[tuple[m.ReplicaState, NodeId]]:
    """Who keeps a hint, and for which owner; an owner may keep one for another owner as well."""
    seen = set()
    for state in (*told.hints, *told.replicas):
        for owner in state.hints:
            if (state.node, owner) not in seen:
                seen.add((state.node, owner))
                yield state, owner


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


def _picture(key: bytes, told: m.Explained, q: int, records: Records) -> Iterator[str]:
    """The ring, the owners, their versions, the hints, and what a read would say."""
    at = min(told.slot * WIDTH // SLOTS, WIDTH - 1)
    yield f"key {show(key)}  slot {told.slot} of {SLOTS}  partition {told.partition} of {q}  epoch {told.epoch}"
    yield ""
    yield "0 |" + "-" * at + "^" + "-" * (WIDTH - at - 1) + f"| {SLOTS}"
    indent = " " * (3 + min(at, WIDTH // 2))
    yield indent + f"owners: {' > '.join(map(show, told.owners))}"
    if told.fallbacks:
        yield indent + f"fallbacks: {' > '.join(map(show, told.fallbacks))}"
    yield ""
    for replica in told.replicas:
        yield f"{show(replica.node)}  {show(replica.state)}  digest {replica.digest.hex()[:12] or '-'}"
        yield from _versions(records[replica.node] or ())
        yield from register_lines(replica.register)
        if replica.grave:
            yield f"    the tombstone is still there: {show(replica.grave)}"
    for holder, owner in _hints(told):
        yield f"{show(holder.node)}  keeps a hint for {show(owner)}  digest {holder.digest.hex()[:12] or '-'}"
        if holder.node not in records:
            yield from _versions(_record(holder) or ())
    yield ""
    if is_register(told):
        yield from register_read(told)
        return
    yield "a read would return now:"
    answering = [r.node for r in told.replicas if r.state in ("present", "absent") and records[r.node] is not None]
    for r in range(1, len(told.owners) + 1):
        yield f"  R={r}  {_returns(r, [records[node] or () for node in answering])}"


def _versions(record: Record) -> Iterator[str]:
    for v in record:
        yield f"    {v.actor:016x}/{v.time}  {utc(time_to_wall(v.time))}  {_version_text(v)}"


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
