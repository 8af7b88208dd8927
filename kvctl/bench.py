"""The benchmark: a closed or open loop of requests from one process, and what they took.

Promises: every value read is checked; a request's time starts when it was due, not when a stalled
client got round to it (so a stall is not hidden); the first second is not counted.
Never: more requests in flight than asked for.

Workloads a, b, c, d, f are YCSB's core ones (Cooper et al., SoCC 2010, table 2); keys are drawn from
its Zipfian distribution (constant 0.99), `d` from the latest.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import accumulate

from msgspec import Struct

from kvctl.client import Client
from kvctl.errors import KvError
from kvctl.model import Item
from kvctl.session import Call
from kvnode.protocol import messages as m
from kvnode.protocol.histogram import Histogram
from kvnode.protocol.types import MODES, decode_record

WARM_UP_S = 1.0
PICKS = 1 << 14
"""Keys are drawn this many at a time."""
ZIPF = 0.99
STAMP_BYTES = 8
IN_FLIGHT_MAX = 10_000


class Plan(Struct, frozen=True, kw_only=True):
    """What to run."""

    op: str | None = None
    workload: str | None = None
    in_flight: int = 50
    duration_s: float = 10.0
    value_bytes: int = 100
    keys: int = 10_000
    mode: str = "eventual"
    r: int = 0
    w: int = 0
    rate: float | None = None
    timeout_s: float = 5.0

    def problem(self) -> str:
        """Why this cannot be run, as a sentence; empty when it can."""
        if (self.op is None) == (self.workload is None):
            return "name either an --op or a --workload"
        if self.op is not None and self.op not in OPS:
            return f"op must be one of {', '.join(OPS)}; not {self.op!r}"
        if self.workload is not None and self.workload not in WORKLOADS:
            return f"workload must be one of {', '.join(WORKLOADS)}; not {self.workload!r}"
        if not 1 <= self.in_flight <= IN_FLIGHT_MAX:
            return f"in-flight must be 1..{IN_FLIGHT_MAX}, not {self.in_flight}"
        if (
            self.duration_s <= 0
            or self.keys < 1
            or self.value_bytes < 0
            or (self.rate is not None and self.rate <= 0)
        ):
            return "duration, keys and rate must be above 0, value-size not below"
        return ""


class Mix(Struct, frozen=True):
    """Shares of the operations, in percent, and how keys are drawn."""

    read: int
    update: int
    insert: int = 0
    modify: int = 0
    """Read, then write with the context read."""
    keys: str = "uniform"


OPS = {"get": Mix(100, 0), "put": Mix(0, 100), "mixed": Mix(50, 50)}
WORKLOADS = {
    "a": Mix(50, 50, keys="zipf"),
    "b": Mix(95, 5, keys="zipf"),
    "c": Mix(100, 0, keys="zipf"),
    "d": Mix(95, 0, 5, keys="latest"),
    "f": Mix(50, 0, 0, 50, keys="zipf"),
}


class Result(Struct, kw_only=True):
    """What came of it."""

    took_s: float
    ops: int
    latency: Histogram
    errors: Counter[str]
    not_found: int
    client_cpu: float
    fsync_ms: float | None

    @property
    def ops_per_s(self) -> float:
        """Successful operations a second."""
        return self.ops / self.took_s if self.took_s else 0.0


class Bench:
    """One run of a plan against a cluster."""

    def __init__(self, client: Client, plan: Plan, seed: int | None = None) -> None:
        assert not plan.problem()
        self._plan = plan
        self._client = client
        self._session = client.pump.session
        self._rng = random.Random(seed)
        self._mix = OPS[plan.op] if plan.op is not None else WORKLOADS[plan.workload or ""]
        self._mode = MODES[plan.mode]
        self._timeout_ms = int(plan.timeout_s * 1000)
        self._filler = self._rng.randbytes(max(plan.value_bytes, 1))
        self._keys = [b"bench:%012d" % i for i in range(plan.keys)]
        self._picks: Iterator[int] = iter(())
        self._zipf: list[float] = []
        self._clear()

    def _clear(self) -> None:
        self.latency = Histogram()
        self.errors: Counter[str] = Counter()
        self.not_found = 0
        self.ops = 0

    # ---- phases ----------------------------------------------------------------------------

    def load(self, progress: Callable[[int], None] = lambda _: None) -> None:
        """Write every key once, so that reads find them. Raises what a write failed with."""
        pump, session = self._client.pump, self._session
        failed: list[KvError] = []
        done = 0

        def ended(call: Call) -> None:
            nonlocal done
            done += 1
            if isinstance(call.outcome, KvError):
                failed.append(call.outcome)

        for i in range(len(self._keys)):
            session.start(Call(self._put(i), time.monotonic() + self._plan.timeout_s, notify=ended))
            while session.in_flight >= 256:
                pump.turn(0.05)
                progress(done)
            if failed:
                raise failed[0]
        while session.in_flight:
            pump.turn(0.05)
        progress(done)
        if failed:
            raise failed[0]

    def run(self, progress: Callable[[float, int], None] = lambda _, __: None) -> Result:
        """Warm up, then measure. Ctrl-C ends it early with what there is."""
        commits = self._commits()
        start = time.monotonic()
        counted = start + WARM_UP_S
        end = counted + self._plan.duration_s
        cpu = time.process_time()
        warm = False
        shown = start
        next_due = start
        with suppress(KeyboardInterrupt):
            while (now := time.monotonic()) < end:
                if not warm and now >= counted:
                    self._clear()
                    warm, start, cpu = True, now, time.process_time()
                next_due = self._fill(now, next_due)
                self._client.pump.turn(0.05 if self._plan.rate is None else 0.001)
                if now - shown >= 0.25:
                    shown = now
                    progress((now - start) / self._plan.duration_s if warm else 0.0, self.ops)
        took = time.monotonic() - start
        used = time.process_time() - cpu
        ops, latency, errors, missing = self.ops, self.latency, Counter(self.errors), self.not_found
        return Result(
            took_s=took,
            ops=ops,
            latency=latency,
            errors=errors,
            not_found=missing,
            client_cpu=used / took if took else 0.0,
            fsync_ms=self._fsync_ms(commits),
        )

    # ---- one request -----------------------------------------------------------------------

    def _fill(self, now: float, next_due: float) -> float:
        """Start what is due, up to the limit in flight. Returns when the next one is due."""
        room = self._plan.in_flight - self._session.in_flight
        rate = self._plan.rate
        if rate is None:
            for _ in range(room):
                self._start(now)
            return now
        while room > 0 and next_due <= now:
            self._start(next_due)
            next_due += 1 / rate
            room -= 1
        return next_due

    def _start(self, due: float) -> None:
        mix = self._mix
        index = self._pick()
        dice = self._rng.random() * 100 if mix.read < 100 and mix.update < 100 else 0.0
        ended = self._ended
        if dice < mix.read:
            ask: m.Get | m.Put = self._get(index)
        elif dice < mix.read + mix.update:
            ask = self._put(index)
        elif dice < mix.read + mix.update + mix.insert:
            self._keys.append(b"bench:%012d" % len(self._keys))
            ask = self._put(len(self._keys) - 1)
        else:
            ask, ended = self._get(index), self._modify
        call = Call(ask, due + self._plan.timeout_s, notify=ended)
        call.due = due
        self._session.start(call)

    def _get(self, index: int) -> m.Get:
        return m.Get(self._session.next_rid(), self._keys[index], self._plan.r, self._mode, self._timeout_ms)

    def _put(self, index: int, context: bytes = b"") -> m.Put:
        value = (index.to_bytes(STAMP_BYTES, "big") + self._filler)[: self._plan.value_bytes]
        return m.Put(
            self._session.next_rid(), self._keys[index], value, self._plan.w, self._mode, self._timeout_ms, context
        )

    def _ended(self, call: Call) -> None:
        outcome = call.outcome
        kind = type(outcome)
        if kind is m.Got:
            self._judge(call, outcome)  # type: ignore[arg-type]
        elif kind is m.Written:
            self.ops += 1
            self.latency.record(int((time.monotonic() - call.due) * 1e6))
        else:
            self.errors[kind.__name__] += 1

    def _judge(self, call: Call, got: m.Got) -> None:
        """Check what was read against what the bench writes under that key."""
        assert isinstance(call.ask, m.Get)
        if not got.record:
            self.not_found += 1
            return
        value = decode_record(got.record)[0].value
        stamp = int(call.ask.key[6:]).to_bytes(STAMP_BYTES, "big")
        if value is None or len(value) != self._plan.value_bytes or not value.startswith(stamp[: len(value)]):
            self.errors["WrongValue"] += 1
            return
        self.ops += 1
        self.latency.record(int((time.monotonic() - call.due) * 1e6))

    def _modify(self, call: Call) -> None:
        """The second half of a read-modify-write."""
        if not isinstance(call.outcome, m.Got) or not isinstance(call.ask, m.Get):
            return self._ended(call)
        context = Item(call.ask.key, call.outcome.record).context.encode()
        second = Call(self._put(int(call.ask.key[6:]), context), call.deadline, notify=self._ended)
        second.due = call.due
        return self._session.start(second)

    def _pick(self) -> int:
        """The index of the next key."""
        index = next(self._picks, None)
        if index is None:
            self._picks = self._draw()
            index = next(self._picks)
        return index

    def _draw(self) -> Iterator[int]:
        count = len(self._keys)
        if self._mix.keys == "uniform":
            return iter(self._rng.choices(range(count), k=PICKS))
        if len(self._zipf) != count:
            self._zipf = list(accumulate(1 / (rank + 1) ** ZIPF for rank in range(count)))
        ranks = self._rng.choices(range(count), cum_weights=self._zipf, k=PICKS)
        if self._mix.keys == "latest":
            return iter([count - 1 - rank for rank in ranks])
        # Spread the hot ranks over the key space, as YCSB does, so that they are not neighbours.
        return iter([rank * 2654435761 % count for rank in ranks])

    # ---- fsync -----------------------------------------------------------------------------

    def _commits(self) -> tuple[int, int]:
        reports = [r for r in self._client.status().reports if r is not None]
        return (
            sum(r.counters.get("commits", 0) for r in reports),
            sum(r.counters.get("commit_us", 0) for r in reports),
        )

    def _fsync_ms(self, before: tuple[int, int]) -> float | None:
        """Mean time of a group commit during the run, over all nodes."""
        while self._session.in_flight:
            self._client.pump.turn(0.05)
        commits, us = (after - b for after, b in zip(self._commits(), before, strict=True))
        return us / commits / 1000 if commits else None
