"""Scenarios on real processes: judged as in the simulator, planted bugs found there too, nothing left behind.

The runs are short; `kvctl scenario run NAME --on cluster` runs the shipped ones.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

import kvnode
from kvctl import processes
from kvctl.local import Cluster, ClusterSpec, NodeSpec
from kvctl.scenarios.live import LiveClients
from kvctl.session import Session
from kvnode.protocol import messages as m
from kvnode.protocol.types import NodeId
from kvnode.sim.client import Call, Context
from kvnode.sim.history import Outcome
from tests.procs import free_ports
from tests.test_session import RING, owners, session
from tests.test_session import sent as said

CHAOS = """
about = "Some of everything, on three nodes"
nodes = 3
seconds = 7
quiet = 1
[workload]
rate = 150
clients = 12
keys = 12
timeout = "1s"
[[fault]]
at = "200ms"
kind = "kill"
node = "n1"
for = "1s"
[[fault]]
at = "1s"
kind = "partition"
from = "n2"
for = "1s"
[[fault]]
at = "2s"
kind = "full-disk"
node = "n3"
for = "800ms"
[[fault]]
at = "3s"
kind = "wipe"
node = "n1"
for = "500ms"
[[fault]]
at = "1s"
kind = "drop"
node = "n2"
peer = "n3"
amount = "30%"
for = "2s"
[[fault]]
at = "3500ms"
kind = "skew"
node = "n2"
amount = "-3s"
for = "2s"
[[fault]]
at = "4800ms"
kind = "pause"
node = "n3"
for = "700ms"
[[fault]]
at = "5700ms"
kind = "stop"
node = "n2"
for = "300ms"
"""

SPLIT = """
about = "One node here, two there"
nodes = 3
seconds = 3
quiet = 1
[workload]
rate = 150
keys = 6
timeout = "500ms"
mode = "{mode}"
gets = 40
puts = 60
deletes = 0
scans = 0
[[fault]]
at = "300ms"
kind = "partition"
from = "n1"
for = "1500ms"
"""

BUGS = {
    "the later record wins": (
        "core/versions.py",
        "    if len(mine) == len(theirs) == 1:\n        return _merge_single(mine, theirs)\n",
        "    return max(mine, theirs, key=lambda record: (record[-1].time, record[-1].actor))\n",
        "eventual",
        "lost",
    ),
    "one owner is enough for a quorum write": (
        "core/rules.py",
        '    need, problem = _resolve(asked, owners, "w")\n    if not problem and mode == QUORUM',
        '    need, problem = 1, ""\n    if not mode',
        "quorum",
        "other",
    ),
}
"""What -> the file, the text in it, what stands there instead, a mode that shows it, where a verdict tells it."""


def kvctl(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The command, in a process of its own; not run here, where Python would take the package from."""
    command = [sys.executable, "-m", "kvctl", *words]
    return subprocess.run(
        command, env=os.environ | env, cwd=tempfile.gettempdir(), capture_output=True, text=True, timeout=100,
        check=False,
    )  # fmt: skip


def of(directory: Path) -> list[psutil.Process]:
    """The processes that were told of a directory."""
    return [p for p in psutil.process_iter(["cmdline"]) if str(directory) in " ".join(p.info["cmdline"] or ())]


def test_a_real_cluster_is_broken_as_a_simulated_one_is_and_keeps_its_promises(tmp_path: Path) -> None:
    """The same file in both worlds: the same faults, all of them done; a pass; no process and no file left."""
    path = tmp_path / "chaos.toml"
    path.write_text(CHAOS)
    home = tmp_path / "tmp"
    home.mkdir()

    told = {}
    for on in ("sim", "cluster"):
        ran = kvctl("scenario", "run", str(path), "--on", on, "--seed", "5", "-o", "json", TMPDIR=str(home))
        assert ran.returncode == 0, ran.stdout + ran.stderr
        told[on] = json.loads(ran.stdout)

    real, simulated = told["cluster"], told["sim"]
    assert real.keys() == simulated.keys()
    assert real["faults"] == simulated["faults"]
    assert sum(real["faults"].values()) == 8
    assert real["acked"] == real["survivors"] > 50
    assert (real["verdict"], real["on"], real["trace_hash"], real["linearizable"]) == (
        "pass",
        "cluster",
        None,
        None,
    )
    assert not of(home)
    assert not list(home.iterdir())


@pytest.fixture(params=BUGS)
def patched(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str, Path]]:
    """A mode that shows a bug, where it shows, and a copy of kvnode that has it."""
    file, text, instead, mode, where = BUGS[request.param]
    copy = tmp_path / "patched"
    shutil.copytree(Path(kvnode.__file__).parent, copy / "kvnode", ignore=shutil.ignore_patterns("__pycache__"))
    source = (copy / "kvnode" / file).read_text()
    assert source.count(text) == 1
    (copy / "kvnode" / file).write_text(source.replace(text, instead))
    return mode, where, copy  # type: ignore[return-value]


def test_a_planted_bug_turns_both_worlds_red_and_the_printed_command_shows_it_again(
    patched: tuple[str, str, Path], tmp_path: Path
) -> None:
    """Nodes are run from a copy of the package with one line changed; the checker is the same."""
    mode, where, copy = patched
    path = tmp_path / "split.toml"
    path.write_text(SPLIT.format(mode=mode))
    env = {"PYTHONPATH": str(copy), "TMPDIR": str(tmp_path)}

    for on in ("sim", "cluster"):
        ran = kvctl("scenario", "run", str(path), "--on", on, "-o", "json", **env)
        assert ran.returncode == 1, ran.stdout + ran.stderr
        told = json.loads(ran.stdout)
        assert told["verdict"] == "fail"
        assert told[where], told
        assert told["replay"] in ran.stderr

        if (on, where) == ("cluster", "other"):
            break  # once is enough: it takes seconds
        again = kvctl(*shlex.split(told["replay"])[1:], "-o", "json", **env)
        assert again.returncode == 1
        assert json.loads(again.stdout)[where]
    left = next(Path(line.split()[-1]) for line in ran.stderr.splitlines() if "data and logs are in" in line)
    assert {"n1", "n2", "n3"} <= {entry.name for entry in left.iterdir()}, "a failing run keeps what it leaves"
    assert not of(left)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_however_a_run_ends_its_nodes_end(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C exits 130 once all is gone; after a SIGKILL the warden does it."""
    path, home = tmp_path / "chaos.toml", tmp_path / "tmp"
    path.write_text(CHAOS)
    home.mkdir()
    command = [sys.executable, "-m", "kvctl", "scenario", "run", str(path), "--on", "cluster"]
    # Whoever runs the tests in the background may have them ignore Ctrl-C.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    run = subprocess.Popen(
        command, env=os.environ | {"TMPDIR": str(home)}, stderr=subprocess.DEVNULL, preexec_fn=heed
    )
    try:
        soon(lambda: len([p for p in of(home) if "kvnode" in p.cmdline()]) == 3, "three nodes")
        run.send_signal(number)
        assert run.wait(30) == (130 if number == signal.SIGINT else -signal.SIGKILL)
        soon(lambda: not of(home) and not list(home.iterdir()), "nothing is left")
    finally:
        run.kill()
        run.wait()


def soon(true: object, what: str, within_s: float = 20.0) -> None:
    """Until this holds."""
    deadline = time.monotonic() + within_s
    while not ask(true):
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.02)


def ask(true: object) -> bool:
    """Whether it holds; a process that has just gone is asked again."""
    try:
        return bool(true())  # type: ignore[operator]
    except psutil.Error:
        return False


# ---- on a cluster of `kvctl up` ----------------------------------------------------------------


def test_a_cluster_of_ones_own_is_broken_only_if_told_to_and_healed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--name` wants `--yes`; what was there stays, the faults are over; what does not fit is refused."""
    monkeypatch.setenv("KVCTL_HOME", str(tmp_path))
    specs = [NodeSpec(f"n{i + 1}", f"127.0.0.1:{port}") for i, port in enumerate(free_ports(3))]
    cluster = Cluster(ClusterSpec(name="mine", nodes=specs, n=3, q=16))
    path = tmp_path / "split.toml"
    path.write_text(
        SPLIT.format(mode="eventual") + '[[fault]]\nat = "1s"\nkind = "kill"\nnode = "n2"\nfor = "1s"\n'
    )
    run = ("scenario", "run", str(path), "--on", "cluster", "--name", "mine")
    cluster.start_all(wait=True)
    try:
        assert kvctl("put", "before", "it").returncode == 0
        assert kvctl(*run).returncode == 8
        assert kvctl(*run, "--dry-run").returncode == 0
        assert kvctl("scenario", "run", "bridge", "--on", "cluster", "--name", "mine", "--yes").returncode == 9

        ran = kvctl(*run, "--yes", "-o", "json")

        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert json.loads(ran.stdout)["faults"] == {"kill": 1, "partition": 1}
        assert json.loads(kvctl("fault", "ls", "-o", "json").stdout)["faults"] == []
        assert cluster.running() == ["n1", "n2", "n3"]
        assert kvctl("get", "before").stdout == "it\n"
    finally:
        cluster.end_all()
    assert not any(processes.alive(p) for p in [cluster.process(n.name) for n in specs] if p)


# ---- the history -------------------------------------------------------------------------------


def live(made: Session, *, routed: bool) -> tuple[LiveClients, list[int]]:
    """Clients on a session that nobody carries anything for, and their clock."""
    clock = [10_000]
    addresses = {str(member.id): member.address for member in RING.members}
    pump = SimpleNamespace(session=made)
    return LiveClients(pump, addresses, lambda: clock[0], routed=routed), clock  # type: ignore[arg-type]


def test_a_put_that_the_session_tried_twice_is_two_writes_in_the_history() -> None:
    """Of the first nobody was told anything; the second covers nothing but its context."""
    made = session()
    clients, clock = live(made, routed=True)
    done: list[Call] = []
    ask = m.Put(clients.next_number(), b"k", b"v", 0, 0, 2_000)
    call = clients.call(b"c1", NodeId("n1"), ask)
    call.on_done = done.append
    address, _ = said(made)

    made.lost(address)  # its answer will not come
    other, again = said(made)
    assert isinstance(again, m.Put)
    clock[0] = 10_500
    made.receive(other, [m.Written(again.rid, 1, 2, 2, 7, 70, {})])

    assert other != address
    (second,) = done
    first_op, second_op = (op for each in clients.calls for op in each.ops())
    assert (first_op.outcome, first_op.ended, first_op.covers_nothing) == (Outcome.UNKNOWN, None, False)
    assert (second_op.outcome, second_op.ended, second_op.covers_nothing) == (Outcome.OK, 10_500, True)
    assert second_op.dot == (7, 70)
    assert first_op.invoked == second_op.invoked == 10_000
    assert first_op.number != second_op.number
    assert clients.waiting == 0
    assert second.context.saw == {(7, 70)}


def test_a_pinned_operation_goes_to_its_node_and_no_other() -> None:
    """A side of a partition is a place: whoever asks there must not be answered elsewhere."""
    made = session()
    clients, _ = live(made, routed=False)
    stranger = next(member for member in RING.members if member.address not in owners(b"k"))
    call = clients.call(b"c1", stranger.id, m.Get(clients.next_number(), b"k", 0, 0, 2_000))
    address, _ = said(made)

    made.lost(address, used=False)

    assert address == stranger.address
    assert call.done()
    assert isinstance(call.result, m.Failed)
    assert not call.result.maybe_applied
    assert call.ops() == []


def test_what_was_refused_is_known_not_to_be_done() -> None:
    """And what was refused after it may have been done is not."""
    made = session()
    clients, _ = live(made, routed=False)
    for maybe, outcome in ((False, Outcome.FAILED), (True, Outcome.UNKNOWN)):
        token = Context(b"", frozenset())
        call = clients.call(
            b"c1", NodeId("n1"), m.Put(clients.next_number(), b"k", b"v", 0, 1, 2_000, token.token)
        )
        address, ask = said(made)
        made.receive(address, [m.Failed(ask.rid, 1, m.Error.INDETERMINATE, "no", maybe_applied=maybe)])
        assert [op.outcome for op in call.ops()] == [outcome]
