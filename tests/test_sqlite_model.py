"""The sqlite engine against a model: dicts that survive restarts, and crashes in the middle of flushes."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from kvnode import config
from kvnode.config import Settings
from kvnode.core.consensus import Register, decode_register, encode_register
from kvnode.core.merkle import LEAVES, SLOT_LEAVES, HashTree, Span, leaf_of
from kvnode.core.outbox import GONE, Aside, Hint, HintKey, Stored
from kvnode.core.registers import weigh
from kvnode.core.versions import Held
from kvnode.protocol.consensus import Ballot
from kvnode.protocol.types import NodeId
from tests.sqlite_harness import (
    as_stored,
    assert_saved_leaves_are_exact,
    edit,
    neighbours,
    opened,
    settle,
)
from tests.test_sqlite_registers import register
from tests.test_store_conformance import held, wait

ALPHABET = [b"a", b"ab", b"b", b"\xff", b"\xff\xff", *(b"k%d" % i for i in range(12)), *neighbours(3)]
keys = st.sampled_from(ALPHABET)
DROPPED = "dropped"
values = st.one_of(st.none(), st.just(DROPPED), st.binary(max_size=40), st.integers(200, 3_000).map(bytes))


class EngineMachine(RuleBasedStateMachine):
    """The engine against a dict, with clean restarts and crashes in between."""

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[bytes, Held] = {}
        self.hints: dict[HintKey, Hint] = {}
        self.facts: dict[str, bytes] = {}
        self.registers: dict[bytes, bytes] = {}
        self.turn = 0
        self.clock = 0
        self.base = Path()
        self.number = 0

    @initialize(memtable=st.sampled_from([0, 2_000, 100_000]), cache=st.sampled_from([0, 3_000, 100_000]))
    def begin(self, memtable: int, cache: int) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="engine"))
        self.flush_limits = config.FLUSH_ROWS, config.FLUSH_STATEMENTS
        config.FLUSH_ROWS, config.FLUSH_STATEMENTS = 2, 1  # many transactions a flush, for crashes in between
        self.settings = Settings(memtable_bytes=memtable, cache_bytes=cache, compress_min_bytes=50)
        self.engine = opened(self.path, self.settings)

    @property
    def path(self) -> Path:
        return self.base / str(self.number)

    @rule(writes=st.dictionaries(keys, values, max_size=5))
    def submit(self, writes: dict[bytes, bytes | str | None]) -> None:
        self.turn += 1
        self.clock += 1
        batch = {key: GONE if isinstance(value, str) else held(value, self.clock) for key, value in writes.items()}
        self.engine.submit(self.turn, batch)
        self.model |= batch
        self.model = {key: record for key, record in self.model.items() if record is not GONE}

    @rule(key=keys, value=st.one_of(st.none(), st.binary(max_size=200)), fact=st.binary(max_size=3))
    def keep_aside(self, key: bytes, value: bytes | None, fact: bytes) -> None:
        self.turn += 1
        hint = None if value is None else Hint(as_stored(held(value)), self.turn)
        self.engine.submit(self.turn, {}, Aside({(NodeId("n2"), key): hint}, {"fact": fact}))
        self.hints.pop((NodeId("n2"), key), None)
        if hint is not None:
            self.hints[NodeId("n2"), key] = hint
        self.facts["fact"] = fact

    @rule(
        key=keys, promised=st.integers(0, 9), value=st.one_of(st.none(), st.just(DROPPED), st.binary(max_size=30))
    )
    def keep_register(self, key: bytes, promised: int, value: bytes | str | None) -> None:
        self.turn += 1
        self.clock += 1
        kept = b"" if isinstance(value, str) else register(value, self.clock, promised)
        self.engine.submit(self.turn, {}, Aside({}, {}, {key: kept}))
        self.registers.pop(key, None)
        if kept:
            self.registers[key] = kept

    @rule(key=keys, promised=st.integers(1, 9))
    def promise(self, key: bytes, promised: int) -> None:
        """What a register promises is in no tree."""
        before = self.engine.tree.hash(Span(0, LEAVES))
        self.turn += 1
        old = decode_register(self.registers.get(key, b""))
        self.registers[key] = encode_register(Register(Ballot(promised << 40, 7), old.accepted, old.value))
        self.engine.submit(self.turn, {}, Aside({}, {}, {key: self.registers[key]}))
        assert self.engine.tree.hash(Span(0, LEAVES)) == before

    @rule()
    def mend(self) -> None:
        assert not any(self.engine.mend_leaf(leaf_of(key)) for key in ALPHABET)

    @rule()
    def commit(self) -> None:
        wait(self.engine, self.turn)

    @rule()
    def flush(self) -> None:
        settle(self.engine, self.turn)

    @rule()
    def restart(self) -> None:
        self.engine.close()
        self._reopen()

    @rule()
    def crash(self) -> None:
        """What is durable survives; a copy of the files is what the next process finds."""
        wait(self.engine, self.turn)
        shutil.copytree(self.path, self.base / str(self.number + 1))
        self.engine.close()
        self.number += 1
        self._reopen()

    def _reopen(self) -> None:
        self.engine = opened(self.path, self.settings)
        self.turn = 0
        self.model = {key: as_stored(record) for key, record in self.model.items()}
        assert self.engine.hints() == self.hints
        assert self.engine.fact("fact") == self.facts.get("fact", b"")

    @rule(key=keys)
    def get(self, key: bytes) -> None:
        assert self.engine.get(key) == self.model.get(key)
        assert self.engine.register(key) == self.registers.get(key, b"")

    @rule(
        after=st.one_of(st.just(b""), keys),
        prefix=st.sampled_from([b"", b"a", b"k", b"\xff"]),
        limit=st.integers(1, 9),
    )
    def scan(self, after: bytes, prefix: bytes, limit: int) -> None:
        expected = [k for k in sorted(self.model) if k > after and k.startswith(prefix)][:limit]
        assert list(self.engine.scan(after, prefix, limit)) == [Stored(k, self.model[k]) for k in expected]
        expected = [k for k in sorted(self.registers) if k > after and k.startswith(prefix)][:limit]
        assert self.engine.registers(after, prefix, limit) == [(k, self.registers[k]) for k in expected]

    @invariant()
    def counters_are_exact(self) -> None:
        if self.base == Path():
            return
        live = [(key, record.live_bytes) for key, record in self.model.items()]
        live += [(key, weigh(register).live_bytes) for key, register in self.registers.items()]
        stats = self.engine.stats()
        assert stats.keys == sum(live_bytes > 0 for _, live_bytes in live)
        assert stats.value_bytes == sum(len(key) + live_bytes for key, live_bytes in live if live_bytes)

    @invariant()
    def the_tree_is_exact(self) -> None:
        if self.base == Path():
            return
        tree = HashTree()
        for key, record in self.model.items():
            tree.change(key, b"", record.digest)
        for key, kept in self.registers.items():
            tree.change(key, b"", weigh(kept).mark)
        slots = {leaf_of(key) // SLOT_LEAVES for key in ALPHABET}
        assert {slot: self.engine.tree.page(slot) for slot in slots} == {slot: tree.page(slot) for slot in slots}
        for leaf in {leaf_of(key) for key in ALPHABET}:
            assert self.engine.leaf(leaf) == sorted((k, h) for k, h in self.model.items() if leaf_of(k) == leaf)
            kept = self.registers.items()
            assert self.engine.registers_in(leaf) == sorted((k, r) for k, r in kept if leaf_of(k) == leaf)

    def teardown(self) -> None:
        if self.base != Path():
            self.engine.close()
            if not edit(
                self.path / "table.db", "SELECT 1 FROM meta WHERE key='flushing' AND value=CAST('1' AS BLOB)"
            ):
                assert_saved_leaves_are_exact(self.path)
            shutil.rmtree(self.base)
            config.FLUSH_ROWS, config.FLUSH_STATEMENTS = self.flush_limits


EngineMachine.TestCase.settings = settings(
    max_examples=30, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestEngineIsADictThatSurvives = EngineMachine.TestCase
