"""What one node holds of a key, as `explain` shows it. Values only.

Promises: an owner's copy, or what is kept for others by one that is none. Never: mends what it finds.
"""

from __future__ import annotations

from kvnode.core.local import Local
from kvnode.core.outbox import Unreadable
from kvnode.core.versions import Held
from kvnode.protocol.messages import ReplicaState
from kvnode.protocol.types import NodeId


def held_of_key(local: Local, key: bytes, kept: Held | None) -> tuple[str, Held | None]:
    """How the copy here stands, and it. `kept`: what is kept for others."""
    if not local.routes.holds(local.routes.partition(key)):
        return ("present" if kept is not None else "absent"), kept
    try:
        held = local.outbox.read(key)
    except Unreadable:
        return "unreadable", None
    return ("present" if held is not None else "absent"), held


def state_of(local: Local, told: str, held: Held | None, hinted: tuple[NodeId, ...], grave: str) -> ReplicaState:
    """The same, as others are told."""
    if held is None:
        return ReplicaState(local.me, told, b"", b"", hinted)
    return ReplicaState(local.me, told, held.blob, held.digest, hinted, grave)
