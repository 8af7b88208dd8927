"""`kvnode run`: one node, from flags to exit code.

Promises: every refusal is one clear line and exit code 1, 2 or 8; SIGTERM finishes what was
acknowledged and exits 0. Never: a traceback for what an operator can mend.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NoReturn

import msgspec
import typer

from kvnode import __version__
from kvnode.config import Settings
from kvnode.core.bootstrap import BadBootstrap, found, is_loopback, parse_address, parse_members, valid_name
from kvnode.protocol.ring import Member, Ring
from kvnode.protocol.types import NodeId
from kvnode.shell.engines import ENGINES, open_engine
from kvnode.shell.joining import ask_for_ring, may_stand_outside
from kvnode.shell.log import node_log
from kvnode.shell.serve import CannotServe, Labels, serve
from kvnode.shell.store import DURABILITIES, Engine, StoreFailed

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

FAILED, REFUSED = 1, 8
DEFAULT_CLUSTER = "local"


class Stop(Exception):
    """Why the node will not start."""

    def __init__(self, why: str, code: int = FAILED) -> None:
        super().__init__(why)
        self.code = code


@app.callback()
def kvnode() -> None:
    """One node of a kvctl cluster."""


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


@app.command()
def run(
    name: Annotated[str, typer.Option(help="This node's name.")],
    listen: Annotated[str, typer.Option(help="HOST:PORT to listen on.")],
    data: Annotated[Path | None, typer.Option(help="Data directory (not for --engine memory).")] = None,
    bootstrap: Annotated[str, typer.Option(help="n1=HOST:PORT,n2=...: the founders, the same text on each.")] = "",
    join: Annotated[str, typer.Option(help="HOST:PORT,...: stand outside of the cluster these are of.")] = "",
    cluster: Annotated[str, typer.Option(help="The cluster's name (local, unless it joins one).")] = "",
    n: Annotated[int, typer.Option("-n", help="Copies of each key.")] = 3,
    q: Annotated[int, typer.Option("-q", help="Partitions: a power of two, 16..16384.")] = 256,
    host_label: Annotated[str, typer.Option(help="Of one that joins: copies are kept on different hosts.")] = "",
    rack: Annotated[str, typer.Option(help="Of one that joins: ...and on different racks.")] = "",
    weight: Annotated[int, typer.Option(min=0, max=1_000, help="Of one that joins: its share.")] = 1,
    engine: Annotated[str, typer.Option(help="sqlite or memory.")] = "sqlite",
    durability: Annotated[str, typer.Option(help="fsync, os or none.")] = "fsync",
    allow_faults: Annotated[bool, typer.Option("--allow-faults", help="Let clients break it on purpose.")] = False,
    insecure_listen: Annotated[bool, typer.Option(help="Listen beyond loopback, unprotected.")] = False,
    config: Annotated[Path | None, typer.Option(help="A TOML file of settings.")] = None,
    log_file: Annotated[Path | None, typer.Option(help="Log here instead of stderr.")] = None,
) -> None:
    """Run a node until SIGTERM."""
    try:
        host, port = parse_address(listen)
        check_flags(
            name, cluster or DEFAULT_CLUSTER, host, engine, durability, data, insecure_listen=insecure_listen
        )
        settings = read_settings(config)
        labels = Labels(host_label or ("" if is_loopback(host) else host), rack, weight)
        founding = first_ring(name, f"{host}:{port}", cluster, bootstrap, join, labels, n=n, q=q)
    except BadBootstrap as problem:
        print(f"kvnode: {problem}", file=sys.stderr)
        raise SystemExit(2) from None
    except Stop as stop:
        print(f"kvnode: {stop}", file=sys.stderr)
        raise SystemExit(stop.code) from None
    log = node_log(name, log_file)
    try:
        store = open_engine(engine, data, name, durability, settings)
    except StoreFailed as failed:
        give_up(log, str(failed))
    try:
        same_cluster(store, cluster)
        failure = serve(
            NodeId(name), f"{host}:{port}", founding, store, settings, log, allow_faults=allow_faults,
            labels=labels,
        )  # fmt: skip
    except CannotServe as problem:
        failure = str(problem)
    finally:
        store.close()
    if failure:
        give_up(log, failure)


def same_cluster(store: Engine, cluster: str) -> None:
    """A directory says where it belongs, whatever the flags. Raises `CannotServe`."""
    held = store.identity.ring
    if cluster and held is not None and held.cluster != cluster:
        raise CannotServe(
            f"this data directory is of cluster {held.cluster!r}, not {cluster!r}: nodes do not change clusters. "
            "Start with an empty directory"
        )


def give_up(log: logging.Logger, why: str) -> NoReturn:
    """End the process with one line, in the log and on stderr."""
    log.error("%s", why, extra={"kind": "stop"})
    if not any(isinstance(h, logging.StreamHandler) and h.stream is sys.stderr for h in log.handlers):
        print(f"kvnode: {why}", file=sys.stderr)
    raise SystemExit(FAILED)


def check_flags(
    name: str,
    cluster: str,
    host: str,
    engine: str,
    durability: str,
    data: Path | None,
    *,
    insecure_listen: bool,
) -> None:
    """Refuse what cannot work. Raises `Stop`."""
    for what, text in (("node", name), ("cluster", cluster)):
        if not valid_name(text):
            raise Stop(f"{text!r} is no {what} name: letters, digits and ._- only, 64 at most", 2)
    if engine not in ENGINES:
        raise Stop(f"engine must be one of {', '.join(ENGINES)}, not {engine!r}", 2)
    if durability not in DURABILITIES:
        raise Stop(f"durability must be one of {', '.join(DURABILITIES)}, not {durability!r}", 2)
    if data is None and engine != "memory":
        raise Stop("--data DIR is needed", 2)
    if not is_loopback(host) and not insecure_listen:
        raise Stop(
            f"{host} can be reached from outside this machine, and nodes have no keys yet: "
            "add --insecure-listen if the network is trusted",
            REFUSED,
        )


def first_ring(
    name: str, address: str, cluster: str, bootstrap: str, join: str, labels: Labels, *, n: int, q: int
) -> Callable[[], Ring]:
    """How an empty directory comes to its ring: by founding a cluster, or by asking one. Raises `Stop`."""
    if bootstrap and join:
        raise Stop("--bootstrap founds a cluster, --join stands outside of one: give one of them", 2)
    host, port = parse_address(address)
    if not join:
        if labels.rack or labels.weight != 1 or labels.host not in ("", host):
            raise Stop("--host-label, --rack and --weight are for a node that joins", 2)
        ring = found(cluster or DEFAULT_CLUSTER, founders(name, host, port, bootstrap), n, q)
        return lambda: ring
    seeds = tuple(seed.strip() for seed in join.split(","))
    for seed in seeds:
        parse_address(seed)
    if address in seeds:
        raise Stop(f"--join names this node itself, {address}: name one that is a member", 2)

    def ask() -> Ring:
        told = ask_for_ring(seeds)
        may_stand_outside(told, name, address, cluster)
        return told

    return ask


def founders(name: str, host: str, port: int, bootstrap: str) -> tuple[Member, ...]:
    """The first members: those of the text, or this node alone. Raises `Stop` or `BadBootstrap`."""
    members = parse_members(bootstrap or f"{name}={host}:{port}")
    me = next((m for m in members if m.id == name), None)
    if me is None:
        raise Stop(f"--bootstrap does not name this node, {name}", 2)
    if me.address != f"{host}:{port}":
        raise Stop(f"--bootstrap says {name} is at {me.address}, --listen says {host}:{port}", 2)
    return members


def read_settings(path: Path | None) -> Settings:
    """The settings in a TOML file. Raises `Stop`."""
    if path is None:
        return Settings()
    try:
        settings = msgspec.toml.decode(path.read_bytes(), type=Settings)
    except OSError as error:
        raise Stop(f"cannot read {path}: {error.strerror}") from error
    except (msgspec.MsgspecError, ValueError) as error:
        raise Stop(f"{path}: {error}", 2) from error
    problems = settings.problems()
    if problems:
        raise Stop(f"{path}: {'; '.join(problems)}", 2)
    return settings


def main() -> None:
    """The entry point."""
    app()


if __name__ == "__main__":
    main()
