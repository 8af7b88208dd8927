"""What can be done from the console: each act is a kvctl command, shown as one, run as one.

Promises: what destroys, stops or cuts something is asked about first, with what its dry run says; where a
quorum would break or data would go, a word must be typed. Never: does what `kvctl` would not.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Sequence

import msgspec
from msgspec import Struct

SECONDS_MAX = 300.0
"""Longest a command may run."""

ASKED: dict[tuple[str, ...], str] = {
    ("fault", "kill"): "{0} is killed (SIGKILL): it stops at once, and stays down until healed",
    ("fault", "stop"): "{0} is stopped (SIGTERM): it finishes what it acknowledged, and stays down until healed",
    ("fault", "restart"): "{0} is stopped and started",
    ("fault", "pause"): "{0} is held (SIGSTOP): it is there and says nothing",
    ("fault", "wipe"): "{0} is killed and ITS DATA DIRECTORY IS DELETED",
    ("fault", "partition"): "nothing passes between {0} and {1}",
    ("fault", "delay"): "what {0} sends is late by {1}",
    ("fault", "drop"): "{1} of what {0} sends is lost",
    ("fault", "duplicate"): "{1} of what {0} sends is sent twice",
    ("fault", "reorder"): "{1} of what {0} sends is overtaken by what comes later",
    ("fault", "corrupt"): "{1} of what {0} sends is damaged",
    ("fault", "slow-disk"): "each commit of {0} takes {1} longer",
    ("fault", "full-disk"): "the next write of {0} fails for want of room: it stops",
    ("fault", "fail-fsync"): "the next fsync of {0} fails: it stops",
    ("fault", "skew"): "the clock of {0} is off by {1}",
    ("node", "stop"): "{0} is stopped (SIGTERM): it finishes what it acknowledged",
    ("hints", "drop"): "the hints for {0} are forgotten: writes acknowledged through them may be lost",
    ("scenario", "run"): "the scenario {0} is run: its work, and its faults",
    ("down",): "the nodes of this cluster that kvctl up started are stopped",
    ("delete",): "the value of {0} is deleted",
    ("cluster", "leave"): "it is staged that {0} gives all it has to others and goes; nothing moves yet",
    ("cluster", "force-remove"): "it is staged that {0} is removed WITHOUT GIVING WHAT IT HAS; nothing moves yet",
    ("cluster", "commit"): "the plan {0} is carried out: its replicas move",
    ("cluster", "cancel"): "the moves pending are given up; what has been moved stays where it is",
}
"""Commands that are asked about, and what will happen, by the words that follow."""
WITHOUT_DRY_RUN = {("delete",), ("cluster", "cancel")}
DESTROYS = {("fault", "wipe"), ("hints", "drop"), ("cluster", "force-remove")}
"""They cost data: a word must be typed, whatever the quorum."""
READS: tuple[tuple[str, ...], ...] = (
    ("status",), ("check",), ("get",), ("scan",), ("explain",), ("events",), ("wait",), ("node", "ls"),
    ("node", "info"), ("node", "stats"), ("node", "logs"), ("ring",), ("hints", "ls"), ("repair", "status"),
    ("fault", "ls"), ("scenario", "ls"), ("config", "view"), ("config", "path"), ("cluster", "plan"), ("demo",),
)  # fmt: skip
"""Commands that change nothing."""
NOT_HERE = ("dashboard", "serve")
VALUED = (
    "--for", "--name", "--jitter", "--seed", "--on", "--partition", "--timeout", "-w", "-r", "--mode", "--via",
    "--context", "--if-match", "--ttl",
)  # fmt: skip
"""Flags that are followed by a word."""


class Action(Struct, frozen=True):
    """A kvctl command to be run."""

    argv: tuple[str, ...]
    stdin: bytes | None = None

    @property
    def verb(self) -> tuple[str, ...]:
        """The words that name the command."""
        words = self.words
        return words[:2] if words[:2] in ASKED or words[:2] in READS else words[:1]

    @property
    def words(self) -> tuple[str, ...]:
        """The command line without its flags."""
        found: list[str] = []
        rest = iter(self.argv)
        for word in rest:
            if word == "--":
                found += rest
            elif word in VALUED:
                next(rest, None)
            elif not word.startswith("-"):
                found.append(word)
        return tuple(found)

    @property
    def line(self) -> str:
        """As one would type it."""
        return "kvctl " + " ".join(shlex.quote(word) for word in self.argv)

    @property
    def reads(self) -> bool:
        """Whether it changes nothing."""
        return self.verb in READS or "--dry-run" in self.argv or "--help" in self.argv

    @property
    def asks(self) -> bool:
        """Whether it is asked about."""
        return self.verb in ASKED and "--dry-run" not in self.argv

    @property
    def means(self) -> str:
        """What will happen, as a sentence."""
        rest = self.words[len(self.verb) :]
        return ASKED[self.verb].format(*rest, *("?", "?"))

    @property
    def target(self) -> str:
        """The word to type where it must be: what it is done to."""
        rest = self.words[len(self.verb) :]
        return rest[0] if rest else self.verb[-1]


class Preview(Struct, frozen=True):
    """What a dry run says."""

    would: str = ""
    risks: tuple[str, ...] = ()
    breaks_quorum: bool = False
    margin: str = ""
    problem: str = ""
    """Why it cannot be done; empty when it can."""


class Ran(Struct, frozen=True):
    """What a command did."""

    code: int
    out: str
    error: str


class Runner:
    """Runs kvctl for the cluster the console shows."""

    def __init__(self, connect: str | None = None) -> None:
        """`connect`: as `--connect` was given; None for what the environment says."""
        self._flags = ("--connect", connect) if connect else ()
        self._running: set[asyncio.subprocess.Process] = set()

    async def run(self, action: Action, *flags: str) -> Ran:
        """Run it to its end."""
        argv = _with_flags(action.argv, (*flags, *self._flags))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "kvctl", *argv, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE, start_new_session=True, env=os.environ | {"NO_COLOR": "1"},
        )  # fmt: skip
        self._running.add(process)
        try:
            out, err = await asyncio.wait_for(process.communicate(action.stdin or b""), SECONDS_MAX)
        except TimeoutError:
            self._interrupt(process)
            return Ran(130, "", f"it took longer than {SECONDS_MAX:.0f} s, and was interrupted")
        finally:
            self._running.discard(process)
        error = err.decode("utf-8", "surrogateescape").strip()
        return Ran(process.returncode or 0, out.decode("utf-8", "surrogateescape"), error)

    async def preview(self, action: Action) -> Preview:
        """What it would do, and break."""
        if action.verb in WITHOUT_DRY_RUN:
            return Preview()
        ran = await self.run(action, "--dry-run", "-o", "json")
        if ran.code:
            return Preview(problem=error_of(ran))
        told = msgspec.json.decode(ran.out)
        blast = told.get("blast") or {}
        risks = tuple(map(str, told.get("risks", ())))
        margin = ""
        if blast:
            lost = blast["lose_quorum_count"]
            kept = "every partition keeps its quorum" if not lost else f"{lost} partitions lose their quorum"
            margin = f"{kept}; margin {blast['margin_before']:.0%} -> {blast['margin']:.0%}"
        breaks = bool(blast.get("lose_quorum_count")) or any("quorum" in risk for risk in risks)
        return Preview(str(told.get("would", "")), risks, breaks, margin)

    async def carry_out(self, action: Action) -> Ran:
        """Do it: whoever asked has been asked."""
        flags = ("--yes",) if action.asks and action.verb not in WITHOUT_DRY_RUN else ()
        return await self.run(action, *flags, "-o", "json")

    def interrupt(self) -> None:
        """Ctrl-C to all that runs."""
        for process in self._running:
            self._interrupt(process)

    def _interrupt(self, process: asyncio.subprocess.Process) -> None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)


def _with_flags(argv: Sequence[str], flags: Sequence[str]) -> list[str]:
    """Flags go before a `--`: what comes after it is no flag."""
    words = list(argv)
    at = words.index("--") if "--" in words else len(words)
    return [*words[:at], *flags, *words[at:]]


def error_of(ran: Ran) -> str:
    """Why a command failed, as a sentence."""
    last = ran.error.splitlines()[-1] if ran.error else f"exit {ran.code}"
    try:
        told = msgspec.json.decode(last)
    except msgspec.MsgspecError:
        return last
    if not isinstance(told, dict):
        return last
    hint = f" (next: {told['hint']})" if told.get("hint") else ""
    return f"{told.get('message', last)}{hint}"


def parse(text: str) -> Action | str:
    """A command line as typed, with or without `kvctl`; or why it is none."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        return f"{text}: {error}"
    if words[:1] == ["kvctl"]:
        words = words[1:]
    if not words:
        return "no command"
    if words[0] in NOT_HERE:
        return f"{words[0]} is for a terminal of its own"
    if {"-f", "--follow", "--watch"} & set(words):
        return "what follows goes on for ever: this console follows already"
    return Action(tuple(words))
