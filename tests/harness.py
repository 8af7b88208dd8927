"""One node driven by hand: say something to it, look at what it owes the world, commit when you like.

Promises: no sockets, threads or clocks; every message goes through the codec; nothing happens until
a test says so. Never: a mock: the node, its outbox and its ring are the real ones, only the disk is
a dict.

    hand = Hand()                           # n1 of n1, n2, n3, n = 3: every key is owned by all
    sent = hand.hear(CLIENT, Put(...))      # one turn; what leaves at once
    sent = hand.commit()                    # its writes are durable; what leaves now
    sent = hand.wait(2_000)                 # time passes
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import TypeVar

import msgspec

from kvnode.config import Settings
from kvnode.core.assignment import assign
from kvnode.core.local import Local
from kvnode.core.merkle import HashTree, leaf_of
from kvnode.core.node import Node
from kvnode.core.outbox import GONE, Aside, Hint, HintKey, Sends, Stored, Unreadable
from kvnode.core.registers import weigh
from kvnode.core.versions import Held, held_of
from kvnode.protocol import messages as m
from kvnode.protocol.context import encode_context, join
from kvnode.protocol.ring import Member, Ring
from kvnode.protocol.types import EVENTUAL, Address, NodeId, Past, Record, Version, decode_record, encode_record

CLIENT = b"client-1"
N1, N2, N3, N4, N5 = (NodeId(f"n{i}") for i in range(1, 6))
WALL = 1_790_000_000_000
"""The wall clock at the start of every test, ms since 1970."""

BACKGROUND = m.Beat | m.Gossip | m.AskDisk | m.CompareTree | m.AskRing | m.AskVotes
M = TypeVar("M")
Sent = list[tuple[Address, m.Message]]
_wire = msgspec.msgpack.Decoder(m.Message)


def through_the_wire(message: m.Message) -> m.Message:
    """The message as the other side decodes it."""
    decoded: m.Message = _wire.decode(msgspec.msgpack.encode(message))
    return decoded


def ring_of(names: str = "n1 n2 n3", n: int = 3, q: int = 16) -> Ring:
    """A ring of members that are each their own host."""
    members = tuple(Member(NodeId(name), f"127.0.0.1:{7000 + i}", name) for i, name in enumerate(names.split(), 1))
    return Ring("test", 7, 1, n, q, members, assign(members, q, n), (1,) * q)


class DictStore:
    """What a disk would hold, and which of its keys are damaged."""

    def __init__(self) -> None:
        self.rows: dict[bytes, Held] = {}
        self.damaged: set[bytes] = set()
        self.kept: dict[HintKey, Hint] = {}
        self.facts: dict[str, bytes] = {}
        self.kept_registers: dict[bytes, bytes] = {}
        self.damaged_registers: set[bytes] = set()

    def get(self, key: bytes) -> Held | None:
        if key in self.damaged:
            raise Unreadable
        return self.rows.get(key)

    def scan(self, after: bytes, prefix: bytes, limit: int) -> Iterator[Stored]:
        found = [k for k in sorted(self.rows) if k > after and k.startswith(prefix)][:limit]
        if self.damaged.intersection(found):
            raise Unreadable
        return (Stored(key, self.rows[key]) for key in found)

    @property
    def tree(self) -> HashTree:
        tree = HashTree()
        for key, held in self.rows.items():
            tree.change(key, b"", held.digest)
        for key, register in self.kept_registers.items():
            tree.change(key, b"", weigh(register).mark)
        return tree

    def leaf(self, leaf: int) -> list[tuple[bytes, Held | None]]:
        keys = sorted(key for key in self.rows if leaf_of(key) == leaf)
        return [(key, None if key in self.damaged else self.rows[key]) for key in keys]

    def mend_leaf(self, leaf: int) -> bool:
        return False  # this tree is counted each time

    def hints(self) -> dict[HintKey, Hint]:
        return dict(self.kept)

    def fact(self, name: str) -> bytes:
        return self.facts.get(name, b"")

    def register(self, key: bytes) -> bytes:
        if key in self.damaged_registers:
            raise Unreadable
        return self.kept_registers.get(key, b"")

    def registers(self, after: bytes, prefix: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        return sorted(i for i in self.kept_registers.items() if i[0] > after and i[0].startswith(prefix))[:limit]

    def registers_in(self, leaf: int) -> list[tuple[bytes, bytes | None]]:
        keys = sorted(key for key in self.kept_registers if leaf_of(key) == leaf)
        return [(key, None if key in self.damaged_registers else self.kept_registers[key]) for key in keys]

    def apply(self, writes: dict[bytes, Held], aside: Aside | None = None) -> None:
        self.rows = {key: held for key, held in (self.rows | writes).items() if held is not GONE}
        self.damaged -= set(writes)
        if aside is not None:
            self.facts |= aside.facts
            kept = self.kept_registers | aside.registers
            self.kept_registers = {key: register for key, register in kept.items() if register}
            self.kept = {where: hint for where, hint in (self.kept | aside.hints).items() if hint is not None}


class Hand:
    """A node, and the hands that feed it."""

    def __init__(
        self,
        ring: Ring | None = None,
        me: NodeId = N1,
        settings: Settings | None = None,
        seed: int = 1,
        store: DictStore | None = None,
    ) -> None:
        self.store = store if store is not None else DictStore()
        self.ring = ring if ring is not None else ring_of()
        self.now = 1_000.0
        self.wall = WALL
        settings = settings if settings is not None else Settings()
        self.local = Local(me, 1, self.ring, self.store, Random(seed), settings, "fsync")
        self.node = Node(self.local, vitals, founded=True)
        assert self.node.local is self.local
        self.background: Sent = []
        """What nodes tell each other of their own accord: kept out of what the methods return."""
        self._uncommitted: list[tuple[int, dict[bytes, Held], Aside | None, Sends]] = []
        self._to_self: list[m.Message] = []

    # ---- turns -----------------------------------------------------------------------------

    def hear(self, sender: Address, *messages: m.Message) -> Sent:
        """One turn with these messages from one sender; what leaves at once."""
        return self._turn([(sender, message) for message in messages])

    def commit(self) -> Sent:
        """Everything written is durable now; what leaves because of that, own votes counted."""
        left: Sent = []
        while self._uncommitted:
            for number, writes, aside, acks in self._uncommitted:
                self.store.apply(writes, aside)
                self.node.committed(number)
                left += self._leaving(acks)
            self._uncommitted = []
            left += self._turn([])
        return left

    def say(self, sender: Address, *messages: m.Message) -> Sent:
        """`hear`, then `commit`."""
        return self.hear(sender, *messages) + self.commit()

    def wait(self, ms: float) -> Sent:
        """Time passes, in one leap, and the timers are served."""
        self.now += ms
        self.wall += int(ms)
        return self._turn([])

    def lose(self, *peers: NodeId) -> Sent:
        """The transport could not reach these peers."""
        self.node.begin(self.now, self.wall)
        for peer in peers:
            self.node.lost(peer)
        return self._end()

    def _turn(self, messages: list[tuple[Address, m.Message]]) -> Sent:
        self.node.begin(self.now, self.wall)
        own, self._to_self = self._to_self, []
        for message in own:
            self.node.receive(self.node.id, message)
        for sender, message in messages:
            self.node.receive(sender, through_the_wire(message))
        return self._end()

    def _end(self) -> Sent:
        turn = self.node.end()
        self.node.check_invariants()
        self._uncommitted.append((turn.number, turn.writes, turn.aside, turn.acks))
        if not (turn.writes or turn.aside or turn.acks):
            self._uncommitted.pop()
        return self._leaving(turn.control) + self._leaving(turn.sends)

    def _leaving(self, sends: Sends) -> Sent:
        left: Sent = []
        for to, box in sends.items():
            if to == self.node.id:
                self._to_self += box
                continue
            for message in box:
                kept = self.background if isinstance(message, BACKGROUND) else left
                kept.append((to, through_the_wire(message)))
        return left

    # ---- what is held ----------------------------------------------------------------------

    def holds(self, key: bytes) -> Record:
        """The versions of a key on this node's disk."""
        held = self.store.rows.get(key)
        return held.record() if held is not None else ()

    def keep(self, key: bytes, record: Record) -> None:
        """Put a record on this node's disk, as if it had always been there."""
        self.store.rows[key] = held_of(record)

    @property
    def counters(self) -> dict[str, int]:
        return dict(self.local.counters)


def vitals() -> m.NodeReport:
    """What a shell would know of its process."""
    return m.NodeReport(
        id=NodeId(""), epoch=0, boot=0, pid=42, uptime_ms=0, wall_ms=0, keys=3, value_bytes=30, disk_bytes=300,
        durability="fsync", engine="dict", writable=True, problem="", p50_ms=None, p99_ms=None, avoided=(),
        rss_bytes=1, disk_free_bytes=1, version="0", counters={"commits": 5},
    )  # fmt: skip


# ---- looking at what was sent ------------------------------------------------------------------


def to(who: Address, sent: Sent) -> list[m.Message]:
    """The messages that went to one place."""
    return [message for place, message in sent if place == who]


def one(who: Address, sent: Sent, kind: type[M]) -> M:
    """The one message that went to a place; fails if there is another, or it is of another kind."""
    found = to(who, sent)
    assert len(found) == 1, f"expected one {kind.__name__} to {who!r}, sent were {sent}"
    assert isinstance(found[0], kind), f"expected {kind.__name__}, got {found[0]}"
    return found[0]


# ---- words for requests and records ------------------------------------------------------------


def put(key: bytes = b"k", value: bytes | None = b"v", w: int = 0, mode: int = EVENTUAL, **more: object) -> m.Put:
    """A put with everything a test does not care about filled in."""
    return m.Put(1, key, value, w, mode, 1_000, **more)  # type: ignore[arg-type]


def get(key: bytes = b"k", r: int = 0, mode: int = EVENTUAL, **more: object) -> m.Get:
    """A get with everything a test does not care about filled in."""
    return m.Get(1, key, r, mode, 1_000, **more)  # type: ignore[arg-type]


def version(
    actor: int, time: int, past: Past | None = None, value: bytes | None = b"v", expires_at: int = 0
) -> Version:
    """A version as some other node minted it, `time` ms after `WALL`."""
    return Version(actor, (WALL + time) << 16, past or {}, value, expires_at)


def record_of(*versions: Version) -> Record:
    """A record in its canonical order."""
    return tuple(sorted(versions, key=lambda v: (v.time, v.actor)))


def blob(*versions: Version) -> bytes:
    """An encoded record."""
    return encode_record(record_of(*versions))


def values(record: bytes | Record) -> list[bytes | None]:
    """The values of a record, in its order; none of an empty one."""
    versions = decode_record(record) if isinstance(record, bytes) and record else record
    return [v.value for v in versions or ()]


def context(key: bytes, *versions: Version) -> bytes:
    """The context of a reader who saw these versions."""
    return encode_context(key, join(versions)).encode()
