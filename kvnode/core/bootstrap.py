"""Founding a cluster: the same text on every first node gives all of them the same first ring.

Promises: a pure function of the text, the cluster's name, n and q. Never: a random cluster id, for
then the founders could not agree without talking.
"""

from __future__ import annotations

import re
from hashlib import blake2b

from kvnode.core.assignment import assign
from kvnode.protocol.ring import Q_MAX, Q_MIN, Member, Ring
from kvnode.protocol.types import NodeId

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
LOOPBACK = re.compile(r"127(\.[0-9]{1,3}){3}|localhost|::1|\[::1\]")


class BadBootstrap(ValueError):
    """What is wrong with a founding text, as a sentence."""


def valid_name(name: str) -> bool:
    """Whether a node or cluster may be called so."""
    return NAME.fullmatch(name) is not None


def is_loopback(host: str) -> bool:
    """Whether a host is this machine alone."""
    return LOOPBACK.fullmatch(host) is not None


def parse_address(text: str) -> tuple[str, int]:
    """`HOST:PORT` as a host and a port. Raises `BadBootstrap`."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise BadBootstrap(f"{text!r} is not HOST:PORT")
    return host, int(port)


def parse_members(text: str) -> tuple[Member, ...]:
    """`n1=HOST:PORT,n2=...` as members, in the order of their names. Raises `BadBootstrap`."""
    members: dict[str, Member] = {}
    for part in text.split(","):
        name, equals, address = part.strip().partition("=")
        if not equals or not valid_name(name):
            raise BadBootstrap(f"{part!r} is not NAME=HOST:PORT")
        host, port = parse_address(address)
        if name in members:
            raise BadBootstrap(f"node {name} is named twice")
        label = name if is_loopback(host) else host
        members[name] = Member(NodeId(name), f"{host}:{port}", label)
    addresses = [m.address for m in members.values()]
    if len(set(addresses)) < len(addresses):
        raise BadBootstrap("two nodes have the same address")
    return tuple(members[name] for name in sorted(members))


def found(cluster: str, members: tuple[Member, ...], n: int, q: int) -> Ring:
    """The ring of epoch 1. Raises `BadBootstrap`."""
    if not valid_name(cluster):
        raise BadBootstrap(f"{cluster!r} is not a name: letters, digits and ._- only, 64 at most")
    if not 1 <= n <= 16:
        raise BadBootstrap(f"n must be 1..16, not {n}")
    if not Q_MIN <= q <= Q_MAX or q & (q - 1):
        raise BadBootstrap(f"q must be a power of two, {Q_MIN}..{Q_MAX}, not {q}")
    text = ",".join(f"{m.id}={m.address}" for m in members)
    digest = blake2b(f"{cluster}|{n}|{q}|{text}".encode(), digest_size=8).digest()
    owners = assign(members, q, n)
    return Ring(cluster, int.from_bytes(digest, "big"), 1, n, q, members, owners, (1,) * q)
