"""Reports of a cluster, made up for tests of what is shown of them. No node runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from kvnode.protocol.messages import (
    ClusterReport,
    ExchangeView,
    HintsFor,
    NodeReport,
    PeerView,
    RepairView,
    RootHash,
)
from kvnode.protocol.ring import Member, Ring
from kvnode.protocol.types import NodeId

WALL = 1_790_000_000_000
N1, N2, N3 = NodeId("n1"), NodeId("n2"), NodeId("n3")
THREE = (N1, N2, N3)


def ring3() -> Ring:
    """Three members, sixteen partitions, each owned by all."""
    members = tuple(Member(n, f"127.0.0.1:{i}", str(n)) for i, n in enumerate(THREE, 1))
    return Ring("c", 1, 1, 3, 16, members, ((0, 1, 2),) * 16, (1,) * 16)


def report(node: NodeId, **changed: object) -> NodeReport:
    """A node in good health, up for 5 s."""
    well = NodeReport(
        id=node, epoch=1, boot=1, pid=42, uptime_ms=5000, wall_ms=WALL, keys=3, value_bytes=30, disk_bytes=300,
        durability="fsync", engine="sqlite", writable=True, problem="", p50_ms=None, p99_ms=1.5, avoided=(),
        rss_bytes=1, disk_free_bytes=10**12, version="0", counters={"x": 1},
        peers=tuple(sees(other) for other in THREE if other != node), repair=repair(),
    )  # fmt: skip
    return msgspec.structs.replace(well, **changed)


def sees(node: NodeId, state: str = "up", phi: float = 0.31, by: tuple[NodeId, ...] = ()) -> PeerView:
    """What an observer thinks of a node."""
    return PeerView(node, state, phi, 120, by)


def hints(owner: NodeId, count: int = 10, per_s: float = 0.0, *, reachable: bool = False) -> HintsFor:
    """Hints that have been kept for 9 s."""
    return HintsFor(owner, count, count * 100, WALL - 9000, 0, per_s, reachable)


def repair(**changed: object) -> RepairView:
    """Anti-entropy at rest, the last full round begun 4 s ago."""
    rest = RepairView(
        paused=False, active=(), waiting=0, exchanges=100, nodes_compared=100, keys_compared=0, keys_repaired=0,
        bytes_sent=5000, failed=0, oldest_ms=WALL - 4000,
    )  # fmt: skip
    return msgspec.structs.replace(rest, **changed)


def exchange(partition: int, peer: NodeId) -> ExchangeView:
    """An exchange that has found where two trees differ."""
    return ExchangeView(partition, peer, "leaves", 16, 33, 0, 0, 700)


def roots(value: bytes = b"same", unlike: Mapping[int, bytes] | None = None) -> tuple[RootHash, ...]:
    """The roots of all partitions."""
    return tuple(RootHash(p, (unlike or {}).get(p, value)) for p in range(16))


def cluster(*reports: NodeReport, asked: NodeId = N1, down: Collection[NodeId] = ()) -> ClusterReport:
    """What was gathered: these reports, None for the other members; the node asked holds `down` to be down."""
    by_node = {r.id: r for r in (reports or tuple(map(report, THREE)))}
    told = tuple(by_node.get(node) for node in THREE)
    if down:
        others = tuple(node for node in THREE if node != asked)
        by_node[asked] = msgspec.structs.replace(
            by_node[asked],
            peers=tuple(
                sees(n, "down", 12.0, tuple(o for o in THREE if o != n)) if n in down else sees(n) for n in others
            ),
        )
        told = tuple(by_node.get(node) for node in THREE)
    return ClusterReport(1, ring3(), told, asked)
