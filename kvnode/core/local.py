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
        "ahead", "boot", "clock", "counters", "deaf", "disk_id", "durability", "events", "latency", "me", "now",
        "outbox", "peers", "recovering", "refusal", "rid", "rng", "routes", "settings", "skewed",
        "started", "steady", "store", "voteless",
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
        disk_id: int = 0,
    ) -> None:
        self.me = me
        self.durability = durability
        self.boot = boot
        self.disk_id = disk_id
        self.store = store
        """For what is no record: the tree, hints, facts. Records are read through the outbox."""
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
        self.steady: WallMillis = 0
        """What deadlines are judged by: the wall clock as it was at boot, plus the time that has passed
        since. A wall clock that jumps back an hour must not let in what is an hour late."""
        self.ahead: dict[NodeId, int] = {}
        """How far the steady clock of each peer is ahead of ours, in ms, as it last spoke."""
        self.skewed = False
        """Whether any of them is so far off that deadlines must allow for it."""
        self.recovering: set[int] = set()
        """Partitions in which this node does not count for quorum reads. Empty in good times."""
        self.voteless: set[int] = set()
        """Partitions in which this node casts no ballot: it may have lost one. Empty in good times."""
        self.deaf = False
        """Whether the shell reads no messages now, for its disk is behind: all silence is our own."""
        self.refusal = ""
        """Why this node coordinates nothing now; empty in good times."""
        self.rid = rng.getrandbits(RID_RANDOM_BITS) << 32
        """The last request id drawn: random per boot in its upper half (PROTOCOL-CASES 11)."""

    @property
    def wall(self) -> WallMillis:
        """The wall clock of this turn."""
        return self.clock.wall

    @property
    def proven_wall(self) -> WallMillis:
        """A time that may prove what is older: none while our clock is off, and never ahead of the steady one."""
        return 0 if self.refusal else min(self.clock.wall, self.steady)

    def until(self, peer: NodeId) -> WallMillis:
        """The deadline of a record sent to this peer, by its steady clock: merging late buries nothing."""
        return self.steady + self.ahead.get(peer, 0) + self.settings.write_deadline_ms

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
