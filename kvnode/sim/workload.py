"""A seeded run: clients that get, put and delete a few keys, while things break; then mend, and judge.

Promises: `run(seed)` is the same everywhere; every value written is written by one operation and its
retries; the verdict says how to replay it. Never: judges by itself; that is `check`.

    safety phase: work and faults ──► mend all ──► converge ──► a read of all owners ──► check
"""

from __future__ import annotations

from collections import Counter
from random import Random

import msgspec
from msgspec import Struct

from kvnode.config import Settings
from kvnode.protocol.messages import Condition, Failed, Got, Put, Written, safe_to_retry
from kvnode.protocol.types import ALL, DEFAULT, Record
from kvnode.sim.check import Violation, check
from kvnode.sim.client import Call, Context
from kvnode.sim.clock import derive, tenths
from kvnode.sim.events import Tell
from kvnode.sim.faults import KINDS, Chances, Nemesis
from kvnode.sim.world import World

SETTINGS = Settings(repair_interval_ms=2_000)
"""Exchanges more often than users need them, so that they meet the faults."""
REPLAY = "replay: KVSIM_SEEDS={0}..{0} KVSIM_TELL=1 python -m pytest tests/test_sim_seeds.py -s"


class Shape(Struct, frozen=True, kw_only=True):
    """How much work, on how many keys and nodes."""

    clients: int = 4
    operations: int = 120
    keys: int = 4
    think_ms: tuple[int, int] = (0, 60)
    timeout_ms: int = 400
    faults: Chances | None = Chances()
    wiped: int = 0
    """Rounds of work in which a disk is lost. Then every write is of two copies at least, and a version
    that was merely shown may be gone: one copy of it was all there was."""


def draw_shape(rng: Random) -> Shape:
    """A run unlike the others: few clients or many, calm or stormy, and only some kinds of faults.

    A run with everything at once hides what a run with two faults shows (swarm testing, Groce 2012).
    """
    gap, wiped = rng.choice((60, 150, 400)), rng.choice((0, 0, 1, 2))
    weights = tuple(rng.choice((0, 1, 1, 3)) for _ in KINDS)
    return Shape(
        clients=rng.choice((2, 4, 8)),
        keys=rng.choice((1, 2, 5)),
        think_ms=(0, rng.choice((1, 20, 80))),
        timeout_ms=rng.choice((200, 500, 2_000)),
        wiped=wiped,
        faults=Chances(every_ms=(gap // 3, gap * 2), lasts_ms=(20, rng.choice((200, 900))), weights=weights),
    )


class Verdict(Struct, frozen=True, kw_only=True):
    """What became of a run."""

    seed: int
    violations: list[Violation]
    trace_hash: str
    events: int
    outcomes: dict[str, int]
    """Operations by how they ended."""
    faults: dict[str, int]

    def explain(self) -> str:
        """What is wrong, and how to see it again."""
        lines = [f"  {v.claim} of {v.key!r}: {v.text}" for v in self.violations[:10]]
        return "\n".join(
            [f"seed {self.seed}: {len(self.violations)} violations", *lines, REPLAY.format(self.seed)]
        )


class Workload:
    """Clients at work, one operation at a time each."""

    def __init__(self, world: World, rng: Random, shape: Shape) -> None:
        self._world = world
        self._rng = rng
        self._shape = shape
        self._left = shape.operations
        self._round = 0
        self._names = list(world.nodes)
        self._seen: dict[tuple[str, bytes], Context] = {}
        """Client and key -> what it last saw of it; used for one write."""
        self.last_reads: dict[bytes, Record] = {}
        self.outcomes: Counter[str] = Counter()
        self.keys = [f"k{i}".encode() for i in range(shape.keys)]
        self._begin()

    def _begin(self) -> None:
        for i in range(self._shape.clients):
            self._think(f"c{i}")

    def again(self) -> None:
        """As much work once more."""
        assert self.done
        self._left = self._shape.operations
        self._round += 1
        self._begin()

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
        dice = self._rng.random()
        if dice < 0.40:
            call = self._get(client, key)
        elif dice < 0.43:
            call = self._world.scan(self._node(), limit=self._rng.choice((1, 3, 100)))
        else:
            call = self._put(client, key, delete=dice > 0.92)
        call.on_done = lambda call: self._told(client, call)

    def _node(self) -> str:
        """Mostly one that is up: a client sees at once when nobody listens."""
        name = self._rng.choice(self._names)
        node = self._world.node(name)
        return name if node.up and not node.paused else self._rng.choice(self._names)

    def _get(self, client: str, key: bytes) -> Call:
        quorum = self._rng.random() < 0.4
        return self._world.get(
            key, self._node(), mode="quorum" if quorum else "eventual", client=client,
            r=DEFAULT if quorum else self._rng.choice((DEFAULT, 1, ALL)), timeout_ms=self._shape.timeout_ms,
        )  # fmt: skip

    def _put(self, client: str, key: bytes, *, delete: bool) -> Call:
        """A put of what nobody wrote before: with a context where one is at hand, or blind."""
        rng, world = self._rng, self._world
        context = self._seen.pop((client, key), None) if rng.random() < 0.8 else None
        quorum = rng.random() < 0.3
        w = DEFAULT if quorum or self._shape.wiped else rng.choice((DEFAULT, DEFAULT, 1, ALL))
        condition = rng.choice(
            (Condition.MATCH if context is not None else Condition.ABSENT, *[Condition.NONE] * 7)
        )
        value = None if delete else f"{client}-{self._round}-{self._left}".encode()
        return world.put(
            key, value, self._node(), mode="quorum" if quorum else "eventual", w=w, context=context,
            siblings=context is None and not delete and condition == Condition.NONE and rng.random() < 0.1,
            condition=condition, client=client, timeout_ms=self._shape.timeout_ms,
        )  # fmt: skip

    def _told(self, client: str, call: Call) -> None:
        told, ask = call.result, call.ask
        self.outcomes[type(told).__name__ if not isinstance(told, Failed) else told.error.name.lower()] += 1
        if isinstance(told, Got) and not isinstance(ask, Put):
            self._seen[client, ask.key] = call.context  # type: ignore[union-attr]
        elif isinstance(told, Written) and isinstance(ask, Put) and self._rng.random() < 0.5:
            self._seen[client, ask.key] = call.context
        unsure = told is None or (isinstance(told, Failed) and told.maybe_applied)
        if unsure and isinstance(ask, Put) and safe_to_retry(ask) and self._rng.random() < 0.7:
            self._try_again(client, call, ask)
        else:
            self._think(client)

    def _try_again(self, client: str, call: Call, ask: Put) -> None:
        """The same put at some node, said to be a retry."""
        again = self._world.put(
            ask.key, ask.value, self._node(), w=ask.w, siblings=ask.siblings, retry=True,
            context=Context(ask.context, call.saw), timeout_ms=ask.timeout_ms, client=client,
        )  # fmt: skip
        again.on_done = lambda again: self._told(client, again)

    def read_all(self) -> None:
        """Read every key from all of its owners; each read must succeed."""
        for key in self.keys:
            call = self._world.wait(self._world.get(key, self._world.owners(key)[0], r=ALL))
            self.last_reads[key] = call.record


def run(seed: int, shape: Shape | None = None, tell: Tell | None = None) -> Verdict:
    """One whole run."""
    rng = derive(seed, "workload")
    shape = shape if shape is not None else draw_shape(derive(seed, "shape"))
    nodes, n = rng.choice(((3, 3), (3, 3), (4, 3), (5, 3), (5, 5), (2, 2)))
    world = World(seed, nodes=nodes, n=n, settings=SETTINGS, tell=tell)
    try:
        return _judge(world, rng, shape)
    except AssertionError as error:
        error.add_note(f"in the world of seed {seed}; {REPLAY.format(seed)}")
        raise


def _judge(world: World, rng: Random, shape: Shape) -> Verdict:
    work = Workload(world, rng, shape)
    faults: Counter[str] = Counter()
    chances = shape.faults if shape.faults is not None else Chances(weights=(0,) * len(KINDS))
    for part in range(max(1, shape.wiped)):
        if part:
            work.again()
        chances = msgspec.structs.replace(chances, wipe=bool(shape.wiped))
        nemesis = Nemesis(world, derive(world.seed, f"nemesis {part}"), chances)
        world.run_until(lambda: work.done, within_ms=600_000)
        nemesis.mend()
        faults.update(nemesis.counts)
        world.converge()
    final = world.final()  # before the reads, which would mend what they find
    work.read_all()
    world.settle()
    return Verdict(
        seed=world.seed,
        violations=check(world.history(), final, work.last_reads, disks_lost=bool(shape.wiped)),
        trace_hash=world.trace_hash(),
        events=world.timeline.happened,
        outcomes=dict(sorted(work.outcomes.items())),
        faults=dict(faults),
    )
