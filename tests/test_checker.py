"""The checker: each promise broken once, in a history made by hand, and kept once.

The first test is the example. Time is whatever the numbers say; `ann` and `bob` are clients, n1..n3 owners.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from kvnode.protocol.types import Past, Record, Version
from kvnode.sim.check import CLAIMS, IN_THE_END, check, judge
from kvnode.sim.history import Dot, Op, Outcome
from kvnode.sim.story import KeyStory

KEY = b"k"
A, B, C = 1, 2, 3
"""Actors."""


def wrote(
    number: int, dot: tuple[int, int], past: Past | None = None, value: bytes | None = b"", **more: Any
) -> Op:
    """An acknowledged write: asked for at ten times its number, told five later."""
    given = {
        "client": "ann", "invoked": number * 10, "ended": number * 10 + 5, "outcome": Outcome.OK, "acked": 2,
        "value": b"v%d" % number if value == b"" else value,
    }  # fmt: skip
    return Op(number=number, key=KEY, reads=False, dot=Dot(*dot), past=past or {}, **(given | more))


def unsure(number: int, **more: Any) -> Op:
    """A write nobody can say anything of."""
    return Op(
        number=number, client="ann", key=KEY, reads=False, value=b"v%d" % number, invoked=number * 10, **more
    )


def read(number: int, *shown: Version, **more: Any) -> Op:
    """An answered read."""
    given = {"client": "ann", "invoked": number * 10, "ended": number * 10 + 5, "outcome": Outcome.OK}
    return Op(number=number, key=KEY, reads=True, shown=shown, **(given | more))


def v(number: int, dot: tuple[int, int], past: Past | None = None) -> Version:
    """The version that write `number` made."""
    return Version(dot[0], dot[1], past or {}, b"v%d" % number)


def dead(dot: tuple[int, int], past: Past | None = None) -> Version:
    """A tombstone."""
    return Version(dot[0], dot[1], past or {}, None)


def held(*record: Version) -> dict[bytes, dict[str, Record]]:
    """All owners hold the same."""
    return {KEY: {"n1": record, "n2": record, "n3": record}}


def claims(ops: list[Op], final: dict[bytes, dict[str, Record]], *, quiet: bool = True) -> set[str]:
    """The claims that are broken. `quiet`: all is mended, and a read of all owners showed what n1 holds."""
    last = {KEY: final[KEY]["n1"]} if quiet else None
    return {violation.claim for violation in check(ops, final, last)}


SAW_1 = {"given": {A: 1}, "saw": frozenset({Dot(A, 1)})}

CLEAN: dict[str, tuple[list[Op], dict[bytes, dict[str, Record]]]] = {
    "a write and a read of it": ([wrote(1, (A, 1)), read(2, v(1, (A, 1)), quorum=True)], held(v(1, (A, 1)))),
    "written over by one who saw it": (
        [wrote(1, (A, 1)), wrote(2, (B, 2), {A: 1}, **SAW_1), read(3, v(2, (B, 2), {A: 1}), quorum=True)],
        held(v(2, (B, 2), {A: 1})),
    ),
    "two siblings of two who knew nothing": (
        [wrote(1, (A, 1)), wrote(2, (B, 2)), read(3, v(1, (A, 1)), v(2, (B, 2)))],
        held(v(1, (A, 1)), v(2, (B, 2))),
    ),
    "deleted by one who saw it, and written anew": (
        [wrote(1, (A, 1)), wrote(2, (B, 2), {A: 1}, None, **SAW_1), wrote(3, (C, 3), {A: 1, B: 2})],
        held(v(3, (C, 3), {A: 1, B: 2})),
    ),
    "covered through one in between, whose reader's past was pruned": (
        [
            wrote(1, (A, 1), quorum=True),
            wrote(2, (B, 2), {A: 1}, quorum=True, **SAW_1),
            wrote(3, (C, 3), {B: 2}, given={B: 2}, saw=frozenset({Dot(B, 2)}), quorum=True),
            read(4, v(3, (C, 3), {B: 2}), quorum=True),
        ],
        held(v(3, (C, 3), {B: 2})),
    ),
    "an unsure write that was done, and one that was not": (
        [unsure(1), unsure(2), read(3, v(1, (A, 1)))],
        held(v(1, (A, 1))),
    ),
    "an eventual read of the past": (
        [wrote(1, (A, 1)), wrote(2, (B, 2), {A: 1}, **SAW_1), read(3, v(1, (A, 1)))],
        held(v(2, (B, 2), {A: 1})),
    ),
    "an eventual read of what was deleted": (
        [wrote(1, (A, 1)), wrote(2, (B, 2), {A: 1}, None, **SAW_1), read(3, v(1, (A, 1)))],
        held(dead((B, 2), {A: 1})),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CLEAN)
def test_a_clean_history_passes(name: str) -> None:
    """What the store may do is no violation."""
    ops, final = CLEAN[name]
    assert check(ops, final, {KEY: final[KEY]["n1"]}) == []
    judged = judge(ops, final, {KEY: final[KEY]["n1"]})
    assert judged.violations == []


Q = {"quorum": True}
BROKEN: dict[str, list[tuple[list[Op], dict[bytes, dict[str, Record]]]]] = {
    "one_dot_one_value": [([wrote(1, (A, 1)), wrote(2, (A, 1))], held(v(1, (A, 1))))],
    "no_invention": [
        ([wrote(1, (A, 1)), read(2, v(9, (B, 9)))], held(v(1, (A, 1)))),
        ([unsure(1, outcome=Outcome.FAILED)], held(v(1, (A, 1)))),
        ([read(1, v(2, (A, 1))), wrote(2, (A, 1))], held(v(2, (A, 1)))),
    ],
    "past_is_given": [
        ([wrote(1, (A, 1)), wrote(2, (B, 2), {A: 1}, given={}, saw=frozenset())], held(v(2, (B, 2), {A: 1}))),
        ([wrote(1, (A, 1)), wrote(2, (B, 2), {A: 1}, covers_nothing=True)], held(v(2, (B, 2), {A: 1}))),
    ],
    "no_lost_write": [
        ([wrote(1, (A, 1)), wrote(2, (B, 2))], held(v(2, (B, 2)))),
        ([wrote(1, (A, 1)), wrote(2, (B, 2), {A: 1}, given={A: 1}, saw=frozenset({Dot(A, 9)}))],
         held(v(2, (B, 2), {A: 1}))),
        ([wrote(1, (B, 2), {A: 1}), wrote(2, (A, 1))], held(v(1, (B, 2), {A: 1}))),  # blind, over before it
        ([unsure(1), read(2, v(1, (A, 1)))], {KEY: {"n1": (), "n2": (), "n3": ()}}),
    ],
    "told_is_durable": [
        ([wrote(1, (A, 1), held_then=((v(1, (A, 1)),), (), ()))], held(v(1, (A, 1)))),
        ([wrote(1, (A, 1), held_then=((v(1, (A, 1)),), (), ()), kept_then=((v(1, (A, 1)),),), **Q)],
         held(v(1, (A, 1)))),
        ([unsure(1), read(2, v(1, (A, 1)), held_then=((), (), ()))], held(v(1, (A, 1)))),
    ],
    "siblings_are_concurrent": [
        ([wrote(1, (A, 1)), wrote(2, (B, 2), {A: 1}, **SAW_1), read(3, v(1, (A, 1)), v(2, (B, 2), {A: 1}))],
         held(v(2, (B, 2), {A: 1}))),
        # The clock of the second forgot the first, but its writer had seen it.
        ([wrote(1, (A, 1)), wrote(2, (B, 2), {}, **SAW_1), read(3, v(1, (A, 1)), v(2, (B, 2)))],
         held(v(1, (A, 1)), v(2, (B, 2)))),
    ],
    "quorum_reads_see": [
        ([wrote(1, (A, 1), **Q), read(2, client="bob", **Q)], held(v(1, (A, 1)))),
        ([wrote(1, (A, 1), **Q), wrote(2, (A, 3), **Q), read(3, v(2, (A, 3)), client="bob", **Q)],
         held(v(1, (A, 1)), v(2, (A, 3)))),  # a dot covers nothing by itself
    ],
    "read_your_writes": [([wrote(1, (A, 1), **Q), read(2, **Q)], held(v(1, (A, 1))))],
    "monotonic_reads": [([unsure(1), read(2, v(1, (A, 1)), **Q), read(3, **Q)], held(v(1, (A, 1))))],
    "deletes_are_seen": [
        ([wrote(1, (A, 1)), wrote(2, (B, 2), {A: 1}, None, **SAW_1, **Q), read(3, v(1, (A, 1)), **Q)],
         held(dead((B, 2), {A: 1}))),
    ],
    "deletes_stay": [
        ([wrote(1, (A, 1)), wrote(2, (B, 2), {A: 1}, None, **SAW_1)], held(v(1, (A, 1)))),
        # The tombstone was pruned from the past of what was written over it, and one owner had kept the value.
        ([wrote(1, (A, 1)), wrote(2, (B, 2), {A: 1}, None, **SAW_1), wrote(3, (C, 3), {B: 2})],
         held(v(1, (A, 1)), v(3, (C, 3), {B: 2}))),
    ],
    "replicas_agree": [([wrote(1, (A, 1))], {KEY: {"n1": (v(1, (A, 1)),), "n2": (v(1, (A, 1)),), "n3": ()}})],
    "merge_is_read": [([wrote(1, (A, 1))], {KEY: {"n1": (), "n2": (v(1, (A, 1)),)}})],
}  # fmt: skip


def cases() -> Iterator[Any]:
    for claim, histories in BROKEN.items():
        for i, history in enumerate(histories):
            yield pytest.param(claim, *history, id=f"{claim}-{i}")


@pytest.mark.parametrize(("claim", "ops", "final"), cases())
def test_a_broken_promise_is_found(claim: str, ops: list[Op], final: dict[bytes, dict[str, Record]]) -> None:
    """Each kind of violation, planted by hand."""
    assert claim in claims(ops, final)


def test_every_claim_has_a_history_that_breaks_it() -> None:
    """A claim that nothing can break says nothing."""
    assert set(BROKEN) == CLAIMS.keys() | IN_THE_END.keys() | {"merge_is_read"}


def test_what_is_not_over_is_not_judged_by_its_end() -> None:
    """Without a last read, owners may differ and a late copy may still be around."""
    ops = [wrote(1, (A, 1)), wrote(2, (B, 2), {A: 1}, None, **SAW_1)]
    final = {KEY: {"n1": (dead((B, 2), {A: 1}),), "n2": (v(1, (A, 1)),)}}
    assert claims(ops, final, quiet=False) == set()
    assert {"deletes_stay", "replicas_agree"} <= claims(ops, final)


def test_what_could_not_be_judged_is_no_pass() -> None:
    """A key nobody could read in the end; a store that acknowledged nothing; a history found not linearizable."""
    ops, final = CLEAN["a write and a read of it"]
    assert not judge(ops, final, {}).passed
    assert not judge([unsure(1)], held(), {KEY: ()}).passed
    assert not judge(ops, final, {KEY: final[KEY]["n1"]}, linearizable=False).passed
    assert judge(ops, final, {KEY: final[KEY]["n1"]}, linearizable=True).passed
    assert judge(ops, final, {KEY: final[KEY]["n1"]}).linearizable is None


def test_stale_reads_and_siblings_are_counted() -> None:
    """A read of the past in `eventual` is no violation, but it is told."""
    ops, final = CLEAN["an eventual read of the past"]
    assert judge(ops, final, {KEY: final[KEY]["n1"]}).stale_reads == 1
    ops, final = CLEAN["two siblings of two who knew nothing"]
    assert judge(ops, final, {KEY: final[KEY]["n1"]}).max_siblings == 2


def test_the_reach_of_a_version_goes_through_those_in_between() -> None:
    """A past that was pruned still covers what it once covered."""
    ops = [wrote(1, (A, 1)), wrote(2, (B, 2), {A: 1}), wrote(3, (C, 3), {B: 2})]
    assert KeyStory(KEY, ops, {}).reach[Dot(C, 3)] == {A: 1, B: 2}


def long_history(writes: int, keys: int) -> tuple[list[Op], dict[bytes, dict[str, Record]], dict[bytes, Record]]:
    """Each write over the last but one, so two siblings stand; each is read at once. Pasts are pruned."""
    ops: list[Op] = []
    final: dict[bytes, dict[str, Record]] = {}
    for k in range(keys):
        key, stand = b"k%d" % k, list[Version]()
        for i in range(1, writes // keys + 1):
            at, past = i * 100, {stand[0].actor: stand[0].time} if len(stand) > 1 else {}
            saw = frozenset({Dot(stand[0].actor, stand[0].time)}) if past else frozenset[Dot]()
            made = Version(1 + i % 2 + 2 * (i // 100), i, past, b"%d" % i)
            stand = [*stand[-1:], made]
            common = {"client": f"c{i % 5}", "key": key, "quorum": True, "outcome": Outcome.OK}
            ops.append(
                Op(number=2 * i, reads=False, value=made.value, given=past, saw=saw, invoked=at, ended=at + 10,
                   dot=Dot(made.actor, made.time), past=past, acked=1, held_then=((made,),), **common),
            )  # fmt: skip
            ops.append(
                Op(number=2 * i + 1, reads=True, invoked=at + 20, ended=at + 30, shown=tuple(stand), **common)
            )
        final[key] = dict.fromkeys(("n1", "n2", "n3"), tuple(stand))
    return ops, final, {key: replicas["n1"] for key, replicas in final.items()}


def test_the_checker_is_near_linear() -> None:
    """Four times the operations on as few keys take less than ten times as long, not sixteen."""

    def took(writes: int) -> float:
        ops, final, last = long_history(writes, keys=2)
        began = time.process_time()
        found = check(ops, final, last)
        assert not found, found[:3]
        return time.process_time() - began

    took(500)
    assert took(10_000) < 10 * took(2_500)
