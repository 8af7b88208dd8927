"""Looks at a live cluster once a second, in a thread of its own, by way of any one node that answers.

Promises: one look takes a bounded time, whatever nodes do; while any node answers, no look finds nothing; one
that did is posted as well, with the reason. Never: blocks the screen, asks more than once a period, or gives up.

    status, by the node asked ──► reports ──► the silent ones are asked directly ──► events of those that told
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from kvctl.call import Call
from kvctl.client import Client
from kvctl.console.sample import GONE, HELD, RUNS, Process, Sample, nonsense
from kvctl.errors import KvError
from kvnode.protocol import messages as m
from kvnode.protocol.ring import Ring
from kvnode.protocol.types import NodeId

if TYPE_CHECKING:
    from kvctl.local import Cluster
    from kvctl.render_faults import Listed

PERIOD_S = 1.0
STATUS_S = 0.5
"""How long the node asked waits for the others."""
REQUEST_S = 1.2
"""...and how long it is waited for, before others are asked."""
OTHERS = 3
"""So many, at once."""
DIRECT_S = 0.5
"""How long the silent ones have to answer us."""
OWN_MS = 50
"""...and how long they wait for the others, whose reports we do not need of them."""
EVENTS_S = 0.3
ADDRESSES_MAX = 256
STOP_S = 2.0

Post = Callable[[Sample, Ring | None], None]


def wall_ms() -> int:
    """The time of day."""
    return time.time_ns() // 1_000_000


class Looker:
    """One look at a time; keeps the connections, and what has been told so far."""

    def __init__(self, addresses: Sequence[str], cluster: Cluster | None = None) -> None:
        """`cluster`: the local one these addresses belong to, whose processes can be seen too."""
        self._addresses = list(addresses)
        self._cluster = cluster
        self._client: Client | None = None
        self._ring: Ring | None = None
        self._told: dict[NodeId, tuple[int, int]] = {}
        """Node -> its boot, and the number of the last event it told."""
        self._silent: list[NodeId] = []
        """Those that the node asked last did not hear."""
        self._was: set[NodeId] = set()
        self._asked = NodeId("")
        """The one that answered last."""
        self._late = False
        """Whether the one that is asked first keeps us waiting."""

    def look(self) -> tuple[Sample, Ring | None]:
        """What there is to see, within some three seconds."""
        begun = time.monotonic()
        processes, faults = self._local()
        try:
            sample = self._ask({p.node for p in processes if p.state == GONE})
        except KvError as error:
            self.close()
            sample = self._blind(error.message)
        took = round((time.monotonic() - begun) * 1000)
        done = msgspec.structs.replace(sample, at_ms=wall_ms(), took_ms=took, processes=processes, faults=faults)
        return done, self._ring

    def _blind(self, problem: str) -> Sample:
        nobody = () if self._ring is None else (None,) * len(self._ring.members)
        return Sample(at_ms=0, problem=problem, reports=nobody)

    def _ask(self, gone: set[str]) -> Sample:
        """Ask the cluster. Raises `KvError`."""
        client = self._connected()
        # Those that were silent last time are asked while the others gather: silence costs its wait but once.
        silent = [node for node in self._silent if node not in gone]
        try:
            told, direct = self._status(client, silent)
        except KvError as error:
            told, direct = self._elsewhere(client, error), {}
        problem = nonsense(told)
        if problem:
            self._avoid(told.asked)
            return self._blind(problem)
        self._learn(told.ring)
        before, self._asked = self._asked, told.asked
        reports = direct | {r.id: r for r in told.reports if r is not None}
        self._silent = [m.id for m, r in zip(told.ring.members, told.reports, strict=True) if r is None]
        fresh = [node for node in self._silent if node not in reports.keys() | gone | self._was]
        reports |= self._direct(client, fresh)
        self._was = set(self._silent)
        events = self._events(client, reports)
        if self._late:
            self._late = False
            self._avoid(before)
        return Sample(
            at_ms=0,
            asked=told.asked,
            reports=tuple(reports.get(member.id) for member in told.ring.members),
            direct=tuple(node for node in self._silent if node in reports),
            events=events,
        )

    def _status(
        self, client: Client, silent: Sequence[NodeId]
    ) -> tuple[m.ClusterReport, dict[NodeId, m.NodeReport]]:
        """What one node gathers, and what these say of themselves. Raises `KvError`."""
        session = client.pump.session
        now = time.monotonic()
        call = Call(m.Status(session.next_rid(), round(STATUS_S * 1000)), now + REQUEST_S)
        session.start(call)
        direct = self._direct(client, silent)
        client.pump.finish((call,))
        if isinstance(call.outcome, m.ClusterReport):
            return call.outcome, direct
        raise call.outcome if isinstance(call.outcome, KvError) else KvError("it answered with something else")

    def _elsewhere(self, client: Client, error: KvError) -> m.ClusterReport:
        """The node asked keeps us waiting: a few others are asked at once, and are from now on. Raises `error`."""
        ring, away = self._ring, {self._asked, *self._silent}
        others = [member.id for member in ring.members if member.id not in away] if ring is not None else []
        if not others:
            raise error
        wait_ms = round(STATUS_S * 1000)
        outcomes = client.ask_each(lambda rid, _: m.Status(rid, wait_ms), others[:OTHERS], REQUEST_S)
        for told in outcomes.values():
            if isinstance(told, m.ClusterReport) and not nonsense(told):
                self._was.add(self._asked)  # it was asked just now, and did not answer
                self._late = True
                return told
        raise error

    def _connected(self) -> Client:
        if self._client is None:
            self._client = Client(",".join(self._addresses[:ADDRESSES_MAX]), REQUEST_S)
        return self._client

    def _direct(self, client: Client, silent: Sequence[NodeId]) -> dict[NodeId, m.NodeReport]:
        """What the silent ones say of themselves when we ask them: they may be cut off from the others only."""
        if not silent:
            return {}
        outcomes = client.ask_each(lambda rid, _: m.Status(rid, OWN_MS), silent, DIRECT_S)
        found: dict[NodeId, m.NodeReport] = {}
        for node, outcome in outcomes.items():
            if isinstance(outcome, m.ClusterReport) and not nonsense(outcome) and outcome.asked == node:
                found |= {r.id: r for r in outcome.reports if r is not None and r.id == node}
        return found

    def _events(self, client: Client, reports: Mapping[NodeId, m.NodeReport]) -> tuple[m.Event, ...]:
        """What is new on those that told. A node that restarts counts from 1 again."""
        after = {}
        for node, report in reports.items():
            boot, number = self._told.get(node, (report.boot, 0))
            after[node] = number if boot == report.boot else 0
        outcomes = client.ask_each(lambda rid, node: m.Events(rid, after[node]), after, EVENTS_S)
        found: list[m.Event] = []
        for node, outcome in outcomes.items():
            if isinstance(outcome, m.EventList):
                events = [e for e in outcome.events if e.node == node and e.number > after[node]]
                found += events
                last = max((e.number for e in events), default=after[node])
                self._told[node] = (reports[node].boot, last)
        return tuple(found)

    def _learn(self, ring: Ring) -> None:
        """The members are where to look when those we know are gone."""
        if self._ring is not None and self._ring.epoch == ring.epoch:
            return
        self._ring = ring
        self._addresses = list(dict.fromkeys((*(member.address for member in ring.members), *self._addresses)))

    def _avoid(self, node: NodeId) -> None:
        """One that tells nonsense is asked last."""
        self.close()
        ring = self._ring
        bad = ring.member(node) if ring is not None else None
        address = bad.address if bad is not None else self._addresses[0]
        self._addresses.sort(key=lambda each: each == address)

    def _local(self) -> tuple[tuple[Process, ...], tuple[Listed, ...]]:
        """The processes of a local cluster, and their faults."""
        from kvctl import processes
        from kvctl.render_faults import of_process

        cluster = self._cluster
        if cluster is None:
            return (), ()
        found = []
        for node in cluster.spec.nodes:
            process = cluster.process(node.name)
            state = GONE if process is None else HELD if processes.stopped(process) else RUNS
            found.append(Process(node.name, state, process.pid if process is not None else 0))
        faults: tuple[Listed, ...] = ()
        with suppress(OSError, msgspec.MsgspecError):
            faults = tuple(of_process(fault) for fault in cluster.faults().faults)
        return tuple(found), faults

    def close(self) -> None:
        """Give up the connections; the next look makes new ones."""
        if self._client is not None:
            self._client.close()
            self._client = None


class Sampler:
    """The thread that looks."""

    def __init__(self, looker: Looker, period_s: float = PERIOD_S) -> None:
        self._looker = looker
        self._period_s = period_s
        self._stop = threading.Event()
        self._now = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, post: Post) -> None:
        """Begin to look; `post` is called in the thread."""
        self._thread = threading.Thread(target=self._run, args=(post,), name="sampler", daemon=True)
        self._thread.start()

    def look_now(self) -> None:
        """Do not wait for the end of the period: something was just changed."""
        self._now.set()

    def stop(self) -> None:
        """End the thread; it ends by itself if a look is still under way."""
        self._stop.set()
        self._now.set()
        if self._thread is not None:
            self._thread.join(STOP_S)

    def _run(self, post: Post) -> None:
        due = time.monotonic()
        try:
            while not self._stop.is_set():
                post(*self._looker.look())
                due = max(due + self._period_s, time.monotonic())
                self._now.wait(due - time.monotonic())
                if self._now.is_set():
                    self._now.clear()
                    due = time.monotonic()
        finally:
            self._looker.close()
