"""Shaping: the mechanisms that change the shape of a cluster, wired together.

Promises: whoever must know of another ring is told in the order that keeps it safe: first what this node may
lack, then what moves, then what is asked anew. Never: decides anything itself.

    staging, outsiders ─► steward ─► decree ─► topology ─► every mechanism that knows owners
                            ▲                     │
              taking ─ MovesReady          gate, taking, leftovers
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kvnode.core.antientropy import AntiEntropy
from kvnode.core.ballots import Ballots
from kvnode.core.decree import Decree
from kvnode.core.gate import Gate
from kvnode.core.giving import Giving
from kvnode.core.hints import Hints
from kvnode.core.leftovers import Leftovers
from kvnode.core.local import Local
from kvnode.core.membership import DOWN, UP, Membership
from kvnode.core.outsiders import Outsiders
from kvnode.core.routes import Routes
from kvnode.core.staging import Staging
from kvnode.core.steward import Steward, Word
from kvnode.core.taking import Taking
from kvnode.core.topology import Topology
from kvnode.protocol import messages as m
from kvnode.protocol.ring import Partition, Ring
from kvnode.protocol.types import Address, Millis, NodeId

Handler = Callable[[Any, Any], object]
Heal = Callable[[bytes, tuple[NodeId, ...]], None]


class Shaping:
    """What a node needs to follow a ring that changes, and to change it."""

    def __init__(self, local: Local, ballots: Ballots, heal: Heal, *, founded: bool) -> None:
        self._local = local
        self.topology = Topology(local)
        self.gate = Gate(local, self.topology.want)
        self.decree = Decree(local, ballots, founded=founded)
        self.staging = Staging(local, ballots)
        self.outsiders = Outsiders(local)
        self.giving = Giving(local, heal)
        self.taking = Taking(local)
        self.leftovers = Leftovers(local)
        self.steward = Steward(local, self.decree, self.staging, self.outsiders)
        self.keys: Callable[[], int] = lambda: 0
        """How many keys this node holds."""
        self._replay: Callable[[NodeId, m.Message], None] = lambda _, __: None
        self.rerouted: Callable[[Routes, frozenset[int]], None] = lambda _, __: None
        """Told when another ring is held, before anything is done by it."""

    @property
    def neighbours(self) -> int:
        """Changes when the nodes to speak to do."""
        return self._local.routes.epoch + self.outsiders.version

    def wire(
        self,
        membership: Membership,
        exchanges: AntiEntropy,
        answering: Callable[[int], bool],
        hints: Hints,
        replay: Callable[[NodeId, m.Message], None],
    ) -> None:
        """Who is told of what. `replay`: acts on a message that waited for a ring."""
        self._replay = replay

        def down(node: NodeId) -> bool:
            return membership.state(node) == DOWN

        def exchange(partition: Partition, peer: NodeId) -> bool:
            if exchanges.exchanging(partition) or answering(partition):
                return False
            exchanges.begin((partition, peer))
            return True

        def word(node: NodeId) -> Word:
            oldest = self.oldest_kept(hints) if node == self._local.me else membership.oldest_hint_of(node)
            state = membership.state(node)
            return Word(membership.epoch_of(node), oldest, state == UP, state == DOWN)

        self.topology.staged = self.staging.hash
        self.topology.on_ring = self._on_ring
        self.decree.on_chosen = self.topology.announce
        self.decree.on_behind = self.topology.want
        self.taking.epoch_of, self.taking.down, self.taking.prove = membership.epoch_of, down, exchange
        self.taking.steward = self.steward.steward
        self.leftovers.down, self.leftovers.exchange = down, exchange
        self.steward.word, self.steward.force = word, self.topology.announce
        membership.on_epoch = self.topology.want

    def oldest_kept(self, hints: Hints) -> int:
        """Since when this node keeps what others may lack: hints, or copies it does not own; 0 for nothing."""
        return min(filter(None, (hints.kept.oldest(), self.leftovers.oldest)), default=0)

    # ---- the door --------------------------------------------------------------------------

    def client_table(self) -> dict[type, Handler]:
        """What a client may say, and who acts on it."""
        return {
            m.StageChange: self.steward.on_stage,
            m.ClearStaged: self.steward.on_clear,
            m.AskPlan: self.steward.on_ask_plan,
            m.CommitPlan: self.steward.on_commit,
            m.CancelMoves: self.steward.on_cancel,
            m.ThrottleMoves: self._on_throttle,
        }

    def node_table(self) -> dict[type, Handler]:
        """What a node may say, and who acts on it."""
        return {
            m.AskRing: self._on_ask_ring,
            m.RingTold: self.topology.on_ring_told,
            m.StagedTold: self.staging.on_staged_told,
            m.Knock: self.outsiders.on_knock,
            m.DecreePrepare: self.decree.on_prepare,
            m.DecreePromised: self.decree.on_promised,
            m.DecreeAccept: self.decree.on_accept,
            m.DecreeAccepted: self.decree.on_accepted,
            m.DecreeOutbid: self.decree.on_outbid,
            m.AskVotes: self.decree.on_ask_votes,
            m.VotesKnown: self.decree.on_votes_known,
            m.AskBatch: self._on_ask_batch,
            m.Batch: self.taking.on_batch,
            m.MovesReady: self._on_moves_ready,
        }

    def _on_ask_ring(self, sender: NodeId, ask: m.AskRing) -> None:
        self.topology.on_ask_ring(sender, ask)
        if ask.staged != self.staging.hash() and sender in self._local.routes.others:
            self.staging.tell(sender)

    def _on_ask_batch(self, sender: NodeId, ask: m.AskBatch) -> None:
        if sender == self._local.me:
            self.taking.on_own_batch(ask)
        else:
            self.giving.on_ask_batch(sender, ask)

    def _on_moves_ready(self, sender: NodeId, told: m.MovesReady) -> None:
        if sender == self._local.me:
            self.taking.on_own_ready(told)
        self.steward.on_moves_ready(sender, told)

    def _on_throttle(self, client: Address, ask: m.ThrottleMoves) -> None:
        self.taking.pace.set_limit(ask.bytes_per_s)
        self._local.outbox.send(client, m.Done(ask.rid, ask.bytes_per_s))

    # ---- another ring ----------------------------------------------------------------------

    def _on_ring(self, before: Routes, changed: frozenset[int]) -> None:
        """Another ring is held."""
        self.rerouted(before, changed)
        self.taking.on_ring()
        self.leftovers.look()
        self.steward.on_ring()
        self.outsiders.on_ring()
        self.staging.on_ring()
        self.decree.on_ring()
        for parked in self.gate.on_ring():
            self._replay(parked.sender, parked.message)

    def on_exchanged(self, partition: int, peer: NodeId) -> None:
        """An exchange is over."""
        self.taking.on_exchanged(partition, peer)
        self.leftovers.on_exchanged(partition, peer)

    def on_replica_refused(self, sender: NodeId, refused: m.ReplicaRefused) -> bool:
        """Someone would not. False when nobody here asked."""
        return self.taking.on_replica_refused(sender, refused) or self.decree.on_replica_refused(sender, refused)

    # ---- how it stands ---------------------------------------------------------------------

    @property
    def ring(self) -> Ring:
        """The ring held."""
        return self._local.routes.ring

    def view(self) -> m.MovesView:
        """Transfers on this node."""
        taking, pace = self.taking, self.taking.pace
        left = taking.bytes_left
        return m.MovesView(
            taking.left, taking.finished, pace.bytes, self.giving.bytes_sent, left, round(pace.per_s, 1),
            int(left * 1_000 / pace.per_s) if pace.per_s else None, pace.limit, self.leftovers.count,
            taking.waiting,
        )  # fmt: skip

    # ---- time ------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether an operator waits for an answer."""
        return self.decree.busy

    @property
    def timed(self) -> bool:
        """Whether anything is under way."""
        return (
            self.decree.busy or self.taking.timed or self.leftovers.timed or self.gate.waiting
            or self.topology.coming or self.steward.timed
        )  # fmt: skip

    def on_peer_lost(self, peer: NodeId) -> None:
        """What was asked of it is asked again in its time."""

    def on_tick(self, now: Millis) -> None:
        """Everything in its turn."""
        self.topology.on_tick(now)
        self.gate.on_tick(now)
        self.decree.on_tick(now)
        self.outsiders.on_tick(now, self.keys() if not self._local.routes.is_member else 0)
        self.taking.on_tick(now)
        self.leftovers.on_tick(now)
        self.steward.on_tick(now)
