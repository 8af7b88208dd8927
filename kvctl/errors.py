"""What a client can be told: one exception class per exit code, each saying what may have happened.

Promises: `applied` is "no" only when nothing was stored anywhere. Never: a bare exception of a
library below us.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kvnode.protocol.messages import Error, Failed, Story

if TYPE_CHECKING:
    from kvctl.model import Item


class KvError(Exception):
    """A request that did not succeed."""

    exit: ClassVar[int] = 1

    def __init__(
        self,
        message: str,
        hint: str = "",
        *,
        maybe_applied: bool = False,
        acked: int = 0,
        story: Story | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.applied = "maybe" if maybe_applied else "no"
        self.acked = acked
        self.story = story


class NoEndpoint(KvError):
    """No node answered within the time for a handshake."""

    exit = 3


class Indeterminate(KvError):
    """The deadline passed, or the coordinator was lost: the write may have been applied."""

    exit = 4


class NotFound(KvError):
    """No live value. `item` has the context to write with."""

    exit = 5

    def __init__(self, message: str, item: Item) -> None:
        super().__init__(message)
        self.item = item


class Unavailable(KvError):
    """R or W cannot be met with the owners that can be reached."""

    exit = 6


class Conflict(KvError):
    """Several siblings where one value is needed, or a condition that did not hold."""

    exit = 7


class Refused(KvError):
    """The node may not do that."""

    exit = 8


class Invalid(KvError):
    """The request can never be served as it is."""

    exit = 9


class Overloaded(KvError):
    """Too much in flight; nothing was stored."""


_CLASSES: dict[Error, type[KvError]] = {
    Error.INVALID: Invalid,
    Error.UNAVAILABLE: Unavailable,
    Error.INDETERMINATE: Indeterminate,
    Error.CONFLICT: Conflict,
    Error.REFUSED: Refused,
    Error.OVERLOADED: Overloaded,
}


def error_of(failed: Failed) -> KvError:
    """The exception for a node's refusal."""
    return _CLASSES[failed.error](
        failed.message, failed.hint, maybe_applied=failed.maybe_applied, acked=failed.acked, story=failed.story
    )
