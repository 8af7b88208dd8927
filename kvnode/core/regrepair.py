"""Register repair: owners that accepted different values of a register are brought to one, by a round.

Promises: a register that an exchange found different, and that still is a moment later, is accepted by all
owners in reach under one ballot: an identity change, of whatever a majority's promises show. Bounded and
rate limited. Never: merges two registers, writes a value of its own, or outbids what it need not.
Input: keys that differ, RegisterRead, Promised, Accepted, Outbid, ReplicaRefused, lost peers, ticks.

    differs ─ wait: what is under way looks like a difference ─► ReadRegister ─► all owners
                     alike after all: done                           │ differ
                     accepted by a majority: done ◄─ Accept ◄─ Prepare ◄┘
                     outbid: someone is writing, look again later

It waits for every owner in reach, not for the first majority: the one that lags behind is meant. One
that accepted a value which nobody else has is listened to as well, so its half-done write is finished.
See Rystsov, "CASPaxos" (2018) §2.2 and §3.1: any round, the identity change too, makes a majority hold
the latest value.
"""

from __future__ import annotations

from collections.abc import Collection

from msgspec import Struct

from kvnode import config
from kvnode.core.ballots import Ballots
from kvnode.core.consensus import Poll, poll_of
from kvnode.core.local import Local
from kvnode.core.rules import one_version
from kvnode.protocol.consensus import (
    NO_BALLOT,
    Accept,
    Accepted,
    Ballot,
    Outbid,
    Prepare,
    Promised,
    ReadRegister,
    RegisterRead,
)
from kvnode.protocol.replication import ReplicaRefused
from kvnode.protocol.ring import majority
from kvnode.protocol.types import Millis, NodeId

READ, PREPARE, ACCEPT = "read", "prepare", "accept"


class Repair(Struct, gc=False):
    """One register on its way to being one again."""

    key: bytes
    poll: Poll
    phase: str
    asked: Millis
    ballot: Ballot = NO_BALLOT
    highest: Ballot = NO_BALLOT
    """The highest that anyone told of."""
    latest: Ballot = NO_BALLOT
    value: bytes = b""
    """The latest that anyone accepted, and under which ballot."""
    heard: set[Ballot] = set()
    """Everything accepted that was told of in this phase."""


class RegisterRepair:
    """The registers this node brings to one."""

    def __init__(self, local: Local, ballots: Ballots) -> None:
        self._local = local
        self._outbox = local.outbox
        self._ballots = ballots
        self._waiting: dict[bytes, Millis] = {}
        """Key -> when it is looked at, oldest first."""
        self._repairs: dict[int, Repair] = {}
        self._second: Millis = 0
        self._begun = 0
        """In that second."""

    # ---- what differs ----------------------------------------------------------------------

    def want(self, key: bytes) -> None:
        """An exchange found that this register is another one elsewhere."""
        if len(self._waiting) >= config.REGISTERS_WAITING_MAX:
            return self._local.ignore("register_repair")  # the next exchange finds it again
        wait = config.REGISTER_WAIT_MS * (1 + self._local.rng.random())
        self._waiting.setdefault(key, self._local.now + wait)
        return None

    def of(self, rid: int) -> bool:
        """Whether an answer is to a question of this mechanism."""
        return rid in self._repairs

    def _ask(self, repair: Repair, phase: str) -> None:
        local, key = self._local, repair.key
        repair.phase, repair.asked = phase, local.now
        repair.poll = repair.poll.anew()
        repair.poll.lost |= local.peers.avoided.keys() & set(repair.poll.members)
        repair.heard = set()
        rid = local.next_rid()
        self._repairs[rid] = repair
        epoch, life = local.routes.epoch_of(key), min(2 * config.REGISTER_STEP_MS, config.BALLOT_LIFE_MS)
        for node in repair.poll.waiting:
            until = local.steady + local.ahead.get(node, 0) + life
            match phase:
                case "read":
                    self._outbox.send(node, ReadRegister(rid, epoch, key))
                case "prepare":
                    self._outbox.send(node, Prepare(rid, epoch, key, repair.ballot, until))
                case _:
                    self._outbox.send(node, Accept(rid, epoch, key, repair.ballot, repair.value, until))

    # ---- answers ---------------------------------------------------------------------------

    def _repair(self, rid: int, phase: str, sender: NodeId) -> Repair | None:
        """The repair whose question this answers, for the first time."""
        repair = self._repairs.get(rid)
        if repair is not None and repair.phase == phase and repair.poll.agree(sender):
            return repair
        self._local.ignore("register_repair_answer")
        return None

    def on_register_read(self, sender: NodeId, told: RegisterRead) -> None:
        """What an owner has promised and accepted."""
        repair = self._repair(told.rid, READ, sender)
        if repair is not None:
            repair.highest = max(repair.highest, told.promised)
            self._hear(told.rid, repair, told.accepted, told.record)

    def on_promised(self, sender: NodeId, told: Promised) -> None:
        """An owner takes no lower ballot any more."""
        repair = self._repair(told.rid, PREPARE, sender)
        if repair is not None:
            self._hear(told.rid, repair, told.accepted, told.record)

    def _hear(self, rid: int, repair: Repair, accepted: Ballot, value: bytes) -> None:
        if accepted != NO_BALLOT and not one_version(value):
            self._local.counters["malformed_records"] += 1
            return self._drop(rid)
        repair.heard.add(accepted)
        if accepted > repair.latest:
            repair.latest, repair.value = accepted, value
        return self._settle(rid, repair)

    def on_accepted(self, sender: NodeId, told: Accepted) -> None:
        """An owner has taken the value."""
        repair = self._repair(told.rid, ACCEPT, sender)
        if repair is not None:
            self._settle(told.rid, repair)

    def on_outbid(self, sender: NodeId, told: Outbid) -> None:
        """Someone else is at this register: see later whether that has made it one."""
        repair = self._repairs[told.rid]
        if sender in repair.poll.members:
            self._drop(told.rid)
            self.want(repair.key)

    def _settle(self, rid: int, repair: Repair) -> None:
        """Once nobody is waited for: the next step, or the end."""
        poll = repair.poll
        if poll.waiting:
            return
        self._drop(rid)
        if not poll.enough or repair.latest == NO_BALLOT:
            return  # too few are in reach, or nobody accepted anything
        match repair.phase:
            case "read":
                if len(repair.heard) > 1:
                    repair.ballot = self._ballots.above(max(repair.highest, repair.latest))
                    repair.latest, repair.value = NO_BALLOT, b""  # only promises count
                    self._ask(repair, PREPARE)
            case "prepare":
                self._ask(repair, ACCEPT)
            case _:
                self._local.counters["registers_repaired"] += 1
        return

    def _drop(self, rid: int) -> None:
        del self._repairs[rid]

    # ---- what goes wrong -------------------------------------------------------------------

    def on_ring(self, changed: Collection[int]) -> None:
        """Some partitions have other owners, or are to: a round of before is none among them."""
        for rid in [r for r, one in self._repairs.items() if self._local.routes.partition(one.key) in changed]:
            del self._repairs[rid]

    def on_replica_refused(self, sender: NodeId, refused: ReplicaRefused) -> bool:
        """An owner would not, or may not yet. False when the request is not one of ours."""
        if refused.rid not in self._repairs:
            return False
        self._miss(sender, refused.rid)
        return True

    def _miss(self, node: NodeId, rid: int) -> None:
        """Go on without an owner."""
        repair = self._repairs[rid]
        if node in repair.poll.waiting:
            repair.poll.lost.add(node)
            self._settle(rid, repair)

    def on_peer_lost(self, peer: NodeId) -> None:
        """A peer cannot be reached."""
        for rid in list(self._repairs):
            self._miss(peer, rid)

    @property
    def busy(self) -> bool:
        """Nothing here keeps a client waiting."""
        return False

    @property
    def timed(self) -> bool:
        """Whether a register is to be looked at."""
        return bool(self._repairs or self._waiting)

    def on_tick(self, now: Millis) -> None:
        """Go on without those who do not answer; begin what is due, within the rate."""
        for rid, repair in list(self._repairs.items()):
            if now - repair.asked >= config.REGISTER_STEP_MS:
                for node in repair.poll.waiting:
                    if rid in self._repairs:
                        self._miss(node, rid)
        if now - self._second >= 1_000:
            self._second, self._begun = now, 0
        for key in [key for key, due in self._waiting.items() if due <= now]:
            if self._begun >= config.REGISTERS_PER_S or len(self._repairs) >= config.REGISTER_REPAIRS_MAX:
                break
            del self._waiting[key]
            self._begin(key)

    def _begin(self, key: bytes) -> None:
        local = self._local
        partition = local.routes.partition(key)
        peers = local.routes.peers[partition]
        if not peers or partition in local.voteless or local.refusal or partition in local.routes.pending:
            return  # one that moves is brought to one by its rounds, or once it is there
        self._begun += 1
        owners = (local.me, *peers)
        repair = Repair(key, poll_of(owners, majority(len(owners))), READ, local.now)
        self._ask(repair, READ)
