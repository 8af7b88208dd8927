"""Real kvnode processes for tests: ports from the OS, every process ended, also on failure."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from kvctl import Client, KvError
from kvctl.reserve import Reservation

START_S = 15.0


RESERVED: list[Reservation] = []
"""To the end of the session: a node that was killed wants its port again."""


def free_ports(count: int, *, in_a_row: bool = False) -> list[int]:
    """Ports that are free, and nobody else's as long as the tests run."""
    RESERVED.append(Reservation(count, in_a_row=in_a_row))
    return RESERVED[-1].ports


class Cluster:
    """Nodes n1..nK on loopback, data under one directory."""

    def __init__(self, home: Path, nodes: int = 3, *flags: str) -> None:
        self.home = home
        self.names = [f"n{i + 1}" for i in range(nodes)]
        self.addresses = dict(zip(self.names, (f"127.0.0.1:{port}" for port in free_ports(nodes)), strict=True))
        self._flags = flags
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        try:
            for name in self.names:
                self.start(name)
            self.wait_up(sure=True)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def endpoints(self) -> str:
        """Where to connect."""
        return ",".join(self.addresses.values())

    def client(self, timeout: float = 2.0) -> Client:
        """A client of all nodes."""
        return Client(self.endpoints, timeout)

    def start(self, name: str, *, wrap: tuple[str, ...] = ()) -> None:
        """Start a node that is not running."""
        bootstrap = ",".join(f"{n}={a}" for n, a in self.addresses.items())
        with (self.home / f"{name}.log").open("ab") as log:
            node = [sys.executable, "-m", "kvnode", "run", "--name", name, "--listen", self.addresses[name]]
            rest = ["--bootstrap", bootstrap, "--data", str(self.home / name), *self._flags]
            self.processes[name] = subprocess.Popen([*wrap, *node, *rest], stdout=log, stderr=log)

    def kill(self, name: str) -> None:
        """SIGKILL, and reap."""
        self.processes[name].kill()
        self.processes[name].wait()

    def stop(self, name: str) -> int:
        """SIGTERM; its exit code."""
        self.processes[name].send_signal(signal.SIGTERM)
        return self.processes[name].wait(START_S)

    def running(self) -> list[str]:
        """The nodes whose process lives."""
        return [name for name, process in self.processes.items() if process.poll() is None]

    def log(self, name: str) -> str:
        """What a node printed."""
        return (self.home / f"{name}.log").read_text(errors="replace")

    def wait_up(self, names: list[str] | None = None, *, sure: bool = False) -> None:
        """Until these nodes (all) answer a status, can reach each other, and count for quorum reads if `sure`."""
        wanted = set(names or self.names)
        deadline = time.monotonic() + START_S
        while True:
            try:
                with self.client() as client:
                    reports = [r for r in client.status().reports if r is not None]
                    up = {r.id for r in reports}
                    ours = [r for r in reports if r.id in wanted]
                    unsure = sure and any(r.recovering for r in ours)
                    if wanted <= up and not unsure and not any(set(r.avoided) & wanted for r in ours):
                        return
            except KvError:
                pass
            for name in wanted:
                code = self.processes[name].poll()
                assert code is None, f"{name} ended with {code}: {self.log(name)[-2000:]}"
            assert time.monotonic() < deadline, f"not up: {wanted}; logs under {self.home}"

    def close(self) -> None:
        """End every process that was started."""
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
        for process in self.processes.values():
            process.wait()
