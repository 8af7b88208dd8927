"""`make numbers`: what failure costs, on five fresh nodes of this machine and in the simulator.

gossip    bytes a node sends a second, by the size of the cluster; how long a change takes to reach all
kill      requests that failed, and latency, while one of five nodes is killed under load
drain     how long 10,000 hints take, and what the foreground feels of it
repair    the cost of finding 100 differing keys among 100,000, and of finding none
storm     a hundred rounds of faults under load: writes acknowledged, and lost (`tests/storm.py`)
wipe      how long a node of 100,000 keys that lost its disk takes to be whole by anti-entropy alone
strong    500 histories of mode `strong`, 200 operations each, while nodes are killed, paused, cut off; judged
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from kvctl import Client, KvError
from kvctl.bench import Bench, Plan, Result
from kvnode import config
from kvnode.protocol.messages import DropHints, NodeReport, PauseRepair, RunRepair
from kvnode.protocol.types import Address, NodeId
from kvnode.sim.linear import linearizable
from kvnode.sim.world import World
from tests.procs import Cluster
from tests.storm import storm
from tests.strong_load import Load, Nemesis
from tests.test_failure import hints, owned_by, reports, states, until

VICTIM = "n3"
KEYS = 100_000
TOTALS = ("exchanges", "nodes_compared", "keys_compared", "keys_repaired", "bytes_sent", "failed")


# ---- in the simulator --------------------------------------------------------------------------


def gossip() -> None:
    """Bytes by cluster size, and the spread of a change among 200."""
    for nodes, seconds in ((5, 60), (50, 20), (200, 5), (1_000, 1)):
        per_s = bytes_of(World(seed=1, nodes=nodes, q=1024), seconds) / nodes / seconds
        print(f"gossip  {nodes:>5} nodes: {per_s:>9,.0f} bytes a node a second", flush=True)
    for seed in range(1, 4):
        took = spread(World(seed, nodes=200))
        print(f"gossip    200 nodes: a new life is known to all after {took:.1f} rounds", flush=True)


def bytes_of(world: World, seconds: int) -> int:
    """What all nodes of a world send in so many seconds, once each has heard of each."""
    members = [node.node.membership for node in world.nodes.values()]
    while not all(m.heard_of == len(members) - 1 for m in members):
        world.run(500)
    sent = 0
    send = world.network.send

    def count(sender: Address, to: Address, frames: Iterable[bytes | bytearray], *, once: bool) -> bool:
        nonlocal sent
        frames = list(frames)
        sent += sum(map(len, frames))
        return send(sender, to, frames, once=once)

    world.network.send = count  # type: ignore[method-assign]
    world.run(seconds * 1_000)
    return sent


def spread(world: World) -> float:
    """Rounds of a second until all of a world know that one of them began a new life."""
    world.run(3_000)
    world.crash("n100")
    world.run(500)
    world.restart("n100")
    begun = world.now_ms
    others = [node.node.membership for name, node in world.nodes.items() if name != "n100"]
    world.run_until(lambda: all(o.known_incarnation(NodeId("n100")) == 2 for o in others), within_ms=20_000)
    return (world.now_ms - begun) / config.GOSSIP_MS


# ---- on real processes -------------------------------------------------------------------------


def load(
    cluster: Cluster, seconds: float, in_flight: int, act: Callable[[], None] | None = None
) -> tuple[Result, list[int]]:
    """Half gets, half puts; `act` a second and a half after it begins, warm-up not counted."""
    with cluster.client() as client:
        bench = Bench(client, Plan(op="mixed", in_flight=in_flight, duration_s=seconds))
        bench.load()
        before = list(client.pump.session.retried)
        timer = threading.Timer(2.5, act) if act is not None else None
        if timer is not None:
            timer.start()
        result = bench.run()
        if timer is not None:
            timer.join()
        after = client.pump.session.retried
        return result, [b - a for a, b in zip(before, after, strict=True)]


def tell(what: str, result: Result, retried: list[int]) -> None:
    p50, p99, p999 = result.latency.percentiles_ms((50, 99, 99.9))
    failed = sum(result.errors.values())
    print(
        f"{what:<28} {result.ops_per_s:>7.0f}/s  p50 {p50:>6.2f}  p99 {p99:>6.1f}  p99.9 {p999:>7.1f} ms"
        f"  failed {failed} of {result.ops} {dict(result.errors) or ''}"
        f"  retried once {retried[0]}, more {retried[1]}",
        flush=True,
    )


def kill() -> None:
    """Calm, the kill itself, and life without it."""
    for in_flight in (16, 50):
        with five() as cluster:
            tell(f"kill    calm, {in_flight} in flight", *load(cluster, 6, in_flight))
            tell(
                f"kill    killed at 1.5 s of 6, {in_flight}",
                *load(cluster, 6, in_flight, lambda: cluster.kill(VICTIM)),
            )
            tell(f"kill    without it, {in_flight}", *load(cluster, 6, in_flight))


def drain() -> None:
    """10,000 hints for a node that comes back, under load."""
    with five() as cluster, cluster.client() as client:
        tell("drain   calm, 16 in flight", *load(cluster, 6, 16))
        cluster.kill(VICTIM)
        until(lambda: set(states(client, VICTIM).values()) == {"down"}, "down")
        number = 0
        while hints(client) < 10_000:
            put_all(client, {b"drain%07d" % i: b"v" * 100 for i in range(number, number + 2_000)})
            number += 2_000
        kept = hints(client)
        took: list[float] = []

        def back() -> None:
            cluster.start(VICTIM)
            with cluster.client() as watcher:
                until(lambda: VICTIM in reports(watcher), "back")
                begun = time.monotonic()
                until(lambda: hints(watcher) == 0, "drained", 120)
                took.append(time.monotonic() - begun)

        tell("drain   while they drain", *load(cluster, 6, 16, back))
        print(f"drain   {kept} hints in {took[0]:.1f} s after its first answer")


def repair() -> None:
    """100 of 100,000 keys differ on one of five nodes; then none; then its disk is lost."""
    for size in (100, 1_000):
        with five() as cluster, cluster.client() as client:
            pairs = {b"key:%07d" % i: b"v" * size for i in range(KEYS)}
            put_all(client, pairs)
            until(lambda: hints(client) == 0, "no hints")
            client.ask_each(lambda rid, _: PauseRepair(rid, paused=True))
            cluster.kill(VICTIM)
            until(lambda: set(states(client, VICTIM).values()) == {"down"}, "down")
            theirs = dict(list(owned_by(client, VICTIM, pairs).items())[::37][:100])
            put_all(client, dict.fromkeys(theirs, b"w" * size))
            client.ask_each(lambda rid, _: DropHints(rid, VICTIM))
            cluster.start(VICTIM)
            cluster.wait_up()
            data = sum(len(key) + size for key in theirs)
            for what in (f"{len(theirs)} of {KEYS} keys differ", "none differ"):
                cost, took = run_repair(client)
                share = (
                    f", {cost['bytes_sent'] / data:.1f} times their {data} bytes" if cost["keys_repaired"] else ""
                )
                print(f"repair  {size} B values, {what}: {cost} in {took:.1f} s{share}", flush=True)
            if size == 100:
                wipe(cluster, client)


def run_repair(client: Client) -> tuple[dict[str, int], float]:
    """Every exchange once; what all of them cost."""
    before = totals(client)
    begun = time.monotonic()
    client.ask_each(lambda rid, _: PauseRepair(rid, paused=False))
    client.ask_each(lambda rid, _: RunRepair(rid, -1))
    until(lambda: all(quiet(r) for r in reports(client).values()), "repaired", 120)
    after = totals(client)
    return {name: after[name] - before[name] for name in TOTALS}, time.monotonic() - begun


def quiet(report: NodeReport) -> bool:
    return report.repair is not None and not report.repair.active and not report.repair.waiting


def totals(client: Client) -> dict[str, int]:
    views = [report.repair for report in reports(client).values() if report.repair is not None]
    return {name: sum(getattr(view, name) for view in views) for name in TOTALS}


def wipe(cluster: Cluster, client: Client) -> None:
    """No hint, no read, no order: it asks the others by itself."""
    held = reports(client)[VICTIM].keys
    cluster.kill(VICTIM)
    for file in (cluster.home / VICTIM).iterdir():
        file.unlink()
    begun = time.monotonic()
    cluster.start(VICTIM)
    until(lambda: VICTIM in reports(client) and reports(client)[VICTIM].keys >= held, "all keys", 120)
    until(lambda: not reports(client)[VICTIM].recovering, "sure of itself", 120)
    print(f"wipe    {held} of {KEYS} keys, whole {time.monotonic() - begun:.1f} s after it was started")


def put_all(client: Client, pairs: dict[bytes, bytes]) -> None:
    failed = [outcome for outcome in client.put_many(pairs).values() if isinstance(outcome, KvError)]
    assert not failed, failed[0]


HISTORIES, LENGTH, LOAD_S = 500, 200, 420.0
SEED = int(os.environ.get("STRONG_SEED", str(random.SystemRandom().getrandbits(32))))


def strong() -> None:
    """Every key a linearizable register, whatever breaks; then its owners hold the same."""
    print(f"strong  STRONG_SEED={SEED}", flush=True)
    with five("--allow-faults", repair_interval_ms=5_000) as cluster:
        load, begun = Load(cluster.endpoints, HISTORIES, LENGTH, SEED), time.monotonic()
        with Nemesis(cluster, SEED) as nemesis:
            load.run(begun + LOAD_S)
        took = time.monotonic() - begun
        cluster.wait_up()
        agreed = roots_agree(cluster)
    ops = [op for history in load.histories for op in history.ops]
    unknown = sum(not op.sure for op in ops)
    print(
        f"strong  {load.done} of {HISTORIES} histories of {LENGTH} operations or more, {len(ops)} in all, "
        f"{unknown} unknown ({100 * unknown / len(ops):.2f} %), {len(ops) / took:.0f}/s for {took:.0f} s\n"
        f"strong  refused or not answered beside them: {dict(load.outcomes)}; faults: {dict(nemesis.counts)}\n"
        f"strong  all owners hold the same {agreed:.1f} s after the last fault",
        flush=True,
    )
    begun = time.monotonic()
    with ProcessPoolExecutor() as pool:
        verdicts = Counter(pool.map(linearizable, [history.ops for history in load.histories], chunksize=10))
    print(
        f"strong  linearizable {verdicts[True]}, not {verdicts[False]}, not judged {verdicts[None]}; "
        f"judged in {time.monotonic() - begun:.1f} s",
        flush=True,
    )
    if verdicts[False] or verdicts[None] * 100 >= HISTORIES or load.done < HISTORIES:
        sys.exit(f"strong  failed: STRONG_SEED={SEED}")


def roots_agree(cluster: Cluster) -> float:
    """Seconds until all owners of each partition have the same root."""
    begun = time.monotonic()

    def same() -> bool:
        roots: dict[int, set[bytes]] = {}
        told = [r for r in client.status(roots=True).reports if r is not None]
        for root in (root for report in told for root in report.roots):
            roots.setdefault(root.partition, set()).add(root.hash)
        return len(told) == len(cluster.names) and all(len(hashes) == 1 for hashes in roots.values())

    with cluster.client() as client:
        until(same, "the owners hold the same", 120)
    return time.monotonic() - begun


@contextmanager
def five(*flags: str, **settings: int) -> Iterator[Cluster]:
    """Five nodes in a directory of their own."""
    with tempfile.TemporaryDirectory() as home:
        file = Path(home) / "settings.toml"
        file.write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))
        with Cluster(Path(home), 5, *flags, "--config", str(file)) as cluster:
            yield cluster


PARTS = {part.__name__: part for part in (gossip, kill, drain, repair, storm, strong)}

if __name__ == "__main__":
    for name in sys.argv[1:] or PARTS:
        PARTS[name]()
