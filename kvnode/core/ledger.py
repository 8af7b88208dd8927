"""The ledger: quorums in flight, and the ways a request can end badly.

Promises: every request that was taken on ends exactly once; what may have left a trace says so, with
the acknowledgements seen; what was refused left none.
Never: forgets a request before each owner it asked has answered, is lost, or its deadline is past.

Reads and writes keep a ledger each. A quorum stays in it after the client has its answer, so that
late answers are still seen.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from kvnode import config
from kvnode.core.deadlines import Deadlines
from kvnode.core.local import Local
from kvnode.core.quorum import PutQuorum, Quorum
from kvnode.protocol.messages import Error, Failed, Story
from kvnode.protocol.types import QUORUM, Address, Millis, NodeId

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
            self.quorums.pop(rid, None)

    def expire(self, now: Millis) -> None:
        """End what is overdue, and avoid the owners that let it down."""
        for rid in self._deadlines.due(now):
            quorum = self.quorums.pop(rid, None)
            if quorum is None:
                continue
            for peer in quorum.waiting:
                if self._local.peers.avoid(peer, now):
                    self._local.event("avoided", f"{peer} did not answer in time")
            if not quorum.done:
                self.fail(quorum, Error.INDETERMINATE, "the deadline passed before enough owners answered")

    def deadline(self, asked_ms: int, started: Millis) -> Millis:
        """When a request that began then must have ended."""
        return started + min(asked_ms or self._local.settings.deadline_ms, config.WRITE_DEADLINE_MAX_MS)

    # ---- owners that are out ---------------------------------------------------------------

    def lose_avoided(self, quorum: Q) -> None:
        """Do not wait for the owners that failed a moment ago; an answer of theirs still counts."""
        avoided = self._local.peers.avoided
        for peer in quorum.peers:
            if peer in avoided:
                quorum.lose(peer)

    def out(self, rid: int, quorum: Q, owner: NodeId, why: str) -> bool:
        """An owner will not answer. True when the request goes on without it, and another may be asked."""
        if not quorum.lose(owner):
            return False
        quorum.tell(owner, self._local.now, why, ok=False)
        if not quorum.done and quorum.hopeless:
            self.fail(quorum, Error.UNAVAILABLE, f"{self._letter}={quorum.need} cannot be met: {owner}: {why}")
        self.close_if_finished(rid, quorum)
        return not quorum.done

    def cut_off(self, client: Address, rid: int, peers: tuple[NodeId, ...], need: int, mine: int) -> bool:
        """Refuse at once what the owners in reach cannot satisfy; nothing has been stored yet."""
        local = self._local
        if mine + local.peers.reachable(peers) >= need:
            return False
        out = ", ".join(p for p in peers if p in local.peers.avoided)
        message = f"{self._letter}={need} cannot be met: {out} cannot be reached"
        self.refuse(client, rid, Error.UNAVAILABLE, message, "kvctl status", need=need)
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
        rid: int,
        error: Error,
        message: str,
        hint: str = "",
        *,
        volatile: bool = False,
        need: int = 0,
    ) -> None:
        """A request that was not begun: it left no trace."""
        self._local.counters["refused_" + error.name.lower()] += 1
        failed = Failed(rid, self._local.routes.epoch, error, message, hint, need=need)
        self._local.outbox.reply(client, failed, volatile=volatile)

    def overloaded(self, client: Address, rid: int) -> None:
        """Too much is in flight."""
        self.refuse(client, rid, Error.OVERLOADED, f"{config.PENDING_MAX} requests are in flight here")

    def story(self, quorum: Q) -> Story | None:
        """How a request went so far; None when nobody asked."""
        if quorum.answers is None:
            return None
        local = self._local
        partition = local.routes.partition(quorum.key)
        return Story(
            local.me, quorum.mode, local.routes.epoch, partition, local.routes.owners[partition],
            tuple(quorum.answers), quorum.mode == QUORUM, round(local.now - quorum.started, 3),
            quorum.condition if isinstance(quorum, PutQuorum) else "",
        )  # fmt: skip

    def check_invariants(self) -> None:
        """What must hold between turns."""
        for quorum in self.quorums.values():
            assert not quorum.finished
            assert quorum.done or not quorum.enough
