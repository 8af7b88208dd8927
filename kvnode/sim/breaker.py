"""The breaker: does the faults of a case to a world, each at its time, and mends each at its end.

Promises: overlapping faults of one kind end one by one; `mend` undoes all that is left; only what was
done is counted. Never: decides anything; the case did.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeAlias

from kvnode.protocol.types import Address, NodeId
from kvnode.sim.case import BAD_DISKS, LINKS, PROCESS, Fault
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
            "kill": self._kill, "stop": self._stop, "wipe": self._wipe, "pause": self._pause,
            "fail-fsync": self._fail, "full-disk": self._fill,
        }  # fmt: skip
        for place, fault in enumerate(faults):
            world.timeline.at(START + tenths(fault.at_ms), self._begin, place, fault)

    def _begin(self, place: int, fault: Fault) -> None:
        begin = self._begins.get(fault.kind)
        if self._over or (begin is not None and not begin(fault)):
            return
        self.counts[fault.kind] += 1
        self._active[place] = fault
        self._add_up(fault)
        self._world.timeline.after(tenths(fault.lasts_ms), self._end, place)

    def _end(self, place: int) -> None:
        if self._over:
            return
        fault = self._active.pop(place)
        match fault.kind:
            case "kill" | "stop" | "wipe" | "pause":
                for name in fault.nodes:
                    self._rise(name)
            case "fail-fsync" | "full-disk":
                for name in fault.nodes:
                    if not any(f.kind in BAD_DISKS and name in f.nodes for f in self._active.values()):
                        self._world.disk(name).mend()
                    self._rise(name)
            case _:
                self._add_up(fault)

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

    def _stop(self, fault: Fault) -> bool:
        up = [name for name in fault.nodes if self._world.node(name).up]
        self._world.stop(*up)
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
        if any(name in fault.nodes and fault.kind in PROCESS for fault in self._active.values()):
            return  # another fault holds it down
        if not node.up:
            node.restart()
        elif node.paused:
            node.resume()

    # ---- what lies between and beneath -----------------------------------------------------

    def _add_up(self, fault: Fault) -> None:
        """Have things be as all active faults together say, after this one came or went."""
        if fault.kind in LINKS:
            self._links()
        for name in fault.nodes:
            alike = [f.amount for f in self._active.values() if f.kind == fault.kind and name in f.nodes]
            if fault.kind == "slow-disk":
                late = tenths(sum(alike))
                self._world.disk(name).commit = (late, late * 2) if late else QUICK_COMMIT
            elif fault.kind == "skew":
                self._world.wall_skew(name, sum(alike))

    def _links(self) -> None:
        """Have the network be as the active faults say."""
        network = self._world.network
        self._world.heal()
        for fault in self._active.values():
            if fault.kind == "partition":
                self._world.partition(fault.nodes, fault.others, one_way=fault.one_way)
        weather: dict[tuple[Address, Address], Weather] = {}
        for fault in self._active.values():
            if fault.kind in LINKS and fault.kind != "partition":
                for name in fault.nodes:
                    for peer in fault.others or [other for other in self._world.nodes if other != name]:
                        link = NodeId(name), NodeId(peer)
                        weather[link] = _worse(weather.get(link, CLEAR), fault)
        network.weather = weather

    def _fail(self, fault: Fault) -> bool:
        for name in fault.nodes:
            self._world.disk(name).fail_next_commit()
        return True

    def _fill(self, fault: Fault) -> bool:
        for name in fault.nodes:
            self._world.disk(name).fill()
        return True


def _worse(weather: Weather, fault: Fault) -> Weather:
    match fault.kind:
        case "delay":
            if weather.delay >= tenths(fault.amount):
                return weather
            return weather._replace(delay=tenths(fault.amount), jitter=tenths(fault.jitter))
        case "drop":
            return weather._replace(loss=max(weather.loss, fault.amount))
        case "duplicate":
            return weather._replace(duplication=max(weather.duplication, fault.amount))
        case "reorder":
            return weather._replace(overtaken=max(weather.overtaken, fault.amount))
        case _:
            assert fault.kind == "corrupt"
            return weather._replace(corruption=max(weather.corruption, fault.amount))
