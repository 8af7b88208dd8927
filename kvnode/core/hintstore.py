"""The hint store: what one node keeps for others, by owner and key, in memory and on its disk.

Promises: of a key one record for an owner, the merge of all that came for it, as old as the first of them; no
more bytes than there is room for, but for what is passed on: that was acknowledged.
Never: decides when anything is sent, or to whom.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator

from kvnode import config
from kvnode.core.kept import Kept, add_to
from kvnode.core.local import Local
from kvnode.core.outbox import Hint, Unreadable
from kvnode.core.versions import Held, merge_held
from kvnode.protocol.types import NodeId


class HintStore:
    """The hints of one node."""

    def __init__(self, local: Local) -> None:
        self._local = local
        self._outbox = local.outbox
        self.of: dict[NodeId, Kept] = {}
        self.bytes = 0
        loaded = sorted(local.store.hints().items(), key=lambda item: (item[1].since, item[0]))
        for (owner, key), hint in loaded:
            self._add(owner, key, hint)

    # ---- what comes and goes ---------------------------------------------------------------

    def keep(self, owner: NodeId, key: bytes, held: Held, since: int = 0) -> bool:
        """Keep a record for an owner, merged with what is kept already. False when there is no room.

        `since`: when another node began to. Raises `msgspec.MsgspecError` where the merge is too large.
        """
        kept = self.of.get(owner)
        old = kept.hints.get(key) if kept is not None else None
        if old is None:
            # By the clock that does not jump: a hint that looked younger than it is would let a tombstone go.
            hint = Hint(held, since or self._local.steady)
            grown = len(key) + len(held.blob) + config.ENTRY_OVERHEAD_BYTES
        else:
            merged = merge_held(old.held, held.blob)
            if held.actor != merged.actor and held.digest == merged.digest:
                merged = held  # minted here: its actor goes with it
            first = min(since or old.since, old.since)
            if merged is old.held and first == old.since:
                return True
            hint = Hint(merged, first)
            grown = len(merged.blob) - len(old.held.blob)
        if grown > 0 and self.bytes + grown > self._local.settings.hint_bytes:
            self._local.counters["hints_refused"] += 1
            return False
        self._local.counters["hinted"] += 1
        self._add(owner, key, hint)
        self._outbox.keep_hint(owner, key, hint)
        return True

    def _add(self, owner: NodeId, key: bytes, hint: Hint) -> None:
        kept = self.of.get(owner)
        if kept is None:
            kept = self.of[owner] = Kept({}, deque())
        old = kept.hints.get(key)
        grown = len(hint.held.blob)
        if old is None:
            kept.queue.append(key)
            grown += len(key) + config.ENTRY_OVERHEAD_BYTES
        else:
            grown -= len(old.held.blob)
        add_to(kept, key, hint)
        kept.bytes += grown
        self.bytes += grown

    def drop(self, owner: NodeId, key: bytes) -> None:
        """Keep it no more."""
        kept = self.of[owner]
        size = len(key) + len(kept.hints.pop(key).held.blob) + config.ENTRY_OVERHEAD_BYTES
        kept.bytes -= size
        self.bytes -= size
        self._outbox.keep_hint(owner, key, None)

    def pass_on(self, owner: NodeId, key: bytes, heirs: Collection[NodeId]) -> bool:
        """Keep for these what is kept for an owner; what is for this node goes into its own copy.

        False where that copy is damaged: it is mended first, and the hint stays.
        """
        hint, me = self.of[owner].hints[key], self._local.me
        if me in heirs:
            try:
                self._outbox.merge(key, hint.held.blob)
            except Unreadable:
                return False
        for heir in heirs:
            if heir not in (me, owner):
                self._inherit(heir, key, hint)
        if owner == me or owner not in heirs:
            self.drop(owner, key)
        return True

    def _inherit(self, heir: NodeId, key: bytes, hint: Hint) -> None:
        known = self.of[heir].hints.get(key) if heir in self.of else None
        if known is not None:
            hint = Hint(merge_held(known.held, hint.held.blob), min(known.since, hint.since))
        self._add(heir, key, hint)
        self._outbox.keep_hint(heir, key, hint)

    # ---- what is there ---------------------------------------------------------------------

    def record(self, key: bytes, owners: Collection[NodeId]) -> Held | None:
        """What is kept of a key for any of these: the merge of all that is."""
        found: Held | None = None
        for owner in owners:
            kept = self.of.get(owner)
            hint = kept.hints.get(key) if kept is not None else None
            if hint is not None:
                found = hint.held if found is None else merge_held(found, hint.held.blob)
        return found

    def owners_of(self, key: bytes) -> tuple[NodeId, ...]:
        """For whom a hint of this key is kept."""
        return tuple(owner for owner, kept in sorted(self.of.items()) if key in kept.hints)

    def __iter__(self) -> Iterator[tuple[NodeId, bytes]]:
        """Owner and key of each, as they are now: what is passed on meanwhile does not show."""
        return iter([(owner, key) for owner, kept in self.of.items() for key in kept.hints])

    @property
    def count(self) -> int:
        """Hints, for all owners."""
        return sum(len(kept.hints) for kept in self.of.values())

    def oldest(self) -> int:
        """Since when the oldest has been kept; 0 while there is none."""
        return min((kept.oldest for kept in self.of.values() if kept.hints), default=0)
