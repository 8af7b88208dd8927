"""Events in lines, the many alike as one. Pure.

Promises: a line names all whom it is about and all who told it; the newest is below. Never: merges what happened
to a node with what happened to another without naming both.

    n1: n3: up -> suspect        n2: n3: up -> suspect
    n2: n4: up -> suspect                                    ─►  n3,n4: up -> suspect   n1,n2
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from msgspec import Struct

from kvctl.console.figures import clock
from kvctl.console.widgets.tones import Line
from kvnode.protocol.messages import Event

ALIKE_MS = 5_000
"""Events that differ in figures and in whom they are about only, within this time, are one line."""
FIGURE = re.compile(r"(?<![\w-])\d+(\.\d+)?")
ASIDE = re.compile(r" \([^)]*\)$")
SUBJECT = re.compile(r"[^\s:]+(?=[:\s])")
KIND = 11
"""Cells of the longest kind there is, `incarnation`."""
EVENT_TONES = {"liveness": "warn", "suspect": "warn", "fault": "bad", "avoided": "dim", "heard": "dim"}


class Alike(Struct):
    """Events that are told as one."""

    newest: Event
    rest: str
    """Its text, without whom it is about."""
    about: list[str]
    by: list[str]


def event_lines(events: Sequence[Event], room: int, nodes: Collection[str] = ()) -> list[Line]:
    """As many lines as there is room for. `nodes`: the names that an event can be about."""
    found: list[Alike] = []
    open_to: dict[tuple[str, str], Alike] = {}
    for event in reversed(events):
        about, rest = _parted(event.text, nodes)
        like = (event.kind, FIGURE.sub("#", ASIDE.sub("", rest)))
        alike = open_to.get(like)
        if alike is not None and alike.newest.wall_ms - event.wall_ms < ALIKE_MS:
            alike.about.append(about)
            alike.by.append(event.node)
        elif len(found) == room:
            break
        else:
            open_to[like] = Alike(event, rest, [about], [event.node])
            found.append(open_to[like])
    return [_line(alike) for alike in reversed(found)]


def event_line(event: Event) -> Line:
    """`14:03:20 liveness    n3: up -> suspect  n1`."""
    return _line(Alike(event, event.text, [""], [event.node]))


def _parted(text: str, nodes: Collection[str]) -> tuple[str, str]:
    """Whom it is about, if it begins with that; and the rest."""
    first = SUBJECT.match(text)
    return (first[0], text[first.end() :]) if first is not None and first[0] in nodes else ("", text)


def _line(alike: Alike) -> Line:
    about, by = sorted(set(alike.about)), sorted(set(alike.by))
    times = len(alike.by)
    more = f" x{times}" if times > len(about) * len(by) else ""
    kind = alike.newest.kind
    return (
        (f"{clock(alike.newest.wall_ms)} ", "dim"),
        (f"{kind:<{KIND}.{KIND}} ", EVENT_TONES.get(kind, "accent")),
        f"{','.join(about)}{alike.rest}",
        (f"  {','.join(by)}{more}", "dim"),
    )
