"""Outsiders: nodes that are known to the cluster, and no members of it.

Promises: who is outside knocks at every member, so each knows it within seconds, and forgets it as soon; it
owns nothing, is asked nothing and votes on nothing. Never: lets one in: that takes a committed plan.
Input: Knock, ticks.
"""

from __future__ import annotations

from msgspec import Struct

from kvnode.core.local import Local
from kvnode.protocol.ring import Member
from kvnode.protocol.topology import Knock, RingTold
from kvnode.protocol.types import Millis, NodeId

KNOCK_MS = 500
LAPSES_MS = 5_000
"""One not heard of for so long is forgotten."""
OUTSIDERS_MAX = 1_024


class Seen(Struct, frozen=True, gc=False):
    """What an outsider said, and when."""

    knock: Knock
    at: Millis


class Outsiders:
    """Those a member knows; and, on one of them, its knocking."""

    def __init__(self, local: Local) -> None:
        self._local = local
        self._seen: dict[NodeId, Seen] = {}
        self._next: Millis = 0
        self.as_member = Member(local.me, "", local.me, disk_id=local.disk_id)
        """What this node would be, if it were let in; the shell knows its address and labels."""
        self.version = 0
        """Changes with whom this node knows, so that the shell can dial them."""

    # ---- what others ask -------------------------------------------------------------------

    def members(self) -> tuple[Member, ...]:
        """Those known, as they would be members."""
        return tuple(seen.knock.member for _, seen in sorted(self._seen.items()))

    def named(self, node: str) -> Member | None:
        """One of them."""
        seen = self._seen.get(NodeId(node))
        return seen.knock.member if seen is not None else None

    def problem_with(self, member: Member) -> str:
        """Why it cannot be let in now: a plan adds only nodes that are up, empty and on the epoch."""
        seen = self._seen.get(member.id)
        if seen is None:
            return f"{member.id} has not been heard of lately: it must be up to join"
        if seen.knock.member != member:
            return f"{member.id} is not as it was staged: its disk, address or labels changed; stage it again"
        if seen.knock.keys:
            return f"{member.id} is not empty: it holds {seen.knock.keys} keys. Start it with an empty directory"
        if seen.knock.epoch != self._local.routes.epoch:
            return f"{member.id} is at epoch {seen.knock.epoch} yet: try again in a moment"
        return ""

    # ---- what arrives, and time ------------------------------------------------------------

    def on_knock(self, sender: NodeId, knock: Knock) -> None:
        """A node stands outside."""
        local = self._local
        ring = local.routes.ring
        if knock.member.id != sender:
            return local.ignore("knock_for_another")
        if knock.epoch < ring.epoch:
            local.outbox.send(sender, RingTold(ring))
        if ring.member(sender) is not None or any(former.id == sender for former in ring.removed):
            return None
        if sender not in self._seen:
            if len(self._seen) >= OUTSIDERS_MAX:
                return local.ignore("knock")
            local.event("outside", f"{sender} at {knock.member.address} knocks: `cluster join` lets it in")
            self.version += 1
        elif self._seen[sender].knock.member != knock.member:
            self.version += 1
        self._seen[sender] = Seen(knock, local.now)
        return None

    def on_ring(self) -> None:
        """Another ring is held: members are outside no more."""
        ring = self._local.routes.ring
        for node in [n for n in self._seen if ring.member(n) is not None]:
            del self._seen[node]
            self.version += 1

    def on_tick(self, now: Millis, keys: int) -> None:
        """Knock, if this node is outside; forget those who are gone. `keys`: held here."""
        for node in [n for n, seen in self._seen.items() if now - seen.at > LAPSES_MS]:
            del self._seen[node]
            self.version += 1
        local = self._local
        if not local.routes.is_member and now >= self._next:
            self._next = now + KNOCK_MS
            knock = Knock(self.as_member, local.boot, local.routes.epoch, keys)
            for member in local.routes.others:
                local.outbox.tell(member, knock)
