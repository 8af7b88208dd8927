"""Scenarios: what the store promises, each in a small story of clients, crashes and partitions.

The first is the example. Words: `kvnode.sim.world.World`. In a world of three nodes every node owns
every key; where a test needs a node that does not, it has four.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kvnode.protocol.context import encode_context
from kvnode.protocol.messages import Error, Written
from kvnode.protocol.types import ALL, Record
from kvnode.sim.client import Call
from kvnode.sim.clock import WALL
from kvnode.sim.world import World

HOUR_MS = 3_600_000


@pytest.fixture
def worlds() -> Iterator[list[World]]:
    """Worlds made by `world`; in the end each is checked against every promise there is."""
    made: list[World] = []
    yield made
    for one in made:
        one.heal()
        for node in one.nodes.values():
            if node.up and node.paused:
                node.resume()
        one.settle()
        assert not one.violations(), f"seed {one.seed}: {one.violations()}"


@pytest.fixture
def world(worlds: list[World]) -> World:
    """Three nodes, every key owned by all of them, nothing wrong yet."""
    worlds.append(World(seed=1))
    return worlds[0]


@pytest.fixture
def four(worlds: list[World]) -> World:
    """Four nodes, every key owned by three of them."""
    worlds.append(World(seed=1, nodes=4))
    return worlds[0]


def values(replicas: dict[str, Record]) -> dict[str, list[bytes | None]]:
    return {owner: [version.value for version in record] for owner, record in replicas.items()}


def read_all(world: World, via: str = "n1", key: str = "k") -> Call:
    """A read of all owners."""
    return world.wait(world.get(key, via, r=ALL))


# ---- quorums and siblings ----------------------------------------------------------------------


def test_a_write_of_two_is_seen_by_a_read_of_two(world: World) -> None:
    """One owner misses the write, and a read that asks that owner still shows it: R + W > N."""
    world.partition({"n3"}, {"n1", "n2"})
    put = world.wait(world.put("k", "v", via="n1", w=2, mode="quorum"))
    assert put.written.acked == 2
    assert values(world.replicas("k")) == {"n1": [b"v"], "n2": [b"v"], "n3": []}

    world.heal()
    world.crash("n1")
    assert world.wait(world.get("k", via="n3", r=2, mode="quorum")).values == [b"v"]


def test_concurrent_writers_become_siblings_and_a_reader_of_both_resolves_them(world: World) -> None:
    """Two clients write what they read; neither is lost; a third sees both and writes over both."""
    first = world.wait(world.put("cart", "milk", via="n1"))
    tea = world.put("cart", "milk,tea", via="n2", context=first, client="ann")
    egg = world.put("cart", "milk,egg", via="n3", context=first, client="bob")
    world.wait(tea)
    world.wait(egg)
    world.settle()

    both = world.wait(world.get("cart", via="n1"))
    assert both.values == [b"milk,egg", b"milk,tea"]
    world.wait(world.put("cart", "milk,tea,egg", via="n3", context=both))
    assert read_all(world, key="cart").values == [b"milk,tea,egg"]


def test_interleaved_read_modify_writes_leave_only_true_concurrency(world: World) -> None:
    """Two clients, 60 writes each, each over its own last one: two siblings, not 120 and not one.

    riak_test's verify_dvv_repl: version vectors without dots leave about a hundred.
    """
    ann = bob = None
    for i in range(60):
        ann = world.wait(world.put("k", f"ann {i}", via="n1", context=ann, siblings=ann is None, client="ann"))
        bob = world.wait(world.put("k", f"bob {i}", via="n1", context=bob, siblings=bob is None, client="bob"))
    world.settle()
    assert read_all(world).values == [b"ann 59", b"bob 59"]


def test_the_context_of_ones_own_write_does_not_cover_a_sibling_one_has_not_seen(world: World) -> None:
    """Ann and Bob write through one node, both knowing nothing. Bob writes on: Ann's value stays.

    Both versions are dots of that node. Were they of one actor, Bob's context {actor: later} would
    cover Ann's dot too (found by seed 88).
    """
    nothing = world.wait(world.get("k", via="n1"))
    world.wait(world.put("k", "ann", via="n1", context=nothing))
    bob = world.wait(world.put("k", "bob", via="n1", context=nothing))
    world.wait(world.put("k", "bob again", via="n1", context=bob))
    assert read_all(world).values == [b"ann", b"bob again"]


def test_quorum_mode_refuses_what_could_not_overlap(world: World) -> None:
    """Mode quorum with w=1 would promise nothing: refused, nothing stored."""
    put = world.wait(world.put("k", "v", via="n1", w=1, mode="quorum"))
    assert put.failed.error == Error.INVALID
    assert not put.failed.maybe_applied
    world.settle()
    assert values(world.replicas("k")) == {"n1": [], "n2": [], "n3": []}


def test_a_write_that_cannot_reach_w_owners_is_refused_at_once(world: World) -> None:
    """Both others are known to be down: the client hears within 50 ms, not at its deadline."""
    world.network.reports_lost = 1.0
    first = world.put("k", "v", via="n1", w=2)
    world.run_until(lambda: world.node("n1").node.busy)
    world.crash("n2", "n3")
    world.wait(first)
    second = world.wait(world.put("k", "w", via="n1", w=2))
    for put in (first, second):
        assert put.failed.error == Error.UNAVAILABLE
        assert put.replied is not None
        assert put.replied - put.invoked < 500
    assert first.failed.maybe_applied  # it is stored here, and may yet spread
    assert not second.failed.maybe_applied  # refused before anything was stored
    world.restart("n2", "n3")


# ---- acknowledgements --------------------------------------------------------------------------


def test_what_was_committed_before_a_crash_is_there_though_nobody_was_told(four: World) -> None:
    """The coordinator dies between its commit and its answer: the client hears *indeterminate*, and
    the write is found after the restart."""
    world = four
    owner = world.owners("k")[0]
    put = world.put("k", "v", via=world.stranger("k"), w=ALL, mode="quorum", timeout_ms=300)
    world.run_until(lambda: any(world.replicas("k")[owner]))
    world.crash(owner)
    world.wait(put)
    assert put.failed.error == Error.INDETERMINATE
    assert put.failed.maybe_applied

    world.restart(owner)
    world.settle()
    assert read_all(world, via=owner).values == [b"v"]


def test_a_write_lost_before_its_commit_was_never_acknowledged() -> None:
    """The only node that has it dies while its disk is slow: it may be gone or there, but nobody was told."""
    found = set()
    for seed in range(20):
        world = World(seed)
        world.partition({"n1"}, {"n2", "n3"})
        world.disk("n1").stall(1_000)
        put = world.put("k", "v", via="n1", w=1)
        world.run(50)
        world.crash("n1")
        world.wait(put)
        assert put.result is None, f"seed {seed}: {put.result}"
        world.restart("n1")
        world.heal()
        world.settle()
        found.add(tuple(read_all(world).values))
        assert not world.violations(), f"seed {seed}: {world.violations()}"
    assert found == {(), (b"v",)}


def test_lost_acknowledgements_make_a_write_indeterminate_and_say_how_many_came(world: World) -> None:
    """Both others store it, but cannot answer: acked=1 of 2, "may have been applied", and it was."""
    world.network.holds_cut = 0.0
    world.partition({"n2", "n3"}, {"n1"}, one_way=True)
    put = world.wait(world.put("k", "v", via="n1", w=2, timeout_ms=200))
    assert put.failed.error == Error.INDETERMINATE
    assert (put.failed.acked, put.failed.need, put.failed.maybe_applied) == (1, 2, True)
    assert values(world.replicas("k")) == {"n1": [b"v"], "n2": [b"v"], "n3": [b"v"]}


def test_an_owner_counts_once_however_often_it_answers(world: World) -> None:
    """Every answer arrives twice, and one owner never does: two of three, for a write and for a read."""
    world.network.duplication = 1.0
    world.partition({"n3"}, {"n1", "n2"})
    put = world.wait(world.put("k", "v", via="n1", w=3, timeout_ms=200))
    assert put.failed.acked == 2
    world.run(1_100)  # it is tried again, and not yet suspected
    get = world.wait(world.get("k", via="n1", r=3, timeout_ms=200))
    assert get.failed.acked == 2


def test_an_acknowledgement_from_before_a_crash_is_not_counted_after_it(world: World) -> None:
    """n2 acknowledges a write of n1's earlier boot while n1's next write, which n2 never got, is waiting.

    PROTOCOL-CASES 11: request ids that began at 1 again would make it count.
    """
    world.network.holds_cut = 0.0
    world.partition({"n3"}, {"n1", "n2"})
    world.disk("n2").stall(300)
    world.put("k", "before", via="n1", w=2)
    world.run(50)
    world.crash("n1")
    world.restart("n1")
    world.partition({"n1"}, {"n2"}, one_way=True)
    put = world.put("k", "after", via="n1", w=2, timeout_ms=600)
    world.wait(put)
    assert world.node("n1").local.counters["ignored_replica_written"] == 1
    assert put.failed.acked == 1


def test_what_is_not_yet_durable_is_not_shown(world: World) -> None:
    """A replica has merged a write, its disk is slow, a reader asks it alone: it answers after the
    commit, or, when it crashes first, never (PROTOCOL-CASES 18)."""
    world.disk("n2").stall(500)
    world.put("k", "v", via="n1", w=ALL)
    world.run(20)
    get = world.get("k", via="n2", r=1)
    world.run(200)
    assert not get.done()

    world.crash("n2")
    world.wait(get)
    assert get.result is None
    world.restart("n2")


# ---- actors and contexts -----------------------------------------------------------------------


def test_two_puts_in_one_turn_see_each_other() -> None:
    """Both are minted before either is durable: the second covers the first (blind) or stands beside it
    (siblings), and no replica ever has the second alone (PROTOCOL-CASES 1 i)."""
    for siblings, left in ((False, [b"two"]), (True, [b"one", b"two"])):
        lines: list[str] = []
        world = World(seed=1, tell=lines.append)
        world.network.delay = (1, 1)
        one = world.put("k", "one", via="n1", siblings=siblings)
        two = world.put("k", "two", via="n1", siblings=siblings)
        world.wait(one)
        world.wait(two)
        world.settle()
        assert any(line.count("WriteReplica") == 2 for line in lines), "they were not in one turn"
        assert values(world.replicas("k")) == dict.fromkeys(("n1", "n2", "n3"), left)
        assert not world.violations()


def test_after_a_failed_commit_a_node_mints_under_another_actor() -> None:
    """n1's commit fails, but another owner had acknowledged the write; n1 boots without it and writes
    again: the acknowledged one is not covered unseen (PROTOCOL-CASES 1 ii)."""
    siblings = 0
    for seed in range(10):
        world = World(seed)
        world.disk("n1").fail_next_commit()
        world.disk("n1").stall(50)
        first = world.wait(world.put("k", "first", via="n1", w=1))
        world.settle()
        assert not world.node("n1").up
        world.restart("n1")
        second = world.wait(world.put("k", "second", via="n1", w=1))
        assert first.written.actor != second.written.actor
        world.settle()
        siblings += read_all(world).values == [b"first", b"second"]
        assert not world.violations(), f"seed {seed}: {world.violations()}"
    assert siblings, "in no seed was the first write gone from n1"


def test_a_retried_blind_put_never_buries_a_newer_write(world: World) -> None:
    """Ann's put is applied, but she is not told. Bob reads it and writes over it. Ann tries again, at
    another node: her value may come back beside Bob's, never over it (PROTOCOL-CASES 5)."""
    world.network.holds_cut = 0.0
    world.partition({"n1"}, {"ann"}, one_way=True)
    lost = world.wait(world.put("k", "ann", via="n1", timeout_ms=200, client="ann"))
    assert lost.result is None
    read = world.wait(world.get("k", via="n2", client="bob"))
    assert read.values == [b"ann"]
    world.wait(world.put("k", "bob", via="n2", context=read, client="bob"))

    world.wait(world.put("k", "ann", via="n2", retry=True, client="ann"))
    assert read_all(world).values == [b"ann", b"bob"]


def test_a_blind_delete_or_quorum_write_covers_what_its_coordinator_had_missed(world: World) -> None:
    """n3 missed a put. A delete through n3, or a quorum put through n3, reads first: no old value is
    left beside it (PROTOCOL-CASES 13)."""
    world.network.holds_cut = 0.0
    world.partition({"n3"}, {"n1", "n2"})
    for key in ("gone", "new"):
        world.wait(world.put(key, "old", via="n1"))
    world.heal()
    world.settle()
    world.wait(world.delete("gone", via="n3"))
    world.wait(world.put("new", "new", via="n3", mode="quorum"))
    assert read_all(world, key="gone").values == []
    assert read_all(world, key="new").values == [b"new"]


def test_a_context_from_the_future_is_refused(world: World) -> None:
    """A context that names a time an hour ahead would cover every write of that hour at its birth."""
    token = encode_context(b"k", {7: (WALL + HOUR_MS) << 16}).encode()
    put = world.wait(world.put("k", "v", via="n1", context=token))
    assert put.failed.error == Error.INVALID
    assert not any(world.replicas("k").values())


@pytest.mark.parametrize("skew_ms", [HOUR_MS, -HOUR_MS])
def test_a_clock_that_jumps_an_hour_and_back_loses_nothing(world: World, skew_ms: int) -> None:
    """Writes through that node, while its clock is wrong, after a restart and once it is right again,
    still stand over what they have seen, and what others have written stands over them."""
    world.wait(world.put("k", "one", via="n1"))
    for value, skew in (("two", skew_ms), ("three", skew_ms), ("four", 0)):
        world.wall_skew("n1", skew)
        assert world.wait(world.put("k", value, via="n1", w=1)).written
        assert read_all(world, via="n2").values == [value.encode()]
        world.settle()
        world.crash("n1")
        world.restart("n1")
    assert world.wait(world.put("k", "five", via="n3", mode="quorum")).written
    assert read_all(world).values == [b"five"]


def test_a_write_that_arrives_after_its_deadline_is_not_applied(world: World) -> None:
    """A partition holds the write back for over a minute; its client was told long ago."""
    world.network.holds_cut = 1.0
    world.partition({"n1"}, {"n2"}, one_way=True)
    put = world.wait(world.put("k", "v", via="n1", w=3, timeout_ms=200))
    assert put.failed.error == Error.INDETERMINATE
    world.run(61_000)
    world.heal()
    world.settle()
    assert world.node("n2").local.counters["late_writes"] >= 1


# ---- forwarding --------------------------------------------------------------------------------


def test_any_node_takes_any_request_in_one_hop(four: World) -> None:
    """A node that does not own the key passes the request to one that does, and the answer back."""
    world = four
    stranger = world.stranger("k")
    world.wait(world.put("k", "v", via=stranger))
    assert world.wait(world.get("k", via=stranger)).values == [b"v"]
    forwarded = {name: node.local.counters["forwarded"] for name, node in world.nodes.items()}
    assert forwarded == {**dict.fromkeys(world.nodes, 0), stranger: 2}
    world.settle()
    assert world.node(stranger).disk.keys == []


def test_a_forwarder_finds_another_owner_when_the_first_is_down(four: World) -> None:
    """The first owner is gone and known to be: the put goes to the next, as a retry, and is written."""
    world = four
    world.network.reports_lost = 1.0
    world.crash(world.owners("k")[0])
    put = world.wait(world.put("k", "v", via=world.stranger("k")))
    assert isinstance(put.result, Written)
    world.restart(world.owners("k")[0])


def test_a_put_that_its_first_owner_may_have_applied_too_shows_as_one_value(four: World) -> None:
    """The first owner's connection is down, the frame waits for it, and the next owner writes, with a
    fallback in the place of the first; then the first comes up and applies it as well."""
    world = four
    world.network.reports_lost = world.network.keeps = 1.0
    first = world.owners("k")[0]
    world.crash(first)
    assert world.wait(world.put("k", "v", via=world.stranger("k"), w=ALL)).written.acked == 3
    world.restart(first)
    world.converge()
    assert set(read_all(world, via=first).values) == {b"v"}


def test_a_put_that_was_on_its_way_past_its_deadline_is_not_applied(four: World) -> None:
    """Held between two nodes for two seconds, the put of a client who gave up long ago buries what was
    written since. "Every message that can write carries an absolute deadline" (ARCHITECTURE 5)."""
    world = four
    stranger, first = world.stranger("k"), world.owners("k")[0]
    world.network.holds_cut = 1.0
    world.partition({stranger}, {first})
    world.wait(world.put("k", "old", via=stranger, timeout_ms=200, client="ann"))
    world.run(2_000)
    world.wait(world.put("k", "new", via=first, client="bob"))
    world.heal()
    world.settle()
    assert read_all(world, via=first).values == [b"new"]


# ---- the fake world itself ---------------------------------------------------------------------


def test_a_machine_that_stands_still_answers_when_it_goes_on(world: World) -> None:
    """Frames wait for a paused machine as they would for a stopped process."""
    world.pause("n2")
    put = world.put("k", "v", via="n1", w=3)
    world.run(300)
    assert not put.done()
    world.resume("n2")
    assert world.wait(put).written.acked == 3


def test_a_damaged_copy_is_fetched_from_another_owner_never_served(world: World) -> None:
    """A read through the node whose copy fails its checksum shows the value, and heals that copy."""
    world.wait(world.put("k", "v", via="n1", w=3))
    world.disk("n1").damage(b"k")
    assert world.wait(world.get("k", via="n1")).values == [b"v"]
    world.settle()
    assert values(world.replicas("k"))["n1"] == [b"v"]


def test_a_scan_shows_what_was_acknowledged(world: World) -> None:
    """Keys written through any node, in byte order, from a majority of the owners."""
    for name in ("b", "a", "c"):
        world.wait(world.put(name, name, via="n1"))
    world.crash("n2")
    scan = world.wait(world.scan("n3"))
    assert [op.key for op in scan.ops()] == [b"a", b"b", b"c"]
    world.restart("n2")
