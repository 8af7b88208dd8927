"""The table: where records rest, sorted by key. The connection that reads it.

Promises: a row that fails its checksum is reported, never served, never skipped.
Never: writes, or checkpoints: SQLite before 3.51.3 can corrupt a WAL that two connections reset.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from kvnode import config
from kvnode.core.outbox import Hint, HintKey, Unreadable
from kvnode.core.registers import weigh
from kvnode.core.versions import Held
from kvnode.protocol.types import NodeId
from kvnode.shell.order import upper_bound
from kvnode.shell.sqlite.format import (
    Damaged,
    decode_fact,
    decode_hint,
    decode_page,
    decode_register_row,
    decode_row,
)


class TableReader:
    """Point reads and range scans beside the writer."""

    def __init__(self, path: Path, boot: int) -> None:
        self._boot = boot
        self._connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
        self._connection.execute("PRAGMA wal_autocheckpoint=0")
        self._connection.execute(f"PRAGMA cache_size=-{config.TABLE_CACHE_KB}")
        self.unreadable = 0
        """Reads that met a damaged row or page."""
        self.unreadable_hints = 0
        self.unreadable_facts = 0

    def get(self, key: bytes) -> Held | None:
        """What the table holds of a key. Raises `Unreadable`."""
        try:
            row = self._connection.execute("SELECT value FROM kv WHERE key=?", (key,)).fetchone()
        except sqlite3.Error as error:
            raise self._unreadable(key) from error
        return None if row is None else self.decode(key, row[0])

    def rows(self, after: bytes, prefix: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """Rows above `after` that start with `prefix`, in byte order, undecoded. Raises `Unreadable`."""
        return self._page("kv", after, prefix, limit)

    def _page(self, table: str, after: bytes, prefix: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        bound = "key > ?" if after >= prefix else "key >= ?"
        args: list[bytes | int] = [max(after, prefix)]
        end = upper_bound(prefix)
        if end is not None:
            bound += " AND key < ?"
            args.append(end)
        sql = f"SELECT key, value FROM {table} WHERE {bound} ORDER BY key LIMIT ?"  # noqa: S608 -- fixed words only
        try:
            return self._connection.execute(sql, (*args, limit)).fetchall()
        except sqlite3.Error as error:
            raise self._unreadable(after) from error

    def decode(self, key: bytes, row: bytes) -> Held:
        """The record in a row. Raises `Unreadable`."""
        try:
            return decode_row(key, row, self._boot)
        except Damaged as error:
            raise self._unreadable(key) from error

    def register(self, key: bytes) -> bytes:
        """A key's register; empty where there is none. Raises `Unreadable`."""
        try:
            row = self._connection.execute("SELECT value FROM registers WHERE key=?", (key,)).fetchone()
            return b"" if row is None else decode_register_row(key, row[0])
        except (sqlite3.Error, Damaged) as error:
            raise self._unreadable(key) from error

    def register_keys(self) -> Iterator[bytes]:
        """Every key that has a row of a register. Raises `sqlite3.Error`."""
        for (key,) in self._connection.execute("SELECT key FROM registers"):
            yield key

    def register_rows(self, after: bytes, prefix: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """As `rows`, of registers."""
        return self._page("registers", after, prefix, limit)

    def decode_register(self, key: bytes, row: bytes) -> bytes:
        """The register in a row. Raises `Unreadable`."""
        try:
            return decode_register_row(key, row)
        except Damaged as error:
            raise self._unreadable(key) from error

    def keys_in(self, leaf: int) -> list[bytes]:
        """Every key in a leaf of the hash tree, and maybe some that there is no row of. Raises `Unreadable`."""
        try:
            found = self._connection.execute("SELECT key FROM places WHERE leaf=?", (leaf,)).fetchall()
        except sqlite3.Error as error:
            raise self._unreadable(b"") from error
        return [key for (key,) in found]

    def digests(self, leaf: int) -> Iterator[tuple[bytes, bytes]]:
        """The keys of a leaf that can be read, and what its hash has of each. Raises `Unreadable`."""
        for key in self.keys_in(leaf):
            with contextlib.suppress(Unreadable):
                held = self.get(key)
                if held is not None:
                    yield key, held.digest
            with contextlib.suppress(Unreadable):
                yield key, weigh(self.register(key)).mark

    def _unreadable(self, key: bytes) -> Unreadable:
        self.unreadable += 1
        return Unreadable(key)

    # ---- at boot ---------------------------------------------------------------------------

    def pages(self) -> Iterator[tuple[int, bytes | None]]:
        """The saved leaves, slot by slot, empty slots left out; None where they are damaged."""
        for slot, row in self._connection.execute("SELECT slot, hashes FROM leaves"):
            try:
                page = decode_page(slot, row)
            except Damaged:
                yield slot, None
                continue
            if page:
                yield slot, page

    def hints(self) -> dict[HintKey, Hint]:
        """The hints that can be read; the others are counted."""
        found = {}
        for owner, key, row in self._connection.execute("SELECT owner, key, value FROM hints"):
            of = NodeId(str(owner)), key
            try:
                found[of] = decode_hint(of, row)
            except Damaged:
                self.unreadable_hints += 1
        return found

    def facts(self) -> dict[str, bytes]:
        """The facts that can be read; the others are counted."""
        found = {}
        for name, row in self._connection.execute("SELECT name, value FROM facts"):
            try:
                found[str(name)] = decode_fact(str(name), row)
            except Damaged:
                self.unreadable_facts += 1
        return found

    def meta(self, name: str) -> int:
        """A number kept beside the table, 0 where there is none."""
        row = self._connection.execute("SELECT value FROM meta WHERE key=?", (name,)).fetchone()
        return int(row[0]) if row is not None else 0

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
