"""Recovery: a node that may have lost what it acknowledged counts for no `quorum` read until it is sure.

Promises: a new, wiped, restored or long absent disk is *recovering* until, partition by partition, every
other owner has vouched for it or has finished an exchange with it; that outlives a crash.
Never: keeps it from taking writes: they count for W at once.
Input: AskDisk, DiskRemembered, what members say of their disks, finished exchanges, ticks.

    new disk ── AskDisk ──► every member ──┬─ "never knew another"   vouched for
                                           └─ "you had disk 17"      amnesiac: exchanges decide
    known disk, higher boot remembered ────── a copy from the past: the node stops

Without this, two nodes acknowledge a write, one loses its disk, and a quorum of it and the third node
says "not found" (PROTOCOL-CASES 10).
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from kvnode import config
from kvnode.core.local import Local
from kvnode.protocol.messages import Alive, AskDisk, DiskRemembered
from kvnode.protocol.types import Millis, NodeId, WallMillis

DISK = "disk:"
"""Fact: the last whole disk of a member, and its boot."""
RECOVERING = "recovering"
"""Fact: what is left to do, on a disk that has not been whole yet."""
STEADY = "steady"
"""Fact: what the steady clock said."""
WHOLE = "whole"
"""Fact: this disk has been whole; since when it was last known to be alive, wall ms."""


class Left(msgspec.Struct, frozen=True, array_like=True):
    """What a recovering node must remember."""

    amnesiac: bool
    partitions: tuple[int, ...]


class Recovery:
    """Which partitions of this node count, and what it remembers of others' disks."""

    def __init__(self, local: Local, *, founded: bool) -> None:
        """`founded`: the disk was made together with the cluster, so there is nothing it can have lost."""
        self._local = local
        self._outbox = local.outbox
        self._vouched: set[NodeId] = set()
        """Those who answered, by whom this disk has no rival."""
        self._exchanged: dict[int, set[NodeId]] = {}
        self._rid = local.next_rid()
        self._next_ask: Millis = 0
        self._next_note: Millis = 0
        self._amnesiac = False
        self._replaced = False
        """Whether a member remembers another disk of ours, whatever was brought back of it."""
        self.on_sure: Callable[[], None] = _nobody_asks
        """Told when a partition has become whole."""
        self.halt = ""
        """Why this node must stop at once; empty while it may go on."""
        self._set(self._begin(founded))

    def _begin(self, founded: bool) -> set[int]:
        store, owned = self._local.store, self._owned()
        left = store.fact(RECOVERING)
        if left:
            told = msgspec.msgpack.decode(left, type=Left)
            self._amnesiac = told.amnesiac
            return set(told.partitions) & owned
        if founded or store.fact(WHOLE):
            return set()
        return {p for p in owned if self._others(p)}

    def _owned(self) -> set[int]:
        return {p for p, peers in enumerate(self._local.routes.peers) if peers is not None}

    def _others(self, partition: int) -> tuple[NodeId, ...]:
        return self._local.routes.peers[partition] or ()

    @property
    def last_steady(self) -> WallMillis:
        """What the steady clock said when it was last noted: a boot does not set it back."""
        return int(self._local.store.fact(STEADY) or b"0")

    @property
    def partitions(self) -> set[int]:
        """Those in which this node does not count for quorum reads yet."""
        return self._local.recovering

    def _set(self, partitions: set[int]) -> None:
        self._local.recovering = partitions

    # ---- what arrives ----------------------------------------------------------------------

    def on_word(self, alive: Alive) -> None:
        """A member told of its disk: remember one that is whole."""
        if alive.disk_id and not alive.recovering:
            fact = msgspec.msgpack.encode((alive.disk_id, alive.boot))
            if self._local.store.fact(DISK + alive.node) != fact:
                self._outbox.note(DISK + alive.node, fact)

    def on_ask_disk(self, sender: NodeId, ask: AskDisk) -> None:
        """A member asks what we remember it by."""
        disk_id, boot = self._remembered(sender)
        self._outbox.tell(sender, DiskRemembered(ask.rid, disk_id, boot))

    def _remembered(self, node: NodeId) -> tuple[int, int]:
        fact = self._local.store.fact(DISK + node)
        return msgspec.msgpack.decode(fact, type=tuple[int, int]) if fact else (0, 0)

    def on_disk_remembered(self, sender: NodeId, told: DiskRemembered) -> None:
        """A member tells what it remembers us by."""
        local = self._local
        if told.rid != self._rid or sender in self._vouched:
            return local.ignore("disk_remembered")
        if told.disk_id == local.disk_id and told.boot > local.boot:
            self.halt = (
                f"{sender} knows this disk as opened {told.boot} times, not {local.boot}: it is a copy from the "
                "past. Move the data directory away and start with an empty one: its peers hold the data"
            )
            return None
        self._vouched.add(sender)
        self._replaced |= told.disk_id not in (0, local.disk_id)
        if told.disk_id not in (0, local.disk_id) and self.partitions and not self._amnesiac:
            self._amnesiac = True
            self._set({p for p in self._owned() if self._others(p)})
            self._exchanged.clear()
            local.event("amnesia", f"{sender} remembers another disk: this one lost what that one held")
            return self._save()
        return self._shrink()

    def vouched(self, partition: int) -> bool:
        """Whether every other owner of a partition says that this disk replaced none."""
        return not (self._amnesiac or self._replaced) and self._vouched >= set(self._others(partition))

    def on_ring(self, unproven: set[int]) -> set[int]:
        """Another ring is held. `unproven`: what this node owns now and may not hold; those others own too."""
        unproven = {p for p in unproven if self._others(p)}
        self._set((self.partitions & self._owned()) | unproven)
        if unproven:
            self._amnesiac = True
            for p in unproven:
                self._exchanged.pop(p, None)
            self._save()
        self._shrink()
        return unproven

    def wanted(self) -> list[tuple[int, NodeId]]:
        """The exchanges that would prove this node whole, of those not had yet."""
        if not self.partitions or not (self._amnesiac or self._local.now - self._local.started > config.VOUCH_MS):
            return []
        return [
            (p, peer)
            for p in sorted(self.partitions)
            for peer in self._others(p)
            if peer not in self._exchanged.get(p, ()) and peer not in self._local.peers.avoided
        ]

    def on_exchanged(self, partition: int, peer: NodeId) -> None:
        """An exchange of a partition with another owner is over: both hold the same."""
        if partition in self.partitions:
            self._exchanged.setdefault(partition, set()).add(peer)
            self._shrink()

    def _shrink(self) -> None:
        """Count again in the partitions where nothing can be missing any more."""
        if not self.partitions:
            return
        vouched = set() if self._amnesiac else self._vouched
        sure = {p for p in self.partitions if vouched | self._exchanged.get(p, set()) >= set(self._others(p))}
        if sure:
            self._set(self.partitions - sure)
            self._save()
            self.on_sure()
            if not self.partitions:
                self._local.event("recovered", "this node counts for quorum reads in all its partitions")

    def _save(self) -> None:
        if self.partitions:
            left = Left(self._amnesiac, tuple(sorted(self.partitions)))
            return self._outbox.note(RECOVERING, msgspec.msgpack.encode(left))
        self._outbox.note(RECOVERING, b"")
        return self._note_alive()

    # ---- time ------------------------------------------------------------------------------

    def on_tick(self, now: Millis) -> None:
        """Ask those who have not answered; note now and then that this disk is in use."""
        local = self._local
        asks = local.routes.is_member and len(self._vouched) < len(local.routes.others)
        if now >= self._next_ask and asks:
            self._next_ask = now + config.ASK_DISK_MS
            ask = AskDisk(self._rid, local.disk_id, local.boot)
            for peer in local.routes.others:
                if peer not in self._vouched:
                    self._outbox.tell(peer, ask)
        if now >= self._next_note:
            if not self._next_note:
                self._look_at_absence()
            self._next_note = now + config.ALIVE_NOTE_MS
            self._outbox.note(STEADY, str(local.steady).encode())
            if not self.partitions:
                self._note_alive()

    def _note_alive(self) -> None:
        self._outbox.note(WHOLE, str(self._local.wall).encode())

    def _look_at_absence(self) -> None:
        """Away for longer than tombstones need be kept: others may have forgotten what was deleted."""
        local = self._local
        last = int(self._local.store.fact(WHOLE) or b"0")
        away = local.wall - last
        if last and away > local.settings.grace_ms:
            self._amnesiac = True
            self._set({p for p in self._owned() if self._others(p)})
            local.event("absence", f"this node was away for {away // 1000} s, longer than the grace")
            self._save()


def _nobody_asks() -> None:
    """Nobody votes by it."""
