"""A request on its way, from its first try to its outcome. Values only.

Promises: one outcome. Never: sends anything, or chooses where to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from kvctl.errors import KvError
from kvnode.protocol.messages import ClientReply, ClientRequest

BACKOFF_S = 0.02
"""First pause after `Overloaded`, or while no node can be reached; it doubles."""
BACKOFF_S_MAX = 0.5
"""...up to this."""

Outcome: TypeAlias = ClientReply | KvError


class Call:
    """A request on its way."""

    __slots__ = (
        "address", "ask", "deadline", "due", "lost", "notify", "outcome", "pause", "pinned", "refused",
        "sent_at", "tried",
    )  # fmt: skip

    def __init__(
        self, ask: ClientRequest, deadline: float, pinned: str = "", notify: Callable[[Call], None] | None = None
    ) -> None:
        self.ask = ask
        self.deadline = deadline
        self.due = 0.0
        """When an open loop meant to send it; for whoever measures."""
        self.pinned = pinned
        """Ask this address and no other."""
        self.notify = notify
        self.address = ""
        self.sent_at = 0.0
        self.tried: tuple[str, ...] = ()
        self.lost = False
        """Whether a connection broke under it: then nodes that are not owners may help."""
        self.refused: KvError | None = None
        """Why an owner on the wrong side of a partition refused it, in mode `strong`: said when no other
        can be reached, with no wait for nodes that may restart."""
        self.pause = BACKOFF_S
        self.outcome: Outcome | None = None
