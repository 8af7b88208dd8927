"""The ways Riak lost data, as stories of ours: riak_test's kv679_* and sibling tests (RELIABILITY 1c).

All are about one rule: a dot is never given twice, and a context never covers what its reader did not
see, whatever a node forgets (PROTOCOL-CASES 1). The first is the example.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest

from kvnode.config import Settings
from kvnode.protocol.messages import Error
from kvnode.sim.world import World
from tests.stories import GRACE_MS, HASTY, all_is_well, held_back, mend, read_all, values


class Cast(NamedTuple):
    """Who plays what for key `k`: its owners in order, and a node that stands in for them."""

    first: str
    second: str
    third: str
    fallback: str


def stage(settings: Settings | None = None, seed: int = 1) -> tuple[World, Cast]:
    """Four nodes, one of which does not own `k`; what is lost on the way is lost for good."""
    world = World(seed, nodes=4, settings=settings or Settings())
    held_back(world)
    first, second, third = world.owners("k")
    return world, Cast(first, second, third, world.stranger("k"))


# ---- a coordinator that forgets what it minted (kv679) -----------------------------------------


@pytest.mark.parametrize("blind", [True, False])
def test_a_put_over_a_copy_its_coordinator_cannot_read_is_neither_dropped_nor_buries_anything(blind: bool) -> None:
    """kv679_dataloss: my copy is corrupt, so I begin a new clock; the others know a later one and drop
    my write; I had acknowledged it."""
    world, cast = stage()
    first = world.wait(world.put("k", "one", via=cast.first, w=3))
    world.settle()

    world.disk(cast.first).damage(b"k")
    put = world.put("k", "two", via=cast.first, w=1, siblings=blind, context=None if blind else first)
    assert world.wait(put).written
    world.settle()
    assert read_all(world).values == ([b"one", b"two"] if blind else [b"two"])
    all_is_well(world)


def test_a_put_over_an_unreadable_copy_is_refused_without_a_trace_while_another_owner_is_away() -> None:
    """kv679_dataloss: the owner that is away may have what the damaged copy had, so nothing may be minted."""
    world, cast = stage()
    world.wait(world.put("k", "one", via=cast.first, w=3))
    world.settle()
    world.crash(cast.third)
    world.run(3_000)

    world.disk(cast.first).damage(b"k")
    put = world.wait(world.put("k", "two", via=cast.first, w=1))
    assert put.failed.error == Error.UNAVAILABLE
    assert not put.failed.maybe_applied

    mend(world)
    world.wait(world.get("k", via=cast.first))  # finds the damage, and all who can mend it
    all_is_well(world)
    assert read_all(world).values == [b"one"]


def test_a_node_that_lost_a_key_and_learns_it_from_a_stale_fallback_reissues_no_dot() -> None:
    """kv679_dataloss_fb: a fallback still has (a,1), the owners are at (a,2); the coordinator loses its
    disk, reads the fallback alone and writes on: it must not call its write (a,2)."""
    world, cast = stage()
    world.crash(cast.second)
    one = world.wait(world.put("k", "one", via=cast.first, w=2))
    assert set(world.kept("k")) == {cast.fallback}
    world.partition({cast.fallback}, {cast.first, cast.second, cast.third})
    world.restart(cast.second)
    world.run(3_000)
    two = world.wait(world.put("k", "two", via=cast.first, w=3, context=one))
    assert two.written.actor == one.written.actor, "the story needs two dots of one actor"

    world.heal()
    world.partition({cast.second, cast.third}, {cast.first, cast.fallback})
    world.wipe(cast.first)
    world.restart(cast.first)
    world.run(3_000)
    seen = world.wait(world.get("k", via=cast.first, r=2))
    assert seen.values == [b"one"], "the story needs the stale fallback to be read"
    three = world.wait(world.put("k", "three", via=cast.first, w=1, context=seen))
    assert world.wait(world.put("k", "four", via=cast.first, w=1, context=three)).written

    all_is_well(world)
    assert read_all(world).values == [b"four", b"two"], "a context named a time of `two`'s actor, unseen"
    assert three.written.actor != one.written.actor


@pytest.mark.parametrize("seed", range(3))
def test_a_hint_handed_to_a_node_that_lost_the_key_brings_its_actor_back_but_not_its_pen(seed: int) -> None:
    """kv679_dataloss_fb2: the node gets its own old dot (a,1) back by hinted handoff, and writes: were the
    dot (a,2) again, there would be two values under one name. An epoch a key was not enough for Riak."""
    world, cast = stage(Settings(hint_age_ms=5_000), seed)
    world.crash(cast.second)
    one = world.wait(world.put("k", "one", via=cast.first, w=2))
    world.partition({cast.fallback}, {cast.first, cast.third})
    world.run(3_000)
    two = world.wait(world.put("k", "two", via=cast.first, w=2, context=one))
    assert two.written.actor == one.written.actor, "the story needs two dots of one actor"

    world.wipe(cast.first)
    world.crash(cast.third)
    world.heal()
    world.restart(cast.first)
    world.run_until(lambda: values(world.replicas("k"))[cast.first] == [b"one"])
    seen = world.wait(world.get("k", via=cast.first, r=1))
    three = world.wait(world.put("k", "three", via=cast.first, w=1, context=seen))
    assert world.wait(world.put("k", "four", via=cast.first, w=1, context=three)).written

    all_is_well(world)
    assert read_all(world).values == [b"four", b"two"], "a context named a time of `two`'s actor, unseen"
    assert three.written.actor != one.written.actor


def test_no_two_nodes_no_two_boots_and_no_two_keys_share_an_actor() -> None:
    """kv679_uid: two vnodes of one node had one actor. Every owner, a fallback that coordinates, three
    boots each: each (node, boot, key) mints under names of its own."""
    world = World(seed=1, nodes=4)
    minted: dict[int, tuple[str, int, str]] = {}
    for _ in range(3):
        for key in ("k", "l"):
            for via in world.owners(key):
                put = world.wait(world.put(key, f"{key} {via}", via=via, w=1))
                who = via, world.node(via).boot, key
                assert minted.setdefault(put.written.actor, who) == who, f"{who} and {minted[put.written.actor]}"
        owners = world.owners("k")
        world.crash(*owners)
        world.run(3_000)
        stranger = world.stranger("k")
        put = world.wait(world.put("k", "stood in", via=stranger, w=1))
        who = stranger, world.node(stranger).boot, "k"
        assert minted.setdefault(put.written.actor, who) == who
        world.restart(*owners)
        mend(world)
    all_is_well(world)


def test_a_node_on_a_new_disk_mints_under_no_actor_of_its_old_life() -> None:
    """kv679_uid: its disk is gone, it boots for the first time once more; its old dots live on elsewhere."""
    world, cast = stage()
    old = world.wait(world.put("k", "old", via=cast.first, w=3))
    world.wipe(cast.first)
    world.restart(cast.first)
    new = world.wait(world.put("k", "new", via=cast.first, w=3))
    assert new.written.actor != old.written.actor
    all_is_well(world)


# ---- old tombstones (kv679_tombstone) ----------------------------------------------------------


def test_a_tombstone_is_reaped_everywhere_and_the_key_can_be_written_again() -> None:
    """The good case: after the grace nothing of the key is left on any disk, and it begins anew."""
    world, cast = stage(HASTY)
    world.wait(world.put("k", "old", via=cast.first))
    world.wait(world.delete("k", via=cast.second))
    world.run(GRACE_MS)
    assert values(world.replicas("k")) == {key: [None] for key in cast[:3]}, "reaped before its time"

    world.run(90_000)
    assert values(world.replicas("k")) == {key: [] for key in cast[:3]}
    world.wait(world.put("k", "new", via=cast.third))
    world.run(GRACE_MS)
    assert read_all(world).values == [b"new"]


def test_a_tombstone_that_a_fallback_keeps_is_not_reaped_and_a_late_one_kills_no_new_value() -> None:
    """kv679_tombstone: deleted, reaped by the owners, written again; then a fallback comes back with the
    old tombstone. Two rules, each enough: no reaping while a hint is that old, and no actor used again."""
    world, cast = stage(HASTY)
    owners = set(cast[:3])
    world.wait(world.put("k", "old", via=cast.first, w=3))
    world.crash(cast.third)
    world.run(3_000)
    world.wait(world.delete("k", via=cast.first))
    world.partition({cast.fallback}, owners)
    world.restart(cast.third)
    world.run(2 * GRACE_MS)
    assert values(world.replicas("k")) == {key: [None] for key in cast[:3]}, "reaped in spite of the hint"

    for name in owners:  # reaped none the less: an operator removed the data directories
        world.wipe(name)
        world.restart(name)
    new = world.wait(world.put("k", "new", via=cast.first, w=3))
    assert new.written
    world.heal()
    mend(world)
    assert values(world.replicas("k"))[cast.first][-1] == b"new"
    assert read_all(world).values == [b"new"]


def test_a_tombstone_of_a_crashed_owner_is_waited_for_and_kills_no_new_value() -> None:
    """kv679_tombstone2: an owner that is down has the tombstone, the others would reap it, the key is
    written again, the owner comes back."""
    world, cast = stage(HASTY)
    world.wait(world.put("k", "old", via=cast.first, w=3))
    world.wait(world.delete("k", via=cast.first))
    world.settle()
    world.crash(cast.third)
    world.run(2 * GRACE_MS)
    assert values(world.replicas("k")) == {key: [None] for key in cast[:3]}, "reaped without the third owner"

    for name in cast[:2]:
        world.wipe(name)
        world.restart(name)
    assert world.wait(world.put("k", "new", via=cast.first, w=2)).written
    mend(world)
    assert read_all(world).values == [b"new"]


def test_an_owner_that_missed_the_delete_and_was_away_past_the_grace_does_not_undo_it() -> None:
    """Deleted values come back after an outage longer than the grace (Cassandra's gc_grace): not here,
    the tombstone waits for every owner."""
    world, cast = stage(Settings(grace_ms=GRACE_MS, scrub_interval_ms=1_000, hint_bytes=0))
    world.wait(world.put("k", "old", via=cast.first, w=3))
    world.settle()
    world.crash(cast.third)
    world.run(3_000)
    world.wait(world.delete("k", via=cast.first))
    world.run(3 * GRACE_MS)

    world.restart(cast.third)
    mend(world)
    assert read_all(world).values == []
    world.run(3 * GRACE_MS)
    assert values(world.replicas("k")) == {key: [] for key in cast[:3]}


# ---- siblings ----------------------------------------------------------------------------------


def test_a_hundred_interleaved_writes_of_five_clients_who_never_read_leave_five_siblings() -> None:
    """sibling_explosion: each writes over its own last one, through nodes that own the key and nodes that
    do not: five siblings, whatever the order; not a hundred, and none lost."""
    world = World(seed=1, nodes=5)
    names = [f"client {i}" for i in range(5)]
    last = {name: world.wait(world.put("k", f"{name}: 0", via="n1", siblings=True, client=name)) for name in names}
    for turn in range(1, 20):
        for i, name in enumerate(names):
            via = f"n{(turn + i) % 5 + 1}"
            last[name] = world.wait(world.put("k", f"{name}: {turn}", via=via, context=last[name], client=name))
    world.settle()
    assert read_all(world).values == [f"{name}: 19".encode() for name in names]
    all_is_well(world)


def test_two_clients_whose_reads_are_always_one_write_old_never_leave_more_than_two_siblings() -> None:
    """verify_dvv_repl: 100 read-modify-writes, each over a read made before the other's last write.
    Without dots each write would keep every earlier one it had seen as a false sibling."""
    world = World(seed=1, nodes=4)
    world.wait(world.put("k", "0", via="n1"))
    reads = [world.wait(world.get("k", via="n1")), world.wait(world.get("k", via="n2"))]
    for turn in range(100):
        who = turn % 2
        via = world.owners("k")[turn % 3]
        world.wait(world.put("k", f"{turn}", via=via, context=reads[who], w=3, client=f"c{who}"))
        reads[who] = world.wait(world.get("k", via=via, client=f"c{who}"))
        assert len(reads[who].values) <= 2
    all_is_well(world)
    assert read_all(world).values == [b"98", b"99"]
