"""Hinted handoff: what an owner could not take is kept for it, and delivered when it can be reached.

Promises: a hint that was acknowledged goes only after an owner has acknowledged it durably; it is
delivered as the merge of all that came for its key; memory and disk for hints are bounded.
Never: refuses a client: a full holder refuses the hint, and the partition is noted as needing repair.
Input: KeepHint, ReadHint, ReplicaWritten and ReplicaRefused of deliveries, orders, ticks.

    coordinator ─ KeepHint ─► fallback ─ commit ─► HintKept           a vote for W, in `eventual` only
                              fallback ─ WriteReplica ─► owner        throttled, when it is reachable
                              owner ─ ReplicaWritten ─► fallback      if it still is that record: dropped

See Dynamo §4.6. A fallback's record of a key is the merge of its hints for it (PROTOCOL-CASES 29).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection

import msgspec

from kvnode import config
from kvnode.core.hintstore import HintStore
from kvnode.core.kept import Kept, Sent
from kvnode.core.local import Local
from kvnode.core.outbox import Hint
from kvnode.core.versions import Held, merge_held
from kvnode.protocol.messages import (
    DeliverHints,
    Done,
    DropHints,
    HintKept,
    HintsFor,
    KeepHint,
    ReadHint,
    ReplicaRead,
    ReplicaRefused,
    ReplicaWritten,
    ThrottleHints,
    WriteReplica,
)
from kvnode.protocol.types import Address, Millis, NodeId

FULL = "no room for more hints"


class Hints:
    """What this node keeps for others."""

    def __init__(self, local: Local) -> None:
        self._local = local
        self._outbox = local.outbox
        self.kept = HintStore(local)
        self._sent: dict[int, Sent] = {}
        self._overdue: deque[tuple[Millis, int]] = deque()
        self._per_s = local.settings.hints_per_s
        self._ticked: Millis = 0
        self.needs_repair: set[tuple[int, NodeId]] = set()
        """(Partition, owner) that missed a write nobody keeps a hint for."""
        self.on_ring(range(local.routes.ring.q))  # a crash may have come between a ring and what follows from it

    # ---- keeping ---------------------------------------------------------------------------

    def keep(self, owner: NodeId, key: bytes, held: Held, since: int = 0) -> bool:
        """Keep a record for an owner; where there is no room for it, note that it was missed, and say so: False.

        `since`: when another node began to. Raises `msgspec.MsgspecError` where the merge is too large.
        """
        if self.kept.keep(owner, key, held, since):
            return True
        self.miss(self._local.routes.partition(key), owner)
        return False

    def miss(self, partition: int, owner: NodeId) -> None:
        """An owner missed a write that nobody keeps for it: only an exchange can bring it.

        Only another owner can begin one; a fallback leaves it to their next round.
        """
        self._local.counters["hints_missed"] += 1
        if self._local.routes.peers[partition] is not None and len(self.needs_repair) < config.NEEDS_REPAIR_MAX:
            self.needs_repair.add((partition, owner))

    def on_exchanged(self, partition: int, peer: NodeId) -> None:
        """An exchange has brought what was missed."""
        self.needs_repair.discard((partition, peer))

    def record(self, key: bytes) -> Held | None:
        """What this node keeps of a key it does not own: the merge of its hints for it."""
        routes = self._local.routes
        return self.kept.record(key, routes.holders(routes.partition(key)))

    def on_ring(self, changed: Collection[int]) -> None:
        """Some partitions have other owners: what is kept for one that lost its place goes to all of now.

        Never refused for want of room: it was acknowledged.
        """
        routes = self._local.routes
        for owner, key in self.kept:
            partition = routes.partition(key)
            if partition in changed and owner not in routes.holders(partition):
                self.kept.pass_on(owner, key, routes.owners[partition])

    # ---- what arrives ----------------------------------------------------------------------

    def on_keep_hint(self, sender: NodeId, order: KeepHint) -> None:
        """Keep a record for an owner that a coordinator could not reach."""
        local, outbox = self._local, self._outbox
        if order.deadline < local.steady:
            return outbox.send(sender, ReplicaRefused(order.rid, "its deadline has passed"))
        outside = local.routes.ring.member(order.owner) is None or local.me in local.routes.leaving
        if order.owner == local.me or outside:
            return outbox.send(sender, ReplicaRefused(order.rid, f"no hint can be kept for {order.owner} here"))
        try:
            held, mine = merge_held(None, order.record), self.record(order.key)
            if order.since and mine is not None and merge_held(mine, order.record) is mine:
                return outbox.send(sender, ReplicaRefused(order.rid, "two copies here would be one"))
            kept = self.keep(order.owner, order.key, held, order.since)
        except msgspec.MsgspecError:
            local.counters["malformed_records"] += 1
            return outbox.send(sender, ReplicaRefused(order.rid, "malformed record"))
        if not kept:
            return outbox.send(sender, ReplicaRefused(order.rid, FULL))
        # One that is handed over goes from its keeper as if it were delivered.
        return outbox.ack(sender, ReplicaWritten(order.rid) if order.since else HintKept(order.rid))

    def on_read_hint(self, sender: NodeId, ask: ReadHint) -> None:
        """Tell what is kept of a key for its owners."""
        held = self.record(ask.key)
        # What is kept may not be durable yet: told when it is.
        self._outbox.ack(sender, ReplicaRead(ask.rid, held.blob if held is not None else b""))

    def on_replica_written(self, sender: NodeId, written: ReplicaWritten) -> bool:
        """An owner holds a hint durably, or another node keeps it. False when it is not one of ours."""
        sent = self._sent.get(written.rid)
        if sent is None or sent.to != sender:
            return False
        del self._sent[written.rid]
        kept = self.kept.of[sent.owner]
        kept.in_flight -= 1
        hint = kept.hints.get(sent.key)
        if hint is None:
            return True
        if hint.held.digest != sent.digest:
            kept.queue.append(sent.key)  # more came for the key while this was on its way
            return True
        self._arrived(sent)
        kept.delivered += 1
        kept.window_count += 1
        self._local.counters["hints_delivered"] += 1
        if sent.to != sent.owner and not sent.handed:
            self.miss(self._local.routes.partition(sent.key), sent.owner)
        if not kept.hints:
            self._local.event(
                "hints", f"all hints for {sent.owner} are delivered, {kept.delivered} since the boot"
            )
        return True

    def _arrived(self, sent: Sent) -> None:
        """A hint is durable there. It goes, but where that place is to be another's: who takes it over may have
        copied it without this, and be asked for no more.
        """
        routes, kept = self._local.routes, self.kept.of[sent.owner]
        partition = routes.partition(sent.key)
        step = routes.pending.get(partition)
        takers = routes.takers(partition) if step is not None and step.lost == sent.to else ()
        self.kept.pass_on(sent.owner, sent.key, takers)
        if sent.key in kept.hints:
            kept.queue.append(sent.key)
            kept.wait_until = self._local.now + config.HINT_RETRY_MS

    def on_replica_refused(self, sender: NodeId, refused: ReplicaRefused) -> bool:
        """An owner would not take a hint. False when it is not one of ours."""
        sent = self._sent.get(refused.rid)
        return sent is not None and sent.to == sender and self._back(refused.rid)

    def _back(self, rid: int) -> bool:
        """A hint did not arrive: it is sent again in its turn."""
        sent = self._sent.pop(rid, None)
        if sent is None:
            return False
        kept = self.kept.of[sent.owner]
        kept.in_flight -= 1
        kept.wait_until = self._local.now + config.HINT_RETRY_MS
        if sent.key in kept.hints:
            kept.queue.append(sent.key)
        return True

    def on_peer_lost(self, peer: NodeId) -> None:
        """What was on its way to this peer did not arrive."""
        for rid in [rid for rid, sent in self._sent.items() if sent.to == peer]:
            self._back(rid)

    # ---- delivering ------------------------------------------------------------------------

    @property
    def timed(self) -> bool:
        """Whether something is on its way, or may be sent now."""
        if self._sent or not self.kept.of:
            return bool(self._sent)
        now = self._local.now
        return any(k.queue and k.wait_until <= now and self._reachable(o) for o, k in self.kept.of.items())

    @property
    def busy(self) -> bool:
        """Nothing here keeps a client waiting."""
        return False

    def _reachable(self, owner: NodeId) -> bool:
        leaves = self._local.me in self._local.routes.leaving  # then others keep what cannot be delivered
        return owner not in self._local.peers.avoided or leaves or self._aged(owner)

    def _aged(self, owner: NodeId) -> bool:
        """Whether the oldest hint for an owner has waited for longer than hints are to."""
        kept = self.kept.of[owner]
        return bool(kept.hints) and self._local.steady - kept.oldest > self._local.settings.hint_age_ms

    def on_tick(self, now: Millis) -> None:
        """Send what may be sent; send again what was not answered."""
        passed, self._ticked = min(now - self._ticked, 1_000.0), now
        while self._overdue and self._overdue[0][0] <= now:
            self._back(self._overdue.popleft()[1])
        for owner, kept in self.kept.of.items():
            kept.measure(now)
            if kept.queue and kept.wait_until <= now and self._reachable(owner):
                # A tenth of a second's worth may be sent at once, so that a late tick makes up for itself.
                kept.allowance = min(kept.allowance + self._per_s * passed / 1_000, 1 + self._per_s / 10)
                self._deliver(owner, kept, now)

    def _deliver(self, owner: NodeId, kept: Kept, now: Millis) -> None:
        local = self._local
        while kept.queue and kept.allowance >= 1 and kept.in_flight < config.HINTS_IN_FLIGHT:
            key = kept.queue.popleft()
            hint = kept.hints.get(key)
            if hint is None:
                continue
            to, handed = self._target(owner, key, hint), False
            if to is None and local.me in local.routes.leaving:
                to, handed = self._stand_in(key), True
            if to is None:
                kept.queue.append(key)
                kept.wait_until = now + config.HINT_RETRY_MS
                return
            if to == local.me:
                self._take_over(owner, kept, key)
                continue
            kept.allowance -= 1
            kept.in_flight += 1
            rid = local.next_rid()
            self._sent[rid] = Sent(owner, to, key, hint.held.digest, handed)
            self._overdue.append((now + config.HINT_RETRY_MS, rid))
            epoch, blob, until = local.routes.epoch_of(key), hint.held.blob, local.until(to)
            if handed:
                self._outbox.send(to, KeepHint(rid, epoch, owner, key, blob, until, hint.since))
            else:
                self._outbox.send(to, WriteReplica(rid, epoch, key, blob, until))

    def _stand_in(self, key: bytes) -> NodeId | None:
        """Who may keep a hint in place of this node; it refuses if it has one of the key."""
        routes, avoided = self._local.routes, self._local.peers.avoided
        others = [f for f in routes.fallbacks(routes.partition(key)) if f not in avoided]
        return self._local.rng.choice(others) if others else None

    def _take_over(self, owner: NodeId, kept: Kept, key: bytes) -> None:
        """As another owner of the key: what is kept goes into our own copy, which mostly has it."""
        if self.kept.pass_on(owner, key, (self._local.me,)):
            self.miss(self._local.routes.partition(key), owner)
            return
        kept.queue.append(key)
        kept.wait_until = self._local.now + config.HINT_RETRY_MS

    def _target(self, owner: NodeId, key: bytes, hint: Hint) -> NodeId | None:
        """Who takes a hint now: its owner; once that has been away for too long, any other that is to stay one."""
        local = self._local
        partition = local.routes.partition(key)
        if owner in local.routes.holders(partition):
            if owner not in local.peers.avoided:
                return owner
            if local.steady - hint.since <= local.settings.hint_age_ms:
                return None
        others = [o for o in local.routes.sides(partition)[-1] if o != owner]
        if local.me in others:
            return local.me
        return next((o for o in others if o not in local.peers.avoided), None)

    @property
    def in_flight(self) -> int:
        """Hints on their way."""
        return len(self._sent)

    # ---- what operators ask ----------------------------------------------------------------

    def views(self) -> tuple[HintsFor, ...]:
        """The hints of each owner there are any for."""
        avoided = self._local.peers.avoided
        kept = sorted(self.kept.of.items())
        return tuple(k.view(owner, reachable=owner not in avoided) for owner, k in kept if k.hints)

    def on_deliver(self, client: Address, ask: DeliverHints) -> None:
        """Try now what is kept for an owner, or for all."""
        count = 0
        for owner, kept in self.kept.of.items():
            if not ask.owner or ask.owner == owner:
                count += len(kept.hints)
                kept.wait_until = 0
                if owner not in self._local.peers.suspected:
                    self._local.peers.clear(owner)
        self._outbox.send(client, Done(ask.rid, count))

    def on_drop(self, client: Address, ask: DropHints) -> None:
        """Forget what is kept for an owner."""
        kept = self.kept.of.get(NodeId(ask.owner))
        keys = list(kept.hints) if kept is not None else []
        for key in keys:
            self.kept.drop(NodeId(ask.owner), key)
            self.miss(self._local.routes.partition(key), NodeId(ask.owner))
        if keys:
            self._local.event("hints", f"{len(keys)} hints for {ask.owner} were dropped by an operator")
        self._outbox.ack(client, Done(ask.rid, len(keys)))

    def on_throttle(self, client: Address, ask: ThrottleHints) -> None:
        """Deliver faster or slower from now on."""
        self._per_s = ask.per_s
        self._outbox.send(client, Done(ask.rid, ask.per_s))
