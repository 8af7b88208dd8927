"""Topology: which ring this node holds, and how a ring that was chosen gets to everyone.

Promises: a ring is durable here before anything is done by it; whoever is behind, for however long it was
away, gets the latest from any member that has it; a node that was removed is told, and serves nothing.
Never: goes back an epoch, or holds a ring that was not chosen; the choice is `decree.py`'s.
Input: AskRing, RingTold, what others say of their epochs, ticks.

    chosen ──► RingTold ──► every member, of before and after
    heard of a later epoch ──► AskRing ──► RingTold ──► noted ──► committed ──► routed by
    now and then AskRing to a random member: what got lost is made good

A ring of another *branch* (`force-remove`) is taken by those it names, as members or as removed, and by who
stands outside; by nobody else.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from kvnode.core.local import Local
from kvnode.core.routes import Routes
from kvnode.core.shape import changed
from kvnode.protocol.ring import Ring
from kvnode.protocol.topology import AskRing, RingTold
from kvnode.protocol.types import Millis, NodeId

RING = "ring"
"""Fact: the ring held."""
ASK_MS = 1_000
"""How often a random member is asked for what is newer."""
WANT_MS = 50
"""A member known to have a later ring is asked again after so long."""


def held_ring(fact: bytes, founding: Ring) -> Ring:
    """The ring that a disk holds: what was noted last, else the one it was founded or admitted with."""
    noted = msgspec.msgpack.decode(fact, type=Ring) if fact else founding
    return noted if noted.epoch >= founding.epoch else founding


class Topology:
    """The ring of one node."""

    def __init__(self, local: Local) -> None:
        self._local = local
        self._outbox = local.outbox
        self._coming: Ring | None = None
        """Noted, and not known to be durable yet."""
        self._asked: dict[NodeId, Millis] = {}
        self._next_ask: Millis = 0
        self.staged: Callable[[], bytes] = bytes
        """The hash of what is known to be staged."""
        self.on_ring: Callable[[Routes, frozenset[int]], None] = lambda _, __: None
        """Told when another ring is held: how it was before, and which partitions changed."""
        self.removed = ""
        """Why this node is no member any more; empty while it is one, or may become one."""
        self.left = False
        """Whether it was leaving, with nothing left to do."""
        self._judge()

    # ---- spreading -------------------------------------------------------------------------

    def want(self, node: NodeId) -> None:
        """This member has a later ring than ours."""
        now = self._local.now
        if now - self._asked.get(node, -WANT_MS) >= WANT_MS and node != self._local.me:
            self._asked[node] = now
            self._ask(node)

    def _ask(self, node: NodeId) -> None:
        ring = self._local.routes.ring
        self._outbox.tell(node, AskRing(ring.branch, ring.epoch, self.staged()))

    def on_ask_ring(self, sender: NodeId, ask: AskRing) -> None:
        """Tell our ring to one that is behind, or of another branch; ask one that is further."""
        ring = self._local.routes.ring
        if ask.branch != ring.branch or ask.epoch < ring.epoch:
            self._outbox.send(sender, RingTold(ring))
        elif ask.epoch > ring.epoch:
            self.want(sender)

    def announce(self, ring: Ring) -> None:
        """A ring was chosen: everyone of before and after is told."""
        names = {member.id for member in ring.members} | set(self._local.routes.members)
        for node in sorted(names - {self._local.me}):
            self._outbox.send(node, RingTold(ring))
        self.on_ring_told(self._local.me, RingTold(ring))

    # ---- taking a ring ---------------------------------------------------------------------

    def on_ring_told(self, sender: NodeId, told: RingTold) -> None:
        """A ring that was chosen, or, from ourselves, one that is durable now."""
        ring = told.ring
        if self._coming is not None and sender == self._local.me and ring is self._coming:
            self._coming = None
            if self._newer(ring, self._local.routes.ring):
                self._install(ring)
        elif self._newer(ring, self._coming or self._local.routes.ring):
            self._coming = ring
            self._outbox.note(RING, msgspec.msgpack.encode(ring))
            self._outbox.ack(self._local.me, RingTold(ring))

    def _newer(self, ring: Ring, held: Ring) -> bool:
        me = self._local.me
        if ring.cluster_id != held.cluster_id or ring.q != held.q or ring.epoch <= held.epoch:
            return False
        concerned = ring.member(me) is not None or any(former.id == me for former in ring.removed)
        # Who stands outside owns nothing in either branch, and follows whoever lets it in.
        return ring.branch == held.branch or concerned or held.member(me) is None

    def _install(self, ring: Ring) -> None:
        local, before = self._local, self._local.routes
        local.routes = Routes(ring, local.me)
        self.left = local.me in before.ring.leaving and local.me not in before.ring.lost
        local.event("ring", f"epoch {ring.epoch}: {len(ring.members)} members, {len(ring.moves)} partitions move")
        self._judge()
        self.on_ring(before, changed(before.ring, ring))

    def _judge(self) -> None:
        """Whether this node was removed."""
        ring, me = self._local.routes.ring, self._local.me
        if ring.member(me) is None and any(former.id == me for former in ring.removed):
            self.removed = (
                f"{me} is no member of cluster {ring.cluster} any more, since epoch {ring.epoch} at the latest. A "
                "removed name never returns: to use this machine again, start it empty, under another name"
            )
            self._local.event("removed", self.removed)

    # ---- time ------------------------------------------------------------------------------

    @property
    def coming(self) -> bool:
        """Whether a ring is on its way to the disk."""
        return self._coming is not None

    def on_tick(self, now: Millis) -> None:
        """Ask a random member, now and then."""
        others = self._local.routes.others
        if now >= self._next_ask and others:
            self._next_ask = now + ASK_MS
            self._ask(self._local.rng.choice(others))
