"""Register reaping: a deleted register goes once nothing can bring back what was deleted.

Promises: it goes only after every owner was found to hold just this tombstone, with nothing promised
since, once, and again after every ballot and every round of before is dead; each owner drops exactly
that, and takes no ballot below it any more. Never: with an owner out of reach, or by time alone.
Input: deleted registers (from the scrubber), ReapRegister, RegisterReapAnswer, ticks.

    first owner ─ ReapRegister(drop=False) ─► all owners: "just that, and nothing promised since"
                  ... twice the longest life of a ballot ...
                ─ ReapRegister(drop=False) ─► all owners: "still"
                ─ ReapRegister(drop=True)  ─► all owners: gone, and the floor is there
    one that missed the last gives the tombstone back, by a repair, harmlessly; it is reaped again

*Why all, why twice, why a floor.* An owner that was away may hold what was there before: it outlives a
tombstone that is only with a majority. A proposer that was outbid takes "nothing is there" for "my write
was never chosen" and makes it again: it must have given up. And what is written once two owners of three
have dropped it must be above what the third still has. `tests/test_sim_register_reaping.py` breaks each.

See Rystsov, "CASPaxos" (2018) §3.1, and PROTOCOL-CASES 19.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from msgspec import Struct

from kvnode import config
from kvnode.core.consensus import Register, decode_register
from kvnode.core.floors import raise_floor
from kvnode.core.local import Local
from kvnode.core.outbox import Unreadable
from kvnode.protocol.consensus import NO_BALLOT, Ballot, ReapRegister, RegisterReapAnswer
from kvnode.protocol.types import Millis, NodeId, WallMillis, decode_record, time_to_wall

WAIT_MS = 2 * config.BALLOT_LIFE_MS
"""After so long no round that began before can have anything left to say."""


class Burial(Struct, gc=False):
    """A deleted register whose owners are being asked."""

    key: bytes
    ballot: Ballot
    waiting: set[NodeId]
    due: Millis
    """When the owners must have answered."""
    again_at: Millis = 0
    """When they are asked for the second time; 0 before the first time is over."""
    second: bool = False
    """Whether they have been."""


class RegisterReaper:
    """The burials of registers this node conducts: of the partitions whose first owner it is."""

    def __init__(self, local: Local) -> None:
        self._local = local
        self._outbox = local.outbox
        self._burials: dict[bytes, Burial] = {}
        self._asked: dict[int, Burial] = {}
        self.unsettled: Callable[[int], str] = lambda _: ""
        """Why nothing may be forgotten in a partition now: its owners are about to be others, or just were."""

    def on_ring(self, changed: Collection[int]) -> None:
        """Some partitions have other owners, or are to: those who were asked may not be all."""
        partition = self._local.routes.partition
        self._burials = {k: b for k, b in self._burials.items() if partition(k) not in changed}
        self._asked = {rid: b for rid, b in self._asked.items() if partition(b.key) not in changed}

    def why(self, key: bytes) -> str:
        """Why this register is still here; empty where it is no tombstone, or may be reaped."""
        local = self._local
        try:
            died = died_at(decode_register(self._outbox.register(key)))
        except Unreadable:
            return ""
        if died is None:
            return ""
        left = died + local.settings.grace_ms - local.wall
        if left > 0:
            return f"it is younger than the grace: {left // 1000} s are left"
        return f"every owner must hold just this, and still after {WAIT_MS // 1000} s"

    # ---- the one who asks ------------------------------------------------------------------

    def on_dead(self, key: bytes, kept: bytes) -> None:
        """A deleted register was seen: ask its owners, if its time has come and it is ours to do."""
        local = self._local
        partition = local.routes.partition(key)
        register = decode_register(kept)
        if register.accepted == NO_BALLOT:
            return self._forget_promise(partition, key, register.promised)
        if local.routes.owners[partition][0] != local.me or partition in local.voteless:
            return None
        if self.unsettled(partition):
            return None
        if key in self._burials or len(self._burials) >= config.BURIALS_MAX:
            return None
        if self._is_just(register, register.accepted):
            self._burials[key] = burial = Burial(key, register.accepted, set(), 0.0)
            self._ask(burial)
        return None

    def _forget_promise(self, partition: int, key: bytes, promised: Ballot) -> None:
        """Nothing was accepted: the floor can keep the promise for it, once the ballot is dead."""
        if time_to_wall(promised.time) + WAIT_MS < self._local.proven_wall:
            raise_floor(self._outbox, partition, promised)
            self._outbox.keep_register(key, b"")

    def _ask(self, burial: Burial) -> None:
        local = self._local
        burial.waiting = set(local.routes.peers[local.routes.partition(burial.key)] or ())
        burial.due = local.now + config.EXCHANGE_STEP_MS
        rid = local.next_rid()
        self._asked[rid] = burial
        self._tell(rid, burial, drop=False)
        if not burial.waiting:
            self._all_agree(rid, burial)

    def _tell(self, rid: int, burial: Burial, *, drop: bool) -> None:
        local = self._local
        for peer in local.routes.peers[local.routes.partition(burial.key)] or ():
            until = local.steady + local.ahead.get(peer, 0) + config.BALLOT_LIFE_MS
            epoch = local.routes.epoch_of(burial.key)
            order = ReapRegister(rid, epoch, burial.key, burial.ballot, until, drop)
            self._outbox.send(peer, order)

    def on_register_reap_answer(self, sender: NodeId, told: RegisterReapAnswer) -> None:
        """An owner holds just that tombstone, or not."""
        burial = self._asked.get(told.rid)
        if burial is None or sender not in burial.waiting:
            return self._local.ignore("register_reap_answer")
        if not told.same:
            return self._give_up(told.rid, burial)
        burial.waiting.discard(sender)
        return self._all_agree(told.rid, burial) if not burial.waiting else None

    def _all_agree(self, rid: int, burial: Burial) -> None:
        """Every other owner holds it: see whether we still do. Then wait, or bury."""
        del self._asked[rid]
        try:
            own = decode_register(self._outbox.register(burial.key))
        except Unreadable:
            own = None
        if own is None or not self._is_just(own, burial.ballot):
            del self._burials[burial.key]
        elif not burial.again_at:
            burial.again_at = self._local.now + WAIT_MS
        else:
            assert burial.second
            del self._burials[burial.key]
            self._tell(self._local.next_rid(), burial, drop=True)
            self._drop(burial.key, burial.ballot)

    def _give_up(self, rid: int, burial: Burial) -> None:
        """Not yet: the scrubber comes by again."""
        del self._asked[rid]
        del self._burials[burial.key]

    def on_tick(self, now: Millis) -> None:
        """Give up those whose owners do not answer; ask for the second time."""
        for rid, burial in list(self._asked.items()):
            if burial.due <= now:
                self._give_up(rid, burial)
        for burial in list(self._burials.values()):
            if 0 < burial.again_at <= now and not burial.second:
                burial.second = True
                self._ask(burial)

    # ---- the owners ------------------------------------------------------------------------

    def on_reap_register(self, sender: NodeId, ask: ReapRegister) -> None:
        """Tell whether we hold just that tombstone; drop it when told to."""
        local = self._local
        partition = local.routes.partition(ask.key)
        if sender not in (local.routes.peers[partition] or ()):
            return local.ignore("reap_register")
        try:
            own = decode_register(self._outbox.register(ask.key))
        except Unreadable:
            return self._outbox.ack(sender, RegisterReapAnswer(ask.rid, same=False))
        sure = ask.deadline >= local.steady and partition not in local.voteless
        same = sure and self._is_just(own, ask.ballot)
        if not ask.drop:
            # What we hold may not be durable yet: told when it is.
            self._outbox.ack(sender, RegisterReapAnswer(ask.rid, same))
        elif same:
            self._drop(ask.key, ask.ballot)
        return None

    def _is_just(self, register: Register, ballot: Ballot) -> bool:
        """Whether this is that tombstone, old enough by our own clock, and nobody is about to write over it."""
        died = died_at(register)
        if died is None or not register.promised == register.accepted == ballot:
            return False
        return died + self._local.settings.grace_ms <= self._local.proven_wall

    def _drop(self, key: bytes, ballot: Ballot) -> None:
        raise_floor(self._outbox, self._local.routes.partition(key), ballot)
        self._outbox.keep_register(key, b"")
        self._local.counters["registers_reaped"] += 1


def died_at(register: Register) -> WallMillis | None:
    """When a register was deleted; None where it has a value, or nothing."""
    record = decode_record(register.value) if register.value else ()
    if len(record) != 1 or record[0].value is not None:
        return None
    return time_to_wall(record[0].time)
