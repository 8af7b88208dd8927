"""kvctl: one command to run, use, break and watch a kvnode cluster, and its Python client.

from kvctl import Client, AsyncClient, NotFound, Unavailable, Indeterminate, Conflict
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kvctl.aio import AsyncClient
    from kvctl.client import Client
    from kvctl.errors import (
        Conflict,
        Indeterminate,
        Invalid,
        KvError,
        NoEndpoint,
        NotFound,
        Overloaded,
        Refused,
        Unavailable,
    )
    from kvctl.merge import last_write, union, union_by
    from kvctl.model import Item, Sibling, Written

__all__ = [
    "AsyncClient",
    "Client",
    "Conflict",
    "Indeterminate",
    "Invalid",
    "Item",
    "KvError",
    "NoEndpoint",
    "NotFound",
    "Overloaded",
    "Refused",
    "Sibling",
    "Unavailable",
    "Written",
    "last_write",
    "union",
    "union_by",
]

_HOMES = {
    "AsyncClient": "kvctl.aio",
    "Client": "kvctl.client",
    **dict.fromkeys(("Item", "Sibling", "Written"), "kvctl.model"),
    **dict.fromkeys(("last_write", "union", "union_by"), "kvctl.merge"),
}


def __getattr__(name: str) -> Any:
    """Import on first use: `kvctl --help` should not load ZeroMQ."""
    if name not in __all__:
        raise AttributeError(name)
    from importlib import import_module

    return getattr(import_module(_HOMES.get(name, "kvctl.errors")), name)
