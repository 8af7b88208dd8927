"""kvctl: the command line, from argv to exit code.

Promises: every failure is one clear message (or one JSON object) on stderr and a code of CONTRACT;
a bug exits 70 and names a report. Never: a traceback on the terminal, or Textual on the way to `get`.
"""

from __future__ import annotations

import os
import sys
import time
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import Abort, TyperException

from kvctl import output
from kvctl.cli.base import BROKEN_PIPE, CONNECT, JSON, OUTPUT, TIMEOUT, settled
from kvctl.cli.quick import quicken
from kvctl.errors import KvError
from kvnode import __version__

BUG, INTERRUPTED = 70, 130

HOMES = {
    "up": "cluster", "down": "cluster", "status": "cluster", "check": "cluster", "wait": "cluster",
    "put": "data", "get": "data", "delete": "data", "scan": "data", "explain": "data",
    "import": "transfer", "export": "transfer",
    "node": "node", "cluster": "topology", "ring": "ring", "autoscale": "autoscale",
    "hints": "hints", "repair": "repair", "fault": "fault", "events": "events", "config": "config",
    "bench": "bench", "simulate": "simulate", "scenario": "scenario", "demo": "demo",
    "dashboard": "dashboard", "serve": "serve", "report": "report",
}  # fmt: skip
"""Command -> the module of this package that has it, in the order help lists them. A module adds its
commands by `register(app)`."""
WITH_VALUE = ("-o", "--output", "--connect", "--timeout")


class Ordered(TyperGroup):
    """Lists commands in the order one meets them."""

    def list_commands(self, ctx: Any) -> list[str]:
        """As `HOMES` has them."""
        order = list(HOMES)
        return sorted(self.commands, key=lambda name: order.index(name) if name in order else len(order))


def _version(asked: bool) -> None:
    if asked:
        print(f"kvctl {__version__}")
        raise typer.Exit


def _before(
    context: typer.Context,
    output: OUTPUT = None,
    as_json: JSON = False,
    connect: CONNECT = None,
    timeout: TIMEOUT = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    settled(context, {"output": output, "as_json": as_json, "connect": connect, "timeout": timeout})


def build(modules: set[str]) -> Any:
    """The command tree, with the commands of these modules."""
    app = typer.Typer(
        cls=Ordered,
        help="A leaderless key-value cluster: run it, use it, break it, watch it.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_before)
    for module in dict.fromkeys(HOMES.values()):
        if module in modules:
            import_module(f"kvctl.cli.{module}").register(app)
    tree = typer.main.get_command(app)
    quicken(tree)
    return tree


def needed(argv: list[str]) -> set[str]:
    """The modules a command line needs: one, or where that is not plain (help, completion), all.

    Reading and compiling the others would cost `kvctl get` a third of its time.
    """
    words = iter(argv)
    for word in words:
        if word in WITH_VALUE:
            next(words, None)
        elif word in HOMES and "_KVCTL_COMPLETE" not in os.environ:
            return {HOMES[word]}
        elif not word.startswith("-"):
            break
    return set(HOMES.values())


def main() -> None:
    """The entry point."""
    if sys.platform != "linux":
        sys.exit(f"kvctl: {sys.platform} is not supported yet, only Linux is")
    for stream in (sys.stdout, sys.stderr):
        # Data is UTF-8 whatever the locale; what cannot be encoded is shown escaped, not a crash.
        getattr(stream, "reconfigure", lambda **_: None)(encoding="utf-8", errors="backslashreplace")
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except OSError:
        code = code or BROKEN_PIPE
    if code == BROKEN_PIPE:
        # Nobody reads any more: the interpreter's last flush must not complain about it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def run(argv: list[str]) -> int:
    """Run a command line. The exit code."""
    as_json = wants_json(argv)
    try:
        code = build(needed(argv)).main(args=argv, prog_name="kvctl", standalone_mode=False)
    except KvError as error:
        tell(error, as_json=as_json)
        return error.exit
    except TyperException as error:
        usage(error, as_json=as_json)
        return error.exit_code
    except (Abort, KeyboardInterrupt):
        return INTERRUPTED
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        tell(KvError(f"{where}{error.strerror or error}"), as_json=as_json)
        return 1
    except Exception as error:  # noqa: BLE001 -- a bug, whatever it is: report it, and say where
        tell(bug(error, argv), as_json=as_json, code=BUG)
        return BUG
    return code if isinstance(code, int) else 0


def wants_json(argv: list[str]) -> bool:
    """Whether errors should be JSON: known before the command line is understood, or is not."""
    form = os.environ.get("KVCTL_OUTPUT", "")
    for i, word in enumerate(argv):
        if word == "--":
            break
        if word == "--json":
            form = "json"
        elif word in ("-o", "--output") and i + 1 < len(argv):
            form = argv[i + 1]
        elif word.startswith(("-o", "--output=")):
            form = word.removeprefix("--output=").removeprefix("-o").removeprefix("=")
    return form in ("json", "jsonl")


def tell(error: KvError, *, as_json: bool, code: int | None = None) -> None:
    """An error, on stderr."""
    name, code = type(error).__name__, error.exit if code is None else code
    if as_json:
        told: dict[str, output.Json] = {
            "schema": output.schema("error"), "error": name, "exit": code, "message": error.message,
            "hint": error.hint or None, "applied": error.applied, "acked": error.acked,
        }  # fmt: skip
        if error.story is not None:
            from kvctl.render import story_json

            told["story"] = story_json(error.story)
        print(output.to_json(told), file=sys.stderr)
        return
    print(f"kvctl: {output.lines_of(error.message)}", file=sys.stderr)
    if error.applied == "maybe":
        print(f"  it may have been applied: {error.acked} acknowledged", file=sys.stderr)
    if error.hint:
        print(f"  next: {output.lines_of(error.hint)}", file=sys.stderr)


def usage(error: Any, *, as_json: bool) -> None:
    """A command line that makes no sense; or none at all, which gets the help."""
    message = error.format_message()
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "kvctl"
    if type(error).__name__ == "NoArgsIsHelpError" and not as_json:
        print(message, file=sys.stderr)
        return
    if type(error).__name__ == "NoArgsIsHelpError":
        message = "a command is missing"

    class Usage(KvError):
        exit = error.exit_code

    tell(Usage(message, f"{path} --help"), as_json=as_json)


def bug(error: Exception, argv: list[str]) -> KvError:
    """Write a report of a bug, without the keys and values of the command line."""
    import traceback

    from kvctl.endpoints import home

    class Bug(KvError):
        exit = BUG

    words = [word if word.startswith("-") or i < 2 else f"<{len(word)} characters>" for i, word in enumerate(argv)]
    text = f"kvctl {__version__}, Python {sys.version}\nargv: {words}\n\n" + "".join(
        traceback.format_exception(error)
    )
    path = home() / "reports" / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}.txt"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, errors="backslashreplace")
        where = f"the report is {path}"
    except OSError as problem:
        where = f"the report could not be written ({problem.strerror})"
    return Bug(f"this is a bug in kvctl ({type(error).__name__}); {where}", "send the report to the maintainers")


__all__ = ["HOMES", "build", "main", "run"]
