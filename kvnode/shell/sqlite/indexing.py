"""Builds the places and saved leaves of a table that was made before there were any.

Promises: done once, in one transaction, in bounded memory; a crash in between leaves it to be done.
Never: runs beside another connection, or changes a row.

    kv, in key order ─► hash tree, in memory ─► leaves
                     └► (leaf, key), sorted by SQLite outside memory ─► places
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from kvnode.core.merkle import HashTree, leaf_of
from kvnode.core.registers import counted, weigh
from kvnode.core.versions import ABSENT
from kvnode.protocol.ring import SLOTS
from kvnode.shell.sqlite.directory import read_meta, refusing_damage
from kvnode.shell.sqlite.format import Damaged, decode_register_row, decode_row, encode_page

INDEXED = b"2"
"""The index there is now: 1 knew nothing of registers, in places, leaves or counters."""
ANY_BOOT = 0
"""The actors in the rows do not matter here."""


def index_table(path: Path) -> int:
    """See to it that the table is indexed. How many rows had to be. Raises `StoreFailed`."""
    with refusing_damage(path), contextlib.closing(sqlite3.connect(path, isolation_level=None)) as table:
        if read_meta(table, "indexed") == INDEXED:
            return 0
        table.execute("PRAGMA wal_autocheckpoint=0")
        table.execute("PRAGMA synchronous=FULL")
        table.create_function("leaf_of", 1, leaf_of, deterministic=True)
        table.execute("BEGIN IMMEDIATE")
        table.execute("DELETE FROM places")
        table.execute("DELETE FROM leaves")
        table.execute(
            "INSERT INTO places SELECT leaf_of(key), key FROM kv"
            " UNION SELECT leaf_of(key), key FROM registers ORDER BY 1, 2"
        )
        rows = _save_leaves(table)
        table.execute("INSERT OR REPLACE INTO meta VALUES ('indexed', ?)", (INDEXED,))
        table.execute("COMMIT")
        table.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return rows


def _save_leaves(table: sqlite3.Connection) -> int:
    """Add up every leaf from the rows that can be read."""
    tree = HashTree()
    rows = 0
    for key, row in table.execute("SELECT key, value FROM kv"):
        rows += 1
        with contextlib.suppress(Damaged):  # its place is known: whoever asks for the leaf is told
            tree.change(key, ABSENT, decode_row(key, row, ANY_BOOT).digest)
    keys = value_bytes = 0
    for key, row in table.execute("SELECT key, value FROM registers"):
        rows += 1
        with contextlib.suppress(Damaged):
            weight = weigh(decode_register_row(key, row))
            tree.change(key, ABSENT, weight.mark)
            keys += bool(weight.live_bytes)
            value_bytes += counted(key, weight)
    for name, more in (("keys", keys), ("value_bytes", value_bytes)):
        known = int(read_meta(table, name) or b"0")
        table.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, str(known + more).encode()))
    pages = ((slot, tree.page(slot)) for slot in range(SLOTS))
    table.executemany(
        "INSERT INTO leaves VALUES (?, ?)", ((slot, encode_page(slot, page)) for slot, page in pages if page)
    )
    return rows
