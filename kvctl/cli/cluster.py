"""Commands about the whole cluster: up, down, status, check, wait.

Promises: `up` returns when every node has seen all others on one epoch; `down` stops what `up`
started and nothing else. Never: deletes data without `--wipe` and a yes.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kvctl.cli.base import Ctl, DryRun, Yes, command
from kvctl.cli.where import known_faults
from kvctl.cli.words import Usage, seconds
from kvctl.errors import KvError

if TYPE_CHECKING:
    from kvctl.local import Cluster, ClusterSpec
    from kvctl.output import View
    from kvctl.render import Object

NODES, N, Q, BASE_PORT = 5, 3, 256, 7001
CONDITIONS = ("ring-ready", "hints-drained", "converged")
DURABILITIES = ("fsync", "os", "none")
POLL_S = 0.1
WATCH_S = 1.0

Name = Annotated[str, typer.Option("--name", metavar="NAME", help="The cluster's name.")]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for each in (up, down, status, check, wait):
        command(app)(each)


# ---- up, down ------------------------------------------------------------------------------


def up(
    ctl: Ctl,
    nodes: Annotated[
        int | None, typer.Option(metavar="K", min=1, max=99, help=f"How many nodes ({NODES}).")
    ] = None,
    name: Name = "local",
    n: Annotated[int | None, typer.Option("-n", min=1, max=16, help=f"Copies of each key ({N}).")] = None,
    q: Annotated[int | None, typer.Option("-q", help=f"Partitions, a power of two, 16..16384 ({Q}).")] = None,
    base_port: Annotated[
        int | None, typer.Option(metavar="PORT", min=1, max=65535, help=f"Port of n1 ({BASE_PORT}).")
    ] = None,
    durability: Annotated[str | None, typer.Option(metavar="LEVEL", help="fsync (default), os or none.")] = None,
    settings: Annotated[
        str | None, typer.Option("--config", metavar="FILE.toml", help="Settings for every node.")
    ] = None,
    allow_faults: Annotated[
        bool | None, typer.Option("--allow-faults/--no-allow-faults", help="Let `kvctl fault` break nodes (yes).")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until all nodes agree.")] = True,
) -> None:
    """Start a cluster on this machine, or start it again with its data."""
    import msgspec

    from kvctl import local

    begun = time.monotonic()
    asked: dict[str, int | str | None] = {
        "nodes": nodes, "n": n, "q": q, "base_port": base_port, "durability": durability, "config": settings,
        "allow_faults": allow_faults,
    }  # fmt: skip
    if (local.cluster_path(name) / "cluster.json").exists():
        cluster = local.load(name)
        if allow_faults is not None and not cluster.running():
            # No property of the data: each start may decide anew.
            cluster.spec = msgspec.structs.replace(cluster.spec, allow_faults=allow_faults)
        differs = contradictions(cluster, asked)
        if differs:
            raise local.LaunchFailed(
                f"cluster {name} exists with {differs}",
                f"kvctl up --name OTHER, or kvctl down --wipe --yes --name {name}",
            )
    else:
        cluster = local.Cluster(new_spec(name, asked))
    running = cluster.running()
    if running:
        ctl.note(f"cluster {name} runs already")
        cluster.save()
    else:
        cluster.start_all(wait=wait)
    took_ms = round((time.monotonic() - begun) * 1000)
    ctl.show(up_view(cluster, took_ms))
    advise(ctl, cluster)


def new_spec(name: str, asked: dict[str, int | str | None]) -> ClusterSpec:
    """What to start. Raises `Usage`."""
    from kvctl.local import ClusterSpec, NodeSpec
    from kvctl.settings import NAME
    from kvnode.protocol.ring import Q_MAX, Q_MIN

    def number(what: str, default: int) -> int:
        value = asked[what]
        return default if value is None else int(value)

    count, n, q, port = number("nodes", NODES), number("n", N), number("q", Q), number("base_port", BASE_PORT)
    durability = str(asked["durability"] or DURABILITIES[0])
    if not NAME.fullmatch(name):
        raise Usage(f"{name!r} is no name: letters, digits and ._- only, 64 at most")
    if not Q_MIN <= q <= Q_MAX or q & (q - 1):
        raise Usage(f"-q must be a power of two, {Q_MIN}..{Q_MAX}, not {q}")
    if port + count - 1 > 65535:
        raise Usage(f"{count} nodes from port {port} on: the last port is 65535")
    if durability not in DURABILITIES:
        raise Usage(f"--durability must be one of {', '.join(DURABILITIES)}, not {durability!r}")
    settings = str(asked["config"] or "")
    if settings and not Path(settings).is_file():
        raise Usage(f"there is no file {settings}")
    nodes = [NodeSpec(f"n{i + 1}", f"127.0.0.1:{port + i}") for i in range(count)]
    config = str(Path(settings).absolute()) if settings else ""
    allowed = asked["allow_faults"] is not False
    return ClusterSpec(
        name=name, nodes=nodes, n=n, q=q, durability=durability, config=config, allow_faults=allowed
    )


def contradictions(cluster: Cluster, asked: dict[str, int | str | None]) -> str:
    """Where the flags ask for another cluster than there is; empty when they do not."""
    spec = cluster.spec
    founders = spec.bootstrap.split(",")
    there: dict[str, int | str] = {
        # Nodes may have come and gone since: the number it was founded with is right as well.
        "nodes": len(founders) if asked["nodes"] == len(founders) else len(spec.nodes),
        "n": spec.n, "q": spec.q, "durability": spec.durability,
        "base_port": int(founders[0].rpartition(":")[2]), "config": spec.config,
        "allow_faults": spec.allow_faults,
    }  # fmt: skip
    if asked["config"]:
        asked["config"] = str(Path(str(asked["config"])).absolute())
    return ", ".join(f"{what} {there[what]}" for what, value in asked.items() if value not in (None, there[what]))


def up_view(cluster: Cluster, took_ms: int) -> View:
    """Where everything is."""
    from kvctl.output import Table, View, show

    nodes: list[Object] = []
    for node in cluster.spec.nodes:
        process = cluster.process(node.name)
        directory = cluster.directory(node.name)
        nodes.append({
            "id": node.name, "address": node.address, "state": "down" if process is None else "up",
            "pid": None if process is None else process.pid,
            "data": str(directory / "data"), "log": str(directory / "log"),
        })  # fmt: skip
    columns = ("NODE", "ADDRESS", "STATE", "PID", "DATA", "LOG")
    rows = tuple(
        (show(n["id"]), show(n["address"]), n["state"], str(n["pid"] or "-"), show(n["data"]), show(n["log"]))
        for n in nodes
    )
    path = cluster.path
    above = (
        f"Cluster {cluster.name}: {len(cluster.running())} of {len(nodes)} nodes run ({took_ms / 1000:.1f} s)",
    )
    below = (f"Data {path}/NODE/data, logs {path}/NODE/log",)
    data: Object = {
        "cluster": cluster.name, "n": cluster.spec.n, "q": cluster.spec.q, "nodes": nodes, "took_ms": took_ms,
        "connect": ",".join(cluster.addresses), "path": str(path),
    }  # fmt: skip
    return View("up", data, Table(columns, rows, frozenset({"PID"}), 4, above, below))


def advise(ctl: Ctl, cluster: Cluster) -> None:
    """What to try next."""
    down = [node.name for node in cluster.spec.nodes if cluster.process(node.name) is None]
    for name in down:
        ctl.note(f"{name} is down: kvctl node start {name}")
    if cluster.spec.n > len(cluster.spec.nodes):
        ctl.note(f"n={cluster.spec.n} with {len(cluster.spec.nodes)} nodes: a key has only so many copies")
    ctl.note("next: kvctl status | kvctl put KEY VALUE | kvctl get KEY | kvctl fault kill n3 | kvctl down")


def down(
    ctl: Ctl,
    name: Name = "local",
    wipe: Annotated[bool, typer.Option("--wipe", help="Delete its data and logs as well.")] = False,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Stop the nodes that `kvctl up` started."""
    from kvctl import local
    from kvctl.cli.fault import would
    from kvctl.output import Table, View, show

    cluster = local.load(name)
    risks = [f"down --wipe: {cluster.path} is deleted, with the data of {len(cluster.spec.nodes)} nodes"] * wipe
    if dry_run:
        return would(ctl, "down", f"stop {', '.join(cluster.running()) or 'nothing'}", risks)
    if risks:
        ctl.confirm(risks[0], yes=yes)
    stopped = cluster.end_all()
    if wipe:
        cluster.remove()
    elif not stopped:
        ctl.note(f"cluster {name} did not run")
    data: Object = {"cluster": name, "stopped": stopped, "wiped": wipe}
    row = (show(name), ",".join(map(show, stopped)) or "-", "yes" if wipe else "no")
    return ctl.show(View("down", data, Table(("CLUSTER", "STOPPED", "WIPED"), (row,))))


# ---- status, check, wait -------------------------------------------------------------------


def status(
    ctl: Ctl, watch: Annotated[bool, typer.Option("--watch", help="Again each second; Ctrl-C ends.")] = False
) -> None:
    """Show the nodes and how the cluster is."""
    from kvctl.output import plain
    from kvctl.render_cluster import status_view

    while True:
        told = ctl.client().status()
        view = status_view(told, known_faults(ctl, told))
        if watch and ctl.form in ("table", "wide") and not plain(sys.stdout):
            print("\x1b[H\x1b[2J", end="")
        ctl.show(view)
        if not watch:
            return
        sys.stdout.flush()
        time.sleep(WATCH_S)


def check(ctl: Ctl) -> None:
    """Judge the cluster, a line a rule. Exit 0, 10 (degraded) or 11 (critical)."""
    from kvctl.render_cluster import check_view, exit_of
    from kvctl.rules import findings

    found = findings(ctl.client().status())
    view = check_view(found)
    if ctl.form_given is None:
        # Its lines are what scripts look for as well: the same on a terminal and off it.
        print(view.text)
    else:
        ctl.show(view)
    if exit_of(found):
        raise typer.Exit(exit_of(found))


def wait(
    ctl: Ctl,
    condition: Annotated[str, typer.Argument(metavar="|".join(CONDITIONS), show_default=False)],
    timeout: Annotated[
        str, typer.Option("--timeout", metavar="TIME", help="Give up after this time: exit 11.")
    ] = "60s",
) -> None:
    """Wait until the cluster is so. Exit 11 when it does not come."""
    from kvctl.conditions import SETTLE_S
    from kvctl.output import Table, View

    if condition not in CONDITIONS:
        raise Usage(f"there is no condition {condition!r}: {', '.join(CONDITIONS)}")
    begun = time.monotonic()
    deadline = begun + seconds(timeout)
    # Copies may be equal by chance, a write being on its way: seen twice, it is no chance.
    needed = 2 if condition == "converged" else 1
    seen = 0
    while True:
        problem = _unmet(ctl, condition)
        seen = 0 if problem else seen + 1
        took_ms = round((time.monotonic() - begun) * 1000)
        if seen == needed:
            row = (condition, "yes", str(took_ms))
            data: Object = {"condition": condition, "met": True, "took_ms": took_ms}
            return ctl.show(View("wait", data, Table(("CONDITION", "MET", "TOOK_MS"), (row,))))
        if time.monotonic() > deadline:
            why = problem or f"it was seen once, and must be again {SETTLE_S:.0f} s later"
            raise TimedOut(f"not {condition} within {timeout}: {why}", "kvctl status")
        time.sleep(POLL_S if problem else SETTLE_S)


def _unmet(ctl: Ctl, condition: str) -> str:
    """Why a condition does not hold now, as a sentence; empty when it does."""
    from kvctl.client import Client
    from kvctl.conditions import CONDITIONS as PROBLEMS

    try:
        # A client of its own each time: nodes may have gone, and the ring may have changed.
        with Client(ctl.connect) as client:
            return PROBLEMS[condition](client.status(roots=condition == "converged"))
    except KvError as error:
        return error.message


class TimedOut(KvError):
    """What was waited for did not come."""

    exit = 11
