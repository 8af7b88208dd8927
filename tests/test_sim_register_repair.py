"""Register repair: owners that missed writes of mode `strong` are brought to one by rounds, with nobody reading.

The first is the example. Words: `kvnode.sim.world.World`.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kvnode import config
from kvnode.config import Settings
from kvnode.core.consensus import Register, decode_register
from kvnode.core.regrepair import PREPARE, RegisterRepair, Repair
from kvnode.core.rejoin import WAIT_MS
from kvnode.protocol.consensus import Ballot
from kvnode.protocol.messages import Condition, Error, Written
from kvnode.sim.client import Call
from kvnode.sim.registers import RegisterShape, run_strong
from kvnode.sim.world import World
from tests.test_strong_seeds import CROWD, SPLIT

OFTEN = Settings(repair_interval_ms=2_000)


@pytest.fixture
def world() -> World:
    """Three nodes, every key owned by all of them, exchanged every two seconds."""
    return World(seed=1, settings=OFTEN)


def put(world: World, key: str, value: str | None = "v", via: str = "n1", **more: object) -> Call:
    return world.wait(world.put(key, value, via, mode="strong", **more))  # type: ignore[arg-type]


def get(world: World, key: str, via: str = "n1") -> Call:
    return world.wait(world.get(key, via, mode="strong", timeout_ms=5_000))


def kept(world: World, key: str) -> dict[str, Register]:
    return {name: decode_register(node.disk.accepted(key.encode())) for name, node in world.nodes.items()}


def ballots(world: World, key: str) -> set[Ballot]:
    return {register.accepted for register in kept(world, key).values()}


def counter(world: World, name: str) -> int:
    return sum(node.local.counters[name] for node in world.nodes.values())


def miss_a_write(world: World, *keys: str) -> None:
    """n3 is down while these are written, and comes back."""
    world.crash("n3")
    world.run(3_000)
    for key in keys:
        assert isinstance(put(world, key, "new").result, Written)
    world.restart("n3")


def half_done(world: World, key: str, value: str) -> None:
    """Only n1 accepts this; its client is told that nobody knows."""
    world.network.holds_cut = 0.0
    before = counter(world, "strong_writes")
    call = world.put(key, value, "n1", mode="strong", timeout_ms=300)
    world.run_until(lambda: counter(world, "strong_writes") > before)
    world.partition({"n1"}, {"n2", "n3"})
    assert world.wait(call).failed.error == Error.INDETERMINATE
    world.heal()


# ---- an owner that missed something ------------------------------------------------------------


def test_what_an_owner_that_was_out_missed_comes_to_it_at_once_not_at_its_turn() -> None:
    """An exchange of everything takes turns for an hour here; who wrote without it begins one when it is back."""
    world = World(seed=1, settings=Settings(repair_interval_ms=3_600_000))
    world.run(1_000)
    world.partition({"n3"}, {"n1", "n2"})
    world.run(3_000)
    keys = [f"k{i}" for i in range(10)]
    for key in keys:
        assert isinstance(put(world, key, "new").result, Written)
    assert max(len(ballots(world, key)) for key in keys) == 2
    world.heal()
    world.run(6_000)
    assert [len(ballots(world, key)) for key in keys] == [1] * len(keys)
    assert world.node("n1").node.hints.needs_repair == set()


def test_an_owner_that_missed_a_write_accepts_it_with_nobody_reading(world: World) -> None:
    """Down while it is written; the exchange that finds the difference runs one round for the key."""
    put(world, "k", "old")
    world.settle()
    miss_a_write(world, "k")
    assert len(ballots(world, "k")) == 2

    world.converge()
    assert {r.value for r in kept(world, "k").values()} == {kept(world, "k")["n1"].value}
    assert len(ballots(world, "k")) == 1
    assert counter(world, "registers_repaired") == 1
    world.crash("n1")
    assert get(world, "k", "n3").values == [b"new"]


def test_the_roots_differ_as_long_as_a_register_does(world: World) -> None:
    """`wait converged` and `check` compare them: they must not say that all is well."""
    miss_a_write(world, "k")
    assert not world.converged
    world.converge()
    assert counter(world, "registers_repaired") == 1


def test_a_half_done_write_is_finished_by_repair(world: World) -> None:
    """One owner alone accepted it: the round listens to that one too, so all hold it, and every read shows it."""
    put(world, "k", "old")
    half_done(world, "k", "new")
    world.converge()
    assert len(ballots(world, "k")) == 1
    assert [get(world, "k", via).values for via in world.nodes] == [[b"new"]] * 3


def test_a_repair_with_one_owner_down_makes_the_others_alike_and_the_last_one_later(world: World) -> None:
    """A round needs a majority, no more; the one that is away gets its turn."""
    put(world, "k", "old")
    half_done(world, "k", "new")
    world.crash("n3")
    world.run(20_000)
    assert kept(world, "k")["n1"].accepted == kept(world, "k")["n2"].accepted
    world.restart("n3")
    world.converge()
    assert len(ballots(world, "k")) == 1


def test_repair_changes_no_version_so_that_contexts_stay_good(world: World) -> None:
    """The ballot is another one, the value's dot is not: compare-and-set goes on."""
    miss_a_write(world, "k")
    seen = get(world, "k")
    before = ballots(world, "k")
    world.converge()
    assert not before & ballots(world, "k")
    again = put(world, "k", "newer", "n2", condition=Condition.MATCH, context=seen)
    assert isinstance(again.result, Written), again.result


def test_writers_are_hardly_ever_outbid_by_repair(world: World) -> None:
    """What is under way looks like a difference: it is looked at again before anyone is outbid."""
    done = 0
    for i in range(300):
        done += isinstance(put(world, f"k{i % 3}", f"v{i}", f"n{i % 3 + 1}").result, Written)
        world.run(60)
    assert done == 300
    assert counter(world, "strong_outbid") < 5
    world.converge()


def test_many_registers_are_repaired_within_the_rate(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eighty differ, ten may be begun a second: it takes several seconds and all are repaired."""
    monkeypatch.setattr(config, "REGISTERS_PER_S", 10)
    keys = [f"k{i}" for i in range(80)]
    miss_a_write(world, *keys)
    began = world.now_ms
    while not world.converged:
        before = counter(world, "registers_repaired")
        world.run(1_000)
        assert counter(world, "registers_repaired") - before <= 3 * 20
    assert world.now_ms - began > 2_000
    assert all(len(ballots(world, key)) == 1 for key in keys)


def test_records_and_registers_of_one_leaf_are_both_brought_to_one(world: World) -> None:
    """A key in both worlds: its versions are merged, its register goes by a round, and the trees are equal."""
    world.partition({"n3"}, {"n1", "n2"})
    put(world, "k", "register")
    world.run(2_500)
    assert isinstance(world.wait(world.put("k", "version", "n3", w=1)).result, Written)
    world.heal()
    world.converge()
    assert len(ballots(world, "k")) == 1
    assert {tuple(v.value for v in record) for record in world.replicas("k").values()} == {(b"version",)}


# ---- a lost disk -------------------------------------------------------------------------------


def test_a_wiped_node_gets_its_registers_back_by_anti_entropy_alone(world: World) -> None:
    """Forty registers, a lost disk, no client: all are back, and with one other it answers for each."""
    keys = [f"k{i}" for i in range(40)]
    for key in keys:
        put(world, key)
    world.converge()
    world.wipe("n2")
    world.restart("n2")
    world.run(WAIT_MS + 5_000)
    world.converge()
    assert not world.node("n2").local.voteless
    assert all(len(ballots(world, key)) == 1 for key in keys)

    world.crash("n1")
    world.run(3_000)
    assert all(get(world, key, "n2").values == [b"v"] for key in keys)


def test_what_a_wiped_node_cannot_copy_it_gets_by_rounds(world: World) -> None:
    """The other two differ when it copies: whichever it got, it ends with what a round decides."""
    put(world, "k", "old")
    world.wipe("n2")
    half = world.put("k", "new", "n1", mode="strong", timeout_ms=300)
    world.run(50)
    world.partition({"n1"}, {"n3"})
    world.wait(half)
    world.heal()
    world.restart("n2")
    world.run(WAIT_MS + 5_000)
    world.converge()
    assert len(ballots(world, "k")) == 1
    assert len({tuple(get(world, "k", via).values) for via in world.nodes}) == 1


# ---- the tests can fail ------------------------------------------------------------------------


def nobody_repairs(patch: pytest.MonkeyPatch) -> None:
    """Exchanges find the difference, and nobody acts on it."""
    patch.setattr(RegisterRepair, "want", lambda self, key: None)


def registers_are_in_no_exchange(patch: pytest.MonkeyPatch) -> None:
    """They are in the tree, but never compared."""
    patch.setattr("kvnode.core.antientropy.accepted_in", lambda store, leaves: iter(()))
    patch.setattr("kvnode.core.answering.accepted_in", lambda store, leaves: iter(()))


@pytest.mark.parametrize("plant", [nobody_repairs, registers_are_in_no_exchange])
def test_registers_that_nobody_repairs_never_converge(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The roots tell: a world that waits for them to be equal waits in vain."""
    plant(monkeypatch)
    world = World(seed=1, settings=OFTEN)
    miss_a_write(world, "k")
    with pytest.raises(AssertionError, match="converged False"):
        world.converge()


def the_first_value_told_wins(patch: pytest.MonkeyPatch) -> None:
    """Whoever answers first is believed, whatever the others accepted later."""
    hear = RegisterRepair._hear

    def first(self: RegisterRepair, rid: int, repair: Repair, accepted: Ballot, value: bytes) -> None:
        believed = repair.phase == PREPARE and repair.value
        hear(self, rid, repair, *((repair.latest, repair.value) if believed else (accepted, value)))

    patch.setattr(RegisterRepair, "_hear", first)


def repair_proposes_without_promises(patch: pytest.MonkeyPatch) -> None:
    """What was read is accepted under a new ballot: it writes over what came between."""
    ask = RegisterRepair._ask

    def skip(self: RegisterRepair, repair: Repair, phase: str) -> None:
        if phase == PREPARE:
            told = [self._outbox.register(repair.key)]
            repair.latest, repair.value = repair.highest, decode_register(told[0]).value
            phase = "accept" if repair.value else "read"
        ask(self, repair, phase)

    patch.setattr(RegisterRepair, "_ask", skip)


BUSY = RegisterShape(
    clients=CROWD.clients, keys=2, think_ms=(0, 60), operations=400, timeout_ms=200, faults=SPLIT.faults
)


@pytest.mark.parametrize("plant", [the_first_value_told_wins, repair_proposes_without_promises])
def test_a_careless_repair_is_found_by_seeds(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Repair at every chance while clients compare-and-set: some history is none that a register could have."""
    monkeypatch.setattr(config, "REGISTER_WAIT_MS", 5)
    monkeypatch.setattr("kvnode.sim.registers.SETTINGS", Settings(repair_interval_ms=1_000))
    plant(monkeypatch)
    for seed in range(1, 41):
        if run_strong(seed, BUSY).violations:
            print(f"found by seed {seed}")
            return
    raise AssertionError(f"{plant.__name__} is not found")


def test_a_careful_repair_at_every_chance_leaves_one_history(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same seeds without the bug."""
    monkeypatch.setattr(config, "REGISTER_WAIT_MS", 5)
    monkeypatch.setattr("kvnode.sim.registers.SETTINGS", Settings(repair_interval_ms=1_000))
    for seed in range(1, 11):
        assert not run_strong(seed, BUSY).violations
