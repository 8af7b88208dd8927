"""The breaker: does the faults of a case to a world, each at its time, and mends each at its end.

Promises: overlapping faults of one kind end one by one; `mend` undoes all that is left; only what was
done is counted. Never: decides anything; the case did.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeAlias

from kvnode.protocol.types import NodeId
from kvnode.sim.case import Fault
from kvnode.sim.clock import START, tenths
from kvnode.sim.disk import SimDisk
from kvnode.sim.machine import WAKES_WITHIN
from kvnode.sim.network import CLEAR, Weather
from kvnode.sim.world import World

Act: TypeAlias = Callable[[Fault], bool]
"""Does a fault; whether there was anything to do."""
QUICK_COMMIT = SimDisk.COMMIT


class Breaker:
    """The faults of one run."""

    def __init__(self, world: World, faults: Sequence[Fault]) -> None:
        self._world = world
        self._over = False
        self._active: dict[int, Fault] = {}
        self.counts: Counter[str] = Counter()
        """How often each kind was done."""
        self._begins: dict[str, Act] = {
            "kill": self._kill, "wipe": self._wipe, "pause": self._pause, "partition": self._between,
            "delay": self._between, "drop": self._between, "duplicate": self._between, "slow-disk": self._slow,
            "fail-fsync": self._fail, "skew": self._skew,
        }  # fmt: skip
        for place, fault in enumerate(faults):
            world.timeline.at(START + tenths(fault.at_ms), self._begin, place, fault)

    def _begin(self, place: int, fault: Fault) -> None:
        if self._over or not self._begins[fault.kind](fault):
            return
        self.counts[fault.kind] += 1
        self._active[place] = fault
        if fault.kind in ("partition", "delay", "drop", "duplicate"):
            self._links()
        self._world.timeline.after(tenths(fault.lasts_ms), self._end, place)

    def _end(self, place: int) -> None:
        if self._over:
            return
        fault = self._active.pop(place)
        match fault.kind:
            case "kill" | "wipe" | "pause" | "fail-fsync":
                for name in fault.nodes:
                    self._rise(name)
            case "slow-disk":
                for name in fault.nodes:
                    self._world.disk(name).commit = QUICK_COMMIT
            case "skew":
                for name in fault.nodes:
                    self._world.wall_skew(name, 0)
            case _:
                self._links()

    def mend(self) -> None:
        """No more faults; whatever is broken works again."""
        self._over = True
        self._active.clear()
        self._links()
        for name, node in self._world.nodes.items():
            node.disk.mend()
            node.disk.commit = QUICK_COMMIT
            if node.clock.skew_ms:
                self._world.wall_skew(name, 0)
            self._rise(name)
            # A commit that has just failed takes its node down a moment later.
            self._world.timeline.after(WAKES_WITHIN + 1, self._rise, name)

    # ---- machines --------------------------------------------------------------------------

    def _kill(self, fault: Fault) -> bool:
        up = [name for name in fault.nodes if self._world.node(name).up]
        self._world.crash(*up)
        return bool(up)

    def _wipe(self, fault: Fault) -> bool:
        for name in fault.nodes:
            self._world.wipe(name)
        return True

    def _pause(self, fault: Fault) -> bool:
        stood = False
        for name in fault.nodes:
            node = self._world.node(name)
            if node.up and not node.paused:
                node.pause()
                stood = True
        return stood

    def _rise(self, name: str) -> None:
        node = self._world.node(name)
        if any(name in fault.nodes and fault.kind in ("kill", "wipe", "pause") for fault in self._active.values()):
            return  # another fault holds it down
        if not node.up:
            node.restart()
        elif node.paused:
            node.resume()

    # ---- what lies between and beneath -----------------------------------------------------

    def _between(self, fault: Fault) -> bool:
        """What `_links` does, for all active faults at once."""
        return True

    def _links(self) -> None:
        """Have the network be as the active faults say."""
        network = self._world.network
        self._world.heal()
        for fault in self._active.values():
            if fault.kind == "partition":
                self._world.partition(fault.nodes, fault.others, one_way=fault.one_way)
        network.weather = {}
        for fault in self._active.values():
            if fault.kind in ("delay", "drop", "duplicate"):
                for name in fault.nodes:
                    now = network.weather.get(NodeId(name), CLEAR)
                    network.weather[NodeId(name)] = _worse(now, fault)

    def _slow(self, fault: Fault) -> bool:
        for name in fault.nodes:
            self._world.disk(name).commit = (tenths(fault.amount), tenths(fault.amount) * 2)
        return True

    def _fail(self, fault: Fault) -> bool:
        for name in fault.nodes:
            self._world.disk(name).fail_next_commit()
        return True

    def _skew(self, fault: Fault) -> bool:
        for name in fault.nodes:
            self._world.wall_skew(name, fault.amount)
        return True


def _worse(weather: Weather, fault: Fault) -> Weather:
    match fault.kind:
        case "delay":
            return weather._replace(delay=max(weather.delay, tenths(fault.amount)))
        case "drop":
            return weather._replace(loss=max(weather.loss, fault.amount))
        case _:
            return weather._replace(duplication=max(weather.duplication, fault.amount))
