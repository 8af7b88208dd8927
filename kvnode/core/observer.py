"""What the cluster says of itself: status, explain, events.

Promises: observing perturbs nothing; what no reachable node could tell is None.
Never: waits longer than it was told for a member that does not answer.
Input: Status, Explain, Events, Report, Reported, ReplicaRead, ReplicaRefused, lost peers, ticks.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec import Struct

from kvnode import config
from kvnode.core.deadlines import Deadlines
from kvnode.core.local import Local
from kvnode.core.outbox import Unreadable
from kvnode.core.versions import digest_of
from kvnode.protocol.messages import (
    ClusterReport,
    Error,
    EventList,
    Events,
    Explain,
    Explained,
    Failed,
    NodeReport,
    ReadReplica,
    ReplicaState,
    Report,
    Reported,
    Status,
)
from kvnode.protocol.ring import hash_slot
from kvnode.protocol.types import Address, Millis, NodeId, decode_record

ANY = b"\0"
"""A digest no record has: every owner answers with what it holds."""

Vitals = Callable[[], NodeReport]
"""What the shell knows of this process and its disk; the core fills in the rest."""


class Gathering(Struct, gc=False):
    """Answers being waited for."""

    client: Address
    ask: Status | Explain
    waiting: set[NodeId]
    reports: dict[NodeId, NodeReport]
    states: dict[NodeId, ReplicaState]


class Observer:
    """Questions about the cluster, asked of all its members."""

    def __init__(self, local: Local, vitals: Vitals) -> None:
        self._local = local
        self._vitals = vitals
        self._gatherings: dict[int, Gathering] = {}
        self._deadlines = Deadlines()

    # ---- status ----------------------------------------------------------------------------

    def on_status(self, client: Address, ask: Status) -> None:
        """Ask every member to tell of itself."""
        if len(self._gatherings) >= config.PENDING_MAX:
            return self._overloaded(client, ask.rid)
        local = self._local
        gathering = Gathering(client, ask, set(local.routes.others), {local.me: self.report()}, {})
        rid = self._begin(gathering, ask.timeout_ms)
        for peer in local.routes.others:
            local.outbox.send(peer, Report(rid))
        return self._step(rid, gathering)

    def on_report(self, sender: NodeId, ask: Report) -> None:
        """Tell of ourselves."""
        self._local.outbox.send(sender, Reported(ask.rid, self.report()))

    def on_reported(self, sender: NodeId, told: Reported) -> None:
        """A member's report."""
        gathering = self._gatherings.get(told.rid)
        if gathering is None or sender not in gathering.waiting or told.report.id != sender:
            return self._local.ignore("reported")
        gathering.reports[sender] = told.report
        gathering.waiting.discard(sender)
        return self._step(told.rid, gathering)

    def report(self) -> NodeReport:
        """This node's own report."""
        local = self._local
        p50, p99 = local.latency.percentiles_ms((50, 99))
        vitals = self._vitals()
        return msgspec.structs.replace(
            vitals,
            id=local.me,
            epoch=local.routes.epoch,
            boot=local.boot,
            uptime_ms=int(local.now - local.started),
            wall_ms=local.wall,
            p50_ms=p50,
            p99_ms=p99,
            avoided=tuple(sorted(local.peers.avoided)),
            counters=dict(sorted((vitals.counters | dict(local.counters)).items())),
        )

    # ---- explain ---------------------------------------------------------------------------

    def on_explain(self, client: Address, ask: Explain) -> None:
        """Ask every owner of a key for its copy."""
        if len(self._gatherings) >= config.PENDING_MAX:
            return self._overloaded(client, ask.rid)
        local = self._local
        owners = local.routes.owners[local.routes.partition(ask.key)]
        gathering = Gathering(client, ask, set(owners) - {local.me}, {}, {})
        if local.me in owners:
            gathering.states[local.me] = self._own_state(ask.key)
        rid = self._begin(gathering, ask.timeout_ms)
        for peer in owners:
            if peer != local.me:
                local.outbox.send(peer, ReadReplica(rid, local.routes.epoch, ask.key, ANY))
        return self._step(rid, gathering)

    def _own_state(self, key: bytes) -> ReplicaState:
        try:
            held = self._local.outbox.read(key)
        except Unreadable:
            return ReplicaState(self._local.me, "unreadable", b"", b"")
        if held is None:
            return ReplicaState(self._local.me, "absent", b"", b"")
        return ReplicaState(self._local.me, "present", held.blob, held.digest)

    def on_replica_read(self, sender: NodeId, rid: int, record: bytes) -> bool:
        """An owner's copy. False when the request is not one of ours."""
        gathering = self._gatherings.get(rid)
        if gathering is None or sender not in gathering.waiting:
            return False
        try:
            digest = digest_of(decode_record(record)) if record else b""
            state = ReplicaState(sender, "present" if record else "absent", record, digest)
        except msgspec.MsgspecError:
            state = ReplicaState(sender, "malformed", b"", b"")
        gathering.states[sender] = state
        gathering.waiting.discard(sender)
        self._step(rid, gathering)
        return True

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
                reply = ClusterReport(theirs, local.routes.ring, reports, local.me)
                local.outbox.send(gathering.client, reply)
            case Explain(rid=theirs, key=key):
                partition = local.routes.partition(key)
                owners = local.routes.owners[partition]
                states = tuple(gathering.states[o] for o in owners)
                told = Explained(theirs, local.routes.epoch, hash_slot(key), partition, owners, states)
                local.outbox.ack(gathering.client, told)
