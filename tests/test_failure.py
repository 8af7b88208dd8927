"""Failure on real processes: detected, written through, healed from. One test a mechanism.

`KILLS=50 pytest tests/test_failure.py -k noticed -s` measures how soon a SIGKILL is known everywhere
(`make detection`).
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kvctl import Client, Item, KvError
from kvnode.protocol.messages import DropHints, NodeReport, PauseRepair
from kvnode.protocol.ring import partition_of
from tests.procs import Cluster

KILLS = int(os.environ.get("KILLS", "2"))
WITHIN_S = 30.0
"""How long a condition may take to come true on a busy machine; how long it takes is measured elsewhere."""


@pytest.fixture
def five(tmp_path: Path) -> Iterator[Cluster]:
    """Five nodes, three owners a key."""
    with Cluster(tmp_path, 5, "-q", "64") as cluster:
        yield cluster


def until(true: Callable[[], bool], what: str, seconds: float = WITHIN_S, look_s: float = 0.02) -> float:
    """Wait until something is so. How long that took."""
    begun = time.monotonic()
    while not true():
        assert time.monotonic() - begun < seconds, f"{what}: not after {seconds} s"
        time.sleep(look_s)
    return time.monotonic() - begun


def reports(client: Client, *, roots: bool = False) -> dict[str, NodeReport]:
    """What the nodes that answer say of themselves."""
    try:
        return {r.id: r for r in client.status(timeout=1.0, roots=roots).reports if r is not None}
    except KvError:
        return {}


def states(client: Client, of: str) -> dict[str, str]:
    """What each other node that answers concludes of a node."""
    return {
        name: view.state
        for name, report in reports(client).items()
        for view in report.peers
        if view.node == of and name != of
    }


def hints(client: Client) -> int:
    """Hints kept by all that answer."""
    return sum(line.count for report in reports(client).values() for line in report.hints)


def whole(client: Client, nodes: int) -> bool:
    """Whether every node is sure of itself and all owners of each partition have the same root."""
    told = reports(client, roots=True)
    roots: dict[int, set[bytes]] = {}
    for report in told.values():
        for root in report.roots:
            roots.setdefault(root.partition, set()).add(root.hash)
    sure = not any(report.recovering for report in told.values())
    return len(told) == nodes and sure and all(len(hashes) == 1 for hashes in roots.values())


def fill(client: Client, count: int, prefix: bytes = b"k") -> dict[bytes, bytes]:
    """Put pairs; all must be acknowledged."""
    pairs = {b"%s%05d" % (prefix, i): b"v%d" % i for i in range(count)}
    for key, outcome in client.put_many(pairs).items():
        assert not isinstance(outcome, KvError), (key, outcome)
    return pairs


def owned_by(client: Client, node: str, pairs: dict[bytes, bytes]) -> dict[bytes, bytes]:
    ring = client.ring()
    return {key: value for key, value in pairs.items() if node in ring.owner_ids(partition_of(key, ring.q))}


def read(client: Client, pairs: dict[bytes, bytes], **how: object) -> list[bytes]:
    """The keys that do not read back as they were put."""
    found = client.get_many(list(pairs), **how)  # type: ignore[arg-type]
    return [k for k, value in pairs.items() if isinstance(found[k], KvError) or found[k].value != value]  # type: ignore[union-attr]


def test_a_sigkill_is_noticed_by_all_and_a_return_as_well(five: Cluster) -> None:
    """DOWN on two reporters or more, everywhere; UP again at the first heartbeat of the next life."""
    with five.client() as client:
        took = [kill_and_return(five, client, five.names[i % 5]) for i in range(KILLS)]
    print(f"DOWN everywhere after {min(took):.2f}..{max(took):.2f} s in {KILLS} kills")


def kill_and_return(cluster: Cluster, client: Client, victim: str) -> float:
    """How long a kill took to be known everywhere; then the victim comes back."""
    cluster.kill(victim)
    took = until(lambda: list(states(client, victim).values()) == ["down"] * 4, f"{victim} down")
    view = next(v for r in reports(client).values() for v in r.peers if v.node == victim)
    assert len(view.suspected_by) >= 2
    cluster.start(victim)
    until(lambda: list(states(client, victim).values()) == ["up"] * 4, f"{victim} up")
    return took


def test_writes_go_on_without_an_owner_and_it_gets_them_all_when_it_is_back(five: Cluster) -> None:
    """Sloppy quorum, hints on disk (all holders are killed too), handoff; then asked alone, it has everything."""
    with five.client() as client:
        five.kill("n3")
        until(lambda: set(states(client, "n3").values()) == {"down"}, "n3 down")
        pairs = fill(client, 600)
        theirs = owned_by(client, "n3", pairs)
        assert hints(client) >= len(theirs) > 100
        for name in ("n1", "n2", "n4", "n5"):
            five.kill(name)
        for name in five.names:
            five.start(name)
        five.wait_up()
        until(lambda: len(reports(client)) == 5 and hints(client) == 0, "hints drained")
        for name in ("n1", "n2", "n4", "n5"):
            five.kill(name)
    with Client(five.addresses["n3"], 5.0) as alone:
        assert read(alone, theirs, r=1) == []


def test_a_wiped_node_makes_nothing_not_found_and_is_whole_again_by_itself(five: Cluster) -> None:
    """Amnesia and anti-entropy: quorum reads stay right from the first moment, nobody reads it whole."""
    with five.client() as client:
        pairs = fill(client, 1_500)
        five.kill("n2")
        for file in (five.home / "n2").iterdir():
            file.unlink()
        five.start("n2")
        while not whole(client, 5):
            found = client.get_many(list(pairs)[:300], mode="quorum")
            answers = {k: item for k, item in found.items() if isinstance(item, Item)}
            assert [k for k, item in answers.items() if not item.found or item.value != pairs[k]] == []
        assert read(client, pairs, mode="quorum") == []
        report = reports(client)["n2"]
        assert report.keys == len(owned_by(client, "n2", pairs))


def test_a_node_that_stands_still_is_suspected_and_nothing_acknowledged_meanwhile_is_lost(five: Cluster) -> None:
    """SIGSTOP for longer than the detector takes: the worst kind of silence, for its connections stay up."""
    with five.client() as client:
        before = fill(client, 200, b"before")
        five.processes["n4"].send_signal(signal.SIGSTOP)
        try:
            until(lambda: set(states(client, "n4").values()) == {"down"}, "n4 down")
            during = fill(client, 200, b"during")
        finally:
            five.processes["n4"].send_signal(signal.SIGCONT)
        until(lambda: set(states(client, "n4").values()) == {"up"}, "n4 up")
        until(lambda: hints(client) == 0, "hints drained")
        until(lambda: whole(client, 5), "all whole")
        assert read(client, before | during, mode="quorum") == []


def test_a_stale_copy_is_mended_by_a_read(tmp_path: Path) -> None:
    """n3 misses writes and their hints are dropped; with anti-entropy paused, reads of all owners bring them."""
    with Cluster(tmp_path, 3, "-q", "16") as cluster, cluster.client() as client:
        client.ask_each(lambda rid, _: PauseRepair(rid, paused=True))
        cluster.kill("n3")
        until(lambda: set(states(client, "n3").values()) == {"down"}, "n3 down")
        pairs = fill(client, 50)
        client.ask_each(lambda rid, _: DropHints(rid, "n3"))
        cluster.start("n3")
        cluster.wait_up()
        client.ask_each(lambda rid, _: PauseRepair(rid, paused=True))
        found = reports(client)["n3"].keys  # by an exchange of its own, before it was told to pause
        assert read(client, pairs, r="all") == []
        until(lambda: reports(client)["n3"].keys == len(pairs), "n3 has them all")
        assert found < len(pairs)
        assert sum(r.counters.get("read_repairs", 0) for r in reports(client).values()) >= len(pairs) - found
