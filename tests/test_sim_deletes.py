"""Deletes and expiry, in the simulator: when a tombstone may go, and that nothing comes back."""

from __future__ import annotations

import pytest

from kvnode.config import Settings
from kvnode.protocol.types import ALL
from kvnode.sim.world import World
from tests.test_sim_scenarios import values

GRACE_MS = 130_000
QUICK = Settings(grace_ms=GRACE_MS, repair_interval_ms=5_000, scrub_interval_ms=5_000)


def five(seed: int = 1) -> World:
    """Five nodes with a grace of 130 s, and walks and exchanges every few seconds."""
    world = World(seed, nodes=5, settings=QUICK)
    world.run(1_000)
    return world


def deleted(world: World, key: str = "k") -> None:
    """A key that was put on all its owners, then deleted on all."""
    first = world.owners(key)[0]
    put = world.wait(world.put(key, "v", via=first, w=ALL))
    assert world.wait(world.put(key, None, via=first, context=put, w=ALL)).written


def reaped(world: World, key: str = "k") -> bool:
    """Whether no owner holds anything of a key."""
    return not any(world.replicas(key).values())


def grave(world: World, key: str = "k") -> str:
    """Why its first owner keeps the tombstone."""
    return world.node(world.owners(key)[0]).node.own_state(key.encode()).grave


def test_a_tombstone_is_reaped_once_it_is_old_and_known_to_all() -> None:
    """After the grace and an exchange with each owner: every trace of the key is gone."""
    world = five()
    deleted(world)
    world.run(GRACE_MS - 20_000)
    assert "younger than the grace" in grave(world)
    assert not reaped(world)
    world.run(120_000)
    assert reaped(world)
    assert sum(node.local.counters["reaped"] for node in world.nodes.values()) == 3
    assert world.converged


HURRIED = Settings(write_deadline_ms=2_500, grace_ms=5_000, repair_interval_ms=1_000, scrub_interval_ms=1_000)


def test_where_no_write_lives_long_the_grace_may_be_short() -> None:
    """Five seconds, with writes that are refused after two and a half."""
    assert HURRIED.problems() == []
    world = World(1, nodes=5, settings=HURRIED)
    world.run(1_000)
    deleted(world)
    world.run(4_000)
    assert "younger than the grace" in grave(world)
    world.run(90_000)  # the next exchange of its partition: 256 of them take a minute
    assert reaped(world)
    assert world.converged


def test_a_grace_below_twice_the_write_deadline_is_refused() -> None:
    """A write on its way would outlive the tombstone that covers it."""
    (problem,) = Settings(grace_ms=5_000).problems()
    assert "grace_ms must be at least 120000" in problem
    assert len(Settings(write_deadline_ms=999).problems()) == 2, "and a request must not outlive it"
    assert Settings(write_deadline_ms=2_500).lasts(10_000) == 2_500
    assert Settings().lasts(0) == Settings().deadline_ms


def test_a_tombstone_waits_for_an_owner_that_is_down() -> None:
    """It may hold the value still: time alone never reaps."""
    world = five()
    first, _, third = world.owners("k")
    put = world.wait(world.put("k", "v", via=first, w=ALL))
    world.crash(third)
    world.run(3_000)
    world.wait(world.put("k", None, via=first, context=put))
    world.run(10 * GRACE_MS)
    assert not reaped(world)
    assert f"no exchange of its partition with {third}" in grave(world)
    world.restart(third)
    world.run(200_000)
    assert reaped(world)
    assert world.wait(world.get("k", via=third, r=ALL)).values == []


def test_a_tombstone_waits_for_a_fallback_that_may_keep_what_it_covers() -> None:
    """The value is hinted at a node that is cut off; the delete goes on without it (PROTOCOL-CASES 19)."""
    world = five()
    first, _, third = world.owners("k")
    world.crash(third)
    world.run(3_000)
    put = world.wait(world.put("k", "v", via=first, w=ALL))
    (holder,) = world.kept("k")
    world.settle()
    world.crash(holder)
    world.restart(third)
    world.run(1_000)
    world.wait(world.put("k", None, via=first, context=put))
    world.run(3 * GRACE_MS)
    assert not reaped(world)
    assert "hint" in grave(world)
    world.restart(holder)
    world.run(200_000)
    assert reaped(world)
    assert world.wait(world.get("k", via=third, r=ALL)).values == []


def test_a_key_written_again_after_its_tombstone_was_reaped_lives() -> None:
    """kv679_tombstone: an owner that was down all along brings the old tombstone; the new value stands."""
    world = five()
    deleted(world)
    world.run(GRACE_MS + 120_000)
    assert reaped(world)
    first = world.owners("k")[0]
    assert world.wait(world.put("k", "again", via=first, w=ALL)).written
    world.run(20_000)
    assert values(world.replicas("k")) == {owner: [b"again"] for owner in world.owners("k")}


def test_an_expired_value_is_reaped_like_a_tombstone_its_age_counted_from_its_expiry() -> None:
    """PROTOCOL-CASES 20: a value with a long life is not old the moment it dies."""
    world = five()
    first = world.owners("k")[0]
    assert world.wait(world.put("k", "v", via=first, w=ALL, ttl_ms=300_000)).written
    world.run(290_000)
    assert world.wait(world.get("k", via=first)).values == [b"v"]
    world.run(30_000)
    assert world.wait(world.get("k", via=first)).values == []
    assert not reaped(world)
    assert "younger than the grace" in grave(world)
    world.run(GRACE_MS + 120_000)
    assert reaped(world)


def test_a_record_with_one_live_sibling_is_never_reaped() -> None:
    """A delete that did not see a concurrent value leaves it."""
    world = five()
    first, second, _ = world.owners("k")
    put = world.wait(world.put("k", "v", via=first, w=ALL))
    world.wait(world.put("k", "other", via=second, w=ALL, siblings=True))
    world.wait(world.put("k", None, via=first, context=put, w=ALL))
    world.run(GRACE_MS + 200_000)
    assert world.wait(world.get("k", via=first, r=ALL)).values == [b"other"]
    assert grave(world) == ""


@pytest.mark.parametrize("seed", range(1, 6))
def test_no_delete_is_undone_by_whoever_was_away(seed: int) -> None:
    """Each owner in turn is down while a key is deleted and reaped; none of them brings it back."""
    world = five(seed)
    keys = [f"k{i}" for i in range(6)]
    for i, key in enumerate(keys):
        owners = world.owners(key)
        put = world.wait(world.put(key, "v", via=owners[0], w=ALL))
        away = owners[i % 3]
        world.crash(away)
        world.run(3_000)
        via = next(o for o in owners if o != away)
        assert world.wait(world.put(key, None, via=via, context=put)).written
        world.run(2_000)
        world.restart(away)
        world.run(2_000)
    world.run(GRACE_MS + 200_000)
    for key in keys:
        assert reaped(world, key), (key, grave(world, key))
        assert world.wait(world.get(key, via=world.owners(key)[1], r=ALL)).values == []
