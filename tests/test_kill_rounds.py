"""Real processes, real SIGKILL, at any moment, under load: nothing acknowledged is lost.

`KILL_ROUNDS=200 pytest tests/test_kill_rounds.py` is the long run (`make kill-rounds`).
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

from kvctl import Client, Item, KvError
from kvctl.requests import put
from kvctl.session import Call
from tests.procs import Cluster

ROUNDS = int(os.environ.get("KILL_ROUNDS", "6"))
SEED = int(os.environ.get("KILL_SEED", str(random.SystemRandom().getrandbits(32))))
IN_FLIGHT = 100
ANSWERED_S = 20


class Load:
    """New keys, each written once; which were acknowledged."""

    def __init__(self, client: Client) -> None:
        self._pump = client.pump
        self._number = 0
        self.acknowledged: dict[bytes, bytes] = {}
        self.unknown = 0

    def run(self, until: float) -> None:
        """Keep puts in flight until a moment."""
        session = self._pump.session
        while time.monotonic() < until:
            while session.in_flight < IN_FLIGHT:
                self._start()
            self._pump.turn(0.005)

    def drain(self) -> None:
        """Until every put has ended."""
        while self._pump.session.in_flight:
            self._pump.turn(0.01)

    def _start(self) -> None:
        self._number += 1
        key, value = b"k%09d" % self._number, b"v%d" % self._number
        ask = put(self._pump.session, key, value, 2.0, {})

        def ended(call: Call) -> None:
            if isinstance(call.outcome, KvError):
                self.unknown += 1
            else:
                self.acknowledged[key] = value

        self._pump.session.start(Call(ask, time.monotonic() + 2.0, notify=ended))


def lost(client: Client, acknowledged: dict[bytes, bytes]) -> list[str]:
    """Acknowledged keys that do not read back from a quorum, and what was read instead.

    A read that fails has not shown a loss: nodes that have just restarted may not have found each other
    yet. It is asked again until there is an answer, or `ANSWERED_S` have passed.
    """
    deadline = time.monotonic() + ANSWERED_S
    found = client.get_many(list(acknowledged), mode="quorum")
    while (failed := [key for key, item in found.items() if no_answer(item)]) and time.monotonic() < deadline:
        found |= client.get_many(failed, mode="quorum")
    return [f"{key!r}: {found[key]!r}" for key, value in acknowledged.items() if not holds(found[key], value)]


def no_answer(found: Item | KvError) -> bool:
    """Whether a read told nothing of its key."""
    return isinstance(found, KvError)


def holds(found: Item | KvError, value: bytes) -> bool:
    """Whether a read shows this value and no other."""
    return isinstance(found, Item) and found.found and found.value == value


def test_sigkill_of_any_node_or_of_all_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """A node, or every node at once, is killed at a random moment under load, again and again."""
    rng = random.Random(SEED)
    print(f"KILL_SEED={SEED} KILL_ROUNDS={ROUNDS}")
    with Cluster(tmp_path, 3) as cluster, cluster.client() as client:
        load = Load(client)
        for _ in range(ROUNDS):
            load.run(time.monotonic() + rng.uniform(0.02, 0.4))
            victims = list(cluster.names) if rng.random() < 0.25 else [rng.choice(cluster.names)]
            for name in victims:
                cluster.kill(name)
            load.run(time.monotonic() + rng.uniform(0.0, 0.1))
            for name in victims:
                cluster.start(name)
            cluster.wait_up()
        load.drain()
        assert len(load.acknowledged) > ROUNDS * 10
        missing = lost(client, load.acknowledged)
        print(f"{len(load.acknowledged)} acknowledged, {load.unknown} unknown, {len(missing)} lost")
        assert not missing, f"seed {SEED}: {len(missing)} of {len(load.acknowledged)} lost:\n" + "\n".join(
            missing[:5]
        )
