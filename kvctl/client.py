"""The synchronous client: one thread, one session, pipelined where you ask for many.

Promises: a key goes to its first reachable owner; `put` returns once W replicas hold the value
durably; only `eventual` puts are retried, once, at the next owner.
Never: hides that a write may have been applied (`Indeterminate.applied == "maybe"`).

    with Client("127.0.0.1:7001") as kv:
        kv.put("cart:1", b"milk")
        item = kv.get("cart:1")
        kv.put("cart:1", item.value + b",eggs", context=item.context)
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeAlias, TypeVar, Unpack

from kvctl import endpoints as where
from kvctl import requests
from kvctl.errors import Conflict, KvError, NoEndpoint
from kvctl.links import Links
from kvctl.model import Item, Written
from kvctl.requests import Count, GetOptions, Key, PutOptions
from kvctl.session import Call, Outcome, Session
from kvnode.protocol import messages as m
from kvnode.protocol.ring import Member, Ring
from kvnode.protocol.types import NodeId

if TYPE_CHECKING:
    from kvctl.merge import Change, Merge

CONNECT_S = 2.0
IN_FLIGHT_MAX = 256
POLL_MS = 50
LOOK_S = 0.02
"""How often deadlines and connections are looked at."""
DIALLING_S = 0.002
"""...and while one is coming up."""

EACH_S = 0.5
"""How long one member may take to answer when each is asked."""

TRIES = 8
"""How often `update` begins in all when others write the same key at the same time, unless told."""

Reply = TypeVar("Reply")
Make: TypeAlias = Callable[[int, NodeId], m.ClientRequest]
"""(Request id, member) -> what to ask that member."""


class Pump:
    """A session and its links, turned by whoever waits."""

    def __init__(self, addresses: tuple[str, ...]) -> None:
        self.session = Session(addresses, secrets.randbits(31) << 32)
        self.links = Links()
        self._addresses = addresses
        self._look_at = 0.0

    def connect(self) -> None:
        """Learn the ring from the first node that answers. Raises `NoEndpoint`."""
        session = self.session
        session.tick(time.monotonic())
        session.greet()
        deadline = time.monotonic() + CONNECT_S
        while session.ring is None:
            left = deadline - time.monotonic()
            if left <= 0:
                other = self.links.other_version
                raise NoEndpoint(
                    f"no answer from {', '.join(self._addresses)}"
                    + (f": a node there speaks protocol {other}" if other is not None else ""),
                    "kvctl up, or --connect HOST:PORT of a running node",
                )
            self.turn(min(left, 0.01))

    def turn(self, wait_s: float) -> None:
        """Send what is to be sent, wait a while for answers, take them in."""
        session, links = self.session, self.links
        session.now = now = time.monotonic()
        out = session.take()
        broken = links.send(out, now)
        if not broken:
            if links.dialling:
                wait_s = min(wait_s, DIALLING_S)
            for address, messages in links.hear(links.poller.poll(int(wait_s * 1000))):
                session.receive(address, messages)
        if now >= self._look_at or links.dialling:
            self._look_at = now + LOOK_S
            last_words, gone = links.look(now)
            for address, messages in last_words:
                session.receive(address, messages)
            for address, used in gone.items():
                session.lost(address, used=used)
            session.tick(now)
        for address, untouched in broken.items():
            session.lost(address, out[address] if untouched else ())

    def finish(self, calls: Iterable[Call]) -> None:
        """Turn until these have ended."""
        waiting = [call for call in calls if call.outcome is None]
        while waiting:
            self.turn(POLL_MS / 1000)
            waiting = [call for call in waiting if call.outcome is None]


class Client:
    """A connection to a cluster. Not to be shared between threads."""

    def __init__(self, endpoints: str | None = None, timeout: float = 2.0) -> None:
        """Connect to any of `HOST:PORT,...`; without it, where the CLI would. Raises `NoEndpoint`."""
        self._timeout = timeout
        self._pump = Pump(where.resolve(endpoints).addresses)
        try:
            self._pump.connect()
        except BaseException:
            self.close()
            raise

    # ---- one key ---------------------------------------------------------------------------

    def get(self, key: Key, **options: Unpack[GetOptions]) -> Item:
        """The item under a key. Raises `NotFound`, whose `item` has the context to write with."""
        return requests.found(self.fetch(key, **options))

    def fetch(self, key: Key, **options: Unpack[GetOptions]) -> Item:
        """The item under a key, also when it has no value."""
        return requests.item_of(
            self._do(requests.get(self._pump.session, key, self._timeout, options), options.get("via"))
        )

    def put(self, key: Key, value: bytes, **options: Unpack[PutOptions]) -> Written:
        """Write a value to W replicas."""
        ask = requests.put(self._pump.session, key, value, self._timeout, options)
        return requests.written_of(self._do(ask, options.get("via")))

    def delete(self, key: Key, **options: Unpack[PutOptions]) -> Written:
        """Write a tombstone to W replicas. Without a context it covers what R owners hold."""
        ask = requests.put(self._pump.session, key, None, self._timeout, options)
        return requests.written_of(self._do(ask, options.get("via")))

    # ---- siblings --------------------------------------------------------------------------

    def get_merged(self, key: Key, merge: Merge | None = None, **options: Unpack[GetOptions]) -> bytes:
        """The value under a key; siblings are merged and the result is written back. Raises `NotFound`.

        Without a `merge` the last write wins. Whoever wrote meanwhile is a sibling of the result, for the
        next reader to merge. The result has no time to live.
        """
        from kvctl.merge import merged

        item = self.get(key, **options)
        value = merged(item, merge)
        assert value is not None
        if len(item.siblings) > 1:
            self.put(key, value, context=item.context, mode=options.get("mode", "eventual"))
        return value

    def update(
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
            item = self.fetch(key, mode=mode)
            value = change(merged(item, merge))
            try:
                if value is None:
                    return self.delete(key, if_match=item.context, mode=mode)
                return self.put(key, value, if_match=item.context, mode=mode)
            except Conflict:
                if tries <= 0:
                    raise

    # ---- many keys -------------------------------------------------------------------------

    def get_many(self, keys: Iterable[Key], **options: Unpack[GetOptions]) -> dict[Key, Item | KvError]:
        """Many gets, pipelined. An absent key gives an `Item` that is not `found`."""
        session = self._pump.session
        via = options.get("via")
        return self._many(
            keys, lambda key: requests.get(session, key, self._timeout, options), requests.item_of, via
        )

    def put_many(self, pairs: Mapping[Key, bytes], **options: Unpack[PutOptions]) -> dict[Key, Written | KvError]:
        """Many puts, pipelined; each stands alone."""
        session = self._pump.session
        return self._many(
            pairs,
            lambda key: requests.put(session, key, pairs[key], self._timeout, options),
            requests.written_of,
            options.get("via"),
        )

    def _many(
        self,
        keys: Iterable[Key],
        make: Callable[[Key], m.Get | m.Put],
        read: Callable[[Call], Reply],
        via: str | None = None,
    ) -> dict[Key, Reply | KvError]:
        results: dict[Key, Reply | KvError] = {}
        calls: dict[Key, Call] = {}
        session = self._pump.session
        pinned = requests.pin(session, via)
        for key in keys:
            try:
                ask = make(key)
            except KvError as error:
                results[key] = error
                continue
            calls[key] = call = Call(ask, time.monotonic() + self._timeout, pinned)
            session.start(call)
            while session.in_flight >= IN_FLIGHT_MAX:
                self._pump.turn(POLL_MS / 1000)
        self._pump.finish(calls.values())
        for key, call in calls.items():
            try:
                results[key] = read(call)
            except KvError as error:
                results[key] = error
        return results

    # ---- the cluster -----------------------------------------------------------------------

    def scan(self, prefix: Key = b"", limit: int | None = None, *, r: Count = None) -> Iterator[Item]:
        """Items with a live value, in byte order of their keys, page by page."""
        pages = requests.Pages(self._pump.session, prefix, limit, r, self._timeout)
        while not pages.done:
            yield from pages.take(self._do(pages.ask()).outcome)

    def explain(self, key: Key) -> m.Explained:
        """Where a key lives, and what each owner holds of it."""
        raw = requests.key_bytes(key)
        return self._ask(m.Explain(self._rid(), raw, requests.milliseconds(self._timeout)), m.Explained)

    def status(self, timeout: float = 1.0, *, roots: bool = False) -> m.ClusterReport:
        """What every node says of itself; None for one that does not answer in time."""
        return self._ask(m.Status(self._rid(), requests.milliseconds(timeout), roots), m.ClusterReport)

    def ask_each(
        self,
        make: Make,
        nodes: Iterable[str] | None = None,
        timeout: float = EACH_S,
        outside: Iterable[Member] = (),
    ) -> dict[NodeId, Outcome]:
        """Ask these members (all), and nodes outside, each directly and itself only. What came of it, by node."""
        wanted = None if nodes is None else set(nodes)
        deadline = time.monotonic() + timeout
        calls = {
            member.id: Call(make(self._rid(), member.id), deadline, pinned=member.address)
            for member in (*self.ring().members, *outside)
            if wanted is None or member.id in wanted
        }
        for call in calls.values():
            self._pump.session.start(call)
        self._pump.finish(calls.values())
        return {node: call.outcome for node, call in calls.items() if call.outcome is not None}

    def dated(self, nodes: Iterable[str], timeout: float = EACH_S) -> set[NodeId]:
        """Those of these members whose clock is known in time: an order to them can be dated."""
        session, wanted = self._pump.session, set(nodes)
        members = [member for member in self.ring().members if member.id in wanted]
        deadline = time.monotonic() + timeout
        while unknown := [m.address for m in members if not session.knows_time(m.address)]:
            if time.monotonic() > deadline:
                break
            for address in unknown:
                session.ask_time(address)
            self._pump.turn(POLL_MS / 1000)
        return {member.id for member in members if session.knows_time(member.address)}

    # ---- its shape -------------------------------------------------------------------------

    def stage(self, kind: m.ChangeKind, node: str, new: str = "") -> m.StagedNow:
        """Stage a change of members."""
        return self._ask(m.StageChange(self._rid(), kind, NodeId(node), new), m.StagedNow)

    def clear_staged(self) -> m.StagedNow:
        """Forget what is staged."""
        return self._ask(m.ClearStaged(self._rid()), m.StagedNow)

    def plan(self) -> m.Plan:
        """What a commit of the staged changes would do."""
        return self._ask(m.AskPlan(self._rid()), m.Planned).plan

    def commit(self, plan: m.Plan, timeout: float) -> int:
        """Have a plan chosen. The epoch it begins. Raises `Conflict` when the cluster has gone on since."""
        from kvctl.shape import in_force

        ask = m.CommitPlan(self._rid(), plan.id, requests.milliseconds(timeout))
        try:
            return self._ask(ask, m.Committed, timeout).epoch
        except Conflict:
            # The answer to a first try may have been lost, and the second found the work done.
            ring = self.status().ring
            if not in_force(plan, ring):
                raise
            return ring.epoch

    def cancel(self, timeout: float) -> int:
        """Give up the moves that are pending. The epoch from which on there are none."""
        return self._ask(m.CancelMoves(self._rid(), requests.milliseconds(timeout)), m.Committed, timeout).epoch

    def events(self, after: Mapping[str, int] | None = None) -> list[m.Event]:
        """Events of every node that answers, newer than those numbered `after[node]`."""
        seen = after or {}
        told = self.ask_each(lambda rid, node: m.Events(rid, seen.get(node, 0)))
        events = [e for outcome in told.values() if isinstance(outcome, m.EventList) for e in outcome.events]
        return sorted(events, key=lambda e: (e.wall_ms, e.node, e.number))

    def ring(self) -> Ring:
        """The ring this client routes by."""
        assert self._pump.session.ring is not None
        return self._pump.session.ring

    def welcome(self) -> m.Welcome:
        """What the first node that answered said of itself and the cluster."""
        assert self._pump.session.welcome is not None
        return self._pump.session.welcome

    @property
    def pump(self) -> Pump:
        """The machinery, for those who drive it themselves (the bench)."""
        return self._pump

    # ---- inside ----------------------------------------------------------------------------

    def _rid(self) -> int:
        return self._pump.session.next_rid()

    def _do(self, ask: m.ClientRequest, via: str | None = None, timeout: float | None = None) -> Call:
        deadline = time.monotonic() + (self._timeout if timeout is None else timeout)
        call = Call(ask, deadline, requests.pin(self._pump.session, via))
        self._pump.session.start(call)
        self._pump.finish((call,))
        return call

    def _ask(self, ask: m.ClientRequest, kind: type[Reply], timeout: float | None = None) -> Reply:
        outcome = self._do(ask, timeout=timeout).outcome
        if isinstance(outcome, KvError):
            raise outcome
        assert isinstance(outcome, kind)
        return outcome

    def close(self) -> None:
        """Close the connections. Safe to call twice."""
        self._pump.links.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
