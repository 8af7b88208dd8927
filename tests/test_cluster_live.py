"""A cluster that grows, shrinks and loses a node for good, by the real commands on real nodes, under load.

One story on one cluster: what each step leaves behind is what the next begins with.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kvctl import Client, KvError
from tests.conftest import Kvctl, eventually

KEYS = {b"kept:%05d" % i: b"v" * 200 for i in range(3_000)}


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kvctl]:
    """Three nodes with some keys."""
    kvctl = Kvctl(tmp_path_factory.mktemp("grown"))
    kvctl.up(3, "-q", "64")
    with client(kvctl) as kv:
        assert not any(isinstance(o, KvError) for o in kv.put_many(KEYS, w="all").values())
    yield kvctl
    kvctl("down", "--wipe", "--yes")


def client(kvctl: Kvctl) -> Client:
    """A client of the cluster."""
    return Client(",".join(n["address"] for n in kvctl("status", "-o", "json").json["nodes"]))


class Load:
    """Puts new keys one after another, and remembers what became of them."""

    def __init__(self, kv: Client, prefix: bytes) -> None:
        self._kv = kv
        self._prefix = prefix
        self.acknowledged: dict[bytes, bytes] = {}
        self.failed: list[str] = []
        self.over = threading.Event()

    def run(self) -> None:
        """Until told to stop."""
        number = 0
        while not self.over.is_set():
            number += 1
            key = b"%s:%06d" % (self._prefix, number)
            try:
                self._kv.put(key, key)
                self.acknowledged[key] = key
            except KvError as error:
                self.failed.append(error.message)
            self.over.wait(0.002)


@contextmanager
def load(kvctl: Kvctl, prefix: bytes) -> Iterator[Load]:
    """Writes in the background."""
    with client(kvctl) as kv:
        writes = Load(kv, prefix)
        thread = threading.Thread(target=writes.run)
        thread.start()
        try:
            yield writes
        finally:
            writes.over.set()
            thread.join()


def all_there(kvctl: Kvctl, pairs: dict[bytes, bytes]) -> None:
    """Every pair reads back."""
    with client(kvctl) as kv:
        read = kv.get_many(list(pairs), mode="quorum")
    missing = [k for k, item in read.items() if isinstance(item, KvError) or item.value != pairs[bytes(k)]]  # type: ignore[arg-type]
    assert not missing, f"{len(missing)} of {len(pairs)}: {missing[:3]}"


def members(kvctl: Kvctl) -> dict[str, str]:
    """Node -> what it is to the cluster."""
    return {n["id"]: n["member"] for n in kvctl("status", "-o", "json").json["nodes"]}


def commit(kvctl: Kvctl) -> dict[str, object]:
    """Plan, commit, and wait until all is where it belongs. The plan."""
    plan = kvctl("cluster", "plan", "-o", "json")
    assert plan.code == 0, plan.errors
    done = kvctl("cluster", "commit", "-o", "json")
    assert done.code == 0, done.errors
    assert done.json["plan"] == plan.json["plan"]
    ready = kvctl("wait", "ring-ready", "--timeout", "60s")
    assert ready.code == 0, ready.errors
    found: dict[str, object] = plan.json
    return found


def test_a_node_that_is_added_waits_outside_until_a_plan_is_committed(grown: Kvctl) -> None:
    """Known to all when the command returns; with nothing to own, and nothing staged."""
    added = grown("node", "add", "-o", "json")
    assert added.code == 0, added.errors
    assert added.json["node"] == "n4"
    assert members(grown)["n4"] == "outside"
    assert grown("cluster", "commit").code == 7, "no plan was printed"
    plan = grown("cluster", "plan", "-o", "json")
    assert plan.code == 0 and "nothing is staged" in plan.json["problem"]


def test_it_joins_under_load_and_no_write_fails(grown: Kvctl) -> None:
    """Exactly its share moves, to it alone."""
    with load(grown, b"join") as writes:
        staged = grown("cluster", "join", "n4", "-o", "json")
        assert staged.json["staged"] == [{"change": "join", "new": None, "node": "n4"}]
        plan = commit(grown)
    assert plan["replicas_moved"] == plan["optimum"] == 48
    assert plan["after"] == dict.fromkeys(("n1", "n2", "n3", "n4"), 48)
    assert {m["to"] for m in plan["moves"]} == {"n4"}  # type: ignore[attr-defined]
    assert members(grown)["n4"] == "normal"
    assert not writes.failed and len(writes.acknowledged) > 50
    all_there(grown, KEYS | writes.acknowledged)


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("cluster join n4", 9, "n4 is a member already"),
        ("cluster join n9", 5, "no node n9 waits outside"),
        ("cluster leave n9", 5, "no member n9"),
        ("cluster replace n9 n4", 5, "no member n9"),
        ("cluster replace n1 n4", 9, "n4 is a member already"),
        ("cluster force-remove n1 --yes", 8, "n1 answers"),
        ("cluster replace n1 n1", 9, "its own places"),
        ("cluster join ../x", 9, "no name"),
        ("cluster commit 0123456789ab", 7, "nothing is staged now"),
        ("cluster commit", 7, "nothing is staged"),
        ("cluster cancel", 7, "nothing is pending"),
        ("cluster throttle fast", 2, "no size"),
        ("node add n1", 9, "has, or has had, a node n1"),
        ("node add ../x", 9, "no name"),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(grown: Kvctl, line: str, code: int, says: str) -> None:
    """And nothing is staged by it."""
    ran = grown(*line.split())
    assert (ran.code, says in ran.errors) == (code, True), ran.errors
    assert grown("cluster", "plan", "-o", "json").json["changes"] == []


def test_a_plan_is_stale_once_anything_else_is_staged(grown: Kvctl) -> None:
    """What is committed is what was seen."""
    assert grown("cluster", "leave", "n4").code == 0
    first = grown("cluster", "plan", "-o", "json").json["plan"]
    assert grown("cluster", "leave", "n3", "--yes").code == 0
    assert grown("cluster", "commit", first).code == 7
    assert grown("cluster", "commit").code == 7
    assert grown("cluster", "clear", "-o", "json").json["staged"] == []


def test_leaving_below_n_wants_a_yes(grown: Kvctl) -> None:
    """Off a terminal it is exit 8; a dry run tells what it would cost."""
    grown("cluster", "leave", "n4")
    refused = grown("cluster", "leave", "n3")
    assert refused.code == 8 and "2 members would be left for n=3" in refused.errors
    dry = grown("cluster", "leave", "n3", "--dry-run", "-o", "json")
    assert dry.code == 0 and dry.json["risks"]
    grown("cluster", "clear")


def test_a_dead_node_is_replaced_and_the_copies_are_whole_again(grown: Kvctl) -> None:
    """Its places go to the new one and nothing else moves; under load nothing is lost."""
    with load(grown, b"replace") as writes:
        assert grown("fault", "wipe", "n3", "--yes").code == 0
        new = grown("node", "add", "-o", "json").json["node"]
        assert eventually(lambda: grown("cluster", "replace", "n3", new).code == 0)
        plan = commit(grown)
    assert {(m["from"], m["to"]) for m in plan["moves"]} == {("n3", new)}  # type: ignore[attr-defined]
    assert "n3" not in members(grown) and members(grown)[new] == "normal"
    all_there(grown, KEYS | writes.acknowledged)
    assert grown("wait", "converged", "--timeout", "60s").code == 0


def test_healing_what_killed_a_former_member_brings_nobody_back(grown: Kvctl) -> None:
    """Its fault is over; it ends by itself, told that it is none of this cluster any more."""
    healed = grown("fault", "heal", "--all")
    assert healed.code == 0, healed.errors
    assert "n3" not in members(grown)


def test_a_removed_name_never_returns(grown: Kvctl) -> None:
    """Neither as a new node, nor with its old disk."""
    again = grown("node", "add", "n3")
    assert again.code == 9 and ("never returns" in again.errors or "has had" in again.errors)
    assert grown("cluster", "join", "n3").code == 9
    assert grown("node", "start", "n3").code == 5, "kvctl up has forgotten it"


def test_a_leaver_goes_and_kvctl_up_starts_it_no_more(grown: Kvctl) -> None:
    """It serves until others have all it has; then it may be stopped for good."""
    with load(grown, b"leave") as writes:
        assert grown("cluster", "leave", "n1").code == 0
        plan = commit(grown)
    assert {m["from"] for m in plan["moves"]} == {"n1"}  # type: ignore[attr-defined]
    assert "n1" not in members(grown)
    assert not writes.failed
    stopped = grown("node", "stop", "n1")
    assert stopped.code == 0 and "starts it no more" in stopped.errors
    spec = json.loads((Path(grown.home) / "clusters" / "local" / "cluster.json").read_text())
    assert "n1" not in [n["name"] for n in spec["nodes"]]
    all_there(grown, KEYS | writes.acknowledged)


def test_all_is_well_in_the_end_and_after_a_restart(grown: Kvctl) -> None:
    """`check` says OK, and `down` and `up` bring back what is a member now, wherever it came from."""
    check = grown("check")
    assert check.code == 0, check.text
    assert grown("down").code == 0
    up = grown("up")
    assert up.code == 0, up.errors
    assert eventually(lambda: grown("check").code == 0, 20)
    all_there(grown, KEYS)


def test_the_ring_shows_members_and_owners(grown: Kvctl) -> None:
    """As CONTRACT names the commands."""
    ring = grown("ring", "show", "-o", "json").json
    assert [m["member"] for m in ring["members"]] == ["normal"] * 3 and ring["removed"] == ["n3", "n1"]
    owners = grown("ring", "owners", "-o", "json").json["partitions"]
    assert len(owners) == 64 and all(len(o["owners"]) == 3 and o["next"] is None for o in owners)


def test_the_autoscaler_grows_and_shrinks_real_nodes(grown: Kvctl) -> None:
    """One node more when there is too much, one fewer when it is gone; each step says why."""
    asks = ("autoscale", "--min", "3", "--max", "4", "--apply", "--once", "--cooldown", "0s", "-o", "json")
    grow = grown(*asks, "--high-bytes", "100KB", "--low-bytes", "1KB")
    assert grow.code == 0, grow.errors
    assert (grow.json["decision"], grow.json["cause"], grow.json["applied"]) == ("grow", "high", True), grow.text
    assert grown("wait", "ring-ready", "--timeout", "60s").code == 0
    assert len(members(grown)) == 4
    assert eventually(
        lambda: grown(*asks, "--high-bytes", "1GB", "--low-bytes", "900MB").json["cause"] == "low", 30
    )
    assert grown("wait", "ring-ready", "--timeout", "60s").code == 0
    assert eventually(
        lambda: bool(grown(*asks, "--high-bytes", "1GB", "--low-bytes", "900MB").json["retired"]), 30
    )
    assert len(members(grown)) == 3
    all_there(grown, KEYS)
