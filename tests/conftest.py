"""Fixtures of the command line: real clusters by the real `kvctl up`, in homes of their own.

Whatever a test leaves running is ended at the end of its module, and once more at the end of the
session: only processes that are recorded in these homes, by pid and start time.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from kvctl import processes
from tests.procs import free_ports

COMMAND_S = 60
SPARE = 4
"""Ports after those of a cluster, for nodes that are added."""
HOMES: list[Path] = []

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A job that a shell runs in the background has Ctrl-C ignored, and so would all that the tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Ran(NamedTuple):
    """A command that has run."""

    code: int
    out: bytes
    err: bytes

    @property
    def text(self) -> str:
        """Its stdout."""
        return self.out.decode("utf-8", "surrogateescape")

    @property
    def errors(self) -> str:
        """Its stderr."""
        return self.err.decode("utf-8", "surrogateescape")

    @property
    def json(self) -> Any:
        """Its stdout, which is one JSON value."""
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        """The error object on its stderr, which is the last line there."""
        return json.loads(self.err.splitlines()[-1])


class Kvctl:
    """`kvctl` with a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        HOMES.append(home)
        hidden = ("KVCTL_", "NO_COLOR", "FORCE_COLOR")
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(hidden)} | {"KVCTL_HOME": str(home)}

    def __call__(self, *args: str | bytes, stdin: bytes = b"", **env: str) -> Ran:
        """Run it as a process."""
        done = subprocess.run(
            [sys.executable, "-m", "kvctl", *args],
            env=self.env | env,
            input=stdin,
            capture_output=True,
            timeout=COMMAND_S,
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def up(self, nodes: int = 3, *flags: str) -> Ran:
        """A cluster on ports that nobody else gets, with some to spare for nodes that are added."""
        first = free_ports(nodes + SPARE, in_a_row=True)[0]
        ran = self("up", "--nodes", str(nodes), "--base-port", str(first), *flags)
        assert ran.code == 0, ran.errors
        return ran

    def end(self) -> None:
        """End every process recorded in this home, and nothing else."""
        for record in (*self.home.glob("clusters/*/*/pid.json"),):
            processes.kill(msgspec.json.decode(record.read_bytes(), type=processes.Process))
        for log in self.home.glob("clusters/*/faults.json"):
            for fault in json.loads(log.read_bytes())["faults"]:
                if fault["timer"] is not None:
                    processes.kill(processes.Process(**fault["timer"]))


def eventually(holds: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Poll until something is so. False when it does not come."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def kvctl(tmp_path: Path) -> Iterator[Kvctl]:
    """`kvctl` with an empty home."""
    shell = Kvctl(tmp_path / "home")
    yield shell
    shell.end()


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kvctl]:
    """A cluster of three nodes for a whole module: each key lives on all of them."""
    shell = Kvctl(tmp_path_factory.mktemp("three") / "home")
    try:
        shell.up(3)
        yield shell
    finally:
        shell.end()


def pytest_sessionfinish() -> None:
    """Should a fixture not have come to its end: the same, for all homes."""
    for home in tuple(HOMES):
        Kvctl(home).end()
