"""Scans: pages of keys in byte order, each record merged from R owners.

Promises: a page holds every key in its range that R owners of its partition could tell of, registers
among them, named as such, with what those owners accepted last; where
fewer than R owners of any partition answer, the scan fails: nothing is silently missing.
Never: a snapshot; writes made while it runs may or may not be in it.
Input: Scan, ReplicaScanned, ReplicaRefused, lost peers, ticks.

    every member ── its next `limit` keys ──► k-way merge, cut at the lowest last key of those that
                                              have more, for beyond it their silence means nothing
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

import msgspec
from msgspec import Struct

from kvnode import config
from kvnode.core.deadlines import Deadlines
from kvnode.core.local import Local
from kvnode.core.outbox import Unreadable
from kvnode.core.pages import page_of
from kvnode.core.rules import with_time_left
from kvnode.core.versions import Held, as_read, merge_held
from kvnode.protocol.consensus import RegisterRow
from kvnode.protocol.messages import Error, Failed, ReplicaScanned, Row, Scan, Scanned, ScanReplica
from kvnode.protocol.ring import majority
from kvnode.protocol.types import ALL, Address, Millis, NodeId


class Page(Struct, gc=False):
    """A page being gathered."""

    client: Address
    ask: Scan
    waiting: set[NodeId]
    told: dict[NodeId, ReplicaScanned]
    silent: set[NodeId]
    deadline: Millis
    volatile: bool = False


class Scanner:
    """The scans this node gathers for clients."""

    def __init__(self, local: Local) -> None:
        self._local = local
        self._pages: dict[int, Page] = {}
        self._deadlines = Deadlines()

    def on_scan(self, client: Address, ask: Scan) -> None:
        """Ask every member for its next page."""
        local = self._local
        if len(self._pages) >= config.SCANS_MAX:
            text = f"{config.SCANS_MAX} scans are being gathered here"
            return local.outbox.send(client, Failed(ask.rid, local.routes.epoch, Error.OVERLOADED, text))
        avoided = local.peers.avoided
        waiting = {m for m in local.routes.others if m not in avoided}
        silent = {m for m in local.routes.others if m in avoided}
        timeout = min(ask.timeout_ms or local.settings.deadline_ms, config.WRITE_DEADLINE_MAX_MS)
        page = Page(client, ask, waiting, {}, silent, local.now + timeout)
        rid = local.next_rid()
        question = ScanReplica(rid, local.routes.epoch, ask.after, ask.prefix, ask.limit)
        self._read_own(rid, page)
        self._pages[rid] = page
        self._deadlines.add(rid, page.deadline)
        for peer in sorted(waiting):
            local.outbox.send(peer, question)
        return self._step(rid, page)

    def _read_own(self, rid: int, page: Page) -> None:
        """This node's part of the page, unless it may lack what it once acknowledged."""
        local, ask = self._local, page.ask
        try:
            own = page_of(local.outbox, ask.after, ask.prefix, ask.limit)
        except Unreadable:
            page.silent.add(local.me)
            return
        if local.recovering or local.voteless:
            page.silent.add(local.me)
        else:
            page.told[local.me] = ReplicaScanned(rid, own.rows, bool(own.end), own.registers, own.end)
            page.volatile = own.volatile

    def on_replica_scanned(self, sender: NodeId, scanned: ReplicaScanned) -> None:
        """A member's part of the page."""
        page = self._pages.get(scanned.rid)
        if page is None or sender not in page.waiting:
            return self._local.ignore("replica_scanned")
        page.waiting.discard(sender)
        page.told[sender] = scanned
        return self._step(scanned.rid, page)

    def on_silent(self, sender: NodeId, rid: int) -> bool:
        """A member will not answer. False when the request is not one of ours."""
        page = self._pages.get(rid)
        if page is None:
            return False
        if sender in page.waiting:
            page.waiting.discard(sender)
            page.silent.add(sender)
            self._step(rid, page)
        return True

    def on_ring(self) -> list[tuple[Address, Scan]]:
        """The ring is another one: each page is gathered anew, from those who know it."""
        pages, self._pages = self._pages, {}
        now = self._local.now
        return [(page.client, with_time_left(page.ask, page.deadline - now)) for page in pages.values()]

    def on_peer_lost(self, peer: NodeId) -> None:
        """Do not wait for a member that cannot be reached."""
        for rid in list(self._pages):
            self.on_silent(peer, rid)

    @property
    def busy(self) -> bool:
        """Whether a client still waits for an answer."""
        return bool(self._pages)

    @property
    def timed(self) -> bool:
        """Whether anything here has a deadline."""
        return bool(self._pages)

    def on_tick(self, now: Millis) -> None:
        """Make do with those who answered in time."""
        for rid in self._deadlines.due(now):
            page = self._pages.get(rid)
            if page is not None:
                page.silent |= page.waiting
                page.waiting.clear()
                self._step(rid, page)

    def _step(self, rid: int, page: Page) -> None:
        if page.waiting:
            return None
        del self._pages[rid]
        outbox, epoch = self._local.outbox, self._local.routes.epoch
        gap = self._gap(page)
        if gap:
            failed = Failed(page.ask.rid, epoch, Error.UNAVAILABLE, gap, "kvctl status")
            return outbox.send(page.client, failed)
        try:
            reply = self._merge(page)
        except msgspec.MsgspecError:
            self._local.counters["malformed_records"] += 1
            failed = Failed(page.ask.rid, epoch, Error.UNAVAILABLE, "a member sent a malformed record")
            return outbox.send(page.client, failed)
        return outbox.reply(page.client, reply, volatile=page.volatile)

    def _gap(self, page: Page) -> str:
        """The first partition of which fewer than R owners answered, as a sentence; empty if none."""
        if not page.silent:
            return ""
        for partition, owners in enumerate(self._local.routes.owners):
            match page.ask.r:
                case n if n > 0:
                    need = min(n, len(owners))
                case n if n == ALL:
                    need = len(owners)
                case _:
                    need = majority(len(owners))
            have = sum(owner in page.told for owner in owners)
            if have < need:
                out = ", ".join(o for o in owners if o not in page.told)
                return f"r={need} cannot be met in partition {partition}: {out} did not answer"
        return ""

    def _merge(self, page: Page) -> Scanned:
        told = page.told.values()
        ends = [part.end or part.rows[-1].key for part in told if part.more and (part.end or part.rows)]
        bound = min(ends, default=b"")
        records: dict[bytes, Held] = {}
        for part in told:
            for row in part.rows:
                if not bound or row.key <= bound:
                    records[row.key] = merge_held(records.get(row.key), row.record)
        registers = _latest(part.registers for part in told)
        lives = {key for key, held in registers.items() if held.live_bytes}
        for key, held in registers.items():
            if not bound or key <= bound:
                records[key] = merge_held(records.get(key), held.blob)
        keys = sorted(records)
        kept = keys[: page.ask.limit]
        wall = self._local.wall
        rows = tuple(Row(key, as_read(records[key], wall)) for key in kept)
        cut = len(kept) < len(keys)
        after = bound if bound and not cut else kept[-1] if kept else page.ask.after
        marked = tuple(key for key in kept if key in lives)
        return Scanned(page.ask.rid, rows, after, cut or bool(bound), marked)


def _latest(told: Iterable[tuple[RegisterRow, ...]]) -> dict[bytes, Held]:
    """Of each register what was accepted last: all that was chosen is in it, and maybe more."""
    latest: dict[bytes, RegisterRow] = {}
    for row in chain.from_iterable(told):
        known = latest.get(row.key)
        if known is None or row.accepted > known.accepted:
            latest[row.key] = row
    return {key: merge_held(None, row.record) for key, row in latest.items()}
