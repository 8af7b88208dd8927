"""Guards: what planted bugs got past until a test stood in their way (`tests/mutants`).

Each is the smallest story in which one line of the store is all that keeps a promise.
"""

from __future__ import annotations

import msgspec
import pytest

from kvnode import config
from kvnode.config import Settings
from kvnode.core.reader import Reader
from kvnode.core.rejoin import WAIT_MS
from kvnode.core.versions import held_of
from kvnode.protocol import messages as m
from kvnode.protocol.consensus import Accept, Accepted, Ballot, Outbid, Prepare, Promised
from kvnode.protocol.context import encode_context
from kvnode.protocol.messages import Error
from kvnode.protocol.ring import partition_of
from kvnode.protocol.types import ALL, STRONG, Version
from kvnode.sim.clock import WALL
from kvnode.sim.world import World
from tests.harness import CLIENT, N2, N3, DictStore, Hand, blob, one, put, record_of, to, version
from tests.stories import read_all, values

HOUR_MS = 3_600_000
GRACE_MS = 130_000
RARE = Settings(repair_interval_ms=HOUR_MS)
QUICK = Settings(grace_ms=GRACE_MS, repair_interval_ms=5_000, scrub_interval_ms=5_000)


def world_of(nodes: int, settings: Settings = RARE, **more: int) -> World:
    """So many nodes, which have heard of each other."""
    world = World(1, nodes=nodes, settings=settings, **more)
    world.run(1_000)
    return world


def down(world: World, *names: str) -> None:
    """Kill nodes, and let everyone notice."""
    world.crash(*names)
    world.run(3_000)


def pause_repair(world: World, *names: str, paused: bool = True) -> None:
    """No exchange begins at these nodes, or they may again."""
    for name in names or tuple(world.nodes):
        world.order(name, m.PauseRepair(world.clients.next_number(), paused))
    world.run(10)


# ---- versions ----------------------------------------------------------------------------------


def test_two_values_that_were_written_on_two_sides_of_a_cut_are_both_there_when_it_heals() -> None:
    """Each side has one version and merges it with the other side's one: neither saw the other."""
    world = world_of(3, Settings(repair_interval_ms=2_000))
    world.partition({"n1"}, {"n2", "n3"})
    for via in ("n1", "n2"):
        assert world.wait(world.put("k", via, via=via, w=1)).written
    world.heal()
    world.converge()
    assert list(map(sorted, values(world.replicas("k")).values())) == [[b"n1", b"n2"]] * 3


def test_a_delete_is_a_version_that_its_coordinator_keeps() -> None:
    """Acknowledged by one owner alone, and what it keeps for the others is lost: the delete is not."""
    world = world_of(3, Settings(repair_interval_ms=2_000))
    old = world.wait(world.put("k", "old", via="n1", w=ALL))
    world.network.holds_cut = 0.0
    world.partition({"n1"}, {"n2", "n3"})
    assert world.wait(world.put("k", None, via="n1", context=old, w=1)).written
    assert values(world.replicas("k"))["n1"] == [None]
    world.run(3_000)
    for owner in ("n2", "n3"):
        world.order("n1", m.DropHints(world.clients.next_number(), owner))
    world.run(100)
    world.heal()
    world.converge()
    assert read_all(world).values == []


# ---- hints -------------------------------------------------------------------------------------


@pytest.mark.parametrize("coordinator", ["an owner", "a fallback"])
def test_a_hint_is_acknowledged_once_it_would_outlive_its_holder(coordinator: str) -> None:
    """Two votes are needed, and the disk of one fallback stands still: nobody is told."""
    world = world_of(5)
    owners = world.owners("k")
    strangers = [name for name in world.nodes if name not in owners]
    via = owners[0] if coordinator == "an owner" else strangers[0]
    down(world, *(owner for owner in owners if owner != via))
    for name in strangers:
        if coordinator == "an owner" or name == via:
            world.disk(name).stall(500)
    call = world.put("k", "v", via=via, w=2)
    world.run(200)
    assert not call.done()
    assert world.wait(call).written.acked == 2


def test_a_hint_whose_delivery_is_lost_is_delivered_again() -> None:
    """Its owner is back, is sent the hint, and dies before it is durable there: it is kept still."""
    world = world_of(5)
    first, _, third = world.owners("k")
    down(world, third)
    assert world.wait(world.put("k", "v", via=first)).written
    world.settle()
    assert world.hinted == 1
    world.disk(third).stall(60_000)
    world.restart(third)
    world.run_until(lambda: any(n.node.hints.in_flight for n in world.nodes.values() if n.up), within_ms=5_000)
    world.run(500)
    world.crash(third)
    world.disk(third).mend()
    world.run(1_000)
    assert world.hinted == 1
    world.restart(third)
    world.converge()
    assert values(world.replicas("k"))[third] == [b"v"]


def test_a_hint_that_grows_while_its_ack_is_awaited_is_delivered_once_more() -> None:
    """The ack that comes is of the older record (PROTOCOL-CASES 3)."""
    world = world_of(5)
    first, _, third = world.owners("k")
    down(world, third)
    assert world.wait(world.put("k", "one", via=first)).written
    (holder,) = world.kept("k")
    world.restart(third)
    world.disk(third).stall(700)
    world.run_until(lambda: world.node(holder).node.hints.in_flight > 0)
    world.partition({first}, {third})
    assert world.wait(world.put("k", "two", via=first, siblings=True, timeout_ms=200)).written
    world.run(400)
    assert world.node(holder).node.hints.in_flight, "the first ack is still to come"
    world.run(3_000)
    assert values(world.replicas("k"))[third] == [b"one", b"two"]


def test_two_hints_of_two_coordinators_who_know_nothing_of_each_other_are_one_of_both() -> None:
    """Each has its own value of a key, and the same fallback keeps both for the owner that is down."""
    world = world_of(5)
    first, second, third = world.owners("k")
    down(world, third)
    world.partition({first}, {second})
    one_, two = (world.put("k", owner, via=owner, w=1) for owner in (first, second))
    assert world.wait(one_).written
    assert world.wait(two).written
    world.run(1_000)
    world.crash(first, second)
    world.restart(third)
    world.run(5_000)
    assert sorted(filter(None, values(world.replicas("k"))[third])) == sorted([first.encode(), second.encode()])


def test_an_acknowledged_hint_that_is_too_old_for_its_owner_goes_to_another() -> None:
    """The one copy of a write is a hint for an owner that never returns (PROTOCOL-CASES 2)."""
    world = world_of(5, Settings(repair_interval_ms=HOUR_MS, hint_age_ms=10_000))
    owners = world.owners("k")
    holder, other = (name for name in world.nodes if name not in owners)
    down(world, *owners, other)
    assert world.wait(world.put("k", "v", via=holder, w=1)).written
    for owner in owners[:2]:
        world.order(holder, m.DropHints(world.clients.next_number(), owner))
    world.run(100)
    assert world.hinted == 1
    world.restart(owners[0], owners[1])
    world.run(20_000)
    assert world.hinted == 0
    assert [b"v"] in values(world.replicas("k")).values()


def test_an_owner_and_the_fallback_in_its_place_are_one_vote() -> None:
    """A slow owner is given up for a fallback, and answers after all: two copies, for the hint ends up there."""
    world = world_of(4)
    first, second, third = world.owners("k")
    world.disk(third).stall(600)
    world.wait(world.put("k", "one", via=first, w=ALL, timeout_ms=200))
    world.disk(second).stall(60_000)
    call = world.wait(world.put("k", "two", via=first, w=ALL, timeout_ms=1_000))
    fallback = world.node(world.stranger("k"))
    assert fallback.local.counters["hinted"] >= 2, "of the first put, and of the second"
    assert world.node(third).disk.settled, "it has answered"
    assert (call.failed.error, call.failed.acked) == (Error.INDETERMINATE, 2)
    world.disk(second).mend()


def test_hints_for_owners_that_died_under_a_quorum_write_are_no_votes() -> None:
    """Nobody knew that two of three are down; two fallbacks keep it for them, and the client is told no lie."""
    world = world_of(5)
    first, second, third = world.owners("k")
    world.network.reports_lost, world.network.keeps = 1.0, 0.0
    world.crash(second, third)
    call = world.wait(world.put("k", "v", via=first, mode="quorum", siblings=True, timeout_ms=500))
    assert world.hinted == 2
    assert call.failed.maybe_applied
    assert call.failed.acked == 1


def test_a_delete_whose_owner_goes_while_it_reads_is_told_so() -> None:
    """w=3 was possible when it came; by the time it is written one owner is out, and nobody stands in."""
    hand = Hand()
    (asked,) = (message for _, message in hand.hear(CLIENT, put(value=None, w=ALL)))
    assert isinstance(asked, m.ReadReplica)
    hand.lose(N3)
    order = one(N2, hand.hear(N2, m.ReplicaSame(asked.rid)), m.WriteReplica)
    told = one(CLIENT, [*hand.commit(), *hand.hear(N2, m.ReplicaWritten(order.rid))], m.Failed)
    assert (told.error, told.maybe_applied, told.need) == (Error.UNAVAILABLE, True, 3)


def test_a_node_that_swallows_an_answer_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulator holds each node to it: whoever asked is told, by the deadline, of something."""
    monkeypatch.setattr(Reader, "answer", lambda *_: None)
    world = world_of(3)
    with pytest.raises(AssertionError, match="was told nothing"):
        world.wait(world.get("k", via="n1", timeout_ms=300))
        world.run(500)


# ---- time --------------------------------------------------------------------------------------


def test_a_restart_under_a_clock_set_back_lets_nothing_late_in() -> None:
    """Seed 107: a node boots with its wall clock an hour back; an order that was late before is late still."""
    hand = Hand()
    for _ in range(3):
        hand.wait(config.ALIVE_NOTE_MS)
        hand.commit()
    late = hand.wall - 2 * config.ALIVE_NOTE_MS

    again = Hand(store=hand.store)
    again.wall = hand.wall - HOUR_MS
    record = blob(version(7, 0))
    assert isinstance(
        one(N2, again.say(N2, m.WriteReplica(9, 1, b"k", record, late)), m.ReplicaRefused), m.ReplicaRefused
    )
    assert one(CLIENT, again.say(CLIENT, put(deadline=late)), m.Failed).error == Error.REFUSED
    assert again.holds(b"k") == ()


def test_a_machine_that_was_asleep_convicts_nobody_for_it() -> None:
    """Half a minute in one leap, and no frame waited at its sockets. Silence after that is the others'."""
    hand = Hand()
    for beat in range(1, 20):
        for peer in (N2, N3):
            hand.hear(peer, m.Beat(m.Alive(peer, 1, beat, (), 7, 1, hand.wall)))
        hand.wait(config.BEAT_MS)
    hand.wait(30_000)
    hand.wait(config.BEAT_MS)
    assert not hand.local.peers.suspected
    for _ in range(20):
        hand.wait(config.BEAT_MS)
    assert hand.local.peers.suspected == {N2, N3}


# ---- exchanges, tombstones and pasts -------------------------------------------------------------


def test_an_exchange_proves_only_what_was_there_when_it_began() -> None:
    """It takes seconds; what is written meanwhile in a part that is done with is not in it. Both sides say so."""
    world = World(1, nodes=2, n=2, settings=Settings(repair_interval_ms=HOUR_MS, repair_bytes_per_s=5_000))
    world.run(1_000)
    for i in range(1_000):
        world.disk("n2").plant(b"%d" % i, held_of((Version(99, WALL << 16, {}, b"v" * 500),)))
    first, second = world.ring.owner_ids(0)
    world.order(first, m.RunRepair(world.clients.next_number(), 0))
    world.run_until(lambda: world.node(first).node.exchanges.active > 0)
    began = world.node(first).local.wall
    world.run_until(lambda: (0, second) in world.node(first).node.exchanges.finished)
    world.run_until(lambda: (0, first) in world.node(second).node.exchanges.finished)
    assert world.node(first).local.wall - began > 2_000
    assert world.node(first).node.exchanges.finished[0, second] - began < 100
    assert world.node(second).node.exchanges.finished[0, first] - began < 100


def test_a_record_that_looks_older_than_the_other_sides_is_taken_in_the_second_time() -> None:
    """Digests of siblings are hashes, and tell nothing of age: one in 150 looks older than a single version.
    It is kept back once; kept back for ever, the two would compare for ever."""
    x = Version(7, (WALL + 1) << 16, {}, b"x")
    pairs = ((x, Version(actor, (WALL + 2) << 16, {}, b"y")) for actor in range(8, 10_000))
    both = next(pair for pair in pairs if held_of(pair).digest[8:] < held_of((x,)).digest[8:])
    for holder in ("n1", "n2"):
        world = World(1, nodes=2, n=2, settings=RARE)
        world.run(1_000)
        for name in world.nodes:
            world.disk(name).plant(b"k", held_of(both if name == holder else (x,)))
        for name in world.nodes:
            world.order(name, m.RunRepair(world.clients.next_number(), partition_of(b"k", world.ring.q)))
        world.run(2_000)
        assert list(values(world.replicas("k")).values()) == [[b"x", b"y"]] * 2


def test_a_tombstone_that_all_owners_hold_waits_for_an_exchange_that_began_after_it() -> None:
    """All owners are up, old enough, and hold just that; there were exchanges, but before it; then with one
    owner only. Then with both: it goes."""
    world = world_of(5, QUICK)
    first, second, third = world.owners("k")
    partition = partition_of(b"k", world.ring.q)
    exchanges = world.node(first).node.exchanges.finished
    world.run_until(lambda: all((partition, peer) in exchanges for peer in (second, third)), within_ms=60_000)
    call = world.wait(world.put("k", "v", via=first, w=ALL))
    pause_repair(world)
    assert world.wait(world.put("k", None, via=first, context=call, w=ALL)).written
    died = world.node(first).local.wall
    world.run(GRACE_MS + 60_000)
    assert all(world.replicas("k").values())

    down(world, third)
    pause_repair(world, first, second, paused=False)
    world.run_until(lambda: exchanges[partition, second] > died + config.CLOCK_AHEAD_MAX_MS, within_ms=60_000)
    pause_repair(world, first, second)
    world.restart(third)
    world.run(30_000)
    assert exchanges[partition, third] < died
    assert all(world.replicas("k").values())

    pause_repair(world, paused=False)
    world.run(60_000)
    assert not any(world.replicas("k").values())


def test_a_tombstone_that_one_owner_has_not_got_is_not_reaped_at_the_others() -> None:
    """n2 says that it holds something else, n3 that it holds just that."""
    hand = Hand()
    hand.keep(b"k", record_of(version(1, 0, value=None)))
    hand.wait(hand.local.settings.grace_ms + HOUR_MS)
    now = hand.local.wall
    for peer in (N2, N3):
        hand.hear(peer, m.Beat(m.Alive(peer, 1, 1, (), 7, 1, now, now, epoch=1)))
        hand.node.exchanges.note(partition_of(b"k", hand.ring.q), peer, now)
    held = hand.store.get(b"k")
    assert held is not None
    hand.node._reaper.on_dead(b"k", held)
    asked = {who: message for who, message in hand.wait(1) if isinstance(message, m.Reap)}
    assert set(asked) == {N2, N3}
    hand.say(N2, m.ReapAnswer(asked[N2].rid, False))
    hand.say(N3, m.ReapAnswer(asked[N3].rid, True))
    assert hand.holds(b"k")


def test_a_reap_of_an_older_tombstone_leaves_a_newer_one() -> None:
    """Deleted, written, deleted again: the second tombstone covers what another owner may hold still."""
    hand = Hand()
    first, second = record_of(version(1, 0, value=None)), record_of(version(2, 9, value=None))
    hand.keep(b"k", second)
    answer = hand.say(N2, m.Reap(3, 1, b"k", held_of(first).digest, WALL + HOUR_MS, False))
    assert not one(N2, answer, m.ReapAnswer).same
    hand.say(N2, m.Reap(3, 1, b"k", held_of(first).digest, WALL + HOUR_MS, True))
    assert hand.holds(b"k") == second


LONG_PAST = {1_000 + i: WALL << 16 for i in range(2 * config.CLOCK_ENTRIES_FREE)}
"""So long that a coordinator looks for entries that nobody needs."""


def test_a_past_keeps_what_no_exchange_has_settled() -> None:
    """An owner missed a write that covered what it holds, and was never exchanged with since: the next put
    over that write must cover it as well."""
    world = world_of(3)
    pause_repair(world)
    first, second, third = world.owners("k")
    old = Version(7, WALL << 16, {}, b"old")
    new = Version(99, (WALL + 1) << 16, LONG_PAST | {7: old.time}, b"new")
    world.disk(third).plant(b"k", held_of((old,)))
    for owner in (first, second):
        world.disk(owner).plant(b"k", held_of((new,)))
    world.run(3 * config.CLOCK_AHEAD_MAX_MS)
    assert world.wait(world.put("k", "newer", via=first, w=ALL)).written
    assert read_all(world).values == [b"newer"]


def test_a_past_keeps_what_a_hint_may_bring_back() -> None:
    """All owners have exchanged; a fallback that is away keeps the older value for one of them."""
    world = world_of(5, Settings(repair_interval_ms=2_000))
    first, _, third = world.owners("k")
    down(world, third)
    old = world.wait(world.put("k", "old", via=first)).written
    world.settle()
    (holder,) = world.kept("k")
    world.run(1_000)  # it tells of its hint
    world.crash(holder)
    world.restart(third)
    covers = LONG_PAST | {old.actor: old.time}
    for owner in world.owners("k"):
        world.disk(owner).plant(b"k", held_of((Version(99, old.time + 1, covers, b"new"),)))
    world.run(3 * config.CLOCK_AHEAD_MAX_MS)
    assert world.wait(world.put("k", "newer", via=first, w=ALL)).written
    world.restart(holder)
    world.converge()
    assert read_all(world).values == [b"newer"]


def test_who_stands_in_for_owners_forgets_nothing_of_a_past() -> None:
    """It does not know what they hold: its delete, with a long context, must cover that (seed 3101005)."""
    world = world_of(5)
    owners = world.owners("k")
    old = Version(7, WALL << 16, {}, b"old")
    for owner in owners:
        world.disk(owner).plant(b"k", held_of((old,)))
    world.run(3 * config.CLOCK_AHEAD_MAX_MS)
    others = [name for name in world.names if name not in owners]
    world.partition(owners, others)
    world.run(5_000)
    seen = LONG_PAST | {7: old.time}
    deleted = world.wait(world.put("k", None, via=others[0], w=1, context=encode_context(b"k", seen).encode()))
    assert deleted.written.past == seen
    world.heal()
    world.converge()
    assert read_all(world).values == []


@pytest.mark.parametrize(("value", "mode"), [(None, "eventual"), ("new", "quorum")])
def test_a_blind_delete_or_quorum_put_through_an_owner_that_lacks_the_old_value_covers_it(
    value: str | None, mode: str
) -> None:
    """It has missed a put, and no hint and no exchange brings it: it asks the others first (PROTOCOL-CASES 13)."""
    world = world_of(3)
    old = Version(7, WALL << 16, {}, b"old")
    for name in ("n1", "n2"):
        world.disk(name).plant(b"k", held_of((old,)))
    assert world.wait(world.put("k", value, via="n3", mode=mode)).written
    assert read_all(world).values == ([] if value is None else [b"new"])


def test_what_an_absent_node_may_have_missed_is_not_forgotten_by_a_second_boot() -> None:
    """Away for longer than the grace, killed before any exchange: it is unsure from its first turn on."""
    world = World(1, settings=Settings(grace_ms=200_000, repair_interval_ms=5_000))
    world.run(3_000)
    world.crash("n2")
    world.run(210_000)
    world.crash("n1", "n3")
    world.restart("n2")
    world.run(1_000)
    world.crash("n2")
    world.restart("n2")
    assert len(world.node("n2").local.recovering) == 16


def test_a_wiped_node_counts_in_no_quorum_read_of_its_own() -> None:
    """Acknowledged by n1 and n2, n2 loses its disk: what n2 and n3 do not know is not "not found"."""
    world = world_of(3)
    world.partition({"n3"}, {"n1", "n2"})
    assert world.wait(world.put("k", "v", via="n1", mode="quorum")).written.acked == 2
    world.heal()
    world.crash("n1")
    world.node("n1").disk.drop_hints()
    world.wipe("n2")
    world.restart("n2")
    world.run(8_000)
    assert world.wait(world.get("k", via="n2", mode="quorum")).failed.error == Error.UNAVAILABLE


# ---- registers -----------------------------------------------------------------------------------


def ballot(time: int) -> Ballot:
    return Ballot((WALL + time) << 16, 5)


def prepare(hand: Hand, time: int, until: int | None = None) -> list[m.Message]:
    """What n2 is told at once, before anything is durable."""
    until = hand.local.steady + 5_000 if until is None else until
    return to(N2, hand.hear(N2, Prepare(1, 1, b"k", ballot(time), until)))


def accept(hand: Hand, time: int, until: int | None = None) -> list[m.Message]:
    until = hand.local.steady + 5_000 if until is None else until
    return to(N2, hand.hear(N2, Accept(2, 1, b"k", ballot(time), blob(version(5, time)), until)))


def voter() -> Hand:
    hand = Hand()
    hand.wait(1)
    return hand


def test_no_vote_leaves_before_it_would_outlive_a_crash() -> None:
    """A promise and an acceptance, each told after its commit, and then kept."""
    hand = voter()
    assert prepare(hand, 1) == []
    assert isinstance(one(N2, hand.commit(), Promised), Promised)
    assert accept(hand, 1) == []
    assert isinstance(one(N2, hand.commit(), Accepted), Accepted)

    again = Hand(store=hand.store, seed=2)
    again.wait(1)
    prepare(again, 0)
    assert one(N2, again.commit(), Outbid).promised == ballot(1)


def test_an_acceptor_takes_nothing_below_its_promise() -> None:
    """Neither a ballot nor a value; and of a ballot it has promised it takes both, again."""
    hand = voter()
    prepare(hand, 5)
    hand.commit()
    accept(hand, 3)
    assert one(N2, hand.commit(), Outbid).promised == ballot(5)
    prepare(hand, 3)
    assert one(N2, hand.commit(), Outbid).promised == ballot(5)
    prepare(hand, 5)
    assert one(N2, hand.commit(), Promised).record == b""
    accept(hand, 5)
    assert isinstance(one(N2, hand.commit(), Accepted), Accepted)


@pytest.mark.parametrize("ask", [prepare, accept])
def test_a_ballot_past_its_deadline_or_far_ahead_of_it_is_refused(ask: object) -> None:
    """A node that lost its votes waits for every ballot to die: none may live longer than that."""
    hand = voter()
    now = hand.local.steady
    for until in (now - 1, now + config.BALLOT_LIFE_MS + config.SKEW_MS + 1):
        assert callable(ask)
        (told,) = ask(hand, 1, until)
        assert isinstance(told, m.ReplicaRefused)
        assert hand.store.kept_registers == {}


def test_no_two_boots_share_a_ballot() -> None:
    """PROTOCOL-CASES 11: the first proposal of two lives of one node, at the same moment, on the same disk."""
    ballots = set()
    for seed in (1, 2):
        hand = Hand(seed=seed, store=DictStore())
        sent = hand.hear(CLIENT, put(mode=STRONG))
        ballots |= {message.ballot for _, message in sent if isinstance(message, Prepare)}
    assert len(ballots) == 2


def test_two_rounds_of_a_node_whose_clock_does_not_follow_never_share_a_ballot() -> None:
    """Seed 229: both are outbid by a ballot an hour ahead, and go above it in the same moment."""
    hand = voter()
    two = [
        msgspec.structs.replace(put(key, mode=STRONG), rid=rid, timeout_ms=5_000)
        for key, rid in ((b"k", 1), (b"l", 2))
    ]
    asked = [message for ask in two for _, message in hand.hear(CLIENT, ask) if isinstance(message, Prepare)]
    far = Ballot((hand.wall + HOUR_MS) << 16, 9)
    for rid in {message.rid for message in asked}:
        hand.hear(N2, Outbid(rid, far))
    again = [message for _, message in hand.wait(config.BACKOFF_MS_MAX) if isinstance(message, Prepare)]
    assert len({message.rid for message in again}) == 2
    assert len({message.ballot for message in again}) == 2
    assert all(message.ballot > far for message in again)


def lost_votes(nodes: int) -> World:
    """n1 has a new disk, and is up; all own everything."""
    world = World(1, nodes=nodes, n=nodes)
    world.run(3_000)
    world.wipe("n1")
    world.restart("n1")
    return world


def test_a_wiped_acceptor_waits_until_every_ballot_it_may_have_promised_is_dead() -> None:
    """Everyone is up and has told it all they have; a ballot it promised away may be under way still."""
    world = lost_votes(3)
    world.run(WAIT_MS - 2_000)
    assert world.node("n1").local.voteless
    world.run(10_000)
    assert not world.node("n1").local.voteless


def test_a_wiped_acceptor_of_five_copies_the_registers_of_a_majority() -> None:
    """Of the other four only two are up: what was chosen with its vote may be on the two that are not."""
    world = World(1, nodes=5, n=5)
    world.run(3_000)
    world.wipe("n1")
    world.crash("n4", "n5")
    world.restart("n1")
    world.run(WAIT_MS + 20_000)
    assert world.node("n1").local.voteless
    world.restart("n4")
    world.run(20_000)
    assert not world.node("n1").local.voteless
