"""The ledger: quorums in flight, and the ways a request can end badly.

Promises: every request that was taken on ends exactly once; what may have left a trace says so, with
the acknowledgements seen; what was refused left none.
Never: forgets a request before each owner it asked has answered, is lost, or its deadline is past.

Reads and writes keep a ledger each. A quorum stays in it after the client has its answer, so that
late answers are still seen.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Generic, TypeVar

from kvnode import config
from kvnode.core.deadlines import Deadlines
from kvnode.core.local import Local
from kvnode.core.quorum import GetQuorum, PutQuorum, Quorum
from kvnode.protocol.messages import Error, Failed, Get, Put, Story
from kvnode.protocol.types import EVENTUAL, QUORUM, Address, Millis, NodeId

ME = NodeId("")
"""How a quorum names this node itself."""

Q = TypeVar("Q", bound=Quorum)


class Ledger(Generic[Q]):
    """The reads, or the writes, that this node coordinates."""

    __slots__ = ("_deadlines", "_letter", "_local", "quorums")

    def __init__(self, local: Local, letter: str) -> None:
        self._local = local
        self._letter = letter
        self._deadlines = Deadlines()
        self.quorums: dict[int, Q] = {}

    # ---- in and out ------------------------------------------------------------------------

    def open(self, quorum: Q, deadline: Millis) -> int:
        """Take on a request. Its id on the wire."""
        rid = self._local.next_rid()
        self.quorums[rid] = quorum
        self._deadlines.add(rid, deadline)
        return rid

    def close_if_finished(self, rid: int, quorum: Q) -> None:
        """Forget a request once nobody is waited for any more."""
        if quorum.finished:
            assert quorum.done
            self.quorums.pop(rid, None)

    def give_up(self, changed: Collection[int]) -> list[Q]:
        """Forget every request in these partitions. Those that have no answer yet."""
        partition = self._local.routes.partition
        over = [rid for rid, quorum in self.quorums.items() if partition(quorum.key) in changed]
        return [quorum for quorum in map(self.quorums.pop, over) if not quorum.done]

    def expire(self, now: Millis) -> list[tuple[int, Q]]:
        """End what is overdue, and avoid the owners that let it down. What was waiting for one."""
        ended = []
        for rid in self._deadlines.due(now):
            quorum = self.quorums.pop(rid, None)
            if quorum is None:
                continue
            for peer in quorum.waiting:
                if self._local.peers.avoid(peer, now):
                    self._local.event("avoided", f"{peer} did not answer in time")
            if not quorum.done:
                self.fail(quorum, Error.INDETERMINATE, "the deadline passed before enough owners answered")
            ended.append((rid, quorum))
        return ended

    def deadline(self, asked_ms: int, started: Millis) -> Millis:
        """When a request that began then must have ended."""
        return started + self._local.settings.lasts(asked_ms)

    # ---- owners that are out ---------------------------------------------------------------

    def out(self, rid: int, quorum: Q, owner: NodeId, why: str) -> bool:
        """An owner will not answer. True when the request goes on without it, and another may be asked."""
        if not quorum.lose(owner):
            return False
        quorum.tell(owner, self._local.now, why, ok=False)
        self.settle(rid, quorum, owner, why)
        return not quorum.done

    def settle(self, rid: int, quorum: Q, node: NodeId, why: str) -> None:
        """After someone was lost: fail what cannot succeed any more, forget what waits for nobody."""
        if not quorum.done and quorum.hopeless:
            self.fail(quorum, Error.UNAVAILABLE, f"{self._letter}={quorum.need} cannot be met: {node}: {why}")
        self.close_if_finished(rid, quorum)

    def cut_off(self, client: Address, ask: Get | Put, owners: tuple[NodeId, ...], need: int, letter: str) -> bool:
        """Refuse at once what the replicas in reach cannot satisfy; nothing has been stored yet.

        `owners`: those apart from this node, which is one replica, as owner or as fallback.
        """
        local = self._local
        partition = local.routes.partition(ask.key)
        can = 1 + local.peers.reachable(owners)
        if partition in local.routes.pending:  # two sets of owners: the worse counts
            sides = local.routes.sides(partition)
            can = 1 + min(local.peers.reachable(o for o in side if o in owners) for side in sides)
        if ask.mode == EVENTUAL:
            fallbacks = local.routes.fallbacks(partition)
            can += local.peers.reachable(f for f in fallbacks if f != local.me)
        if can >= need:
            return False
        out = ", ".join(p for p in owners if p in local.peers.avoided)
        message = f"{letter}={need} cannot be met: {out} cannot be reached"
        self.refuse(client, ask, Error.UNAVAILABLE, message, "kvctl status", need=need)
        return True

    # ---- bad news --------------------------------------------------------------------------

    def fail(self, quorum: Q, error: Error, message: str) -> None:
        """A request that was begun will not succeed."""
        assert not quorum.done
        quorum.done = True
        self._local.counters["failed_" + error.name.lower()] += 1
        if not quorum.client:
            return  # the node asked for itself (healing): there is nobody to tell
        wrote = isinstance(quorum, PutQuorum)
        failed = Failed(
            quorum.rid, self._local.routes.epoch, error, message, "kvctl status",
            wrote, quorum.have, quorum.need, self.story(quorum),
        )  # fmt: skip
        self._local.outbox.send(quorum.client, failed)

    def refuse(
        self,
        client: Address,
        ask: Get | Put,
        error: Error,
        message: str,
        hint: str = "",
        *,
        volatile: bool = False,
        need: int = 0,
    ) -> None:
        """A request that was not begun: this try left no trace, but one before it may have."""
        self._local.counters["refused_" + error.name.lower()] += 1
        tried = isinstance(ask, Put) and ask.retry
        failed = Failed(ask.rid, self._local.routes.epoch, error, message, hint, tried, need=need)
        self._local.outbox.reply(client, failed, volatile=volatile)

    def overloaded(self, client: Address, ask: Get | Put) -> None:
        """Too much is in flight."""
        self.refuse(client, ask, Error.OVERLOADED, f"{config.PENDING_MAX} requests are in flight here")

    def story(self, quorum: Q) -> Story | None:
        """How a request went so far; None when nobody asked."""
        if quorum.answers is None:
            return None
        local = self._local
        partition = local.routes.partition(quorum.key)
        repaired = tuple(n or local.me for n in quorum.stale()) if isinstance(quorum, GetQuorum) else ()
        return Story(
            local.me, quorum.mode, local.routes.epoch, partition, local.routes.owners[partition],
            tuple(quorum.answers), quorum.mode == QUORUM, round(local.now - quorum.started, 3),
            quorum.condition if isinstance(quorum, PutQuorum) else "", tuple(quorum.hinted or ()), repaired,
        )  # fmt: skip

    def check_invariants(self) -> None:
        """What must hold between turns."""
        for quorum in self.quorums.values():
            assert not quorum.finished
            assert quorum.done or not quorum.enough
