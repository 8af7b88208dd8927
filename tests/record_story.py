"""Records a story on a real cluster with the console's own sampler: what tests of screens replay.

    python -m tests.record_story tests/story.kvrec

Calm, a partition, healed; a node killed under load, hints, the node back, hints delivered.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from kvctl import Client, KvError, local
from kvctl.console.record import Recorder
from kvctl.console.sampler import Looker, Sampler
from tests.conftest import Kvctl, eventually

NODES = 5


class Load:
    """Some puts and gets a second, some in mode strong, until it is told to end."""

    def __init__(self, endpoints: str) -> None:
        self._endpoints = endpoints
        self._end = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        rng = random.Random(7)
        with Client(self._endpoints) as client:
            while not self._end.is_set():
                keys = [f"user:{rng.randrange(900)}" for _ in range(30)]
                client.put_many({key: b"%d" % rng.randrange(10**9) for key in keys})
                client.get_many(keys)
                try:
                    client.put(f"lock:{rng.randrange(20)}", b"held", mode="strong")
                except KvError:
                    pass  # refused by a minority, or outbid: part of the story
                self._end.wait(0.05)

    def end(self) -> None:
        """Stop."""
        self._end.set()
        self.thread.join()


def tell(kvctl: Kvctl, pause: Callable[[float], None]) -> None:
    """The story, by commands."""

    def run(*words: str) -> None:
        ran = kvctl(*words)
        assert ran.code == 0, (words, ran.errors)

    pause(12)
    run("fault", "partition", "n1,n2", "n3,n4,n5", "--for", "60s", "--yes")
    for node, value in (("n1", "milk"), ("n4", "bread")):
        # The first ones may meet peers that are not known to be gone yet.
        assert eventually(lambda node=node, value=value: kvctl("put", "--via", node, "cart:1", value).code == 0)
    pause(9)
    run("fault", "delay", "n5", "40ms", "--jitter", "10ms", "--for", "8s")
    pause(4)
    run("fault", "heal", "--all")
    pause(7)
    run("hints", "throttle", "60")
    run("fault", "kill", "n3", "--yes")
    pause(10)
    run("fault", "restart", "n3", "--yes")
    pause(4)
    run("hints", "throttle", "1000")
    pause(6)
    run("repair", "run")
    pause(3)


def main(path: Path) -> None:
    """Start a cluster, tell the story, record it."""
    with tempfile.TemporaryDirectory() as home:
        kvctl = Kvctl(Path(home))
        try:
            kvctl.up(NODES)
            os.environ["KVCTL_HOME"] = home
            cluster = local.load("local")
            recorder = Recorder(path)
            sampler = Sampler(Looker(cluster.addresses, cluster))
            load = Load(",".join(cluster.addresses))
            sampler.start(recorder.take)
            tell(kvctl, time.sleep)
            load.end()
            drained = eventually(lambda: kvctl("wait", "hints-drained", "--timeout", "1s").code == 0, 30)
            time.sleep(3)
            sampler.stop()
            recorder.close()
            print(f"{path}: {path.stat().st_size:,} bytes, hints drained: {drained}")
        finally:
            kvctl.end()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
