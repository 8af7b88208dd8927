"""Local clusters: directories under KVCTL_HOME, and the node processes that serve them.

Promises: what `up` started is what `down` stops, and nothing else; a node that dies while starting
is told with the last lines of its log. Never: signals a process that is not the recorded one.

    KVCTL_HOME/clusters/NAME/
        cluster.json     what to start: names, addresses, n, q, engine, durability
        faults.json      process faults and the timers that end them
        lock             held while anything here is changed
        n1/data/  n1/log  n1/stderr  n1/pid.json
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from kvctl import processes
from kvctl.endpoints import home
from kvctl.errors import Invalid, KvError
from kvctl.faultlog import FaultLog, read_faults, write_whole
from kvctl.processes import Process

STOP_S = 10.0
"""Longest a node may take to end after SIGTERM (it allows itself 5 s); SIGKILL follows."""
START_S = 20.0
"""Longest `up` waits for the nodes to agree."""
SURE_S = 3.0
"""...and for all of them to be sure of their data."""
LOOK_S = 0.02
LOG_LINES = 8


class LaunchFailed(KvError):
    """A local process could not be started, or did not stay."""


class NoSuchObject(KvError):
    """No cluster, node or fault of that name."""

    exit = 5


class NodeSpec(Struct, frozen=True):
    """A node to start."""

    name: str
    address: str
    joined: bool = False
    """Whether it came later (`kvctl node add`): it found no cluster, but asks to be let into this one."""
    host: str = ""
    """Copies are kept on different hosts; empty for a host of its own."""
    rack: str = ""
    weight: int = 1


class ClusterSpec(Struct, frozen=True, kw_only=True):
    """cluster.json: everything `up` needs to start the cluster again."""

    name: str
    nodes: list[NodeSpec]
    n: int
    q: int
    engine: str = "sqlite"
    durability: str = "fsync"
    allow_faults: bool = True
    """Whether its nodes let themselves be broken on purpose: they listen on loopback only."""
    config: str = ""
    """A file of settings for every node; empty for none."""
    founding: str = ""
    """The founding text, once one of the founders is gone; empty while all are here."""

    @property
    def bootstrap(self) -> str:
        """The founding text, the same on every founder, for ever."""
        return self.founding or ",".join(f"{n.name}={n.address}" for n in self.nodes if not n.joined)


class Cluster:
    """A local cluster. Changes are made under `changing()`."""

    def __init__(self, spec: ClusterSpec, path: Path | None = None) -> None:
        """`path`: its directory; that of its name in KVCTL_HOME unless told."""
        self.spec = spec
        self.path = path or cluster_path(spec.name)

    # ---- looking ---------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Its name."""
        return self.spec.name

    @property
    def addresses(self) -> list[str]:
        """Where its nodes listen."""
        return [node.address for node in self.spec.nodes]

    def node(self, name: str) -> NodeSpec:
        """A node by name. Raises `NoSuchObject`."""
        for node in self.spec.nodes:
            if node.name == name:
                return node
        names = ", ".join(node.name for node in self.spec.nodes)
        raise NoSuchObject(f"cluster {self.name} has no node {name}: it has {names}", "kvctl node ls")

    def directory(self, name: str) -> Path:
        """A node's directory."""
        return self.path / name

    def process(self, name: str) -> Process | None:
        """A node's process, if it runs (or is stopped by SIGSTOP)."""
        try:
            recorded = msgspec.json.decode((self.directory(name) / "pid.json").read_bytes(), type=Process)
        except (FileNotFoundError, msgspec.MsgspecError):
            return None
        return recorded if processes.alive(recorded) else None

    def running(self) -> list[str]:
        """The nodes that have a process."""
        return [node.name for node in self.spec.nodes if self.process(node.name) is not None]

    def faults(self) -> FaultLog:
        """The process faults, as they are now."""
        return read_faults(self.path / "faults.json")

    def last_words(self, name: str) -> str:
        """The last lines a node printed when it did not come to serving, else logged."""
        for file in ("stderr", "log"):
            try:
                lines = (self.directory(name) / file).read_text(errors="replace").splitlines()
            except FileNotFoundError:
                continue
            if lines:
                return "\n".join(lines[-LOG_LINES:])
        return "(it logged nothing)"

    # ---- changing --------------------------------------------------------------------------

    @contextmanager
    def changing(self) -> Iterator[FaultLog]:
        """Hold the cluster's lock; the faults are written back at the end, also after a failure."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            log = self.faults()
            try:
                yield log
            finally:
                if log != self.faults():
                    write_whole(self.path / "faults.json", log)

    def save(self) -> None:
        """Write cluster.json; from now on this is the last cluster brought up."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_whole(self.path / "cluster.json", self.spec)

    def start(self, name: str) -> Process:
        """Start a node that does not run. One that does is left alone."""
        spec, node = self.spec, self.node(name)
        running = self.process(name)
        if running is not None:
            return running
        directory = self.directory(name)
        directory.mkdir(parents=True, exist_ok=True)
        flags = {
            "--name": name, "--listen": node.address, "--data": str(directory / "data"), "--cluster": spec.name,
            "-n": str(spec.n), "-q": str(spec.q),
            "--engine": spec.engine, "--durability": spec.durability, "--log-file": str(directory / "log"),
        }  # fmt: skip
        if node.joined:
            flags["--join"] = ",".join(other.address for other in spec.nodes if other.name != name)
        else:
            flags["--bootstrap"] = spec.bootstrap
        labels = {"--host-label": node.host, "--rack": node.rack, "--weight": str(node.weight)}
        flags |= {flag: label for flag, label in labels.items() if label not in ("", "1")}
        if spec.config:
            flags["--config"] = spec.config
        command = [sys.executable, "-m", "kvnode", "run", *(word for flag in flags.items() for word in flag)]
        command += ["--allow-faults"] * spec.allow_faults
        process = processes.spawn(command, directory, directory / "stderr")
        write_whole(directory / "pid.json", process)
        return process

    def end(self, name: str) -> bool:
        """Stop a node with SIGTERM. False when it had to be killed."""
        process = self.process(name)
        return process is None or processes.end(process, STOP_S)

    def end_all(self) -> list[str]:
        """Stop every node at once, and the timers of its faults. Returns the nodes that were stopped."""
        with self.changing() as log:
            for fault in log.faults:
                if fault.timer is not None:
                    processes.send(fault.timer, signal.SIGKILL)
            log.faults = []
            running = {node.name: process for node in self.spec.nodes if (process := self.process(node.name))}
            for process in running.values():
                processes.send(process, signal.SIGTERM)
                processes.send(process, signal.SIGCONT)
            deadline = time.monotonic() + STOP_S
            for process in running.values():
                if not processes.gone_within(process, max(0.0, deadline - time.monotonic())):
                    processes.kill(process)
            return list(running)

    def remove(self) -> None:
        """Delete the cluster's directory. Its nodes must have ended."""
        assert not self.running()
        shutil.rmtree(self.path)

    # ---- starting all ----------------------------------------------------------------------

    def start_all(self, *, wait: bool) -> None:
        """Start every node; if one dies while starting, stop the others again. Raises `LaunchFailed`."""
        check_ports(self.addresses)
        try:
            with self.changing() as log:
                log.faults = []
                self.save()
                started = {node.name: self.start(node.name) for node in self.spec.nodes}
            if wait:
                self.wait_agreed(started)
                self.wait_sure()
        except BaseException:
            self.end_all()
            raise

    def wait_agreed(self, started: dict[str, Process]) -> None:
        """Until each node has seen all of them answer with one epoch. Raises `LaunchFailed`."""
        deadline = time.monotonic() + START_S
        for node in list(self.spec.nodes):
            if node.name in started:
                self.wait_sees(node.name, set(started), started, deadline)

    def wait_sure(self) -> None:
        """Until every node counts for `quorum` reads: new ones are vouched for by the others first.

        No longer than `SURE_S`: one that lost its disk takes as long as it takes.
        """
        from kvctl.client import Client

        deadline = time.monotonic() + SURE_S
        while time.monotonic() < deadline:
            with suppress(KvError), Client(",".join(self.addresses)) as client:
                if not any(r.recovering for r in client.status(0.5).reports if r is not None):
                    return
            time.sleep(LOOK_S)

    def _let_go(self, name: str) -> None:
        """A node ended while starting: that is right if it is no member any more. Raises `LaunchFailed`."""
        deadline = time.monotonic() + SURE_S
        while time.monotonic() < deadline and (others := self.running()):
            with suppress(KvError):
                if name in self.former([node.address for node in self.spec.nodes if node.name in others]):
                    return self.forget(name)
                break
            time.sleep(LOOK_S)
        raise LaunchFailed(f"{name} ended while starting. Its last words:\n{self.last_words(name)}")

    def former(self, addresses: list[str] | None = None) -> set[str]:
        """Who was a member once and is none any more. Raises `NoEndpoint` where nobody answers."""
        from kvctl.client import Client

        with Client(",".join(addresses or self.addresses)) as client:
            return {str(member.id) for member in client.ring().removed}

    def forget(self, name: str) -> None:
        """Take a node that has left the cluster, and ended, out of what `up` starts. Its data stays."""
        assert self.process(name) is None
        with self.changing():
            nodes = [node for node in self.spec.nodes if node.name != name]
            self.spec = msgspec.structs.replace(self.spec, nodes=nodes, founding=self.spec.bootstrap)
            self.save()

    def wait_serves(self, name: str, process: Process) -> None:
        """Until a node that was just started reaches all others that run. Raises `LaunchFailed`."""
        held = {n for n in self.running() if (p := self.process(n)) and processes.stopped(p)}
        others = set(self.running()) - held
        self.wait_sees(name, others | {name}, {name: process}, time.monotonic() + START_S)
        if all(node.name != name for node in self.spec.nodes):
            raise LaunchFailed(f"{name} has left the cluster, and never returns under this name", "kvctl node add")

    def wait_sees(self, name: str, wanted: set[str], started: dict[str, Process], deadline: float) -> None:
        """Until this node reports what all of `wanted` report, on one epoch. Raises `LaunchFailed`.

        Those that ended because they have left the cluster are forgotten, and taken out of `started`.
        """
        from kvctl.client import Client
        from kvctl.shape import known

        while True:
            for each, process in list(started.items()):
                if not processes.alive(process):
                    self._let_go(each)
                    del started[each]
            if name not in started:
                return
            with suppress(KvError), Client(self.node(name).address) as client:
                told = client.status(0.5)
                reports = {str(r.id): r.epoch for _, r in known(told) if r is not None}
                gone = {str(former.id) for former in told.ring.removed} - {name}
                if wanted <= reports.keys() | gone and len(set(reports.values())) == 1:
                    return
            if time.monotonic() > deadline:
                raise LaunchFailed(
                    f"{name} did not see {', '.join(sorted(wanted))} within {START_S:.0f} s",
                    f"see {self.path}/*/log",
                )


def cluster_path(name: str) -> Path:
    """The directory of a cluster."""
    return home().absolute() / "clusters" / name


def load(name: str) -> Cluster:
    """A cluster that was brought up before. Raises `NoSuchObject`, `Invalid`."""
    path = cluster_path(name) / "cluster.json"
    try:
        return Cluster(msgspec.json.decode(path.read_bytes(), type=ClusterSpec))
    except (FileNotFoundError, NotADirectoryError):
        raise NoSuchObject(f"no local cluster is called {name}", "kvctl up") from None
    except msgspec.MsgspecError as error:
        raise Invalid(f"{path} is damaged: {error}", "move it away and run kvctl up again") from error


def names() -> list[str]:
    """Every local cluster, the one brought up last at the end."""
    files = (home() / "clusters").glob("*/cluster.json")
    return [file.parent.name for file in sorted(files, key=lambda f: f.stat().st_mtime)]


def check_ports(addresses: list[str]) -> None:
    """Refuse to start where something else listens. Raises `LaunchFailed`."""
    for address in addresses:
        host, _, port = address.rpartition(":")
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, int(port)))
            except OSError as error:
                raise LaunchFailed(
                    f"port {port} cannot be used: {os.strerror(error.errno or 0)}{_holder(int(port))}",
                    "kvctl up --base-port PORT, or end what listens there",
                ) from error


def _holder(port: int) -> str:
    """Who listens on a port, as far as we may know."""
    import psutil

    with suppress(psutil.Error):
        for entry in psutil.net_connections("tcp"):
            if entry.laddr and entry.laddr[1] == port and entry.status == psutil.CONN_LISTEN and entry.pid:
                return f" (pid {entry.pid}, {psutil.Process(entry.pid).name()}, listens there)"
    return ""
