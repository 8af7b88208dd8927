"""The ground a case is run on: where clients ask for things, in the words of messages.

Promises: a simulated world and a real cluster are asked alike, and their answers end up in one history.
Never: decides what is asked for; that is the case, by way of `campaign`.
"""

from __future__ import annotations

from typing import Protocol

from kvnode.protocol.messages import Condition, Get, Put, Scan
from kvnode.protocol.types import DEFAULT, MODES, NodeId
from kvnode.sim.client import Ask, Call, Context
from kvnode.sim.events import Timeline
from kvnode.sim.history import Dot

CLIENT = "c1"


class Asking(Protocol):
    """Clients under way."""

    @property
    def waiting(self) -> int:
        """Operations without an answer yet."""
        ...

    def next_number(self) -> int:
        """A request id."""
        ...

    def call(self, client: bytes, node: NodeId, ask: Ask, saw: frozenset[Dot] = frozenset()) -> Call:
        """Say this to a node."""
        ...


class Ground:
    """A cluster with clients."""

    timeline: Timeline
    names: tuple[str, ...]
    """Its nodes."""
    deadline_ms: int
    """Of requests that name none."""

    @property
    def asking(self) -> Asking:
        """Its clients."""
        raise NotImplementedError

    def serves(self, name: str) -> bool:
        """Whether a client would see at once that nobody listens there, when this is false."""
        raise NotImplementedError

    def owners(self, key: str | bytes) -> tuple[NodeId, ...]:
        """The owners of a key, the first place first."""
        raise NotImplementedError

    def key_of(self, key: str | bytes) -> bytes:
        """How a key is called here."""
        return _bytes(key)

    def wait(self, call: Call) -> Call:
        """Let time pass until an operation is over."""
        raise NotImplementedError

    # ---- what clients do -------------------------------------------------------------------

    def put(
        self,
        key: str | bytes,
        value: str | bytes | None,
        via: str,
        *,
        mode: str = "eventual",
        w: int = DEFAULT,
        context: Context | Call | bytes | None = None,
        condition: Condition = Condition.NONE,
        siblings: bool = False,
        retry: bool = False,
        ttl_ms: int = 0,
        timeout_ms: int = 0,
        client: str = CLIENT,
    ) -> Call:
        """Write a key through a node; None deletes it. A call as context: what that call saw."""
        seen = context.context if isinstance(context, Call) else context
        token, saw = (seen.token, seen.saw) if isinstance(seen, Context) else (seen or b"", frozenset())
        ask = Put(
            self.asking.next_number(), self.key_of(key), None if value is None else _bytes(value), w, MODES[mode],
            timeout_ms or self.deadline_ms, token, condition, siblings, retry, ttl_ms,
        )  # fmt: skip
        return self.asking.call(client.encode(), NodeId(via), ask, saw)

    def delete(self, key: str | bytes, via: str, *, context: Context | Call | None = None) -> Call:
        """Delete a key through a node."""
        return self.put(key, None, via, context=context)

    def get(
        self,
        key: str | bytes,
        via: str,
        *,
        mode: str = "eventual",
        r: int = DEFAULT,
        timeout_ms: int = 0,
        client: str = CLIENT,
    ) -> Call:
        """Read a key through a node."""
        ask = Get(self.asking.next_number(), self.key_of(key), r, MODES[mode], timeout_ms or self.deadline_ms)
        return self.asking.call(client.encode(), NodeId(via), ask)

    def scan(
        self, via: str, *, after: bytes = b"", prefix: bytes = b"", limit: int = 100, r: int = DEFAULT
    ) -> Call:
        """Read a page of keys through a node."""
        ask = Scan(self.asking.next_number(), after, self.key_of(prefix), limit, r, self.deadline_ms)
        return self.asking.call(CLIENT.encode(), NodeId(via), ask)


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text
