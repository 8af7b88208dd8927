"""What the breaker does to a simulated cluster: as `kvctl fault` does it to a real one, seen from outside."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kvnode.protocol.types import ALL, NodeId
from kvnode.sim.breaker import Breaker
from kvnode.sim.case import Fault
from kvnode.sim.world import World
from tests.stories import all_is_well

N1, N2, N3 = (NodeId(f"n{i}") for i in (1, 2, 3))


def broken(kind: str, *nodes: str, lasts_ms: int = 1_000, **fields: object) -> tuple[World, Breaker]:
    """A world of three, one of which has this fault in 100 ms from its beginning."""
    world = World(1)
    fault = Fault(at_ms=100, lasts_ms=lasts_ms, kind=kind, nodes=nodes, **fields)  # type: ignore[arg-type]
    breaker = Breaker(world, (fault,))
    world.run(200)
    return world, breaker


def test_a_full_disk_stops_the_node_at_its_next_write_and_keeps_none_of_it() -> None:
    """It acknowledges nothing it could not keep, and starts again when there is room."""
    world, _ = broken("full-disk", "n1")
    assert world.node("n1").up, "reads need no room"

    put = world.wait(world.put("k", "v", via="n1", w=1, timeout_ms=300))

    assert not world.node("n1").up
    assert world.node("n1").why_down == "its disk failed"
    assert put.result is None
    assert world.disk("n1").holds(b"k") == ()
    world.run(1_500)
    assert world.node("n1").up
    assert world.wait(world.put("k", "v", via="n1")).written.acked >= 2
    all_is_well(world)


def test_a_disk_that_was_full_while_nobody_wrote_is_well_again() -> None:
    """The fault is over with its time, not with the next write."""
    world, _ = broken("full-disk", "n2", lasts_ms=150)
    world.run(500)

    world.wait(world.put("k", "v", via="n2", w=ALL))

    assert world.node("n2").up
    assert world.disk("n2").holds(b"k")


def test_sigterm_loses_nothing_that_was_written() -> None:
    """A node that is stopped commits what it took, and acknowledges it; one that is killed may forget it."""
    kept = {"stop": 0, "kill": 0}
    end: dict[str, Callable[[World], None]] = {
        "stop": lambda world: world.stop("n1"), "kill": lambda world: world.crash("n1"),
    }  # fmt: skip
    for kind, act in end.items():
        for seed in range(10):
            world = World(seed)
            world.disk("n1").stall(1_000)
            world.put("k", "v", via="n1", w=1)
            world.run(20)
            act(world)
            kept[kind] += bool(world.disk("n1").holds(b"k"))
    assert kept["stop"] == 10
    assert kept["kill"] < 10


@pytest.mark.parametrize("kind", ["delay", "drop", "duplicate", "reorder", "corrupt"])
def test_a_fault_of_a_link_strikes_what_one_node_says_to_the_other(kind: str) -> None:
    """Not what it hears, not what it says to a third, and not what clients say."""
    world, breaker = broken(kind, "n1", others=("n2",), amount=50)
    assert set(world.network.weather) == {(N1, N2)}
    world.run(1_500)
    assert world.network.weather == {}
    assert breaker.counts == {kind: 1}

    world, _ = broken(kind, "n1", amount=50)
    assert set(world.network.weather) == {(N1, N2), (N1, N3)}


def test_a_spoilt_frame_is_dropped_and_the_others_are_not() -> None:
    """What n1 says reaches nobody while it lasts; writes go on by way of the others."""
    world, _ = broken("corrupt", "n1", lasts_ms=20_000, amount=100)

    assert world.wait(world.put("k", "v", via="n2")).written.acked >= 2
    world.run(5_000)

    assert world.network.spoilt > 10
    assert world.wait(world.get("k", via="n3")).values == [b"v"]
    all_is_well(world)


def test_faults_of_one_kind_add_up_and_end_one_by_one() -> None:
    """Two faults of a clock are one of their sum, as in a real node; the first that ends leaves the other."""
    world = World(1)
    faults = (
        Fault(at_ms=100, lasts_ms=1_000, kind="skew", nodes=("n1",), amount=5_000),
        Fault(at_ms=200, lasts_ms=2_000, kind="skew", nodes=("n1", "n2"), amount=-2_000),
        Fault(at_ms=100, lasts_ms=1_000, kind="slow-disk", nodes=("n3",), amount=100),
        Fault(at_ms=200, lasts_ms=2_000, kind="slow-disk", nodes=("n3",), amount=50),
    )
    Breaker(world, faults)
    seen = []
    for at_ms in (150, 300, 1_200, 2_500):
        world.run(at_ms - (world.now_ms - 1_000))
        skews = [world.node(name).clock.skew_ms for name in ("n1", "n2")]
        seen.append((*skews, world.disk("n3").commit[0] // 10))
    assert seen == [(5_000, 0, 100), (3_000, -2_000, 150), (-2_000, -2_000, 50), (0, 0, 0)]
