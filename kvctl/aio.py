"""The asynchronous client: the same session on an asyncio loop, no thread, no task a request.

Promises: all that `Client` promises; what is asked within one loop iteration leaves as one batch.
Never: blocks the loop.

    async with AsyncClient() as kv:
        await kv.put("cart:1", b"milk")
        items = await asyncio.gather(*(kv.get(k) for k in keys))
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar, Unpack

import zmq

from kvctl import endpoints as where
from kvctl import requests
from kvctl.client import CONNECT_S, POLL_MS, TRIES, Pump
from kvctl.errors import Conflict, KvError, NoEndpoint
from kvctl.model import Item, Written
from kvctl.requests import Count, GetOptions, Key, PutOptions
from kvctl.session import Call
from kvnode.protocol import messages as m

if TYPE_CHECKING:
    from kvctl.merge import Change, Merge

Reply = TypeVar("Reply")


class AsyncClient:
    """A connection to a cluster, for one event loop. Use it as `async with`."""

    def __init__(self, endpoints: str | None = None, timeout: float = 2.0) -> None:
        self._timeout = timeout
        self._pump = Pump(where.resolve(endpoints).addresses)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watched: dict[int, zmq.Socket[bytes]] = {}
        self._due = False
        self._ticker: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._ticker = asyncio.create_task(self._tick())
        try:
            await self._connect()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections. Safe to call twice."""
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None
        if self._loop is not None:
            for fd in self._watched:
                self._loop.remove_reader(fd)
            self._watched.clear()
        self._pump.links.close()

    # ---- requests --------------------------------------------------------------------------

    async def get(self, key: Key, **options: Unpack[GetOptions]) -> Item:
        """The item under a key. Raises `NotFound`, whose `item` has the context to write with."""
        return requests.found(await self.fetch(key, **options))

    async def fetch(self, key: Key, **options: Unpack[GetOptions]) -> Item:
        """The item under a key, also when it has no value."""
        ask = requests.get(self._pump.session, key, self._timeout, options)
        return requests.item_of(await self._do(ask, options.get("via")))

    async def put(self, key: Key, value: bytes, **options: Unpack[PutOptions]) -> Written:
        """Write a value to W replicas."""
        ask = requests.put(self._pump.session, key, value, self._timeout, options)
        return requests.written_of(await self._do(ask, options.get("via")))

    async def delete(self, key: Key, **options: Unpack[PutOptions]) -> Written:
        """Write a tombstone to W replicas. Without a context it covers what R owners hold."""
        ask = requests.put(self._pump.session, key, None, self._timeout, options)
        return requests.written_of(await self._do(ask, options.get("via")))

    # ---- siblings --------------------------------------------------------------------------

    async def get_merged(self, key: Key, merge: Merge | None = None, **options: Unpack[GetOptions]) -> bytes:
        """The value under a key; siblings are merged and the result is written back. Raises `NotFound`.

        Without a `merge` the last write wins. Whoever wrote meanwhile is a sibling of the result, for the
        next reader to merge. The result has no time to live.
        """
        from kvctl.merge import merged

        item = await self.get(key, **options)
        value = merged(item, merge)
        assert value is not None
        if len(item.siblings) > 1:
            await self.put(key, value, context=item.context, mode=options.get("mode", "eventual"))
        return value

    async def update(
        self, key: Key, change: Change, merge: Merge | None = None, tries: int = TRIES, mode: str = "eventual"
    ) -> Written:
        """Write `change(value)` over what is there, siblings merged. `change` gets None for no value, and
        gives None to delete.

        If someone else wrote meanwhile it begins anew, `tries` times in all, then raises `Conflict`. That is
        judged by the coordinator, best effort: two that pass at once leave siblings, and nothing is lost.
        """
        from kvctl.merge import merged

        while True:
            tries -= 1
            item = await self.fetch(key, mode=mode)
            value = change(merged(item, merge))
            try:
                if value is None:
                    return await self.delete(key, if_match=item.context, mode=mode)
                return await self.put(key, value, if_match=item.context, mode=mode)
            except Conflict:
                if tries <= 0:
                    raise

    # ---- many keys -------------------------------------------------------------------------

    async def get_many(self, keys: Iterable[Key], **options: Unpack[GetOptions]) -> dict[Key, Item | KvError]:
        """Many gets, pipelined. An absent key gives an `Item` that is not `found`."""
        wanted = list(keys)
        results = await asyncio.gather(*(self._safely(self.fetch(k, **options)) for k in wanted))
        return dict(zip(wanted, results, strict=True))

    async def put_many(
        self, pairs: Mapping[Key, bytes], **options: Unpack[PutOptions]
    ) -> dict[Key, Written | KvError]:
        """Many puts, pipelined; each stands alone."""
        results = await asyncio.gather(*(self._safely(self.put(k, v, **options)) for k, v in pairs.items()))
        return dict(zip(pairs, results, strict=True))

    async def scan(self, prefix: Key = b"", limit: int | None = None, *, r: Count = None) -> AsyncIterator[Item]:
        """Items with a live value, in byte order of their keys, page by page."""
        pages = requests.Pages(self._pump.session, prefix, limit, r, self._timeout)
        while not pages.done:
            for item in pages.take((await self._do(pages.ask())).outcome):
                yield item

    async def _safely(self, request: Awaitable[Reply]) -> Reply | KvError:
        try:
            return await request
        except KvError as error:
            return error

    # ---- the loop --------------------------------------------------------------------------

    async def _do(self, ask: m.ClientRequest, via: str | None = None) -> Call:
        loop = self._loop
        if loop is None:
            raise RuntimeError("use AsyncClient as `async with AsyncClient(...) as kv:`")
        done: asyncio.Future[None] = loop.create_future()

        def ended(_: Call) -> None:
            if not done.done():
                done.set_result(None)

        call = Call(ask, loop.time() + self._timeout, requests.pin(self._pump.session, via), notify=ended)
        self._pump.session.start(call)
        self._soon()
        await done
        return call

    def _soon(self) -> None:
        """Turn the pump once this iteration of the loop is over."""
        if not self._due and self._loop is not None:
            self._due = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._due = False
        if self._ticker is None:
            return
        self._pump.turn(0)
        self._watch()
        # ZeroMQ's descriptors are edge-triggered: go on until nothing is ready.
        if self._pump.session.has_mail or self._pump.links.poller.poll(0):
            self._soon()

    def _watch(self) -> None:
        """Have the loop watch sockets dialled since the last time."""
        assert self._loop is not None
        for socket in self._pump.links.sockets():
            fd = socket.getsockopt(zmq.FD)
            assert isinstance(fd, int)
            if fd not in self._watched:
                self._watched[fd] = socket
                self._loop.add_reader(fd, self._soon)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(POLL_MS / 1000)
            if self._pump.session.in_flight:
                self._turn()

    async def _connect(self) -> None:
        session = self._pump.session
        session.greet()
        self._soon()
        deadline = asyncio.get_running_loop().time() + CONNECT_S
        while session.ring is None:
            if asyncio.get_running_loop().time() > deadline:
                raise NoEndpoint("no node answered", "kvctl up, or --connect HOST:PORT of a running node")
            await asyncio.sleep(0.005)
            self._turn()
