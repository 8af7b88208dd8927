"""A campaign: one case run in a world, from the first operation to the verdict.

Promises: the same case gives the same verdict and trace in any process; a run that does not heal, or
that breaks an assertion of the store's, fails. Never: judges by itself; that is `check`.

    safety: operations and faults ──► mend all ──► liveness: converge ──► a read of all owners ──► judge
"""

from __future__ import annotations

from collections import Counter, deque

from msgspec import Struct

from kvnode.config import Settings
from kvnode.core.consensus import decode_register
from kvnode.protocol.messages import Condition, Failed, Got, Put, Written, safe_to_retry
from kvnode.protocol.types import ALL, Record
from kvnode.sim.breaker import Breaker
from kvnode.sim.case import Case, Kind, Planned
from kvnode.sim.check import Judgement, Violation, judge
from kvnode.sim.client import Call, Context
from kvnode.sim.clock import START, millis, tenths
from kvnode.sim.events import Tell
from kvnode.sim.registers import shown
from kvnode.sim.strong import judge_strong
from kvnode.sim.world import World

JUDGE = "judge"
"""The client that reads everything in the end."""
HEALS_WITHIN_MS = 300_000
"""A store that has not converged so long after all is mended never will."""


class Report(Struct, frozen=True, kw_only=True):
    """What became of a case."""

    seed: int
    judgement: Judgement
    trace_hash: str
    events: int
    sim_ms: int
    outcomes: dict[str, int]
    """Operations by how they ended."""
    faults: dict[str, int]
    """Faults done, by kind."""

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

    def __init__(self, world: World, case: Case) -> None:
        self._world = world
        self._case = case
        self._names = list(world.nodes)
        self._ends = START + tenths(case.lasts_ms)
        self._queues: dict[str, deque[Planned]] = {}
        self._seen: dict[tuple[str, bytes], Context] = {}
        """Client and key -> what it last saw of it; used for one write."""
        self.outcomes: Counter[str] = Counter()
        for op in case.ops:
            self._queues.setdefault(op.client, deque()).append(op)
        for client in self._queues:
            self._next(client)

    @property
    def done(self) -> bool:
        """Whether all is asked for and answered."""
        return not any(self._queues.values()) and not self._world.clients.waiting

    def _next(self, client: str) -> None:
        if queue := self._queues[client]:
            timeline = self._world.timeline
            timeline.at(max(timeline.now + 1, START + tenths(queue[0].at_ms)), self._act, client)

    def _act(self, client: str) -> None:
        queue = self._queues[client]
        if self._world.timeline.now > self._ends:
            return queue.clear()  # it waited too often to ask for all it wanted
        planned = queue.popleft()
        call = self._ask(planned)
        call.on_done = lambda call: self._told(planned, call)
        return None

    def _ask(self, op: Planned) -> Call:
        world, load = self._world, self._case.load
        via, mode = self._node(op.via), "strong" if op.strong else "quorum" if op.quorum else "eventual"
        if op.kind is Kind.SCAN:
            return world.scan(via, limit=1 + op.via % 20)
        if op.kind is Kind.GET:
            return world.get(op.key, via, mode=mode, r=op.count, client=op.client, timeout_ms=load.timeout_ms)
        needed = op.informed if not op.strong else op.condition == Condition.MATCH
        context = self._seen.pop((op.client, op.key), None) if needed else None
        condition = Condition.NONE if needed and context is None else op.condition
        value = f"{op.client}-{op.number}".ljust(load.value_bytes, ".").encode() if op.kind is Kind.PUT else None
        return world.put(
            op.key, value, via, mode=mode, w=op.count, context=context, condition=condition, client=op.client,
            siblings=op.keeps_siblings and context is None, timeout_ms=load.timeout_ms,
        )  # fmt: skip

    def _node(self, via: int) -> str:
        """Mostly one that is up: a client sees at once when nobody listens."""
        name = self._names[via % len(self._names)]
        node = self._world.node(name)
        return name if node.up and not node.paused else self._names[via // 64 % len(self._names)]

    def _told(self, op: Planned, call: Call) -> None:
        told, ask = call.result, call.ask
        kind = type(told).__name__.lower() if told is not None else "silence"
        self.outcomes[told.error.name.lower() if isinstance(told, Failed) else kind] += 1
        if isinstance(told, Got | Written) and op.kind is not Kind.SCAN:
            self._seen[op.client, op.key] = call.context
            if op.strong and shown(call) is None:  # a context of nothing is a condition that a reaping may void
                del self._seen[op.client, op.key]
        unsure = told is None or (isinstance(told, Failed) and told.maybe_applied)
        if unsure and op.retries and isinstance(ask, Put) and safe_to_retry(ask):
            self._try_again(op, call, ask)
        else:
            self._next(op.client)

    def _try_again(self, op: Planned, call: Call, ask: Put) -> None:
        """The same put at another node, once, said to be a retry."""
        again = self._world.put(
            ask.key, ask.value, self._node(op.via // 4096), w=ask.w, siblings=ask.siblings, retry=True,
            mode="quorum" if op.quorum else "eventual", condition=Condition(ask.condition),
            context=Context(ask.context, call.saw), timeout_ms=ask.timeout_ms, client=op.client,
        )  # fmt: skip
        again.on_done = lambda _: self._next(op.client)


def run(case: Case, tell: Tell | None = None) -> Report:
    """One whole run."""
    settings = Settings(repair_interval_ms=case.repair_interval_ms)
    world = World(case.seed, nodes=case.nodes, n=case.n, settings=settings, tell=tell)
    clients, breaker = Clients(world, case), Breaker(world, case.faults)
    broken: list[Violation] = []
    last_reads: dict[bytes, Record] = {}
    try:
        world.run(case.lasts_ms)
        world.run_until(lambda: clients.done, within_ms=HEALS_WITHIN_MS)
        breaker.mend()
        world.converge(HEALS_WITHIN_MS)
    except AssertionError as error:
        broken.append(Violation(_whose(error), b"", str(error) or _where(error)))
    if case.load.mode == "strong":
        judgement = _strong(world, case, read=not broken)
        judgement.violations[:0] = broken
        return _report(case, world, judgement, clients, breaker)
    final = world.final()  # before the reads, which would mend what they find
    if not broken:
        for key in sorted(final.keys() | {op.key for op in case.ops}):
            call = world.wait(world.get(key, world.owners(key)[0], r=ALL, client=JUDGE))
            if isinstance(call.result, Got):
                last_reads[key] = call.record
    history = world.history()
    asked = [call for call in world.clients.calls if call.client != JUDGE.encode()]
    judgement = judge(
        history, final, last_reads, disks_lost=case.disks_lost,
        asked=len(asked),
        silent=sum(isinstance(c.result, Failed | None) and not isinstance(c.ask, Put) for c in asked),
    )  # fmt: skip
    judgement.violations[:0] = broken
    return _report(case, world, judgement, clients, breaker)


def _strong(world: World, case: Case, *, read: bool) -> Judgement:
    """In the end each owner holds the same, and is read: that is history too."""
    unread: list[str] = []
    diverged: list[Violation] = []
    for key in sorted({op.key for op in case.ops}) if read else ():
        accepted = {o: decode_register(world.disk(o).accepted(key)).accepted for o in world.owners(key)}
        if len(set(accepted.values())) > 1:
            diverged.append(Violation("replicas_agree", key, f"its owners accepted different ballots: {accepted}"))
        for owner in world.owners(key):
            call = world.wait(world.get(key, owner, mode="strong", timeout_ms=5_000, client=JUDGE))
            if not isinstance(call.result, Got):
                unread.append(f"{key!r} was not read in the end by way of {owner}: {call.result}")
    asked = [call for call in world.clients.calls if call.client != JUDGE.encode()]
    judgement = judge_strong(world.clients.calls, asked, unread)
    judgement.violations[:0] = diverged
    return judgement


def _report(case: Case, world: World, judgement: Judgement, clients: Clients, breaker: Breaker) -> Report:
    return Report(
        seed=case.seed, judgement=judgement, trace_hash=world.trace_hash(), events=world.timeline.happened,
        sim_ms=int(millis(world.timeline.now - START)), outcomes=dict(sorted(clients.outcomes.items())),
        faults=dict(sorted(breaker.counts.items())),
    )  # fmt: skip


def _whose(error: AssertionError) -> str:
    """The store's own assertions, or the world's waiting in vain."""
    return "heals" if "converged" in str(error) or "never" in str(error) else "invariants_hold"


def _where(error: AssertionError) -> str:
    at = error.__traceback__
    assert at is not None
    while at.tb_next is not None:
        at = at.tb_next
    return f"an assertion failed in {at.tb_frame.f_code.co_qualname}, line {at.tb_lineno}"
