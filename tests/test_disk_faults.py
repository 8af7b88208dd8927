"""Disks that fail, for real: strace injects the errors, or a tmpfs is full.

What is asked each time: a write whose commit failed is never reported durable, the engine says so in
one sentence and takes no more, and after a restart on a sound disk all that was reported is there.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from kvnode.config import Settings
from kvnode.shell.sqlite.engine import SqliteEngine
from kvnode.shell.store import StoreFailed
from tests.test_store_conformance import everything, held, wait

STRACE = shutil.which("strace")
needs_strace = pytest.mark.skipif(STRACE is None, reason="strace is not installed")
TURNS = 40
MEMTABLE_BYTES = 8_000
FLUSHING = Settings(memtable_bytes=MEMTABLE_BYTES)


def child(path: str, durability: str, turns: str, memtable: str) -> None:
    """Write turns one by one, and say which are durable, and how it ended."""
    try:
        engine = SqliteEngine(Path(path), "n1", durability, Settings(memtable_bytes=int(memtable)))
    except StoreFailed as failed:
        return print(f"refused: {failed}", flush=True)
    try:
        for turn in range(1, int(turns) + 1):
            engine.submit(turn, {b"k%04d" % turn: held(b"v" * 500, turn), b"last": held(b"%d" % turn, turn)})
            wait(engine, turn)
            print(f"durable {turn}", flush=True)
    except StoreFailed as failed:
        print(f"failed: {failed}", flush=True)
        for again in (engine.durable, lambda: engine.submit(10_000, {})):
            try:
                again()
                print("took more", flush=True)
            except StoreFailed:
                print("refused more", flush=True)
        found = engine.get(b"k0001")
        print("reads" if found is not None else "does not read", flush=True)
    engine.close()
    return print("closed", flush=True)


class Run:
    """What a child said, and which calls strace saw."""

    def __init__(self, said: str, trace: str) -> None:
        self.said = said.splitlines()
        self.durable = max((int(n) for n in re.findall(r"^durable (\d+)$", said, re.MULTILINE)), default=0)
        self.failure = next((line for line in self.said if line.startswith(("failed:", "refused:"))), "")
        self.syncs = len(re.findall(r"(?:fdatasync|fsync)\(.*= 0$", trace, re.MULTILINE))
        self.injected = trace.count("(INJECTED)")


def run(
    path: Path,
    *,
    inject: str = "",
    only: str = "",
    durability: str = "fsync",
    turns: int = TURNS,
    memtable: int = MEMTABLE_BYTES,
) -> Run:
    """A child under strace; `only` names the file whose calls are seen and made to fail.

    strace counts `when` for each thread apart.
    """
    assert STRACE is not None
    trace = path.parent / f"{path.name}.trace"
    call = (
        f"from tests.test_disk_faults import child; child({str(path)!r}, {durability!r}, '{turns}', '{memtable}')"
    )
    command = [STRACE, "-f", "-qq", "-o", str(trace), "-e", "trace=fdatasync,fsync,pwrite64"]
    command += ["-e", f"inject={inject}"] if inject else []
    command += ["-P", str(path / only)] if only else []
    done = subprocess.run(
        [*command, sys.executable, "-c", call],
        cwd=Path(__file__).parent.parent, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if "ptrace" in done.stderr and "not permitted" in done.stderr:
        pytest.skip(f"strace may not trace here: {done.stderr.strip()}")
    assert "Traceback" not in done.stderr, done.stderr
    return Run(done.stdout, trace.read_text())


def survives(path: Path, durable: int) -> None:
    """On a sound disk, everything reported durable is there, whole."""
    with closing(SqliteEngine(path, "n1", "fsync", FLUSHING)) as engine:
        found = {row.key: row.held.record()[0] for row in everything(engine)}
        for turn in range(1, durable + 1):
            assert found[b"k%04d" % turn].value == b"v" * 500
        if durable:
            assert found[b"last"].time >= durable
        assert engine.stats().keys == len(found)


def died_well(ran: Run, path: Path) -> None:
    """It failed, in one sentence, took no more, could be read and closed; and nothing durable is lost."""
    assert ran.injected, "the fault never happened"
    assert ran.failure.startswith("failed:"), ran.said
    assert "restart the node" in ran.failure
    assert ran.said.count("refused more") == 2, ran.said
    assert ran.said[-2:] == ["reads", "closed"], ran.said
    assert 0 < ran.durable < TURNS
    survives(path, ran.durable)


@needs_strace
def test_every_acknowledged_turn_was_synced(tmp_path: Path) -> None:
    """At `fsync`, twenty turns cost at least twenty syncs of the log beyond those of an open and close."""
    idle = run(tmp_path / "idle", only="log.db-wal", turns=0)
    busy = run(tmp_path / "busy", only="log.db-wal", turns=20)

    assert busy.durable == 20
    assert busy.syncs >= idle.syncs + 20


@needs_strace
def test_what_licenses_a_trim_was_synced(tmp_path: Path) -> None:
    """A flush takes the log's place: its transactions are synced at every durability (PROTOCOL-CASES 7)."""
    for durability in ("fsync", "os"):
        idle = run(tmp_path / f"{durability} idle", only="table.db-wal", durability=durability, turns=0)
        ran = run(tmp_path / durability, only="table.db-wal", durability=durability)
        assert ran.durable == TURNS
        assert ran.syncs >= idle.syncs + 2, f"{TURNS} turns are some {TURNS * 600 // MEMTABLE_BYTES} memtables"


@needs_strace
def test_at_durability_os_no_turn_waits_for_a_sync_of_the_log(tmp_path: Path) -> None:
    """The kernel has it: that is what `os` means."""
    idle = run(tmp_path / "idle", only="log.db-wal", turns=0, durability="os")
    busy = run(tmp_path / "busy", only="log.db-wal", turns=20, durability="os")

    assert busy.durable == 20
    assert busy.syncs == idle.syncs


@needs_strace
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_a_failed_sync_of_the_log_is_never_an_acknowledgement(error: str, tmp_path: Path) -> None:
    """One fdatasync fails, once: the turn is not durable, nor is any later one, though the disk works again."""
    died_well(run(tmp_path / "n1", inject=f"fdatasync:error={error}:when=12", only="log.db-wal"), tmp_path / "n1")


@needs_strace
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_a_failed_write_of_the_log_is_never_an_acknowledgement(error: str, tmp_path: Path) -> None:
    """A write to the log's WAL fails once, then the disk works again: what was acknowledged stays."""
    died_well(run(tmp_path / "n1", inject=f"pwrite64:error={error}:when=41", only="log.db-wal"), tmp_path / "n1")


@needs_strace
def test_a_disk_that_stays_full_is_never_an_acknowledgement(tmp_path: Path) -> None:
    """Every write to the log from some point on fails."""
    died_well(run(tmp_path / "n1", inject="pwrite64:error=ENOSPC:when=40+", only="log.db-wal"), tmp_path / "n1")


@needs_strace
@pytest.mark.parametrize("only", ["table.db-wal", "table.db"])
@pytest.mark.parametrize(("inject", "when"), [("fdatasync:error=EIO", 16), ("pwrite64:error=ENOSPC", 50)])
def test_a_failed_flush_or_checkpoint_of_the_table_stops_the_node(
    inject: str, when: int, only: str, tmp_path: Path
) -> None:
    """The table's file is written by checkpoints alone, whose errors SQLite by itself keeps silent about.

    A flush follows each. The open makes fewer than `when` of these calls in a thread, the flushes more.
    """
    ran = run(tmp_path / "n1", inject=f"{inject}:when={when}+", only=only, memtable=0, turns=600)

    assert ran.injected
    assert ran.failure.startswith("failed:"), ran.said
    assert "table.db" in ran.failure
    assert ran.said.count("refused more") == 2, ran.said
    assert 0 < ran.durable < 600
    survives(tmp_path / "n1", ran.durable)


@needs_strace
@pytest.mark.parametrize("when", [1, 2, 3, 4, 5, 6, 8, 10, 13])
def test_a_disk_that_fails_during_an_open_is_refused_or_outlived(when: int, tmp_path: Path) -> None:
    """The n-th sync of each thread, whatever file it is of, fails from then on: one sentence, never a hang."""
    ran = run(tmp_path / "n1", inject=f"fdatasync,fsync:error=EIO:when={when}+", turns=8)

    assert ran.injected
    assert ran.failure or ran.said[-1] == "closed", ran.said
    assert "took more" not in ran.said
    survives(tmp_path / "n1", ran.durable)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    place = tmp_path / "tiny"
    place.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("only root may mount a tmpfs")
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_stops_the_node_and_loses_nothing(tiny_disk: Path) -> None:
    """A real full disk: the commit fails, the start fails while it is full, and with room all is there."""
    path = tiny_disk / "n1"
    durable = 0
    engine = SqliteEngine(path, "n1", "fsync", FLUSHING)
    with pytest.raises(StoreFailed, match="full") as failed:
        for turn in range(1, 5_000):
            engine.submit(turn, {b"k%04d" % turn: held(b"v" * 500, turn), b"last": held(b"%d" % turn, turn)})
            wait(engine, turn)
            durable = turn
    engine.close()
    assert "\n" not in str(failed.value)
    assert durable > 20

    filler = tiny_disk / "filler"
    with pytest.raises(OSError, match="No space"):
        filler.write_bytes(bytes(2_000_000))
    with pytest.raises(StoreFailed, match="cannot be opened"):
        SqliteEngine(path, "n1", "fsync", FLUSHING)
    subprocess.run(["mount", "-o", "remount,size=8m", str(tiny_disk)], check=True)
    survives(path, durable)
