"""Damage, missing copies and too much work, as riak_test has them (RELIABILITY 1c): verify_corruption_filtering,
partition_repair, verify_aae, overload. The first is the example.
"""

from __future__ import annotations

from random import Random

import pytest

from kvnode import config
from kvnode.config import Settings
from kvnode.core.rounds import Rounds
from kvnode.protocol.messages import Error, Failed, Written
from kvnode.sim.world import World
from tests.stories import HASTY, all_is_well, converge, held_back, read_all, values

NAMES = [f"key {i}" for i in range(24)]


def shipped(world: World) -> tuple[int, int]:
    """Records that exchanges have moved so far, and keys they have listed."""
    totals = [node.node.exchanges.totals for node in world.nodes.values()]
    return sum(t.keys_repaired for t in totals), sum(t.keys_compared for t in totals)


# ---- damaged copies (verify_corruption_filtering) ----------------------------------------------


def test_a_hint_for_an_owner_whose_copy_is_damaged_waits_until_that_is_healed() -> None:
    """Merged into nothing, it would count as a copy and lack what the damaged one had."""
    world = World(seed=1, nodes=5)
    first, second, third = world.owners("k")
    held_back(world)
    one = world.wait(world.put("k", "one", via=first, w=3))
    world.settle()
    world.crash(third)
    world.run(3_000)
    world.wait(world.put("k", "two", via=first, siblings=True))
    assert world.hinted

    world.disk(third).damage(b"k")
    world.partition({third}, {second})
    world.restart(third)
    world.run(6_000)
    assert world.hinted, "delivered over a damaged copy"
    world.heal()
    all_is_well(world)
    assert values(world.replicas("k"))[third] == [b"one", b"two"]
    assert one.written


@pytest.mark.parametrize("seed", range(2))
def test_damaged_copies_are_never_served_and_all_are_healed(seed: int) -> None:
    """Copies go bad, one of a key at a time, between and during gets, puts, scans, exchanges and hints."""
    world = World(seed, nodes=5, settings=HASTY)
    rng = Random(seed)
    last = {name: world.wait(world.put(name, f"{name}: 0", via="n1", w=3)) for name in NAMES}
    for turn in range(1, 80):
        name = rng.choice(NAMES)
        if turn in (20, 50):
            world.crash("n5")
        if turn in (35, 65):
            world.restart("n5")
        via = rng.choice([name for name, node in world.nodes.items() if node.up])
        whole = all(
            world.node(owner).up and world.disk(owner).holds(name.encode()) for owner in world.owners(name)
        )
        if whole:  # a second bad copy, or a bad one and one that is down, would be two lost of three
            world.disk(rng.choice(world.owners(name))).damage(name.encode())
        match rng.randrange(3):
            case 0:
                put = world.wait(world.put(name, f"{name}: {turn}", via=via, context=last[name]))
                last[name] = put if isinstance(put.result, Written) else last[name]
            case 1:
                got = world.wait(world.get(name, via=via))
                assert isinstance(got.result, Failed) or got.values, f"seed {seed}: {name} is gone"
            case _:
                scan = world.wait(world.scan(via))
                assert isinstance(scan.result, Failed) or len(scan.ops()) == len(NAMES), f"seed {seed}: {turn}"
        world.run(rng.choice((10, 500, 3_000)))
    world.run(3_000)
    all_is_well(world)
    bad = [
        (owner, name)
        for name in NAMES
        for owner in world.owners(name)
        if not world.disk(owner).holds(name.encode())
    ]
    assert not bad, f"seed {seed}: not healed"


def two_bad_copies() -> World:
    """Three owners; two copies of `k` go bad, the third is good; somebody reads through one of the two."""
    world = World(seed=1)
    world.wait(world.put("k", "v", via="n1", w=3))
    world.settle()
    world.disk("n1").damage(b"k")
    world.disk("n2").damage(b"k")
    return world


def test_two_damaged_copies_of_a_key_do_not_ask_each_other_for_ever() -> None:
    """The third owner is down, so neither can succeed: a few messages a second, not all there is time for."""
    world = two_bad_copies()
    held_back(world)
    world.crash("n3")
    world.wait(world.get("k", via="n1", r=1))
    world.run(5_000)
    assert sum(world.node(name).local.counters["unreadable"] for name in ("n1", "n2")) < 50


def test_two_damaged_copies_of_a_key_heal_from_the_third() -> None:
    """What the two had beyond the third is lost, and nothing can bring it; the key is not."""
    world = two_bad_copies()
    world.wait(world.get("k", via="n1", r=1))
    world.run(5_000)
    assert values(world.replicas("k")) == {key: [b"v"] for key in ("n1", "n2", "n3")}


@pytest.mark.parametrize("side", [0, 1, 2])
def test_an_exchange_that_meets_a_damaged_copy_heals_it_on_whichever_side_it_is(side: int) -> None:
    """The partition differs elsewhere too, so its keys are listed; nobody reads."""
    world = World(seed=1, settings=Settings(repair_interval_ms=2_000, hint_bytes=0))
    held_back(world)
    world.wait(world.put("k", "v", via="n1", w=3))
    world.settle()
    owner = world.owners("k")[side]
    other = next(name for name in world.owners("k") if name != owner)
    world.crash(owner)
    world.run(3_000)
    world.wait(world.put("k", "w", via=other, siblings=True))
    world.disk(owner).damage(b"k")
    world.restart(owner)
    world.run(20_000)
    assert values(world.replicas("k")) == {name: [b"v", b"w"] for name in world.owners("k")}
    all_is_well(world)


# ---- missing copies (partition_repair, verify_aae) ---------------------------------------------


def test_what_no_hint_and_no_read_brings_anti_entropy_does_and_then_is_quiet() -> None:
    """Fewer than N copies written, others out of date, no hint anywhere, nobody remembers what was missed
    (all nodes have been restarted): background rounds alone make all equal, then ship and list nothing."""
    world = World(seed=1, settings=Settings(repair_interval_ms=5_000, hint_bytes=0))
    held_back(world)
    for name in NAMES:
        world.wait(world.put(name, "old", via="n1", w=3))
    for away, part in (("n3", NAMES[:12]), ("n2", NAMES[8:20])):
        world.crash(away)
        world.run(3_000)
        for name in part:
            world.wait(world.put(name, f"new, without {away}", via="n1"))
            world.wait(world.put(f"only {away} lacks {name}", "v", via="n1"))
        world.crash("n1", *({"n2", "n3"} - {away}))
        world.restart("n1", "n2", "n3")
        world.run(1_000)
    assert world.hinted == 0
    assert not world.converged

    world.run(12_000)
    assert world.converged
    before = shipped(world)
    world.run(20_000)
    assert shipped(world) == before, "a round over equal trees listed keys or shipped records"
    all_is_well(world)


def test_a_partition_whose_data_is_gone_from_two_of_three_owners_comes_back_whole() -> None:
    """Two disks are lost, one after the other; one copy is left of everything; nobody reads."""
    world = World(seed=2, nodes=5, settings=Settings(repair_interval_ms=5_000))
    for name in NAMES:
        world.wait(world.put(name, name, via="n1", w=3))
    for name in ("n2", "n4"):
        world.wipe(name)
    world.restart("n2", "n4")
    converge(world)
    assert all(set(world.replicas(name)) == set(world.owners(name)) for name in NAMES)
    assert all(len(record) == 1 for name in NAMES for record in world.replicas(name).values())
    all_is_well(world)


def test_without_anti_entropy_the_same_story_ends_with_unequal_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail."""
    monkeypatch.setattr(Rounds, "_fill", lambda self: None)
    world = World(seed=2, nodes=5, settings=Settings(repair_interval_ms=5_000))
    for name in NAMES:
        world.wait(world.put(name, name, via="n1", w=3))
    world.wipe("n2")
    world.restart("n2")
    world.run(60_000)
    assert not world.converged


# ---- too much work (overload) ------------------------------------------------------------------


def test_a_node_sheds_what_is_too_much_at_once_and_keeps_what_it_took_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disks stand still for a second; of 20 puts four are taken on, the others are told at once that
    nothing of theirs was stored; the four are acknowledged, and the node is open again."""
    monkeypatch.setattr(config, "PENDING_MAX", 4)
    world = World(seed=1)
    world.run(1_000)
    for name in world.nodes:
        world.disk(name).stall(1_000)
    puts = [world.put(f"key {i}", "v", via="n1") for i in range(20)]
    world.run(100)
    shed = [put for put in puts if put.done()]
    assert len(shed) == 16
    assert all(put.failed.error == Error.OVERLOADED and not put.failed.maybe_applied for put in shed)

    for put in puts:
        world.wait(put)
    assert sum(isinstance(put.result, Written) for put in puts) == 4
    world.settle()
    assert len(world.final()) == 4, "something that was refused was stored"
    assert world.wait(world.put("later", "v", via="n1")).written
    all_is_well(world)


def test_shedding_reads_leaves_the_node_able_to_answer_its_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gets that wait for owners in silence fill n1; it still answers as a replica, so n2 serves its clients."""
    monkeypatch.setattr(config, "PENDING_MAX", 4)
    world = World(seed=1)
    held_back(world)
    world.wait(world.put("k", "v", via="n2", w=3))
    world.partition({"n2", "n3"}, {"n1"}, one_way=True)
    gets = [world.get("k", via="n1", r=3) for _ in range(10)]
    world.run(50)
    assert sum(isinstance(get.result, Failed) and get.failed.error == Error.OVERLOADED for get in gets) == 6

    world.heal()
    world.crash("n3")
    assert world.wait(world.get("k", via="n2", r=2)).values == [b"v"]
    all_is_well(world)
    assert read_all(world).values == [b"v"]
