"""What an exchange remembers, and what all of them add up to.

Promises: values and sums only. Never: sends anything, or reads the store.
"""

from __future__ import annotations

from msgspec import Struct

from kvnode.core.merkle import Span
from kvnode.protocol.messages import ExchangeView, RepairView
from kvnode.protocol.ring import Partition
from kvnode.protocol.types import Millis, NodeId, WallMillis

PREFIX_BYTES = 6
"""Of a hash so much is sent and compared: two spans that differ look the same once in 2^48, until a write."""

Pair = tuple[Partition, NodeId]


class Exchange(Struct, gc=False):
    """One exchange that this node began."""

    rid: int
    partition: Partition
    peer: NodeId
    began: WallMillis
    due: Millis
    """When its other side must have answered."""
    question: int = 0
    """The number of the question asked last; an answer to any other is none."""
    step: str = "root"
    spans: list[Span] = []
    """Known to differ, their parts not yet compared."""
    leaves: list[Span] = []
    """Of few keys, known to differ, their keys not yet compared."""
    asked: tuple[Span, ...] = ()
    """Those whose keys are being compared."""
    writing: set[int] = set()
    """Request ids of records under way."""
    skipped: int = 0
    """Records that could not be taken in: then the exchange brings what it can, and does not count."""
    again: bool = False
    """Whether those must be compared once more: there was more than one message takes, or all is not seen."""
    parked: bool = False
    """Held back by the throttle."""
    charged: int = 0
    """Bytes that have been held against it."""
    full: bool = False
    """Whether the other side is to tell all that differs, this time."""
    nodes_compared: int = 0
    keys_compared: int = 0
    keys_repaired: int = 0
    bytes_sent: int = 0

    def view(self) -> ExchangeView:
        """How far it has come."""
        size = sum(span.size for span in (*self.spans, *self.leaves))
        return ExchangeView(
            self.partition, self.peer, self.step, size, self.nodes_compared, self.keys_compared,
            self.keys_repaired, self.bytes_sent,
        )  # fmt: skip


class Totals(Struct, gc=False):
    """Counted over all exchanges of a boot."""

    exchanges: int = 0
    nodes_compared: int = 0
    keys_compared: int = 0
    keys_repaired: int = 0
    bytes_sent: int = 0
    failed: int = 0

    def view(
        self, active: tuple[ExchangeView, ...], *, waiting: int, oldest: WallMillis, paused: bool
    ) -> RepairView:
        """How it stands, together with what is under way."""
        return RepairView(
            paused, active, waiting, self.exchanges, self.nodes_compared, self.keys_compared,
            self.keys_repaired, self.bytes_sent, self.failed, oldest,
        )  # fmt: skip

    def add(self, exchange: Exchange) -> None:
        """Count what an exchange did, whether it came to its end or not."""
        self.nodes_compared += exchange.nodes_compared
        self.keys_compared += exchange.keys_compared
        self.keys_repaired += exchange.keys_repaired
        self.bytes_sent += exchange.bytes_sent
