"""Arguments of a client call, checked and turned into messages; replies turned into results.

Promises: one place where keys, values, r, w, modes and times are judged, for both clients.
Never: sends anything.
"""

from __future__ import annotations

from typing import TypeAlias, TypedDict

from kvctl.errors import Invalid, KvError, NotFound
from kvctl.model import Item, Written
from kvctl.session import Call, Session
from kvnode import config
from kvnode.protocol import messages as m
from kvnode.protocol.types import ALL, DEFAULT, MAJORITY, MODES, NodeId

Key: TypeAlias = str | bytes
Count: TypeAlias = int | str | None

WORDS = {"one": 1, "quorum": MAJORITY, "all": ALL}


def key_bytes(key: Key) -> bytes:
    """A key as bytes. Raises `Invalid`."""
    raw = key.encode() if isinstance(key, str) else bytes(key)
    if not raw:
        raise Invalid("the key is empty")
    if len(raw) > config.KEY_BYTES_MAX:
        raise Invalid(f"the key is {len(raw)} bytes long, the most is {config.KEY_BYTES_MAX}")
    return raw


def count_of(asked: Count, letter: str) -> int:
    """`r` or `w` as it goes on the wire. Raises `Invalid`."""
    if asked is None:
        return DEFAULT
    if isinstance(asked, str):
        if asked in WORDS:
            return WORDS[asked]
        if not asked.isdecimal():
            raise Invalid(f"{letter} must be a number or one, quorum, all; not {asked!r}")
        asked = int(asked)
    if not 1 <= asked <= 1 << 16:
        raise Invalid(f"{letter} must be at least 1, not {asked}")
    return asked


def milliseconds(timeout: float) -> int:
    """A timeout as it goes on the wire; no node waits longer than its own limit."""
    return min(int(timeout * 1000), config.WRITE_DEADLINE_MAX_MS)


def mode_of(mode: str) -> int:
    """A mode as it goes on the wire. Raises `Invalid`."""
    if mode not in MODES:
        raise Invalid(f"mode must be one of {', '.join(MODES)}; not {mode!r}")
    return MODES[mode]


class GetOptions(TypedDict, total=False):
    """How to read."""

    r: Count
    """How many owners must answer: a number, `one`, `quorum` (default) or `all`."""
    mode: str
    """`eventual` (default), `quorum` or `strong`."""
    via: str | None
    """The member to ask, and no other, whichever nodes own the key: it coordinates or passes on."""
    story: bool
    """Tell how the request went."""


class PutOptions(TypedDict, total=False):
    """How to write. `context`, `if_absent`, `if_match` and `siblings` exclude each other."""

    w: Count
    """How many owners must hold it durably: a number, `one`, `quorum` (default) or `all`."""
    mode: str
    """`eventual` (default), `quorum` or `strong`."""
    context: str | None
    """What the writer had read: the write covers that, and no more."""
    if_absent: bool
    """Only if the key has no value; judged by the coordinator, best effort; exact in mode `strong`."""
    if_match: str | None
    """Only if the key has not changed since this context; best effort, exact in mode `strong`."""
    siblings: bool
    """Keep what is there beside the new value."""
    ttl: float | None
    """Seconds to live."""
    via: str | None
    """The member to ask, and no other, whichever nodes own the key: it coordinates or passes on."""
    story: bool
    """Tell how the request went."""


def pin(session: Session, via: str | None) -> str:
    """The address of the member to ask; empty for any. Raises `Invalid`."""
    if not via:
        return ""
    member = session.ring.member(NodeId(via)) if session.ring is not None else None
    if member is None:
        raise Invalid(f"{via!r} is not a member of this cluster")
    return member.address


def get(session: Session, key: Key, timeout: float, options: GetOptions) -> m.Get:
    """A get. Raises `Invalid`."""
    return m.Get(
        rid=session.next_rid(),
        key=key_bytes(key),
        r=count_of(options.get("r"), "r"),
        mode=mode_of(options.get("mode", "eventual")),
        timeout_ms=milliseconds(timeout),
        story=options.get("story", False),
    )


def put(session: Session, key: Key, value: bytes | None, timeout: float, options: PutOptions) -> m.Put:
    """A put, or with `value=None` a delete. Raises `Invalid`."""
    context, if_match, ttl = options.get("context"), options.get("if_match"), options.get("ttl")
    if_absent, siblings = options.get("if_absent", False), options.get("siblings", False)
    if value is not None and not isinstance(value, bytes | bytearray | memoryview):
        raise Invalid(f"a value is bytes, not {type(value).__name__}")
    if sum((if_absent, siblings, if_match is not None, context is not None)) > 1:
        raise Invalid("if_absent, if_match, siblings and context exclude each other")
    if ttl is not None and not 0.001 <= ttl <= 100 * 365 * 86400:
        raise Invalid(f"a time to live is at least a millisecond and at most a hundred years, not {ttl} s")
    condition = (
        m.Condition.ABSENT if if_absent else m.Condition.MATCH if if_match is not None else m.Condition.NONE
    )
    token = if_match if if_match is not None else context
    if token is not None and not token:
        raise Invalid("the context is empty")
    raw = key_bytes(key)
    _check_pair(session, raw, value)
    return m.Put(
        rid=session.next_rid(),
        key=raw,
        value=None if value is None else bytes(value),
        w=count_of(options.get("w"), "w"),
        mode=mode_of(options.get("mode", "eventual")),
        timeout_ms=milliseconds(timeout),
        context=(token or "").encode("utf-8", "surrogateescape"),
        condition=condition,
        siblings=siblings,
        ttl_ms=0 if ttl is None else max(1, int(ttl * 1000)),
        story=options.get("story", False),
    )


def _check_pair(session: Session, key: bytes, value: bytes | None) -> None:
    """Refuse at once what every node would refuse."""
    if value is None or session.welcome is None:
        return
    size, limit = len(key) + len(value), session.welcome.max_pair_bytes
    if size > limit:
        raise Invalid(f"key and value are {size} bytes together, the most is {limit}")


def item_of(call: Call) -> Item:
    """The item a get brought. Raises what it failed with, but not `NotFound`."""
    outcome = call.outcome
    if isinstance(outcome, KvError):
        raise outcome
    assert isinstance(outcome, m.Got)
    assert isinstance(call.ask, m.Get)
    return Item(call.ask.key, outcome.record, outcome.story)


def found(item: Item) -> Item:
    """The item, if there is a value. Raises `NotFound`."""
    if not item.found:
        raise NotFound("the key has no value", item)
    return item


def written_of(call: Call) -> Written:
    """The receipt a put brought. Raises what it failed with."""
    outcome = call.outcome
    if isinstance(outcome, KvError):
        raise outcome
    assert isinstance(outcome, m.Written)
    assert isinstance(call.ask, m.Put)
    past = {**outcome.past, outcome.actor: outcome.time}
    return Written(call.ask.key, outcome.acked, outcome.w, past, outcome.story)


class Pages:
    """A scan, page by page: what to ask next, and the items in the answer."""

    def __init__(self, session: Session, prefix: Key, limit: int | None, r: Count, timeout: float) -> None:
        self._session = session
        self._prefix = prefix.encode() if isinstance(prefix, str) else prefix
        self._r = count_of(r, "r")
        self._timeout_ms = milliseconds(timeout)
        self._left = limit
        self._after = b""
        self.done = limit is not None and limit <= 0

    def ask(self) -> m.Scan:
        """The request for the next page."""
        page = config.SCAN_PAGE_MAX if self._left is None else min(self._left, config.SCAN_PAGE_MAX)
        return m.Scan(self._session.next_rid(), self._after, self._prefix, page, self._r, self._timeout_ms)

    def take(self, outcome: object) -> list[Item]:
        """The items with a live value in a page. Raises what the page failed with."""
        if isinstance(outcome, KvError):
            raise outcome
        assert isinstance(outcome, m.Scanned)
        registers = set(outcome.registers)
        items = [Item(row.key, row.record, register=row.key in registers) for row in outcome.rows]
        items = [item for item in items if item.found]
        if self._left is not None:
            items = items[: self._left]
            self._left -= len(items)
        self._after = outcome.after
        self.done = not outcome.more or self._left == 0
        return items
