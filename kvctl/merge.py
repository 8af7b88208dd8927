"""Merging siblings: from what a reader found to the one value to write back.

Promises: a merge depends on the siblings only, not on their order or on who asks, so that two readers
who merge at once write equal bytes, which show as one value. One sibling is its own merge.
Never: merges what it does not understand: that raises `Invalid`, and the siblings stay.

    kv.get_merged("cart:1", union)                        the value, siblings merged and written back
    kv.update("visits", lambda old: b"%d" % (int(old or 0) + 1))
    kv.get_merged("cart:1", lambda item: max(s.value for s in item.siblings))       a merge of your own

Sets (`union`) are JSON arrays: [ "eggs", "milk" ]. The store cannot know what they hold, so an element
taken out of one sibling and still in the other is back in the union (Dynamo §4.4: "deleted items can
resurface"). `union_by(b",")` does the same for bytes with a separator.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeAlias

from kvctl.errors import Invalid
from kvctl.model import Item, Sibling

Merge: TypeAlias = Callable[[Item], bytes]
"""An item with at least one sibling -> the value they become."""
Change: TypeAlias = Callable[[bytes | None], bytes | None]
"""The value there is, None for none -> the value to write, None to delete."""


def last_write(item: Item) -> bytes:
    """The sibling written last, by its coordinator's clock; of two in one instant, one and the same.

    The others are lost, which is what you asked for. A delete beside a value is no sibling: it does not win.
    """
    assert item.siblings
    newest: Sibling = max(item.siblings, key=lambda s: (s.time, s.actor, s.value))
    return newest.value


def union(item: Item) -> bytes:
    """All elements of the siblings, which are JSON arrays; sorted, each once. Raises `Invalid`."""
    assert item.siblings
    if len(item.siblings) == 1:
        return item.siblings[0].value
    elements = {element for s in item.siblings for element in _elements(item.key, s.value)}
    return b"[" + b",".join(sorted(elements)) + b"]"


def union_by(separator: bytes) -> Merge:
    """A union of siblings whose elements stand between separators; empty elements are none."""
    if not separator:
        raise Invalid("the separator is empty")

    def merge(item: Item) -> bytes:
        assert item.siblings
        if len(item.siblings) == 1:
            return item.siblings[0].value
        return separator.join(sorted({e for s in item.siblings for e in s.value.split(separator) if e}))

    return merge


def merged(item: Item, merge: Merge | None = None) -> bytes | None:
    """The value of an item, its siblings merged (by the last write, unless told) if there are several."""
    if len(item.siblings) > 1:
        return (merge or last_write)(item)
    return item.value


def _elements(key: bytes, raw: bytes) -> set[bytes]:
    """The elements of a JSON array, each in the one form that equal elements share. Raises `Invalid`."""
    try:
        found: Any = json.loads(raw)
        if isinstance(found, list):
            return {json.dumps(e, sort_keys=True, allow_nan=False, separators=(",", ":")).encode() for e in found}
    except (ValueError, RecursionError) as error:
        raise Invalid(f"a sibling of {key!r} is no JSON: {error}", "give a merge of your own") from error
    raise Invalid(f"a sibling of {key!r} is JSON, but no array", "give a merge of your own")
