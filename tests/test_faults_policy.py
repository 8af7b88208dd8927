"""What faults mean, without a socket, a disk or a clock: shares, order, ends, slow commits, orders refused."""

from __future__ import annotations

import math
from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvctl.blast import blast, reach
from kvctl.nodefaults import in_force
from kvnode import config
from kvnode.protocol import messages as m
from kvnode.protocol.codec import NODE, PROTOCOL_VERSION, Greeting, Reader, encode_batches, encode_greeting
from kvnode.protocol.faults import KINDS, Fault, problem_of
from kvnode.protocol.types import NodeId
from kvnode.shell.faults import Copy, Faults, SlowCommits
from kvnode.shell.faulty import FaultyEngine
from tests.harness import CLIENT, N1, N2, N3, N4, N5, Hand, ring_of

LAWS = settings(max_examples=60, deadline=None, print_blob=True)
WALL = 1_790_000_000_000
PLAIN = Copy(0.0, overtaken=False, damaged=False)


def faults_of(*faults: Fault, me: NodeId = N1, seed: int = 1, for_ms: int = 30_000) -> Faults:
    """These faults, in force since 0."""
    found = Faults(me, Random(seed), Counter())
    for fault in faults:
        found.begin(fault, for_ms, 0.0, WALL)
    return found


def link(kind: str, amount: float, *peers: NodeId, jitter_ms: float = 0.0) -> Fault:
    """A fault of what n1 says."""
    return Fault(f"{kind}-1", kind, (N1,), peers, amount, jitter_ms)


# ---- links -------------------------------------------------------------------------------------


def test_a_fault_strikes_the_link_it_names_and_no_other() -> None:
    """`delay n1>n2 100ms`: what n1 says to n2 comes later; to n3 it does not."""
    faults = faults_of(link("delay", 100, N2))

    assert faults.fates(N2) == [Copy(100.0, overtaken=False, damaged=False)]
    assert faults.fates(N3) == [PLAIN]
    assert faults.hears(N2)


def test_a_partition_cuts_both_ways_unless_it_is_one_way() -> None:
    """Each end does its part, so that a node which missed the order is cut off all the same."""
    both = Fault("x", "partition", (N1, N2), (N3,))
    one = Fault("x", "partition", (N1, N2), (N3,), one_way=True)

    for me, fault, sends, hears in (
        (N1, both, False, False), (N3, both, False, False), (N1, one, False, True), (N3, one, True, False),
    ):  # fmt: skip
        other = N3 if me == N1 else N1
        faults = faults_of(fault, me=me)
        assert (bool(faults.fates(other)), faults.hears(other)) == (sends, hears), (me, fault)
    assert faults_of(both).fates(N2) == [PLAIN]
    assert in_force(both, [N3])
    assert not in_force(both, [N1])


@LAWS
@given(st.sampled_from(["drop", "duplicate", "reorder", "corrupt"]), st.floats(0.05, 1.0), st.integers(0, 2**32))
def test_a_share_is_met(kind: str, share: float, seed: int) -> None:
    """Of many batches about as many are struck as was asked for: all of them at 100%."""
    faults, count = faults_of(link(kind, share), seed=seed), 2_000

    struck = sum(faults.fates(N2) != [PLAIN] for _ in range(count))

    assert abs(struck / count - share) < 0.07
    assert share < 1 or struck == count


@LAWS
@given(st.floats(1, 1000), st.floats(0, 1), st.integers(0, 2**32))
def test_jitter_stays_within_its_bounds(delay: float, part: float, seed: int) -> None:
    """Never a delay below zero, never more than both together."""
    faults = faults_of(link("delay", delay, jitter_ms=delay * part), seed=seed)

    for _ in range(200):
        (copy,) = faults.fates(N2)
        assert delay * (1 - part) - 0.001 <= copy.delay_ms <= delay * (1 + part) + 0.001


def test_the_same_seed_gives_the_same_fates() -> None:
    """A run can be told again."""
    storm = [link(kind, 0.4) for kind in ("drop", "duplicate", "reorder", "corrupt")] + [
        link("delay", 9, jitter_ms=9)
    ]

    first, second, other = (faults_of(*storm, seed=seed) for seed in (3, 3, 4))

    fates = [first.fates(N2) for _ in range(200)]
    assert fates == [second.fates(N2) for _ in range(200)]
    assert fates != [other.fates(N2) for _ in range(200)]


@LAWS
@given(st.integers(1, 20), st.integers(0, 2**32))
def test_a_damaged_frame_is_never_read_as_another(count: int, seed: int) -> None:
    """The codec drops each one: a value is not silently another value."""
    prefix = encode_greeting(Greeting(PROTOCOL_VERSION, 7, NODE, "n1", 3))
    (frame,) = encode_batches(prefix, [m.WriteReplica(i, 1, b"key", b"v" * i, 99) for i in range(count)])
    faults, reader = faults_of(seed=seed), Reader()

    for _ in range(50):
        assert reader.read(faults.damage(frame, len(prefix))) is None
    assert reader.read(bytes(frame)) is not None


# ---- ends --------------------------------------------------------------------------------------


def test_a_fault_ends_when_its_time_has_come() -> None:
    """Not before; and the one set again under its id lasts from then on."""
    faults = faults_of(link("drop", 1.0), for_ms=1_000)
    assert faults.all[0].expires_at == WALL + 1_000

    assert faults.expire(999.0) == []
    faults.begin(link("drop", 1.0), 1_000, 999.0, WALL + 999)
    assert faults.next_end == 1_999.0
    assert faults.expire(1_998.0) == []
    assert [fault.id for fault in faults.expire(1_999.0)] == ["drop-1"]

    assert (faults.fates(N2), faults.on_links, faults.next_end) == ([PLAIN], False, None)


def test_clocks_and_disks_add_up() -> None:
    """Two skews are one larger one, and over means over."""
    one, other = Fault("a", "skew", (N1,), amount=5_000), Fault("b", "skew", (N1,), amount=-2_000)
    faults = faults_of(one, other, Fault("c", "slow-disk", (N1,), amount=200))

    assert (faults.skew_ms, faults.commit_ms, faults.on_disk, faults.on_links) == (3_000, 200, True, False)
    faults.end(one)
    assert faults.skew_ms == -2_000


# ---- commits -----------------------------------------------------------------------------------


def test_a_slow_disk_tells_of_one_commit_at_a_time() -> None:
    """What comes while one is under way shares the next, as on a disk that takes that long."""
    slow = SlowCommits()
    slow.submit(5, 10, now=0.0, delay_ms=100)
    slow.submit(6, 10, now=10.0, delay_ms=100)
    slow.submit(8, 10, now=90.0, delay_ms=100)

    assert slow.durable(8, 99.0, 100) == 4, "the turns before it are durable"
    assert slow.durable(8, 100.0, 100) == 5
    assert slow.durable(8, 199.0, 100) == 5
    assert slow.durable(8, 200.0, 100) == 8
    assert slow.idle


@LAWS
@given(st.lists(st.tuples(st.integers(1, 300), st.integers(0, 3)), min_size=1, max_size=60), st.integers(1, 500))
def test_no_commit_is_told_of_before_it_is_real_or_due(steps: list[tuple[int, int]], delay: int) -> None:
    """Whatever the pace; what is told only grows; in the end, with the fault gone, all of it is."""
    slow, now, number, real, told = SlowCommits(), 0.0, 0, 0, 0
    begun: dict[int, float] = {}
    for wait, lag in steps:
        now += wait
        number += 1
        begun[number] = now
        slow.submit(number, 1, now, delay)
        real = max(real, number - lag)
        before, told = told, slow.durable(real, now, delay)
        assert before <= told <= real
        assert all(begun[n] + delay <= now for n in range(before + 1, told + 1))
    assert slow.durable(number, now, 0) == number
    assert slow.idle


class Disk:
    """An engine that is durable at once."""

    behind = False

    def __init__(self) -> None:
        self.last = 0

    def submit(self, number: int, writes: object, aside: object = None) -> None:
        self.last = number

    def durable(self) -> int:
        return self.last

    def fileno(self) -> int:
        return 0


@pytest.mark.parametrize(("kind", "written"), [("full-disk", 1), ("fail-fsync", 2)])
def test_a_disk_that_fails_acknowledges_nothing_more(kind: str, written: int) -> None:
    """A full one takes nothing; of one that cannot fsync nobody knows; what was durable before stays so."""
    faults, disk = faults_of(), Disk()
    engine = FaultyEngine(disk, faults)
    engine.submit(1, {})
    assert engine.durable() == 1
    faults.begin(Fault("x", kind, (N1,)), 1_000, 0.0, WALL)

    assert engine.durable() == 1
    with pytest.raises(Exception, match="injected"):
        engine.submit(2, {})
        engine.durable()

    assert disk.last == written


def test_a_commit_that_failed_stays_failed_though_the_fault_is_healed() -> None:
    """As for a real one: a failed fsync is never made good."""
    faults = faults_of(Fault("x", "fail-fsync", (N1,)))
    engine = FaultyEngine(Disk(), faults)
    engine.submit(2, {})
    faults.end(faults.all[0])

    assert not engine.idle
    with pytest.raises(Exception, match="injected"):
        engine.durable()


# ---- orders ------------------------------------------------------------------------------------

GOOD = {
    "partition": Fault("x", "partition", (N1,), (N2, N3)),
    "delay": Fault("x", "delay", (N1,), (N2,), 100, 20),
    **{kind: Fault("x", kind, (N1,), (), 0.3) for kind in ("drop", "duplicate", "reorder", "corrupt")},
    "slow-disk": Fault("x", "slow-disk", (N1,), (), 200),
    "full-disk": Fault("x", "full-disk", (N1,)),
    "fail-fsync": Fault("x", "fail-fsync", (N1,)),
    "skew": Fault("x", "skew", (N1,), (), -5_000),
}
BAD = [
    Fault("x", "flood", (N1,)),
    Fault("x", "drop", (), (), 0.3),
    Fault("x", "drop", (N5,), (), 0.3),
    Fault("x", "drop", (N1,), (N1,), 0.3),
    Fault("x", "drop", (N1,), (), math.nan),
    Fault("x", "drop", (N1,), (), 1.01),
    Fault("x", "drop", (N1,), (), 0.3, 5),
    Fault("x", "drop", (N2,), (), 0.3),
    Fault("x", "partition", (N1,), ()),
    Fault("x", "delay", (N1,), (), 0),
    Fault("x", "delay", (N1,), (), math.inf),
    Fault("x", "delay", (N1,), (), 10, 11),
    Fault("x", "delay", (N1,), (), 10, math.nan),
    Fault("x", "slow-disk", (N1,), (), config.COMMIT_S_MAX * 1000),
    Fault("x", "slow-disk", (N1,), (N2,), 100),
    Fault("x", "skew", (N1,), (), 0),
    Fault("x", "skew", (N1,), (), math.nan),
]


class Breakable:
    """A shell that only remembers."""

    def __init__(self) -> None:
        self.faults: tuple[Fault, ...] = ()

    def begin(self, fault: Fault, for_ms: int, now: float, wall: int) -> Fault:
        self.faults = (*self.faults, fault)
        return fault

    def end(self, fault: Fault, now: float) -> None:
        self.faults = tuple(f for f in self.faults if f != fault)


def order(hand: Hand, ask: m.Message) -> m.Message:
    """What it says to that."""
    (reply,) = [message for to, message in hand.hear(CLIENT, ask) if to == CLIENT]
    return reply


def test_a_node_that_does_not_allow_faults_refuses_them() -> None:
    """It says how to allow them; it tells that it has none."""
    hand = Hand()

    for ask in (m.SetFault(5, GOOD["drop"], 1_000), m.HealFault(5, "")):
        reply = order(hand, ask)
        assert isinstance(reply, m.Failed)
        assert (reply.error, reply.rid) == (m.Error.REFUSED, 5)
        assert "--allow-faults" in reply.message
    assert order(hand, m.ListFaults(6)) == m.FaultList(6, ())


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_is_set_listed_and_healed(kind: str) -> None:
    """Each kind there is; another id heals nothing."""
    hand, fault = Hand(), GOOD[kind]
    hand.node.fault_desk.breakable = Breakable()

    assert order(hand, m.SetFault(1, fault, 1_000)) == m.FaultList(1, (fault,))
    assert order(hand, m.ListFaults(2)) == m.FaultList(2, (fault,))
    assert order(hand, m.HealFault(3, "y")) == m.FaultList(3, ())
    assert order(hand, m.HealFault(4, "x")) == m.FaultList(4, (fault,))
    assert order(hand, m.ListFaults(5)) == m.FaultList(5, ())


@pytest.mark.parametrize("fault", BAD, ids=str)
def test_what_makes_no_sense_is_invalid(fault: Fault) -> None:
    """Whoever sends it, with whatever client."""
    hand = Hand()
    hand.node.fault_desk.breakable = Breakable()

    reply = order(hand, m.SetFault(1, fault, 1_000))

    assert isinstance(reply, m.Failed)
    assert reply.error == m.Error.INVALID
    assert order(hand, m.ListFaults(2)) == m.FaultList(2, ())


def test_faults_have_an_end_and_are_few() -> None:
    """No time, too long a time, too many: invalid. A member may not set any."""
    hand = Hand()
    breakable = hand.node.fault_desk.breakable = Breakable()
    for for_ms in (0, config.FAULT_FOR_MS_MAX + 1):
        assert isinstance(order(hand, m.SetFault(1, GOOD["drop"], for_ms)), m.Failed)
    hand.hear(N2, m.SetFault(1, GOOD["drop"], 1_000))
    assert breakable.faults == ()

    breakable.faults = (GOOD["drop"],) * config.FAULTS_MAX
    assert isinstance(order(hand, m.SetFault(1, GOOD["skew"], 1_000)), m.Failed)


def test_an_order_that_comes_too_late_is_not_obeyed() -> None:
    """Its deadline is by this node's steady clock, as that of a put; an order without one is always in time."""
    hand = Hand()
    breakable = hand.node.fault_desk.breakable = Breakable()
    assert isinstance(order(hand, m.SetFault(1, GOOD["drop"], 1_000, deadline=hand.wall + 50)), m.FaultList)
    breakable.faults = ()

    late = order(hand, m.SetFault(2, GOOD["drop"], 1_000, deadline=hand.local.steady - 1))

    assert isinstance(late, m.Failed)
    assert (late.error, late.maybe_applied) == (m.Error.REFUSED, False)
    assert breakable.faults == ()


# ---- blast radius ------------------------------------------------------------------------------

FIVE = ring_of("n1 n2 n3 n4 n5", q=64)
ALL = {N1, N2, N3, N4, N5}


def test_a_partition_leaves_a_quorum_on_one_side_or_the_other() -> None:
    """Two and three: no key is out of reach from everywhere, but each side loses some, and the margin goes."""
    radius = blast(FIVE, ALL, [], Fault("x", "partition", (N1, N2), (N3, N4, N5)))

    assert radius.risk == ""
    assert radius.before.margin == 1.0
    assert radius.after.margin < 1.0
    assert [side.nodes for side in radius.after.sides] == [("n1", "n2"), ("n3", "n4", "n5")]
    assert sum(side.short for side in radius.after.sides) == 64


def test_what_takes_a_quorum_from_everywhere_is_told() -> None:
    """A third part, a second dead disk, a delay nobody waits for: partitions by number."""
    two = Fault("x", "partition", (N1, N2), (N3, N4, N5))
    assert "would lose their quorum" in blast(FIVE, ALL, [two], Fault("y", "partition", (N3,), (N4, N5))).risk
    assert blast(FIVE, ALL, [], Fault("x", "full-disk", (N1,))).risk == ""
    dead = blast(FIVE, ALL - {N2}, [], Fault("x", "fail-fsync", (N1,)))
    both = {p for p, owners in enumerate(FIVE.owners) if {0, 1} <= set(owners)}
    assert set(dead.after.lost) == both
    assert reach(FIVE, ALL, [Fault("x", "delay", (N1,), (), 5_000)]).sides[0].nodes == ("n1",)
    assert reach(FIVE, ALL, [Fault("x", "delay", (N1,), (), 50)]).sides[0].nodes == tuple(sorted(ALL))
    skewed = reach(FIVE, ALL, [Fault("x", "skew", (N1,), (), 120_000)])
    assert (skewed.lost, skewed.sides[0].nodes) == ((), ("n2", "n3", "n4", "n5"))


def test_every_good_fault_is_good() -> None:
    """By the rule that both the node and the console keep."""
    assert {kind: problem_of(fault, ALL) for kind, fault in GOOD.items()} == dict.fromkeys(KINDS, "")
