"""The data directory: one owner at a time, files that were checked before they are trusted.

Promises: a second process, another node's directory, a newer format and a corrupt file are each
refused with one clear sentence. Never: repairs or deletes anything by itself.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from pathlib import Path

from kvnode.shell.sqlite.format import FORMAT
from kvnode.shell.store import StoreFailed, StoreLocked

WAY_OUT = "move the directory away and start the node with an empty one: its peers hold the data"
SCHEMAS = {
    "log.db": ("CREATE TABLE IF NOT EXISTS log (n INTEGER PRIMARY KEY, batch BLOB NOT NULL)",),
    "table.db": ("CREATE TABLE IF NOT EXISTS kv (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",),
}
META = "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value BLOB)"
PAGE_BYTES = {"log.db": 4096, "table.db": 8192}


class Directory:
    """An open, locked, checked data directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreFailed(f"cannot use data directory {path}: {error.strerror}") from error
        self._take_lock()
        try:
            for name in SCHEMAS:
                self._prepare(name)
        except BaseException:
            self.release()
            raise

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._lock, 32, 0).decode(errors="replace").strip()
            os.close(self._lock)
            raise StoreLocked(f"{self.path} is in use by another kvnode (pid {holder or 'unknown'})") from error
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def _prepare(self, name: str) -> None:
        """Create a file with its tables, or check the one that is there."""
        file = self.path / name
        try:
            connection = sqlite3.connect(file, isolation_level=None)
            try:
                if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
                    if found != "ok":
                        raise StoreFailed(f"{file} is corrupt ({found}): {WAY_OUT}")
                connection.execute(f"PRAGMA page_size={PAGE_BYTES[name]}")
                connection.execute("PRAGMA journal_mode=WAL")
                for statement in (*SCHEMAS[name], META):
                    connection.execute(statement)
                self._check_format(connection, file)
            finally:
                connection.close()
        except sqlite3.DatabaseError as error:
            raise StoreFailed(f"{file} cannot be read as a database ({error}): {WAY_OUT}") from error

    def _check_format(self, connection: sqlite3.Connection, file: Path) -> None:
        row = connection.execute("SELECT value FROM meta WHERE key='format'").fetchone()
        if row is None:
            connection.execute("INSERT INTO meta VALUES ('format', ?)", (str(FORMAT).encode(),))
            return
        found = int(row[0])
        if found != FORMAT:
            raise StoreFailed(f"{file} has format {found}, this kvnode reads format {FORMAT}: use a newer one")

    def disk_bytes(self) -> int:
        """Bytes of all its files."""
        return sum(entry.stat().st_size for entry in os.scandir(self.path))

    def disk_free_bytes(self) -> int:
        """Bytes that can still be written here."""
        stat = os.statvfs(self.path)
        return stat.f_bavail * stat.f_frsize

    def release(self) -> None:
        """Let others have it. Safe to call twice."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
