"""The processes a scenario may break: those of a cluster of its own, or of one that `kvctl up` started.

Promises: a cluster of a scenario's own is gone when it is over, however it ends: a warden outlives this
process. On a cluster of `kvctl up` each process fault is one of `kvctl fault`, with its own timer.
Never: touches a process that was not started for this, or by `kvctl up`.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kvctl import processes, procfaults
from kvctl.errors import KvError
from kvctl.local import STOP_S, Cluster, ClusterSpec, LaunchFailed, NodeSpec
from kvctl.reserve import HOST, Reservation

NAME, Q = "scenario", 64
MARGIN_S = 30.0
"""How much later than the scenario the timer of a process fault would end it."""


class Machines:
    """The processes of a cluster of one's own."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._killed_at: dict[str, float] = {}
        """Those told to end, and when that will be asked for no longer."""

    def running(self, name: str) -> bool:
        """Whether a node has a process, be it a paused one."""
        return self.cluster.process(name) is not None

    def strike(self, name: str, kind: str, for_s: float) -> bool:
        """Do this to a node. False when there was nothing to do it to."""
        process = self.cluster.process(name)
        if process is None and kind != "wipe":
            return False
        if process is not None:
            match kind:
                case "pause":
                    processes.send(process, signal.SIGSTOP)
                case "stop":
                    processes.send(process, signal.SIGTERM)
                    processes.send(process, signal.SIGCONT)
                    self._killed_at[name] = time.monotonic() + STOP_S
                case "kill":
                    # Not waited for: several may be meant to go in one moment.
                    processes.send(process, signal.SIGKILL)
                    self._killed_at[name] = time.monotonic() + STOP_S
                case _:
                    processes.kill(process)
        if kind == "wipe":
            shutil.rmtree(self.cluster.directory(name) / "data", ignore_errors=True)
        return True

    def rise(self, name: str) -> bool:
        """Have a node run again. False while it is still ending: ask again."""
        process = self.cluster.process(name)
        at = self._killed_at.get(name)
        if process is not None and at is not None:
            if time.monotonic() < at:
                return False
            processes.kill(process)
        self._killed_at.pop(name, None)
        processes.send(self.cluster.start(name), signal.SIGCONT)
        return True

    def mend(self) -> None:
        """Nothing more to undo: whoever is down is started by `rise`."""


class GuardedMachines(Machines):
    """Those of a cluster of `kvctl up`: every fault is listed, and ends though this console be dead."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self._faults: dict[str, str] = {}

    def strike(self, name: str, kind: str, for_s: float) -> bool:
        """As `kvctl fault` does."""
        try:
            self._faults[name] = procfaults.inflict(self.cluster, name, kind, for_s + MARGIN_S).id
        except LaunchFailed:
            return False
        return True

    def rise(self, name: str) -> bool:
        """End its fault; start it, where it ended by a fault inside it."""
        fault = self._faults.pop(name, None)
        if fault is not None:
            procfaults.heal(self.cluster, fault)
        elif not self.running(name):
            procfaults.start(self.cluster, name)
        return True

    def mend(self) -> None:
        """End every fault of this scenario."""
        for name in list(self._faults):
            self.rise(name)


# ---- a cluster of one's own ----------------------------------------------------------------


class Kept(list[str]):
    """Why the directory is kept; empty: it is removed."""


@contextmanager
def own_cluster(nodes: int, n: int, settings: str) -> Iterator[tuple[Cluster, Kept]]:
    """A cluster in a temporary directory, on ports the system chose; `settings`: a TOML text for its nodes."""
    reserved = Reservation(nodes)
    root, kept = Path(tempfile.mkdtemp(prefix="kvctl-scenario-")), Kept()
    (root / "settings.toml").write_text(settings)
    warden = _warden(root)
    cluster: Cluster | None = None
    try:
        specs = [NodeSpec(f"n{i + 1}", f"{HOST}:{port}") for i, port in enumerate(reserved.ports)]
        spec = ClusterSpec(name=NAME, nodes=specs, n=n, q=Q, config=str(root / "settings.toml"))
        cluster = Cluster(spec, root)
        cluster.start_all(wait=True)
        yield cluster, kept
    finally:
        if cluster is not None:
            cluster.end_all()
        _sweep(root)
        assert warden.stdin is not None
        warden.stdin.write(b"done")
        warden.stdin.close()
        warden.wait()
        reserved.close()
        if not kept:
            shutil.rmtree(root, ignore_errors=True)


def _sweep(root: Path) -> None:
    """End what still runs in this directory: an interrupt may strike before a process is recorded."""
    import psutil

    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if any(word.startswith(f"{root}/") for word in process.cmdline()):
                process.kill()


def _warden(root: Path) -> subprocess.Popen[bytes]:
    """A process that waits for the end of this one, and then does what it could not do any more."""
    command = [sys.executable, "-m", "kvctl.scenarios.machines", str(root)]
    return subprocess.Popen(  # noqa: S603 -- our own command line
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def main(root: Path) -> None:
    """The warden: when its stdin ends without a word, the cluster of this directory is to go."""
    import msgspec

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if sys.stdin.buffer.read():
        return
    with suppress(FileNotFoundError, msgspec.MsgspecError, KvError):
        spec = msgspec.json.decode((root / "cluster.json").read_bytes(), type=ClusterSpec)
        Cluster(spec, root).end_all()
    _sweep(root)
    shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
