"""The plan printed last, by cluster: what `cluster commit` takes when it is not told which.

Promises: a commit without a name is of what this user saw. Never: a plan itself; only its name is kept.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

from kvctl.endpoints import home
from kvctl.faultlog import write_whole


class Printed(Struct, frozen=True):
    """A plan that was shown."""

    plan: str
    epoch: int


def _path(cluster_id: int) -> Path:
    return home() / "plans" / f"{cluster_id:016x}.json"


def remember(cluster_id: int, printed: Printed) -> None:
    """This plan has been printed."""
    path = _path(cluster_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, printed)


def last(cluster_id: int) -> Printed | None:
    """The plan printed last for a cluster; None when there was none, or it has been committed."""
    try:
        return msgspec.json.decode(_path(cluster_id).read_bytes(), type=Printed)
    except (FileNotFoundError, NotADirectoryError, msgspec.MsgspecError):
        return None


def forget(cluster_id: int) -> None:
    """It has been committed: another commit needs another look."""
    _path(cluster_id).unlink(missing_ok=True)
