"""The scrubber: a slow walk over all that is held, leaf by leaf, so that nothing rots unseen.

Promises: every record is read, and every leaf of the tree counted anew, about once in `scrub_interval_ms`;
a damaged copy is mended from all other owners; what may be buried is shown to the reapers.
Never: more than a few leaves a tick.
Input: ticks.
"""

from __future__ import annotations

from collections.abc import Callable

from kvnode import config
from kvnode.core.local import Local
from kvnode.core.merkle import SLOT_LEAVES, Span, leaf_hash
from kvnode.core.outbox import Unreadable
from kvnode.core.registers import weigh
from kvnode.core.versions import Held
from kvnode.protocol.types import Millis, NodeId


class Scrubber:
    """The walk of one node."""

    def __init__(self, local: Local, heal: Callable[[bytes, tuple[NodeId, ...]], None]) -> None:
        self._local = local
        self._heal = heal
        self._leaves: list[int] = []
        """What is left of this round, the next one last."""
        self._next: Millis = 0
        self._pause = 0.0
        self.on_dead: Callable[[bytes, Held], None] = _nobody
        """Told of each record without a live value."""
        self.on_dead_register: Callable[[bytes, bytes], None] = _no_register
        """Told of each register without one."""

    def on_tick(self, now: Millis) -> None:
        """Look at the leaves whose turn has come."""
        if now < self._next:
            return
        if not self._leaves:
            slots = sorted(self._local.store.tree.slots(), reverse=True)
            self._leaves = [slot * SLOT_LEAVES + i for slot in slots for i in reversed(range(SLOT_LEAVES))]
            self._pause = self._local.settings.scrub_interval_ms / max(1, len(self._leaves))
        for _ in range(config.SCRUB_LEAVES):
            if not self._leaves:
                break
            self._look(self._leaves.pop())
            self._next = max(self._next, now - 1_000) + self._pause
            if self._next > now:
                break

    def _look(self, leaf: int) -> None:
        local = self._local
        try:
            entries = local.store.leaf(leaf)
            registers = local.store.registers_in(leaf)
        except Unreadable:
            local.counters["unreadable_leaves"] += 1
            return
        damaged = False
        for key, held in entries:
            if held is None:
                damaged = True
                peers = local.routes.peers[local.routes.partition(key)]
                if peers is not None:
                    self._heal(key, peers)
            elif not held.live_bytes or held.expires_at:
                self.on_dead(key, held)
        for key, register in registers:
            if register is not None and not weigh(register).live_bytes:
                self.on_dead_register(key, register)
        local.counters["scrubbed_keys"] += len(entries) + len(registers)
        if damaged or any(register is None for _, register in registers):
            return
        hashed = [(key, held.digest) for key, held in entries if held is not None]
        counted = leaf_hash(hashed + [(key, weigh(register).mark) for key, register in registers if register])
        if counted != local.store.tree.hash(Span(leaf, 1)):
            local.store.mend_leaf(leaf)
            local.counters["leaves_mended"] += 1
            local.event("scrub", f"leaf {leaf} of the hash tree was wrong: counted anew")


def _nobody(_: bytes, __: Held) -> None:
    """Nobody wants to know."""


def _no_register(_: bytes, __: bytes) -> None:
    """Nor of this."""
