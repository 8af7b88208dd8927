"""Mode `strong` under load on real processes: many keys, several clients each, while nodes die, pause and part.

Promises: every history is what clients were told, by one clock; what nobody was told of is unknown.
Never: judges by itself; that is `kvnode.sim.linear`.

    keys, some at a time ─► clients of each: get, put, delete, compare-and-set ─► a history a key
    nemesis ─► kill, pause, partition, one after the other, until all is done
"""

from __future__ import annotations

import asyncio
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from kvctl import AsyncClient, Client, Conflict, KvError
from kvctl.nodefaults import heal, inflict, new_id
from kvnode.protocol.faults import PARTITION, Fault
from kvnode.protocol.types import NodeId
from kvnode.sim.linear import ANY, FOREVER, RegisterOp
from tests.procs import Cluster

CLIENTS = 4
"""That work on one key at a time, each with a connection of its own."""
AT_ONCE = 24
"""Keys worked on at a time."""
PAUSE_S = 0.5
"""Between a fault mended and the next."""


class History:
    """One key, and what each of its clients was told."""

    def __init__(self, key: str, rng: random.Random) -> None:
        self.key = key
        self.ops: list[RegisterOp] = []
        self._rng = rng
        self._number = 0
        self._seen: dict[int, tuple[str, bytes]] = {}
        """Client -> the context and value it last read or wrote."""

    async def one(self, client: int, kv: AsyncClient) -> None:
        """One operation. What was refused and left no trace is none."""
        self._number += 1
        began = time.monotonic_ns()
        if self._rng.random() < 0.45:
            item = await kv.fetch(self.key, mode="strong")
            self._note(client, began, reads=True, value=item.value)
            self._see(client, item.context, item.value)
        else:
            await self._write(client, kv, began)

    async def _write(self, client: int, kv: AsyncClient, began: int) -> None:
        number, dice = self._number, self._rng.random()
        value = None if self._rng.random() < 0.1 else f"c{client}-{number}".encode()
        seen = self._seen.get(client)
        match, expects, absent = None, ANY, False
        if dice < 0.1 and value is not None:
            absent, expects = True, None
        elif dice < 0.5 and seen is not None:
            match, expects = seen
        try:
            if value is None:
                written = await kv.delete(self.key, mode="strong", if_match=match)
            else:
                written = await kv.put(self.key, value, mode="strong", if_match=match, if_absent=absent)
        except Conflict:
            return self._note(client, began, reads=False, value=value, expects=expects, failed=True)
        except KvError as error:
            if error.applied == "maybe":
                self._note(client, began, reads=False, value=value, expects=expects, sure=False)
            raise
        self._see(client, written.context, value)
        return self._note(client, began, reads=False, value=value, expects=expects)

    def _see(self, client: int, context: str, value: bytes | None) -> None:
        if value is None:
            self._seen.pop(client, None)
        else:
            self._seen[client] = context, value

    def _note(
        self, client: int, began: int, *, reads: bool, value: bytes | None, expects: bytes | None = ANY,
        failed: bool = False, sure: bool = True,
    ) -> None:  # fmt: skip
        op = RegisterOp(
            number=len(self.ops), client=f"c{client}", reads=reads, value=value, expects=expects, failed=failed,
            sure=sure, invoked=began, ended=time.monotonic_ns() if sure else FOREVER,
        )  # fmt: skip
        self.ops.append(op)


class Load:
    """All keys, a few at a time."""

    def __init__(self, endpoints: str, keys: int, length: int, seed: int) -> None:
        self._endpoints = endpoints
        self._length = length
        self.histories = [History(f"register:{i}", random.Random(f"{seed}/{i}")) for i in range(keys)]
        self.outcomes: Counter[str] = Counter()
        """How operations ended that were not done: by error."""
        self.done = 0

    def run(self, until: float) -> None:
        """Until every history is long enough, or time is up."""
        asyncio.run(self._run(until))

    async def _run(self, until: float) -> None:
        clients = [AsyncClient(self._endpoints) for _ in range(CLIENTS)]
        for client in clients:
            await client.__aenter__()
        gate = asyncio.Semaphore(AT_ONCE)

        async def work(history: History) -> None:
            async with gate:
                await asyncio.gather(*(self._work(history, i, kv, until) for i, kv in enumerate(clients)))
                self.done += len(history.ops) >= self._length

        try:
            await asyncio.gather(*map(work, self.histories))
        finally:
            for client in clients:
                await client.close()

    async def _work(self, history: History, client: int, kv: AsyncClient, until: float) -> None:
        while len(history.ops) < self._length and time.monotonic() < until:
            try:
                await history.one(client, kv)
            except KvError as error:
                self.outcomes[type(error).__name__] += 1
                await asyncio.sleep(0.02)


class Nemesis:
    """Breaks nodes, one after the other, in a thread of its own."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self._cluster = cluster
        self._rng = random.Random(f"{seed}/nemesis")
        self._over = threading.Event()
        self.counts: Counter[str] = Counter()
        self._pool = ThreadPoolExecutor(1)
        self._running: Future[None] | None = None

    def __enter__(self) -> Nemesis:
        self._running = self._pool.submit(self._run)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        assert self._running is not None
        self._pool.shutdown()
        self._running.result()

    def _run(self) -> None:
        acts: list[Callable[[], None]] = [self._kill, self._part, self._pause]
        while not self._over.is_set():
            act = acts[sum(self.counts.values()) % len(acts)]
            act()
            self.counts[act.__name__.removeprefix("_")] += 1
            self._over.wait(PAUSE_S)

    def _kill(self) -> None:
        name = self._rng.choice(self._cluster.names)
        self._cluster.kill(name)
        self._over.wait(self._rng.uniform(0.5, 3.0))
        self._cluster.start(name)
        self._cluster.wait_up([name])

    def _pause(self) -> None:
        process = self._cluster.processes[self._rng.choice(self._cluster.names)]
        process.send_signal(signal.SIGSTOP)
        try:
            self._over.wait(self._rng.uniform(0.3, 4.0))
        finally:
            process.send_signal(signal.SIGCONT)

    def _part(self) -> None:
        """Two and three, or one and four; one way now and then."""
        names = self._rng.sample(self._cluster.names, len(self._cluster.names))
        cut = self._rng.choice((1, 2))
        sides = (tuple(map(NodeId, names[:cut])), tuple(map(NodeId, names[cut:])))
        fault = Fault(new_id(), PARTITION, *sides, one_way=self._rng.random() < 0.3)
        with Client(self._cluster.endpoints) as client:
            inflict(client, fault, 20_000, 2.0)
            self._over.wait(self._rng.uniform(1.0, 4.0))
            heal(client, fault.id, 2.0)
