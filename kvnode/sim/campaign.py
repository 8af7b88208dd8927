"""A campaign: one case run in a world, from the first operation to the verdict.

Promises: the same case gives the same verdict and trace in any process; a run that does not heal, or
that breaks an assertion of the store's, fails. Never: judges by itself; that is `check`.

    safety: operations and faults ──► mend all ──► liveness: converge ──► a read of all owners ──► judge
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from kvnode.config import Settings
from kvnode.protocol.messages import Condition, Failed, Got, Put, Written, safe_to_retry
from kvnode.protocol.types import ALL, Record
from kvnode.sim.breaker import Breaker
from kvnode.sim.case import AN_OWNER, Case, Kind, Planned
from kvnode.sim.check import Judgement, Violation, judge
from kvnode.sim.client import Call, Context
from kvnode.sim.clock import START, millis, tenths
from kvnode.sim.events import Tell
from kvnode.sim.ground import Ground
from kvnode.sim.linear import ANY
from kvnode.sim.shapes import Operators, Watch
from kvnode.sim.sides import Side, sides
from kvnode.sim.story import Replicas
from kvnode.sim.strong import judge_registers, shown
from kvnode.sim.world import World

JUDGE = "judge"
"""The client that reads everything in the end."""
ENDS_WITHIN_MS = 5_000
"""The last reads of registers have so long."""
HEALS_WITHIN_MS = 300_000
"""A store that has not converged so long after all is mended never will."""


class Report(Struct, frozen=True, kw_only=True):
    """What became of a case."""

    seed: int
    judgement: Judgement
    outcomes: dict[str, int]
    """Operations by how they ended."""
    faults: dict[str, int]
    """Faults done, by kind."""
    changes: dict[str, int] = {}
    """Changes of the cluster's shape that were committed, by kind."""
    sides: list[Side] = []
    """Of each partition."""
    trace_hash: str | None = None
    events: int | None = None
    sim_ms: int | None = None
    """These three of a simulated run."""

    @property
    def passed(self) -> bool:
        """Whether every promise was kept."""
        return self.judgement.passed

    @property
    def claims(self) -> set[str]:
        """The claims that were broken."""
        return {violation.claim for violation in self.judgement.violations}


class Clients:
    """The clients of a case: each asks for one thing after another."""

    def __init__(self, ground: Ground, case: Case) -> None:
        self._ground = ground
        self._case = case
        self._ends = START + tenths(case.lasts_ms)
        self._queues: dict[str, deque[Planned]] = {}
        self._seen: dict[tuple[str, bytes], Context] = {}
        """Client and key -> what it last saw of it; used for one write."""
        self._last: dict[tuple[str, bytes], Call] = {}
        """The same in mode `strong`."""
        self.outcomes: Counter[str] = Counter()
        for op in case.ops:
            self._queues.setdefault(op.client, deque()).append(op)
        for client in self._queues:
            self._next(client)

    @property
    def done(self) -> bool:
        """Whether all is asked for and answered."""
        return not any(self._queues.values()) and not self._ground.asking.waiting

    def stop(self) -> None:
        """Ask for nothing more."""
        self._ends = self._ground.timeline.now - 1

    def _next(self, client: str) -> None:
        if queue := self._queues[client]:
            timeline = self._ground.timeline
            timeline.at(max(timeline.now + 1, START + tenths(queue[0].at_ms)), self._act, client)

    def _act(self, client: str) -> None:
        queue = self._queues[client]
        if self._ground.timeline.now > self._ends:
            return queue.clear()  # it waited too often to ask for all it wanted
        planned = queue.popleft()
        call = self._ask(planned)
        call.on_done = lambda call: self._told(planned, call)
        return None

    def _ask(self, op: Planned) -> Call:
        ground, load = self._ground, self._case.load
        via, mode = self._node(op), op.mode
        if op.kind is Kind.SCAN:
            return ground.scan(via, limit=1 + op.via % 20)
        if op.kind is Kind.GET:
            return ground.get(op.key, via, mode=mode, r=op.count, client=op.client, timeout_ms=load.timeout_ms)
        value = f"{op.client}-{op.number}".ljust(load.value_bytes, ".").encode() if op.kind is Kind.PUT else None
        if mode == "strong":
            return self._compare_and_set(op, via, value)
        context = self._seen.pop((op.client, op.key), None) if op.informed else None
        return ground.put(
            op.key, value, via, mode=mode, w=op.count, context=context, client=op.client,
            siblings=op.keeps_siblings and context is None, timeout_ms=load.timeout_ms,
        )  # fmt: skip

    def _compare_and_set(self, op: Planned, via: str, value: bytes | None) -> Call:
        """A put or delete in mode `strong`, where its condition can be judged by what was shown."""
        condition, context = Condition.NONE, None
        expects: bytes | None = ANY
        last = self._last.get((op.client, op.key))
        there = shown(last) if last is not None else None
        if op.condition == "absent":
            condition, expects = Condition.ABSENT, None
        elif op.condition == "match" and there is not None:
            condition, context, expects = Condition.MATCH, last, there
        call = self._ground.put(
            op.key, value, via, mode="strong", condition=condition, context=context, client=op.client,
            timeout_ms=self._case.load.timeout_ms,
        )  # fmt: skip
        call.expects = expects
        return call

    def _node(self, op: Planned, but: str = "") -> str:
        """Mostly one that is up: a client sees at once when nobody listens. `but`: it was tried."""
        ground = self._ground
        if self._case.load.via == AN_OWNER:
            owners = ground.owners(op.key)
            return next((name for name in owners if name != but and ground.serves(name)), owners[-1])
        via, names = op.via // 4096 if but else op.via, ground.names
        name = names[via % len(names)]
        return name if ground.serves(name) else names[via // 64 % len(names)]

    def _told(self, op: Planned, call: Call) -> None:
        told, ask = call.result, call.ask
        kind = type(told).__name__.lower() if told is not None else "silence"
        self.outcomes[told.error.name.lower() if isinstance(told, Failed) else kind] += 1
        if isinstance(told, Got | Written) and op.mode == "strong":
            self._last[op.client, op.key] = call
        elif isinstance(told, Got | Written) and op.kind is not Kind.SCAN:
            self._seen[op.client, op.key] = call.context
        unsure = told is None or (isinstance(told, Failed) and told.maybe_applied)
        if unsure and op.retries and isinstance(ask, Put) and safe_to_retry(ask) and not ask.retry:
            self._try_again(op, call, ask)
        else:
            self._next(op.client)

    def _try_again(self, op: Planned, call: Call, ask: Put) -> None:
        """The same put at another node, once, said to be a retry."""
        again = self._ground.put(
            op.key, ask.value, self._node(op, call.node), w=ask.w, siblings=ask.siblings, retry=True,
            mode=op.mode, condition=Condition(ask.condition),
            context=Context(ask.context, call.saw), timeout_ms=ask.timeout_ms, client=op.client,
        )  # fmt: skip
        again.on_done = lambda _: self._next(op.client)


def run(case: Case, tell: Tell | None = None) -> Report:
    """One whole run."""
    settings = Settings(repair_interval_ms=case.repair_interval_ms)
    world = World(case.seed, nodes=case.nodes, n=case.n, settings=settings, tell=tell)
    clients, breaker = Clients(world, case), Breaker(world, case.faults)
    operators, watch = Operators(world, case.changes), Watch(world, lost=case.disks_lost)
    broken: list[Violation] = []
    last_reads: dict[bytes, Record] = {}
    try:
        world.run(case.lasts_ms)
        world.run_until(lambda: clients.done, within_ms=HEALS_WITHIN_MS)
        operators.stop()
        breaker.mend()
        world.converge(HEALS_WITHIN_MS)
        if case.load.mode == "strong":
            world.run_until(lambda: world.voting, HEALS_WITHIN_MS)
            read_registers(world, case, broken)
    except AssertionError as error:
        broken.append(Violation(_whose(error), b"", str(error) or _where(error)))
    final = world.final()  # before the reads, which would mend what they find
    if not broken and case.load.mode != "strong":
        for key in sorted(final.keys() | {op.key for op in case.ops}):
            call = _read_all(world, key)
            if isinstance(call.result, Got):
                last_reads[key] = call.record
    if case.load.mode != "strong":
        broken += watch.found
    report = conclude(
        case, world.clients.calls, Ending(final, last_reads, broken), clients.outcomes, breaker.counts
    )
    return replace(
        report, changes=dict(sorted(operators.counts.items())), trace_hash=world.trace_hash(),
        events=world.timeline.happened, sim_ms=int(millis(world.timeline.now - START)),
    )  # fmt: skip


def read_registers(ground: Ground, case: Case, broken: list[Violation]) -> None:
    """In the end each owner reads each register: it must answer, and what it shows is part of the history."""
    for key in sorted({op.key for op in case.ops}):
        for owner in ground.owners(key):
            call = ground.get(key, owner, mode="strong", timeout_ms=ENDS_WITHIN_MS, client=JUDGE)
            ground.wait(call)
            if not isinstance(call.result, Got):
                broken.append(Violation("heals", key, f"once all is mended {owner} says {call.result}"))


class Ending(NamedTuple):
    """What was found once all was quiet."""

    final: Mapping[bytes, Replicas]
    last_reads: Mapping[bytes, Record]
    broken: list[Violation]
    """What went wrong on the way there."""


def conclude(
    case: Case, calls: Sequence[Call], ending: Ending, outcomes: Counter[str], faults: Counter[str]
) -> Report:
    """The verdict on a run, simulated or not."""
    asked = [call for call in calls if call.client != JUDGE.encode()]
    judgement = judge_registers(calls) if case.load.mode == "strong" else judge(
        [op for call in calls for op in call.ops()], ending.final, ending.last_reads, disks_lost=case.disks_lost,
        asked=len(asked),
        silent=sum(isinstance(c.result, Failed | None) and not isinstance(c.ask, Put) for c in asked),
    )  # fmt: skip
    judgement.violations[:0] = ending.broken
    return Report(
        seed=case.seed, judgement=judgement, outcomes=dict(sorted(outcomes.items())),
        faults=dict(sorted(faults.items())), sides=sides(case, asked),
    )  # fmt: skip


def _read_all(world: World, key: bytes) -> Call:
    """A read of all owners; made again where one has just come back: it is avoided for a moment more."""
    end = world.now_ms + 2 * world.settings.avoid_ms
    while True:
        call = world.wait(world.get(key, world.owners(key)[0], r=ALL, client=JUDGE))
        if isinstance(call.result, Got) or world.now_ms > end:
            return call
        world.run(100)


def _whose(error: AssertionError) -> str:
    """The store's own assertions, or the world's waiting in vain."""
    return "heals" if "converged" in str(error) or "never" in str(error) else "invariants_hold"


def _where(error: AssertionError) -> str:
    at = error.__traceback__
    assert at is not None
    while at.tb_next is not None:
        at = at.tb_next
    return f"an assertion failed in {at.tb_frame.f_code.co_qualname}, line {at.tb_lineno}"
