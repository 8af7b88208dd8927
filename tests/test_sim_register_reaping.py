"""Deleted registers go when nothing can bring back what was deleted; each way to be careless, and what it breaks.

The first is the example. Words: `kvnode.sim.world.World`.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kvnode import config
from kvnode.config import Settings
from kvnode.core import regreaper
from kvnode.core.consensus import decode_register
from kvnode.core.floors import floor_of
from kvnode.core.recovery import Recovery
from kvnode.core.regreaper import RegisterReaper, died_at
from kvnode.core.rejoin import WAIT_MS, Rejoin
from kvnode.protocol.consensus import NO_BALLOT, Accept, Accepted, Ballot, ReapRegister, RegistersCopied
from kvnode.protocol.messages import Condition, Error, Written
from kvnode.protocol.ring import partition_of
from kvnode.protocol.types import NodeId
from kvnode.sim.client import Call
from kvnode.sim.registers import RegisterShape, run_strong
from kvnode.sim.world import World
from tests.test_strong_seeds import LOUD, SPLIT

SOON = Settings(repair_interval_ms=2_000, scrub_interval_ms=1_000, grace_ms=0)
"""Graves are looked at each second; there is no grace."""
LONG = WAIT_MS + 15_000
"""Time enough for a tombstone to be reaped."""


@pytest.fixture
def world() -> World:
    return World(seed=1, settings=SOON)


def put(world: World, value: str | None, via: str = "n1", key: str = "k", **more: object) -> Call:
    return world.wait(world.put(key, value, via, mode="strong", **more))  # type: ignore[arg-type]


def get(world: World, via: str = "n1", key: str = "k") -> list[bytes]:
    return world.wait(world.get(key, via, mode="strong", timeout_ms=5_000)).values


def kept(world: World, key: str = "k") -> dict[str, bytes]:
    return {name: node.disk.accepted(key.encode()) for name, node in world.nodes.items()}


def gone(world: World, key: str = "k") -> bool:
    return not any(kept(world, key).values())


def tombstones(world: World) -> list[bool]:
    return [died_at(decode_register(register)) is not None for register in kept(world).values()]


def deleted(world: World, via: str = "n1") -> None:
    """Written and deleted, on all owners."""
    assert isinstance(put(world, "old", via).result, Written)
    assert isinstance(put(world, None, via).result, Written)
    world.settle()


def drops_missed_by(world: World, *names: str) -> None:
    """These owners never hear that they are to drop a register."""
    for name in names:
        table = world.node(name).node._from_node
        on_reap = table[ReapRegister]

        def deaf(sender: NodeId, ask: ReapRegister, on_reap: Callable[..., object] = on_reap) -> object:
            return None if ask.drop else on_reap(sender, ask)

        table[ReapRegister] = deaf


# ---- it goes -----------------------------------------------------------------------------------


def test_a_deleted_register_goes_from_every_disk_and_the_key_is_as_new(world: World) -> None:
    """No register, no place in the tree; absent to every reader, and free for either world."""
    deleted(world)
    assert tombstones(world) == [True] * 3
    world.run(LONG)
    assert gone(world)
    assert [get(world, via) for via in world.nodes] == [[]] * 3
    world.converge()

    assert isinstance(put(world, "new", "n2", condition=Condition.ABSENT).result, Written)
    assert [get(world, via) for via in world.nodes] == [[b"new"]] * 3
    deleted(world)
    world.run(LONG)
    assert gone(world)
    assert isinstance(world.wait(world.put("k", "version", "n3")).result, Written)


def test_a_register_with_a_value_stays(world: World) -> None:
    """However often its grave is looked for."""
    put(world, "v")
    world.wait(world.put("{k}", "a version in the same slot", "n2"))
    world.run(2 * LONG)
    assert [get(world, via) for via in world.nodes] == [[b"v"]] * 3
    assert all(node.local.counters["scrubbed_keys"] > 10 for node in world.nodes.values())
    assert not any(node.local.counters["leaves_mended"] for node in world.nodes.values())


def test_a_deletion_younger_than_the_grace_stays(world: World) -> None:
    """Contexts handed out before it are good for so long."""
    patient = World(seed=1, settings=Settings(repair_interval_ms=2_000, scrub_interval_ms=1_000, grace_ms=120_000))
    deleted(patient)
    patient.run(LONG)
    assert tombstones(patient) == [True] * 3
    patient.run(120_000)
    assert gone(patient)


def test_a_promise_of_which_nothing_came_is_kept_by_the_floor(world: World) -> None:
    """A condition that failed leaves promises on a key nobody wrote: they go, and bind as before."""
    put(world, "other")
    call = put(world, "v", key="never", condition=Condition.MATCH, context=world.clients.calls[0])
    assert call.failed.error in (Error.CONFLICT, Error.INVALID)
    call = world.wait(
        world.put("never", "v", "n1", mode="strong", condition=Condition.MATCH, context=token(world))
    )
    assert call.failed.error == Error.CONFLICT
    promised = max(decode_register(register).promised for register in kept(world, "never").values())
    assert promised != NO_BALLOT
    world.run(LONG)
    if gone(world, "never"):
        partition = partition_of(b"never", world.ring.q)
        assert floor_of(world.node("n1").local.outbox, partition) >= promised


def token(world: World) -> Call:
    """A context of the key `never`, of a version that is nowhere."""
    seen = world.wait(world.put("never", "x", "n1"))
    world.wait(world.delete("never", "n1"))
    world.settle()
    return seen


def test_a_context_from_before_the_reaping_matches_nothing(world: World) -> None:
    """The condition is refused: whoever holds it must read again."""
    deleted(world)
    seen = world.wait(world.get("k", "n1", mode="strong"))
    world.run(LONG)
    assert put(world, "v", condition=Condition.MATCH, context=seen).failed.error == Error.CONFLICT
    assert isinstance(put(world, "v", condition=Condition.ABSENT).result, Written)


# ---- it waits for all owners -------------------------------------------------------------------


def old_value_survives(world: World) -> None:
    """n3 is down from before the deletion until long after it."""
    put(world, "old")
    world.settle()
    world.crash("n3")
    world.run(3_000)
    assert isinstance(put(world, None).result, Written)
    world.run(LONG)
    world.restart("n3")
    world.run(3_000)


def test_while_an_owner_is_away_nothing_is_reaped(world: World) -> None:
    """It may hold what was deleted, and would give it back to the first reader."""
    old_value_survives(world)
    assert [get(world, via) for via in ("n3", "n1", "n2")] == [[]] * 3
    world.run(2 * LONG)
    assert gone(world)


def test_an_owner_that_holds_something_else_keeps_the_tombstone_of_all(world: World) -> None:
    """One that could be asked, but has accepted less: repair comes first."""
    put(world, "old")
    world.settle()
    world.network.holds_cut = 0.0
    world.partition({"n3"}, {"n1", "n2"})
    world.run(2_500)
    put(world, None)
    world.run(LONG)
    assert any(tombstones(world))
    world.heal()
    world.converge()
    assert get(world, "n3") == []
    world.run(2 * LONG)
    assert gone(world)


# ---- those who miss it -------------------------------------------------------------------------


def test_an_owner_that_missed_the_drop_gives_the_tombstone_back_and_it_is_reaped_again(world: World) -> None:
    """Harmless: absent it was, absent it stays; the second time all hear of it."""
    deleted(world)
    drops_missed_by(world, "n2")
    world.run(LONG)
    assert any(kept(world).values())
    assert [get(world, via) for via in world.nodes] == [[]] * 3
    world.crash("n2")
    world.restart("n2")
    world.run(3 * LONG)
    assert gone(world)
    world.converge()


def slow_clock_writes_below(world: World) -> list[list[bytes]]:
    """A tombstone carried on by a clock that is ahead; n1 and n3 drop it, n2 does not; then n3 writes."""
    deleted(world)
    world.crash("n3")
    world.run(2_500)
    assert isinstance(put(world, None).result, Written)
    world.wall_skew("n1", 50_000)
    world.restart("n3")
    for name in ("n2", "n3"):
        world.node(name).node.exchanges.on_register = lambda key: None  # n1 is to carry it on
    world.run(2_500)
    world.node("n1").node._registering.repair.want(b"k")
    world.run(2_500)
    assert len({decode_register(register).accepted for register in kept(world).values()}) == 1
    world.wall_skew("n1", 0)
    drops_missed_by(world, "n2")
    world.run_until(lambda: sum(map(bool, kept(world).values())) == 1, within_ms=120_000)
    world.network.holds_cut = 0.0
    world.partition({"n2"}, {"n1", "n3"})
    world.run(2_500)
    assert isinstance(put(world, "new", "n3", timeout_ms=5_000).result, Written)
    world.heal()
    world.run(2_500)
    world.crash("n3")
    world.run(2_500)
    return [get(world, via) for via in ("n2", "n1")]


def test_what_is_written_after_a_reaping_is_above_every_tombstone_that_is_left(world: World) -> None:
    """One owner still has the tombstone, of a ballot far ahead: the new value wins over it all the same."""
    assert slow_clock_writes_below(World(seed=1, settings=RARELY)) == [[b"new"]] * 2


RARELY = Settings(repair_interval_ms=3_600_000, scrub_interval_ms=1_000, grace_ms=0)
"""No exchange finds anything before it is looked at."""


def test_a_wiped_owner_gets_the_floor_with_the_registers(world: World) -> None:
    """What it must not take is known to the others; it asks them before it votes."""
    deleted(world)
    world.run(LONG)
    assert gone(world)
    partition = partition_of(b"k", world.ring.q)
    floor = floor_of(world.node("n2").local.outbox, partition)
    assert floor != NO_BALLOT
    world.wipe("n2")
    world.restart("n2")
    world.run(WAIT_MS + 5_000)
    assert floor_of(world.node("n2").local.outbox, partition) == floor


def late_page(world: World) -> list[bytes]:
    """n5 lost its disk; n1's page of registers is held by the network until all is deleted and reaped."""
    put(world, "old", "n2")
    world.settle()
    world.wipe("n5")
    world.restart("n5")
    node = world.node("n5").node
    pages: list[tuple[NodeId, RegistersCopied]] = []
    table = node._from_node
    copied = table[RegistersCopied]

    def hold(sender: NodeId, page: RegistersCopied) -> object:
        if sender == "n1":
            pages.append((sender, page))
            return None
        return copied(sender, page)

    table[RegistersCopied] = hold
    world.run_until(lambda: bool(pages) and not node.local.voteless, within_ms=60_000)
    world.converge()
    put(world, None, "n2")
    world.settle()
    world.run_until(lambda: gone(world), within_ms=120_000)
    copied(*pages[0])
    world.run(10_000)
    return get(world, "n5")


def five() -> World:
    return World(seed=1, nodes=5, n=5, settings=SOON)


def test_a_page_of_registers_that_comes_late_brings_nothing_back() -> None:
    """Copied before the deletion, heard of after the reaping: this node votes by then, and takes it no more."""
    assert late_page(five()) == []


def made_again(world: World) -> tuple[Call, list[bytes]]:
    """A write is chosen and read, and its proposer hears of neither; it is deleted; the proposer is outbid.

    What came of the write in the end, and what is read then.
    """
    late: list[tuple[NodeId, Accept]] = []
    lone, third = world.node("n1").node._from_node, world.node("n3").node._from_node
    accepted, accept = lone[Accepted], third[Accept]
    lone[Accepted] = lambda sender, told: accepted(sender, told) if sender == "n1" else None
    third[Accept] = lambda sender, ask: late.append((sender, ask)) if sender == "n1" else accept(sender, ask)
    call = world.put("k", "v", "n1", mode="strong", timeout_ms=9_000, client="slow")
    world.run_until(lambda: all(decode_register(kept(world)[name]).value for name in ("n1", "n2")))
    assert get(world, "n2") == [b"v"]
    assert isinstance(put(world, None, "n3").result, Written)
    world.run(4_000)
    assert get(world, "n2") == []

    lone[Accepted], third[Accept] = accepted, accept
    accept(*late[0])
    return world.wait(call), get(world, "n2")


def test_a_proposer_of_before_the_deletion_does_not_write_again_after_it(world: World) -> None:
    """It was outbid, and finds the tombstone: its write may have been there before: nobody knows."""
    call, values = made_again(world)
    assert call.failed.error == Error.INDETERMINATE
    assert values == []


# ---- careless versions -------------------------------------------------------------------------


def a_majority_is_enough(patch: pytest.MonkeyPatch) -> None:
    ask = RegisterReaper._ask

    def some(self: RegisterReaper, burial: regreaper.Burial) -> None:
        ask(self, burial)
        burial.waiting -= self._local.peers.avoided.keys()
        if not burial.waiting:
            rid = next(rid for rid, asked in self._asked.items() if asked is burial)
            self._all_agree(rid, burial)

    patch.setattr(RegisterReaper, "_ask", some)


def there_is_no_floor(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("kvnode.core.floors.floor_of", lambda outbox, partition: NO_BALLOT)


def late_pages_are_taken(patch: pytest.MonkeyPatch) -> None:
    copied = Rejoin.on_registers_copied

    def any_time(self: Rejoin, sender: NodeId, told: RegistersCopied) -> None:
        votes = self._local.voteless
        self._local.voteless = set(range(self._local.routes.ring.q))
        copied(self, sender, told)
        self._local.voteless = votes

    patch.setattr(Rejoin, "on_registers_copied", any_time)


def test_reaping_with_a_majority_brings_back_what_was_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Why all owners: the one that was away is believed."""
    a_majority_is_enough(monkeypatch)
    world = World(seed=1, settings=SOON)
    old_value_survives(world)
    assert b"old" in [value for via in ("n3", "n1", "n2") for value in get(world, via)]


def test_without_a_floor_an_acknowledged_write_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Why a floor: written below a tombstone that one owner still has."""
    there_is_no_floor(monkeypatch)
    assert [b"new"] not in slow_clock_writes_below(World(seed=1, settings=RARELY))


def test_a_late_page_that_is_taken_brings_back_what_was_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Why a page is only taken by who does not vote yet."""
    late_pages_are_taken(monkeypatch)
    assert late_page(five()) == [b"old"]


def test_without_waiting_a_write_is_made_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Why twice the life of a ballot: the void looks like "never chosen" to one that was outbid."""
    monkeypatch.setattr(regreaper, "WAIT_MS", 0)
    call, values = made_again(World(seed=1, settings=SOON))
    assert isinstance(call.result, Written)
    assert values == [b"v"], "read, deleted, read as absent, and back"


def dropped_by_time(patch: pytest.MonkeyPatch) -> None:
    """Each owner drops its tombstones as it finds them."""

    def drop(self: RegisterReaper, key: bytes, register: bytes) -> None:
        tombstone = decode_register(register)
        if died_at(tombstone) is not None:
            self._drop(key, tombstone.accepted)

    patch.setattr(RegisterReaper, "on_dead", drop)


DELETING = RegisterShape(
    clients=6, keys=5, think_ms=(0, 400), operations=250, timeout_ms=300, faults=SPLIT.faults, deletes=0.5
)
NOISY = RegisterShape(
    clients=6, keys=5, think_ms=(0, 400), operations=250, timeout_ms=300, faults=LOUD.faults, deletes=0.5
)


def hasty(patch: pytest.MonkeyPatch) -> None:
    """Ballots live for less than half a second, so that registers are reaped while clients are at work."""
    patch.setattr(config, "BALLOT_LIFE_MS", 400)
    patch.setattr(regreaper, "WAIT_MS", 800)
    patch.setattr(config, "SKEW_MS", 100)
    patch.setattr(
        "kvnode.sim.registers.SETTINGS", Settings(repair_interval_ms=1_000, scrub_interval_ms=1_000, grace_ms=0)
    )
    patch.setattr("kvnode.core.rejoin.WAIT_MS", 800)
    patch.setattr(Recovery, "_look_at_absence", lambda self: None)  # nobody is away for long enough, grace or not


def test_dropping_by_time_is_found_by_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of all writes delete, graves are looked at each second: some history is none of a register."""
    hasty(monkeypatch)
    dropped_by_time(monkeypatch)
    for seed in range(1, 41):
        for shape in (DELETING, NOISY):
            if run_strong(seed, shape).violations:
                print(f"found by seed {seed}")
                return
    raise AssertionError("it is not found")


def test_a_careful_reaper_leaves_one_history(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same seeds: registers are reaped meanwhile, and every history is one of a register."""
    hasty(monkeypatch)
    reaped = 0
    drop = RegisterReaper._drop

    def count(self: RegisterReaper, key: bytes, ballot: Ballot) -> None:
        nonlocal reaped
        reaped += 1
        drop(self, key, ballot)

    monkeypatch.setattr(RegisterReaper, "_drop", count)
    for seed in range(1, 4):
        for shape in (DELETING, NOISY):
            assert not run_strong(seed, shape).violations
    assert reaped > 5, reaped
