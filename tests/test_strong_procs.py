"""Mode `strong` on real processes: a node is killed under load, and what clients saw is one history."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from kvctl import AsyncClient, Client, Conflict, KvError, NotFound, Unavailable
from kvnode.sim.linear import ANY, FOREVER, RegisterOp, linearizable
from tests.conftest import Kvctl
from tests.procs import Cluster

SEED = int(os.environ.get("KILL_SEED", str(random.SystemRandom().getrandbits(32))))
CLIENTS, KEYS, SECONDS = 3, 2, 5.0


class Recorder:
    """One client's operations, and what it was told, by one clock for all."""

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self.rng = random.Random(f"{seed}/{name}")
        self.ops: dict[str, list[RegisterOp]] = {}
        self.acknowledged = 0
        self._number = 0
        self._seen: dict[str, tuple[str, bytes]] = {}

    def run(self, client: Client, until: float) -> None:
        """One operation after the other."""
        while time.monotonic() < until:
            key = f"r{self.rng.randrange(KEYS)}"
            if self.rng.random() < 0.5:
                self.read(client, key)
            else:
                self.write(client, key)
            time.sleep(self.rng.uniform(0.01, 0.04))

    def read(self, client: Client, key: str) -> None:
        """A get; one that fails tells nothing."""
        began = time.monotonic_ns()
        try:
            item = client.fetch(key, mode="strong")
        except KvError:
            return
        value = item.value if item.found else None
        self._note(key, began, reads=True, value=value)
        if value is not None:
            self._seen[key] = item.context, value

    def write(self, client: Client, key: str) -> None:
        """A put, with or without a condition."""
        self._number += 1
        value = f"{self.name}-{self._number}".encode()
        seen = self._seen.get(key)
        match, expects = seen if seen is not None and self.rng.random() < 0.5 else (None, ANY)
        began = time.monotonic_ns()
        try:
            written = client.put(key, value, mode="strong", if_match=match)
        except Conflict:
            return self._note(key, began, reads=False, value=value, expects=expects, failed=True)
        except KvError as error:
            if error.applied == "maybe":
                self._note(key, began, reads=False, value=value, expects=expects, sure=False)
            return None
        self.acknowledged += 1
        self._seen[key] = written.context, value
        return self._note(key, began, reads=False, value=value, expects=expects)

    def _note(
        self, key: str, began: int, *, reads: bool, value: bytes | None, expects: bytes = ANY,
        failed: bool = False, sure: bool = True,
    ) -> None:  # fmt: skip
        ended = time.monotonic_ns() if sure else FOREVER
        op = RegisterOp(
            number=self._number, client=self.name, reads=reads, value=value, expects=expects, failed=failed,
            sure=sure, invoked=began, ended=ended,
        )  # fmt: skip
        self.ops.setdefault(key, []).append(op)


def test_a_node_killed_under_strong_load_leaves_one_history(tmp_path: Path) -> None:
    """SIGKILL, restart, another SIGKILL while three clients compare-and-set: every key is linearizable."""
    print(f"KILL_SEED={SEED}")
    rng = random.Random(SEED)
    with Cluster(tmp_path, 3) as cluster:
        recorders = [Recorder(f"c{i}", SEED) for i in range(CLIENTS)]
        until = time.monotonic() + SECONDS

        def work(recorder: Recorder) -> None:
            with cluster.client() as client:
                recorder.run(client, until)

        threads = [threading.Thread(target=work, args=(recorder,)) for recorder in recorders]
        for thread in threads:
            thread.start()
        for _ in range(2):
            time.sleep(rng.uniform(0.3, 0.8))
            victim = rng.choice(cluster.names)
            cluster.kill(victim)
            time.sleep(rng.uniform(0.2, 0.6))
            cluster.start(victim)
            cluster.wait_up()
        for thread in threads:
            thread.join()
        with cluster.client() as client:
            for key in range(KEYS):
                recorders[0].read(client, f"r{key}")

    assert sum(recorder.acknowledged for recorder in recorders) > 15
    for key in range(KEYS):
        history = [op for recorder in recorders for op in recorder.ops.get(f"r{key}", [])]
        print(f"r{key}: {len(history)} operations, {sum(not op.sure for op in history)} unknown")
        assert linearizable(history), f"seed {SEED}: no order of r{key} explains what clients were told"


def test_strong_from_python(tmp_path: Path) -> None:
    """Put, compare-and-set, delete; other modes may read what they may not write."""
    with Cluster(tmp_path, 3) as cluster, cluster.client() as kv:
        kv.put("k", b"one", mode="strong", if_absent=True)
        with pytest.raises(Conflict):
            kv.put("k", b"two", mode="strong", if_absent=True)
        item = kv.get("k", mode="strong")
        assert item.value == b"one"
        second = kv.put("k", b"two", mode="strong", if_match=item.context)
        with pytest.raises(Conflict):
            kv.put("k", b"three", mode="strong", if_match=item.context)
        with pytest.raises(Conflict):
            kv.put("k", b"eventual")
        assert kv.get("k").value == b"two"
        kv.delete("k", mode="strong", if_match=second.context)
        with pytest.raises(NotFound):
            kv.get("k", mode="strong")


WITHIN_S = 0.9
"""Less than a connection to nobody takes to fail. A client that waited longer would not know what happened."""


@contextmanager
def minority(home: Path) -> Iterator[Cluster]:
    """One node of three that is left alone by the two others; their addresses take connections and say nothing."""
    with Cluster(home, 3) as cluster, ExitStack() as stack:
        with cluster.client() as kv:
            kv.put("k", b"old", mode="strong")
        for name in cluster.names[1:]:
            cluster.kill(name)
            host, port = cluster.addresses[name].split(":")
            stack.enter_context(socket.create_server((host, int(port))))
        with Client(cluster.addresses["n1"]) as one:
            deadline = time.monotonic() + 10
            while set(one.status(0.2).reports[0].avoided) != {"n2", "n3"}:  # type: ignore[union-attr]
                assert time.monotonic() < deadline, "nobody is missed"
        yield cluster


def test_a_minority_refuses_in_under_a_second_and_says_who_is_missing(tmp_path: Path) -> None:
    """Two of three are gone, the client is new: get, put and delete end with exit 6, well before a dial would."""
    with minority(tmp_path) as cluster:
        for endpoints in (cluster.addresses["n1"], cluster.endpoints):
            for key in ("k", "a", "b", "c"):  # each owner is the first of some key
                with (
                    Client(endpoints, WITHIN_S) as kv,
                    pytest.raises(Unavailable, match="n2, n3 cannot be") as told,
                ):
                    kv.put(key, b"lost", mode="strong")
                assert (told.value.applied, told.value.acked, told.value.exit) == ("no", 0, 6)
                with Client(endpoints, WITHIN_S) as kv, pytest.raises(Unavailable):
                    kv.get(key, mode="strong")

        async def both() -> None:
            async with AsyncClient(cluster.endpoints, WITHIN_S) as kv:
                with pytest.raises(Unavailable):
                    await kv.put("k", b"lost", mode="strong")
                with pytest.raises(Unavailable):
                    await kv.get("k", mode="strong")

        asyncio.run(both())


def test_the_command_line_in_a_minority_exits_with_6_in_time(tmp_path: Path, kvctl: Kvctl) -> None:
    """A get and a put of a fresh process: the coordinator says that there is no majority."""
    with minority(tmp_path) as cluster:
        at = ("--connect", cluster.endpoints, "--timeout", f"{WITHIN_S * 1000:.0f}ms")
        for words in (("get", "k"), ("put", "k", "lost"), ("delete", "k")):
            ran = kvctl(*words, "--mode", "strong", "-o", "json", *at)
            assert ran.code == 6, ran
            assert (ran.error["applied"], ran.error["acked"]) == ("no", 0)


def test_an_owner_that_was_down_gets_its_registers_and_all_tell_the_same(tmp_path: Path, kvctl: Kvctl) -> None:
    """Killed, written past, started, and then its disk lost: nobody reads; `wait converged` and `explain` tell."""
    (tmp_path / "fast.toml").write_text("repair_interval_ms = 1000\n")
    keys = [f"k{i}" for i in range(30)]
    with Cluster(tmp_path, 3, "--config", str(tmp_path / "fast.toml")) as cluster:
        at = ("--connect", cluster.endpoints, "-o", "json")

        def converge() -> None:
            ran = kvctl("wait", "converged", "--timeout", "60s", *at)
            assert ran.code == 0, ran.errors
            told = kvctl("explain", "k7", *at).json["replicas"]
            assert len({json.dumps(r["register"]["accepted"]) for r in told}) == 1, told
            with cluster.client() as client:
                reports = [r for r in client.status(roots=True).reports if r is not None]
                assert {(r.keys, r.value_bytes) for r in reports} == {(30, sum(len(k) + 4 for k in keys) + 30)}
                assert len({tuple(r.roots) for r in reports}) == 1

        with cluster.client() as client:
            for key in keys:
                client.put(key, b"old!", mode="strong")
        cluster.kill("n3")
        with cluster.client() as client:  # a new one: what is sent to a node that was just killed is in doubt
            for key in keys:
                client.put(key, b"newer", mode="strong")
        cluster.start("n3")
        cluster.wait_up()
        converge()

        cluster.kill("n3")
        shutil.rmtree(tmp_path / "n3")
        cluster.start("n3")
        cluster.wait_up()
        converge()
        cluster.kill("n1")
        with Client(cluster.addresses["n3"], 5.0) as client:
            assert [client.get(key, mode="strong").value for key in keys] == [b"newer"] * 30
