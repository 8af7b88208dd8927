"""A bad network between loop and transport: order, duplicates, bounds, and what is left when it ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from random import Random
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from kvnode import config
from kvnode.core.local import Local
from kvnode.protocol import messages as m
from kvnode.protocol.faults import Fault
from kvnode.protocol.types import Address, NodeId
from kvnode.shell.faults import Faults
from kvnode.shell.faulty import FaultyTransport, Injector
from kvnode.shell.transport import Received, Transport
from tests.harness import CLIENT, N1, N2, N3, Hand

WALL = 1_790_000_000_000
LAWS = settings(max_examples=40, deadline=None, print_blob=True)


class Wire:
    """A transport that remembers what it was handed, and takes it or not."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Address, list[m.Message]]] = []
        self.heard: list[Received] = []
        self.down: set[Address] = set()
        self.counters: Counter[str] = Counter()

    def receive(self) -> list[Received]:
        return self.heard

    def tell(self, control: dict[Address, list[m.Message]]) -> list[NodeId]:
        self.sent += [("control", to, messages) for to, messages in control.items()]
        return [NodeId(str(to)) for to in control if to in self.down]

    def send(self, sends: Iterable[tuple[Address, list[m.Message]]]) -> list[NodeId]:
        sends = list(sends)
        self.sent += [("data", to, messages) for to, messages in sends]
        return [NodeId(str(to)) for to, _ in sends if to in self.down]

    def send_damaged(self, peer: NodeId, messages: list[m.Message], damage: Callable[..., bytes]) -> None:
        self.sent.append(("damaged", peer, messages))


def bad(*faults: Fault, seed: int = 1) -> tuple[Wire, FaultyTransport, Faults]:
    """A wire, what the loop sees of it, and the faults between."""
    wire, found = Wire(), Faults(N1, Random(seed), Counter())
    for fault in faults:
        found.begin(fault, 30_000, 0.0, WALL)
    return wire, FaultyTransport(cast("Transport", wire), found), found


def same(rid: int) -> m.Message:
    """Some message, by its number."""
    return m.ReplicaSame(rid)


def rids(wire: Wire) -> list[int]:
    """The numbers that were sent, in order."""
    return [message.rid for _, _, messages in wire.sent for message in cast("list[Any]", messages)]


def test_a_delayed_batch_leaves_when_its_time_has_come() -> None:
    """The loop is told when to wake for it; what other peers and clients are told leaves at once."""
    wire, transport, _ = bad(Fault("x", "delay", (N1,), (N2,), 100))

    assert transport.send([(N2, [same(1)]), (N3, [same(2)]), (CLIENT, [same(3)])]) == []
    assert [to for _, to, _ in wire.sent] == [N3, CLIENT]
    assert transport.next_due == 100.0
    transport.deliver(99.9)
    assert len(wire.sent) == 2
    transport.deliver(100.0)
    assert wire.sent[2:] == [("data", N2, [same(1)])]
    assert transport.next_due is None


@LAWS
@given(st.lists(st.integers(0, 40), min_size=2, max_size=60), st.integers(0, 2**32))
def test_a_delay_with_jitter_keeps_the_order(waits: list[int], seed: int) -> None:
    """As a connection does; also when the fault is healed with batches on their way."""
    wire, transport, faults = bad(Fault("x", "delay", (N1,), (), 50, 50), seed=seed)
    now = 0.0
    for rid, wait in enumerate(waits):
        now += wait
        transport.deliver(now)
        if rid == len(waits) // 2:
            faults.end(faults.all[0])
            transport.deliver(now)
            assert transport.next_due is None
        transport.send([(N2, [same(rid)])])
    assert rids(wire) == list(range(len(waits)))


def test_a_reordered_batch_is_passed_by_later_ones() -> None:
    """By those that come within a moment; then it leaves as well."""
    wire, transport, faults = bad(Fault("x", "reorder", (N1,), (), 1.0))
    transport.send([(N2, [same(1)])])
    faults.end(faults.all[0])
    faults.begin(Fault("y", "drop", (N1,), (N3,), 1.0), 1_000, 0.0, WALL)
    transport.send([(N2, [same(2)])])
    transport.deliver(float(config.FAULT_OVERTAKEN_MS))
    assert rids(wire) == [2, 1]


def test_a_duplicate_has_everything_but_puts() -> None:
    """A second put would be a second put."""
    wire, transport, _ = bad(Fault("x", "duplicate", (N1,), (), 1.0))
    put = m.Put(1, b"k", b"v", 2, 0, 100, forwarded=True)

    transport.send([(N2, [put, same(2)])])
    transport.tell({N2: [same(3)]})

    assert [messages for _, _, messages in wire.sent] == [[put, same(2)], [same(2)], [same(3)], [same(3)]]
    assert [lane for lane, _, _ in wire.sent] == ["data", "data", "control", "control"]


def test_what_is_cut_is_neither_sent_nor_heard() -> None:
    """Clients and other members are."""
    wire, transport, _ = bad(Fault("x", "partition", (N2,), (N1,)))
    wire.heard = [(N2, [same(1)]), (N3, [same(2)]), (CLIENT, [same(3)])]

    assert transport.receive() == wire.heard[1:]
    assert transport.tell({N2: [same(4)], N3: [same(5)], CLIENT: [same(6)]}) == []
    assert transport.send([(N2, [same(7)])]) == []
    assert rids(wire) == [5, 6]


def test_peers_that_take_nothing_are_told_also_of_what_comes_late() -> None:
    """The loop learns it with the next turn. What is damaged is nobody's loss."""
    wire, transport, faults = bad(Fault("x", "delay", (N1,), (), 10))
    wire.down = {N2}
    assert transport.send([(N2, [same(1)])]) == []
    assert transport.deliver(10.0) == [N2]
    faults.begin(Fault("y", "corrupt", (N1,), (), 1.0), 1_000, 10.0, WALL)
    transport.send([(N2, [same(2)])])
    assert transport.deliver(20.0) == []
    assert wire.sent[-1][0] == "damaged"


def test_no_more_is_held_back_than_the_bound() -> None:
    """Beyond it batches are lost and counted, as from a full queue."""
    wire, transport, faults = bad(Fault("x", "delay", (N1,), (), 1_000))
    for rid in range(config.FAULT_HELD_MAX + 3):
        transport.send([(N2, [same(rid)])])
    assert faults.counters["fault_held_too_many"] == 3
    transport.deliver(1_000.0)
    assert len(wire.sent) == config.FAULT_HELD_MAX


class Disk:
    """An engine with nothing to do."""

    behind = False

    def submit(self, number: int, writes: object, aside: object = None) -> None: ...

    def durable(self) -> int:
        return 0

    def fileno(self) -> int:
        return 0


def injector() -> tuple[Injector, Local, Wire]:
    """The switch, with its node's events."""
    wire, local = Wire(), Hand().local
    return Injector(local, Disk(), cast("Transport", wire), Random(1)), local, wire


def test_the_loop_holds_the_real_ones_before_and_after() -> None:
    """Active from the order to the end; the end comes by the clock, and is an event."""
    switch, local, wire = injector()
    real = switch.engine, switch.transport
    assert not switch.active
    switch.begin(Fault("d", "delay", (N1,), (), 500), 1_000, 0.0, WALL)
    switch.begin(Fault("s", "skew", (N1,), (), 5_000), 2_000, 0.0, WALL)
    assert switch.active
    assert (switch.skew_ms, switch.patience(0.0)) == (0, config.POLL_MS_MAX)

    switch.turn(1.0)
    assert (switch.skew_ms, switch.engine, switch.transport is real[1]) == (5_000, real[0], False)
    assert switch.patience(990.0) == 10
    switch.transport.send([(N2, [same(1)])])

    switch.turn(1_000.0)
    assert rids(wire) == [1], "what was held back leaves when the fault ends"
    assert (switch.engine, switch.transport) == real
    assert switch.active
    begun = switch.begin(Fault("t", "skew", (N1,), (), -1_000), 500, 1_000.0, WALL + 5_000)
    assert begun.since == WALL, "told by the true clock"
    switch.turn(2_000.0)

    assert (switch.active, switch.skew_ms, switch.faults) == (False, 0, ())
    assert [event.text for event in local.events.after(0)] == [
        "d delay is over",
        "s skew is over",
        "t skew is over",
    ]
