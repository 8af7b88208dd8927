"""The client's session, driven by hand: where requests go, and what is tried again."""

from __future__ import annotations

import pytest

from kvctl.errors import Conflict, Indeterminate, NoEndpoint, Overloaded, Unavailable
from kvctl.session import Call, Session
from kvnode.core.bootstrap import found, parse_members
from kvnode.protocol.messages import Error, Failed, Get, Got, Hello, Message, Put, Welcome, Written
from kvnode.protocol.ring import Ring
from kvnode.protocol.types import EVENTUAL, QUORUM, STRONG, NodeId

RING = found("test", parse_members("n1=127.0.0.1:1,n2=127.0.0.1:2,n3=127.0.0.1:3,n4=127.0.0.1:4"), 3, 16)


def welcome(ring: Ring = RING, rid: int = 0) -> Welcome:
    return Welcome(rid, NodeId("n1"), 1, ring, "fsync", 10_000, 2_000, "0", 1_795_000_000_000)


def session() -> Session:
    made = Session(("127.0.0.1:1",), 1 << 32)
    made.tick(10.0)
    made.greet()
    (hello,) = made.take()["127.0.0.1:1"]
    assert isinstance(hello, Hello)
    made.receive("127.0.0.1:1", [welcome(rid=hello.rid)])
    return made


def owners(key: bytes) -> list[str]:
    from kvnode.protocol.ring import partition_of

    return [RING.members[i].address for i in RING.owners[partition_of(key, RING.q)]]


def start(s: Session, ask: Get | Put, seconds: float = 2.0) -> Call:
    call = Call(ask, s.now + seconds)
    s.start(call)
    return call


def sent(s: Session) -> tuple[str, Message]:
    """The one request that is to be sent now; asking a node for the time does not count."""
    out = [(a, m) for a, messages in s.take().items() for m in messages if not isinstance(m, Hello)]
    assert len(out) == 1
    return out[0]


def get(s: Session, key: bytes = b"k") -> Get:
    return Get(s.next_rid(), key, 0, EVENTUAL, 2000)


def put(s: Session, mode: int = EVENTUAL, value: bytes | None = b"v", context: bytes = b"") -> Put:
    return Put(s.next_rid(), b"k", value, 0, mode, 2000, context)


def test_a_key_goes_straight_to_its_first_owner() -> None:
    """No proxy: the client knows the ring."""
    s = session()

    for i in range(50):
        key = b"key-%d" % i
        start(s, get(s, key))
        address, ask = sent(s)

        assert address == owners(key)[0]
        assert isinstance(ask, Get)


def test_a_reply_ends_its_call_and_only_its_call() -> None:
    """Replies are paired by request id, in any order."""
    s = session()
    first, second = start(s, get(s)), start(s, get(s))

    s.receive("x", [Got(second.ask.rid, 1, b""), Got(999, 1, b"")])

    assert isinstance(second.outcome, Got)
    assert first.outcome is None
    assert s.in_flight == 1


def test_a_get_whose_owner_is_lost_goes_to_the_next_one() -> None:
    """Reads are safe to repeat: at the other owners, then at any member, which may reach one."""
    s = session()
    start(s, get(s))
    tried = []

    for _ in range(4):
        address, _ = sent(s)
        tried.append(address)
        s.lost(address)

    assert tried[:3] == owners(b"k")
    assert sorted(tried) == sorted(m.address for m in RING.members)


def test_while_no_node_can_be_reached_a_read_waits_until_its_deadline() -> None:
    """Nodes that restart are back in a moment: a long-lived client does not fail meanwhile."""
    s = session()
    back, never = start(s, get(s)), start(s, get(s), seconds=1.0)
    for _ in range(4):
        for address in s.take():
            s.lost(address)
    assert s.in_flight == 2
    assert not s.has_mail

    s.tick(s.now + 0.6)
    for address, asks in s.take().items():
        for ask in asks:
            if ask.rid == back.ask.rid:  # type: ignore[union-attr]
                s.receive(address, [Got(ask.rid, 1, b"")])  # type: ignore[union-attr]
    assert isinstance(back.outcome, Got)
    while never.outcome is None:
        s.tick(s.now + 0.1)
        for address, asks in s.take().items():
            s.lost(address, asks)

    assert s.now == pytest.approx(11.0, abs=0.7)
    assert never.outcome.applied == "no"  # type: ignore[union-attr]


def test_an_eventual_put_is_retried_once_and_says_so() -> None:
    """The second try may find the first applied, so it covers nothing it did not cover."""
    s = session()
    call = start(s, put(s))
    first, ask = sent(s)
    assert isinstance(ask, Put)
    assert not ask.retry

    s.lost(first)
    second, again = sent(s)

    assert isinstance(again, Put)
    assert again.retry
    assert again.rid != ask.rid
    assert second == owners(b"k")[1]
    s.lost(second)
    assert isinstance(call.outcome, Indeterminate)
    assert call.outcome.applied == "maybe"


@pytest.mark.parametrize(
    ("mode", "value", "context"), [(QUORUM, b"v", b""), (QUORUM, b"v", b"c"), (EVENTUAL, None, b"")]
)
def test_what_may_have_been_applied_and_is_not_safe_to_repeat_is_told_as_indeterminate(
    mode: int, value: bytes | None, context: bytes
) -> None:
    """Quorum writes and blind deletes are never sent twice."""
    s = session()
    call = start(s, put(s, mode=mode, value=value, context=context))
    address, _ = sent(s)

    s.lost(address)

    assert not s.has_mail
    assert isinstance(call.outcome, Indeterminate)
    assert call.outcome.applied == "maybe"


def test_a_refusal_that_left_no_trace_is_tried_at_the_next_owner() -> None:
    """A coordinator cut off from its peers does not fail the client."""
    s = session()
    call = start(s, put(s, mode=QUORUM))
    for owner in owners(b"k")[:2]:
        address, ask = sent(s)
        assert address == owner
        s.receive(address, [Failed(ask.rid, 1, Error.UNAVAILABLE, "cut off")])  # type: ignore[union-attr]

    address, ask = sent(s)
    s.receive(address, [Failed(ask.rid, 1, Error.UNAVAILABLE, "cut off")])  # type: ignore[union-attr]

    assert isinstance(call.outcome, Unavailable)


def test_a_refusal_that_may_have_left_a_trace_is_final() -> None:
    """Some owners hold the write: the client must hear of it."""
    s = session()
    call = start(s, put(s))
    address, ask = sent(s)

    s.receive(address, [Failed(ask.rid, 1, Error.UNAVAILABLE, "w=2", "", True, 1, 2)])  # type: ignore[union-attr]

    assert isinstance(call.outcome, Unavailable)
    assert (call.outcome.applied, call.outcome.acked) == ("maybe", 1)


def test_what_was_never_sent_was_not_applied() -> None:
    """A connection that is down takes nothing: even a quorum write may go elsewhere."""
    s = session()
    call = start(s, put(s, mode=QUORUM))
    for owner in owners(b"k"):
        address, ask = sent(s)
        assert address == owner
        s.lost(address, [ask])
    while call.outcome is None:
        for address, asks in s.take().items():
            s.lost(address, asks)
        s.tick(s.now + 0.1)

    assert isinstance(call.outcome, Unavailable)
    assert call.outcome.applied == "no"


def test_an_owner_known_to_be_down_is_not_the_second_opinion() -> None:
    """A refusal by one coordinator is not turned into a doubt by asking a dead one."""
    s = session()
    first, second, third = owners(b"k")
    s.lost(second)
    s.lost(third)
    call = start(s, put(s))
    address, ask = sent(s)
    assert address == first

    s.receive(first, [Failed(ask.rid, 1, Error.UNAVAILABLE, "w=3")])  # type: ignore[union-attr]

    assert isinstance(call.outcome, Unavailable)


def test_an_overloaded_node_is_asked_again_later_and_later() -> None:
    """Back off instead of hammering; give up at the deadline."""
    s = session()
    call = start(s, put(s), seconds=0.1)
    pauses = []
    while call.outcome is None:
        address, ask = sent(s)
        s.receive(address, [Failed(ask.rid, 1, Error.OVERLOADED, "busy")])  # type: ignore[union-attr]
        asked = s.now
        while call.outcome is None and not s.has_mail:
            s.tick(round(s.now + 0.005, 3))
        pauses.append(round(s.now - asked, 3))

    assert pauses[0] < pauses[1]
    assert isinstance(call.outcome, Overloaded)


def test_a_newer_epoch_in_a_reply_makes_the_client_learn_the_ring() -> None:
    """Once, from whoever answered."""
    s = session()
    first, second = start(s, get(s)), start(s, get(s))
    s.take()

    s.receive("127.0.0.1:2", [Got(first.ask.rid, 7, b""), Got(second.ask.rid, 7, b"")])

    out = [m for messages in s.take().values() for m in messages]
    assert len(out) == 1
    assert isinstance(out[0], Hello)


def test_a_refusal_of_a_later_epoch_teaches_the_ring_as_well() -> None:
    """Who has left the cluster may say no more than that."""
    s = session()
    call = start(s, get(s))
    s.take()

    s.receive("127.0.0.1:2", [Failed(call.ask.rid, 7, Error.CONFLICT, "no")])

    assert [type(m) for m in s.take()["127.0.0.1:2"]] == [Hello]


def test_a_question_for_the_ring_that_is_lost_is_asked_again() -> None:
    """The node that was asked may be the one that leaves."""
    s = session()
    for later in (0.0, 0.1, 0.6):
        s.now = 20.0 + later
        call = start(s, get(s))
        s.take()
        s.receive("127.0.0.1:2", [Got(call.ask.rid, 7, b"")])
        asked = [m for messages in s.take().values() for m in messages]
        assert len(asked) == (later != 0.1)


def test_requests_go_by_the_new_ring_once_it_is_known() -> None:
    """To owners that were no members before, and no more to those that have left."""
    import msgspec

    s = session()
    moved = found("test", parse_members("n2=127.0.0.1:2,n5=127.0.0.1:5,n6=127.0.0.1:6"), 3, 16)
    s.receive("127.0.0.1:2", [welcome(msgspec.structs.replace(moved, epoch=8))])

    for i in range(30):
        start(s, get(s, b"key-%d" % i))
        assert sent(s)[0] in {"127.0.0.1:2", "127.0.0.1:5", "127.0.0.1:6"}


def test_a_silent_node_costs_a_part_of_the_time_and_the_next_is_asked() -> None:
    """A paused process keeps its connection: only its silence gives it away."""
    s = session()
    call = start(s, put(s))
    silent, _ = sent(s)

    s.tick(s.now + 0.7)
    second, again = sent(s)

    assert (silent, second) == tuple(owners(b"k")[:2])
    assert isinstance(again, Put)
    assert again.retry
    s.receive(second, [Written(again.rid, 1, 2, 2, 5, 6, {})])
    assert isinstance(call.outcome, Written)
    start(s, get(s))
    assert sent(s)[0] == second, "the silent one is the last choice for a while"
    s.tick(s.now + 4.0)
    start(s, get(s))
    assert sent(s)[0] == silent


def test_a_write_that_must_not_be_repeated_waits_for_its_node_to_the_end() -> None:
    """A little longer than the node's own deadline, then the client says that it does not know."""
    s = session()
    call = start(s, put(s, mode=QUORUM))
    sent(s)

    s.tick(s.now + 1.0)
    s.tick(s.now + 1.1)
    assert call.outcome is None
    assert not s.has_mail
    s.tick(s.now + 1.0)

    assert isinstance(call.outcome, Indeterminate)
    assert call.outcome.applied == "maybe"


def test_without_any_answer_there_is_no_endpoint() -> None:
    """Before a ring is known, a failure is about reaching the cluster at all."""
    s = Session(("127.0.0.1:1",), 0)
    s.tick(1.0)
    call = Call(Hello(s.next_rid()), 2.0)
    s.start(call)

    s.lost("127.0.0.1:1")

    assert isinstance(call.outcome, NoEndpoint)


def test_an_older_ring_never_replaces_a_newer_one() -> None:
    """Epochs only grow."""
    import msgspec

    s = session()
    newer = msgspec.structs.replace(RING, epoch=9)

    s.receive("x", [welcome(newer)])
    s.receive("x", [welcome(RING)])

    assert s.ring is not None
    assert s.ring.epoch == 9


def test_written_ends_a_put() -> None:
    """The common case."""
    s = session()
    call = start(s, put(s))
    address, ask = sent(s)

    s.receive(address, [Written(ask.rid, 1, 2, 2, 5, 6, {})])  # type: ignore[union-attr]

    assert isinstance(call.outcome, Written)
    assert s.in_flight == 0


def test_a_put_is_dated_by_the_clock_of_the_node_it_goes_to() -> None:
    """The first put asks for the time; the next ones carry a deadline that node can judge."""
    s = session()
    key, first = next((k, o) for k in (b"%d" % i for i in range(99)) if (o := owners(k)[0]) != "127.0.0.1:1")
    start(s, Put(s.next_rid(), key, b"v", 0, EVENTUAL, 2000))
    hello, ask = s.take()[first]
    assert isinstance(hello, Hello)
    assert isinstance(ask, Put)
    assert ask.deadline == 0
    s.receive(first, [welcome(rid=hello.rid)])

    start(s, Put(s.next_rid(), key, b"v", 0, EVENTUAL, 2000), seconds=2.0)

    _, ask = sent(s)
    assert isinstance(ask, Put)
    assert ask.deadline == 1_795_000_000_000 + 2_000


def test_the_time_in_an_answer_that_nobody_read_for_long_is_not_believed() -> None:
    """A program that pauses for eight seconds must not date its next puts eight seconds too early."""
    s = session()
    key, first = next((k, o) for k in (b"%d" % i for i in range(99)) if (o := owners(k)[0]) != "127.0.0.1:1")
    start(s, Put(s.next_rid(), key, b"v", 0, EVENTUAL, 2000))
    hello, _ = s.take()[first]
    assert isinstance(hello, Hello)
    s.tick(s.now + 8.0)
    s.receive(first, [welcome(rid=hello.rid)])

    start(s, Put(s.next_rid(), key, b"v", 0, EVENTUAL, 2000))

    again, ask = s.take()[first]
    assert isinstance(again, Hello)
    assert isinstance(ask, Put)
    assert ask.deadline == 0


def test_a_refused_put_that_was_tried_before_may_have_been_applied() -> None:
    """The second owner left no trace; the first is not known to."""
    s = session()
    call = start(s, put(s))
    first, _ = sent(s)
    s.lost(first)
    second, again = sent(s)

    s.receive(second, [Failed(again.rid, 1, Error.CONFLICT, "no")])  # type: ignore[union-attr]

    assert isinstance(call.outcome, Conflict)
    assert call.outcome.applied == "maybe"


# ---- mode strong: whoever is reachable ---------------------------------------------------------


def strong(s: Session) -> Get:
    return Get(s.next_rid(), b"k", 0, STRONG, 2000)


def greeted(s: Session) -> dict[str, int]:
    """Who is asked for a first word now, and under which id."""
    return {a: m.rid for a, messages in s.take().items() for m in messages if isinstance(m, Hello)}


def test_a_strong_request_waits_a_moment_for_the_first_owner_and_then_goes_to_one_that_answers() -> None:
    """A new client cannot know who is gone: dialling that one would take a second, any other owner will do."""
    s = session()
    first, second, _ = owners(b"k")
    start(s, strong(s))
    asked = greeted(s)
    assert set(asked) == set(owners(b"k")) - {"127.0.0.1:1"}
    s.receive(second, [welcome(rid=asked[second])])

    s.tick(s.now + 0.05)
    assert not s.has_mail
    s.tick(s.now + 0.15)
    assert sent(s)[0] == second
    s.receive(first, [welcome(rid=asked[first])])
    start(s, strong(s))
    assert sent(s)[0] == first, "it has spoken since"


def test_a_refusal_by_the_only_owner_in_reach_ends_a_strong_request() -> None:
    """Nobody else answers: the others are not dialled until the deadline."""
    s = session()
    _, _, third = owners(b"k")
    call = start(s, strong(s))
    asked = greeted(s)
    s.receive(third, [welcome(rid=asked.get(third, 0))])
    s.tick(s.now + 0.2)
    address, ask = sent(s)
    assert address == third

    s.receive(third, [Failed(ask.rid, 1, Error.UNAVAILABLE, "no majority")])  # type: ignore[union-attr]
    for _ in range(30):
        for address, messages in s.take().items():  # a member that is no owner, but answers, is asked too
            for m in messages:
                if isinstance(m, Get):
                    s.receive(address, [Failed(m.rid, 1, Error.UNAVAILABLE, "no owner")])
        s.tick(s.now + 0.01)

    assert isinstance(call.outcome, Unavailable)
    assert s.now < 10.6
