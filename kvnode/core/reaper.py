"""The reaper: buries a tombstone once nobody can bring back what it covers.

Promises: a record goes only when every version in it is dead for longer than the grace, every owner
holds just that record, an exchange with each of them began after its death, and no member keeps a hint
that old; each owner drops exactly that record. Never: reaps by time alone.
Input: dead records (from the scrubber), Reap, ReapAnswer, ticks. See LESSONS 2.2, PROTOCOL-CASES 19.

    first owner ─ Reap(drop=False) ─► all owners: "just that record"
                ─ Reap(drop=True)  ─► all owners: erased
    one that missed the second gives the tombstone back, harmlessly, and it is reaped again
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from msgspec import Struct

from kvnode import config
from kvnode.core.local import Local
from kvnode.core.outbox import Unreadable
from kvnode.core.versions import Held
from kvnode.protocol.messages import Reap, ReapAnswer
from kvnode.protocol.ring import Partition
from kvnode.protocol.types import Millis, NodeId, Record, WallMillis, time_to_wall

Exchanges = Mapping[tuple[Partition, NodeId], WallMillis]


class Burial(Struct, gc=False):
    """A record whose owners are being asked."""

    key: bytes
    digest: bytes
    waiting: set[NodeId]
    due: Millis


class Reaper:
    """The burials this node conducts: of the partitions whose first owner it is."""

    def __init__(self, local: Local, exchanges: Exchanges) -> None:
        self._local = local
        self._outbox = local.outbox
        self._exchanges = exchanges
        self._burials: dict[int, Burial] = {}
        self.unsettled: Callable[[int], str] = lambda _: ""
        """Why nothing may be forgotten in a partition now: its owners are about to be others, or just were."""
        self.hints_since: Callable[[], WallMillis] = lambda: 0
        """Since when, at most, any member keeps a hint."""

    def settled(self, partition: Partition) -> WallMillis:
        """Everything of a partition that was written before is with all owners, this node too, and in no hint.

        0 while that cannot be told, and by who is no owner. Clocks may differ by up to `CLOCK_AHEAD_MAX_MS`, so by
        that earlier.
        """
        peers = self._local.routes.peers[partition]
        if peers is None or self.unsettled(partition):
            return 0
        began = min((self._exchanges.get((partition, peer), 0) for peer in peers), default=self._local.proven_wall)
        return max(0, min(began, self.hints_since()) - config.CLOCK_AHEAD_MAX_MS)

    def why(self, key: bytes, held: Held) -> str:
        """Why this record is still here; empty when it may be reaped, or is no tombstone."""
        local = self._local
        died = died_at(held.record(), local.wall)
        if died is None:
            return ""
        left = died + local.settings.grace_ms - local.wall
        if left > 0:
            return f"it is younger than the grace: {left // 1000} s are left"
        partition = local.routes.partition(key)
        if unsettled := self.unsettled(partition):
            return unsettled
        after = died + config.CLOCK_AHEAD_MAX_MS
        for peer in local.routes.peers[partition] or ():
            if self._exchanges.get((partition, peer), 0) <= after:
                return f"no exchange of its partition with {peer} has begun since"
        if self.hints_since() <= after:
            return "a member keeps a hint that may be older, or has not been heard of"
        return ""

    def on_dead(self, key: bytes, held: Held) -> None:
        """A record without a live value was seen: ask its owners, if its time has come and it is ours to do."""
        local = self._local
        partition = local.routes.partition(key)
        if local.routes.owners[partition][0] != local.me or len(self._burials) >= config.BURIALS_MAX:
            return None
        if died_at(held.record(), local.wall) is None or self.why(key, held):
            return None
        rid = local.next_rid()
        peers = set(local.routes.peers[partition] or ())
        self._burials[rid] = Burial(key, held.digest, peers, local.now + config.EXCHANGE_STEP_MS)
        if not peers:
            return self._bury(rid)
        self._tell(rid, key, held.digest, drop=False)
        return None

    def _tell(self, rid: int, key: bytes, digest: bytes, *, drop: bool) -> None:
        local = self._local
        for peer in local.routes.peers[local.routes.partition(key)] or ():
            self._outbox.send(peer, Reap(rid, local.routes.epoch_of(key), key, digest, local.until(peer), drop))

    def on_reap(self, sender: NodeId, ask: Reap) -> None:
        """Tell whether we hold just that record; drop it when told to."""
        local = self._local
        if sender not in (local.routes.peers[local.routes.partition(ask.key)] or ()):
            return local.ignore("reap")
        try:
            held = self._outbox.read(ask.key)
        except Unreadable:
            held = None
        same = (
            held is not None
            and held.digest == ask.digest
            and ask.deadline >= local.steady
            and died_at(held.record(), local.wall) is not None  # by our own clock too
        )
        if same and ask.drop:
            self._erase(ask.key)
        else:
            self._outbox.ack(sender, ReapAnswer(ask.rid, same))
        return None

    def on_reap_answer(self, sender: NodeId, told: ReapAnswer) -> None:
        """An owner holds just that record, or not."""
        burial = self._burials.get(told.rid)
        if burial is None or sender not in burial.waiting:
            return self._local.ignore("reap_answer")
        if not told.same:
            del self._burials[told.rid]
            return None
        burial.waiting.discard(sender)
        return self._bury(told.rid) if not burial.waiting else None

    def _bury(self, rid: int) -> None:
        burial = self._burials.pop(rid)
        try:
            held = self._outbox.read(burial.key)
        except Unreadable:
            return
        if held is not None and held.digest == burial.digest and not self.why(burial.key, held):
            self._tell(rid, burial.key, burial.digest, drop=True)
            self._erase(burial.key)

    def _erase(self, key: bytes) -> None:
        self._outbox.erase(key)
        self._local.counters["reaped"] += 1

    def on_ring(self, changed: Collection[int]) -> None:
        """Some partitions have other owners, or are to: those who were asked may not be all."""
        partition = self._local.routes.partition
        for rid in [rid for rid, burial in self._burials.items() if partition(burial.key) in changed]:
            del self._burials[rid]

    def on_tick(self, now: Millis) -> None:
        """Forget the burials whose owners do not answer."""
        for rid in [rid for rid, burial in self._burials.items() if burial.due <= now]:
            del self._burials[rid]


def died_at(record: Record, wall: WallMillis) -> WallMillis | None:
    """When the last version of a record died; None while one lives.

    A tombstone died at its dot, a value at its expiry (PROTOCOL-CASES 20).
    """
    died = 0
    for version in record:
        expired = 0 < version.expires_at <= wall
        if version.value is not None and not expired:
            return None
        died = max(died, time_to_wall(version.time), version.expires_at if expired else 0)
    return died
