"""The witness: clients that write and read through all of the stories, and the checker's verdict on what they saw.

Promises: the history is judged by the checker of `kvctl scenario` and `kvctl simulate`; what could not be
judged is no pass. Never: touches a story's keys, or disturbs what a story counts: it rests when asked to.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from random import Random

from kvctl import Client
from kvctl.scenarios.ending import look, quiet
from kvctl.scenarios.live import LiveGround
from kvnode.sim.campaign import Clients, Report, conclude
from kvnode.sim.case import AN_OWNER, Case, Fault, Load, plan
from kvnode.sim.check import Violation

SEED, LASTS_MS = 1, 600_000
LOAD = Load(clients=4, keys=20, rate=25, scans=0, value_bytes=32, single=False, via=AN_OWNER)
PREFIX = "witness:"
LOOK_S, STOPS_WITHIN_S, CONVERGES_WITHIN_S = 0.1, 15.0, 60.0


class Witness:
    """Clients in a thread of their own, from the first story to the last."""

    def __init__(self, addresses: str, nodes: int, *, disk_lost: bool) -> None:
        """`disk_lost`: whether some story wipes a disk."""
        wiped = (Fault(at_ms=0, lasts_ms=0, kind="wipe"),) if disk_lost else ()
        self._case = Case(
            name="tour", seed=SEED, nodes=nodes, n=3, load=LOAD, lasts_ms=LASTS_MS,
            ops=plan(Random(SEED), LOAD, LASTS_MS), faults=wiped,
        )  # fmt: skip
        self._addresses = addresses
        self._over, self._rests, self._resting, self._awake = (threading.Event() for _ in range(4))
        self._abandoned = False
        self._error: BaseException | None = None
        self.report: Report | None = None
        """The verdict, once `end` has returned."""
        self._thread = threading.Thread(target=self._run, name="witness")
        self._thread.start()

    # ---- for the stage ---------------------------------------------------------------------

    @contextmanager
    def rest(self) -> Iterator[None]:
        """Nothing of the witness's is under way in here."""
        self._awake.clear()
        self._rests.set()
        self._resting.wait(STOPS_WITHIN_S)
        try:
            yield
        finally:
            self._rests.clear()
            self._resting.clear()
            self._awake.set()

    def end(self) -> Report:
        """Stop, wait until the cluster is quiet, and judge. Raises what went wrong in the thread."""
        self._over.set()
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self.report is not None
        return self.report

    def abandon(self) -> None:
        """Stop without a verdict: a story broke."""
        self._abandoned = True
        self._over.set()
        self._thread.join()

    # ---- the thread ------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            with closing(Client(self._addresses)) as client:
                self._watch(LiveGround(client, self._case, PREFIX))
        except BaseException as error:  # noqa: BLE001 -- told where `end` is called
            self._error = error
        finally:
            self._resting.set()

    def _watch(self, ground: LiveGround) -> None:
        clients = Clients(ground, self._case)
        while not self._over.is_set():
            ground.run_until(lambda: self._over.is_set() or self._rests.is_set(), LOOK_S)
            if self._rests.is_set():
                while ground.clients.waiting:
                    ground.client.pump.turn(LOOK_S)
                self._resting.set()
                self._awake.wait()
        if self._abandoned:
            return
        clients.stop()
        broken: list[Violation] = []
        if not ground.run_until(lambda: clients.done, STOPS_WITHIN_S):
            broken.append(Violation("heals", b"", "an operation without an end"))
        if why := quiet(ground, CONVERGES_WITHIN_S):
            broken.append(Violation("heals", b"", why))
        ending = look(ground, {op.key for op in self._case.ops}, broken)
        self.report = conclude(self._case, ground.clients.calls, ending, clients.outcomes, Counter())
