"""What is kept for one owner, and what of it is on its way. Values only.

Promises: nothing but fields. Never: decides when anything is sent.
"""

from __future__ import annotations

from collections import deque

from msgspec import Struct

from kvnode.core.outbox import Hint
from kvnode.protocol.types import Millis, NodeId


class Kept(Struct, gc=False):
    """The hints for one owner, and how their delivery goes."""

    hints: dict[bytes, Hint]
    """In the order in which their keys were first kept."""
    queue: deque[bytes]
    """Keys to be sent: each kept key is in here or on its way."""
    bytes: int = 0
    in_flight: int = 0
    wait_until: Millis = 0
    """Not to be sent before: the owner refused, or could not be reached."""
    allowance: float = 0.0
    """Hints that may be sent now."""
    delivered: int = 0
    window: Millis = 0
    window_count: int = 0
    per_s: float = 0.0


class Sent(Struct, frozen=True, gc=False):
    """A hint on its way."""

    owner: NodeId
    to: NodeId
    key: bytes
    digest: bytes
