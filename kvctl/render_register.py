"""What `explain` shows of a register: what each owner promised and accepted, what a read would say. Pure.

Promises: as CONTRACT writes versions; a copy that cannot be decoded is told as none.
Never: trusts what a node sent.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from kvctl.output import show, text_or_base64, utc
from kvctl.render import Object, dot_json
from kvnode.protocol import messages as m
from kvnode.protocol.consensus import Ballot
from kvnode.protocol.ring import majority
from kvnode.protocol.types import Version, decode_record, time_to_wall

VALUE_CHARS_MAX = 60


def register_json(register: m.RegisterState | None) -> Object | None:
    """What an owner promised and accepted; null where it has done neither."""
    if register is None:
        return None
    version = _accepted(register)
    promised: Object = {"promised": dot_json(register.promised.by, register.promised.time)}
    if version is None:
        return {**promised, "accepted": None}
    value, encoding = (None, "utf-8") if version.value is None else text_or_base64(version.value)
    return {
        **promised,
        "accepted": dot_json(register.accepted.by, register.accepted.time),
        "dot": dot_json(version.actor, version.time),
        "value": value,
        "encoding": encoding,
        "tombstone": version.value is None,
        "written_at": utc(time_to_wall(version.time)),
    }


def register_lines(register: m.RegisterState | None) -> Iterator[str]:
    """The same for people."""
    if register is None:
        return
    version = _accepted(register)
    if version is not None:
        yield f"    accepted under {_ballot(register.accepted)}  {_value(version)}"
    if version is None or register.promised != register.accepted:
        yield f"    promised {_ballot(register.promised)}"


def is_register(told: m.Explained) -> bool:
    """Whether any owner accepted a value of this key in mode `strong`."""
    return any(r.register is not None and _accepted(r.register) is not None for r in told.replicas)


def register_read(told: m.Explained) -> Iterator[str]:
    """What a read would say: in one trip where a majority agrees and has promised nothing since."""
    agreed: dict[Ballot, list[m.ReplicaState]] = {}
    for replica in told.replicas:
        register = replica.register
        if register is not None and register.promised == register.accepted:
            agreed.setdefault(register.accepted, []).append(replica)
    owners, need = len(told.owners), majority(len(told.owners))
    most = max(agreed.values(), key=len, default=[])
    yield f"a register: written in mode strong only; {need} of {owners} owners decide. A read there would return:"
    version = _accepted(most[0].register) if len(most) >= need else None
    if version is None:
        yield "  what a round decides: no majority is at one ballot with nothing promised since"
    else:
        yield f"  {_value(version)}   accepted by {', '.join(show(r.node) for r in most)}"


def _accepted(register: m.RegisterState | None) -> Version | None:
    try:
        record = decode_record(register.record) if register is not None and register.record else ()
    except msgspec.MsgspecError:
        return None
    return record[0] if len(record) == 1 else None


def _ballot(ballot: Ballot) -> str:
    return f"{ballot.by:016x}/{ballot.time}  {utc(time_to_wall(ballot.time))}"


def _value(version: Version) -> str:
    if version.value is None:
        return "(deleted)"
    text = show(version.value)
    return f'"{text if len(text) <= VALUE_CHARS_MAX else text[: VALUE_CHARS_MAX - 1] + "…"}"'
