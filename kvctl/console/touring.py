"""A story of `kvctl demo`, told by a process of its own while the console shows its cluster.

Promises: the story runs as it would alone, and its exit code is ours; what it says is on the last line and
among the events; it is printed whole when the console is left. Never: leaves its cluster behind.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from kvctl.errors import KvError

START_S = 30.0
LOOK_S = 0.1
END_S = 30.0


class Tour:
    """The process, and what it has said."""

    def __init__(self, name: str) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="kvctl-tour-"))
        self.home = self.directory / "home"
        self.home.mkdir()
        self._log = self.directory / "said"
        env = os.environ | {"KVCTL_DEMO_HOME": str(self.home), "COLUMNS": "110", "PYTHONUNBUFFERED": "1"}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 -- our own command
                [sys.executable, "-m", "kvctl", "demo", name], env=env, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
        self._read = 0

    def addresses(self) -> list[str]:
        """Where its nodes listen, once they do. Raises `KvError`."""
        import msgspec

        from kvctl.local import ClusterSpec

        path = self.home / "clusters" / "local" / "cluster.json"
        deadline = time.monotonic() + START_S
        while not path.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise KvError(f"the story did not begin:\n{self._log.read_text(errors='replace')[-500:]}")
            time.sleep(LOOK_S)
        return [node.address for node in msgspec.json.decode(path.read_bytes(), type=ClusterSpec).nodes]

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def news(self) -> Iterator[str]:
        """The whole lines it has said since the last time."""
        with self._log.open("rb") as log:
            log.seek(self._read)
            raw = log.read()
        whole = raw[: raw.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.decode("utf-8", "replace").splitlines():
            if line.strip():
                yield line.rstrip()

    def finish(self) -> int:
        """Print all of it, up to its end. Its exit code."""
        printed = 0
        while True:
            over = self.over
            with self._log.open("rb") as log:
                log.seek(printed)
                raw = log.read()
            sys.stdout.write(raw.decode("utf-8", "replace"))
            sys.stdout.flush()
            printed += len(raw)
            if over:
                return self._process.wait()
            time.sleep(LOOK_S)

    def close(self) -> None:
        """End it as Ctrl-C would, so that it takes its cluster with it."""
        if not self.over:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


def watch(name: str) -> int:
    """Tell a story while the console shows it. The story's exit code."""
    from kvctl.console.actions import Runner
    from kvctl.console.app import Console
    from kvctl.console.asking import Asker
    from kvctl.console.feeds import Live
    from kvctl.console.sampler import Looker, Sampler
    from kvctl.local import load

    tour = Tour(name)
    try:
        addresses = tour.addresses()
        os.environ["KVCTL_HOME"] = str(tour.home)
        where = ",".join(addresses)
        feed = Live(Sampler(Looker(addresses, load("local"))))
        app = Console(
            feed, readonly=True, runner=Runner(where), asker=Asker(where), cluster=load("local"), tour=tour
        )
        app.run()
        if app.crash is not None:
            raise app.crash
        return tour.finish()
    finally:
        tour.close()
