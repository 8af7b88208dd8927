"""`make elastic`: what a change of shape costs, on real nodes of this machine, by the commands a user has.

steps      3 to 6 nodes and back to 3, one by one: replicas moved against the optimum, balance after each step
join       a sixth node joins five that hold 100,000 keys, under load: time, bytes, latency; every key reads back
replace    one of five is killed for good, each holding some 60,000 keys; another takes its places, under load
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kvctl import Client, Item
from tests.conftest import Kvctl
from tests.numbers import KEYS, load, put_all, tell
from tests.test_failure import hints, states, until

IN_FLIGHT = 16
WINDOW_S = 4
VALUE = b"v" * 100
WAIT = "180s"


class Operator(Kvctl):
    """Someone at a shell, with a cluster that is gone afterwards."""

    limit_s = 240

    def told(self, *args: str) -> Any:
        """Run a command, which must succeed; what it printed."""
        ran = self(*args, "-o", "json")
        assert ran.code == 0, f"{args}: exit {ran.code}: {ran.errors}"
        return ran.json

    def client(self) -> Client:
        """A client of all nodes there are."""
        return Client(",".join(node["address"] for node in self.told("status")["nodes"]))

    def commit(self) -> dict[str, Any]:
        """Plan what is staged, and commit it."""
        plan: dict[str, Any] = self.told("cluster", "plan")
        self.told("cluster", "commit", plan["plan"], "--yes")
        return plan

    def settle(self) -> None:
        """Until nothing moves any more."""
        self.told("wait", "ring-ready", "--timeout", WAIT)

    def by_node(self, column: str) -> dict[str, int]:
        """A column of `status`, of the members."""
        nodes = self.told("status")["nodes"]
        return {node["id"]: node[column] for node in nodes if node["member"] != "outside"}


@contextmanager
def cluster(nodes: int) -> Iterator[Operator]:
    """So many nodes, for a while."""
    with tempfile.TemporaryDirectory() as home:
        operator = Operator(Path(home))
        try:
            operator.up(nodes)
            yield operator
        finally:
            operator.end()


@contextmanager
def filled(what: str) -> Iterator[tuple[Operator, Client, dict[bytes, bytes], float]]:
    """Five nodes with all the keys, equal copies, and the 99th percentile of a calm load in ms."""
    with cluster(5) as operator, operator.client() as client:
        pairs = {b"key:%07d" % i: VALUE for i in range(KEYS)}
        put_all(client, pairs)
        until(lambda: hints(client) == 0, "no hints")
        yield operator, client, pairs, window(f"{what:<7} calm", operator)


def steps() -> None:
    """Replicas moved against the optimum, and the balance, after each of six steps."""
    with cluster(3) as operator:
        pairs = {b"step:%06d" % i: VALUE for i in range(KEYS // 10)}
        with operator.client() as client:
            put_all(client, pairs)
        for change, name in (*(("join", f"n{i}") for i in (4, 5, 6)), *(("leave", f"n{i}") for i in (6, 5, 4))):
            if change == "join":
                operator.told("node", "add", name)
            operator.told("cluster", change, name)
            begun = time.monotonic()
            plan = operator.commit()
            operator.settle()
            took = time.monotonic() - begun
            held = operator.by_node("partitions").values()
            print(
                f"steps   {change:<5} {name}: {plan['replicas_moved']} replicas moved, optimum {plan['optimum']}, "
                f"{min(held)}..{max(held)} a node, {took:.1f} s",
                flush=True,
            )
            assert plan["replicas_moved"] <= 1.05 * plan["optimum"]
            assert max(held) - min(held) <= 1
        read_back(operator, pairs)


def join() -> None:
    """A sixth node, under load."""
    with filled("join") as (operator, client, pairs, calm):
        operator.told("node", "add", "n6")
        operator.told("cluster", "join", "n6")
        plan = operator.commit()
        busiest, took = meanwhile("join    moving", operator, operator.settle)
        held, received = operator.by_node("bytes"), moved(client)
        print(
            f"join    ring-ready {took:.1f} s after the commit; {plan['replicas_moved']} replicas; {received:,} "
            f"bytes received by transfers, {held['n6']:,} bytes of keys and values on n6 now; "
            f"p99 {busiest:.1f} ms at the worst, {calm:.1f} calm",
            flush=True,
        )
        read_back(operator, pairs)


def replace() -> None:
    """n3 is killed for good; n6 takes its places."""
    with filled("replace") as (operator, client, pairs, calm):
        operator.told("fault", "kill", "n3")
        until(lambda: set(states(client, "n3").values()) == {"down"}, "down")
        operator.told("node", "add", "n6")
        operator.told("cluster", "replace", "n3", "n6")
        begun = time.monotonic()
        operator.commit()
        busiest, took = meanwhile("replace moving", operator, operator.settle)
        operator.told("wait", "converged", "--timeout", WAIT)
        whole, held = time.monotonic() - begun, operator.by_node("keys")
        print(
            f"replace ring-ready {took:.1f} s, all owners equal {whole:.1f} s after the commit; "
            f"n6 holds {held['n6']:,} keys; p99 {busiest:.1f} ms at the worst, {calm:.1f} calm",
            flush=True,
        )
        read_back(operator, pairs)


def window(what: str, operator: Operator) -> float:
    """Some seconds of load, none of which may fail beyond one retry; its 99th percentile in ms."""
    result, retried = load(operator, WINDOW_S, IN_FLIGHT)
    tell(what, result, retried)
    assert not result.errors, result.errors
    assert not retried[1], retried
    return result.latency.percentiles_ms((99,))[0]


def meanwhile(what: str, operator: Operator, settle: Callable[[], None]) -> tuple[float, float]:
    """Load until something has settled: the worst window's 99th percentile in ms, and how long it took in s."""
    took: list[float] = []
    begun = time.monotonic()

    def wait() -> None:
        settle()
        took.append(time.monotonic() - begun)

    waiting = threading.Thread(target=wait)
    waiting.start()
    worst = 0.0
    while waiting.is_alive():
        worst = max(worst, window(what, operator))
    waiting.join()
    return worst, took[0]


def moved(client: Client) -> int:
    """Bytes that transfers brought, to all nodes."""
    reports = [report for report in client.status().reports if report is not None]
    return sum(report.moves.bytes_received for report in reports if report.moves is not None)


def read_back(operator: Operator, pairs: dict[bytes, bytes]) -> None:
    """Every key that was acknowledged, by a quorum of its owners."""
    with operator.client() as client:
        answers = client.get_many(pairs, mode="quorum")
    lost = [key for key, item in answers.items() if not isinstance(item, Item) or item.value != pairs[key]]
    print(f"        {len(pairs)} acknowledged keys read back by a quorum, {len(lost)} lost", flush=True)
    assert not lost, lost[:5]


PARTS = {part.__name__: part for part in (steps, join, replace)}

if __name__ == "__main__":
    for name in sys.argv[1:] or PARTS:
        PARTS[name]()
