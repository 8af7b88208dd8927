"""The network: frames between nodes, and between clients and nodes, late, lost, twice or not at all.

Promises: bytes arrive as they were sent, but where a link's weather spoils some; what is lost is lost by a
setting a test can read. Never: keeps an order: each frame draws its own delay.

What becomes of a frame, in this order:
  1. its link is cut           dropped, or kept until the cut heals and then late (as TCP would), unless
                               the receiver has restarted meanwhile: that was another connection
  2. the receiver is down      told to the sender as lost or not; then dropped, or kept a moment
  3. its link's `weather`      dropped, doubled, late, held so that others pass it, or spoilt
     else `loss`, `duplication`  dropped; or sent twice, each with its own delay
Loss is harsher than ZeroMQ, whose connections lose whole suffixes. Requests are never duplicated:
no transport of ours does, and a second Put would be a second put.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from random import Random
from typing import NamedTuple, Protocol

from kvnode import config
from kvnode.protocol.faults import spoilt
from kvnode.protocol.types import Address
from kvnode.sim.clock import Tenths, tenths
from kvnode.sim.events import Timeline, Trace


class Port(Protocol):
    """Where frames arrive."""

    up: bool
    boot: int

    def arrive(self, sender: Address, frame: bytes | bytearray) -> None:
        """A frame is here."""
        ...


class Parcel(NamedTuple):
    """A frame on its way."""

    sender: Address
    to: Address
    frame: bytes | bytearray
    boot: int
    """The receiver's when it was sent."""


class Weather(NamedTuple):
    """What befalls the frames one node sends to another; shares are of a hundred."""

    delay: Tenths = 0
    """Each takes so much longer,"""
    jitter: Tenths = 0
    """up to so much more or less."""
    loss: int = 0
    duplication: int = 0
    overtaken: int = 0
    """Held back, so that later ones pass."""
    corruption: int = 0


CLEAR = Weather()


class Network:
    """Every link of the world."""

    def __init__(self, timeline: Timeline, trace: Trace, rng: Random) -> None:
        self._timeline = timeline
        self._trace = trace
        self._rng = rng
        self._ports: dict[Address, Port] = {}
        self._cut: dict[tuple[Address, Address], None] = {}
        self._held: list[Parcel] = []
        self.delay: tuple[Tenths, Tenths] = (1, 20)
        """Shortest and longest time a frame takes: 0.1 to 2 ms."""
        self.loss = 0.0
        self.duplication = 0.0
        self.reports_lost = 0.5
        """How often a sender learns that a peer's connection is down."""
        self.holds_cut = 0.3
        """How often a frame into a cut arrives after the cut has healed."""
        self.keeps = 0.3
        """How often a frame to a peer that is down waits for it, for as long as a transport would."""
        self.weather: dict[tuple[Address, Address], Weather] = {}
        """Sender and receiver -> what befalls what is said from one to the other."""
        self.spoilt = 0
        """Frames nobody can read."""
        self.in_flight = 0
        """Frames that have yet to arrive."""

    def attach(self, address: Address, port: Port) -> None:
        """Frames to this address go here."""
        self._ports[address] = port

    # ---- partitions ------------------------------------------------------------------------

    def cut(self, senders: Collection[Address], receivers: Collection[Address], *, one_way: bool = False) -> None:
        """Nothing passes from any of these to any of those; nor back, unless `one_way`."""
        for sender in senders:
            for receiver in receivers:
                self._cut[sender, receiver] = None
                if not one_way:
                    self._cut[receiver, sender] = None

    def heal(self) -> None:
        """Every link works again; what it held arrives late."""
        self._cut.clear()
        held, self._held = self._held, []
        for parcel in held:
            if parcel.boot == self._ports[parcel.to].boot:  # else its connection is gone, and it with it
                self._ship(parcel)

    # ---- frames ----------------------------------------------------------------------------

    def send(self, sender: Address, to: Address, frames: Iterable[bytes | bytearray], *, once: bool) -> bool:
        """Hand over frames. False when the sender learns that the receiver's connection is down.

        `once`: they carry a request, and are not duplicated.
        """
        handed = True
        port = self._ports[to]
        up, boot = port.up, port.boot
        for frame in frames:
            parcel = Parcel(sender, to, frame, boot)
            if self._cut and (sender, to) in self._cut:
                self._into_cut(parcel)
            elif not up:
                handed &= self._to_nobody(parcel, once=once)
            elif self.weather and (weather := self.weather.get((sender, to))) is not None:
                self._through(parcel, weather, once=once)
            elif not self.loss or self._rng.random() >= self.loss:
                self._ship(parcel)
                if self.duplication and not once and self._rng.random() < self.duplication:
                    self._ship(parcel)
        return handed

    def _through(self, parcel: Parcel, weather: Weather, *, once: bool) -> None:
        """A frame on a link that has weather of its own."""
        chance = self._rng.randrange
        if chance(100) < weather.loss:
            return
        late = weather.delay + chance(-weather.jitter, weather.jitter + 1)
        if not once and chance(100) < weather.duplication:
            self._ship(parcel, late)
        if chance(100) < weather.overtaken:
            late += tenths(config.FAULT_OVERTAKEN_MS)
        if chance(100) < weather.corruption:
            self.spoilt += 1
            parcel = parcel._replace(frame=spoilt(parcel.frame, parcel.frame[0] + 1, self._rng))
        self._ship(parcel, late)

    def _ship(self, parcel: Parcel, late: Tenths = 0) -> None:
        low, high = self.delay
        self.in_flight += 1
        wait = late + low + int(self._rng.random() * (high - low + 1))
        self._timeline.after(wait, self._arrive, parcel)

    def _arrive(self, parcel: Parcel) -> None:
        self.in_flight -= 1
        sender, to, frame, _ = parcel
        if self._cut and (sender, to) in self._cut:
            return self._into_cut(parcel)
        port = self._ports[to]
        if not port.up:
            return None
        self._trace.frame(sender, to, frame)
        return port.arrive(sender, frame)

    def _into_cut(self, parcel: Parcel) -> None:
        if self._rng.random() < self.holds_cut:
            self._held.append(parcel)

    def _to_nobody(self, parcel: Parcel, *, once: bool) -> bool:
        """A frame to a peer that is down. False when the sender is told: then a request does not arrive."""
        if self._rng.random() >= self.reports_lost:
            return True
        if not once and self._rng.random() < self.keeps:
            self.in_flight += 1
            self._timeline.after(1 + int(self._rng.random() * config.KEPT_MS * 10), self._arrive, parcel)
        return False
