"""Real processes: a cluster that grows, shrinks and replaces a dead node under load, and loses nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvctl import Client, KvError
from kvnode.protocol.messages import ChangeKind
from tests.conftest import eventually
from tests.operators import Operator, Processes, processes

KEYS = 3_000
VALUE = b"x" * 100


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Processes]:
    yield from processes(tmp_path, "transfer_bytes_per_s = 400000\n")


class Load:
    """Puts by one client after another, each acknowledged one remembered."""

    def __init__(self, addresses: list[str]) -> None:
        self._addresses = ",".join(addresses)
        self._over = threading.Event()
        self.acked: dict[str, bytes] = {}
        self.failed = 0
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with Client(self._addresses) as kv:
            number = 0
            while not self._over.is_set():
                number += 1
                key, value = f"load:{number % 500}", b"%d" % number
                try:
                    kv.put(key, value, mode="quorum")
                except KvError:
                    self.failed += 1
                    self.acked.pop(key, None)  # it may be there, and then the one before it is not
                else:
                    self.acked[key] = value

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(30)


def fill(addresses: list[str]) -> dict[str, bytes]:
    """A cluster with something in it."""
    data = {f"key:{i}": VALUE + b"%d" % i for i in range(KEYS)}
    with Client(",".join(addresses)) as kv:
        kv.put_many(data)
    return data


def check(addresses: list[str], data: dict[str, bytes]) -> None:
    """Every acknowledged key reads back."""
    with Client(",".join(addresses)) as kv:
        wrong = [key for key, value in data.items() if kv.get(key, mode="quorum").value != value]
    assert not wrong, f"{len(wrong)} of {len(data)}: {wrong[:5]}"


def test_a_fourth_node_joins_under_load_is_killed_half_way_and_finishes_then_another_leaves(
    cluster: Processes,
) -> None:
    """By hand: join, plan, commit, kill the new node half-way, restart it; then let a first one go."""
    cluster.found(3)
    first = list(cluster.addresses.values())
    operator = Operator(first[0])
    operator.wait_settled({"n1", "n2", "n3"})
    data = fill(first)

    cluster.join("n4")
    assert eventually(lambda: operator.knows("n4"), 20)
    operator.stage(ChangeKind.JOIN, "n4")
    with Load(first) as load:
        operator.commit()
        assert eventually(lambda: any(r.id == "n4" and r.moves and r.moves.bytes_received for r in told(operator)))
        cluster.kill("n4")
        assert operator.status().ring.moves, "it was to be killed half-way"
        cluster.start("n4")
        operator.wait_settled({"n1", "n2", "n3", "n4"})
    assert load.failed == 0
    check(list(cluster.addresses.values()), data | load.acked)

    leaver = cluster.running["n2"]
    operator.stage(ChangeKind.LEAVE, "n2")
    with Load([cluster.addresses["n4"], first[0]]) as load:
        operator.commit()
        operator.wait_settled({"n1", "n3", "n4"})
    assert leaver.wait(20) == 0, cluster.log("n2")
    assert load.failed == 0
    del cluster.running["n2"]
    check([first[0], first[2], cluster.addresses["n4"]], data | load.acked)

    again = cluster.start("n2")
    assert again.wait(20) == 1
    assert "never returns" in cluster.log("n2").splitlines()[-1]
    operator.close()


def told(operator: Operator) -> list:  # type: ignore[type-arg]
    """The reports that came."""
    return [report for report in operator.status().reports if report is not None]


def test_a_node_that_was_killed_is_replaced_by_a_new_one(cluster: Processes) -> None:
    """Its places go to a node that has just come, from the owners that are left, and then it never returns."""
    cluster.found(4)
    first = list(cluster.addresses.values())
    operator = Operator(first[0])
    operator.wait_settled({"n1", "n2", "n3", "n4"})
    data = fill(first)

    cluster.kill("n3")
    cluster.join("n5")
    assert eventually(lambda: operator.knows("n5"), 20)
    operator.stage(ChangeKind.REPLACE, "n3", "n5")
    with Load([first[0], first[1], first[3]]) as load:
        operator.commit()
        operator.wait_settled({"n1", "n2", "n4", "n5"})
    check([first[0], first[1], first[3], cluster.addresses["n5"]], data | load.acked)

    back = cluster.start("n3")
    assert back.wait(30) == 1
    assert "no member of cluster local any more" in cluster.log("n3")
    operator.close()


@pytest.mark.parametrize(
    ("name", "flags", "says"),
    [
        ("n2", (), "n2 is a member already"),
        ("n9", ("--cluster", "other"), "of cluster 'local', not 'other'"),
        ("n9", ("--join", "127.0.0.1:1"), "no node of a cluster answers there"),
    ],
)
def test_who_cannot_stand_outside_is_told_why(
    cluster: Processes, name: str, flags: tuple[str, ...], says: str
) -> None:
    """The same name twice, a node of another cluster, a wrong address: one clear line, and exit code 1."""
    cluster.found(2)
    operator = Operator(cluster.addresses["n1"])
    operator.status()
    operator.close()
    if name in cluster.running:
        cluster.running[f"the first {name}"] = cluster.running[name]
    process = cluster.join(name, "--data", str(cluster.path / "elsewhere"), *flags)
    assert process.wait(40) == 1
    assert says in cluster.log(name).splitlines()[-1]
