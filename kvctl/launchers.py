"""How the autoscaler gets a node, and gets rid of one that has left.

Promises: a node is stopped only once it is no member any more. Never: runs a shell: a command is words.

    local            starts and stops kvnode processes of the `kvctl up` cluster
    command='...'    a command of the user's, e.g. command='kubectl scale statefulset kv --replicas={replicas}':
                     {replicas}, {node} and {action} (grow, shrink) are filled in, and are in its environment
                     as KVCTL_REPLICAS, KVCTL_NODE, KVCTL_ACTION
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence
from typing import Protocol

from kvctl import addnode
from kvctl.errors import Invalid
from kvctl.local import Cluster, LaunchFailed
from kvnode.protocol.messages import ClusterReport

COMMAND_S = 300.0
"""Longest a user's command may take."""


class Launcher(Protocol):
    """Gets nodes, and gets rid of them."""

    def grow(self, told: ClusterReport) -> None:
        """Have one more node started; it shows up outside the cluster. Raises `KvError`."""
        ...

    def retire(self, told: ClusterReport) -> Sequence[str]:
        """End the nodes that have left the cluster; which they were. Raises `KvError`."""
        ...


class LocalLauncher:
    """Processes on this machine, of a cluster of `kvctl up`."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def grow(self, told: ClusterReport) -> None:
        """Start the next nK."""
        addnode.add_next(self._cluster, told.ring)

    def retire(self, told: ClusterReport) -> Sequence[str]:
        """Stop the processes of former members."""
        former = {member.id for member in told.ring.removed}
        gone = [node.name for node in self._cluster.spec.nodes if node.name in former]
        for name in gone:
            self._cluster.end(name)
            self._cluster.forget(name)
        return gone


class CommandLauncher:
    """A command of the user's, told how many nodes there should be."""

    def __init__(self, words: Sequence[str], members: int) -> None:
        self._words = words
        self._wanted = members
        """How many nodes it was told last, or found there at first."""

    def grow(self, told: ClusterReport) -> None:
        """One more than there are members."""
        self._run("grow", len(told.ring.members) + 1, "")

    def retire(self, told: ClusterReport) -> Sequence[str]:
        """Once members have left, as many as there are."""
        members = len(told.ring.members)
        if told.ring.moves or told.ring.leaving or members >= self._wanted:
            return ()
        last = told.ring.removed[-1].id if told.ring.removed else ""
        self._run("shrink", members, last)
        return (last,)

    def _run(self, action: str, replicas: int, node: str) -> None:
        filled = {"{replicas}": str(replicas), "{node}": node, "{action}": action}
        words = list(self._words)
        for name, value in filled.items():
            words = [word.replace(name, value) for word in words]
        told = {"KVCTL_ACTION": action, "KVCTL_REPLICAS": str(replicas), "KVCTL_NODE": node}
        line = shlex.join(words)
        try:
            done = subprocess.run(  # noqa: S603 -- the user's own command line
                words, env=os.environ | told, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                timeout=COMMAND_S, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise LaunchFailed(f"{line}: {error}", "see kvctl autoscale --launcher") from error
        if done.returncode:
            words_of = (done.stderr or done.stdout).strip()[-400:]
            raise LaunchFailed(f"{line} ended with {done.returncode}: {words_of}")
        self._wanted = replicas


def command_words(text: str) -> list[str]:
    """The words of `command=...`. Raises `Invalid`."""
    kind, equals, line = text.partition("=")
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise Invalid(f"--launcher {text!r}: {error}") from error
    if kind != "command" or not equals or not words:
        raise Invalid(f"--launcher is local or command='...', not {text!r}")
    return words
