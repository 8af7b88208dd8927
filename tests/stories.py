"""Words that scenario files share: keys by their owners, a hasty cluster, what must hold once a story is over."""

from __future__ import annotations

from kvnode.config import Settings
from kvnode.protocol.ring import partition_of
from kvnode.protocol.types import ALL, NodeId, Record
from kvnode.sim.check import Violation, check
from kvnode.sim.client import Call
from kvnode.sim.world import World
from tests.harness import ring_of

FIVE = ring_of("n1 n2 n3 n4 n5")
"""For a node driven by hand: five members, three owners a key."""

GRACE_MS = 120_000
HASTY = Settings(grace_ms=GRACE_MS, scrub_interval_ms=1_000, repair_interval_ms=2_000)
"""Tombstones go after two minutes; everything is looked at, and compared, every few seconds."""


def keys_of(*owners: NodeId, count: int = 1) -> list[bytes]:
    """Keys that just these own in `FIVE`, in these places."""
    keys = (b"%d" % i for i in range(10_000))
    return [key for key in keys if FIVE.owner_ids(partition_of(key, FIVE.q)) == owners][:count]


def values(replicas: dict[str, Record]) -> dict[str, list[bytes | None]]:
    """The values of each owner's record, in its order."""
    return {owner: [version.value for version in record] for owner, record in replicas.items()}


def read_all(world: World, key: str = "k", via: str = "") -> Call:
    """A read of all owners, through the first of them unless another node is named."""
    return world.wait(world.get(key, via or world.owners(key)[0], r=ALL))


def held_back(world: World) -> None:
    """From now on a message into a cut, or to a node that is down, is lost, and its sender knows of the latter."""
    world.network.holds_cut = world.network.keeps = 0.0
    world.network.reports_lost = 1.0


def mend(world: World) -> None:
    """Whatever is broken works again; time passes until all owners hold the same."""
    world.heal()
    world.network.loss = world.network.duplication = 0.0
    for node in world.nodes.values():
        if not node.up:
            node.restart()
        elif node.paused:
            node.resume()
    world.run(3_000)  # until those who were away have been heard
    converge(world)


def converge(world: World, within_ms: float = 150_000) -> None:
    """`World.converge`, but with a look only each 200 ms: a look costs more than the time between."""
    end = world.now_ms + within_ms
    while not (world.quiet and world.converged):
        assert world.now_ms < end, f"seed {world.seed}: {world.hinted} hints left, converged {world.converged}"
        world.run(200)
    world.converge()


def faults(world: World) -> list[Violation]:
    """Mend everything, read every key from all its owners, and judge the whole history."""
    mend(world)
    last = {key: world.wait(world.get(key, world.owners(key)[0], r=ALL)).record for key in world.final()}
    return check(world.history(), world.final(), last)


def all_is_well(world: World) -> None:
    """Every promise there is was kept."""
    found = faults(world)
    assert not found, f"seed {world.seed}: {found}"
