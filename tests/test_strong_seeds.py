"""Mode `strong` by seeds: random operations on few registers while random things break; then the checker.

    python -m pytest tests/test_strong_seeds.py                              # seeds 1..50
    KVSIM_STRONG=51..2000 python -m pytest tests/test_strong_seeds.py      # others
    KVSIM_STRONG=17..17 KVSIM_TELL=1 python -m pytest tests/test_strong_seeds.py -s -k register

The other half of this file shows that the checker can fail: bugs are planted, and must be found.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from kvnode.core.local import Local
from kvnode.core.outbox import Outbox
from kvnode.core.proposal import READ, Round
from kvnode.core.rejoin import Rejoin
from kvnode.core.strong import Strong
from kvnode.protocol.consensus import Accepted, Promised, RegisterRead
from kvnode.protocol.messages import Message
from kvnode.protocol.types import Address, NodeId
from kvnode.sim.faults import KINDS, Chances
from kvnode.sim.registers import RegisterShape, run_strong

FIRST, LAST = (int(end) for end in os.environ.get("KVSIM_STRONG", "1..50").split(".."))
TELL = partial(print, flush=True) if os.environ.get("KVSIM_TELL") else None
BLOCK = 25
BLOCKS = [(first, min(first + BLOCK - 1, LAST)) for first in range(FIRST, LAST + 1, BLOCK)]


@pytest.mark.parametrize(("first", "last"), BLOCKS, ids=[f"{a}-{b}" for a, b in BLOCKS])
def test_every_key_is_a_linearizable_register(first: int, last: int) -> None:
    """Whatever breaks, there is an order in which each operation did what its client was told."""
    wrong = []
    for seed in range(first, last + 1):
        verdict = run_strong(seed, tell=TELL)
        print(f"seed {seed}: {verdict.events} events, {verdict.outcomes}, {verdict.faults}")
        if verdict.violations:
            wrong.append(verdict.explain())
    assert not wrong, "\n".join(wrong)


def test_the_seeds_are_worth_running() -> None:
    """Most operations end well, and each kind of ending and of fault is among them."""
    verdicts = [run_strong(seed) for seed in range(1, 16)]
    outcomes: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    for verdict in verdicts:
        outcomes.update(verdict.outcomes)
        faults.update(verdict.faults)
    assert outcomes["Got"] + outcomes["Written"] + outcomes["conflict"] > sum(outcomes.values()) / 2, outcomes
    assert {"indeterminate", "unavailable", "conflict", "NoneType"} <= set(outcomes)
    assert set(faults) >= {*KINDS, "wipe"}, faults


def test_a_seed_is_one_history() -> None:
    """Run twice, every byte of every frame agrees."""
    assert run_strong(3).trace_hash == run_strong(3).trace_hash


# ---- the checker can fail ----------------------------------------------------------------------


def reads_do_not_complete_what_they_show(patch: pytest.MonkeyPatch) -> None:
    """A majority disagrees, and the newest of it is told as if it were chosen."""

    def newest(self: Strong, sender: NodeId, told: RegisterRead) -> None:
        one = self._round(told.rid, READ, "register_read")
        if one is None or not one.poll.agree(sender):
            return
        one.told[sender] = told
        if one.poll.enough:
            latest = max(one.told.values(), key=lambda t: t.accepted)
            self._got(told.rid, one, self._decoded(latest.record) or ())

    patch.setattr(Strong, "on_register_read", newest)


def own_votes_count_before_their_commit(patch: pytest.MonkeyPatch) -> None:
    """PROTOCOL-CASES 11, the other half."""
    init, ack = Local.__init__, Outbox.ack

    def remember(self: Local, me: NodeId, *rest: Any) -> None:
        init(self, me, *rest)

        def hasty(to: Address, message: Message) -> None:
            own = to == me and isinstance(message, Promised | Accepted)
            (Outbox.send if own else ack)(self.outbox, to, message)

        self.outbox.ack = hasty  # type: ignore[method-assign]

    patch.setattr(Local, "__init__", remember)


def votes_leave_before_their_commit(patch: pytest.MonkeyPatch) -> None:
    """A promise that a crash takes back."""
    patch.setattr(Outbox, "ack", Outbox.send)


def a_wiped_node_votes_at_once(patch: pytest.MonkeyPatch) -> None:
    """PROTOCOL-CASES 10."""
    init = Rejoin.__init__

    def sure(self: Rejoin, local: Local) -> None:
        init(self, local)
        local.voteless = set()

    patch.setattr(Rejoin, "__init__", sure)


def a_write_is_made_again(patch: pytest.MonkeyPatch) -> None:
    """One that was outbid is proposed anew, whatever came after it."""
    patch.setattr(Round, "maybe_applied", False)


def ordered(*kinds: str) -> tuple[int, ...]:
    return tuple(1 if kind in kinds else 0 for kind in KINDS)


SLOW = RegisterShape(
    clients=5, keys=3, think_ms=(0, 5), operations=250, timeout_ms=200,
    faults=Chances(every_ms=(10, 60), lasts_ms=(50, 300), weights=(3, 1, 0, 0, 1, 2, 5, 0)),
)  # fmt: skip
LOUD = RegisterShape(
    clients=5, keys=1, think_ms=(0, 10), operations=120, timeout_ms=300,
    faults=Chances(every_ms=(20, 100), lasts_ms=(20, 200), weights=ordered("crash", "slow_disk", "noise")),
)  # fmt: skip
SPLIT = RegisterShape(
    clients=5, keys=2, think_ms=(0, 10), operations=120, timeout_ms=300,
    faults=Chances(every_ms=(20, 120), lasts_ms=(20, 300), weights=ordered("crash", "partition", "noise")),
)  # fmt: skip
CROWD = RegisterShape(
    clients=8, keys=2, think_ms=(0, 30), operations=200, timeout_ms=150,
    faults=Chances(every_ms=(10, 50), lasts_ms=(20, 300), weights=ordered("partition", "slow_disk", "noise")),
)  # fmt: skip
WIPED = RegisterShape(
    clients=5, keys=4, think_ms=(0, 5), operations=150, timeout_ms=150, wiped=1,
    faults=Chances(every_ms=(30, 100), lasts_ms=(50, 400), weights=ordered("crash", "partition")),
)  # fmt: skip
PLANTED: dict[Callable[[pytest.MonkeyPatch], None], tuple[int, RegisterShape]] = {
    reads_do_not_complete_what_they_show: (40, CROWD),
    own_votes_count_before_their_commit: (60, SLOW),
    votes_leave_before_their_commit: (60, SLOW),
    a_wiped_node_votes_at_once: (60, WIPED),
    a_write_is_made_again: (20, SPLIT),
}
"""Each bug, within how many seeds it must show, and what it needs to. That ballots come again after a crash takes
some 300 seeds to show: `test_sim_guards.py` has it in two lives of one node."""


@pytest.mark.parametrize("plant", PLANTED)
def test_a_planted_bug_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checker that passes everything proves nothing."""
    plant(monkeypatch)
    seeds, shape = PLANTED[plant]
    for seed in range(1, seeds + 1):
        if run_strong(seed, shape).violations:
            print(f"found by seed {seed}")
            return
    raise AssertionError(f"{plant.__name__} is not found by {seeds} seeds")
