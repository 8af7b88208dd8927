"""The hash tree: what a node holds, in 2^20 leaves kept up to date by each write, compared from the top.

Promises: equal contents give equal trees whatever the order of writes; a write costs O(1) and reads
nothing back; what lies above the leaves is computed only when asked for.
Never: hashes a value (versions are immutable, so their dots name everything), or rebalances.

    whole ring     16384 slots x 64 leaves         leaf = slot << 6 | crc32(key) & 63
    partition      a span of leaves, its root      4096 leaves when Q = 256
    branches       sixteenths of a span, and so on down to single leaves
    leaf           XOR of hash(key, digest) over its keys, 128 bits

The leaves do not depend on Q or on who owns what: one node has one tree, and the tree of a partition
is a span of it. XOR as in Riak's TicTac trees: taking a key's old contribution out and putting the
new one in is the whole update. See Dynamo §4.7; Merkle 1987.
"""

from __future__ import annotations

import struct
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import repeat
from typing import NamedTuple

from kvnode.protocol.ring import SLOTS, Partition, hash_slot

SLOT_LEAVES = 64
LEAVES = SLOTS * SLOT_LEAVES
FAN_OUT = 16
HASH_BYTES = 16
PAGE_BYTES = SLOT_LEAVES * HASH_BYTES
"""The leaves of one slot, as they are saved."""
NOTHING = bytes(HASH_BYTES)
"""The hash of an empty leaf, and of any span of only empty ones."""

_words = struct.Struct("=QQ").unpack
_pack = struct.Struct("=QQ").pack
_EMPTY = bytes(PAGE_BYTES)
_leaf_hash = blake2b(digest_size=HASH_BYTES, person=b"kvctl-leaf")
"""Copied for each key: setting one up takes as long as hashing."""


class Span(NamedTuple):
    """Some leaves in a row."""

    start: int
    size: int

    def parts(self) -> list[Span]:
        """Its sixteenths; single leaves where it has no more than sixteen."""
        step = max(1, self.size // FAN_OUT)
        return [Span(start, step) for start in range(self.start, self.start + self.size, step)]

    def is_branch_of(self, root: Span) -> bool:
        """Whether a tree with this root has such a span, and it has parts."""
        start, size = self
        inside = root.start <= start and start + size <= root.start + root.size
        return inside and size > 1 and size & (size - 1) == 0 and start % size == 0

    def is_small_part_of(self, root: Span) -> bool:
        """Whether this is no more than sixteen leaves of a tree with this root."""
        start, size = self
        return root.start <= start < start + size <= root.start + root.size and size <= FAN_OUT


def span_of(partition: Partition, q: int) -> Span:
    """The leaves of a partition."""
    size = LEAVES // q
    return Span(partition * size, size)


def leaf_of(key: bytes) -> int:
    """The leaf of a key."""
    return hash_slot(key) << 6 | zlib.crc32(key) & (SLOT_LEAVES - 1)


def contribution(key: bytes, digest: bytes) -> tuple[int, int]:
    """What a key in this state adds to its leaf: two words of 64 bits; nothing, if there is no record."""
    if not digest:
        return 0, 0
    hashed = _leaf_hash.copy()
    hashed.update(digest + key)
    return _words(hashed.digest())


def leaf_hash(entries: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The hash of a leaf that holds these keys in these states."""
    first = second = 0
    for key, digest in entries:
        more_first, more_second = contribution(key, digest)
        first ^= more_first
        second ^= more_second
    return _pack(first, second)


class HashTree:
    """The tree of one node."""

    __slots__ = ("_hashes", "_pages")

    def __init__(self) -> None:
        self._pages: dict[int, array[int]] = {}
        """Slot -> its leaves, two words each; missing while none of its keys was ever held."""
        self._hashes: dict[int, bytes] = {}
        """Slot -> hash of its leaves, where that is known."""

    # ---- writing ---------------------------------------------------------------------------

    def change(self, key: bytes, old: bytes, new: bytes) -> None:
        """A key went from one digest to another; empty for no record."""
        if old != new:
            leaf = leaf_of(key)
            first, second = contribution(key, new)
            if old:
                was_first, was_second = contribution(key, old)
                first ^= was_first
                second ^= was_second
            self._flip(leaf, first, second)

    def _flip(self, leaf: int, first: int, second: int) -> None:
        slot = leaf >> 6
        page = self._pages.get(slot)
        if page is None:
            page = self._pages[slot] = array("Q", _EMPTY)
        at = (leaf & 63) * 2
        page[at] ^= first
        page[at + 1] ^= second
        self._hashes.pop(slot, None)

    def replace(self, leaf: int, entries: Iterable[tuple[bytes, bytes]]) -> bool:
        """Make a leaf what these keys and digests give. True when it was something else."""
        first, second = _words(self.hash(Span(leaf, 1)))
        new_first, new_second = _words(leaf_hash(entries))
        if (first, second) == (new_first, new_second):
            return False
        self._flip(leaf, first ^ new_first, second ^ new_second)
        return True

    # ---- reading ---------------------------------------------------------------------------

    def hash(self, span: Span) -> bytes:
        """The hash of a span: 16 bytes that two nodes share if they hold the same there."""
        start, size = span
        assert 0 <= start < start + size <= LEAVES
        if size == 1:
            page = self._pages.get(start >> 6)
            at = (start & 63) * 2
            return NOTHING if page is None else page[at : at + 2].tobytes()
        if size < SLOT_LEAVES:
            page = self._pages.get(start >> 6)
            at = (start & 63) * 2
            return NOTHING if page is None else _hash(page[at : at + 2 * size].tobytes())
        slots = range(start >> 6, start + size >> 6)
        hashes, pages = self._hashes, self._pages
        ever = self._ever_in(slots)
        for slot in ever:
            if slot not in hashes and slot in pages:
                hashes[slot] = _hash(pages[slot].tobytes())
        if ever is slots:
            return _hash(b"".join(map(hashes.get, slots, repeat(NOTHING))))
        told: list[bytes] = []
        end = slots.start
        for slot in sorted(ever):
            told += NOTHING * (slot - end), hashes[slot]
            end = slot + 1
        return _hash(b"".join(told) + NOTHING * (slots.stop - end))

    def _ever_in(self, slots: range) -> Sequence[int]:
        """Those of these slots in which anything was ever held, or all where that is many.

        A wide span of a tree with little in it is mostly slots that never held anything.
        """
        pages = self._pages
        return slots if len(slots) < len(pages) else [slot for slot in pages if slot in slots]

    def slots(self) -> list[int]:
        """The slots in which anything was ever held."""
        return list(self._pages)

    def holds(self, span: Span) -> bool:
        """Whether there is anything in a span of whole slots. Where there is, that is soon found."""
        start, size = span
        assert size >= SLOT_LEAVES
        hashes, pages = self._hashes, self._pages
        for slot in self._ever_in(range(start >> 6, start + size >> 6)):
            if slot in pages and hashes.get(slot) != NOTHING and any(pages[slot]):
                return True
        return False

    def held_in(self, span: Span) -> list[int]:
        """The leaves of a span in which there is anything."""
        return list(self.held_from(span.start, span.start + span.size))

    def held_from(self, start: int, end: int) -> Iterator[int]:
        """The leaves from one to before another in which there is anything, as they are come to."""
        for slot in range(start >> 6, (end + SLOT_LEAVES - 1) >> 6):
            page, first = self._pages.get(slot), slot << 6
            if page is not None:
                # Most leaves hold nothing: not a call for each of them.
                for leaf in range(max(start, first), min(end, first + SLOT_LEAVES)):
                    at = (leaf - first) * 2
                    if page[at] or page[at + 1]:
                        yield leaf

    def slots_in(self, start: int, end: int) -> int:
        """In how many slots of these leaves anything was ever held."""
        return sum(slot in self._pages for slot in range(start >> 6, (end + SLOT_LEAVES - 1) >> 6))

    # ---- keeping ---------------------------------------------------------------------------

    def page(self, slot: int) -> bytes:
        """The leaves of a slot, to be saved; empty when there is nothing in them."""
        page = self._pages.get(slot)
        saved = b"" if page is None else page.tobytes()
        return saved if saved != _EMPTY else b""

    def load(self, slot: int, saved: bytes) -> None:
        """Bring back what `page` gave."""
        assert len(saved) == PAGE_BYTES
        self._pages[slot] = array("Q", saved)
        self._hashes.pop(slot, None)


def _hash(leaves: bytes) -> bytes:
    if leaves == bytes(len(leaves)):
        return NOTHING
    return blake2b(leaves, digest_size=HASH_BYTES, person=b"kvctl-node").digest()
