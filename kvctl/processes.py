"""Processes by pid, without ever touching a stranger's.

Promises: a signal goes only to the very process that was recorded: its pid exists, it started when
the record says, and it is no zombie. Never: kills by name, or by a pid alone.

A pid is reused after a while; pid and start time together are not. On Linux the start is counted in
ticks since boot, which no clock step can move (`psutil.create_time` is wall time there: after a step
every node would look like a stranger). The check and the signal go through one pidfd, so the process
cannot be replaced in between.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

POLL_S = 0.01


class Process(Struct, frozen=True):
    """A process as it was when it was started."""

    pid: int
    started: str
    """The boot of the machine and the tick of the start; where there is no /proc, the wall time."""


def spawn(command: list[str], cwd: Path, stderr: Path) -> Process:
    """Start a process in a session of its own, so that neither Ctrl-C nor a hang-up here reaches it."""
    with stderr.open("wb") as sink:
        child = subprocess.Popen(  # noqa: S603 -- our own command line
            command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True
        )
    started = _start_of(child.pid)
    # It is meant to outlive us. Should it end first, `_status` reaps it.
    child.returncode = 0
    return Process(child.pid, started)


def alive(process: Process) -> bool:
    """Whether this very process runs, or is stopped."""
    return _start_of(process.pid) == process.started and _status(process.pid) not in ("zombie", "dead")


def stopped(process: Process) -> bool:
    """Whether it is there and SIGSTOP holds it."""
    return alive(process) and _status(process.pid) in ("stopped", "tracing-stop")


def send(process: Process, number: signal.Signals) -> bool:
    """Signal this very process. False when it is gone."""
    if not alive(process):
        return False
    opener = getattr(os, "pidfd_open", None)
    if opener is None:
        os.kill(process.pid, number)
        return True
    try:
        handle = opener(process.pid)
    except ProcessLookupError:
        return False
    try:
        # Checked again, now that the handle pins it.
        if not alive(process):
            return False
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True


def gone_within(process: Process, seconds: float) -> bool:
    """Wait until it is gone. False when the time is up."""
    deadline = time.monotonic() + seconds
    while alive(process):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def end(process: Process, patience_s: float) -> bool:
    """SIGTERM, and after a while SIGKILL. False when it had to be killed."""
    if send(process, signal.SIGTERM):
        send(process, signal.SIGCONT)
        if not gone_within(process, patience_s):
            kill(process)
            return False
    return True


def kill(process: Process) -> None:
    """SIGKILL, and wait until it is gone."""
    send(process, signal.SIGKILL)
    gone_within(process, 10.0)


def _start_of(pid: int) -> str:
    """When a process started, empty when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except FileNotFoundError:
        return "" if Path("/proc/self/stat").exists() else _start_elsewhere(pid)
    except (ProcessLookupError, PermissionError):
        return ""
    # The name in parentheses may hold anything; the fields are counted from its end.
    return f"{boot}/{stat.rpartition(b')')[2].split()[19].decode()}"


def _start_elsewhere(pid: int) -> str:
    import psutil

    try:
        return f"{psutil.Process(pid).create_time():.2f}"
    except psutil.Error:
        return ""


def _status(pid: int) -> str:
    import psutil

    try:
        status = str(psutil.Process(pid).status())
    except psutil.Error:
        return "dead"
    if status == "zombie":
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    return status
