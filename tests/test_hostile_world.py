"""A cluster with a liar in it, with a node that never returns, with wrong clocks and wrong trees.

The first is the example. What one node does with one bad message: `test_hostile*.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from kvnode import config
from kvnode.config import Settings
from kvnode.core.membership import DOWN
from kvnode.protocol import messages as m
from kvnode.protocol.codec import NODE, PROTOCOL_VERSION, Greeting, encode_batches, encode_greeting
from kvnode.protocol.types import ALL, NodeId
from kvnode.sim.world import World
from tests.stories import GRACE_MS, HASTY, all_is_well, converge, held_back, mend, read_all, values

HOUR_MS = 3_600_000
HONEST = ("n2", "n3", "n4", "n5")
LIES_EACH_MS = 100
LATE = 1 << 61
"""A heartbeat later than any."""

Lie = Callable[[World], list[m.Message]]


class Liar:
    """n1, which is an honest node, with something else speaking in its name as well."""

    def __init__(self, world: World, lie: Lie) -> None:
        self._world = world
        self._lie = lie
        greeting = Greeting(PROTOCOL_VERSION, world.ring.cluster_id, NODE, NodeId("n1"), 1)
        self._greeting = encode_greeting(greeting)

    def speak(self, ms: int) -> set[str]:
        """Lie to everyone, ten times a second; who was DOWN to all honest members at some moment."""
        convicted: set[str] = set()
        for _ in range(ms // LIES_EACH_MS):
            for to in HONEST:
                frames = encode_batches(self._greeting, self._lie(self._world))
                self._world.network.send(NodeId("n1"), NodeId(to), frames, once=True)
            for wait_ms in (5, LIES_EACH_MS - 5):
                self._world.run(wait_ms)
                convicted |= {name for name in HONEST if down_everywhere(self._world, name)}
        return convicted


def down_everywhere(world: World, name: str) -> bool:
    """Whether every honest member but itself holds it to be down."""
    return all(world.node(n).node.membership.state(NodeId(name)) == DOWN for n in HONEST if n != name)


def entry(world: World, name: str, *suspects: m.Suspicion, life: int = 0, ahead: int = 0) -> m.Alive:
    """What a member might have said of itself."""
    node = world.node(name)
    incarnation = node.node.membership.incarnation + life
    return m.Alive(NodeId(name), incarnation, ahead, suspects, node.local.disk_id, node.boot, node.local.wall)


def everyone_is_down(world: World) -> list[m.Message]:
    """In its own name."""
    suspects = [m.Suspicion(NodeId(name), LATE, LATE) for name in HONEST]
    return [m.Beat(entry(world, "n1", *suspects, ahead=LATE + int(world.now_ms)))]


def everyone_lives_in_the_future(world: World) -> list[m.Message]:
    """A life of each that never was: whatever they say is from the past."""
    return [m.Gossip(tuple(entry(world, name, life=3, ahead=LATE) for name in HONEST))]


def everyone_has_just_spoken(world: World) -> list[m.Message]:
    """A heartbeat of this life that never was."""
    return [m.Gossip(tuple(entry(world, name, ahead=LATE + int(world.now_ms)) for name in HONEST))]


def everyone_accuses_n5(world: World) -> list[m.Message]:
    """In all others' names."""
    lie = m.Suspicion(NodeId("n5"), LATE, LATE)
    return [
        m.Gossip(
            tuple(entry(world, name, lie, ahead=LATE + int(world.now_ms)) for name in ("n1", "n2", "n3", "n4"))
        )
    ]


@pytest.mark.parametrize(
    "lie",
    [
        everyone_is_down,
        everyone_lives_in_the_future,
        everyone_has_just_spoken,
        everyone_accuses_n5,
    ],
)
def test_one_liar_of_five_makes_nobody_down_everywhere_and_stops_no_write(lie: Lie) -> None:
    """Ten lies a second for 20 s; clients of the honest nodes notice nothing; then all are up again."""
    world = World(seed=1, nodes=5)
    world.run(2_000)
    convicted = Liar(world, lie).speak(20_000)
    for via in HONEST:
        assert world.wait(world.put(via, "v", via=via)).written
        assert world.wait(world.get(via, via=via)).values == [b"v"]
    assert not convicted

    world.run(15_000)
    assert all(
        world.node(name).node.membership.state(NodeId(o)) == "up" for name in HONEST for o in HONEST if o != name
    )
    all_is_well(world)


# ---- a node that never returns -----------------------------------------------------------------


def test_a_flood_of_writes_for_a_node_that_never_returns_fills_no_disk_and_fails_no_client() -> None:
    """300 puts with one owner gone and room for some 40 hints a node: all acknowledged by the owners that
    are left, hints bounded, what nobody keeps is known to need repair; nothing acknowledged is lost."""
    world = World(seed=1, nodes=5, settings=Settings(hint_bytes=15_000))
    held_back(world)
    world.run(1_000)
    world.crash("n5")
    world.run(3_000)
    puts = [world.wait(world.put(f"key {i}", "v" * 20, via=f"n{i % 4 + 1}")) for i in range(300)]
    assert all(put.written.acked >= 2 for put in puts)
    world.run(10_000)
    nodes = [world.node(name).node for name in ("n1", "n2", "n3", "n4")]
    assert all(0 < node.hints.kept.bytes <= 15_000 for node in nodes)
    assert any((p, "n5") in node.hints.needs_repair for node in nodes for p in range(world.ring.q))
    kept = world.hinted
    world.run(60_000)
    assert world.hinted == kept, "a hint that was acknowledged is gone"

    all_is_well(world)
    assert all(
        set(values(world.replicas(f"key {i}"))["n5"]) == {b"v" * 20}
        for i in range(300)
        if "n5" in world.owners(f"key {i}")
    )


# ---- frames that come twice --------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_with_every_frame_twice_an_exchange_still_heals_and_costs_no_more_than_twice_as_much(seed: int) -> None:
    """Answers that were not asked for must not beget questions: that would double at every level."""
    costs = []
    for duplication in (0.0, 1.0):
        world = World(seed, settings=Settings(hint_bytes=0))
        held_back(world)
        world.run(1_000)
        world.crash("n3")
        world.run(3_000)
        for i in range(100):
            world.wait(world.put(f"key {i}", "v", via="n1"))
        world.network.duplication = duplication
        world.restart("n3")
        world.run(30_000)
        costs.append(sum(node.node.exchanges.totals.nodes_compared for node in world.nodes.values()))
        all_is_well(world)
    assert costs[1] <= 2 * costs[0] + 100, f"{costs[1]} tree nodes compared, not {costs[0]}"


# ---- wrong clocks ------------------------------------------------------------------------------


def test_clocks_seconds_apart_and_one_that_jumps_an_hour_undo_no_delete_and_lose_no_write() -> None:
    """Hints, exchanges and reaping go on while one clock is 5 s ahead, one 5 s behind, one an hour back
    for a while: deletes stay, writes stay, and tombstones go in the end."""
    settings = Settings(grace_ms=GRACE_MS, scrub_interval_ms=5_000, repair_interval_ms=10_000)
    world = World(seed=1, nodes=5, settings=settings)
    world.run(1_000)
    world.wall_skew("n2", 5_000)
    world.wall_skew("n3", -5_000)
    names = [f"key {i}" for i in range(20)]
    for name in names:
        world.wait(world.put(name, "old", via=world.owners(name)[0], w=ALL))
    world.crash("n5")
    world.run(3_000)
    for i, name in enumerate(names):
        via = next(owner for owner in world.owners(name) if owner not in ("n4", "n5"))
        put = world.delete(name, via=via) if i % 2 else world.put(name, "new", via=via)
        assert world.wait(put).written
    world.wall_skew("n4", -HOUR_MS)
    world.restart("n5")
    world.run(GRACE_MS)
    world.wall_skew("n4", 0)
    mend(world)
    assert [read_all(world, name).values for name in names] == [[b"new"], []] * 10

    world.run(GRACE_MS + 90_000)
    assert all(not any(world.replicas(name).values()) for name in names[1::2]), "not reaped"
    assert [read_all(world, name).values for name in names] == [[b"new"], []] * 10


@pytest.mark.parametrize("skew_ms", [HOUR_MS, -HOUR_MS])
def test_hints_kept_under_a_clock_an_hour_off_are_delivered_when_it_is_right_again(skew_ms: int) -> None:
    """Their age is judged by the holder's clock, their deadline by the owner's."""
    world = World(seed=1, nodes=4)
    held_back(world)
    world.run(1_000)
    stranger = world.stranger("k")
    away = world.owners("k")[2]
    world.wall_skew(stranger, skew_ms)
    world.crash(away)
    world.run(3_000)
    assert world.wait(world.put("k", "v", via=world.owners("k")[0])).written
    world.wall_skew(stranger, 0)
    world.restart(away)
    world.run(10_000)
    assert values(world.replicas("k"))[away] == [b"v"]
    all_is_well(world)


# ---- wrong trees -------------------------------------------------------------------------------


def test_trees_in_which_bits_have_flipped_are_counted_anew_and_the_data_is_untouched() -> None:
    """Twenty leaves of each node, of keys that are there and of ones that are not."""
    world = World(seed=1, settings=HASTY)
    names = [f"key {i}" for i in range(50)]
    for name in names:
        world.wait(world.put(name, name, via="n1", w=ALL))
    rng = Random(1)
    for node in world.nodes.values():
        for _ in range(20):
            ghost = rng.choice([rng.choice(names).encode(), b"%d" % rng.getrandbits(32)])
            node.disk.tree.change(ghost, b"", rng.randbytes(16))
    assert not world.converged

    converge(world)
    before = sum(node.node.exchanges.totals.keys_repaired for node in world.nodes.values())
    assert before == 0, "records were shipped that both sides had"
    all_is_well(world)


def test_a_wrong_leaf_hides_no_difference_for_longer_than_a_scrub() -> None:
    """The worst flip: n3 lacks a key, and its tree says that it has it, in just that version."""
    world = World(seed=1, settings=HASTY)
    held_back(world)
    world.wait(world.put("k", "v", via="n1", w=ALL))
    world.settle()
    held = world.disk("n1").get(b"k")
    assert held is not None
    world.wipe("n3")
    world.partition({"n3"}, {"n1", "n2"})
    world.restart("n3")
    world.disk("n3").tree.change(b"k", b"", held.digest)
    assert world.disk("n3").holds(b"k") == ()

    world.heal()
    world.run(3 * HASTY.scrub_interval_ms + 2 * HASTY.repair_interval_ms + config.VOUCH_MS)
    assert values(world.replicas("k"))["n3"] == [b"v"]
    all_is_well(world)
