"""The end of a run on a real cluster: wait until it is quiet, and read what every owner holds.

Promises: what could not be read is told, and no pass; reads come last, for they would mend what they find.
Never: waits for ever.

    mended ─► hints drained, all roots equal, nobody unsure of its disk ─► explain each key ─► read it from all
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable

from kvctl import conditions
from kvctl import session as wire
from kvctl.client import IN_FLIGHT_MAX, Client
from kvctl.errors import KvError
from kvctl.health import reports_of
from kvctl.scenarios.live import LiveGround
from kvctl.session import Outcome
from kvnode.protocol.messages import ClientRequest, ClusterReport, Explain, Explained, Got, RunRepair
from kvnode.protocol.types import ALL, Record, decode_record
from kvnode.sim.campaign import JUDGE, Ending
from kvnode.sim.check import Violation
from kvnode.sim.story import Replicas

LOOK_S = 0.25
ORDERED_S = 3.0
"""How long hints alone may do; then every node is asked to compare all it has with the others, so often."""
TRIES = 5
ANSWER_MS = 5_000
TOLD = ("present", "absent")


def quiet(ground: LiveGround, within_s: float) -> str:
    """Wait until all owners hold the same. Why they do not, as a sentence; empty when they do."""
    client, end = ground.client, time.monotonic() + within_s
    ordered, since = time.monotonic(), 0.0
    while True:
        why = _unquiet(client)
        now = time.monotonic()
        if not why:
            since = since or now
            if now - since >= conditions.SETTLE_S:
                return ""
        elif now > end:
            return f"it has not converged within {within_s:g} s: {why}"
        else:
            since = 0.0
            if now - ordered > ORDERED_S:
                ordered = now
                client.ask_each(lambda rid, _: RunRepair(rid, -1))
        time.sleep(LOOK_S)


def _unquiet(client: Client) -> str:
    try:
        told: ClusterReport = client.status(1.0, roots=True)
    except KvError as error:
        return error.message
    unsure = [report.id for report in reports_of(told) if report.recovering]
    return conditions.converged(told) or (f"{', '.join(unsure)} is not sure of its disk" if unsure else "")


def look(ground: LiveGround, keys: Collection[bytes], broken: list[Violation]) -> Ending:
    """What every owner holds of every key, then what a read of all of them shows."""
    raw = {ground.key_of(key) for key in keys} | {item.key for item in ground.client.scan(ground.key_of(b""))}
    final: dict[bytes, Replicas] = {}
    left = sorted(raw)
    for _ in range(TRIES):
        final |= _replicas(ground.client, left)
        left = [key for key in left if key not in final]
    broken += [Violation("heals", key, "not every owner tells what it holds") for key in left]
    return Ending(final, _reads(ground, sorted(final)), broken)


def _replicas(client: Client, keys: Iterable[bytes]) -> dict[bytes, Replicas]:
    """Those of the keys of which every owner told."""
    found: dict[bytes, Replicas] = {}
    told = _ask_all(client, keys, lambda rid, key: Explain(rid, key, ANSWER_MS))
    for key, outcome in told.items():
        if isinstance(outcome, Explained) and all(replica.state in TOLD for replica in outcome.replicas):
            found[key] = {
                str(replica.node): decode_record(replica.record) if replica.record else ()
                for replica in outcome.replicas
            }
    return found


def _ask_all(
    client: Client, keys: Iterable[bytes], make: Callable[[int, bytes], ClientRequest]
) -> dict[bytes, Outcome | None]:
    session, calls = client.pump.session, {}
    for key in keys:
        calls[key] = call = wire.Call(make(session.next_rid(), key), time.monotonic() + ANSWER_MS / 1000)
        session.start(call)
        while session.in_flight >= IN_FLIGHT_MAX:
            client.pump.turn(LOOK_S)
    client.pump.finish(calls.values())
    return {key: call.outcome for key, call in calls.items()}


def _reads(ground: LiveGround, keys: Iterable[bytes]) -> dict[bytes, Record]:
    """What a read of all owners shows, of those keys of which one does."""
    shown: dict[bytes, Record] = {}
    left = list(keys)
    for _ in range(TRIES):
        calls = []
        for key in left:
            name = key.removeprefix(ground.key_of(b""))
            calls.append(ground.get(name, ground.owners(name)[0], r=ALL, timeout_ms=ANSWER_MS, client=JUDGE))
            ground.run_until(lambda: ground.clients.waiting < IN_FLIGHT_MAX, ANSWER_MS)
        for key, call in zip(left, map(ground.wait, calls), strict=True):
            if isinstance(call.result, Got):
                shown[key] = call.record
        left = [key for key in left if key not in shown]
    return shown
