"""The gate: nothing is acted on across a change of owners that touches its partition.

Promises: a message of an earlier epoch of its partition is refused, and its sender told; one of a later epoch
waits until this node holds that ring, durably, and is acted on then. Other partitions do not notice.
Never: holds more than a bounded number of messages, or one past its time.
Input: whatever one node says to another that can read or write.

    sent at the epoch of the partition that we know    through
    at an earlier one                                  Stale: fetch the ring, ask again
    at a later one                                     kept, while we fetch the ring

See PROTOCOL-CASES 16: one number a partition, and no message stops for a change somewhere else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from msgspec import Struct

from kvnode.core.local import Local
from kvnode.core.routes import MIXED
from kvnode.protocol import messages as m
from kvnode.protocol.ring import hash_slot
from kvnode.protocol.types import Millis, NodeId

PARKED_MAX = 2_048
"""Messages kept at once; beyond it the oldest is dropped, as a full queue would."""
PARKED_MS = 5_000
"""...and for so long: then whoever sent it has given up."""

OfKey = (
    m.ReadReplica | m.WriteReplica | m.KeepHint | m.ReadHint | m.Reap | m.Prepare | m.Accept | m.ReadRegister
    | m.ReapRegister | m.Get | m.Put
)  # fmt: skip
OfPartition = m.CompareTree | m.CompareKeys | m.ExchangeDone | m.AskBatch
Gated = OfKey | OfPartition | m.ScanReplica
GATED = frozenset(Gated.__args__)
"""Types of messages that act across a change of owners."""
OF_STRANGERS = frozenset({m.Knock, m.AskRing, m.RingTold, m.Reported})
"""What a node that is no member may say."""
LOOPED = frozenset({m.AskBatch, m.ExchangeDone})
"""What a node says to itself to hear of a commit, under the name of what it says to others."""
_OF_PARTITION = frozenset(OfPartition.__args__)


class Parked(Struct, frozen=True, gc=False):
    """A message that came too early."""

    sender: NodeId
    message: Gated
    until: Millis


class Gate:
    """What one node lets in."""

    def __init__(self, local: Local, want: Callable[[NodeId], None]) -> None:
        """`want`: fetches the ring that a member has."""
        self._local = local
        self._want = want
        self._parked: deque[Parked] = deque(maxlen=PARKED_MAX)

    def admits(self, sender: NodeId, message: Gated) -> bool:
        """Whether a message may be acted on now."""
        mine = self._epoch(message)
        if message.epoch == mine:
            return True
        if message.epoch < mine:
            self._local.counters["stale_messages"] += 1
            if sender != self._local.me:
                self._local.outbox.send(sender, m.Stale(message.rid, mine))
        elif sender != self._local.me:
            self._parked.append(Parked(sender, message, self._local.now + PARKED_MS))
            self._want(sender)
        return False

    def _epoch(self, message: Gated) -> int:
        """That of the message's partition here; of a scan that of the whole ring.

        Where all partitions changed last in one epoch, who asks under that one is let in before it comes to this:
        a scan too, for then it asks the owners of now.
        """
        routes = self._local.routes
        if isinstance(message, m.ScanReplica):
            return routes.epoch
        if routes.uniform != MIXED:
            return routes.uniform
        if type(message) in _OF_PARTITION:
            assert isinstance(message, OfPartition)
            partition = message.partition
            return routes.since[partition] if partition < len(routes.since) else routes.epoch
        assert isinstance(message, OfKey)
        return routes.since[hash_slot(message.key) >> routes.shift]

    def on_ring(self) -> list[Parked]:
        """Another ring is held: what waited for one may be looked at again."""
        parked, self._parked = self._parked, deque(maxlen=PARKED_MAX)
        return [one for one in parked if one.until > self._local.now]

    @property
    def waiting(self) -> bool:
        """Whether a message waits for a ring."""
        return bool(self._parked)

    def on_tick(self, now: Millis) -> None:
        """Drop what nobody waits for any more; ask again for the ring that the rest needs."""
        while self._parked and self._parked[0].until <= now:
            self._parked.popleft()
        if self._parked:
            self._want(self._parked[0].sender)
