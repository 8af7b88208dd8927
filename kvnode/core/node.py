"""One node, pure: one door in, one outbox out. The only place where mechanisms meet.

Promises: the same turns give the same outbox, byte for byte; what a turn shows of its own writes
leaves only after their commit. Never: reads a clock, a socket or a file.

    begin(now, wall) ─► receive(sender, message) ... ─► end() ─► Turn(sends, writes, acks)
    committed(number)          the shell, when a turn's writes are durable
    lost(peer)                 the shell, when a message to a peer could not be handed over
    wake_at                    when the next turn is due, message or not

Clients are named by their connection (bytes), members by their id (str): a client can say only what
clients say. What a node says to itself (its own vote) comes back in through the same door.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from kvnode import config
from kvnode.core.answering import Answering
from kvnode.core.antientropy import AntiEntropy
from kvnode.core.ballots import Ballots
from kvnode.core.faultdesk import FaultDesk
from kvnode.core.forward import Forwarder
from kvnode.core.gate import GATED, LOOPED, OF_STRANGERS
from kvnode.core.hints import Hints
from kvnode.core.holding import held_of_key, state_of
from kvnode.core.local import Local
from kvnode.core.membership import Membership
from kvnode.core.merkle import span_of
from kvnode.core.observer import Observer, Vitals
from kvnode.core.outbox import Turn
from kvnode.core.reader import Reader
from kvnode.core.readrepair import ReadRepair
from kvnode.core.reaper import Reaper
from kvnode.core.recovery import Recovery
from kvnode.core.registering import Registering
from kvnode.core.replica import Replica
from kvnode.core.rerouting import Rerouting
from kvnode.core.rounds import Rounds
from kvnode.core.scanner import Scanner
from kvnode.core.scrubber import Scrubber
from kvnode.core.shaping import Shaping
from kvnode.core.writeback import WriteBack
from kvnode.core.writer import Writer
from kvnode.protocol import messages as m
from kvnode.protocol.ring import Partition, Ring, hash_slot
from kvnode.protocol.types import EVENTUAL, STRONG, Address, Millis, NodeId, WallMillis

Handler = Callable[[Any, Any], object]
"""Takes sender and message; the tables below keep the two in step, so the types are theirs."""


class Node:
    """The mechanisms of one node, wired together."""

    def __init__(self, local: Local, vitals: Vitals, *, founded: bool = False) -> None:
        """`founded`: the disk was made together with the cluster, so it has nothing to have lost."""
        self._local = local
        self._next_tick: Millis = 0
        self._steady_base = 0.0
        self.hints = Hints(local)
        """What it keeps for others; the simulator looks."""
        self._reader = Reader(local, self.hints.record)
        self._writer = Writer(local, self._reader, self.hints)
        self._reader.then = self._writer.on_read
        self._reader.mend = ReadRepair(local, self._reader).mend
        self._write_back = WriteBack(local, self._reader)
        self._reader.write_back = self._write_back.begin
        self._forwarder = Forwarder(local, self._stand_in)
        self._replica = Replica(local, self._reader.heal)
        self._scanner = Scanner(local)
        self._recovery = Recovery(local, founded=founded)
        ballots = Ballots(local)
        self._registering = Registering(local, ballots)
        self._strong, self._worlds = self._registering.strong, self._registering.worlds
        self.shaping = Shaping(local, ballots, self._reader.heal, founded=founded)
        """What changes the shape of the cluster; the simulator looks."""
        self.membership = Membership(local, self._recovery.on_word)
        """Who is up, as this node sees it; the simulator looks."""
        self.exchanges = AntiEntropy(local, self._reader.heal)
        self.rounds = Rounds(local, self.exchanges)
        """Whose turn it is to exchange; the simulator looks."""
        self._answering = Answering(local, self._reader.heal, self.exchanges.note, self.exchanges.exchanging)
        self._scrubber = Scrubber(local, self._reader.heal)
        self._reaper = Reaper(local, self.exchanges.finished)
        self.fault_desk = FaultDesk(local)
        self._observer = Observer(local, vitals, self._conclude, self.own_state)
        self._ticking = (
            self._reader, self._write_back, self._writer, self._forwarder, self._scanner, self._observer,
            self.hints, self.exchanges, self.rounds, self._strong, self._registering.repair, self.shaping,
        )  # fmt: skip
        self._rerouting = Rerouting(
            local, lambda client, ask: self._from_client[type(ask)](client, ask), shaping=self.shaping,
            registering=self._registering, recovery=self._recovery, membership=self.membership,
            exchanges=self.exchanges, reaper=self._reaper, hints=self.hints, writer=self._writer,
            reader=self._reader, write_back=self._write_back, forwarder=self._forwarder, scanner=self._scanner,
        )  # fmt: skip
        self._wire()
        self._from_client = self._client_table()
        self._from_node = self._node_table()

    def _client_table(self) -> dict[type, Handler]:
        """What a client may say, and who acts on it."""
        return {
            m.Get: self._on_get,
            m.Put: self._on_put,
            m.Hello: self._observer.on_hello,
            m.Scan: self._scanner.on_scan,
            m.Explain: self._observer.on_explain,
            m.Status: self._observer.on_status,
            m.Events: self._observer.on_events,
            m.DeliverHints: self.hints.on_deliver,
            m.DropHints: self.hints.on_drop,
            m.ThrottleHints: self.hints.on_throttle,
            m.RunRepair: self.rounds.on_run,
            m.PauseRepair: self.rounds.on_pause,
            m.WaiveVotes: self._registering.rejoin.on_waive,
            **dict.fromkeys((m.SetFault, m.HealFault, m.ListFaults), self.fault_desk.on_order),
            **self.shaping.client_table(),
        }

    def _node_table(self) -> dict[type, Handler]:
        """What a member may say, and who acts on it."""
        return {
            m.Get: self._on_get,
            m.Put: self._on_put,
            m.ReadReplica: self._replica.on_read_replica,
            m.ReplicaSame: self._reader.on_replica_same,
            m.ReplicaRead: self._reader.on_replica_read,
            m.WriteReplica: self._replica.on_write_replica,
            m.ReplicaWritten: self._on_replica_written,
            m.ReplicaRefused: self._on_replica_refused,
            **dict.fromkeys((m.Got, m.Written, m.Failed), self._forwarder.on_reply),
            m.ScanReplica: self._replica.on_scan_replica,
            m.ReplicaScanned: self._scanner.on_replica_scanned,
            m.Report: self._observer.on_report,
            m.Reported: self._observer.on_reported,
            m.ExplainReplica: self._observer.on_explain_replica,
            m.ReplicaExplained: self._observer.on_replica_explained,
            m.Beat: self.membership.on_beat,
            m.Gossip: self.membership.on_gossip,
            m.AskDisk: self._recovery.on_ask_disk,
            m.DiskRemembered: self._recovery.on_disk_remembered,
            m.KeepHint: self.hints.on_keep_hint,
            m.HintKept: self._writer.on_hint_kept,
            m.ReadHint: self.hints.on_read_hint,
            m.CompareTree: self._answering.on_compare_tree,
            m.TreeCompared: self.exchanges.on_tree_compared,
            m.CompareKeys: self._answering.on_compare_keys,
            m.KeysCompared: self.exchanges.on_keys_compared,
            m.ExchangeDone: self._on_exchange_done,
            m.Reap: self._reaper.on_reap,
            m.ReapAnswer: self._reaper.on_reap_answer,
            m.Stale: self._rerouting.on_stale,
            **self._registering.table(),
            **self.shaping.node_table(),
        }

    def _wire(self) -> None:
        """Who is told of what."""
        self.membership.oldest_hint = lambda: self.shaping.oldest_kept(self.hints)
        self.membership.recovering = lambda: len(self._local.recovering | self._local.voteless)
        self.exchanges.on_exchanged = self._on_exchanged
        self.exchanges.on_busy = self.rounds.on_busy
        self.exchanges.on_register = self._registering.repair.want
        self.rounds.urgent = self._urgent
        self.rounds.answering = self._answering.answering
        self._scrubber.on_dead = self._reaper.on_dead
        self._scrubber.on_dead_register = self._registering.reaper.on_dead
        self._observer.outside = self.shaping.outsiders.members
        self._observer.why_register = self._registering.reaper.why
        self._reaper.hints_since = self._hints_since
        self._writer.settled = self._reaper.settled
        self._strong.silent, self._strong.missed = self.membership.silent, self.hints.miss
        self._registering.rejoin.vouched = self._recovery.vouched
        self._recovery.on_sure = self._registering.rejoin.vote_where_sure
        self.shaping.wire(self.membership, self.exchanges, self._answering.answering, self.hints, self.receive)

    # ---- the door --------------------------------------------------------------------------

    @property
    def id(self) -> NodeId:
        """This node's name."""
        return self._local.me

    @property
    def ring(self) -> Ring:
        """The ring this node routes by."""
        return self._local.routes.ring

    @property
    def local(self) -> Local:
        """What the mechanisms share; the shell reads its events and counters."""
        return self._local

    def begin(self, now: Millis, wall: WallMillis) -> None:
        """A turn begins: time is an argument."""
        local = self._local
        assert now >= local.now
        if not local.started:
            local.started = now
            self._steady_base = max(wall, self._recovery.last_steady) - now
        local.now = now
        local.clock.wall = wall
        local.steady = int(now + self._steady_base)

    def receive(self, sender: Address, message: Any) -> None:
        """Act on one message. What it may be depends on who sent it."""
        kind = type(message)
        if isinstance(sender, str):
            local, routes = self._local, self._local.routes
            handler = self._from_node.get(kind)
            if sender not in routes.known and kind not in OF_STRANGERS:
                return local.ignore("said_by_a_stranger")
            if local.peers.avoided:
                self._heard(NodeId(sender), message)
            if kind in GATED and message.epoch != routes.uniform and not self._admitted(sender, message):
                return None
        else:
            handler = self._from_client.get(kind)
        if handler is None:
            return self._local.ignore("out_of_place")
        handler(sender, message)
        return None

    def _admitted(self, sender: str, message: Any) -> bool:
        """Whether what acts across a change of owners may be acted on now; what tells of our own commit may."""
        return (sender == self.id and type(message) in LOOPED) or self.shaping.gate.admits(NodeId(sender), message)

    def _heard(self, peer: NodeId, message: m.Message) -> None:
        """A message from a peer, while some peer is avoided: a heartbeat says less than an answer."""
        peers = self._local.peers
        if peers.beats(peer) if isinstance(message, m.Beat | m.Gossip) else peers.answered(peer):
            self._local.event("heard", f"{peer} answers again")

    def lost(self, peer: NodeId) -> None:
        """A message to this peer could not be handed over: it cannot be reached now."""
        local = self._local
        if local.peers.avoid(peer, local.now, cut_off=True):
            local.event("avoided", f"{peer} cannot be reached")
        for mechanism in self._ticking:
            mechanism.on_peer_lost(peer)

    def end(self) -> Turn:
        """The turn ends: serve the timers that are due, hand out what is owed."""
        local = self._local
        if local.now >= self._next_tick:
            self._next_tick = local.now + config.TICK_MS
            local.peers.on_tick(local.now)
            self.membership.on_tick(local.now)
            self._recovery.on_tick(local.now)
            self._registering.rejoin.on_tick(local.now)
            for mechanism in self._ticking:
                mechanism.on_tick(local.now)
            for slow in (self._scrubber, self._reaper, self._registering.reaper):
                slow.on_tick(local.now)
        return local.outbox.take()

    def committed(self, number: int) -> None:
        """The writes of every turn up to this one are durable."""
        self._local.outbox.committed(number)

    @property
    def busy(self) -> bool:
        """Whether a client still waits for an answer of this node."""
        return any(mechanism.busy for mechanism in self._ticking)

    @property
    def halt(self) -> str:
        """Why this node must stop at once; empty while it may go on."""
        return self._recovery.halt or self.shaping.topology.removed

    @property
    def wake_at(self) -> Millis:
        """When the next turn is due even if no message comes: timers are served then."""
        tick, beat = self._next_tick, self.membership.wake_at
        return beat if beat > tick and not self.timed else tick

    @property
    def timed(self) -> bool:
        """Whether something is under way, so that a turn is due every `TICK_MS`. Heartbeats need less."""
        if self._local.peers.timed:
            return True
        for mechanism in self._ticking:  # noqa: SIM110 -- a generator would cost more than the loop
            if mechanism.timed:
                return True
        return False

    def check_invariants(self) -> None:
        """What must hold between turns."""
        for mechanism in (self._reader, self._write_back, self._writer):
            mechanism.ledger.check_invariants()

    # ---- where messages have more than one reader ------------------------------------------

    def _on_get(self, sender: Address, ask: m.Get) -> None:
        routes = self._local.routes
        asked = routes.peers if ask.mode == EVENTUAL else routes.asked
        peers = asked[hash_slot(ask.key) >> routes.shift]
        if peers is None:
            self._forwarder.on_request(sender, ask)
        elif ask.mode == STRONG:
            self._strong.on_request(sender, ask, peers)
        elif not (self._local.outbox.any_registers and self._worlds.takes_get(sender, ask)):
            self._reader.on_get(sender, ask, peers)

    def _on_put(self, sender: Address, ask: m.Put) -> None:
        routes = self._local.routes
        peers = routes.asked[hash_slot(ask.key) >> routes.shift]
        if peers is None:
            self._forwarder.on_request(sender, ask)
        elif ask.mode == STRONG:
            self._strong.on_request(sender, ask, peers)
        elif not (self._local.outbox.any_registers and self._worlds.takes_put(sender, ask)):
            self._writer.on_put(sender, ask, peers)

    def _on_replica_written(self, sender: NodeId, written: m.ReplicaWritten) -> None:
        if not (
            self._writer.on_replica_written(sender, written)
            or self._write_back.on_replica_written(sender, written)
            or self.hints.on_replica_written(sender, written)
            or self.exchanges.on_replica_written(sender, written)
        ):
            self._local.ignore("replica_written")

    def _on_replica_refused(self, sender: NodeId, refused: m.ReplicaRefused) -> None:
        if not (
            self._reader.on_replica_refused(sender, refused)
            or self._writer.on_replica_refused(sender, refused)
            or self._write_back.on_replica_refused(sender, refused)
            or self.hints.on_replica_refused(sender, refused)
            or self.exchanges.on_replica_refused(sender, refused)
            or self._scanner.on_silent(sender, refused.rid)
            or self._observer.on_silent(sender, refused.rid, refused.reason)
            or self._registering.on_replica_refused(sender, refused)
            or self.shaping.on_replica_refused(sender, refused)
        ):
            self._local.ignore("replica_refused")

    def _on_exchange_done(self, sender: NodeId, done: m.ExchangeDone) -> None:
        if sender == self._local.me:
            self.exchanges.on_own_done(done)
        else:
            self._answering.on_exchange_done(sender, done)

    def _stand_in(self, client: Address, ask: m.Get | m.Put, owners: tuple[NodeId, ...]) -> None:
        if isinstance(ask, m.Get):
            self._reader.on_get_for_owners(client, ask, owners)
        else:
            routes = self._local.routes
            self._writer.on_put_for_owners(client, ask, routes.holders(routes.partition(ask.key)))

    # ---- where mechanisms know what another one needs --------------------------------------

    def _on_exchanged(self, partition: int, peer: NodeId) -> None:
        self.hints.on_exchanged(partition, peer)
        self.shaping.on_exchanged(partition, peer)
        self._recovery.on_exchanged(partition, peer)

    def _urgent(self) -> list[tuple[int, NodeId]]:
        return [*self._recovery.wanted(), *sorted(self.hints.needs_repair)]

    def _hints_since(self) -> int:
        """Since when any member, this one included, keeps a hint."""
        own = self.hints.kept.oldest() or self._local.proven_wall
        return min(own, self.membership.hints_since())

    def _conclude(self, report: m.NodeReport, *, roots: bool) -> m.NodeReport:
        """Add what the mechanisms know of themselves to this node's report."""
        routes, tree = self._local.routes, self._local.store.tree
        owned = [Partition(p) for p, peers in enumerate(routes.peers) if peers is not None] if roots else []
        return msgspec.structs.replace(
            report,
            incarnation=self.membership.incarnation,
            disk_id=self._local.disk_id,
            peers=self.membership.views(),
            hints=self.hints.views(),
            needs_repair=len(self.hints.needs_repair),
            repair=self.rounds.view(),
            recovering=len(self._local.recovering),
            voteless=len(self._local.voteless),
            waived=self._registering.rejoin.waived,
            member=routes.ring.membership(self._local.me),
            moves=self.shaping.view(),
            branch=routes.ring.branch,
            faults=self.fault_desk.faults,
            problem=self._local.refusal or report.problem,
            roots=tuple(m.RootHash(p, tree.hash(span_of(p, routes.ring.q))) for p in owned),
        )

    def own_state(self, key: bytes) -> m.ReplicaState:
        """What this node holds of a key, as an owner or for others."""
        told, held = held_of_key(self._local, key, self.hints.record(key))
        grave = self._reaper.why(key, held) if held is not None else ""
        return state_of(self._local, told, held, self.hints.kept.owners_of(key), grave)
