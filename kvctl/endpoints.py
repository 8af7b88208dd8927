"""Where the cluster is: `--connect`, the environment, the current context, the last `kvctl up`.

Promises: both clients and every command resolve alike, and can say which source won.
Never: connects.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import NamedTuple

import msgspec

from kvctl.errors import Invalid, NoEndpoint


class Endpoints(NamedTuple):
    """Addresses to try, and where they came from."""

    addresses: tuple[str, ...]
    origin: str
    """`flag`, `env`, `context NAME` or `cluster NAME`."""


def home() -> Path:
    """The directory of all local state: `KVCTL_HOME`, else in the XDG state directory."""
    named = os.environ.get("KVCTL_HOME")
    if named:
        return Path(named)
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state) / "kvctl"


def parse(text: str) -> tuple[str, ...]:
    """`HOST:PORT[,HOST:PORT...]`. Raises `Invalid`."""
    addresses = tuple(part.strip() for part in text.split(",") if part.strip())
    for address in addresses:
        host, colon, port = address.rpartition(":")
        if not host or not colon or not port.isdecimal() or not 1 <= int(port) <= 65535:
            raise Invalid(f"{address!r} is not HOST:PORT")
    if not addresses:
        raise Invalid("no endpoint named")
    return addresses


def resolve(flag: str | None) -> Endpoints:
    """Flag > environment > current context > last `kvctl up`. Raises `NoEndpoint`, `Invalid`."""
    if flag:
        return Endpoints(parse(flag), "flag")
    env = os.environ.get("KVCTL_CONNECT")
    if env:
        return Endpoints(parse(env), "env")
    config = read_config()
    context = config.get("context")
    if isinstance(context, str) and context:
        contexts = config.get("contexts")
        entry = contexts.get(context) if isinstance(contexts, dict) else None
        connect = entry.get("connect") if isinstance(entry, dict) else None
        if not isinstance(entry, dict):
            raise Invalid(f"there is no context {context!r} in config.toml", "kvctl config use --none")
        # A context may set other things only, such as the output format.
        if isinstance(connect, str):
            return Endpoints(parse(connect), f"context {context}")
    return _last_up()


def read_config() -> dict[str, object]:
    """config.toml, empty where there is none. Raises `Invalid`."""
    path = home() / "config.toml"
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise Invalid(f"cannot read {path}: {error}") from error


def _last_up() -> Endpoints:
    """The cluster whose cluster.json changed last."""
    files = sorted((home() / "clusters").glob("*/cluster.json"), key=lambda p: p.stat().st_mtime)
    if not files:
        raise NoEndpoint("no cluster is known", "kvctl up, or --connect HOST:PORT")
    try:
        cluster = msgspec.json.decode(files[-1].read_bytes())
        addresses = tuple(str(node["address"]) for node in cluster["nodes"])
    except (OSError, msgspec.MsgspecError, KeyError, TypeError) as error:
        raise NoEndpoint(f"{files[-1]} cannot be read", "kvctl up") from error
    return Endpoints(addresses, f"cluster {files[-1].parent.name}")
