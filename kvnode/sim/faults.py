"""The nemesis: at random moments, something breaks, and later is mended.

Promises: everything it does comes from its seed; `mend` undoes all of it; disks keep their platters.
Never: loses what was durable, but for one disk where that is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from msgspec import Struct

from kvnode.sim.clock import tenths
from kvnode.sim.machine import WAKES_WITHIN
from kvnode.sim.world import World

KINDS = ("crash", "power_cut", "failed_commit", "pause", "partition", "noise", "slow_disk", "skew")


class Chances(Struct, frozen=True, kw_only=True):
    """How much goes wrong, and when."""

    every_ms: tuple[int, int] = (50, 300)
    """Between one fault and the next."""
    lasts_ms: tuple[int, int] = (20, 900)
    """From a fault to its mending."""
    weights: tuple[int, ...] = (1,) * len(KINDS)
    """How often each of `KINDS` strikes, against the others."""
    wipe: bool = False
    """Whether one disk is lost for good, at some moment."""


class Nemesis:
    """Breaks a world, and mends it."""

    def __init__(self, world: World, rng: Random, chances: Chances) -> None:
        self._world = world
        self._rng = rng
        self._chances = chances
        self._names = list(world.nodes)
        self._over = False
        self.counts: dict[str, int] = {}
        """How often each fault was done."""
        acts = (
            self._crash, self._power_cut, self._failed_commit, self._pause,
            self._partition, self._noise, self._slow_disk, self._skew,
        )  # fmt: skip
        self._acts: dict[str, Callable[[], None]] = dict(zip(KINDS, acts, strict=True))
        if chances.wipe:
            world.timeline.after(tenths(rng.randint(20, 2_000)), self._unless_over, self._wipe)
        self._again()

    def mend(self) -> None:
        """No more faults; whatever is broken works again."""
        self._over = True
        for name in self._names:
            if self._world.node(name).clock.skew_ms:
                self._world.wall_skew(name, 0)
        self._world.heal()
        self._calm()
        for node in self._world.nodes.values():
            node.disk.mend()
            self._rise(node.name)
        # A commit that has just failed takes its node down a moment later.
        for name in self._names:
            self._world.timeline.after(WAKES_WITHIN + 1, self._rise, name)

    def _again(self) -> None:
        low, high = self._chances.every_ms
        self._world.timeline.after(tenths(self._rng.randint(low, high)), self._strike)

    def _strike(self) -> None:
        if self._over:
            return
        if any(self._chances.weights):
            kind = self._rng.choices(KINDS, self._chances.weights)[0]
            self.counts[kind] = self.counts.get(kind, 0) + 1
            self._acts[kind]()
            self._again()

    def _later(self, act: Callable[..., None], *args: object) -> None:
        """Mend something after a while, unless all is mended by then."""
        low, high = self._chances.lasts_ms
        self._world.timeline.after(tenths(self._rng.randint(low, high)), self._unless_over, act, *args)

    def _unless_over(self, act: Callable[..., None], *args: object) -> None:
        if not self._over:
            act(*args)

    # ---- machines --------------------------------------------------------------------------

    def _crash(self) -> None:
        self._fell(self._rng.choice(self._names))

    def _power_cut(self) -> None:
        for name in self._names:
            self._fell(name)

    def _fell(self, name: str) -> None:
        if self._world.node(name).up:
            self._world.crash(name)
            self._later(self._rise, name)

    def _wipe(self) -> None:
        name = self._rng.choice(self._names)
        self.counts["wipe"] = 1
        self._world.wipe(name)
        self._later(self._rise, name)

    def _rise(self, name: str) -> None:
        node = self._world.node(name)
        if not node.up:
            node.restart()
        elif node.paused:
            node.resume()

    def _failed_commit(self) -> None:
        name = self._rng.choice(self._names)
        self._world.disk(name).fail_next_commit()
        self._later(self._rise, name)

    def _pause(self) -> None:
        node = self._world.node(self._rng.choice(self._names))
        if node.up and not node.paused:
            node.pause()
            self._later(self._rise, node.name)

    # ---- what lies between and beneath -----------------------------------------------------

    def _partition(self) -> None:
        names = self._rng.sample(self._names, len(self._names))
        at = self._rng.randint(1, len(names) - 1)
        self._world.partition(names[:at], names[at:], one_way=self._rng.random() < 0.4)
        self._later(self._world.heal)

    def _noise(self) -> None:
        network = self._world.network
        network.loss = self._rng.choice((0.0, 0.05, 0.3))
        network.duplication = self._rng.choice((0.0, 0.1, 0.5))
        network.delay = self._rng.choice(((1, 20), (1, 200), (50, 2_000)))
        self._later(self._calm)

    def _calm(self) -> None:
        network = self._world.network
        network.loss, network.duplication, network.delay = 0.0, 0.0, (1, 20)

    def _slow_disk(self) -> None:
        low, high = self._chances.lasts_ms
        self._world.disk(self._rng.choice(self._names)).stall(self._rng.randint(low, high))

    def _skew(self) -> None:
        ms = self._rng.choice((-3_600_000, -5_000, -200, 0, 0, 200, 5_000, 3_600_000))
        self._world.wall_skew(self._rng.choice(self._names), ms)
