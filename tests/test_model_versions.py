"""A model of one key: whatever happens to it, no version buries what its writer had not seen.

Hypothesis drives three nodes through puts, gets, replication, forgotten records, failed commits and
retries; beside them runs the truth of who had seen what (PROTOCOL-CASES 1; riak's kv679_eqc).
"""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from kvnode.core.versions import Held, covers, held_of, merge_held
from kvnode.protocol.context import decode_context, encode_context, join
from kvnode.protocol.types import Past, Version
from tests.test_laws_versions import KEY, WALL, Dot, dot, dots, minter, plainly_merged

# ---- the model ---------------------------------------------------------------------------------


SKEW_MS = {"n0": 0, "n1": 7, "n2": 100_000}
"""One clock is a little ahead, and one beyond what any node would follow."""


class Replica:
    """A node of the model: what it holds, what of that is durable, and how it mints in this boot."""

    def __init__(self, name: str, boot: int, durable: Held | None) -> None:
        self.name = name
        self.boot = boot
        self.minter = minter(f"{name}/{boot}", WALL + SKEW_MS[name])
        self.held: Held | None = held_of(durable.record()) if durable is not None else None
        self.durable = self.held

    def mint(self, past: Past | None, value: bytes) -> Version:
        made = self.minter.mint(self.held, past, value)
        self.held = made.held
        return made.version

    def forget(self) -> None:
        self.held = self.durable = None


class OneActorABoot(Replica):
    """The rule that looks good enough and loses acknowledged writes: the model must find it out."""

    def mint(self, past: Past | None, value: bytes) -> Version:
        boot_actor = Random(f"{self.name}{self.boot}").getrandbits(61) << 3
        self.minter._draw = lambda: boot_actor  # type: ignore[method-assign]
        return super().mint(past, value)


class KnownAfterFailure(Replica):
    """Another that looks good enough: a failed commit forgets the write, but the boot goes on."""

    def __init__(self, name: str, boot: int, durable: Held | None) -> None:
        super().__init__(name, 0, durable)
        self.held = self.durable = durable


class OneKey(RuleBasedStateMachine):
    """One key on three nodes: puts, gets, replication, forgotten records, failed commits, retries.

    Beside the nodes runs the truth: for each version, the dots its writer's context or coordinator
    had seen. Versions may cover those and no others.
    """

    make: type[Replica] = Replica
    contexts = Bundle("contexts")
    letters = Bundle("letters")
    tries = Bundle("tries")

    @initialize()
    def boot(self) -> None:
        self.nodes = [self.make(f"n{i}", 0, None) for i in range(3)]
        self.minted: dict[Dot, Version] = {}
        self.knew: dict[Dot, frozenset[Dot]] = {}

    # -- the truth

    def seen(self, held: Held | None) -> frozenset[Dot]:
        """All dots that someone who reads this record has seen, directly or through its writers."""
        record = held.record() if held is not None else ()
        return frozenset(d for v in record for d in (dot(v), *self.knew[dot(v)]))

    def minted_by(self, node: Replica, past: Past | None, knew: frozenset[Dot]) -> None:
        version = node.mint(past, b"%d" % len(self.minted))
        assert dot(version) not in self.minted, "a dot was minted twice"
        self.minted[dot(version)] = version
        self.knew[dot(version)] = knew

    # -- what happens

    @rule(target=contexts, node=st.integers(0, 2))
    def get(self, node: int) -> tuple[str, frozenset[Dot]]:
        """A client reads, and keeps the context as the token it is."""
        held = self.nodes[node].held
        return encode_context(KEY, join(held.record() if held else ())), self.seen(held)

    @rule(target=tries, node=st.integers(0, 2), context=contexts)
    def put(self, node: int, context: tuple[str, frozenset[Dot]]) -> tuple[str, frozenset[Dot]]:
        """A put with a context; it may have to be tried again."""
        token, knew = context
        self.minted_by(self.nodes[node], decode_context(KEY, token.encode()), knew)
        return context

    @rule(target=tries, node=st.integers(0, 2))
    def put_blind(self, node: int) -> tuple[str, frozenset[Dot]]:
        """A blind put covers what its coordinator holds; its retry will cover nothing."""
        self.minted_by(self.nodes[node], None, self.seen(self.nodes[node].held))
        return encode_context(KEY, {}), frozenset()

    @rule(node=st.integers(0, 2), first=tries)
    def retry(self, node: int, first: tuple[str, frozenset[Dot]]) -> None:
        """The reply was lost: the same put again, anywhere, with the context of the first try."""
        token, knew = first
        self.minted_by(self.nodes[node], decode_context(KEY, token.encode()), knew)

    @rule(target=letters, node=st.integers(0, 2))
    def send(self, node: int) -> bytes:
        """A node sends its whole record, committed or not: it may arrive at any time, or twice."""
        held = self.nodes[node].held
        return held.blob if held is not None else b""

    @rule(node=st.integers(0, 2), letter=letters)
    def receive(self, node: int, letter: bytes) -> None:
        """A record arrives, from whomever, whenever."""
        if letter:
            self.nodes[node].held = merge_held(self.nodes[node].held, letter)

    @rule(node=st.integers(0, 2))
    def commit(self, node: int) -> None:
        """What a node holds becomes durable."""
        self.nodes[node].durable = self.nodes[node].held

    @rule(node=st.integers(0, 2))
    def forget(self, node: int) -> None:
        """Hand-off, reaping or a move: the record goes, and its actor with it."""
        self.nodes[node].forget()

    @rule(target=letters, node=st.integers(0, 2))
    def commit_fails(self, node: int) -> bytes:
        """A crash or a failed commit: what was sent was sent, what was not durable is gone."""
        held = self.nodes[node].held
        old = self.nodes[node]
        self.nodes[node] = self.make(old.name, old.boot + 1, old.durable)
        self.nodes[node].minter._clock._latest = old.minter._clock._latest
        return held.blob if held is not None else b""

    @rule(target=contexts, contexts=st.tuples(contexts, contexts))
    def read_two(self, contexts: tuple[tuple[str, frozenset[Dot]], ...]) -> tuple[str, frozenset[Dot]]:
        """A read of two replicas joins what they had seen."""
        pasts = [decode_context(KEY, token.encode()) for token, _ in contexts]
        both = {a: max(p.get(a, 0) for p in pasts) for p in pasts for a in p}
        return encode_context(KEY, both), contexts[0][1] | contexts[1][1]

    @rule(node=st.integers(0, 2), other=st.integers(0, 2))
    def exchange(self, node: int, other: int) -> None:
        """Two nodes become equal."""
        a, b = self.nodes[node], self.nodes[other]
        for giver, taker in ((a, b), (b, a)):
            if giver.held is not None:
                taker.held = merge_held(taker.held, giver.held.blob)
        assert (a.held.digest if a.held else b"") == (b.held.digest if b.held else b"")

    # -- what must hold

    @invariant()
    def a_version_covers_only_what_its_writer_or_coordinator_had_seen(self) -> None:
        for new, version in self.minted.items():
            for old, covered in self.minted.items():
                if new != old and covers(version.past, covered):
                    assert old in self.knew[new], f"{new} buries {old}, which nobody had seen"

    @invariant()
    def whoever_holds_a_dot_knows_every_earlier_dot_of_its_actor(self) -> None:
        for node in self.nodes:
            record = node.held.record() if node.held is not None else ()
            known = self.seen(node.held)
            for actor, time in dots(record):
                earlier = {d for d in self.minted if d[0] == actor and d[1] < time}
                assert earlier <= known, f"{node.name} holds {(actor, time)} but never saw {earlier - known}"

    @invariant()
    def no_record_holds_a_dominated_version(self) -> None:
        for node in self.nodes:
            record = node.held.record() if node.held is not None else ()
            assert dots(record) == plainly_merged(record)


class OneKeyOneActorABoot(OneKey):
    make = OneActorABoot


class OneKeyBootGoesOn(OneKey):
    make = KnownAfterFailure


TestOneKey = OneKey.TestCase
TestOneKey.settings = settings(max_examples=200, stateful_step_count=40, deadline=None, print_blob=True)


@pytest.mark.parametrize("broken", [OneKeyOneActorABoot, OneKeyBootGoesOn])
def test_the_model_finds_what_a_simpler_actor_rule_loses(broken: type[OneKey]) -> None:
    """The model is worth its name: with an actor a boot, or a boot that outlives a failed commit, it fails."""
    search = settings(
        max_examples=600,
        stateful_step_count=40,
        deadline=None,
        phases=[Phase.generate],
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    with pytest.raises(AssertionError, match=r"nobody had seen|never saw"):
        run_state_machine_as_test(broken, settings=search)
