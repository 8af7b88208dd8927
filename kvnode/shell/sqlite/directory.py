"""The data directory: one owner at a time, files that were checked before they are trusted.

Promises: a second process, another node's directory, a newer format, a corrupt file and files that do
not belong together are each refused with one clear sentence; the boot number is durable, and outside
any WAL, before anything else is written.
Never: repairs or deletes anything by itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec

from kvnode.protocol.ring import Ring
from kvnode.shell.sqlite.format import FORMAT
from kvnode.shell.sqlite.wal import wal_frames
from kvnode.shell.store import Identity, StoreFailed, StoreLocked

WAY_OUT = "Move the directory away and start the node with an empty one: its peers hold the data"
LOG, TABLE = "log.db", "table.db"
SCHEMAS = {
    LOG: ("CREATE TABLE IF NOT EXISTS log (n INTEGER PRIMARY KEY, batch BLOB NOT NULL)",),
    TABLE: (
        "CREATE TABLE IF NOT EXISTS kv (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
        "CREATE TABLE IF NOT EXISTS places (leaf INTEGER, key BLOB, PRIMARY KEY (leaf, key)) WITHOUT ROWID",
        "CREATE TABLE IF NOT EXISTS leaves (slot INTEGER PRIMARY KEY, hashes BLOB NOT NULL)",
        "CREATE TABLE IF NOT EXISTS hints"
        " (owner TEXT, key BLOB, value BLOB NOT NULL, PRIMARY KEY (owner, key)) WITHOUT ROWID",
        "CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
        "CREATE TABLE IF NOT EXISTS registers (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    ),
}
META = "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value BLOB)"
LOG_PAGE_BYTES = 4096
"""A commit writes whole pages: small ones cost the least when it has little to write."""
PAGE_BYTES = {LOG: LOG_PAGE_BYTES, TABLE: 8192}
DISK_ID_BITS = 63


class Directory:
    """An open, locked, checked data directory."""

    def __init__(self, path: Path, node: str) -> None:
        """Raises `StoreFailed`."""
        self.path = path
        self.node = node
        self.disk_id = 0
        self.boot = 0
        self.ring = b""
        """The ring last saved, encoded; empty in a new directory."""
        try:
            make_durably(path)
            self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreFailed(f"cannot use data directory {path}: {error.strerror}") from error
        self._take_lock()
        with contextlib.ExitStack() as undo:
            undo.callback(self.release)
            self._open_files()
            undo.pop_all()

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._lock, 32, 0).decode(errors="replace").strip()
            os.close(self._lock)
            raise StoreLocked(f"{self.path} is in use by another kvnode (pid {holder or 'unknown'})") from error
        with contextlib.suppress(OSError):  # on a full disk the message lacks the pid, no more
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    # ---- the files -------------------------------------------------------------------------

    def _open_files(self) -> None:
        """Check both files, then settle whose they are."""
        with contextlib.ExitStack() as stack:
            log, table = (stack.enter_context(contextlib.closing(self._open(name))) for name in (LOG, TABLE))
            with refusing_damage(self.path):
                self._identify(log, table)

    def _open(self, name: str) -> sqlite3.Connection:
        """Create a file with its tables, or check the one that is there."""
        file = self.path / name
        with refusing_damage(file), contextlib.ExitStack() as undo:
            frames = wal_frames(self.path / f"{name}-wal")
            connection = sqlite3.connect(file, isolation_level=None)
            undo.callback(connection.close)
            connection.execute("PRAGMA wal_autocheckpoint=0")
            connection.execute("PRAGMA synchronous=FULL")
            if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                self._check(connection, file)
                read = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1]
                if frames.rotten(read):
                    raise StoreFailed(f"{file}-wal is damaged before its end: commits are lost in it. {WAY_OUT}")
            elif frames.commits or not frames.sound:
                raise StoreFailed(f"{file} is empty, but its WAL is not. {WAY_OUT}")
            connection.execute(f"PRAGMA page_size={PAGE_BYTES[name]}")
            connection.execute("PRAGMA journal_mode=WAL")
            for statement in (*SCHEMAS[name], META):
                connection.execute(statement)
            undo.pop_all()
        return connection

    def _check(self, connection: sqlite3.Connection, file: Path) -> None:
        """Refuse a format that is not ours, before anything else is tried, and a corrupt file."""
        known = connection.execute("SELECT count(*) FROM sqlite_master WHERE name='meta'").fetchone()[0]
        found = int(read_meta(connection, "format") or FORMAT) if known else FORMAT
        if found != FORMAT:
            raise StoreFailed(f"{file} has format {found}, this kvnode reads format {FORMAT}: use a newer one")
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise StoreFailed(f"{file} is corrupt ({verdict}). {WAY_OUT}")

    # ---- whose it is -----------------------------------------------------------------------

    def _identify(self, log: sqlite3.Connection, table: sqlite3.Connection) -> None:
        """Whose directory this is, and which boot; durable when this returns."""
        owner = (read_meta(log, "node") or self.node.encode()).decode(errors="replace")
        if owner != self.node:
            raise StoreFailed(f"{self.path} belongs to node {owner}, not {self.node}: name another directory")
        # The log first. So a table that names a disk_id has, or had, a log that names the same.
        disk_id, its_disk_id = read_meta(log, "disk_id"), read_meta(table, "disk_id")
        if its_disk_id is not None and disk_id != its_disk_id:
            raise StoreFailed(f"{self.path}: {LOG} is not the one that {TABLE} was filled from. {WAY_OUT}")
        self.disk_id = secrets.randbits(DISK_ID_BITS) if disk_id is None else int(disk_id)
        self.boot = int(read_meta(log, "boot") or b"0") + 1
        self.ring = read_meta(log, "ring") or b""
        ours = {"format": FORMAT, "node": self.node, "disk_id": self.disk_id, "boot": self.boot}
        write_meta(log, ours)
        if its_disk_id is None:
            write_meta(table, {"format": FORMAT, "disk_id": self.disk_id})
        # Into the file itself: damage to a WAL may cost commits, never repeat a boot number.
        for connection in (log, table):
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def identity(self) -> Identity:
        """What the directory says of itself. Raises `StoreFailed`."""
        try:
            ring = msgspec.msgpack.decode(self.ring, type=Ring) if self.ring else None
        except msgspec.MsgspecError as error:
            raise StoreFailed(f"{self.path}: the ring in it cannot be read. {WAY_OUT}") from error
        return Identity(self.node, self.disk_id, self.boot, ring)

    # ---- the rest --------------------------------------------------------------------------

    def disk_bytes(self) -> int:
        """Bytes of all its files."""
        total = 0
        for name in os.listdir(self.path):
            with contextlib.suppress(FileNotFoundError):
                total += (self.path / name).stat().st_size
        return total

    def disk_free_bytes(self) -> int:
        """Bytes that can still be written here."""
        stat = os.statvfs(self.path)
        return stat.f_bavail * stat.f_frsize

    def release(self) -> None:
        """Let others have it. Safe to call twice."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


@contextlib.contextmanager
def refusing_damage(file: Path) -> Iterator[None]:
    """Turn what SQLite says of a bad file or disk into one sentence."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise StoreFailed(f"{file} cannot be opened ({error}): put the disk right, then start again") from error
    except (sqlite3.DatabaseError, ValueError) as error:
        raise StoreFailed(f"{file} is damaged ({error}). {WAY_OUT}") from error
    except OSError as error:
        raise StoreFailed(f"{file} cannot be read ({error.strerror}). {WAY_OUT}") from error


def read_meta(connection: sqlite3.Connection, name: str) -> bytes | None:
    """A value kept beside the records."""
    row = connection.execute("SELECT value FROM meta WHERE key=?", (name,)).fetchone()
    if row is not None and not isinstance(row[0], bytes):
        raise ValueError(f"{name} is no bytes")
    return None if row is None else row[0]


def write_meta(connection: sqlite3.Connection, values: dict[str, object]) -> None:
    """Keep values, in one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    for name, value in values.items():
        connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, str(value).encode()))
    connection.execute("COMMIT")


def make_durably(path: Path) -> None:
    """Make a directory, and see to it that a power cut does not take its name away again."""
    path = path.absolute()
    missing = [p for p in (path, *path.parents) if not p.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for parent in {p.parent for p in missing}:
        descriptor = os.open(parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
