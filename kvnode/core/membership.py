"""Membership: who is alive, in whose opinion, and when an opinion becomes a fact.

Promises: a node is DOWN only when two observers suspect it (all who are not suspects themselves, if
fewer); a fresh heartbeat refutes; an observer's opinion dies with it; after a pause of our own we
convict no one. Never: moves data, or believes an older life of a node over a newer one.
Input: Beat, Gossip, ticks. See Dynamo §4.8.3, and SWIM (Das et al. 2002) §4.2 for suspicion.

    each 250 ms, up to 32 members   Beat ───────────────► every peer
    each second                     Gossip (the table) ─► 3 random peers, a suspect, a seed

The table has an entry a member: its life (incarnation), its heartbeat, its disk, and whom it suspects,
all written by that member alone. Entries only ever grow (by life, then by heartbeat), so gossip may
come late, twice or in any order. A suspicion names the heartbeat it could not hear beyond: any later
one makes it void.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec import Struct

from kvnode import config
from kvnode.core.detector import Arrivals
from kvnode.core.local import Local
from kvnode.core.routes import Routes
from kvnode.protocol.messages import Alive, Beat, Gossip, PeerView, Suspicion
from kvnode.protocol.types import Millis, NodeId

UP, SUSPECT, DOWN = "up", "suspect", "down"

Word = Callable[[Alive], None]
"""Told what a member says of its disk, each time that is another one."""


class Seen(Struct, gc=False):
    """What is known of a member, and since when."""

    alive: Alive
    arrivals: Arrivals
    at: Millis
    """When its entry last grew."""
    ahead_ms: int = 0
    """Its wall clock less ours, when it last spoke."""
    state: str = UP
    flaps: int = 0
    """How often it went down lately: each delays its return by a second."""
    since: Millis = 0
    """When its state last changed."""


class Membership:
    """The table of one node."""

    def __init__(self, local: Local, word: Word) -> None:
        self._local = local
        self._word = word
        # The boot number is durable before we speak, so a restart begins a later life by itself.
        self._me = Alive(local.me, local.boot, 0, (), local.disk_id, local.boot)
        self.oldest_hint: Callable[[], int] = lambda: 0
        """Since when this node has kept its oldest hint."""
        self.recovering: Callable[[], int] = lambda: 0
        """In how many partitions this node does not count for quorum reads, or casts no ballot, yet: others
        remember its disk once there is none."""
        self.on_epoch: Callable[[NodeId], None] = lambda _: None
        """Told of a member that holds a later ring than this node."""
        self._seen: dict[NodeId, Seen] = {}
        self._followed: Routes | None = None
        """The ring that the table has the members of."""
        self._against: dict[NodeId, dict[NodeId, Suspicion]] = {}
        """Accused -> observer -> its suspicion."""
        self._next_beat: Millis = 0
        self._next_gossip: Millis = 0
        self._ticked: Millis | None = None

    # ---- what others ask -------------------------------------------------------------------

    @property
    def incarnation(self) -> int:
        """This node's present life."""
        return self._me.incarnation

    def state(self, node: NodeId) -> str:
        """`up`, `suspect` or `down`; a node is always up to itself."""
        seen = self._seen.get(node)
        return UP if seen is None else seen.state

    def silent(self, node: NodeId) -> bool:
        """Whether a member has missed two beats: sooner than it is suspected. In small clusters only."""
        seen = self._seen.get(node)
        return seen is not None and self._small and self._local.now - seen.arrivals.last > config.SILENT_MS

    def epoch_of(self, node: NodeId) -> int:
        """The epoch of the ring that a member holds durably, as it said last; 0 where it said nothing."""
        if node == self._local.me:
            return self._local.routes.epoch
        seen = self._seen.get(node)
        return 0 if seen is None else seen.alive.epoch

    def oldest_hint_of(self, node: NodeId) -> int:
        """Since when a member keeps its oldest hint, as it said last; 0 while it keeps none."""
        seen = self._seen.get(node)
        return 0 if seen is None else seen.alive.oldest_hint

    @property
    def heard_of(self) -> int:
        """Of how many others anything is known."""
        return sum(seen.alive.incarnation > 0 for seen in self._seen.values())

    def known_incarnation(self, node: NodeId) -> int:
        """The latest life of a member that this node has heard of; 0 before the first."""
        return self._seen[node].alive.incarnation

    def views(self) -> tuple[PeerView, ...]:
        """What this node thinks of every other, by name."""
        now = self._local.now
        return tuple(
            PeerView(
                node, seen.state, seen.arrivals.phi(now), int(now - seen.arrivals.last),
                tuple(sorted(self._observers_against(node, seen))),
            )
            for node, seen in sorted(self._seen.items())
        )  # fmt: skip

    def hints_since(self) -> int:
        """Since when, by their own steady clocks, the members other than this one keep hints.

        The least over all of them, the silent ones with what they said last; 0 while one has never
        spoken, for then it may keep any.
        """
        oldest = config.FOREVER_MS
        for seen in self._seen.values():
            if not seen.alive.wall_ms:
                return 0
            # A hint kept since it spoke is younger than what it said.
            oldest = min(oldest, seen.alive.oldest_hint or min(seen.alive.wall_ms, seen.alive.steady_ms))
        return oldest

    # ---- what arrives ----------------------------------------------------------------------

    def on_beat(self, sender: NodeId, beat: Beat) -> None:
        """A member speaks for itself."""
        alive = beat.alive
        if alive.node != sender:
            return self._local.ignore("beat_for_another")
        seen = self._seen.get(sender)
        if seen is not None and alive.incarnation < seen.alive.incarnation:
            # It has forgotten a life of its own: its disk is another one, or a copy from the past.
            self._local.outbox.tell(sender, Gossip((seen.alive,)))
        return self._take(alive)

    def on_gossip(self, sender: NodeId, gossip: Gossip) -> None:
        """Someone's table."""
        for alive in gossip.table:
            if alive.node == self._local.me:
                self._defend(alive)
            else:
                self._take(alive, relayed=alive.node != sender)

    def _take(self, alive: Alive, *, relayed: bool = False) -> None:
        local = self._local
        node = alive.node
        seen = self._seen.get(node)
        if seen is None:
            return local.ignore("gossip_of_a_stranger")
        known = seen.alive
        if (alive.incarnation, alive.heartbeat) <= (known.incarnation, known.heartbeat):
            return None
        if alive.incarnation - known.incarnation > config.LIFE_LEAP_MAX:
            return local.ignore("gossip_of_a_leap")
        if relayed and self._small:
            # Where each observer beats to everyone, whom it suspects is believed of itself alone.
            alive = msgspec.structs.replace(alive, suspects=known.suspects)
        if known.incarnation and alive.incarnation != known.incarnation:
            local.event("incarnation", f"{node} began incarnation {alive.incarnation}")
        if (known.disk_id, known.boot, known.recovering) != (alive.disk_id, alive.boot, alive.recovering):
            self._word(alive)
        seen.alive = alive
        seen.at = local.now
        if alive.epoch > local.routes.epoch:
            self.on_epoch(node)
        if not relayed:  # else it is as old as its way was long
            local.ahead[node] = alive.steady_ms - local.steady
            local.skewed = local.skewed or abs(local.ahead[node]) > config.SKEW_MS
        seen.ahead_ms = alive.wall_ms - local.wall
        seen.arrivals.beat(local.now)
        if known.suspects or alive.suspects:
            self._note_accusations(node, known.suspects, alive.suspects)
        if node in local.peers.suspected:
            local.peers.clear(node)
            self._accuse(node, local.me, None)
        if seen.state != UP:
            self._judge(node, seen)
        return None

    def _defend(self, alive: Alive) -> None:
        """What peers remember of us. A later life than ours is one we forgot: begin a newer one."""
        me = self._me
        if alive.incarnation - me.incarnation > config.LIFE_LEAP_MAX:
            return self._local.ignore("gossip_of_a_leap")
        if (alive.incarnation, alive.heartbeat) > (me.incarnation, me.heartbeat):
            self._me = Alive(me.node, alive.incarnation + 1, 0, me.suspects, me.disk_id, me.boot)
            self._local.event("incarnation", f"peers remember incarnation {alive.incarnation}: now one more")
            self._next_beat = 0
        return None

    # ---- time ------------------------------------------------------------------------------

    @property
    def wake_at(self) -> Millis:
        """When the next beat or gossip is due."""
        return min(self._next_beat, self._next_gossip)

    def on_tick(self, now: Millis) -> None:
        """Beat, gossip, suspect. Who is outside has nobody to beat to, and no say."""
        if not self._local.routes.is_member:
            self._next_beat = self._next_gossip = now + config.BEAT_MS
            return
        self._follow_ring(now)
        if self._ticked is not None:
            self._forgive(now - self._ticked)
        self._ticked = now
        if now >= self._next_beat:
            self._next_beat = now + (config.BEAT_MS if self._small else config.GOSSIP_MS)
            self._beat(now)
        if now >= self._next_gossip:
            self._next_gossip = now + config.GOSSIP_MS
            self._gossip()

    def _forgive(self, passed: Millis) -> None:
        """Convict no one for a time in which we did not listen."""
        stalled = passed > config.STALL_MS
        if stalled or self._local.deaf:
            for seen in self._seen.values():
                seen.arrivals.forgive(passed)
        if stalled:
            self._local.event("stall", f"this node stood still for {passed:.0f} ms: no one is convicted for it")

    @property
    def _small(self) -> bool:
        return len(self._seen) < config.DIRECT_BEATS_MAX

    def _follow_ring(self, now: Millis) -> None:
        """The ring says who is a member; the table follows."""
        routes = self._local.routes
        if routes is self._followed:
            return
        self._followed, others = routes, routes.others
        expected = config.BEAT_MS if len(others) < config.DIRECT_BEATS_MAX else config.GOSSIP_MS * 2
        for node in others:
            if node not in self._seen:
                self._seen[node] = Seen(Alive(node, 0, 0), Arrivals(now, expected), now)
        for node in [n for n in self._seen if n not in others]:
            del self._seen[node]
            self._local.peers.clear(node)
            self._local.ahead.pop(node, None)

    def _beat(self, now: Millis) -> None:
        local = self._local
        suspects = []
        for node, seen in self._seen.items():
            if seen.arrivals.suspicious(now):
                suspicion = Suspicion(node, seen.alive.incarnation, seen.alive.heartbeat)
                suspects.append(suspicion)
                self._accuse(node, local.me, suspicion)
                if node not in local.peers.suspected:
                    local.peers.suspect(node)
                    local.event("suspect", f"{node} has been silent for {now - seen.arrivals.last:.0f} ms")
        self._look_at_clocks()
        me = self._me
        self._me = Alive(
            me.node, me.incarnation, me.heartbeat + 1, tuple(suspects), me.disk_id, me.boot,
            local.wall, local.steady, self.oldest_hint(), self.recovering(), local.routes.epoch,
        )  # fmt: skip
        for node in [n for n, seen in self._seen.items() if seen.state != UP or n in self._against]:
            self._judge(node, self._seen[node])
        if self._small:
            beat = Beat(self._me)
            for node in self._seen:
                local.outbox.tell(node, beat)

    def _gossip(self) -> None:
        peers = list(self._seen)
        if not peers:
            return
        rng = self._local.rng
        chosen = rng.sample(peers, min(config.GOSSIP_FANOUT, len(peers)))
        suspects = [node for node, seen in self._seen.items() if seen.state != UP]
        if suspects:
            chosen.append(rng.choice(suspects))
        chosen.append(self._local.routes.members[0])
        gossip = Gossip((self._me, *(seen.alive for seen in self._seen.values() if seen.alive.incarnation)))
        for node in dict.fromkeys(chosen):
            if node != self._local.me:
                self._local.outbox.tell(node, gossip)

    def _look_at_clocks(self) -> None:
        """The median of all clocks: a node whose own is far from it must not date anything."""
        self._local.skewed = any(abs(ahead) > config.SKEW_MS for ahead in self._local.ahead.values())
        ahead = sorted([0, *(seen.ahead_ms for seen in self._seen.values() if seen.alive.wall_ms)], key=abs)
        # Of two clocks neither can tell which is wrong: the nearer one to ours, that is our own, counts.
        middle = sorted(ahead[: len(ahead) - 1] if len(ahead) % 2 == 0 else ahead)
        self._judge_own_clock(-middle[len(middle) // 2])

    def _judge_own_clock(self, ahead_ms: int) -> None:
        """A node whose clock is far from all others' must not date anything: it coordinates nothing."""
        local = self._local
        wrong = abs(ahead_ms) > config.CLOCK_AHEAD_MAX_MS
        if wrong != bool(local.refusal):
            off = f"{abs(ahead_ms) // 1000} s {'ahead of' if ahead_ms > 0 else 'behind'} its peers'"
            local.refusal = f"this node's clock is {off}: set it right" if wrong else ""
            local.event("clock", local.refusal or "this node's clock agrees with its peers' again")

    # ---- verdicts --------------------------------------------------------------------------

    def _note_accusations(
        self, observer: NodeId, before: tuple[Suspicion, ...], after: tuple[Suspicion, ...]
    ) -> None:
        for suspicion in before:
            self._accuse(suspicion.node, observer, None)
        for suspicion in after:
            self._accuse(suspicion.node, observer, suspicion)
            seen = self._seen.get(suspicion.node)
            if seen is not None:
                self._judge(suspicion.node, seen)

    def _accuse(self, node: NodeId, observer: NodeId, suspicion: Suspicion | None) -> None:
        if suspicion is not None:
            if node in self._seen and observer != node:
                self._against.setdefault(node, {})[observer] = suspicion
        elif node in self._against:
            self._against[node].pop(observer, None)
            if not self._against[node]:
                del self._against[node]

    def _observers_against(self, node: NodeId, seen: Seen) -> list[NodeId]:
        """Observers, heard of lately, whose latest word suspects the node at its latest known heartbeat."""
        known = seen.alive.incarnation, seen.alive.heartbeat
        return [
            observer
            for observer, suspicion in self._against.get(node, {}).items()
            if (suspicion.incarnation, suspicion.heartbeat) >= known and self._has_a_say(observer)
        ]

    def _has_a_say(self, observer: NodeId) -> bool:
        if observer == self._local.me:
            return True
        seen = self._seen.get(observer)
        return seen is not None and self._local.now - seen.at <= config.SUSPICION_LAPSE_MS

    def _judge(self, node: NodeId, seen: Seen) -> None:
        against = self._observers_against(node, seen)
        unsuspected = 1 + sum(s.state == UP for other, s in self._seen.items() if other != node)
        state = DOWN if len(against) >= min(2, unsuspected) else SUSPECT if against else UP
        if state == seen.state:
            return
        now = self._local.now
        if state == UP and seen.state == DOWN and now - seen.since < (seen.flaps - 1) * config.FLAP_DELAY_MS:
            return
        if state == DOWN:
            seen.flaps = min(seen.flaps + 1, config.FLAPS_MAX) if now - seen.since < config.FLAP_FORGET_MS else 1
        by = f" (suspected by {', '.join(sorted(against))})" if against else ""
        self._local.event("liveness", f"{node}: {seen.state} -> {state}{by}")
        seen.state, seen.since = state, now
