"""What every command shares: its options, its client, how it prints and how it asks.

Promises: `-o`, `--json`, `--connect` and `--timeout` work before and after the command, on every
command, and mean the same; nothing connects before a command needs it.
Never: asks a question where nobody can answer.

    @command(app)                                  the decorator adds the shared options, and takes
    def get(ctl: Ctl, key: ..., ...) -> None:      them away again: the function sees a `Ctl`
        ctl.show(get_view(ctl.client().get(key)))
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec, TypeVar

import typer

from kvctl import output
from kvctl.cli.words import Usage, form, seconds
from kvctl.errors import KvError, Refused
from kvctl.settings import Setting, read_setting

if TYPE_CHECKING:
    from kvctl.client import Client
    from kvctl.output import View

P = ParamSpec("P")
R = TypeVar("R")

OUTPUT = Annotated[
    str | None, typer.Option("--output", "-o", metavar="FORMAT", help="table, wide, json, jsonl or tsv.")
]
JSON = Annotated[bool, typer.Option("--json", help="The same as -o json.")]
CONNECT = Annotated[str | None, typer.Option("--connect", metavar="HOST:PORT,...", help="Where the cluster is.")]
TIMEOUT = Annotated[
    str | None, typer.Option("--timeout", metavar="TIME", help="Deadline of a request: 2s, 500ms.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]

BROKEN_PIPE = 141

SHARED = {"output": OUTPUT, "as_json": JSON, "connect": CONNECT, "timeout": TIMEOUT}


class Shared:
    """The shared options as given, before or after the command; the later one wins."""

    def __init__(self) -> None:
        self.output: str | None = None
        self.connect: str | None = None
        self.timeout: str | None = None

    def take(self, output: str | None, as_json: bool, connect: str | None, timeout: str | None) -> None:
        """Take what was given in one place of the command line. Raises `Usage`."""
        if as_json and output not in (None, "json"):
            raise Usage(f"--json and -o {output} contradict each other")
        given = "json" if as_json else output
        self.output = form(given) if given else self.output
        self.connect = connect if connect is not None else self.connect
        self.timeout = timeout if timeout is not None else self.timeout


class Ctl:
    """The command that runs: its options, settled, and its ways to the user and the cluster."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._client: Client | None = None

    @property
    def form_given(self) -> str | None:
        """The format asked for by flag, environment or context; None for the default."""
        given = read_setting("output", self._shared.output).value
        return form(given) if given else None

    @property
    def form(self) -> str:
        """The format: a table for people, TSV for programs, unless one was asked for."""
        return self.form_given or ("table" if sys.stdout.isatty() else "tsv")

    @property
    def wants_story(self) -> bool:
        """Whether the format has a place for the story."""
        return self.form in ("json", "jsonl")

    @property
    def connect(self) -> str | None:
        """`--connect`, if it was given."""
        return self._shared.connect

    def setting(self, name: str) -> Setting:
        """A setting, and where it came from."""
        return read_setting(name, getattr(self._shared, name, None))

    @property
    def timeout_s(self) -> float:
        """The deadline of a request."""
        return seconds(self.setting("timeout").value or "2s")

    def client(self, connect: str | None = None) -> Client:
        """The client, connected at the first call (there, if told). Raises `NoEndpoint`."""
        if self._client is None:
            from kvctl.client import Client

            self._client = Client(connect or self.connect, self.timeout_s)
        return self._client

    def close(self) -> None:
        """Give up the connections."""
        if self._client is not None:
            self._client.close()

    # ---- to the user -----------------------------------------------------------------------

    def show(self, view: View) -> None:
        """Data, on stdout."""
        output.write(view, self.form, sys.stdout)

    def note(self, text: str) -> None:
        """Anything else, on stderr."""
        print(output.lines_of(text), file=sys.stderr)

    def confirm(self, what: str, *, yes: bool) -> None:
        """Ask before something that destroys. Raises `Refused` where nobody can answer, or says no."""
        if yes:
            return
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise Refused(
                f"{what}: not without --yes, for nobody can be asked here", "add --yes, or look with --dry-run"
            )
        print(f"{output.escape(what)}. Go on? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise Refused("nothing was done")


def command(
    app: typer.Typer, name: str | None = None, **options: Any
) -> Callable[[Callable[Concatenate[Ctl, P], R]], Callable[Concatenate[Ctl, P], R]]:
    """Register a command, with the shared options."""

    def register(function: Callable[Concatenate[Ctl, P], R]) -> Callable[Concatenate[Ctl, P], R]:
        signature = inspect.signature(function, eval_str=True)
        own = list(signature.parameters.values())[1:]
        shared = [
            inspect.Parameter(
                n, inspect.Parameter.KEYWORD_ONLY, annotation=a, default=False if a is JSON else None
            )
            for n, a in SHARED.items()
            if n not in signature.parameters  # `wait --timeout` is its own
        ]
        context = inspect.Parameter("context_", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + shared + [context]

        def run(**given: Any) -> None:
            absent = {"as_json": False}
            here = {p.name for p in shared}
            ctl = settled(given.pop("context_"), {n: given.pop(n) if n in here else absent.get(n) for n in SHARED})
            try:
                function(ctl, **given)  # type: ignore[call-arg]
                sys.stdout.flush()
            except BrokenPipeError:
                raise typer.Exit(BROKEN_PIPE) from None
            finally:
                ctl.close()

        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        run.__doc__ = function.__doc__
        app.command(name or function.__name__.replace("_", "-"), **options)(run)
        return function

    return register


def settled(context: typer.Context, given: dict[str, Any]) -> Ctl:
    """The options of the command line as a whole: those before the command, then those after it."""
    shared = context.find_root().obj
    if not isinstance(shared, Shared):
        shared = context.find_root().obj = Shared()
    shared.take(**given)
    return Ctl(shared)


def group(help_text: str) -> typer.Typer:
    """A group of commands, which may have the shared options before its command."""
    app = typer.Typer(help=help_text, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)

    def before(
        context: typer.Context,
        output: OUTPUT = None,
        as_json: JSON = False,
        connect: CONNECT = None,
        timeout: TIMEOUT = None,
    ) -> None:
        settled(context, {"output": output, "as_json": as_json, "connect": connect, "timeout": timeout})

    before.__annotations__ = {"context": typer.Context} | SHARED
    app.callback()(before)
    return app


def key_bytes(text: str) -> bytes:
    """A key of the command line: the very bytes that were typed."""
    return os.fsencode(text)


__all__ = ["Ctl", "DryRun", "KvError", "Yes", "command", "group", "key_bytes", "settled"]
