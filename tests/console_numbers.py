"""What the console costs: `make console-numbers`. One figure a line; nothing is judged here.

paint     from the start of the process to the first whole screen
large     100 simulated nodes, 1024 partitions, once a second: CPU share, frames, keys
memory    an hour of a recording at 60x: memory early and late
watched   what a node pays for being looked at; how far behind the nodes' own word what is shown is
"""

from __future__ import annotations

import asyncio
import os
import pty
import select
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import msgspec
import psutil
from textual.screen import Screen

from kvctl import Client, local
from kvctl.console.app import Console, settle
from kvctl.console.feeds import Played
from kvctl.console.page import Page
from kvctl.console.record import Recorder, Recording
from kvctl.console.replay import Replay
from kvctl.console.sample import Sample
from kvctl.console.sampler import Looker, Sampler, wall_ms
from kvctl.console.view import ClusterView, advance
from kvctl.console.widgets.table import KeyTable
from kvctl.health import DOWN, UP
from kvnode.protocol.messages import ClusterReport, PeerView
from kvnode.protocol.ring import Member, Ring
from kvnode.protocol.types import NodeId
from tests.conftest import Kvctl, eventually
from tests.console_pilot import STORY
from tests.reports import report

NODES, PARTITIONS, SECONDS, PRESSES, TOGETHER, KILLS = 100, 1024, 15, 200, 10, 5


def tell(name: str, text: str) -> None:
    """One figure."""
    print(f"{name:<34}{text}", flush=True)


# ---- paint -----------------------------------------------------------------------------------


def paint() -> None:
    """In a real terminal of 120x36."""
    times = []
    for _ in range(5):
        begun = time.monotonic()
        pid, fd = pty.fork()
        if pid == 0:
            os.environ["TERM"] = "xterm-256color"
            os.execv(sys.executable, [sys.executable, "-m", "kvctl", "dashboard", "--replay", str(STORY)])
        import fcntl
        import termios

        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 36, 120, 0, 0))
        seen = b""
        while b"READ-WRITE" not in seen and time.monotonic() - begun < 20:
            if select.select([fd], [], [], 0.2)[0]:
                seen += os.read(fd, 65536)
        times.append(time.monotonic() - begun)
        os.write(fd, b"q")
        while True:
            try:
                if not os.read(fd, 65536):
                    break
            except OSError:
                break
        os.waitpid(pid, 0)
        os.close(fd)
    tell("start to first whole screen", f"median {statistics.median(times):.2f} s, worst {max(times):.2f} s of 5")


# ---- large -----------------------------------------------------------------------------------


def world() -> tuple[Ring, tuple[NodeId, ...]]:
    """A ring of a hundred."""
    names = tuple(NodeId(f"node-{i:03}") for i in range(NODES))
    members = tuple(Member(name, f"10.0.{i // 250}.{i % 250}:7001", name) for i, name in enumerate(names))
    owners = tuple(((p * 7) % NODES, (p * 7 + 31) % NODES, (p * 7 + 62) % NODES) for p in range(PARTITIONS))
    return Ring("large", 1, 1, 3, PARTITIONS, members, owners, (1,) * PARTITIONS), names


class Simulated:
    """A feed that decodes and folds a whole report of a hundred nodes once a second, as the sampler would."""

    replay = None
    notice = ""
    recording = ""

    def __init__(self) -> None:
        self._ring, names = world()
        views = tuple(PeerView(name, "up", 0.3, 100, ()) for name in names)
        reports = tuple(report(name, peers=views, took=(0,) * 40 + (100,) * 20) for name in names)
        self._raw = msgspec.msgpack.encode(ClusterReport(1, self._ring, reports, names[0]))
        self._stop = threading.Event()

    def start(self, post: Callable[[ClusterView], None]) -> None:
        """Begin."""

        def run() -> None:
            view, turn = ClusterView(), 0
            while not self._stop.wait(1.0 if turn else 0.0):
                turn += 1
                told = msgspec.msgpack.decode(self._raw, type=ClusterReport)
                reports = tuple(
                    msgspec.structs.replace(
                        r, uptime_ms=1000 * turn, keys=turn * i, took=tuple(n * turn for n in r.took)
                    )
                    for i, r in enumerate(told.reports)
                    if r is not None
                )
                view = advance(view, Sample(at_ms=wall_ms(), asked=told.asked, reports=reports), told.ring)
                post(view)

        threading.Thread(target=run, daemon=True).start()

    def stop(self) -> None:
        """End."""
        self._stop.set()

    def now_ms(self) -> int:
        """The time of day."""
        return wall_ms()

    def look_now(self) -> None:
        """It looks once a second."""


async def large() -> None:
    """CPU share and frames on each of three screens; keys to paint."""
    frames: list[tuple[float, float]] = []
    painted = asyncio.Event()
    renew, refresh = Page.renew, Screen._compositor_refresh

    def timed_renew(self: Page) -> None:
        begun = time.perf_counter(), time.thread_time()
        renew(self)
        frames.append((time.perf_counter() - begun[0], time.thread_time() - begun[1]))

    def timed_refresh(self: Screen[None]) -> None:
        begun = time.perf_counter(), time.thread_time()
        refresh(self)
        frames.append((time.perf_counter() - begun[0], time.thread_time() - begun[1]))
        painted.set()

    Page.renew, Screen._compositor_refresh = timed_renew, timed_refresh  # type: ignore[method-assign]
    try:
        app = Console(Simulated())  # type: ignore[arg-type]
        async with app.run_test(size=(120, 36)) as pilot:
            await pilot.pause(2)
            settle()
            for screen in ("overview", "nodes", "ring"):
                app.action_go(screen)
                await asyncio.sleep(2)
                frames.clear()
                cpu, wall = time.process_time(), time.monotonic()
                await asyncio.sleep(SECONDS)
                share = (time.process_time() - cpu) / (time.monotonic() - wall)
                longest, own = max(f[0] for f in frames) * 1000, max(f[1] for f in frames) * 1000
                told = f"{share:.1%} of a core, longest frame {longest:.0f} ms ({own:.0f} ms of its own CPU)"
                tell(f"{NODES} nodes, {screen}", told)
            app.action_go("nodes")
            await asyncio.sleep(1)
            await keys(app, painted)
    finally:
        Page.renew, Screen._compositor_refresh = renew, refresh  # type: ignore[method-assign]


async def keys(app: Console, painted: asyncio.Event) -> None:
    """From a key to the paint that follows it; ten keys in one piece, each in its turn."""
    waits, own = [], []
    for i in range(PRESSES):
        painted.clear()
        begun, cpu = time.perf_counter(), time.thread_time()
        app.simulate_key("down" if i // 90 % 2 == 0 else "up")
        await asyncio.wait_for(painted.wait(), 2)
        waits.append((time.perf_counter() - begun) * 1000)
        own.append((time.thread_time() - cpu) * 1000)
        await asyncio.sleep(0.01)
    waits.sort()
    own.sort()
    half, most = PRESSES // 2, PRESSES * 99 // 100
    told = f"p50 {waits[half]:.0f} ms, p99 {waits[most]:.0f} ms, worst {waits[-1]:.0f} of {PRESSES}"
    tell("key to paint", f"{told}; of its own CPU p50 {own[half]:.1f} ms, p99 {own[most]:.1f} ms")
    table = app.screen.query_one("#all", KeyTable)
    table.action_end(-1)
    begun = time.perf_counter()
    for _ in range(TOGETHER):
        app.simulate_key("down")
    while table.keys.index(table.cursor_key) < TOGETHER:
        await asyncio.sleep(0)
    tell(f"{TOGETHER} keys in one piece", f"all acted on after {(time.perf_counter() - begun) * 1000:.0f} ms")


# ---- memory ----------------------------------------------------------------------------------


async def memory() -> None:
    """An hour, made of the story over and over."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "hour.kvrec"
        source, recorder = Recording(STORY), Recorder(path)
        first = source.at_ms(0)
        for i in range(3600):
            sample, ring = source.read(i % len(source))
            recorder.take(msgspec.structs.replace(sample, at_ms=first + i * 1000), ring)
        recorder.close()
        replay = Replay(Recording(path))
        for _ in range(10):
            replay.faster(1)
        app = Console(Played(replay))
        process = psutil.Process()
        seen = []
        async with app.run_test(size=(120, 36)) as pilot:
            begun = time.monotonic()
            while replay.position.playing and time.monotonic() - begun < 120:
                await pilot.pause(1)
                seen.append(process.memory_info().rss / 1e6)
            took = time.monotonic() - begun
        early, late = seen[min(len(seen) - 1, len(seen) // 4)], seen[-1]
        tell("an hour at 60x", f"{took:.0f} s, {path.stat().st_size / 1e6:.1f} MB on disk; memory after a quarter "
                               f"{early:.0f} MB, at the end {late:.0f} MB, most {max(seen):.0f} MB")  # fmt: skip


# ---- watched ---------------------------------------------------------------------------------


class Shown(NamedTuple):
    """A view, and when it came to be shown."""

    at_ms: int
    view: ClusterView


class Watch:
    """Five real nodes, and the console's sampler looking at them."""

    def __init__(self, kvctl: Kvctl) -> None:
        kvctl.up(5)
        self.kvctl = kvctl
        self.cluster = local.load("local")
        self.shown: list[Shown] = [Shown(wall_ms(), ClusterView())]
        self._sampler: Sampler | None = None

    def look(self) -> None:
        """Begin to look."""
        self._sampler = Sampler(Looker(self.cluster.addresses, self.cluster))
        self._sampler.start(self._take)

    def _take(self, sample: Sample, ring: Ring | None) -> None:
        self.shown.append(Shown(wall_ms(), advance(self.shown[-1].view, sample, ring)))

    def stop(self) -> None:
        """End."""
        if self._sampler is not None:
            self._sampler.stop()

    def state(self, node: str) -> str:
        """As it is shown now."""
        row = self.shown[-1].view.row(node)
        return row.state if row is not None else ""

    def hints(self) -> int:
        """As they are shown now."""
        return self.shown[-1].view.point.hints or 0

    def cpu(self, seconds: float) -> float:
        """Of a node, as a share of a core."""
        pids = [p.pid for n in self.cluster.spec.nodes if (p := self.cluster.process(n.name)) is not None]

        def used() -> float:
            return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)

        before = used()
        time.sleep(seconds)
        return (used() - before) / seconds / len(pids)


def watched() -> None:
    """What being looked at costs a node; how far behind the nodes' own word what is shown is."""
    with tempfile.TemporaryDirectory() as home:
        kvctl = Kvctl(Path(home))
        os.environ["KVCTL_HOME"] = home
        watch = None
        try:
            watch = Watch(kvctl)
            alone = watch.cpu(10)
            watch.look()
            seen = watch.cpu(10)
            tell("a node, looked at", f"{(seen - alone) * 100:.2f} % of a core more ({alone:.2%} to {seen:.2%})")
            suspected(watch)
            behind(watch)
        finally:
            if watch is not None:
                watch.stop()
            kvctl.end()


def suspected(watch: Watch) -> None:
    """From a SIGKILL to SUSPECT on the screen, and how much of that is ours: some node knew it before."""
    whole, ours = [], []
    for _ in range(KILLS):
        victim = watch.cluster.process("n3")
        assert victim is not None
        begun_ms, first = wall_ms(), len(watch.shown)
        subprocess.run(["kill", "-9", str(victim.pid)], check=True)
        assert eventually(lambda: watch.state("n3") == DOWN, 20)
        shown = next(s for s in watch.shown[first:] if (row := s.view.row("n3")) is not None and row.state != UP)
        told = min(e.wall_ms for e in watch.shown[-1].view.events if e.text.startswith("n3: up -> suspect")
                   and e.wall_ms >= begun_ms)  # fmt: skip
        whole.append((shown.at_ms - begun_ms) / 1000)
        ours.append((shown.at_ms - told) / 1000)
        watch.kvctl("node", "start", "n3")
        assert eventually(lambda: watch.state("n3") == UP and not watch.shown[-1].view.problem, 30)
    tell("SIGKILL to SUSPECT on the screen", f"{min(whole):.1f} to {max(whole):.1f} s in {KILLS} kills")
    tell("...after the first node knew", f"median {statistics.median(ours):.2f} s, worst {max(ours):.2f} s")


def behind(watch: Watch) -> None:
    """While hints pile up, drain, and trees are walked: how old the nodes' own figures are when they are shown."""
    watch.kvctl("fault", "kill", "n3", "--yes")
    with Client() as client:
        for i in range(60):
            client.put_many({f"key:{i * 100 + j}": b"x" * 100 for j in range(100)})
            time.sleep(0.05)
    assert eventually(lambda: watch.hints() > 1_000, 20), watch.hints()
    watch.kvctl("fault", "heal", "--all")
    assert eventually(lambda: watch.hints() == 0 and watch.state("n3") == UP, 60)
    watch.kvctl("fault", "wipe", "n2", "--yes")
    watch.kvctl("fault", "restart", "n2")
    watch.kvctl("repair", "run")
    time.sleep(8)
    for name, moving in (("hints", lambda r: r.hints), ("walks", lambda r: r.repair and r.repair.active)):
        old = [
            (shown.at_ms - report.wall_ms, later.at_ms - report.wall_ms)
            for shown, later in pairwise(watch.shown)
            for report in shown.view.sample.reports
            if report is not None and moving(report)
        ]
        shown, replaced = [sorted(ms[i] / 1000 for ms in old) for i in (0, 1)]
        tell(f"figures of {name}, {len(old)} times", (
            f"{shown[len(shown) // 2]:.2f} s old when shown, worst {shown[-1]:.2f} s; "
            f"{replaced[len(replaced) // 2]:.2f} s when the next one comes, worst {replaced[-1]:.2f} s"
        ) if old else "none moved")  # fmt: skip


def main(wanted: list[str]) -> None:
    """All of them, or those named."""
    parts: dict[str, Callable[[], None]] = {
        "paint": paint, "large": lambda: asyncio.run(large()), "memory": lambda: asyncio.run(memory()),
        "watched": watched,
    }  # fmt: skip
    for name in wanted or parts:
        parts[name]()


if __name__ == "__main__":
    main(sys.argv[1:])
