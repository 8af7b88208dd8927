"""What every mechanism of one node shares: who and when we are, the outbox, the ring, the peers.

Promises: one object, made at boot, handed to each mechanism; `now` is the time of the turn.
Never: logic beyond drawing a request id.
"""

from __future__ import annotations

from collections import Counter
from random import Random

from kvnode.config import Settings
from kvnode.core.clock import HybridClock
from kvnode.core.events import EventLog
from kvnode.core.outbox import Outbox, Store
from kvnode.core.peers import Peers
from kvnode.core.routes import Routes
from kvnode.protocol.histogram import Histogram
from kvnode.protocol.ring import Ring
from kvnode.protocol.types import Millis, NodeId, WallMillis

RID_RANDOM_BITS = 31


class Local:
    """One node's own state, shared by its mechanisms."""

    __slots__ = (
        "boot", "clock", "counters", "durability", "events", "latency", "me", "now", "outbox", "peers",
        "rid", "rng", "routes", "settings", "started",
    )  # fmt: skip

    def __init__(
        self,
        me: NodeId,
        boot: int,
        ring: Ring,
        store: Store,
        rng: Random,
        settings: Settings,
        durability: str,
    ) -> None:
        self.me = me
        self.durability = durability
        self.boot = boot
        self.now: Millis = 0
        self.started: Millis = 0
        self.clock = HybridClock()
        self.rng = rng
        self.settings = settings
        self.outbox = Outbox(store)
        self.routes = Routes(ring, me)
        self.peers = Peers(settings.avoid_ms)
        self.events = EventLog(me)
        self.counters: Counter[str] = Counter()
        self.latency = Histogram()
        self.rid = rng.getrandbits(RID_RANDOM_BITS) << 32
        """The last request id drawn: random per boot in its upper half (PROTOCOL-CASES 11)."""

    @property
    def wall(self) -> WallMillis:
        """The wall clock of this turn."""
        return self.clock.wall

    def next_rid(self) -> int:
        """A request id no other boot of this node has used."""
        self.rid += 1
        return self.rid

    def event(self, kind: str, text: str) -> None:
        """Remember that something happened."""
        self.events.add(self.clock.wall, kind, text)

    def ignore(self, what: str) -> None:
        """Count a message that was rightly not acted on."""
        self.counters["ignored_" + what] += 1
