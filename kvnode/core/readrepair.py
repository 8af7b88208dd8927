"""Read repair: whoever a read found stale is sent the merge, after the reply (Dynamo §5).

Promises: within its rate, every owner that answered a read with less than another is brought up to date.
Never: delays the reply, or waits for an answer.
"""

from __future__ import annotations

from kvnode import config
from kvnode.core.ledger import ME
from kvnode.core.local import Local
from kvnode.core.ports import Reads
from kvnode.core.quorum import GetQuorum
from kvnode.protocol.messages import WriteReplica
from kvnode.protocol.types import Millis

NO_REPLY = 0
"""The request id of a write whose outcome nobody waits for."""


class ReadRepair:
    """What this node mends of what its reads show."""

    def __init__(self, local: Local, reads: Reads) -> None:
        self._local = local
        self._outbox = local.outbox
        self._reads = reads
        self._mending_since: Millis = 0
        self._mended = 0

    def mend(self, quorum: GetQuorum) -> None:
        """Bring those that were stale up to date, within the rate."""
        local = self._local
        stale = quorum.stale()
        if not stale or quorum.held is None or not quorum.done or quorum.then is not None:
            return  # a write is on its way to all of them anyway
        if local.now - self._mending_since >= 1_000:
            self._mending_since, self._mended = local.now, 0
        if self._mended + len(stale) > config.READ_REPAIRS_PER_S:
            local.counters["read_repairs_skipped"] += len(stale)
            return
        self._mended += len(stale)
        local.counters["read_repairs"] += len(stale)
        for node in stale:
            if node == ME:
                self._reads.take_in(quorum.key, quorum.held)
            else:
                record, epoch = quorum.held.blob, local.routes.epoch_of(quorum.key)
                self._outbox.send(node, WriteReplica(NO_REPLY, epoch, quorum.key, record, local.until(node)))
