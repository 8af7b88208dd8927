"""Profiles: calm, rough and hostile weather, and a case of each drawn from a seed.

Promises: each seed has its own sizes and its own few kinds of faults: a run with everything at once
hides what a run with two faults shows (swarm testing, Groce 2012). Never: a fault nobody could mend.

    calm      nothing breaks
    rough     a bad week: one thing at a time, for seconds; clocks a few seconds off
    hostile   everything, at once: all nodes killed together, a disk lost, a clock an hour off
"""

from __future__ import annotations

from random import Random

from msgspec import Struct

from kvnode.sim.case import Case, Fault, Load, Reshape, plan
from kvnode.sim.clock import derive


class Profile(Struct, frozen=True, kw_only=True):
    """How much goes wrong."""

    every_ms: tuple[int, int]
    """Between one fault and the next."""
    lasts_ms: tuple[int, int]
    kinds: tuple[str, ...]
    """Each seed draws some of them."""
    skews_ms: tuple[int, ...] = (0,)
    together: int = 1
    """How many nodes one fault may strike at most; 0: all of them."""
    wipes: int = 0
    """One seed in so many loses a disk; 0: none."""
    reshapes: int = 0
    """One seed in so many changes the shape of its cluster all the time; 0: none."""


ROUGH = (
    "kill", "stop", "pause", "partition", "delay", "drop", "duplicate", "reorder", "corrupt", "slow-disk", "skew",
)  # fmt: skip
PROFILES = {
    "calm": Profile(every_ms=(0, 0), lasts_ms=(0, 0), kinds=()),
    "rough": Profile(
        every_ms=(2_000, 20_000), lasts_ms=(500, 10_000), kinds=ROUGH, skews_ms=(-5_000, -200, 200, 5_000),
    ),
    "hostile": Profile(
        every_ms=(200, 4_000), lasts_ms=(50, 8_000), kinds=(*ROUGH, "fail-fsync", "full-disk"), together=0,
        wipes=3,
        reshapes=3,
        skews_ms=(-3_600_000, -5_000, -200, 200, 5_000, 3_600_000),
    ),
}  # fmt: skip


def draw(
    seed: int,
    profile: str,
    *,
    nodes: int = 5,
    minutes: int = 10,
    mode: str = "eventual",
    rate: int = 20,
    reshape: bool = False,
) -> Case:
    """The case of a seed. `reshape`: its shape changes, whatever the profile says."""
    weather = PROFILES[profile]
    lasts_ms = minutes * 60_000
    shape = derive(seed, f"shape {profile}")
    wiped = nodes >= 3 and weather.wipes > 0 and shape.randrange(weather.wipes) == 0
    change = derive(seed, f"reshapes {profile}")
    changes = _changes(change, nodes, lasts_ms) if reshape or _one_in(change, weather.reshapes, nodes) else []
    replaced = any(one.kind == "replace" for one in changes)
    load = Load(
        clients=shape.choice((3, 8, 16)), keys=shape.choice((5, 20, 100)), rate=rate, mode=mode,
        value_bytes=shape.choice((0, 0, 100, 1_000)), timeout_ms=shape.choice((500, 2_000)),
        single=not (wiped or replaced),  # one copy is no promise where a disk is lost
    )  # fmt: skip
    faults = _faults(derive(seed, f"faults {profile}"), weather, nodes, lasts_ms) if weather.kinds else []
    faults += _on_newcomers(change, changes) if faults else []
    if wiped and not replaced:
        victim = f"n{shape.randint(1, nodes)}"
        at_ms = shape.randrange(lasts_ms // 4, lasts_ms // 2)
        faults.append(Fault(at_ms=at_ms, lasts_ms=shape.randint(500, 5_000), kind="wipe", nodes=(victim,)))
    return Case(
        name=profile, seed=seed, nodes=nodes, n=min(3, nodes), load=load, lasts_ms=lasts_ms,
        ops=plan(derive(seed, "operations"), load, lasts_ms),
        faults=tuple(sorted(faults, key=lambda fault: fault.at_ms)), changes=tuple(changes),
    )  # fmt: skip


def _on_newcomers(rng: Random, changes: list[Reshape]) -> list[Fault]:
    """Who comes new is struck too, mostly while it takes its partitions over."""
    found = []
    for one in changes:
        name = one.new or (one.node if one.kind == "join" else "")
        if name and rng.randrange(3):
            kind = rng.choice(("kill", "kill", "pause", "full-disk", "fail-fsync", "slow-disk"))
            at_ms = one.at_ms + rng.randint(300, 5_000)
            lasts_ms = rng.randint(100, 4_000)
            found.append(Fault(at_ms=at_ms, lasts_ms=lasts_ms, kind=kind, nodes=(name,), amount=200))
    return found


def _one_in(rng: Random, seeds: int, nodes: int) -> bool:
    return seeds > 0 and nodes >= 3 and rng.randrange(seeds) == 0


def _changes(rng: Random, nodes: int, lasts_ms: int) -> list[Reshape]:
    """Nodes join, leave and are replaced, one after the other, and now and then two at a time."""
    names = [f"n{i}" for i in range(1, nodes + 1)]
    number, at_ms, found = nodes, 0, list[Reshape]()
    replaces = rng.randrange(3) == 0
    while (at_ms := at_ms + rng.choice((200, 3_000, 8_000, 15_000))) < lasts_ms * 4 // 5 and number < nodes + 12:
        kind = rng.choice(("join", "join", "leave", "leave", "replace", "cancel"))
        if kind == "join" or (kind == "replace" and not replaces):
            number += 1
            names.append(f"n{number}")
            found.append(Reshape(at_ms=at_ms, kind="join", node=names[-1]))
        elif kind == "cancel":
            found.append(Reshape(at_ms=at_ms, kind="cancel"))
        elif len(names) > 3:
            gone = names.pop(rng.randrange(len(names)))
            new = ""
            if kind == "replace":
                number += 1
                new = f"n{number}"
                names.append(new)
                replaces = False  # one disk at a time may be lost
            found.append(Reshape(at_ms=at_ms, kind=kind, node=gone, new=new))
    return found


def _faults(rng: Random, weather: Profile, nodes: int, lasts_ms: int) -> list[Fault]:
    names = [f"n{i}" for i in range(1, nodes + 1)]
    kinds = rng.sample(weather.kinds, rng.randint(2, min(5, len(weather.kinds))))
    stretch = rng.choice((1, 1, 3))  # some seeds are calmer than others
    found: list[Fault] = []
    at_ms = 0
    while (at_ms := at_ms + stretch * rng.randint(*weather.every_ms)) < lasts_ms:
        found.append(_fault(rng, weather, names, rng.choice(kinds), at_ms))
    return found


def _fault(rng: Random, weather: Profile, names: list[str], kind: str, at_ms: int) -> Fault:
    most = len(names) if weather.together == 0 else weather.together
    struck = names[:] if most > 1 and rng.randrange(6) == 0 else rng.sample(names, rng.randint(1, min(2, most)))
    others: list[str] = []
    if kind == "partition" and len(names) > 1:
        mixed = rng.sample(names, len(names))
        at = rng.randint(1, len(names) - 1)
        struck, others = mixed[:at], mixed[at:]
    if kind == "skew":
        struck = struck[:1]  # of clocks that are all wrong, none can tell
    amount = {
        "delay": rng.choice((20, 200, 1_000)),
        "drop": rng.choice((5, 30)),
        "duplicate": rng.choice((10, 50)),
        "reorder": rng.choice((10, 50)),
        "corrupt": rng.choice((2, 20)),
        "slow-disk": rng.choice((20, 100, 500)),
        "skew": rng.choice(weather.skews_ms),
    }.get(kind, 0)
    return Fault(
        at_ms=at_ms, lasts_ms=rng.randint(*weather.lasts_ms), kind=kind, nodes=tuple(sorted(struck)),
        others=tuple(sorted(others)), one_way=kind == "partition" and rng.randrange(5) < 2, amount=amount,
        jitter=amount // 2 if kind == "delay" else 0,
    )  # fmt: skip
