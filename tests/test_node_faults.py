"""Faults inside real nodes: each does what it says to real processes, and ends by itself.

One cluster of three nodes, each of which owns every key, serves all tests; a test heals what it set.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvctl import Client, nodefaults
from kvctl.errors import Indeterminate, Invalid, NotFound, Refused, Unavailable
from kvnode.protocol.faults import Fault, SetFault
from kvnode.protocol.messages import ClusterReport, NodeReport, PeerView, Status
from kvnode.protocol.ring import hash_slot, shift_of
from kvnode.protocol.types import NodeId
from tests.procs import Cluster
from tests.test_failure import reports, until

N1, N2, N3 = (NodeId(f"n{i}") for i in (1, 2, 3))
SLOW_MS = 300


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes that let themselves be broken."""
    with Cluster(tmp_path_factory.mktemp("faults"), 3, "-q", "16", "--allow-faults") as nodes:
        yield nodes


@pytest.fixture
def client(cluster: Cluster) -> Iterator[Client]:
    """A client; what the test broke is healed, and everybody is up again."""
    with cluster.client() as kv:
        yield kv
        nodefaults.heal(kv, "", 2.0)
    cluster.wait_up()


def inflict(
    kv: Client,
    kind: str,
    node: NodeId,
    *peers: NodeId,
    amount: float = 0.0,
    for_ms: int = 30_000,
    one_way: bool = False,
) -> str:
    """Set a fault; its id."""
    fault = Fault(nodefaults.new_id(), kind, (node,), peers, amount, one_way=one_way)
    nodefaults.inflict(kv, fault, for_ms, 2.0)
    return fault.id


def key_of(kv: Client, node: NodeId, prefix: str) -> str:
    """A key that clients take to this node."""
    ring = kv.ring()
    for i in range(1_000):
        key = f"{prefix}:{i}"
        first = ring.owners[hash_slot(key.encode()) >> shift_of(ring.q)][0]
        if ring.members[first].id == node:
            return key
    raise AssertionError(f"no key of a thousand begins at {node}")


def report_of(kv: Client, node: NodeId) -> NodeReport:
    """What a node says of itself, asked of itself: the others may not reach it."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        told = kv.ask_each(lambda rid, _: Status(rid, 100), [node], 1.0)[node]
        if isinstance(told, ClusterReport):
            return next(r for r in told.reports if r is not None and r.id == node)
    raise AssertionError(f"{node} does not answer")


def count(kv: Client, node: NodeId, counter: str) -> int:
    """A counter of a node."""
    return report_of(kv, node).counters.get(counter, 0)


def view(kv: Client, observer: NodeId, of: NodeId) -> PeerView:
    """What one node thinks of another."""
    return next(v for v in report_of(kv, observer).peers if v.node == of)


def test_a_partition_cuts_and_heals(client: Client) -> None:
    """n1 and n2, n3 take each other for dead; a quorum goes on on the larger side; healed, all are up again."""
    fault = inflict(client, "partition", N1, N2, N3)

    until(lambda: view(client, N1, N2).state != "up", "n1 sees n2 down")
    until(lambda: view(client, N2, N1).state == "down", "n2 sees n1 down")
    assert view(client, N2, N3).state == "up"
    assert client.put(key_of(client, N2, "cut"), b"v", w=2, mode="quorum").acked >= 2
    assert nodefaults.gather(client).on(fault) == [N1, N2, N3]

    nodefaults.heal(client, fault, 2.0)
    until(lambda: view(client, N1, N2).state == "up", "n1 sees n2 up")
    until(lambda: view(client, N2, N1).state == "up", "n2 sees n1 up")


def test_a_one_way_partition_loses_what_one_end_sends(client: Client) -> None:
    """Nothing of n1 gets to n2, all of n2 gets to n1; n3 talks to both, and relays that both are alive."""
    before = {node: count(client, node, "fault_cut") for node in (N1, N2)}
    inflict(client, "partition", N1, N2, one_way=True)

    assert client.put(key_of(client, N1, "way"), b"v", w=2).acked >= 2
    assert client.put(key_of(client, N3, "way"), b"v", w=3).acked == 3

    # n2 may have the fault a moment before n1, and then refuses what n1 still sends; but it cuts nothing of its
    # own, of which there is as much as n1 cuts.
    until(lambda: count(client, N1, "fault_cut") >= before[N1] + 8, "n1 is cut short")
    assert count(client, N2, "fault_cut") < before[N2] + 4
    assert view(client, N2, N1).state == "up"


def test_a_delay_is_waited_for(client: Client) -> None:
    """All three copies of a key of n1: as long as its word takes to the others."""
    inflict(client, "delay", N1, amount=SLOW_MS)

    begun = time.monotonic()
    assert client.put(key_of(client, N1, "delay"), b"v", w=3).acked == 3

    assert time.monotonic() - begun >= SLOW_MS / 1000


def test_what_is_dropped_is_lost_in_silence(client: Client) -> None:
    """The two others make a quorum; the third copy comes later, by hint or repair."""
    inflict(client, "drop", N1, N3, amount=1.0)
    key = key_of(client, N1, "drop")

    assert client.put(key, b"v", w=2).acked >= 2

    assert count(client, N1, "fault_dropped") > 0
    nodefaults.heal(client, "", 2.0)
    until(lambda: present(client, key) == 3, "the third copy")


def present(kv: Client, key: str) -> int:
    """The owners that hold a key."""
    return sum(replica.state == "present" for replica in kv.explain(key).replicas)


def test_duplicates_and_disorder_change_nothing(client: Client) -> None:
    """A node counts once towards W whatever it repeats; one write is one value."""
    for node in (N1, N2, N3):
        inflict(client, "duplicate", node, amount=1.0)
        inflict(client, "reorder", node, amount=0.3)
    pairs = {f"twice:{i}": b"%d" % i for i in range(50)}

    written = client.put_many(pairs, w=3)

    assert {key: getattr(w, "acked", w) for key, w in written.items()} == dict.fromkeys(pairs, 3)
    for key, value in pairs.items():
        assert [sibling.value for sibling in client.get(key, r=3).siblings] == [value]
    for name in ("fault_duplicated", "fault_reordered"):
        assert sum(count(client, node, name) for node in (N1, N2, N3)) > 0


def test_damaged_frames_are_dropped_and_counted(client: Client) -> None:
    """Nothing of them is believed: the copy that could not be sent comes later, and is right."""
    before, key = count(client, N2, "dropped_malformed"), key_of(client, N1, "corrupt")
    inflict(client, "corrupt", N1, N2, amount=1.0)

    assert client.put(key, b"right", w=2).acked >= 2

    until(lambda: count(client, N2, "dropped_malformed") > before, "n2 counts them")
    nodefaults.heal(client, "", 2.0)
    until(lambda: present(client, key) == 3, "the third copy")
    assert client.get(key, r=3).value == b"right"


def test_a_slow_disk_delays_acks_and_nothing_else(cluster: Cluster, client: Client) -> None:
    """Reads of that node go on meanwhile, and nobody takes it for dead."""
    mine, other = key_of(client, N2, "slow"), key_of(client, N2, "quick")
    client.put(other, b"v", w=3)
    inflict(client, "slow-disk", N2, amount=SLOW_MS)
    reads: list[float] = []
    done = threading.Event()

    def read_on() -> None:
        with cluster.client() as kv:
            while not done.is_set():
                begun = time.monotonic()
                kv.get(other, r="one")
                reads.append(time.monotonic() - begun)

    reader = threading.Thread(target=read_on)
    reader.start()
    begun = time.monotonic()
    acked = client.put(mine, b"v", w=3).acked
    took = time.monotonic() - begun
    done.set()
    reader.join()

    assert acked == 3
    assert took >= SLOW_MS / 1000
    assert sorted(reads)[len(reads) // 2] < SLOW_MS / 1000 / 2
    assert view(client, N1, N2).state == "up"


def test_a_skewed_clock_is_told_and_comes_back(client: Client) -> None:
    """Five seconds ahead while it lasts; the end is kept by another clock."""

    def ahead() -> int:
        told = reports(client)
        return told[N2].wall_ms - told[N1].wall_ms if told.keys() >= {N1, N2} else 0

    inflict(client, "skew", N2, amount=5_000, for_ms=1_500)

    until(lambda: ahead() > 4_000, "n2 is ahead")
    assert client.put(key_of(client, N2, "skew"), b"v", w=3).acked == 3
    until(lambda: abs(ahead()) < 1_000 and not nodefaults.gather(client).each(), "n2 is back")


@pytest.mark.parametrize("kind", ["full-disk", "fail-fsync"])
def test_a_disk_that_fails_stops_the_node_as_a_real_one_does(cluster: Cluster, client: Client, kind: str) -> None:
    """At the next write, exit 1, with a word of why; started again it has what it acknowledged."""
    key, kept = key_of(client, N1, kind), key_of(client, N3, kind)
    client.put(kept, b"kept", w=3)
    inflict(client, kind, N3)

    assert client.put(key, b"v", w=2).acked >= 2

    assert cluster.processes[N3].wait(20) == 1
    assert "injected" in cluster.log(N3).splitlines()[-1]
    assert client.put(key, b"v2", w=2).acked >= 2
    cluster.start(N3)
    cluster.wait_up()
    assert nodefaults.gather(client).each() == []
    assert client.get(kept, r=3).value == b"kept"
    until(lambda: client.get(key, r=2).value == b"v2", "the write without it")


def kvctl(cluster: Cluster, *args: str) -> subprocess.CompletedProcess[bytes]:
    """The command line, from a home that knows of no cluster."""
    line = [sys.executable, "-m", "kvctl", *args, "--connect", cluster.endpoints]
    env = {k: v for k, v in os.environ.items() if not k.startswith("KVCTL_")} | {
        "KVCTL_HOME": str(cluster.home / "home")
    }
    return subprocess.run(line, env=env, capture_output=True, check=False, timeout=60)


def test_a_fault_ends_though_its_console_is_gone(cluster: Cluster, client: Client) -> None:
    """Set by a process that has ended; kept by the node; over at its time, and the event says so."""
    begun = time.monotonic()
    ran = kvctl(cluster, "fault", "drop", "n1>n2", "30%", "--for", "2s", "-o", "json")
    assert ran.returncode == 0, ran.stderr
    (told,) = json.loads(ran.stdout)["faults"]
    assert (told["target"], told["kind"], told["value"], told["state"]) == ("n1>n2", "drop", "30%", "ACTIVE")
    assert [fault.id for fault in nodefaults.gather(client).each()] == [told["id"]]
    assert [fault.id for fault in reports(client)[N1].faults] == [told["id"]]

    until(lambda: not nodefaults.gather(client).each(), "the end")

    assert time.monotonic() - begun > 1.9
    until(lambda: f"{told['id']} drop is over" in cluster.log(N1), "a word in the log")


def test_what_is_set_in_part_is_taken_back(cluster: Cluster, client: Client, tmp_path: Path) -> None:
    """One node of two allows no faults: the other is as it was. And a node says what it thinks of nonsense."""
    with pytest.raises(Invalid, match="n9"):
        inflict(client, "drop", N1, NodeId("n9"), amount=0.5)
    cluster.stop(N3)
    flags, cluster._flags = cluster._flags, ("-q", "16")
    try:
        cluster.start(N3)
        cluster.wait_up()
        with pytest.raises(Refused, match="--allow-faults"):
            inflict(client, "partition", N1, N2, N3)
        assert nodefaults.gather(client).each() == []
        ran = kvctl(cluster, "fault", "slow-disk", "n3", "200ms", "-o", "json")
        assert ran.returncode == 8
        assert json.loads(ran.stderr)["error"] == "Refused"
        outcomes = client.ask_each(lambda rid, _: SetFault(rid, Fault("x", "skew", (N3,), (), 5.0), 99), [N3])
        assert isinstance(outcomes[N3], Refused)
    finally:
        cluster._flags = flags
        cluster.stop(N3)
        cluster.start(N3)
        cluster.wait_up()


def test_an_order_that_a_paused_node_reads_too_late_is_not_obeyed(cluster: Cluster, client: Client) -> None:
    """It sleeps with the order in its socket: when it wakes, nobody waits for the fault any more."""
    assert client.dated([N3]) == {N3}
    cluster.processes[N3].send_signal(signal.SIGSTOP)
    try:
        late = client.ask_each(
            lambda rid, _: SetFault(rid, Fault("late", "skew", (N3,), (), 5.0), 60_000), [N3], 0.3
        )
        assert isinstance(late[N3], Indeterminate)
        # One that is not known to listen is not told at all: nobody could say by when it must obey.
        with Client(cluster.endpoints) as other, pytest.raises(Unavailable, match="n3 does not answer"):
            nodefaults.inflict(other, Fault(nodefaults.new_id(), "skew", (N3,), (), 5.0), 60_000, 0.5)
    finally:
        cluster.processes[N3].send_signal(signal.SIGCONT)
    until(lambda: N3 in nodefaults.gather(client).faults, "n3 answers")
    assert nodefaults.gather(client).faults[N3] == ()


def test_jitter_goes_with_delay_alone(cluster: Cluster) -> None:
    """A usage error that says so."""
    for kind in ("drop", "duplicate", "reorder", "corrupt"):
        ran = kvctl(cluster, "fault", kind, "n1", "30%", "--jitter", "20ms")
        assert ran.returncode == 2
        assert b"--jitter goes with delay" in ran.stderr


def test_nothing_was_lost_on_the_way(client: Client) -> None:
    """After all of this every key reads the same from everyone."""
    for key in ("twice:0", key_of(client, N1, "corrupt"), key_of(client, N1, "full-disk")):
        try:
            assert len(client.get(key, r=3).siblings) == 1
        except NotFound:
            pytest.skip("run alone")
