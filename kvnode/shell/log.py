"""The node's log: JSON lines, rotated, never on the hot path.

Promises: one object a line with time, node, kind and text. Never: a key's value.
"""

from __future__ import annotations

import datetime
import logging
import logging.handlers
import sys
from pathlib import Path

import msgspec

BYTES_MAX = 10 * 1024 * 1024
FILES = 3


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def __init__(self, node: str) -> None:
        super().__init__()
        self._node = node

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        time = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line = {
            "at": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "node": self._node,
            "level": record.levelname.lower(),
            "kind": getattr(record, "kind", record.name),
            "text": record.getMessage(),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def node_log(node: str, path: Path | None) -> logging.Logger:
    """The logger of a node: to a rotated file, or to stderr where no file is named."""
    log = logging.getLogger("kvnode")
    log.setLevel(logging.INFO)
    log.propagate = False
    handler: logging.Handler = (
        logging.StreamHandler(sys.stderr)
        if path is None
        else logging.handlers.RotatingFileHandler(path, maxBytes=BYTES_MAX, backupCount=FILES)
    )
    handler.setFormatter(JsonLines(node))
    log.addHandler(handler)
    logging.getLogger("sqlitedict").addHandler(logging.NullHandler())
    logging.getLogger("sqlitedict").propagate = False
    return log
