"""Scenarios: those that are shipped, beside this file, and those of users, wherever they are.

Promises: a name without a slash or `.toml` is a shipped one. Never: runs anything at import.
"""

from __future__ import annotations

from pathlib import Path

from kvctl.errors import Invalid, KvError
from kvnode.sim.scenario import Scenario, ScenarioWrong, parse

__all__ = ["NoScenario", "Scenario", "load", "shipped"]

HERE = Path(__file__).parent
FILE_BYTES_MAX = 1024 * 1024


class NoScenario(KvError):
    """There is no such file, and none of that name."""

    exit = 5


def shipped() -> dict[str, Scenario]:
    """Name -> scenario."""
    return {path.stem: load(str(path)) for path in sorted(HERE.glob("*.toml"))}


def load(name: str) -> Scenario:
    """A scenario by its file, or by the name of a shipped one. Raises `NoScenario`, `Invalid`."""
    path = Path(name) if "/" in name or name.endswith(".toml") else HERE / f"{name}.toml"
    if path.exists() and not path.is_file():
        raise Invalid(f"{name} is {'a directory' if path.is_dir() else 'no regular file'}: name a TOML file")
    if not path.is_file():
        raise NoScenario(f"there is no scenario {name!r}", "kvctl scenario ls")
    if path.stat().st_size > FILE_BYTES_MAX:
        raise Invalid(f"{name}: a scenario is at most {FILE_BYTES_MAX} bytes")
    try:
        return parse(path.read_text())
    except UnicodeDecodeError as error:
        raise Invalid(f"{name}: it is no UTF-8 text") from error
    except ScenarioWrong as error:
        raise Invalid(f"{name}: {error}") from error
