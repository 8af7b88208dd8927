"""Read repair, Merkle anti-entropy and lost disks, in the simulator: replicas become whole again."""

from __future__ import annotations

from collections import Counter

import pytest

from kvnode.config import Settings
from kvnode.core.recovery import Recovery
from kvnode.core.versions import held_of
from kvnode.protocol import messages as m
from kvnode.protocol.messages import Error
from kvnode.protocol.types import ALL, Version
from kvnode.sim.clock import WALL
from kvnode.sim.world import World
from tests.test_sim_scenarios import values

RARE = Settings(repair_interval_ms=3_600_000)
OFTEN = Settings(repair_interval_ms=2_000)


def three(settings: Settings = RARE, seed: int = 1) -> World:
    """Three nodes that own everything and have heard of each other."""
    world = World(seed, settings=settings)
    world.run(1_000)
    return world


def fill(world: World, keys: int, *, nodes: tuple[str, ...] = ("n1", "n2", "n3"), value: bytes = b"v") -> None:
    """Put keys on disks behind the nodes' backs, the same versions on each."""
    for i in range(keys):
        for name in nodes:
            plant(world, name, b"key%06d" % i, value)


def plant(world: World, name: str, key: bytes, value: bytes, time: int = 1) -> None:
    """One version on one disk, as if it had been there for long."""
    disk = world.disk(name)
    held = held_of((Version(99, (WALL + time) << 16, {}, value),))
    disk.plant(key, held)


def repair(world: World) -> Counter[str]:
    """Run every exchange once, by an operator's order; what it cost in all."""
    before = totals(world)
    for name, node in world.nodes.items():
        if node.up:
            world.order(name, m.RunRepair(1, -1))
    world.run(100)
    world.run_until(lambda: all(n.node.rounds.quiet for n in world.nodes.values() if n.up), within_ms=120_000)
    after = totals(world)
    return Counter({name: after[name] - before[name] for name in after})


def totals(world: World) -> Counter[str]:
    """What all exchanges of all nodes have cost so far."""
    total: Counter[str] = Counter()
    for node in world.nodes.values():
        view = node.node.rounds.view()
        for name in ("exchanges", "nodes_compared", "keys_compared", "keys_repaired", "bytes_sent", "failed"):
            total[name] += getattr(view, name)
    return total


# ---- read repair -------------------------------------------------------------------------------


def test_a_read_that_finds_a_stale_owner_mends_it_after_the_reply() -> None:
    """n3 missed a write; one read of all, and it has it."""
    world = three()
    fill(world, 1)
    plant(world, "n1", b"key000000", b"new", time=5)
    plant(world, "n2", b"key000000", b"new", time=5)
    world.disk("n1").forget(b"key000000", b"v")
    world.disk("n2").forget(b"key000000", b"v")
    got = world.wait(world.get(b"key000000", via="n1", r=ALL))
    assert set(got.values) == {b"v", b"new"}
    world.settle()
    assert len(set(map(str, values(world.replicas(b"key000000")).values()))) == 1
    assert world.node("n1").local.counters["read_repairs"] >= 1


def test_a_read_of_equal_copies_writes_nothing() -> None:
    """verify_no_writes_on_read."""
    world = three()
    fill(world, 1)
    for _ in range(10):
        world.wait(world.get(b"key000000", via="n2", r=ALL))
    world.settle()
    assert all(node.local.counters["read_repairs"] == 0 for node in world.nodes.values())
    assert all(node.disk.written == 0 for node in world.nodes.values())


def test_a_quorum_read_shows_only_what_a_majority_then_holds() -> None:
    """Only n3 has a value whose writer failed. One reader sees it through n3; n3 dies; so does the next."""
    world = three()
    fill(world, 1)
    plant(world, "n3", b"key000000", b"new", time=5)
    first = world.wait(world.get(b"key000000", via="n3", mode="quorum"))
    assert set(first.values) == {b"v", b"new"}
    world.crash("n3")
    second = world.wait(world.get(b"key000000", via="n1", mode="quorum"))
    assert set(second.values) == {b"v", b"new"}
    assert world.node("n1").local.counters["write_backs"] == 0, "a majority has it already"


def test_a_quorum_read_that_cannot_be_written_back_is_not_answered() -> None:
    """n3 alone has a value, and the disks it writes back to stand still: its reader is told nothing."""
    world = three()
    fill(world, 1)
    plant(world, "n3", b"key000000", b"new", time=5)
    world.disk("n1").stall(2_000)
    world.disk("n2").stall(2_000)
    call = world.wait(world.get(b"key000000", via="n3", mode="quorum", timeout_ms=500))
    assert call.failed is not None
    assert call.failed.error == Error.INDETERMINATE
    assert not call.failed.maybe_applied


# ---- anti-entropy ------------------------------------------------------------------------------


def test_equal_replicas_cost_one_root_each() -> None:
    """Whatever they hold: 48 exchanges, 48 roots, no key."""
    world = three()
    fill(world, 2_000)
    cost = repair(world)
    assert cost["exchanges"] == 16 * 3
    assert cost["nodes_compared"] == cost["exchanges"]
    assert cost["keys_compared"] == cost["keys_repaired"] == 0


def test_the_cost_of_an_exchange_follows_the_difference_and_not_the_data() -> None:
    """20 of 5,000 keys differ: each costs its way down the tree and a handful of keys."""
    world = three()
    fill(world, 5_000)
    for i in range(0, 5_000, 250):
        plant(world, "n1", b"key%06d" % i, b"newer", time=9)
    cost = repair(world)
    assert cost["keys_repaired"] >= 20 * 2
    assert cost["keys_compared"] <= 20 * 4
    assert world.converged
    again = repair(world)
    assert again["keys_compared"] == 0


def test_what_each_side_lacks_goes_both_ways() -> None:
    """A key here, another there, a third in two versions: the merge everywhere."""
    world = three()
    plant(world, "n1", b"a", b"1")
    plant(world, "n2", b"b", b"2")
    plant(world, "n1", b"c", b"3", time=3)
    plant(world, "n2", b"c", b"4", time=4)
    repair(world)
    repair(world)
    assert world.converged
    assert {k: sorted(v["n3"][i].value or b"" for i in range(len(v["n3"]))) for k, v in world.final().items()} == {
        b"a": [b"1"], b"b": [b"2"], b"c": [b"3", b"4"],
    }  # fmt: skip


def test_replicas_become_whole_with_nobody_reading_and_nobody_asking() -> None:
    """verify_aae: fewer than N copies written, others out of date; in the background, by itself."""
    world = three(OFTEN)
    fill(world, 500, nodes=("n1", "n2"))
    fill(world, 200, nodes=("n2",), value=b"other")
    world.converge()
    assert len(world.disk("n3").keys) == 500
    quiet = totals(world)
    world.run(10_000)
    more = totals(world) - quiet
    assert more["exchanges"] > 100
    assert more["keys_compared"] == 0, "it goes quiet once all is equal"


@pytest.mark.parametrize("after", range(1, 9))
def test_an_exchange_that_is_cut_at_any_step_is_made_good_by_the_next(after: int) -> None:
    """The link breaks after the first message, the second, ...; nothing is lost or left half done."""
    world = three(OFTEN)
    fill(world, 300, nodes=("n1", "n2"))
    heard = 0
    n3 = world.node("n3")
    arrive = n3.arrive

    def count(sender: object, frame: bytes) -> None:
        nonlocal heard
        if heard < after and (heard := heard + (len(frame) > 120)) == after:
            world.partition({"n3"}, {"n1", "n2"})
        arrive(sender, frame)  # type: ignore[arg-type]

    n3.arrive = count  # type: ignore[method-assign,assignment]
    world.run(8_000)
    assert heard >= after
    world.heal()
    world.converge()
    assert len(world.disk("n3").keys) == 300


def test_repair_keeps_to_its_throttle() -> None:
    """A wiped node's megabyte at 50 KB a second and node takes its time, and comes."""
    world = three(Settings(repair_interval_ms=2_000, repair_bytes_per_s=50_000))
    fill(world, 2_000, nodes=("n1", "n2"), value=b"v" * 500)
    begun = world.now_ms
    world.converge(within_ms=300_000)
    sent = totals(world)["bytes_sent"]
    took_s = (world.now_ms - begun) / 1_000
    assert sent > 1_000_000
    assert sent / took_s < 3 * 50_000 * 1.5
    assert took_s < 120


def test_a_leaf_that_went_wrong_is_counted_anew() -> None:
    """Bit rot in the tree itself: two equal replicas that seem to differ; the scrubber sees to it."""
    world = three(Settings(repair_interval_ms=3_600_000, scrub_interval_ms=1_000))
    fill(world, 200)
    world.disk("n2").tree.change(b"ghost", b"", b"x" * 16)
    assert not world.converged
    world.run(60_000)
    assert world.converged
    assert world.node("n2").local.counters["leaves_mended"] == 1


def test_a_copy_that_rots_is_mended_with_nobody_reading_it() -> None:
    """The scrubber reads everything in time, and what fails its checksum comes from the other owners."""
    world = three(Settings(repair_interval_ms=3_600_000, scrub_interval_ms=1_000))
    fill(world, 50)
    world.disk("n2").damage(b"key000007")
    world.run(60_000)
    assert values(world.replicas(b"key000007"))["n2"] == [b"v"]


# ---- a disk that was lost ----------------------------------------------------------------------


def test_a_wiped_node_does_not_turn_an_acknowledged_write_into_not_found() -> None:
    """Acked by n1 and n2, n2 loses its disk: n2 and n3 are no quorum (PROTOCOL-CASES 10)."""
    world = three()
    world.partition({"n3"}, {"n1", "n2"})
    put = world.wait(world.put("k", "v", via="n1", mode="quorum"))
    assert put.written.acked == 2
    world.heal()
    world.crash("n1")
    world.node("n1").disk.drop_hints()
    world.wipe("n2")
    world.restart("n2")
    world.run(8_000)
    got = world.wait(world.get("k", via="n3", mode="quorum"))
    assert got.failed.error == Error.UNAVAILABLE
    assert world.node("n2").local.recovering
    world.restart("n1")
    world.run_until(lambda: not world.node("n2").local.recovering)
    assert world.wait(world.get("k", via="n2", mode="quorum")).values == [b"v"]
    world.converge()


def test_without_that_guard_the_story_ends_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that is sure of itself on any disk: the same story must fail."""
    monkeypatch.setattr(Recovery, "_begin", lambda *_: set())
    monkeypatch.setattr(Recovery, "on_disk_remembered", lambda *_: None)
    with pytest.raises(AssertionError):
        test_a_wiped_node_does_not_turn_an_acknowledged_write_into_not_found()


def test_a_wiped_node_takes_writes_at_once_and_they_count() -> None:
    """It lost what it had; what it is given now it holds."""
    world = three()
    world.wipe("n2")
    world.restart("n2")
    world.run(200)
    world.crash("n3")
    world.run(200)
    assert world.wait(world.put("k", "v", via="n1")).written.acked >= 2
    world.restart("n3")
    world.converge()


def test_a_wiped_node_is_whole_by_anti_entropy_alone() -> None:
    """No read, no hint, no operator: it asks every other owner by itself."""
    world = three()
    fill(world, 3_000)
    world.wipe("n2")
    world.restart("n2")
    begun = world.now_ms
    world.run_until(lambda: len(world.disk("n2").keys) == 3_000, within_ms=60_000)
    world.run_until(lambda: not world.node("n2").local.recovering, within_ms=60_000)
    assert world.now_ms - begun < 60_000
    assert world.converged


def test_amnesia_outlives_a_crash() -> None:
    """Half way through its exchanges it is killed: it does not come back sure of itself."""
    world = three()
    fill(world, 3_000)
    world.wipe("n2")
    world.restart("n2")
    world.run_until(lambda: 0 < len(world.disk("n2").keys) < 3_000, within_ms=60_000)
    world.crash("n2")
    world.restart("n2")
    assert world.node("n2").local.recovering
    world.converge()
    world.run_until(lambda: not world.node("n2").local.recovering, within_ms=60_000)


def test_a_new_node_among_new_nodes_counts_once_all_have_vouched_for_it() -> None:
    """Founding a cluster: nobody remembers another disk of anyone."""
    world = World(seed=1, nodes=5, founded=False)
    assert all(node.local.recovering for node in world.nodes.values())
    world.run(1_000)
    assert not any(node.local.recovering for node in world.nodes.values())
    assert world.wait(world.put("k", "v", via="n1", mode="quorum")).written


def test_a_copy_of_a_disk_from_the_past_stops_the_node() -> None:
    """Someone restored a backup: deletes made since would come undone."""
    world = three()
    backup = world.disk("n2").snapshot()
    for _ in range(3):
        world.crash("n2")
        world.restart("n2")
        world.run(2_000)
    world.crash("n2")
    world.disk("n2").restore(backup)
    world.node("n2").boot = 1
    world.restart("n2")
    world.run(2_000)
    assert not world.node("n2").up
    assert "a copy from the" in world.node("n2").why_down


def test_a_node_away_for_longer_than_the_grace_counts_only_after_its_exchanges() -> None:
    """Others may have forgotten a deletion that it never heard of."""
    settings = Settings(grace_ms=200_000, repair_interval_ms=5_000)
    world = three(settings)
    world.run(2_000)
    world.crash("n2")
    world.run(210_000)
    world.crash("n1", "n3")
    world.restart("n2")
    world.run(1_000)
    assert len(world.node("n2").local.recovering) == 16
    world.restart("n1", "n3")
    world.converge()
    world.run_until(lambda: not world.node("n2").local.recovering, within_ms=60_000)
