"""The world: nodes, clients and all that can go wrong, in the words a scenario is written in.

Promises: the same seed and the same words give the same history, to the byte, in any process; time
passes only when asked to. Never: helps a node: it knows what its messages tell it.

    world = World(seed=1)                               # n1, n2, n3; every key has three owners
    put = world.wait(world.put("k", "v", via="n1"))     # runs until the client is answered
    world.crash("n2")
    assert world.wait(world.get("k", via="n3")).values == [b"v"]
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import lru_cache

from kvnode.config import Settings
from kvnode.core.bootstrap import found
from kvnode.core.merkle import span_of
from kvnode.core.routes import Routes
from kvnode.protocol.messages import (
    AskPlan,
    ChangeKind,
    ClientRequest,
    CommitPlan,
    Message,
    Planned,
    StageChange,
    StagedNow,
)
from kvnode.protocol.ring import Member, Partition, Ring, partition_of
from kvnode.protocol.types import Address, NodeId, Record
from kvnode.sim.check import Violation, check
from kvnode.sim.client import Call, SimClients
from kvnode.sim.clock import derive, millis, tenths
from kvnode.sim.disk import SimDisk
from kvnode.sim.events import Tell, Timeline, Trace
from kvnode.sim.ground import CLIENT, Ground
from kvnode.sim.history import Op
from kvnode.sim.machine import SimNode, Surroundings
from kvnode.sim.network import Network

SETTINGS = Settings()
SETTLES_WITHIN_MS = 120_000
"""A world that is not quiet after this long never will be."""
LOOKS_EACH_MS = 10


@lru_cache(maxsize=64)
def ring_of(nodes: int, n: int, q: int) -> Ring:
    """The founding ring of nodes n1, n2, ..., each on its own host."""
    names = [f"n{i}" for i in range(1, nodes + 1)]
    members = tuple(Member(NodeId(name), f"{name}:7000", name) for name in names)
    return found("sim", members, n, q)


class World(Ground):
    """One cluster, its clients, its network and its disks."""

    def __init__(
        self,
        seed: int,
        *,
        nodes: int = 3,
        n: int = 3,
        q: int = 16,
        settings: Settings = SETTINGS,
        founded: bool = True,
        tell: Tell | None = None,
    ) -> None:
        """`founded`: the disks are known to be new; else the nodes have to find that out.

        `tell` is given a line for everything that happens.
        """
        self.seed = seed
        self.settings = settings
        self.deadline_ms = settings.deadline_ms
        self.timeline = Timeline()
        self.trace = Trace(self.timeline, tell)
        self.network = Network(self.timeline, self.trace, derive(seed, "network"))
        self.ring = ring_of(nodes, n, q)
        self._around = Surroundings(
            seed, self.timeline, self.trace, self.network, self.ring, settings, founded, self._on_ring
        )
        self.on_ring: Callable[[Ring], None] = lambda _: None
        """Told of each ring that a node is the first to hold."""
        self.nodes = {member.id: SimNode(member.id, self._around) for member in self.ring.members}
        self.names = tuple(self.nodes)
        self.clients = SimClients(self.timeline, self.trace, self.network, self._look)

    # ---- what clients do -------------------------------------------------------------------

    @property
    def asking(self) -> SimClients:
        """Its clients."""
        return self.clients

    def serves(self, name: str) -> bool:
        """Whether a machine is up and does not stand still."""
        node = self.node(name)
        return node.up and not node.paused

    def order(self, via: str, ask: ClientRequest) -> None:
        """What an operator asks of one node."""
        self.clients.order(CLIENT.encode(), NodeId(via), ask)

    # ---- its shape -------------------------------------------------------------------------

    def _on_ring(self, ring: Ring) -> None:
        if ring.epoch > self.ring.epoch:
            self.ring = ring
            self.trace.note("ring", f"epoch {ring.epoch}", f"{len(ring.moves)} move")
            self.on_ring(ring)

    def add(self, name: str) -> SimNode:
        """A new machine stands outside, and knocks."""
        assert name not in self.nodes
        self.trace.note("add", name)
        node = self.nodes[NodeId(name)] = SimNode(NodeId(name), self._around, self.ring)
        self.names = tuple(self.nodes)
        return node

    def ask(self, via: str, ask: ClientRequest) -> Message:
        """Ask a node something, and wait for what it says."""
        told: list[Message] = []
        self.clients.question(CLIENT.encode(), NodeId(via), ask, told.append)
        self.run_until(lambda: bool(told))
        return told[0]

    def reshape(self, via: str, *changes: tuple[ChangeKind, str, str]) -> Message:
        """Stage changes by way of a node, plan, and commit. What the commit was told."""
        rid = self.clients.next_number
        for kind, node, new in changes:
            told = self.ask(via, StageChange(rid(), kind, NodeId(node), new))
            assert isinstance(told, StagedNow), told
        planned = self.ask(via, AskPlan(rid()))
        assert isinstance(planned, Planned)
        return self.ask(via, CommitPlan(rid(), planned.plan.id, 10_000))

    @property
    def shaped(self) -> bool:
        """Whether nothing is pending, everyone who is up holds the latest ring, and no copy is left over."""
        members = [self.nodes[member.id] for member in self.ring.members]
        done = not self.ring.moves and not self.ring.leaving
        return done and all(
            n.up and n.node.ring == self.ring and not n.node.shaping.leftovers.count and not self.strays(n.name)
            for n in members
        )

    def strays(self, name: str) -> list[bytes]:
        """The keys on a node's disk that the ring gives it no place for, now or next."""
        node = self.node(name)
        ring, routes = self.ring, Routes(self.ring, node.name)
        return [key for key in node.disk.keys if not routes.holds(partition_of(key, ring.q))]

    # ---- time ------------------------------------------------------------------------------

    @property
    def now_ms(self) -> float:
        """What time it is."""
        return millis(self.timeline.now)

    def run(self, ms: float) -> None:
        """Let time pass."""
        self.timeline.run_to(self.timeline.now + tenths(ms))

    def run_until(self, true: Callable[[], bool], within_ms: float = 60_000) -> None:
        """Let time pass until this holds; an error if it does not come to."""
        end = self.timeline.now + tenths(within_ms)
        while not true():
            due = self.timeline.next_at
            assert due is not None and due <= end, f"seed {self.seed}: it never came true in {within_ms} ms"
            self.timeline.step()

    def wait(self, call: Call) -> Call:
        """Let time pass until an operation is over."""
        self.run_until(call.done)
        return call

    def settle(self) -> None:
        """Let time pass until nothing is under way any more. Machines that stand still are resumed by hand."""
        end = self.timeline.now + tenths(SETTLES_WITHIN_MS)
        while not self.quiet:
            assert self.timeline.now < end, f"seed {self.seed}: never quiet"
            self.run(LOOKS_EACH_MS)

    @property
    def quiet(self) -> bool:
        """Whether no frame is on its way, no client waits, and no node has anything to do."""
        idle = not self.network.in_flight and not self.clients.waiting
        return idle and all(node.idle for node in self.nodes.values())

    # ---- what goes wrong -------------------------------------------------------------------

    def crash(self, *names: str) -> None:
        """These machines stop, at once."""
        for name in names:
            self.node(name).crash()

    def stop(self, *names: str) -> None:
        """These machines end as an operator ends them."""
        for name in names:
            self.node(name).stop()

    def restart(self, *names: str) -> None:
        """These machines boot again."""
        for name in names:
            self.node(name).restart()

    def pause(self, name: str) -> None:
        """A machine stands still."""
        self.node(name).pause()

    def resume(self, name: str) -> None:
        """A machine goes on."""
        self.node(name).resume()

    def wipe(self, name: str) -> None:
        """A machine's disk is lost; it boots again on an empty one, when told to."""
        if self.node(name).up:
            self.node(name).crash()
        self.node(name).disk.wipe()
        self.node(name).boot = 0

    def partition(self, these: Collection[str], those: Collection[str], *, one_way: bool = False) -> None:
        """Nothing passes from these nodes (or clients) to those; nor back, unless `one_way`."""
        senders = [self._address(name) for name in sorted(these)]
        receivers = [self._address(name) for name in sorted(those)]
        arrow = ">" if one_way else "|"
        self.trace.note("cut", f"{','.join(sorted(these))} {arrow} {','.join(sorted(those))}")
        self.network.cut(senders, receivers, one_way=one_way)

    def _address(self, name: str) -> Address:
        return NodeId(name) if name in self.nodes else name.encode()

    def heal(self) -> None:
        """Every link works again."""
        self.trace.note("heal", "network")
        self.network.heal()

    def wall_skew(self, name: str, ms: int) -> None:
        """A node's wall clock is now this far ahead of the others; negative: behind."""
        self.trace.note("skew", name, str(ms))
        self.node(name).clock.skew_ms = ms

    def disk(self, name: str) -> SimDisk:
        """A node's disk, to be made slow, full or forgetful."""
        return self.node(name).disk

    def node(self, name: str) -> SimNode:
        """The machine of a name."""
        return self.nodes[NodeId(name)]

    # ---- what is left, and what to think of it ----------------------------------------------

    def owners(self, key: str | bytes) -> tuple[NodeId, ...]:
        """The owners of a key, the first place first."""
        return self.ring.owner_ids(partition_of(self.key_of(key), self.ring.q))

    def stranger(self, key: str | bytes) -> NodeId:
        """A node that does not own this key."""
        return next(name for name in self.nodes if name not in self.owners(key))

    def replicas(self, key: str | bytes) -> dict[str, Record]:
        """What each owner of a key durably holds of it."""
        return {owner: self.nodes[owner].disk.holds(self.key_of(key)) for owner in self.owners(key)}

    def kept(self, key: str | bytes) -> dict[str, Record]:
        """What each node that is no owner of a key durably keeps of it for them."""
        owners = self.owners(key)
        found = {
            name: node.disk.keeps(self.key_of(key)) for name, node in self.nodes.items() if name not in owners
        }
        return {name: record for name, record in found.items() if record}

    def _look(self, key: bytes) -> tuple[tuple[Record, ...], tuple[Record, ...]]:
        owners = self.owners(key)
        held = tuple(self.nodes[owner].disk.holds(key) for owner in owners)
        others = (node.disk for name, node in self.nodes.items() if node.disk.hinted and name not in owners)
        return held, tuple(record for record in (disk.keeps(key) for disk in others) if record)

    @property
    def hinted(self) -> int:
        """Hints on all disks."""
        return sum(len(self.nodes[member.id].disk.hinted) for member in self.ring.members)

    @property
    def converged(self) -> bool:
        """Whether no hint is kept and all owners of each partition have the same tree."""
        return (
            not self.hinted
            and self.shaped
            and all(
                len({self.nodes[owner].disk.tree.hash(span_of(Partition(p), self.ring.q)) for owner in owners})
                == 1
                for p, owners in enumerate(map(self.ring.owner_ids, range(self.ring.q)))
            )
        )

    @property
    def well(self) -> bool:
        """Whether every member takes requests, and holds every other one to be in reach."""
        members = {member.id for member in self.ring.members}
        return not any(
            self.nodes[name].local.refusal or members & self.nodes[name].local.peers.avoided.keys()
            for name in members
        )

    @property
    def voting(self) -> bool:
        """Whether every member votes again. A former one on a new disk, with no peer left, never learns."""
        return not any(self.nodes[member.id].local.voteless for member in self.ring.members)

    def converge(self, within_ms: float = 120_000) -> None:
        """Let time pass until that is so, and nothing is under way; an error if it does not come to."""
        end = self.timeline.now + tenths(within_ms)
        while not (self.quiet and self.converged and self.well):
            assert self.timeline.now < end, (
                f"seed {self.seed}: {self.hinted} hints left, converged {self.converged}"
            )
            self.run(5 * LOOKS_EACH_MS)  # all trees: a long look

    def final(self) -> dict[bytes, dict[str, Record]]:
        """`replicas`, of every key any disk has."""
        keys = sorted({key for node in self.nodes.values() for key in node.disk.keys})
        return {key: self.replicas(key) for key in keys}

    def history(self) -> list[Op]:
        """What clients asked for and were told, as a checker takes it."""
        return [op for call in self.clients.calls for op in call.ops()]

    def violations(self) -> list[Violation]:
        """What a checker has to say of all that happened so far."""
        return check(self.history(), self.final())

    def trace_hash(self) -> str:
        """One hash for everything that happened so far."""
        return self.trace.digest()
