"""A proposal under way: one `strong` operation, from its request to its reply. Values only.

Promises: what may have left a trace says so. Never: sends anything, or looks at a clock.
"""

from __future__ import annotations

from msgspec import Struct

from kvnode.core.consensus import Poll
from kvnode.core.local import Local
from kvnode.core.outbox import Unreadable
from kvnode.core.versions import live
from kvnode.protocol.consensus import NO_BALLOT, Ballot, RegisterRead
from kvnode.protocol.messages import Answer, Get, Put, Story
from kvnode.protocol.types import STRONG, Address, Millis, NodeId, Record, Version

READ, PREPARE, ACCEPT = "read", "prepare", "accept"


class Round(Struct, gc=False):
    """One operation, from its request to its reply."""

    client: Address
    ask: Get | Put
    started: Millis
    deadline: Millis
    poll: Poll
    answers: list[Answer] | None
    """The story so far; None when nobody asked for it."""
    phase: str = READ
    asked: Millis = 0
    """When this phase began."""
    again_at: Millis = 0
    """When to begin anew under a higher ballot; 0 while there is no need to."""
    tries: int = 0
    reads: int = 0
    """How often the owners were asked what they hold."""
    ballot: Ballot = NO_BALLOT
    highest: Ballot = NO_BALLOT
    """The highest that anyone told of: the next must be above it."""
    accepted: Ballot = NO_BALLOT
    record: Record = ()
    """The latest that the promises of this try showed."""
    told: dict[NodeId, RegisterRead] = {}
    version: Version | None = None
    """What a put is to write, from its first proposal on."""
    first: Ballot = NO_BALLOT
    """The ballot of that proposal: once it is there, the write may have left."""
    proposed: Record = ()
    problem: str = ""
    """Why a condition does not hold: to be told once what it was judged by is chosen."""

    @property
    def maybe_applied(self) -> bool:
        """Whether a write may have left a trace."""
        return self.first != NO_BALLOT

    def tell(self, now: Millis, node: NodeId, told: str, *, ok: bool = True) -> None:
        """Add an owner's part to the story, if there is to be one."""
        if self.answers is not None:
            self.answers.append(Answer(node, "owner", ok, round(now - self.started, 3), told))

    def story(self, local: Local) -> Story | None:
        """How it went so far; None when nobody asked."""
        if self.answers is None:
            return None
        partition = local.routes.partition(self.ask.key)
        return Story(
            local.me, STRONG, local.routes.epoch, partition, local.routes.owners[partition],
            tuple(self.answers), True, round(local.now - self.started, 3),
        )  # fmt: skip


def no_majority(need: int, owners: tuple[NodeId, ...], out: list[NodeId]) -> str:
    """Why a round cannot be had."""
    who = ", ".join(out) or "too many"
    return f"mode strong needs {need} of the {len(owners)} owners: {who} cannot be reached or may not vote"


def versions_here(local: Local, key: bytes) -> bool:
    """Whether this node holds live versions of a key, which are of the other world."""
    try:
        held = local.outbox.read(key)
    except Unreadable:
        return True
    return held is not None and bool(live(held.record(), local.wall))
