"""A cluster whose deletes come to their end soon, with keys that were deleted when it began."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from kvctl import Client
from tests.procs import Cluster
from tests.test_failure import fill

CONFIG = """
grace_ms = 120000
repair_interval_ms = 5000
scrub_interval_ms = 5000
"""
"""The shortest grace there may be, and walks and exchanges every few seconds."""


class Aging(Struct, frozen=True):
    """The cluster, and its keys by what became of them."""

    cluster: Cluster
    living: frozenset[bytes]
    deleted: frozenset[bytes]
    expired: frozenset[bytes]


def aging_cluster(home: Path) -> Iterator[Aging]:
    """Three nodes; a hundred keys live on, a hundred are deleted, twenty expire."""
    config = home / "node.toml"
    config.write_text(CONFIG)
    with Cluster(home, 3, "-q", "16", "--config", str(config)) as cluster:
        with cluster.client() as client:
            living, deleted = fill(client, 100, b"live"), fill(client, 100, b"dead")
            for key in deleted:
                client.delete(key, w="all", context=client.get(key).context)
            expired = [b"short%02d" % i for i in range(20)]
            for key in expired:
                client.put(key, b"v", w="all", ttl=0.2)
        yield Aging(cluster, frozenset(living), frozenset(deleted), frozenset(expired))


def live(client: Client) -> set[bytes]:
    """Every key with a value."""
    return {item.key for item in client.scan()}
