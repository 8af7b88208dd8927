"""Engines by name.

Promises: an engine is open, checked and replayed when this returns. Never: falls back to another.
"""

from __future__ import annotations

from pathlib import Path

from kvnode.config import Settings
from kvnode.shell.memory import MemoryEngine
from kvnode.shell.sqlite.engine import SqliteEngine
from kvnode.shell.store import Engine

ENGINES = ("sqlite", "memory")


def open_engine(name: str, path: Path | None, node: str, durability: str, settings: Settings) -> Engine:
    """Open the engine of that name. Raises `StoreFailed`."""
    assert name in ENGINES
    if name == "memory":
        return MemoryEngine(node)
    assert path is not None
    return SqliteEngine(path, node, durability, settings)
