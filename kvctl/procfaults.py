"""Process faults on a local cluster: kill, stop, pause, wipe, restart, heal, and the timers that end them.

Promises: a fault with an end is ended by a detached process, started before the fault itself, so
that a console which dies strands no node. Never: works on a node that `kvctl up` did not start.

    pause n3 --for 10s:   record PENDING ─► timer process ─► SIGSTOP, seen to hold ─► record ACTIVE
    10 s later, in the timer:  lock ─► still recorded? ─► heal (SIGCONT, or start the node)

One process fault a node: a newer one takes the place of an older one, with its timer.
"""

from __future__ import annotations

import signal
import sys
import time

import msgspec

from kvctl import processes
from kvctl.endpoints import home
from kvctl.faultlog import ACTIVE, Fault, FaultLog, write_whole
from kvctl.local import Cluster, LaunchFailed
from kvctl.processes import Process

KINDS = ("kill", "stop", "wipe", "pause")
OBEYS_S = 5.0
"""Longest a process may take to be seen stopped."""


def inflict(cluster: Cluster, target: str, kind: str, for_s: float | None) -> Fault:
    """Do this to a node. Raises `LaunchFailed` when the node does not run, or does not obey."""
    assert kind in KINDS
    cluster.node(target)
    with cluster.changing() as log:
        process = cluster.process(target)
        if process is None and kind != "wipe":
            raise LaunchFailed(f"{target} does not run", f"kvctl fault restart {target}")
        for old in log.of(target):
            _forget(log, old)
        now = time.time_ns() // 1_000_000
        fault = log.add(target, kind, now, None if for_s is None else now + int(for_s * 1000))
        if for_s is not None:
            # The record first: the timer looks for it, and a console may die between any two lines.
            write_whole(cluster.path / "faults.json", log)
            fault = log.put(msgspec.structs.replace(fault, timer=_timer(cluster, fault, for_s)))
        try:
            _apply(cluster, target, kind, process)
        except BaseException:
            _forget(log, fault)
            raise
        return log.put(msgspec.structs.replace(fault, state=ACTIVE))


def restart(cluster: Cluster, target: str) -> Process:
    """Stop a node that runs, and start it; whatever fault it had is over."""
    cluster.node(target)
    with cluster.changing() as log:
        for old in log.of(target):
            _forget(log, old)
        cluster.end(target)
        return cluster.start(target)


def start(cluster: Cluster, target: str) -> Process:
    """Start a node that does not run, or let a paused one go on."""
    cluster.node(target)
    with cluster.changing() as log:
        for old in log.of(target):
            _forget(log, old)
        process = cluster.start(target)
        processes.send(process, signal.SIGCONT)
        return process


def stop(cluster: Cluster, target: str) -> bool:
    """Stop a node as an operator does, which is no fault. False when it had to be killed."""
    cluster.node(target)
    with cluster.changing() as log:
        for old in log.of(target):
            _forget(log, old)
        return cluster.end(target)


def heal(cluster: Cluster, fault_id: str, *, own_timer: bool = False) -> bool:
    """End a fault. False when it is over already. `own_timer`: its timer is who asks."""
    with cluster.changing() as log:
        fault = next((f for f in log.faults if f.id == fault_id), None)
        if fault is None:
            return False
        if own_timer:
            log.drop(fault)
        else:
            _forget(log, fault)
        process = cluster.start(fault.target)
        processes.send(process, signal.SIGCONT)
        return True


def heal_all(cluster: Cluster) -> list[Fault]:
    """End every fault."""
    return [fault for fault in cluster.faults().faults if heal(cluster, fault.id)]


def _apply(cluster: Cluster, target: str, kind: str, process: Process | None) -> None:
    match kind:
        case "kill":
            assert process is not None
            processes.kill(process)
        case "stop":
            cluster.end(target)
        case "wipe":
            if process is not None:
                processes.kill(process)
            _remove_data(cluster, target)
        case "pause":
            assert process is not None
            processes.send(process, signal.SIGSTOP)
            deadline = time.monotonic() + OBEYS_S
            while not processes.stopped(process):
                if not processes.alive(process) or time.monotonic() > deadline:
                    raise LaunchFailed(f"{target} was not seen to stop")
                time.sleep(processes.POLL_S)
        case _:
            raise AssertionError(kind)


def _remove_data(cluster: Cluster, target: str) -> None:
    import shutil

    data = cluster.directory(target) / "data"
    if data.exists():
        shutil.rmtree(data)


def _forget(log: FaultLog, fault: Fault) -> None:
    """Drop a fault, and the timer that would end it."""
    if fault.timer is not None:
        processes.send(fault.timer, signal.SIGKILL)
    log.drop(fault)


# ---- the timer process ---------------------------------------------------------------------


def _timer(cluster: Cluster, fault: Fault, for_s: float) -> Process:
    command = [sys.executable, "-m", "kvctl.procfaults", cluster.name, fault.id, str(for_s)]
    return processes.spawn([*command, str(home().absolute())], cluster.path, cluster.path / f"{fault.id}.timer")


def main(argv: list[str]) -> None:
    """What the detached process does: sleep, then heal that fault if it is still there."""
    import os

    from kvctl.local import load

    name, fault_id, for_s, root = argv
    time.sleep(float(for_s))
    os.environ["KVCTL_HOME"] = root
    cluster = load(name)
    (cluster.path / f"{fault_id}.timer").unlink(missing_ok=True)
    heal(cluster, fault_id, own_timer=True)


if __name__ == "__main__":
    main(sys.argv[1:])
