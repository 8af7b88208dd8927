"""Seeds: random work on a random cluster while random things break; then mend, quiet, and the checker.

    python -m pytest tests/test_sim_seeds.py                            # seeds 1..125
    KVSIM_SEEDS=126..2000 python -m pytest tests/test_sim_seeds.py      # others
    KVSIM_SEEDS=17..17 KVSIM_TELL=1 python -m pytest tests/test_sim_seeds.py -s    # one, line by line

The other half of this file shows that the checker can fail: bugs are planted, and must be found.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from kvnode.core import versions
from kvnode.core.hints import Hints
from kvnode.core.merkle import HashTree
from kvnode.core.outbox import Outbox
from kvnode.core.quorum import Quorum
from kvnode.core.versions import Held, Mint, Minter
from kvnode.protocol.messages import Message
from kvnode.protocol.types import Address, NodeId, Past, Record, Version
from kvnode.sim.check import check
from kvnode.sim.disk import SimDisk
from kvnode.sim.faults import Chances
from kvnode.sim.history import Dot, Op, Outcome
from kvnode.sim.workload import Shape, Verdict, run
from kvnode.sim.world import World

FIRST, LAST = (int(end) for end in os.environ.get("KVSIM_SEEDS", "1..125").split(".."))
TELL = partial(print, flush=True) if os.environ.get("KVSIM_TELL") else None
BLOCK = 25
BLOCKS = [(first, min(first + BLOCK - 1, LAST)) for first in range(FIRST, LAST + 1, BLOCK)]


@pytest.mark.parametrize(("first", "last"), BLOCKS, ids=[f"{a}-{b}" for a, b in BLOCKS])
def test_no_seed_breaks_a_promise(first: int, last: int) -> None:
    """Nothing acknowledged or shown is lost, nothing is invented, no quorum read is stale, whatever breaks."""
    wrong = []
    for seed in range(first, last + 1):
        verdict = run(seed, tell=TELL)
        print(f"seed {seed}: {verdict.events} events, {verdict.outcomes}, {verdict.faults}")
        if verdict.violations:
            wrong.append(verdict.explain())
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("seed", [2, 5, 9, 24])
def test_pasts_of_over_fifty_actors_lose_nothing_while_clocks_are_an_hour_off(seed: int) -> None:
    """750 writes a key and a restart every second: pruned at 50, deletes were undone by 23 of 24 such seeds."""
    chances = Chances(weights=(1,) * 8)
    verdict = run(seed, Shape(operations=3_000, keys=4, clients=6, think_ms=(0, 60), faults=chances))
    assert not verdict.violations, verdict.explain()


def test_the_seeds_are_worth_running() -> None:
    """A store that refuses everything loses nothing: most operations of the seeds end well, and each kind
    of ending and of fault is among them."""
    verdicts = [run(seed) for seed in range(1, 26)]
    outcomes, faults = total(v.outcomes for v in verdicts), total(v.faults for v in verdicts)
    done = sum(outcomes[kind] for kind in ("Got", "Written", "Scanned"))
    assert done > sum(outcomes.values()) / 2, outcomes
    assert {"indeterminate", "unavailable", "conflict", "NoneType"} <= set(outcomes)
    assert len(faults) == 9, faults


def total(counts: Iterator[dict[str, int]]) -> dict[str, int]:
    summed: dict[str, int] = {}
    for count in counts:
        for name, number in count.items():
            summed[name] = summed.get(name, 0) + number
    return summed


def test_a_seed_is_one_history_in_any_process() -> None:
    """The same seeds, two processes, two hash seeds: every event and every byte of every frame agree."""
    script = "from kvnode.sim.workload import run; print([run(seed).trace_hash for seed in range(1, 6)])"
    told = [
        subprocess.run(
            [sys.executable, "-c", script], env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True, text=True, check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]  # fmt: skip
    assert told[0] == told[1]
    assert len(set(told[0].split(","))) == 5


# ---- the checker can fail ----------------------------------------------------------------------


def acks_leave_at_once(patch: pytest.MonkeyPatch) -> None:
    """A reply no longer waits for the commit."""
    patch.setattr(Outbox, "ack", Outbox.send)


def replies_show_what_is_not_durable(patch: pytest.MonkeyPatch) -> None:
    """PROTOCOL-CASES 18."""

    def reply(self: Outbox, to: Address, message: Message, *, volatile: bool) -> None:
        self.send(to, message)

    patch.setattr(Outbox, "reply", reply)


def one_actor_for_ever(patch: pytest.MonkeyPatch) -> None:
    """A node's dots go on after a crash that lost some of them: one actor a node, not a record and a boot."""
    drawn: dict[int, int] = {}

    def draw(self: Minter) -> int:
        return drawn.setdefault(0, self._rng.getrandbits(64) or 1)

    patch.setattr(Minter, "_draw", draw)


def the_last_writer_wins(patch: pytest.MonkeyPatch) -> None:
    """Of two concurrent versions the newer one stays."""

    def newer(mine: Record, theirs: Record) -> Record:
        return max(mine, theirs, key=lambda record: (record[0].time, record[0].actor))

    patch.setattr(versions, "_merge_single", newer)


def a_retry_covers_what_it_finds(patch: pytest.MonkeyPatch) -> None:
    """PROTOCOL-CASES 5."""
    mint = Minter.mint

    def covering(self: Minter, held: Held | None, past: Past | None, *more: Any) -> Mint:
        return mint(self, held, past or None, *more)

    patch.setattr(Minter, "mint", covering)


def repeated_answers_count(patch: pytest.MonkeyPatch) -> None:
    """One owner makes a quorum by saying so twice."""
    count = Quorum.count

    def again(self: Quorum, node: NodeId) -> bool:
        if count(self, node):
            return True
        self.have = min(self.have + 1, len(self.peers) + 1)
        return True

    patch.setattr(Quorum, "count", again)


def hints_are_forgotten_at_a_restart(patch: pytest.MonkeyPatch) -> None:
    """Acknowledged from memory alone."""
    patch.setattr(SimDisk, "hints", lambda _: {})


def hints_go_once_sent(patch: pytest.MonkeyPatch) -> None:
    """Without waiting for an owner to say that it holds them."""
    deliver = Hints._deliver

    def hasty(self: Hints, owner: NodeId, kept: Any, now: float) -> None:
        deliver(self, owner, kept, now)
        for sent in self._sent.values():
            if sent.owner == owner and sent.key in kept.hints:
                self.kept.drop(owner, sent.key)

    patch.setattr(Hints, "_deliver", hasty)


def fallbacks_count_in_quorum_mode(patch: pytest.MonkeyPatch) -> None:
    """A quorum of owners that is none."""
    count = Quorum.count_stand_in
    patch.setattr(Quorum, "count_stand_in", lambda self, fallback, *, counts: count(self, fallback, counts=True))


def exchanges_end_at_the_root(patch: pytest.MonkeyPatch) -> None:
    """Nothing is ever found to differ."""
    patch.setattr(HashTree, "hash", lambda *_: b"same" * 4)
    patch.setattr(World, "converged", property(lambda world: not world.hinted))


PLANTED: dict[Callable[[pytest.MonkeyPatch], None], int] = {
    acks_leave_at_once: 5,
    replies_show_what_is_not_durable: 30,
    one_actor_for_ever: 10,
    the_last_writer_wins: 20,
    a_retry_covers_what_it_finds: 5,
    repeated_answers_count: 30,
    hints_are_forgotten_at_a_restart: 10,
    hints_go_once_sent: 80,
    fallbacks_count_in_quorum_mode: 40,
    exchanges_end_at_the_root: 20,
}
"""Each bug, and within how many seeds it must show: several times as many as it takes today."""

LOUD = Shape(
    keys=2, clients=6, think_ms=(0, 10), timeout_ms=300, operations=200,
    faults=Chances(every_ms=(20, 120), lasts_ms=(20, 300), weights=(3, 3, 2, 1, 2, 2, 2, 0)),
)  # fmt: skip
SHAPES = {
    replies_show_what_is_not_durable: LOUD,
    repeated_answers_count: LOUD,
}
"""What a bug needs to show: much at once."""


@pytest.mark.parametrize("plant", PLANTED)
def test_a_planted_bug_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A simulator that passes everything proves nothing."""
    plant(monkeypatch)
    assert any(broken(seed, SHAPES.get(plant)) for seed in range(1, PLANTED[plant] + 1))


def broken(seed: int, shape: Shape | None) -> bool:
    """Whether a seed shows a violation, or makes an assertion of the store's own fail."""
    try:
        verdict: Verdict = run(seed, shape)
    except AssertionError:
        return True
    return bool(verdict.violations)


def test_the_checker_tells_a_write_that_was_read_and_written_over_from_a_lost_one() -> None:
    """The same disks in the end, twice: once the last writer had seen the first version, once it had not."""
    first = Op(
        number=1, client="ann", key=b"k", reads=False, value=b"one", invoked=1, ended=2,
        outcome=Outcome.OK, dot=Dot(7, 10), past={},
    )  # fmt: skip
    final = {b"k": {"n1": (Version(8, 20, {7: 10}, b"two"),)}}

    def second(saw: frozenset[Dot]) -> Op:
        return Op(number=2, client="bob", key=b"k", reads=False, value=b"two", given={7: 10}, saw=saw, invoked=3)

    assert check([first, second(frozenset({Dot(7, 10)}))], final) == []
    assert [v.claim for v in check([first, second(frozenset({Dot(7, 11)}))], final)] == ["no_lost_write"]
