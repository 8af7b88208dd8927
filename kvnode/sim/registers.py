"""A seeded run in mode `strong`: clients that get, put, delete and compare-and-set a few registers.

Promises: `run_strong(seed)` is the same everywhere; every value is put by one operation; nothing is
retried. Never: judges by itself; that is `linear`.

    work and faults ──► mend all ──► every node reads every key ──► is each key's history linearizable?
"""

from __future__ import annotations

from collections import Counter
from random import Random

import msgspec
from msgspec import Struct

from kvnode.protocol.messages import Condition, Failed, Get, Got, Put, Written
from kvnode.sim.check import Violation
from kvnode.sim.client import Call
from kvnode.sim.clock import derive, tenths
from kvnode.sim.events import Tell
from kvnode.sim.faults import KINDS, Chances, Nemesis
from kvnode.sim.linear import ANY
from kvnode.sim.strong import judge_registers, shown
from kvnode.sim.workload import SETTINGS, Verdict
from kvnode.sim.world import World

LATE_MS = 1_000
"""Once all is mended, heartbeats of before come late, with clocks that were wrong then (seed 77)."""
VOTES_AGAIN_MS = 60_000
"""Within this time after all is mended every node votes again."""


class RegisterShape(Struct, frozen=True, kw_only=True):
    """How much work, and how much goes wrong."""

    clients: int = 4
    operations: int = 90
    keys: int = 2
    deletes: float = 0.15
    """The share of writes that delete."""
    think_ms: tuple[int, int] = (0, 40)
    timeout_ms: int = 500
    faults: Chances = Chances()
    wiped: int = 0
    """Rounds of work in which a disk is lost."""


def draw_register_shape(rng: Random) -> RegisterShape:
    """A run unlike the others."""
    gap = rng.choice((60, 150, 400))
    weights = tuple(rng.choice((0, 1, 1, 3)) for _ in KINDS)
    return RegisterShape(
        clients=rng.choice((2, 3, 5)),
        keys=rng.choice((1, 2, 4)),
        think_ms=(0, rng.choice((1, 20, 80))),
        timeout_ms=rng.choice((200, 500, 2_000)),
        wiped=rng.choice((0, 0, 0, 1, 2)),
        faults=Chances(every_ms=(gap // 3, gap * 2), lasts_ms=(20, rng.choice((200, 900))), weights=weights),
    )


class RegisterWork:
    """Clients at work, one operation at a time each."""

    def __init__(self, world: World, rng: Random, shape: RegisterShape) -> None:
        self._world = world
        self._rng = rng
        self._shape = shape
        self._left = 0
        self._number = 0
        self._names = list(world.nodes)
        self._seen: dict[tuple[str, bytes], Call] = {}
        """Client and key -> the read or write it last had an answer to."""
        self.calls: list[Call] = []
        self.outcomes: Counter[str] = Counter()
        self.keys = [f"r{i}".encode() for i in range(shape.keys)]

    def begin(self) -> None:
        """A round of work."""
        self._left = self._shape.operations
        for i in range(self._shape.clients):
            self._think(f"c{i}")

    @property
    def done(self) -> bool:
        """Whether all work is done and answered."""
        return not self._left and not self._world.clients.waiting

    def _think(self, client: str) -> None:
        low, high = self._shape.think_ms
        self._world.timeline.after(tenths(self._rng.randint(low, high)), self._act, client)

    def _act(self, client: str) -> None:
        if not self._left:
            return
        self._left -= 1
        key = self._rng.choice(self.keys)
        call = self._get(client, key) if self._rng.random() < 0.45 else self._put(client, key)
        self.calls.append(call)
        call.on_done = lambda call: self._told(client, call)

    def _node(self, key: bytes) -> str:
        """Mostly the first owner, as real clients do; often another, so that proposers meet."""
        name = self._world.owners(key)[0] if self._rng.random() < 0.5 else self._rng.choice(self._names)
        node = self._world.node(name)
        return name if node.up and not node.paused else self._rng.choice(self._names)

    def _get(self, client: str, key: bytes) -> Call:
        timeout = self._shape.timeout_ms
        return self._world.get(key, self._node(key), mode="strong", client=client, timeout_ms=timeout)

    def _put(self, client: str, key: bytes) -> Call:
        """A put of what nobody wrote before, a delete, or one of either under a condition."""
        self._number += 1
        value = None if self._rng.random() < self._shape.deletes else f"{client}-{self._number}".encode()
        condition, context = Condition.NONE, None
        expects: bytes | None = ANY
        dice, seen = self._rng.random(), self._seen.get((client, key))
        if dice < 0.2:
            condition, expects = Condition.ABSENT, None
        elif dice < 0.6 and seen is not None and (there := shown(seen)) is not None:
            condition, context, expects = Condition.MATCH, seen, there
        call = self._world.put(
            key, value, self._node(key), mode="strong", condition=condition, context=context, client=client,
            timeout_ms=self._shape.timeout_ms,
        )  # fmt: skip
        call.expects = expects
        return call

    def _told(self, client: str, call: Call) -> None:
        told = call.result
        self.outcomes[type(told).__name__ if not isinstance(told, Failed) else told.error.name.lower()] += 1
        if isinstance(told, Got | Written):
            assert isinstance(call.ask, Get | Put)
            self._seen[client, call.ask.key] = call
        self._think(client)

    def read_everywhere(self) -> None:
        """Every node reads every key; each read must succeed."""
        for key in self.keys:
            for name in self._names:
                call = self._world.wait(self._world.get(key, name, mode="strong", timeout_ms=5_000))
                assert isinstance(call.result, Got), f"once all is mended {name} says {call.result}"
                self.calls.append(call)

    def violations(self) -> list[Violation]:
        """The keys whose history no register could have."""
        return judge_registers(self.calls).violations


def run_strong(seed: int, shape: RegisterShape | None = None, tell: Tell | None = None) -> Verdict:
    """One whole run."""
    shape = shape if shape is not None else draw_register_shape(derive(seed, "strong shape"))
    rng = derive(seed, "strong")
    nodes, n = rng.choice(((3, 3), (3, 3), (4, 3), (5, 3), (5, 5)))
    world = World(seed, nodes=nodes, n=n, settings=SETTINGS, tell=tell)
    work = RegisterWork(world, rng, shape)
    faults: Counter[str] = Counter()
    try:
        for part in range(max(1, shape.wiped)):
            work.begin()
            chances = msgspec.structs.replace(shape.faults, wipe=bool(shape.wiped))
            nemesis = Nemesis(world, derive(seed, f"strong nemesis {part}"), chances)
            world.run_until(lambda: work.done, within_ms=600_000)
            nemesis.mend()
            world.run(LATE_MS)
            faults.update(nemesis.counts)
            world.converge()
            world.run_until(lambda: world.voting, VOTES_AGAIN_MS)
        work.read_everywhere()
    except AssertionError as error:
        error.add_note(f"in the world of seed {seed}, mode strong")
        raise
    return Verdict(
        seed=seed, violations=work.violations(), trace_hash=world.trace_hash(),
        events=world.timeline.happened, outcomes=dict(sorted(work.outcomes.items())), faults=dict(faults),
    )  # fmt: skip
