"""Who is down, and since when everybody knows: the detector and gossip, in the simulator."""

from __future__ import annotations

import pytest

from kvnode.core.membership import DOWN, SUSPECT, UP
from kvnode.sim.world import World


def views(world: World, of: str) -> dict[str, str]:
    """What each node that is up concludes of a node."""
    return {
        name: node.node.membership.state(world.node(of).name)
        for name, node in world.nodes.items()
        if node.up and name != of
    }


def verdicts(world: World, what: str) -> list[str]:
    """Every change of state that some node concluded, and that ended so."""
    return [
        f"{name}: {event.text}"
        for name, node in world.nodes.items()
        for event in node.local.events.after(0)
        if event.kind == "liveness" and f"-> {what}" in event.text
    ]


@pytest.mark.parametrize("seed", range(1, 51))
def test_a_killed_node_is_down_everywhere_within_five_seconds(seed: int) -> None:
    """Each of 50 kills, at a moment of its own, in a cluster of five under no load."""
    world = World(seed, nodes=5)
    world.run(2_000 + 37 * seed)
    world.crash("n3")
    died = world.now_ms
    world.run_until(lambda: set(views(world, "n3").values()) == {DOWN}, within_ms=5_000)
    assert world.now_ms - died <= 5_000
    reporters = world.node("n1").node.membership.views()[1].suspected_by
    assert len(reporters) >= 2


def test_nobody_is_convicted_in_half_an_hour_where_one_frame_in_twenty_is_lost() -> None:
    """Lost heartbeats come by way of others, and phi knows how regular they are."""
    world = World(seed=1, nodes=5)
    world.network.loss = 0.05
    world.run(30 * 60_000)
    assert verdicts(world, DOWN) == []


def test_a_node_whose_disk_stands_still_for_a_second_is_not_suspected() -> None:
    """Heartbeats do not wait for the disk."""
    world = World(seed=1, nodes=5)
    world.run(2_000)
    world.disk("n2").stall(1_000)
    world.put("k", "v", via="n2")
    world.run(3_000)
    assert verdicts(world, DOWN) == verdicts(world, SUSPECT) == []


def test_a_broken_link_convicts_nobody() -> None:
    """n2 cannot hear n3, but hears of it: its heartbeats come by way of the others."""
    world = World(seed=1, nodes=5)
    world.run(2_000)
    world.partition({"n3"}, {"n2"}, one_way=True)
    world.run(20_000)
    assert verdicts(world, DOWN) == verdicts(world, SUSPECT) == []


@pytest.mark.parametrize(("nodes", "dead"), [(2, ["n2"]), (3, ["n2", "n3"]), (5, ["n2", "n3", "n4", "n5"])])
def test_the_last_one_up_needs_no_second_opinion(nodes: int, dead: list[str]) -> None:
    """Two observers, or all who are not suspects themselves (PROTOCOL-CASES 26)."""
    world = World(seed=1, nodes=nodes)
    world.run(2_000)
    world.crash(*dead)
    world.run(5_000)
    for name in dead:
        assert views(world, name) == {"n1": DOWN}


def test_a_node_that_comes_back_is_up_at_its_first_heartbeat() -> None:
    """A later life refutes whatever was thought of an earlier one."""
    world = World(seed=1, nodes=5)
    world.run(2_000)
    world.crash("n3")
    world.run(6_000)
    assert set(views(world, "n3").values()) == {DOWN}
    world.restart("n3")
    world.run(1_500)
    assert set(views(world, "n3").values()) == {UP}
    assert world.node("n3").node.membership.incarnation == 2


def test_a_node_that_flaps_is_kept_down_for_longer_each_time() -> None:
    """Each return within a minute costs it another second of beating."""
    world = World(seed=1, nodes=5)
    world.run(2_000)
    waits = []
    for _ in range(4):
        world.crash("n3")
        world.run_until(lambda: set(views(world, "n3").values()) == {DOWN}, within_ms=6_000)
        world.restart("n3")
        back = world.now_ms
        world.run_until(lambda: set(views(world, "n3").values()) == {UP}, within_ms=20_000)
        waits.append(world.now_ms - back)
    assert waits[0] < 1_000
    assert waits[3] > waits[0] + 1_000


def test_a_node_that_stood_still_convicts_nobody_when_it_goes_on() -> None:
    """It was not listening: the silence was its own."""
    world = World(seed=1, nodes=5)
    world.run(2_000)
    world.pause("n1")
    world.run(30_000)
    world.resume("n1")
    world.run(300)
    assert not world.node("n1").local.peers.suspected
    world.run(5_000)
    assert [v for v in verdicts(world, DOWN) if v.startswith("n1:")] == []


def test_a_change_reaches_all_of_two_hundred_nodes_within_ten_rounds() -> None:
    """Gossip alone, each second to five others: a new life of one node is known to all."""
    world = World(seed=1, nodes=200, n=3, q=256)
    world.run(3_000)
    world.crash("n100")
    world.run(500)
    world.restart("n100")
    begun = world.now_ms

    def known() -> bool:
        return all(
            node.node.membership.known_incarnation(world.node("n100").name) == 2
            for name, node in world.nodes.items()
            if name != "n100"
        )

    world.run_until(known, within_ms=10_000)
    assert world.now_ms - begun <= 10_000


def test_a_node_whose_clock_is_an_hour_off_coordinates_nothing_until_it_is_right() -> None:
    """It would date writes that nobody could write over for an hour; the others are not misled."""
    world = World(seed=1)
    world.run(1_000)
    world.wall_skew("n1", 3_600_000)
    world.run(1_000)
    refused = world.wait(world.put("k", "v", via="n1"))
    assert "3600 s ahead" in refused.failed.message or "3599 s ahead" in refused.failed.message
    assert world.wait(world.put("k", "v", via="n2")).written
    world.wall_skew("n1", 0)
    world.run(1_000)
    assert world.wait(world.put("k", "w", via="n1")).written
