"""A cluster that changes its shape and meets what goes wrong with that: full disks, two operators, strangers.

By the real commands on real nodes; one cluster, one misfortune after another.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvctl import Client, KvError, NotFound
from tests.conftest import Kvctl, Ran, eventually
from tests.procs import free_ports

KEYS = {b"kept:%05d" % i: b"v" * 400 for i in range(2_000)}
SLOWLY = "transfer_bytes_per_s = 150000\n"
"""A move takes some seconds: something can happen meanwhile."""
VERY_SLOWLY = "20KB/s"
"""Half a minute at the least: the disk is full before all is there, however long a command takes."""


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kvctl]:
    """Three nodes with some keys, and a fourth that waits outside."""
    kvctl = Kvctl(tmp_path_factory.mktemp("four"))
    config = kvctl.home / "settings.toml"
    config.write_text(SLOWLY)
    kvctl.up(3, "-q", "64", "--config", str(config))
    with client(kvctl) as kv:
        assert not any(isinstance(o, KvError) for o in kv.put_many(KEYS, w="all").values())
    assert kvctl("node", "add").code == 0
    yield kvctl
    kvctl("down", "--wipe", "--yes")
    kvctl.end()


def client(kvctl: Kvctl) -> Client:
    """A client of the cluster."""
    return Client(",".join(addresses(kvctl).values()))


def addresses(kvctl: Kvctl) -> dict[str, str]:
    """Node -> where it listens."""
    return {n["id"]: n["address"] for n in kvctl("status", "-o", "json").json["nodes"]}


def members(kvctl: Kvctl) -> dict[str, str]:
    """Node -> what it is to the cluster."""
    return {n["id"]: n["member"] for n in kvctl("status", "-o", "json").json["nodes"]}


def all_there(kvctl: Kvctl) -> None:
    """Every acknowledged pair reads back."""
    with client(kvctl) as kv:
        read = kv.get_many(list(KEYS), mode="quorum")
    missing = [k for k, item in read.items() if isinstance(item, KvError) or item.value != KEYS[bytes(k)]]  # type: ignore[arg-type]
    assert not missing, f"{len(missing)} of {len(KEYS)}: {missing[:3]}"


def told_of(kvctl: Kvctl, text: str) -> bool:
    """Whether the events of the last minute say this."""
    return text in kvctl("events", "--since", "1m").text


def test_a_full_disk_stops_a_transfer_which_says_so_and_goes_on_once_there_is_room(four: Kvctl) -> None:
    """The node that receives stops before it promises anything; everybody can see what the transfer waits for."""
    assert four("cluster", "join", "n4").code == 0
    assert four("cluster", "plan").code == 0
    assert four("cluster", "throttle", VERY_SLOWLY).code == 0
    assert four("cluster", "commit").code == 0
    full = four("fault", "full-disk", "n4", "--for", "60s", "--yes")
    assert full.code == 0, full.errors
    assert eventually(lambda: "disk is full" in four("node", "logs", "n4").text, 20)
    assert eventually(lambda: told_of(four, "wait for n4, which is to own them next and is down"), 20)
    status = four("status", "-o", "table")
    assert "n4 waits: it is down" in status.text and "kvctl node start n4" in status.text
    waiting = four("wait", "ring-ready", "--timeout", "1s")
    assert waiting.code == 11 and "n4 waits: it is down" in waiting.errors
    all_there(four)

    assert four("node", "start", "n4").code == 0  # at the pace of its settings
    ready = four("wait", "ring-ready", "--timeout", "60s")
    assert ready.code == 0, ready.errors
    assert told_of(four, "n4 is waited for no more")
    assert members(four)["n4"] == "normal"
    all_there(four)


def test_of_two_operators_with_different_plans_exactly_one_commits(four: Kvctl) -> None:
    """Each saw its own plan; the loser is told that it is stale (exit 7), and nothing of its plan is done."""
    assert four("node", "add", "n5").code == 0
    assert four("cluster", "join", "n5").code == 0
    first = four("cluster", "plan", "-o", "json").json["plan"]
    assert four("cluster", "clear").code == 0
    assert four("cluster", "leave", "n4").code == 0
    second = four("cluster", "plan", "-o", "json").json["plan"]
    assert first != second
    # What both of them saw was there to see; what is staged now is the second one's.
    told: dict[str, Ran] = {}
    both = [
        threading.Thread(target=lambda p=plan: told.update({p: four("cluster", "commit", p)}))  # type: ignore[misc]
        for plan in (first, second)
    ]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert (told[first].code, told[second].code) == (7, 0), told
    assert "stale" in told[first].errors and "kvctl cluster plan" in told[first].errors
    again = four("cluster", "commit", second)
    assert again.code == 7, "it is done already"
    assert four("wait", "ring-ready", "--timeout", "60s").code == 0
    assert eventually(lambda: "n4" not in members(four), 30)
    assert members(four)["n5"] == "outside"
    all_there(four)


def test_the_same_plan_committed_by_two_operators_at_once_is_done_once(four: Kvctl) -> None:
    """One is told that it is chosen; the other that, or that it came too late: never an error of another kind."""
    assert four("cluster", "join", "n5").code == 0
    plan = four("cluster", "plan", "-o", "json").json["plan"]
    epoch = four("status", "-o", "json").json["epoch"]
    told: list[Ran] = []
    both = [threading.Thread(target=lambda: told.append(four("cluster", "commit", plan))) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    codes = sorted(ran.code for ran in told)
    assert codes in ([0, 7], [0, 0]), told
    assert four("wait", "ring-ready", "--timeout", "60s").code == 0
    assert members(four)["n5"] == "normal"
    assert four("status", "-o", "json").json["epoch"] > epoch
    all_there(four)


@pytest.mark.parametrize(
    ("name", "flags", "says"),
    [
        ("n4", (), "never returns"),
        ("n1", (), "n1 is a member already"),
        ("n8", ("--cluster", "elsewhere"), "not 'elsewhere'"),
    ],
)
def test_who_may_not_stand_outside_ends_with_one_clear_line(
    four: Kvctl, tmp_path: Path, name: str, flags: tuple[str, ...], says: str
) -> None:
    """A removed name with an empty disk, a member's name, another cluster's: exit 1, and the cluster unmoved."""
    before = members(four)
    ran = subprocess.run(
        [
            sys.executable, "-m", "kvnode", "run", "--name", name, "--listen", f"127.0.0.1:{free_ports(1)[0]}",
            "--data", str(tmp_path / "data"), "--join", addresses(four)["n2"], *flags,
        ],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    last = (ran.stdout + ran.stderr).strip().splitlines()[-1]
    assert ran.returncode == 1 and says in last, last
    assert members(four) == before


def test_a_node_of_another_cluster_is_refused_with_its_data_untouched(four: Kvctl, tmp_path: Path) -> None:
    """Its directory says where it belongs; flags do not make it another's."""
    other = Kvctl(tmp_path / "other")
    try:
        other.up(1, "--name", "other")
        assert other("put", "theirs", "v").code == 0
        assert other("down", "--name", "other", "--yes").code == 0
        data = next((tmp_path / "other").glob("clusters/other/n1/data"))
        ran = subprocess.run(
            [
                sys.executable, "-m", "kvnode", "run", "--name", "n1", "--listen", f"127.0.0.1:{free_ports(1)[0]}",
                "--data", str(data), "--join", addresses(four)["n2"], "--cluster", "local",
            ],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert ran.returncode == 1, ran.stdout + ran.stderr
        assert "other" in (ran.stdout + ran.stderr).strip().splitlines()[-1]
        assert other("up", "--name", "other").code == 0
        assert other("get", "theirs").text == "v\n"
    finally:
        other("down", "--name", "other", "--wipe", "--yes")
        other.end()


def test_a_removed_node_that_comes_back_with_its_old_data_serves_nobody(four: Kvctl, tmp_path: Path) -> None:
    """A snapshot of before it left: it is told by the first that hears it, ends, and brings nothing back."""
    with client(four) as kv:
        kv.put("gone", b"x", w="all")
    data, address = four.home / "clusters" / "local" / "n5" / "data", addresses(four)["n5"]
    assert four("fault", "kill", "n5", "--yes").code == 0
    shutil.copytree(data, tmp_path / "snapshot")
    assert four("node", "start", "n5").code == 0
    assert four("wait", "ring-ready", "--timeout", "60s").code == 0

    assert four("cluster", "leave", "n5").code == 0
    assert four("cluster", "plan").code == 0
    assert four("cluster", "commit").code == 0
    assert four("wait", "ring-ready", "--timeout", "60s").code == 0
    assert eventually(lambda: four("node", "stop", "n5").code == 0)
    with client(four) as kv:
        kv.delete("gone", w="all")
    for old in (data, tmp_path / "snapshot"):
        ran = subprocess.run(
            [
                sys.executable, "-m", "kvnode", "run", "--name", "n5", "--listen", address,
                "--data", str(old), "--join", addresses(four)["n1"],
            ],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert ran.returncode == 1, ran.stdout + ran.stderr
        assert "never returns" in (ran.stdout + ran.stderr).strip().splitlines()[-1]
    with client(four) as kv, pytest.raises(NotFound):
        kv.get("gone", mode="quorum")
    assert set(members(four)) == {"n1", "n2", "n3"}
    all_there(four)
    check = four("check")
    assert check.code == 0, check.text
