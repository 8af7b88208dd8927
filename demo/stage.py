"""The stage a story plays on: a real cluster of its own, the real commands, claims that are checked.

Promises: what is printed was run; a claim that does not hold fails the story; the cluster is gone
afterwards, also when the story breaks. Never: touches a cluster of yours (its home is temporary).
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from rich.console import Console, RenderableType
from rich.text import Text

from kvctl import Client

from .witness import Witness

COMMAND_S = 90
HOME = "KVCTL_DEMO_HOME"
"""Where the stage is set up, if someone wants to watch (`kvctl demo --dashboard`): an empty directory, removed
at the end."""


class Ran(NamedTuple):
    """A command that was run."""

    exit: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed with `-o json`; its error object where it failed without output."""
        return json.loads(self.out or self.err)


class Claim(NamedTuple):
    """What a story says of the store, and whether it was seen to hold."""

    text: str
    holds: bool


class Stage:
    """A cluster and an audience."""

    def __init__(self, nodes: int = 5, *, disk_lost: bool = False) -> None:
        """`disk_lost`: whether some story wipes a disk, which the checker must know."""
        self.claims: list[Claim] = []
        self._nodes = nodes
        self._disk_lost = disk_lost
        given = os.environ.get(HOME)
        self._home = Path(given) if given else Path(tempfile.mkdtemp(prefix="kvctl-demo-"))
        self._env = os.environ | {"KVCTL_HOME": str(self._home), "KVCTL_OUTPUT": "table"}
        self._env.pop("KVCTL_CONNECT", None)
        self._console = Console(highlight=False)
        self._exit = ExitStack()

    def __enter__(self) -> Self:
        self._exit.callback(shutil.rmtree, self._home, ignore_errors=True)
        self._exit.callback(self._down)
        port = free_ports(self._nodes)
        ran = self.kvctl("up", "--nodes", str(self._nodes), "--base-port", str(port), show=False)
        if ran.exit:
            self._exit.close()
            raise SystemExit(f"the demo's cluster did not start: {ran.err or ran.out}")
        addresses = ",".join(node["address"] for node in self.status()["nodes"])
        self.witness = Witness(addresses, self._nodes, disk_lost=self._disk_lost)
        self._exit.callback(self.witness.abandon)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit.close()

    def _down(self) -> None:
        self.kvctl("down", "--wipe", "--yes", show=False)

    # ---- telling ---------------------------------------------------------------------------

    def title(self, text: str) -> None:
        """Begin a chapter."""
        self._console.print()
        self._console.rule(Text(text, "bold"), align="left")

    def say(self, text: str) -> None:
        """Tell the audience what is about to happen, or why."""
        self._console.print(Text(text), soft_wrap=True)

    def claim(self, text: str, holds: bool) -> None:
        """Check something the store promises, in front of everyone."""
        self.claims.append(Claim(text, holds))
        mark = Text("  holds  ", "bold green") if holds else Text("  FAILS  ", "bold red")
        self._console.print(mark + Text(text), soft_wrap=True)

    def show(self, shown: RenderableType) -> None:
        """A table, or anything else Rich can draw."""
        self._console.print(shown)

    # ---- acting ----------------------------------------------------------------------------

    def kvctl(self, *args: str, show: bool = True, stdin: str | None = None) -> Ran:
        """Run a command as a user would, and show it with what it printed."""
        if show:
            self._console.print(Text("$ kvctl " + " ".join(args), "cyan"), soft_wrap=True)
        done = subprocess.run(  # noqa: S603 -- our own command
            [sys.executable, "-m", "kvctl", *args],
            env=self._env,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
        ran = Ran(done.returncode, done.stdout, done.stderr)
        if show:
            for text, style in ((ran.out, ""), (ran.err, "yellow")):
                for line in text.rstrip().splitlines():
                    self._console.print(Text("  " + line, style), soft_wrap=True)
            if ran.exit:
                self._console.print(Text(f"  (exit {ran.exit})", "dim"))
        return ran

    def client(self) -> Client:
        """A Python client of the story's cluster."""
        return Client(",".join(node["address"] for node in self.status()["nodes"]))

    def status(self) -> Any:
        """`kvctl status` as JSON."""
        return self.kvctl("status", "-o", "json", show=False).json

    def owners(self, key: str) -> list[str]:
        """The owners of a key, the first one first."""
        owners: list[str] = self.kvctl("explain", key, "-o", "json", show=False).json["owners"]
        return owners

    def wait(self, what: str, holds: Callable[[], bool], seconds: float = 30.0) -> bool:
        """Wait until something is so. False, and said so, when it does not come."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if holds():
                return True
            time.sleep(0.05)
        self.say(f"(waited {seconds:.0f} s in vain for {what})")
        return False

    def all_up(self) -> bool:
        """Whether every node answers, and is held to be up."""
        return all(node["state"] == "up" and node["pid"] for node in self.status()["nodes"])


def free_ports(count: int) -> int:
    """The first of `count` ports in a row that are free now."""
    for base in range(17001, 60000, 100):
        try:
            with ExitStack() as stack:
                for port in range(base, base + count):
                    probe = stack.enter_context(socket.socket())
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return base
    raise SystemExit("no free ports")
