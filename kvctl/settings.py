"""Settings of the command line, and which source won: flag > environment > context > default.

Promises: config.toml holds named contexts, one of them current; it is written in one step.
Never: a setting whose origin cannot be told.

    context = "prod"
    [contexts.prod]
    connect = "10.0.0.1:7001,10.0.0.2:7001"
    output = "json"
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from msgspec import Struct

from kvctl.endpoints import home, read_config
from kvctl.errors import Invalid

KEYS = {"connect": None, "output": None, "timeout": "2s"}
"""What can be set, with the default; the default of `connect` is the last `kvctl up`, of `output`
a table on a terminal and TSV elsewhere."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Setting(Struct, frozen=True):
    """A value and where it came from."""

    value: str | None
    origin: str
    """`flag`, `env`, `context NAME` or `default`."""


def read_setting(name: str, flag: str | None) -> Setting:
    """The setting that holds. Raises `Invalid`."""
    if flag is not None:
        return Setting(flag, "flag")
    env = os.environ.get(f"KVCTL_{name.upper()}")
    if env:
        return Setting(env, "env")
    context = current_context()
    if context is not None:
        value = contexts().get(context, {}).get(name)
        if value is not None:
            return Setting(value, f"context {context}")
    return Setting(KEYS[name], "default")


def config_path() -> Path:
    """Where the contexts are kept."""
    return home() / "config.toml"


def current_context() -> str | None:
    """The context in use."""
    name = read_config().get("context")
    return name if isinstance(name, str) and name else None


def contexts() -> dict[str, dict[str, str]]:
    """Every context, with its settings."""
    tables = read_config().get("contexts")
    if not isinstance(tables, dict):
        return {}
    return {
        str(name): {str(k): str(v) for k, v in table.items()}
        for name, table in tables.items()
        if isinstance(table, dict)
    }


def save(current: str | None, all_contexts: dict[str, dict[str, str]]) -> None:
    """Write config.toml in one step. Raises `Invalid`."""
    lines = [] if current is None else [f"context = {_quoted(current)}"]
    for name, table in sorted(all_contexts.items()):
        lines += ["", f"[contexts.{_quoted(name)}]", *(f"{k} = {_quoted(v)}" for k, v in sorted(table.items()))]
    path = config_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text("\n".join(lines).lstrip() + "\n")
    draft.replace(path)


def _quoted(text: str) -> str:
    if not text.isprintable():
        raise Invalid(f"{text!r} holds characters that have no place in a setting")
    return json.dumps(text, ensure_ascii=False)
