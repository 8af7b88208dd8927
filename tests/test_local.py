"""The launcher: what `up` starts, `down` stops; faults by name; no stranger is ever touched."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import psutil
import pytest

from kvctl import processes
from kvctl.processes import Process
from tests.conftest import Kvctl, eventually


def pids(kvctl: Kvctl) -> dict[str, int]:
    """Node -> pid, as recorded."""
    files = kvctl.home.glob("clusters/local/*/pid.json")
    return {f.parent.name: msgspec.json.decode(f.read_bytes(), type=Process).pid for f in files}


def runs(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def faults(kvctl: Kvctl) -> list[dict[str, str | None]]:
    """What `fault ls` tells."""
    told: list[dict[str, str | None]] = kvctl("fault", "ls", "-o", "json").json["faults"]
    return told


def test_up_down_up_down_wipe(kvctl: Kvctl) -> None:
    """The life of a cluster: five nodes in under 5 s, data that stays, nothing left behind."""
    begun = time.monotonic()
    kvctl.up(5)
    took = time.monotonic() - begun
    assert took < 5 or (os.getloadavg()[0] > (os.cpu_count() or 1) and took < 20), f"{took:.1f} s"
    assert kvctl("put", "k", "v", "-w", "all").code == 0
    first = pids(kvctl)
    assert sorted(first) == ["n1", "n2", "n3", "n4", "n5"]
    assert all(os.getsid(pid) == pid for pid in first.values()), "each in a session of its own"

    assert kvctl("up").code == 0
    assert pids(kvctl) == first, "a running cluster is left alone"

    down = kvctl("down", "-o", "json").json
    assert down["stopped"] == sorted(first)
    assert not any(map(runs, first.values()))
    assert kvctl("get", "k").code == 3
    assert kvctl("down").code == 0, "down is idempotent"

    assert kvctl("up").code == 0
    assert kvctl("get", "k").out == b"v\n"
    second = pids(kvctl)
    assert kvctl("down", "--wipe", "--yes").code == 0
    assert not any(map(runs, second.values()))
    assert not (kvctl.home / "clusters" / "local").exists()


def test_faults_from_kill_to_wipe(kvctl: Kvctl) -> None:
    """Each is listed until it is over, and heals to a node that serves."""
    kvctl.up(3)
    assert kvctl("put", "k", "v", "-w", "all").code == 0
    before = pids(kvctl)

    killed = kvctl("fault", "kill", "n3", "-o", "json").json["faults"][0]
    assert (killed["id"], killed["target"], killed["kind"], killed["state"]) == ("f1", "n3", "kill", "ACTIVE")
    assert not runs(before["n3"])
    assert [f["id"] for f in faults(kvctl)] == ["f1"]
    assert kvctl("fault", "kill", "n3").code == 1, "it does not run"
    assert kvctl("fault", "restart", "n3").code == 0
    assert faults(kvctl) == []
    assert kvctl("put", "k", "v2", "-w", "all").code == 0

    assert kvctl("fault", "stop", "n2").code == 0
    assert kvctl("fault", "heal", "f2").code == 0
    assert pids(kvctl)["n2"] != before["n2"]

    assert kvctl("fault", "wipe", "n1", "--yes").code == 0
    assert not (kvctl.home / "clusters/local/n1/data").exists()
    assert faults(kvctl)[0]["kind"] == "wipe"
    assert kvctl("node", "start", "n1").code == 0
    assert faults(kvctl) == []
    assert kvctl("get", "k", "-r", "all").out == b"v2\n"

    assert kvctl("node", "stop", "n2").code == 0
    assert faults(kvctl) == [], "stopping a node is no fault"
    assert kvctl("node", "ls", "-o", "json").json["nodes"][1]["state"] == "down"
    assert kvctl("up").code == 0
    assert kvctl("node", "ls", "-o", "json").json["nodes"][1]["state"] == "down", (
        "up changes nothing on a running one"
    )


def test_a_pause_ends_by_itself_though_its_console_is_gone(kvctl: Kvctl) -> None:
    """SIGSTOP holds when `pause` returns; a detached timer ends it."""
    kvctl.up(3)
    pid = pids(kvctl)["n2"]

    paused = kvctl("fault", "pause", "n2", "--for", "2s", "-o", "json").json["faults"][0]

    assert psutil.Process(pid).status() == psutil.STATUS_STOPPED
    assert paused["state"] == "ACTIVE"
    assert paused["expires"] is not None
    assert eventually(lambda: psutil.Process(pid).status() != psutil.STATUS_STOPPED)
    assert eventually(lambda: faults(kvctl) == [])
    assert runs(pid)


def test_a_pause_can_be_healed_early_and_its_timer_goes_with_it(kvctl: Kvctl) -> None:
    """And what is down with `--for` comes back by itself."""
    kvctl.up(3)
    pid = pids(kvctl)["n2"]
    assert kvctl("fault", "pause", "n2").code == 0
    timer = json.loads((kvctl.home / "clusters/local/faults.json").read_bytes())["faults"][0]["timer"]["pid"]
    assert runs(timer)
    assert kvctl("fault", "heal", "--all").code == 0
    assert psutil.Process(pid).status() != psutil.STATUS_STOPPED
    assert not runs(timer)

    assert kvctl("fault", "kill", "n1", "--for", "500ms").code == 0
    assert eventually(lambda: runs(pids(kvctl)["n1"]))
    assert eventually(lambda: faults(kvctl) == [])


def test_down_ends_paused_nodes_and_timers(kvctl: Kvctl) -> None:
    """Nothing that `up` or a fault started is left."""
    kvctl.up(3)
    nodes = pids(kvctl)
    assert kvctl("fault", "pause", "n1", "--for", "60s").code == 0
    timer = json.loads((kvctl.home / "clusters/local/faults.json").read_bytes())["faults"][0]["timer"]["pid"]

    assert kvctl("down").code == 0

    assert not any(runs(pid) for pid in (*nodes.values(), timer))


def test_a_foreign_pid_is_never_signalled(kvctl: Kvctl) -> None:
    """A process that took over a node's pid is not the node."""
    kvctl.up(1)
    assert kvctl("down").code == 0
    with subprocess.Popen(["sleep", "60"]) as stranger:
        try:
            record = kvctl.home / "clusters/local/n1/pid.json"
            old = msgspec.json.decode(record.read_bytes(), type=Process)
            record.write_bytes(msgspec.json.encode(Process(stranger.pid, old.started)))

            assert kvctl("down").code == 0
            assert kvctl("fault", "kill", "n1").code == 1
            assert kvctl("fault", "wipe", "n1", "--yes").code == 0
            assert not processes.send(Process(stranger.pid, old.started), signal.SIGKILL)

            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_a_zombie_is_not_alive() -> None:
    """Its pid exists and its start time matches, but nothing runs there."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = Process(child.pid, processes._start_of(child.pid))
    assert processes.alive(process)
    child.kill()
    assert processes.gone_within(process, 5)
    assert not processes.send(process, signal.SIGTERM)
    child.communicate()


def test_a_port_in_use_is_told_before_anything_starts(kvctl: Kvctl) -> None:
    """With the port, and who has it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        ran = kvctl("up", "--nodes", "2", "--base-port", str(port - 1))

    assert ran.code == 1
    assert any(f"port {p} " in ran.errors for p in (port - 1, port)), "the first may be taken by others"
    assert pids(kvctl) == {}


def test_a_node_that_dies_while_starting_is_told_with_its_last_words(kvctl: Kvctl, tmp_path: Path) -> None:
    """And the nodes that did start are stopped again."""
    settings = tmp_path / "bad.toml"
    settings.write_text("deadline_ms = -1\n")

    ran = kvctl("up", "--nodes", "2", "--base-port", "18990", "--config", str(settings))

    assert ran.code == 1
    assert "n1" in ran.errors
    assert "deadline_ms" in ran.errors
    assert not any(map(runs, pids(kvctl).values()))


@pytest.mark.parametrize(
    "args",
    [("--nodes", "0"), ("-q", "100"), ("-n", "17"), ("--name", "../x"), ("--name", ""), ("--base-port", "70000"),
     ("--durability", "hope"), ("--config", "/no/such/file")],
    ids=" ".join,
)  # fmt: skip
def test_what_up_cannot_do_is_a_usage_error(kvctl: Kvctl, args: tuple[str, str]) -> None:
    """Before anything is started or written."""
    ran = kvctl("up", *args)
    assert ran.code == 2, ran.errors
    assert not list(kvctl.home.glob("clusters/*/cluster.json"))
