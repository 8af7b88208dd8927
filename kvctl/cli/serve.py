"""`kvctl serve`: the console in a browser, on this machine, looking only unless told otherwise.

Promises: listens on loopback; a page of another site cannot use it, nor one that a name was rebound to.
Never: lets a browser change anything without `--allow-writes`.
"""

from __future__ import annotations

import shlex
import sys
from typing import Annotated

import typer

from kvctl.cli.base import Ctl, command
from kvctl.errors import KvError

PORT = 8765


def register(app: typer.Typer) -> None:
    """Add this command."""
    command(app)(serve)


def serve(
    ctl: Ctl,
    port: Annotated[int, typer.Option(metavar="PORT", min=1, max=65535, help="On 127.0.0.1.")] = PORT,
    allow_writes: Annotated[
        bool, typer.Option("--allow-writes", help="Let the browser do what the console can.")
    ] = False,
) -> None:
    """Show the console in a browser, read-only unless told otherwise; Ctrl-C ends."""
    try:
        from kvctl.console.web import serve_console
    except ModuleNotFoundError as error:
        raise KvError(f"this needs {error.name}, which is not installed", "pip install 'kvctl[serve]'") from error

    words = [sys.executable, "-m", "kvctl", "dashboard", *([] if allow_writes else ["--readonly"])]
    words += ["--connect", ctl.connect] if ctl.connect else []
    ctl.note(f"http://127.0.0.1:{port}/ ({'may change things' if allow_writes else 'read-only'}); Ctrl-C ends")
    serve_console(shlex.join(words), port)
