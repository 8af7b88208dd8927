"""Crash: nodes are killed under load, then all at once. Everything that was acknowledged is there."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from kvctl import Client, KvError

from .stage import Stage

TITLE = "Crash: SIGKILL one node, then all five, under load"
LOAD_S = 2.0


class Writer:
    """Writes ever new keys, and remembers which were acknowledged."""

    def __init__(self, client: Client, prefix: bytes, pause_s: float = 0.0) -> None:
        self._client = client
        self._pause_s = pause_s
        self._prefix = prefix
        self.acknowledged: dict[bytes, bytes] = {}
        self.failed = 0
        self.going = True

    def write(self) -> None:
        """Until told to stop."""
        number = 0
        while self.going:
            batch = {b"%s:%08d" % (self._prefix, number + i): b"paid %d" % (number + i) for i in range(50)}
            number += len(batch)
            for key, outcome in self._client.put_many(batch).items():
                if isinstance(outcome, KvError):
                    self.failed += 1
                else:
                    assert isinstance(key, bytes)
                    self.acknowledged[key] = batch[key]
            time.sleep(self._pause_s)


@contextmanager
def writing(writer: Writer) -> Iterator[None]:
    """Write in the background."""
    thread = threading.Thread(target=writer.write)
    thread.start()
    try:
        yield
    finally:
        writer.going = False
        thread.join()


def missing(client: Client, expected: dict[bytes, bytes], r: int | None = None) -> list[bytes]:
    """The keys that do not read back as they were written."""
    lost = []
    for key, item in client.get_many(list(expected), r=r).items():
        if isinstance(item, KvError) or not item.found or item.value != expected[bytes(key)]:  # type: ignore[arg-type]
            lost.append(bytes(key))  # type: ignore[arg-type]
    return lost


def tell(stage: Stage) -> None:
    """Kill one, kill all, bring back, read everything."""
    stage.title(TITLE)
    client = stage.client()
    writer = Writer(client, b"order")
    stage.say("A client writes new keys as fast as it can. In the middle of it, n3 is killed.")
    with writing(writer):
        time.sleep(LOAD_S / 2)
        stage.kvctl("fault", "kill", "n3")
        before = len(writer.acknowledged)
        time.sleep(LOAD_S / 2)
    after = len(writer.acknowledged) - before
    stage.say(
        f"{len(writer.acknowledged)} puts acknowledged, {after} of them after the kill; {writer.failed} failed."
    )
    stage.claim("writes went on with a node dead", after > 0)
    stage.claim("no acknowledged write is lost while it is down", not missing(client, writer.acknowledged))
    stage.kvctl("fault", "restart", "n3")
    stage.wait("n3", stage.all_up)

    stage.say("\nNow the power goes: all five nodes are killed in the middle of writing.")
    second = Writer(client, b"late")
    with writing(second):
        time.sleep(LOAD_S / 2)
        for node in ("n1", "n2", "n3", "n4", "n5"):
            stage.kvctl("fault", "kill", node, "--yes", show=False)
    client.close()
    acknowledged = writer.acknowledged | second.acknowledged
    stage.say("Nothing is left but five directories. Start them again:")
    stage.kvctl("up")
    stage.wait("all nodes up", stage.all_up)
    with stage.client() as client:
        lost = missing(client, acknowledged)
    stage.claim(f"all {len(acknowledged)} acknowledged writes are there after the restart", not lost)
