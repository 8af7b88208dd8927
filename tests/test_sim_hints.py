"""Sloppy quorum and hinted handoff, in the simulator: writes go on, and owners get what they missed."""

from __future__ import annotations

import pytest

from kvnode.config import Settings
from kvnode.protocol.messages import Error
from kvnode.protocol.types import ALL
from kvnode.sim.world import World
from tests.test_sim_scenarios import values


def five(seed: int = 1, **settings: int) -> World:
    """Five nodes, three owners a key, heard of each other; anti-entropy too rare to help."""
    rare = {"repair_interval_ms": 3_600_000, **settings}
    world = World(seed, nodes=5, settings=Settings(**rare))  # type: ignore[arg-type]
    world.run(1_000)
    return world


def down(world: World, *names: str) -> None:
    """Kill nodes, and let everyone notice."""
    world.crash(*names)
    world.run(3_000)


def test_a_put_while_an_owner_is_down_is_kept_by_a_fallback_and_delivered_when_it_is_back() -> None:
    """Dynamo §4.6, in one story."""
    world = five()
    first, second, third = world.owners("k")
    down(world, third)
    put = world.wait(world.put("k", "v", via=first, w=ALL))
    assert put.written.acked == 3, "two owners and a fallback"
    (holder,) = world.kept("k")
    assert holder not in world.owners("k")
    assert world.hinted == 1
    world.restart(third)
    world.run_until(lambda: world.hinted == 0, within_ms=5_000)
    world.settle()
    assert values(world.replicas("k")) == {first: [b"v"], second: [b"v"], third: [b"v"]}
    assert world.kept("k") == {}


def test_an_owner_that_dies_with_a_write_on_its_way_gets_it_as_a_hint() -> None:
    """Nobody knew that it was down when the write left."""
    world = five()
    first, _, third = world.owners("k")
    put = world.put("k", "v", via=first)
    world.run_until(lambda: world.node(first).node.busy)
    world.crash(third)
    assert world.wait(put).written
    world.run(4_000)
    assert world.hinted == 1
    world.restart(third)
    world.converge()
    assert values(world.replicas("k"))[third] == [b"v"]


def test_a_hint_counts_toward_w_in_eventual_mode_only() -> None:
    """A quorum of owners is what `quorum` promises; the hint is kept all the same."""
    world = five()
    first, second, third = world.owners("k")
    down(world, second, third)
    assert world.wait(world.put("k", "v", via=first)).written.acked == 2
    strict = world.wait(world.put("k", "w", via=first, mode="quorum"))
    assert strict.failed.error == Error.UNAVAILABLE
    world.restart(second, third)
    world.converge()


def test_with_no_owner_in_reach_any_node_takes_the_put_and_it_reaches_all_owners() -> None:
    """Always writeable: two fallbacks hold it, each one vote, and a read finds it there."""
    world = five()
    owners = world.owners("k")
    down(world, *owners)
    stranger = world.stranger("k")
    put = world.wait(world.put("k", "v", via=stranger))
    assert put.written.acked == 2
    assert len(world.kept("k")) == 2
    assert world.wait(world.get("k", via=stranger)).values == [b"v"]
    more = world.wait(world.put("k", "w", via=stranger, context=put))
    assert more.written.acked == 2
    world.restart(*owners)
    world.converge()
    assert values(world.replicas("k")) == {owner: [b"w"] for owner in owners}


def test_what_a_fallback_does_not_know_is_not_absent() -> None:
    """R = 2 with two owners out: the fallbacks know nothing, which proves nothing."""
    world = five()
    first, second, third = world.owners("k")
    world.wait(world.put("k", "v", via=first, w=ALL))
    down(world, second, third)
    assert world.wait(world.get("k", via=first)).failed.error == Error.UNAVAILABLE
    assert world.wait(world.get("k", via=first, r=1)).values == [b"v"]
    down(world, first)
    assert world.wait(world.get("k", via=world.stranger("k"))).failed.error == Error.UNAVAILABLE
    world.restart(first, second, third)


def test_hints_of_a_key_are_one_merged_record() -> None:
    """A hundred puts of a key that has one owner out are one hint."""
    world = five()
    first, _, third = world.owners("k")
    down(world, third)
    context = None
    for i in range(100):
        context = world.wait(world.put("k", f"v{i}", via=first, context=context))
    world.settle()
    assert world.hinted == 1
    world.restart(third)
    world.converge()
    assert values(world.replicas("k"))[third] == [b"v99"]


def test_a_hint_that_grew_while_it_was_on_its_way_is_not_forgotten() -> None:
    """The ack names what was delivered; more came since (PROTOCOL-CASES 3)."""
    world = five()
    owners = world.owners("k")
    stranger = world.stranger("k")
    down(world, *owners)
    world.wait(world.put("k", "one", via=stranger))
    world.disk(owners[0]).commit = (4_000, 4_000)  # its acknowledgement will take 400 ms
    world.network.delay = (300, 300)
    world.restart(owners[0])
    world.run_until(lambda: any(node.node.hints.in_flight for node in world.nodes.values() if node.up))
    world.crash(owners[0])
    world.put("k", "two", via=stranger, siblings=True)
    world.run(2_000)
    world.restart(*owners)
    world.converge()
    assert sorted(values(world.replicas("k"))[owners[0]]) == [b"one", b"two"]  # type: ignore[type-var]


def test_an_acknowledged_hint_outlives_its_holder() -> None:
    """Kept means fsynced: every node is killed at once."""
    world = five()
    first, second, third = world.owners("k")
    down(world, second, third)
    assert world.wait(world.put("k", "v", via=first, w=2)).written
    world.crash(*(name for name, node in world.nodes.items() if node.up))
    world.restart(*world.nodes)
    world.converge()
    assert values(world.replicas("k")) == {owner: [b"v"] for owner in (first, second, third)}


def test_hints_are_bounded_and_a_full_holder_costs_a_vote_and_no_write() -> None:
    """What finds no room is noted as needing repair, and an exchange brings it."""
    world = five(hint_bytes=4_000)
    first, _, third = world.owners("k")
    down(world, third)
    keys = [f"k{i}" for i in range(400)]
    for key in keys:
        via = next(o for o in world.owners(key) if o != third)
        assert world.wait(world.put(key, "v" * 100, via=via)).written
    world.settle()
    for node in world.nodes.values():
        assert node.node.hints.kept.bytes <= 4_000
    missed = sum(len(node.node.hints.needs_repair) for node in world.nodes.values())
    assert missed > 0
    world.restart(third)
    world.converge()
    assert sum(len(node.node.hints.needs_repair) for node in world.nodes.values() if node.up) == 0
    assert first


def test_an_owner_away_for_too_long_is_left_to_anti_entropy() -> None:
    """Its hints go to the other owners, who acknowledge them, before they are forgotten."""
    world = five(hint_age_ms=10_000, repair_interval_ms=5_000)
    owners = world.owners("k")
    down(world, *owners)
    assert world.wait(world.put("k", "v", via=world.stranger("k"))).written
    world.restart(owners[0], owners[1])
    world.run_until(lambda: world.hinted == 1, within_ms=5_000)
    world.run(15_000)
    assert world.hinted == 0
    world.restart(owners[2])
    world.converge()
    assert values(world.replicas("k")) == {owner: [b"v"] for owner in owners}


def test_in_a_cluster_of_three_the_coordinator_keeps_the_hint_itself() -> None:
    """There is no other node: the copy is owed all the same, and it is no second vote."""
    world = World(seed=1, settings=Settings(repair_interval_ms=3_600_000))
    world.run(1_000)
    down(world, "n3")
    assert world.wait(world.put("k", "v", via="n1", w=ALL, timeout_ms=300)).failed.acked in (0, 2)
    assert world.wait(world.put("k", "v", via="n1")).written.acked == 2
    assert world.hinted >= 1
    world.restart("n3")
    world.run_until(lambda: world.hinted == 0, within_ms=5_000)
    world.settle()
    assert set(values(world.replicas("k"))["n3"]) == {b"v"}


@pytest.mark.parametrize("per_s", [100, 1_000])
def test_delivery_keeps_to_its_rate(per_s: int) -> None:
    """A node that comes back is not drowned by those who waited for it."""
    world = five(hints_per_s=per_s)
    _, _, third = world.owners("k")
    down(world, third)
    keys = [f"{i}" for i in range(600)]
    calls = [world.put(key, "v", via=next(o for o in world.owners(key) if o != third)) for key in keys]
    for call in calls:
        world.wait(call)
    world.settle()
    held = {name: node.node.hints.kept.count for name, node in world.nodes.items() if node.up}
    most = max(held.values())
    assert most > 100
    world.restart(third)
    world.run_until(lambda: world.node(third).up and any(n.node.hints.in_flight for n in world.nodes.values()))
    begun = world.now_ms
    world.run_until(lambda: world.hinted == 0, within_ms=120_000)
    took_s = (world.now_ms - begun) / 1_000
    assert took_s >= (most - per_s / 5 - 1) / per_s
    assert took_s <= 2 * most / per_s + 3
