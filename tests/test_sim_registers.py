"""Scenarios of mode `strong`: each key a linearizable register, in small stories of crashes and partitions.

The first is the example. Words: `kvnode.sim.world.World`.
"""

from __future__ import annotations

import pytest

from kvnode import config
from kvnode.config import Settings
from kvnode.core.consensus import decode_register
from kvnode.core.rejoin import WAIT_MS
from kvnode.protocol.messages import (
    ClusterReport,
    Condition,
    Done,
    Error,
    Failed,
    Got,
    Scan,
    Scanned,
    Status,
    WaiveVotes,
    Written,
)  # fmt: skip
from kvnode.protocol.types import decode_record
from kvnode.sim.client import Call
from kvnode.sim.world import World


@pytest.fixture
def world() -> World:
    """Three nodes, every key owned by all of them, nothing wrong yet."""
    return World(seed=1)


def put(world: World, value: str | None, via: str = "n1", **more: object) -> Call:
    return world.put("k", value, via, mode="strong", **more)  # type: ignore[arg-type]


def put_key(world: World, key: str, value: str | None, **more: object) -> Call:
    return world.put(key, value, "n1", mode="strong", **more)  # type: ignore[arg-type]


def get(world: World, via: str = "n1", **more: object) -> Call:
    return world.wait(world.get("k", via, mode="strong", **more))  # type: ignore[arg-type]


def counter(world: World, name: str) -> int:
    return sum(node.local.counters[name] for node in world.nodes.values())


def accepted(world: World) -> list[bool]:
    """On whose disk the register has a value."""
    return [decode_register(node.disk.accepted(b"k")).value != b"" for node in world.nodes.values()]


def part_of_it(world: World, name: str, *, ms: float = 2_500) -> None:
    """This node is cut off from the others, and they know of each other's silence."""
    world.partition({name}, {n for n in world.nodes if n != name})
    world.run(ms)


# ---- one register ------------------------------------------------------------------------------


def test_a_write_is_seen_by_every_read_after_it_through_any_node(world: World) -> None:
    """Put on one node, read on the others: one value, in one round trip each, whoever crashed meanwhile."""
    assert world.wait(put(world, "v")).written.acked >= 2
    world.settle()
    assert [get(world, via).values for via in ("n1", "n2", "n3")] == [[b"v"]] * 3
    assert counter(world, "strong_rounds") == 1
    assert counter(world, "strong_one_trip") == 3

    world.crash("n1")
    assert get(world, "n3").values == [b"v"]


def test_a_deleted_register_is_absent_and_can_be_written_if_absent(world: World) -> None:
    """Delete, read nothing, and of two who then put if absent the second is told that the key exists."""
    world.wait(put(world, "v"))
    world.wait(put(world, None))
    assert get(world, "n2").values == []

    assert isinstance(world.wait(put(world, "a", condition=Condition.ABSENT)).result, Written)
    second = world.wait(put(world, "b", via="n2", condition=Condition.ABSENT))
    assert second.failed.error == Error.CONFLICT
    assert not second.failed.maybe_applied
    assert get(world, "n3").values == [b"a"]


def test_if_match_is_compare_and_set_and_reads_do_not_disturb_it(world: World) -> None:
    """Two clients read one value; however often it is read since, one of them may replace it."""
    world.wait(put(world, "v"))
    ann, bob = get(world, "n1"), get(world, "n2")
    world.crash("n3")
    get(world, "n2")
    world.restart("n3")

    assert isinstance(world.wait(put(world, "a", condition=Condition.MATCH, context=ann)).result, Written)
    late = world.wait(put(world, "b", via="n2", condition=Condition.MATCH, context=bob))
    assert late.failed.error == Error.CONFLICT
    assert get(world, "n3").values == [b"a"]


def test_two_proposers_outbid_each_other_and_both_end(world: World) -> None:
    """Ten writes through three nodes at once: every client is answered, and all readers agree on one value."""
    calls = [put(world, f"v{i}", via=f"n{i % 3 + 1}", client=f"c{i}") for i in range(10)]
    for call in calls:
        world.wait(call)
    assert counter(world, "strong_outbid") > 0
    done = [call for call in calls if isinstance(call.result, Written)]
    assert len(done) >= 3, [call.result for call in calls]
    assert all(call.failed.error == Error.INDETERMINATE for call in calls if call not in done)
    world.settle()
    assert len({tuple(get(world, via).values) for via in ("n1", "n2", "n3")}) == 1


def test_writes_of_one_key_at_one_node_wait_in_line_and_all_are_done(world: World) -> None:
    """Twenty at once, none outbids another; one whose time is over while it waits left no trace."""
    world.settle()
    calls = [put(world, f"v{i}", client=f"c{i}") for i in range(20)]
    hasty = put(world, "late", client="hasty", timeout_ms=1)
    for call in calls:
        assert isinstance(world.wait(call).result, Written), call.result
    assert counter(world, "strong_outbid") == 0
    assert len({tuple(get(world, via).values) for via in world.nodes}) == 1
    assert world.wait(hasty).failed.error == Error.UNAVAILABLE
    assert not hasty.failed.maybe_applied


def test_a_line_has_an_end(world: World) -> None:
    """More than may wait are refused at once, and left no trace; the others are done."""
    calls = [put(world, f"v{i}", client=f"c{i}", timeout_ms=9_000) for i in range(config.STRONG_LINE_MAX + 5)]
    for call in calls:
        world.wait(call)
    refused = [call for call in calls if not isinstance(call.result, Written)]
    assert [call.failed.error for call in refused] == [Error.OVERLOADED] * 4


def test_a_read_through_another_node_does_not_outbid_a_writer(world: World) -> None:
    """It finds the owners at different ballots, and looks again before it takes one itself."""
    world.settle()
    for i in range(20):
        write = put(world, f"v{i}")
        reads = []
        while not write.done():
            reads.append(world.get("k", "n2", mode="strong", client=f"r{len(reads)}"))
            world.run(1)
        for read in reads:
            assert isinstance(world.wait(read).result, Got)
        assert isinstance(write.result, Written)
    assert counter(world, "strong_outbid") == 0


def test_a_node_whose_clock_is_far_behind_never_uses_a_ballot_twice(world: World) -> None:
    """Found by seed 229: its clock does not follow ballots an hour ahead, and named one time for two rounds."""
    world.wait(put(world, "old"))
    world.wall_skew("n2", -3_600_000)
    seen = get(world, "n2")
    many = [
        put(world, f"v{i}", via="n2", condition=Condition.MATCH, context=seen, client=f"c{i}") for i in range(12)
    ]
    for call in many:
        world.wait(call)
    assert sum(isinstance(call.result, Written) for call in many) == 1, [call.result for call in many]


# ---- partitions --------------------------------------------------------------------------------


def test_the_minority_refuses_at_once_and_says_who_is_missing(world: World) -> None:
    """Cut off, and aware of it, a node answers within milliseconds: nothing was written; the majority goes on."""
    world.wait(put(world, "old"))
    part_of_it(world, "n1")

    began = world.now_ms
    for call in (world.wait(put(world, "lost")), get(world)):
        assert call.failed.error == Error.UNAVAILABLE
        assert not call.failed.maybe_applied
        assert "n2, n3" in call.failed.message
    assert world.now_ms - began < 50
    assert isinstance(world.wait(put(world, "new", via="n2")).result, Written)
    assert get(world, "n3").values == [b"new"]

    world.heal()
    world.converge()
    assert get(world, "n1").values == [b"new"]


@pytest.mark.parametrize("told", [True, False], ids=["told", "silence"])
def test_the_minority_refuses_in_under_a_second_also_as_the_partition_begins(world: World, told: bool) -> None:
    """Nobody is suspected yet: two missed beats and no answer are enough to end a round that left no trace."""
    world.wait(put(world, "old"))
    world.run(3_000)
    world.network.holds_cut, world.network.reports_lost = 0.0, float(told)
    world.partition({"n1"}, {"n2", "n3"})
    began = world.now_ms
    calls = [put(world, "lost"), world.get("k", "n1", mode="strong")]
    for call in calls:
        assert world.wait(call).failed.error == Error.UNAVAILABLE
        assert not call.failed.maybe_applied
    assert world.now_ms - began < 1_000


def test_an_owner_whose_disk_is_slow_is_waited_for(world: World) -> None:
    """It beats, so it is there: no answer for a second is no silence."""
    world.run(3_000)
    for name in ("n2", "n3"):
        world.disk(name).commit = (8_000, 9_000)
    assert isinstance(world.wait(put(world, "v", timeout_ms=5_000)).result, Written)


def test_of_five_nodes_the_two_that_are_cut_off_acknowledge_nothing_of_which_they_own_a_minority() -> None:
    """Put and get, many keys, through both sides: only where a majority of the owners is, is anything said."""
    five = World(seed=1, nodes=5)
    minority = {"n1", "n2"}
    five.partition(minority, {"n3", "n4", "n5"})
    calls = []
    for i in range(40):
        key, via = f"k{i}", f"n{i % 5 + 1}"
        calls.append(five.put(key, "v", via, mode="strong"))
        calls.append(five.get(key, via, mode="strong", client="reader"))
        five.run(100)
    for call in calls:
        five.wait(call)
        assert not isinstance(call.ask, Scan)
        inside = len(minority.intersection(five.owners(call.ask.key)))
        majority_here = inside >= 2 if call.node in minority else inside <= 1
        if isinstance(call.result, Got | Written):
            assert majority_here, call.ask
    refused = [call for call in calls if call.node in minority and not isinstance(call.result, Got | Written)]
    assert len(refused) > 20


def test_a_stranger_cut_off_from_all_owners_refuses_at_once() -> None:
    """It could only pass the request on, and nobody is there: nothing is sent, so nothing is in doubt."""
    four = World(seed=1, nodes=4)
    stranger = four.stranger("k")
    part_of_it(four, stranger)

    began = four.now_ms
    for call in (put(four, "lost", via=stranger), get(four, stranger)):
        assert four.wait(call).failed.error == Error.UNAVAILABLE
        assert not call.failed.maybe_applied
    assert four.now_ms - began < 50
    assert four.node(stranger).local.counters["forwarded"] == 0


def test_a_timeout_is_indeterminate_once_the_value_has_left(world: World) -> None:
    """The accept was sent, its answers are lost: maybe. Before that nothing was written, and it says so."""
    world.wait(put(world, "old"))
    world.network.holds_cut = 0.0
    call = put(world, "new", timeout_ms=800)
    world.run_until(lambda: counter(world, "strong_writes") == 2)
    world.partition({"n2", "n3"}, {"n1"}, one_way=True)
    assert world.wait(call).failed.error == Error.INDETERMINATE
    assert call.failed.maybe_applied

    world.heal()
    world.converge()
    assert get(world, "n2").values == [b"new"]


def test_a_strong_request_that_may_have_left_is_not_made_again(world: World) -> None:
    """Passed on to an owner that is lost: indeterminate, not tried at the next one."""
    four = World(seed=1, nodes=4)
    stranger, owner = four.stranger("k"), four.owners("k")[0]
    call = put(four, "v", via=stranger)
    four.run_until(lambda: four.node(stranger).local.counters["forwarded"] == 1)
    four.network.reports_lost = 1.0
    four.crash(owner)
    four.partition({stranger}, {owner})
    assert four.wait(call).result is None or call.failed.maybe_applied
    assert four.node(stranger).local.counters["forwarded"] == 1


# ---- crashes -----------------------------------------------------------------------------------


def test_a_read_completes_a_half_done_write_before_it_answers() -> None:
    """A value that one owner accepted: whoever reads it first makes a majority hold it: no one reads it away."""
    world = World(seed=1, settings=Settings(repair_interval_ms=3_600_000))
    world.network.holds_cut = 0.0
    call = put(world, "v", timeout_ms=300)
    world.run_until(lambda: counter(world, "strong_writes") == 1)
    world.partition({"n1"}, {"n2", "n3"})
    world.wait(call)
    world.heal()
    world.run(1_500)
    assert accepted(world) == [True, False, False]

    assert get(world, "n1").values == [b"v"]
    assert sum(accepted(world)) >= 2
    world.crash("n1")
    assert get(world, "n2").values == [b"v"]


def test_a_proposer_that_crashes_between_promise_and_accept_leaves_the_register_usable(world: World) -> None:
    """All have promised its ballot, nobody accepted anything: the next proposer goes above it."""
    call = put(world, "lost")
    world.run_until(lambda: decode_register(world.disk("n2").accepted(b"k")).promised.time > 0)
    world.crash("n1")
    assert accepted(world) == [False] * 3

    assert isinstance(world.wait(put(world, "v", via="n2", timeout_ms=9_000)).result, Written)
    world.restart("n1")
    assert get(world, "n3").values == [b"v"]
    world.wait(call)
    assert not isinstance(call.result, Written)


def test_an_acceptor_remembers_its_promise_over_a_crash(world: World) -> None:
    """Power is cut everywhere: promises and values are where they were, and ballots go on above them."""
    world.wait(put(world, "v"))
    world.settle()
    before = {name: node.disk.accepted(b"k") for name, node in world.nodes.items()}
    world.crash("n1", "n2", "n3")
    world.restart("n1", "n2", "n3")
    assert {name: node.disk.accepted(b"k") for name, node in world.nodes.items()} == before

    assert get(world, "n2").values == [b"v"]
    assert isinstance(world.wait(put(world, "w", via="n3")).result, Written)


@pytest.mark.parametrize("waiving", [("n1",), ("n1", "n2")])
@pytest.mark.parametrize("at_once", [False, True])
def test_where_most_disks_were_lost_nobody_votes_until_an_operator_gives_up_what_they_held(
    world: World, waiving: tuple[str, ...], *, at_once: bool
) -> None:
    """What the third one has is there again: also who waives early asks it first, once old ballots are dead."""
    world.wait(put(world, "v")).written  # noqa: B018
    world.settle()
    assert all(accepted(world))
    for name in ("n1", "n2"):
        world.wipe(name)
        world.restart(name)
    rid = world.clients.next_number
    if not at_once:
        world.run(3 * WAIT_MS)
        assert world.wait(put(world, "w", via="n3")).failed.error == Error.UNAVAILABLE
        assert isinstance(world.ask("n3", Scan(rid(), b"", b"", 10, 2, 2_000)), Failed)
    for name in waiving:
        told = world.ask(name, WaiveVotes(rid()))
        assert isinstance(told, Done) and told.count == 16
    world.crash("n1")
    world.restart("n1")
    world.run(WAIT_MS - 1_000)
    assert world.node("n1").local.voteless
    world.run_until(lambda: world.voting, 2 * WAIT_MS)
    assert [get(world, via).values for via in ("n1", "n2", "n3")] == [[b"v"]] * 3
    assert world.wait(put(world, "w")).written
    assert isinstance(world.ask("n3", Scan(rid(), b"", b"", 10, 2, 2_000)), Scanned)
    told = world.ask("n1", Status(rid(), 1_000))
    assert isinstance(told, ClusterReport)
    assert [(r.voteless, r.waived) for r in told.reports if r is not None] == [
        (0, 16 * (name in waiving)) for name in world.names
    ]


def test_a_wiped_acceptor_casts_no_ballot_until_it_has_the_others_registers(world: World) -> None:
    """A write is on two of three, one of them loses its disk: with the third alone it must not say "absent"."""
    world.partition({"n3"}, {"n1", "n2"})
    assert isinstance(world.wait(put(world, "v")).result, Written)
    world.wipe("n2")
    world.run(1_000)
    world.heal()
    world.crash("n1")
    world.restart("n2")
    world.run(100)
    assert get(world, "n3", timeout_ms=1_000).failed.error in (Error.UNAVAILABLE, Error.INDETERMINATE)

    world.restart("n1")
    assert get(world, "n3", timeout_ms=5_000).values == [b"v"]
    world.run(WAIT_MS + 10_000)
    assert not world.node("n2").local.voteless
    assert decode_register(world.disk("n2").accepted(b"k")).value
    world.crash("n1")
    world.run(3_000)
    assert get(world, "n2", timeout_ms=5_000).values == [b"v"]


def test_a_wiped_acceptor_that_restarts_once_its_versions_are_back_still_has_no_votes() -> None:
    """It counts for `quorum` again, and the others took its disk for whole: so it voted, without its registers."""
    world = World(seed=1, settings=Settings(repair_interval_ms=1_000))
    world.wait(put(world, "old"))
    world.settle()
    world.partition({"n3"}, {"n1", "n2"})
    world.run(2_500)
    assert isinstance(world.wait(put(world, "new")).result, Written)
    world.wipe("n2")
    for node in world.nodes.values():
        node.node.exchanges.on_register = lambda key: None  # nor does a repair bring it to n3
    world.heal()
    world.restart("n2")
    world.run_until(lambda: not world.node("n2").local.recovering, within_ms=WAIT_MS - 5_000)
    world.run(2_000)

    world.crash("n2")
    world.restart("n2")
    world.run(3_000)
    assert world.node("n2").local.voteless
    world.crash("n1")
    world.run(2_500)
    assert get(world, "n3").failed.error in (Error.UNAVAILABLE, Error.INDETERMINATE)


def test_a_cluster_that_was_off_for_longer_than_the_grace_votes_at_once() -> None:
    """All were away, and crash while they look at what they hold: no disk lost a vote, so each keeps its own."""
    world = World(seed=1, settings=Settings(grace_ms=120_000))
    world.wait(put(world, "v"))
    world.run(70_000)
    world.crash("n1", "n2", "n3")
    world.run(130_000)
    world.restart("n1", "n2", "n3")
    world.run_until(lambda: all(node.local.recovering for node in world.nodes.values()))
    world.crash("n1", "n2", "n3")
    world.restart("n1", "n2", "n3")
    world.run(3_000)
    assert world.voting
    assert get(world).values == [b"v"]


# ---- two worlds --------------------------------------------------------------------------------


def test_a_register_is_read_in_any_mode_and_written_in_its_own(world: World) -> None:
    """Other modes show what was accepted here; a put in them is refused and changes nothing."""
    world.wait(put(world, "v"))
    world.settle()
    assert world.wait(world.get("k", "n2")).values == [b"v"]
    for mode in ("eventual", "quorum"):
        refused = world.wait(world.put("k", "x", "n2", mode=mode)).failed
        assert (refused.error, refused.maybe_applied) == (Error.CONFLICT, False)
    assert world.wait(world.delete("k", "n3")).failed.error == Error.CONFLICT
    assert get(world, "n3").values == [b"v"]


def scanned(world: World, via: str = "n1", limit: int = 100) -> list[tuple[bytes, list[bytes | None], bool]]:
    """Key, values, and whether it is said to be a register: of a whole scan in pages."""
    found, after = [], b""
    while True:
        page = world.wait(world.scan(via, after=after, limit=limit)).result
        assert isinstance(page, Scanned), page
        for row in page.rows:
            values = [v.value for v in decode_record(row.record)]
            found.append((row.key, values, row.key in page.registers))
        assert page.after >= after
        after = page.after
        if not page.more:
            return found


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_a_scan_lists_registers_among_the_keys_and_names_them(world: World, limit: int) -> None:
    """In byte order, whatever the size of a page; a deleted one is a tombstone, a mere promise is nothing."""
    for i in range(7):
        world.wait(put_key(world, f"r{i}", "s"))
        world.wait(world.put(f"q{i}", "v", "n2"))
        world.wait(world.put(f"s{i}", "v", "n3"))
    world.wait(put_key(world, "r3", None))
    world.wait(put_key(world, "promised", "never", condition=Condition.MATCH, context=get(world)))
    world.settle()
    expected = [(f"q{i}", "v", False) for i in range(7)]
    expected += [(f"r{i}", None if i == 3 else "s", i != 3) for i in range(7)]
    expected += [(f"s{i}", "v", False) for i in range(7)]
    for via in world.nodes:
        assert scanned(world, via, limit) == [
            (key.encode(), [None if value is None else value.encode()], register)
            for key, value, register in expected
        ]


def test_a_scan_shows_the_latest_that_any_of_its_owners_accepted(world: World) -> None:
    """One owner lags behind: a majority always has one that does not."""
    world.wait(put(world, "old"))
    world.settle()
    world.crash("n3")
    world.run(3_000)
    world.wait(put(world, "new"))
    world.restart("n3")
    world.crash("n1")
    assert scanned(world, "n3") == [(b"k", [b"new"], True)]


def test_a_node_that_lost_its_registers_tells_no_scan_of_them(world: World) -> None:
    """With one other owner in reach it might leave one out: the scan fails instead."""
    world.wait(put(world, "v"))
    world.wipe("n2")
    world.restart("n2")
    world.run(3_000)
    world.crash("n3")
    call = world.wait(world.scan("n1"))
    assert call.failed.error == Error.UNAVAILABLE


def test_versions_that_slip_in_are_siblings_for_other_modes_and_never_for_strong_ones(world: World) -> None:
    """An owner that lacks the register takes an eventual put: it stays, it is counted, strong reads ignore it."""
    world.partition({"n3"}, {"n1", "n2"})
    world.wait(put(world, "v"))
    world.run(2_500)
    assert isinstance(world.wait(world.put("k", "slipped", "n3", w=1)).result, Written)
    world.heal()
    world.converge()

    assert world.wait(world.get("k", "n1")).values == [b"slipped", b"v"]
    assert [get(world, via).values for via in ("n1", "n2", "n3")] == [[b"v"]] * 3
    assert counter(world, "versions_beside_registers") > 0


def test_a_key_with_versions_does_not_become_a_register(world: World) -> None:
    """A strong put would hide them: it is refused until they are deleted."""
    world.wait(world.put("k", "x", "n1"))
    world.settle()
    assert world.wait(put(world, "v")).failed.error == Error.CONFLICT
    assert isinstance(get(world).result, Got)
    assert get(world).values == []

    world.wait(world.delete("k", "n1"))
    assert isinstance(world.wait(put(world, "v")).result, Written)


@pytest.mark.parametrize(
    ("more", "says"),
    [({"w": 3}, "majority"), ({"ttl_ms": 5}, "time to live"), ({"siblings": True}, "siblings")],
)
def test_what_a_register_cannot_do_is_refused(world: World, more: dict[str, int], says: str) -> None:
    """Not accepted and ignored: said."""
    refused = world.wait(put(world, "v", **more)).failed
    assert refused.error == Error.INVALID
    assert says in refused.message
