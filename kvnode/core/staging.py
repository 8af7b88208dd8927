"""Staging: the changes that operators have asked for and nobody has committed.

Promises: a small set, durable, the same on every member once they have talked; of two entries for one node the
later stands, and one taken back stays so. Never: an entry that the ring has made pointless.
Input: StageChange, ClearStaged, StagedTold, rings, ticks.

Gossiped, not decided: what counts is the plan, whose id names the set it was made from.
"""

from __future__ import annotations

from hashlib import blake2b

import msgspec

from kvnode import config
from kvnode.core.ballots import Ballots
from kvnode.core.local import Local
from kvnode.protocol.consensus import NO_BALLOT
from kvnode.protocol.ring import Ring
from kvnode.protocol.topology import Change, ChangeKind, Staged, StagedTold
from kvnode.protocol.types import NodeId

STAGED = "staged"
"""Fact: the set."""
_decoder = msgspec.msgpack.Decoder(tuple[Staged, ...])


class Staging:
    """The staged set, as one node knows it."""

    def __init__(self, local: Local, ballots: Ballots) -> None:
        self._local = local
        self._outbox = local.outbox
        self._ballots = ballots
        fact = local.store.fact(STAGED)
        self._entries = {entry.node: entry for entry in (_decoder.decode(fact) if fact else ())}

    # ---- what is asked ---------------------------------------------------------------------

    def changes(self) -> tuple[Change, ...]:
        """What is staged, and still means something."""
        ring = self._local.routes.ring
        live = (entry.change for _, entry in sorted(self._entries.items()))
        return tuple(change for change in live if change is not None and meaningful(ring, change))

    def hash(self) -> bytes:
        """Names the set, those taken back included; empty where there is none."""
        if not self._entries:
            return b""
        return blake2b(msgspec.msgpack.encode(self._sorted()), digest_size=8).digest()

    def _sorted(self) -> tuple[Staged, ...]:
        return tuple(entry for _, entry in sorted(self._entries.items()))

    # ---- what changes it -------------------------------------------------------------------

    def stage(self, change: Change) -> None:
        """One more."""
        self._put((change.node,), change)

    def clear(self) -> None:
        """None any more."""
        self._put(tuple(self._entries), None)

    def _put(self, nodes: tuple[NodeId, ...], change: Change | None) -> None:
        highest = max((entry.stamp for entry in self._entries.values()), default=NO_BALLOT)
        stamp = self._ballots.above(highest)
        self._entries |= {node: Staged(node, stamp, change) for node in nodes}
        self._changed()
        for peer in self._local.routes.others:
            self._outbox.send(peer, StagedTold(self._sorted()))

    def _changed(self) -> None:
        self._outbox.note(STAGED, msgspec.msgpack.encode(self._sorted()))

    def tell(self, node: NodeId) -> None:
        """A member knows another set."""
        self._outbox.send(node, StagedTold(self._sorted()))

    def on_staged_told(self, sender: NodeId, told: StagedTold) -> None:
        """A member's set: take what is later in it; give what is later here."""
        before = self.hash()
        for entry in told.entries:
            known = self._entries.get(entry.node)
            if known is None or entry.stamp > known.stamp:
                self._entries[entry.node] = entry
        if self.hash() != before:
            self._changed()
        theirs = {entry.node: entry.stamp for entry in told.entries}
        if any(entry.stamp > theirs.get(entry.node, NO_BALLOT) for entry in self._entries.values()):
            self.tell(sender)

    def on_ring(self) -> None:
        """Another ring is held: forget old entries that mean nothing, once there are many."""
        if len(self._entries) > config.MEMBERS_MAX // 2:
            ring = self._local.routes.ring
            kept = [e for e in self._sorted() if e.change is not None and meaningful(ring, e.change)]
            self._entries = {entry.node: entry for entry in kept}
            self._changed()


def meaningful(ring: Ring, change: Change) -> bool:
    """Whether a change could still be made to this ring, as far as it says."""
    member = ring.member(change.node) is not None
    leaving = change.node in ring.leaving
    former = {m.id for m in ring.removed}
    match change.kind:
        case ChangeKind.JOIN:
            return not member and change.node not in former
        case ChangeKind.LEAVE:
            return member and not leaving
        case ChangeKind.REPLACE:
            new = change.member.id if change.member is not None else change.node
            return member and not leaving and ring.member(new) is None and new not in former
        case ChangeKind.FORCE_REMOVE:
            return member
