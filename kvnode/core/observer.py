"""What the cluster says of itself: hello, status, explain, events.

Promises: observing perturbs nothing; what no reachable node could tell is None.
Never: waits longer than it was told for a member that does not answer.
Input: Hello, Status, Explain, Events, Report, Reported, ReplicaRead, ReplicaRefused, lost peers, ticks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec
from msgspec import Struct

from kvnode import __version__, config
from kvnode.core.consensus import EMPTY, decode_register
from kvnode.core.deadlines import Deadlines
from kvnode.core.local import Local
from kvnode.core.outbox import Unreadable
from kvnode.core.versions import digest_of
from kvnode.protocol.consensus import NO_BALLOT
from kvnode.protocol.messages import (
    ClusterReport,
    Error,
    EventList,
    Events,
    Explain,
    Explained,
    ExplainReplica,
    Failed,
    Hello,
    NodeReport,
    Outsider,
    RegisterState,
    ReplicaExplained,
    ReplicaState,
    Report,
    Reported,
    Status,
    Welcome,
)
from kvnode.protocol.replication import UNREADABLE
from kvnode.protocol.ring import Member, hash_slot
from kvnode.protocol.types import Address, Millis, NodeId, decode_record

Vitals = Callable[[], NodeReport]
"""What the shell knows of this process and its disk; the core fills in the rest."""
OwnState = Callable[[bytes], ReplicaState]
"""What this node holds of a key."""


class Conclude(Protocol):
    """Completes a report with what the other mechanisms know; `roots`: those of the partitions too."""

    def __call__(self, report: NodeReport, *, roots: bool) -> NodeReport:
        """The report, completed."""
        ...


class Gathering(Struct, gc=False):
    """Answers being waited for."""

    client: Address
    ask: Status | Explain
    waiting: set[NodeId]
    reports: dict[NodeId, NodeReport]
    states: dict[NodeId, ReplicaState]
    outside: tuple[Member, ...] = ()
    """Nodes that are asked, and are no members."""


class Observer:
    """Questions about the cluster, asked of all its members."""

    def __init__(self, local: Local, vitals: Vitals, conclude: Conclude, own_state: OwnState) -> None:
        self._local = local
        self._vitals = vitals
        self._conclude = conclude
        self._own_state = own_state
        self._gatherings: dict[int, Gathering] = {}
        self._deadlines = Deadlines()
        self.outside: Callable[[], tuple[Member, ...]] = tuple
        """Nodes that are known, and no members."""
        self.why_register: Callable[[bytes], str] = lambda _: ""
        """Why a deleted register is still here."""

    def on_hello(self, client: Address, hello: Hello) -> None:
        """Who we are, and the ring to route by."""
        local = self._local
        welcome = Welcome(
            hello.rid, local.me, local.boot, local.routes.ring, local.durability,
            local.settings.max_pair_bytes, local.settings.deadline_ms, __version__, local.steady,
        )  # fmt: skip
        local.outbox.send(client, welcome)

    # ---- status ----------------------------------------------------------------------------

    def on_status(self, client: Address, ask: Status) -> None:
        """Ask every member to tell of itself."""
        if len(self._gatherings) >= config.PENDING_MAX:
            return self._overloaded(client, ask.rid)
        local = self._local
        outside = tuple(member for member in self.outside() if member.id != local.me)
        waiting = {*local.routes.others, *(member.id for member in outside)}
        own = {local.me: self.report(roots=ask.roots)}
        gathering = Gathering(client, ask, waiting, own, {}, outside)
        rid = self._begin(gathering, ask.timeout_ms)
        for peer in sorted(waiting):
            local.outbox.tell(peer, Report(rid, ask.roots))
        return self._step(rid, gathering)

    def on_report(self, sender: NodeId, ask: Report) -> None:
        """Tell of ourselves."""
        self._local.outbox.tell(sender, Reported(ask.rid, self.report(roots=ask.roots)))

    def on_reported(self, sender: NodeId, told: Reported) -> None:
        """A member's report."""
        gathering = self._gatherings.get(told.rid)
        if gathering is None or sender not in gathering.waiting or told.report.id != sender:
            return self._local.ignore("reported")
        gathering.reports[sender] = told.report
        gathering.waiting.discard(sender)
        return self._step(told.rid, gathering)

    def report(self, *, roots: bool = False) -> NodeReport:
        """This node's own report."""
        local = self._local
        p50, p99 = local.latency.percentiles_ms((50, 99))
        vitals = self._vitals()
        report = msgspec.structs.replace(
            vitals,
            id=local.me,
            epoch=local.routes.epoch,
            boot=local.boot,
            uptime_ms=int(local.now - local.started),
            wall_ms=local.wall,
            p50_ms=p50,
            p99_ms=p99,
            avoided=tuple(sorted(local.peers.avoided)),
            took=local.latency.coarse(),
            counters=dict(sorted((vitals.counters | local.counters | {"requests": local.latency.total}).items())),
        )
        return self._conclude(report, roots=roots)

    # ---- explain ---------------------------------------------------------------------------

    def on_explain(self, client: Address, ask: Explain) -> None:
        """Ask every member what it holds of a key: owners their copy, others their hints."""
        if len(self._gatherings) >= config.PENDING_MAX:
            return self._overloaded(client, ask.rid)
        local = self._local
        gathering = Gathering(client, ask, set(local.routes.others), {}, {local.me: self._state(ask.key)})
        rid = self._begin(gathering, ask.timeout_ms)
        for peer in local.routes.others:
            local.outbox.send(peer, ExplainReplica(rid, ask.key))
        return self._step(rid, gathering)

    def on_explain_replica(self, sender: NodeId, ask: ExplainReplica) -> None:
        """Tell what we hold of a key. It may not be durable yet: told when it is."""
        self._local.outbox.ack(sender, ReplicaExplained(ask.rid, self._state(ask.key)))

    def _state(self, key: bytes) -> ReplicaState:
        """What we hold of a key, its register included."""
        state = self._own_state(key)
        try:
            kept = decode_register(self._local.outbox.register(key))
        except Unreadable:
            return msgspec.structs.replace(state, state=UNREADABLE)
        if kept == EMPTY:
            return state
        register = RegisterState(kept.promised, kept.accepted, kept.value)
        only = state.state == "absent" and kept.accepted != NO_BALLOT
        return msgspec.structs.replace(
            state, register=register, state="register" if only else state.state,
            grave=state.grave or self.why_register(key),
        )  # fmt: skip

    def on_replica_explained(self, sender: NodeId, told: ReplicaExplained) -> None:
        """What a member holds of a key."""
        gathering = self._gatherings.get(told.rid)
        if gathering is None or sender not in gathering.waiting or told.state.node != sender:
            return self._local.ignore("replica_explained")
        state = told.state
        try:
            digest = digest_of(decode_record(state.record)) if state.record else b""
            if state.register is not None and state.register.record:
                decode_record(state.register.record)
            state = msgspec.structs.replace(state, digest=digest)
        except msgspec.MsgspecError:
            state = ReplicaState(sender, "malformed", b"", b"")
        gathering.states[sender] = state
        gathering.waiting.discard(sender)
        return self._step(told.rid, gathering)

    # ---- events ----------------------------------------------------------------------------

    def on_events(self, client: Address, ask: Events) -> None:
        """What happened here."""
        self._local.outbox.send(client, EventList(ask.rid, self._local.events.after(ask.after)))

    # ---- silence ---------------------------------------------------------------------------

    def on_silent(self, sender: NodeId, rid: int, why: str) -> bool:
        """A member will not answer. False when the request is not one of ours."""
        gathering = self._gatherings.get(rid)
        if gathering is None:
            return False
        if sender in gathering.waiting:
            gathering.waiting.discard(sender)
            gathering.states[sender] = ReplicaState(sender, why, b"", b"")
            self._step(rid, gathering)
        return True

    def on_peer_lost(self, peer: NodeId) -> None:
        """Do not wait for a member that cannot be reached."""
        for rid in list(self._gatherings):
            self.on_silent(peer, rid, "unreachable")

    @property
    def busy(self) -> bool:
        """Whether a client still waits for an answer."""
        return bool(self._gatherings)

    @property
    def timed(self) -> bool:
        """Whether anything here has a deadline."""
        return bool(self._gatherings)

    def on_tick(self, now: Millis) -> None:
        """Make do with those who answered in time."""
        for rid in self._deadlines.due(now):
            gathering = self._gatherings.get(rid)
            if gathering is not None:
                for node in gathering.waiting:
                    gathering.states[node] = ReplicaState(node, "no answer", b"", b"")
                gathering.waiting.clear()
                self._step(rid, gathering)

    def _overloaded(self, client: Address, rid: int) -> None:
        text = f"{config.PENDING_MAX} questions about the cluster are being answered here"
        self._local.outbox.send(client, Failed(rid, self._local.routes.epoch, Error.OVERLOADED, text))

    def _begin(self, gathering: Gathering, timeout_ms: int) -> int:
        local = self._local
        rid = local.next_rid()
        self._gatherings[rid] = gathering
        timeout = min(timeout_ms or local.settings.deadline_ms, config.WRITE_DEADLINE_MAX_MS)
        self._deadlines.add(rid, local.now + timeout)
        return rid

    def _step(self, rid: int, gathering: Gathering) -> None:
        if gathering.waiting:
            return
        del self._gatherings[rid]
        local = self._local
        match gathering.ask:
            case Status(rid=theirs):
                reports = tuple(gathering.reports.get(m) for m in local.routes.members)
                outside = tuple(Outsider(one, gathering.reports.get(one.id)) for one in gathering.outside)
                reply = ClusterReport(theirs, local.routes.ring, reports, local.me, outside)
                local.outbox.send(gathering.client, reply)
            case Explain(rid=theirs, key=key):
                partition = local.routes.partition(key)
                owners = local.routes.owners[partition]
                states = gathering.states
                told = Explained(
                    theirs, local.routes.epoch, hash_slot(key), partition, owners,
                    tuple(states[o] for o in owners), local.routes.fallbacks(partition),
                    tuple(states[m] for m in local.routes.members if states[m].hints),
                )  # fmt: skip
                local.outbox.ack(gathering.client, told)
