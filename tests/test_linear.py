"""The linearizability checker: small stories, then against every order there is, then large."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from itertools import permutations

from hypothesis import given, settings
from hypothesis import strategies as st

from kvnode.sim.linear import ANY, FOREVER, RegisterOp, linearizable, step


def op(client: str, what: str, invoked: int, ended: int, **more: object) -> RegisterOp:
    """`get` or `put`, a space, and a value; `-` for none."""
    kind, value = what.split()
    return RegisterOp(
        number=invoked, client=client, reads=kind == "get", value=None if value == "-" else value.encode(),
        invoked=invoked, ended=ended, **more,  # type: ignore[arg-type]
    )  # fmt: skip


def test_a_read_beside_a_write_may_show_either_but_two_reads_may_not_go_back() -> None:
    """The example: while x is put, one reader sees nothing; once one has seen x, nobody sees nothing."""
    put = op("ann", "put x", 0, 10)
    before, during = op("bob", "get -", 1, 2), op("cid", "get x", 3, 4)

    assert linearizable([put, before, during]) is True
    assert linearizable([put, op("bob", "get x", 1, 2), op("cid", "get -", 3, 4)]) is False
    assert linearizable([put, op("bob", "get -", 11, 12)]) is False


def test_what_nobody_was_told_of_may_have_happened_late_or_never() -> None:
    """A timeout is a maybe: the value may show long after; and it may never show; but not before it was asked."""
    lost = op("ann", "put x", 5, FOREVER, sure=False)

    assert linearizable([lost, op("bob", "get -", 6, 7), op("bob", "get x", 100, 101)]) is True
    assert linearizable([lost, op("bob", "get -", 100, 101)]) is True
    assert linearizable([lost, op("bob", "get x", 1, 2)]) is False
    assert linearizable([lost, op("bob", "get x", 6, 7), op("bob", "get -", 8, 9)]) is False


def test_of_two_who_expect_the_same_one_succeeds() -> None:
    """Compare-and-set: both cannot have found nothing; one was told so."""
    ann, bob = op("ann", "put x", 0, 5, expects=None), op("bob", "put y", 1, 6, expects=None)

    assert linearizable([ann, bob]) is False
    assert linearizable([ann, op("bob", "put y", 1, 6, expects=None, failed=True)]) is True
    assert linearizable([op("bob", "put y", 1, 6, expects=None, failed=True)]) is False


def test_a_write_is_done_once() -> None:
    """Seen, deleted, seen again: there was one put."""
    put, gone = op("ann", "put x", 0, 9), op("bob", "put -", 3, 4)
    assert linearizable([put, op("cid", "get x", 1, 2), gone, op("cid", "get x", 5, 6)]) is False
    lost = op("ann", "put x", 0, FOREVER, sure=False)
    assert linearizable([lost, op("cid", "get x", 1, 2), gone, op("cid", "get x", 5, 6)]) is False


# ---- against every order there is --------------------------------------------------------------


def by_brute_force(ops: Sequence[RegisterOp]) -> bool:
    """Try all orders of all that was told and of any of the rest."""
    sure, unsure = [o for o in ops if o.sure], [o for o in ops if not o.sure]
    for chosen in range(1 << len(unsure)):
        done = sure + [o for i, o in enumerate(unsure) if chosen >> i & 1]
        if any(explains(order) for order in permutations(done)):
            return True
    return False


def explains(order: Sequence[RegisterOp]) -> bool:
    value = None
    for i, one in enumerate(order):
        if any(later.ended < one.invoked for later in order[i + 1 :]):
            return False
        allowed, value = step(one, value)
        if not allowed:
            return False
    return True


VALUES = [b"x", b"y", None]


@st.composite
def histories(draw: st.DrawFn) -> list[RegisterOp]:
    """A few operations that overlap in every way; each value is put once, or is a delete."""
    ops = []
    fresh = [b"x", b"y", b"z", b"w"]
    for number in range(draw(st.integers(1, 6))):
        invoked = draw(st.integers(0, 9))
        ended = invoked + draw(st.integers(0, 6))
        if draw(st.booleans()):
            ops.append(RegisterOp(number=number, client="c", reads=True, value=draw(st.sampled_from(VALUES)),
                                  invoked=invoked, ended=ended))  # fmt: skip
            continue
        value = draw(st.sampled_from([*fresh[:1], None]))
        if value is not None:
            fresh.pop(0)
        sure = draw(st.integers(0, 2)) > 0
        expects = draw(st.sampled_from([ANY, ANY, b"x", b"y", None]))
        failed = sure and expects != ANY and draw(st.booleans())
        ops.append(RegisterOp(number=number, client="c", reads=False, value=value, expects=expects, failed=failed,
                              sure=sure, invoked=invoked, ended=ended if sure else FOREVER))  # fmt: skip
    return ops


@settings(max_examples=1_000, deadline=None)
@given(histories())
def test_it_says_what_trying_every_order_says(ops: list[RegisterOp]) -> None:
    """On every small history."""
    assert linearizable(ops) is by_brute_force(ops)


# ---- large ones --------------------------------------------------------------------------------


def long_history(rng: random.Random, length: int, unknown: float, clients: int = 6) -> list[RegisterOp]:
    """What clients of a real register would see: each operation takes effect at some moment within its time."""
    ops: list[RegisterOp] = []
    value: bytes | None = None
    free_at = [0] * clients
    moments = []
    for number in range(length):
        client = min(range(clients), key=free_at.__getitem__)
        invoked = free_at[client] + rng.randint(1, 5)
        at = invoked + rng.randint(0, 20)
        free_at[client] = at + rng.randint(1, 20)
        moments.append((at, number, client, invoked, free_at[client]))
    for at, number, client, invoked, ended in sorted(moments):
        name = f"c{client}"
        if rng.random() < 0.45:
            ops.append(
                RegisterOp(number=number, client=name, reads=True, value=value, invoked=invoked, ended=ended)
            )
            continue
        expects = rng.choice((ANY, ANY, value, b"stale"))
        new = None if rng.random() < 0.15 else b"%d" % number
        sure, failed = rng.random() >= unknown, expects not in (ANY, value)
        if failed and not sure:
            continue
        if failed or sure or rng.random() < 0.5:
            value = value if failed else new
        ops.append(RegisterOp(number=number, client=name, reads=False, value=new, expects=expects, failed=failed,
                              sure=sure, invoked=invoked, ended=ended if sure else FOREVER))  # fmt: skip
        assert at >= invoked
    return ops


def test_thousands_of_operations_with_hundreds_of_unknown_ones_are_judged() -> None:
    """Near linear in the operations: a run of ten minutes on one key, a tenth of its writes unknown."""
    for seed in range(3):
        ops = long_history(random.Random(seed), 2_000, unknown=0.1)
        assert sum(not o.sure for o in ops) > 50
        assert linearizable(ops) is True


def test_one_wrong_read_among_thousands_is_found() -> None:
    """Whichever it is."""
    for seed in range(10):
        rng = random.Random(seed)
        ops = long_history(rng, 1_000, unknown=0.05)
        reads = [i for i, o in enumerate(ops) if o.reads and o.value is not None and o.invoked > 1_000]
        wrong = rng.choice(reads)
        old = next(o.value for o in ops if not o.reads and o.sure and not o.failed and o.value is not None)
        ops[wrong] = RegisterOp(number=ops[wrong].number, client="c", reads=True, value=old,
                                invoked=ops[wrong].invoked, ended=ops[wrong].ended)  # fmt: skip
        assert linearizable(ops) is False


def test_what_takes_too_long_is_neither() -> None:
    """Unknown, and that is no pass; in bounded time."""
    ops = long_history(random.Random(1), 200, unknown=0.0, clients=12)
    began = time.process_time()
    assert linearizable(ops, most=50) is None
    assert time.process_time() - began < 5
