"""What a client gets: items and receipts, decoded only as far as they are looked at.

Promises: `value` is one value or an exception, never a guess between siblings.
Never: needs a connection.
"""

from __future__ import annotations

from functools import cached_property

from msgspec import Struct

from kvctl.errors import Conflict
from kvnode.protocol.context import encode_context, join
from kvnode.protocol.messages import Story
from kvnode.protocol.types import Past, Record, decode_record, time_to_wall


class Sibling(Struct, frozen=True):
    """One live value of a key."""

    value: bytes
    actor: int
    time: int
    expires_at: int = 0
    """Wall milliseconds; 0 for never."""

    @property
    def written_at(self) -> int:
        """Wall milliseconds of the write, as its coordinator's clock had it."""
        return time_to_wall(self.time)


class Item:
    """What was read of a key."""

    def __init__(self, key: bytes, record: bytes, story: Story | None = None, *, register: bool = False) -> None:
        self.key = key
        self.story = story
        self.register = register
        """Whether a scan found it to be a register, of mode `strong`: the value is what was accepted last."""
        self._blob = record

    @cached_property
    def record(self) -> Record:
        """Every version, tombstones too."""
        return decode_record(self._blob) if self._blob else ()

    @cached_property
    def siblings(self) -> tuple[Sibling, ...]:
        """The live values, oldest first; those of equal bytes are one."""
        newest: dict[bytes, Sibling] = {}
        for v in self.record:
            if v.value is not None:
                newest.pop(v.value, None)
                newest[v.value] = Sibling(v.value, v.actor, v.time, v.expires_at)
        return tuple(newest.values())

    @property
    def found(self) -> bool:
        """Whether there is a live value."""
        return bool(self.siblings)

    @property
    def value(self) -> bytes | None:
        """The value; None when absent. Raises `Conflict` when there are several siblings."""
        siblings = self.siblings
        if not siblings:
            return None
        if len(siblings) > 1:
            raise Conflict(
                f"the key has {len(siblings)} siblings",
                "merge them and put the result with this item's context",
            )
        return siblings[0].value

    @cached_property
    def context(self) -> str:
        """What this read has seen: pass it to the next put or delete of the key."""
        return encode_context(self.key, join(self.record))

    def __repr__(self) -> str:
        return f"Item({self.key!r}, siblings={[s.value for s in self.siblings]!r})"


class Written:
    """A receipt: the write is durable on `acked` >= `w` replicas."""

    def __init__(self, key: bytes, acked: int, w: int, past: Past, story: Story | None = None) -> None:
        self.key = key
        self.acked = acked
        self.w = w
        self.story = story
        self._past = past

    @cached_property
    def context(self) -> str:
        """Covers this write and what it covered."""
        return encode_context(self.key, self._past)

    def __repr__(self) -> str:
        return f"Written({self.key!r}, acked={self.acked}, w={self.w})"
