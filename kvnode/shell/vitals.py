"""What the process and its disk look like, for this node's report.

Promises: cheap enough to ask once a second. Never: anything the core knows itself.
"""

from __future__ import annotations

import os
from collections import Counter

import psutil

from kvnode import __version__
from kvnode.protocol.messages import NodeReport
from kvnode.protocol.types import NodeId
from kvnode.shell.store import Engine


class ProcessVitals:
    """Fills in the half of a report that only the shell can see."""

    def __init__(self, engine: Engine, counters: Counter[str]) -> None:
        self._engine = engine
        self._transport_counters = counters
        self._process = psutil.Process()

    def __call__(self) -> NodeReport:
        """A report with process, disk and engine filled in."""
        stats = self._engine.stats()
        return NodeReport(
            id=NodeId(""),
            epoch=0,
            boot=0,
            pid=os.getpid(),
            uptime_ms=0,
            wall_ms=0,
            keys=stats.keys,
            value_bytes=stats.value_bytes,
            disk_bytes=stats.disk_bytes,
            durability=self._engine.durability,
            engine=self._engine.name,
            writable=True,
            problem="",
            p50_ms=None,
            p99_ms=None,
            avoided=(),
            rss_bytes=self._process.memory_info().rss,
            disk_free_bytes=stats.disk_free_bytes,
            version=__version__,
            counters=stats.counters | dict(self._transport_counters),
        )
