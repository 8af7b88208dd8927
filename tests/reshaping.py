"""`make reshape`: what it costs to change the shape of a real cluster under load.

steps      3 to 6 nodes and back to 3, one by one: replicas moved against the optimum, balance after each step
join       a sixth node comes to five that hold 100,000 keys, unthrottled: time, failed requests, latency against
           calm, bytes moved against the data that must move, keys lost
replace    one of five that hold 60,000 keys is killed for good, and another takes its places: time, keys lost
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kvctl import Client, KvError
from kvctl.bench import Bench, Plan, Result
from kvctl.model import Item
from kvctl.shape import transfers
from kvnode.protocol.messages import ChangeKind, ClusterReport
from kvnode.protocol.ring import partition_of
from kvnode.protocol.types import encode_record
from tests.conftest import eventually
from tests.operators import Processes, processes

STEP_KEYS, JOIN_KEYS, REPLACE_KEYS, VALUE = 10_000, 100_000, 60_000, b"v" * 100
RATE, IN_FLIGHT, CALM_S = 500.0, 16, 10.0
UNTHROTTLED = "transfer_bytes_per_s = 0\n"
WITHIN_S = 300.0
Reshape = Callable[[Client], float]
"""Changes the shape; how long that took."""


@contextmanager
def fresh(count: int) -> Iterator[Processes]:
    """So many fresh nodes."""
    with tempfile.TemporaryDirectory() as path, contextmanager(processes)(Path(path), UNTHROTTLED) as cluster:
        cluster.found(count, q=256)
        assert eventually(lambda: whole(cluster, count), 30)
        yield cluster


def endpoints(cluster: Processes) -> str:
    return ",".join(cluster.addresses.values())


def whole(cluster: Processes, members: int) -> bool:
    """Whether so many members answer and count for every read."""
    try:
        with Client(endpoints(cluster)) as client:
            told = client.status().reports
    except KvError:
        return False
    return len(told) == members and all(r is not None and not r.recovering for r in told)


def filled(cluster: Processes, count: int) -> dict[bytes, bytes]:
    """Keys, acknowledged."""
    pairs = {b"kept:%07d" % i: VALUE for i in range(count)}
    with Client(endpoints(cluster)) as client:
        failed = [k for k, outcome in client.put_many(pairs).items() if isinstance(outcome, KvError)]
    assert not failed, f"{len(failed)} puts failed"
    return pairs


def under_load(cluster: Processes, what: str, reshape: Reshape | None = None) -> None:
    """Half gets, half puts at a steady rate, before or while the shape changes."""
    took: list[float] = []
    over = threading.Event()

    def act(reshape: Reshape) -> None:
        time.sleep(2.0)  # the warm-up of the bench is not counted
        try:
            with Client(endpoints(cluster)) as client:
                took.append(reshape(client))
        finally:
            over.set()

    def progress(_: float, __: int) -> None:
        if over.is_set():
            raise KeyboardInterrupt  # how a bench is ended early

    thread = threading.Thread(target=act, args=(reshape,)) if reshape is not None else None
    with Client(endpoints(cluster)) as client:
        seconds = CALM_S if reshape is None else WITHIN_S
        bench = Bench(client, Plan(op="mixed", in_flight=IN_FLIGHT, duration_s=seconds, rate=RATE))
        bench.load()
        before = list(client.pump.session.retried)
        if thread is not None:
            thread.start()
        result = bench.run(progress)
        if thread is not None:
            thread.join()
        retried = [after - b for after, b in zip(client.pump.session.retried, before, strict=True)]
    tell(what, result, retried)
    if took:
        print(f"{what:<20} done in {took[0]:.1f} s", flush=True)


def tell(what: str, result: Result, retried: list[int]) -> None:
    p50, p99 = result.latency.percentiles_ms((50, 99))
    print(
        f"{what:<20} {result.ops_per_s:>6.0f}/s  p50 {p50:>6.2f}  p99 {p99:>6.1f} ms  "
        f"failed {sum(result.errors.values())} of {result.ops}  retried once {retried[0]}, more {retried[1]}",
        flush=True,
    )


def ready(client: Client) -> bool:
    """Whether nothing is on its way, or left over."""
    try:
        told: ClusterReport = client.status()
    except KvError:
        return False
    busy = any(r is not None and r.moves is not None and r.moves.dropping for r in told.reports)
    return not (told.ring.moves or told.ring.leaving or busy)


def wait_ready(client: Client) -> None:
    """Looks twice a second: a status is work for every node."""
    deadline = time.monotonic() + WITHIN_S
    while not ready(client):
        assert time.monotonic() < deadline, "the moves do not end"
        time.sleep(0.5)


def lost(cluster: Processes, pairs: dict[bytes, bytes]) -> int:
    """Acknowledged keys that do not read back."""
    with Client(endpoints(cluster), 10.0) as client:
        read = client.get_many(list(pairs), mode="quorum")
    return sum(isinstance(item, KvError) or item.value != pairs[bytes(key)] for key, item in read.items())  # type: ignore[arg-type]


def steps() -> None:
    """Three nodes more, one by one, and three fewer."""
    joins = [(ChangeKind.JOIN, f"n{i}") for i in (4, 5, 6)]
    with fresh(3) as cluster:
        pairs = filled(cluster, STEP_KEYS)
        for kind, name in [*joins, *((ChangeKind.LEAVE, name) for _, name in reversed(joins))]:
            if kind == ChangeKind.JOIN:
                cluster.join(name)
            with Client(endpoints(cluster)) as client:
                step(client, kind, name)
            if kind == ChangeKind.LEAVE:
                del cluster.addresses[name]
        print(f"steps    lost {lost(cluster, pairs)} of {len(pairs)}")


def step(client: Client, kind: ChangeKind, name: str) -> None:
    """One change, from its plan to its end."""
    if kind == ChangeKind.JOIN:
        assert eventually(lambda: any(o.member.id == name for o in client.status().outside), 10)
    client.stage(kind, name)
    plan = client.plan()
    begun = time.monotonic()
    client.commit(plan, 10.0)
    wait_ready(client)
    took, ring = time.monotonic() - begun, client.status().ring
    held = [ring.places(member.id)[0] for member in ring.members]
    moves = sum(1 for _ in transfers(plan.ring))
    print(
        f"steps    {kind.name.lower():<5} {name}: {moves} replicas moved, {plan.optimum} needed, "
        f"{min(held)}..{max(held)} a node, {took:.1f} s",
        flush=True,
    )
    assert moves <= 1.05 * plan.optimum
    assert max(held) - min(held) <= 1


def join() -> None:
    """A sixth node."""
    with fresh(5) as cluster:
        pairs = filled(cluster, JOIN_KEYS)
        under_load(cluster, "join     calm")
        cluster.join("n6")
        moving: set[int] = set()

        def come(client: Client) -> float:
            begun = time.monotonic()
            assert eventually(lambda: any(o.member.id == "n6" for o in client.status().outside), 10)
            client.stage(ChangeKind.JOIN, "n6")
            plan = client.plan()
            moving.update(t.partition for t in transfers(plan.ring) if t.taker == "n6")
            client.commit(plan, 10.0)
            wait_ready(client)
            return time.monotonic() - begun

        under_load(cluster, "join     under load", come)
        with Client(endpoints(cluster)) as client:
            views = [r.moves for r in client.status().reports if r is not None and r.moves is not None]
            keys = [item.key for item in client.scan() if partition_of(item.key, 256) in moving]
            read = client.get_many(keys)
        received = sum(view.bytes_received for view in views)
        must = sum(
            len(item.key) + len(encode_record(item.record)) for item in read.values() if isinstance(item, Item)
        )
        print(
            f"join     {received:,} bytes moved of {len(keys)} keys, {received / must:.3f} times what had to; "
            f"lost {lost(cluster, pairs)} of {len(pairs)}"
        )


def replace() -> None:
    """A node that is gone for good."""
    with fresh(5) as cluster:
        pairs = filled(cluster, REPLACE_KEYS)
        under_load(cluster, "replace  calm")
        cluster.join("n6")

        def swap(client: Client) -> float:
            cluster.kill("n3")
            begun = time.monotonic()
            assert eventually(lambda: any(o.member.id == "n6" for o in client.status().outside), 10)
            client.stage(ChangeKind.REPLACE, "n3", "n6")
            client.commit(client.plan(), 10.0)
            wait_ready(client)
            return time.monotonic() - begun

        under_load(cluster, "replace  under load", swap)
        del cluster.addresses["n3"]
        print(f"replace  lost {lost(cluster, pairs)} of {len(pairs)}")


PARTS = {part.__name__: part for part in (steps, join, replace)}

if __name__ == "__main__":
    for name in sys.argv[1:] or PARTS:
        PARTS[name]()
