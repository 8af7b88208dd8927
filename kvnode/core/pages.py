"""A page of what a node holds, records and registers, in byte order. Values only.

Promises: whatever is held up to the end of the page is in it. Never: merges the two.
"""

from __future__ import annotations

from typing import NamedTuple

from kvnode import config
from kvnode.core.consensus import decode_register
from kvnode.core.outbox import Outbox
from kvnode.protocol.consensus import NO_BALLOT, RegisterRow
from kvnode.protocol.requests import Row


class Page(NamedTuple):
    """What is held of some keys in a row."""

    rows: tuple[Row, ...]
    registers: tuple[RegisterRow, ...]
    """Those that accepted something."""
    end: bytes
    """Its last key, shown or not; empty where there is nothing after it."""
    volatile: bool
    """Whether it shows what is not durable yet."""


def page_of(outbox: Outbox, after: bytes, prefix: bytes, limit: int) -> Page:
    """A page. Raises `Unreadable`."""
    rows, more = outbox.scan(after, prefix, limit)
    volatile = outbox.volatile
    if not outbox.any_registers:
        return Page(rows, (), rows[-1].key if more else b"", volatile)
    found = outbox.registers(after, prefix, limit)
    kept: list[tuple[bytes, RegisterRow | None]] = []
    size = 0
    for key, register in found:
        known = decode_register(register)
        size += len(known.value)
        if kept and size > config.SCAN_PAGE_BYTES_MAX:
            break
        row = RegisterRow(key, known.accepted, known.value)
        kept.append((key, row if known.accepted != NO_BALLOT else None))
    more_registers = len(kept) < len(found) or len(found) == limit
    ends = [rows[-1].key] if more else []
    ends += [kept[-1][0]] if more_registers else []
    end = min(ends, default=b"")
    return Page(
        tuple(row for row in rows if not end or row.key <= end),
        tuple(row for key, row in kept if row is not None and (not end or key <= end)),
        end, volatile or bool(kept),
    )  # fmt: skip
