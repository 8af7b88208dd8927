"""An operator by hand: real node processes, started and killed, and what an operator says to one of them.

Promises: ports of the operating system's choice; every process started here ends with the test.
Never: waits without a deadline.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import zmq

from kvnode.protocol import messages as m
from kvnode.protocol.codec import CLIENT, PROTOCOL_VERSION, Greeting, Reader, encode_batches, encode_greeting
from kvnode.protocol.types import NodeId
from tests.conftest import SPARE, eventually
from tests.procs import free_ports

M = TypeVar("M")


class Processes:
    """Node processes on this machine."""

    def __init__(self, path: Path, settings: str = "") -> None:
        self.path = path
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.addresses: dict[str, str] = {}
        self._flags: dict[str, list[str]] = {}
        self._config = path / "settings.toml"
        self._config.write_text(settings)

    def found(self, count: int, q: int = 64) -> None:
        """A cluster of so many, n1 first."""
        addresses = [f"127.0.0.1:{port}" for port in free_ports(count + SPARE)]
        self._spare = addresses[count:]
        self.addresses = {f"n{i + 1}": address for i, address in enumerate(addresses[:count])}
        text = ",".join(f"{name}={address}" for name, address in self.addresses.items())
        for name in self.addresses:
            self._flags[name] = ["--bootstrap", text, "-q", str(q)]
            self.start(name)

    def join(self, name: str, *flags: str, by: str = "") -> subprocess.Popen[bytes]:
        """One more, outside."""
        self.addresses[name] = self._spare.pop(0)
        self._flags[name] = ["--join", by or self.addresses["n1"], *flags]
        return self.start(name)

    def start(self, name: str, *flags: str) -> subprocess.Popen[bytes]:
        """Start a node, for the first time or again."""
        command = [
            sys.executable, "-m", "kvnode", "run", "--name", name, "--listen", self.addresses[name],
            "--data", str(self.path / name), "--config", str(self._config), *self._flags[name], *flags,
        ]  # fmt: skip
        log = (self.path / f"{name}.log").open("ab")
        self.running[name] = subprocess.Popen(command, stdout=log, stderr=log)
        log.close()
        return self.running[name]

    def kill(self, name: str) -> None:
        """SIGKILL."""
        self.running[name].kill()
        self.running.pop(name).wait(10)

    def log(self, name: str) -> str:
        """What a node had to say."""
        return (self.path / f"{name}.log").read_text()

    def end(self) -> None:
        """End all of them."""
        for process in self.running.values():
            process.send_signal(signal.SIGTERM)
        for process in self.running.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


class Operator:
    """Says one thing at a time to one node."""

    def __init__(self, address: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.connect(f"tcp://{address}")
        self._prefix = encode_greeting(Greeting(PROTOCOL_VERSION, 0, CLIENT, "", 0))
        self._reader = Reader()
        self._rid = 0

    def rid(self) -> int:
        """The next request id."""
        self._rid += 1
        return self._rid

    def ask(self, message: m.ClientRequest, kind: type[M], seconds: float = 15.0) -> M:
        """What it answers; an error if it says something else, or nothing."""
        for frame in encode_batches(self._prefix, [message]):
            self._socket.send(frame)
        deadline = time.monotonic() + seconds
        while self._socket.poll(max(0, (deadline - time.monotonic()) * 1_000)):
            read = self._reader.read(self._socket.recv())
            for told in read.messages if read is not None else ():
                if getattr(told, "rid", 0) == message.rid:
                    assert isinstance(told, kind), f"{message} was answered by {told}"
                    return told
        raise AssertionError(f"{message} was not answered")

    def status(self) -> m.ClusterReport:
        """What all nodes say of themselves."""
        return self.ask(m.Status(self.rid(), 2_000), m.ClusterReport)

    def knows(self, name: str) -> bool:
        """Whether a node outside is known."""
        return any(one.member.id == name for one in self.status().outside)

    def stage(self, kind: m.ChangeKind, node: str, new: str = "") -> m.StagedNow:
        """Stage a change."""
        return self.ask(m.StageChange(self.rid(), kind, NodeId(node), new), m.StagedNow)

    def commit(self) -> m.Committed:
        """Plan what is staged, and commit it."""
        plan = self.ask(m.AskPlan(self.rid()), m.Planned).plan
        assert not plan.problem, plan.problem
        return self.ask(m.CommitPlan(self.rid(), plan.id, 10_000), m.Committed)

    def settled(self, members: set[str]) -> bool:
        """Whether these are the members, all on one epoch, with nothing pending and nothing left over."""
        told = self.status()
        reports = told.reports
        if {member.id for member in told.ring.members} != members or told.ring.moves or told.ring.leaving:
            return False
        return all(
            r is not None and r.epoch == told.ring.epoch and not (r.moves and r.moves.dropping) for r in reports
        )

    def wait_settled(self, members: set[str], seconds: float = 60.0) -> None:
        """Until that is so."""
        assert eventually(lambda: self.settled(members), seconds), self.status()

    def close(self) -> None:
        """Hang up."""
        self._socket.close(0)
        self._context.term()


def processes(path: Path, settings: str = "") -> Iterator[Processes]:
    """For a fixture."""
    started = Processes(path, settings)
    try:
        yield started
    finally:
        started.end()
