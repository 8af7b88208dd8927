"""The list of planted bugs: what an entry says, and how it is planted. Values and text only.

Promises: a text that does not stand exactly once in its file is refused, so the list cannot rot in
silence; a mutant is valid Python and another program. Never: touches the tree.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec
from msgspec import Struct

HERE = Path(__file__).parent
SEED_RUNS = (
    "short",
    "short-loud",
    "strong",
    "strong-slow",
    "strong-split",
    "strong-crowd",
    "strong-wiped",
    "simulate",
)

Fate: TypeAlias = Literal["caught", "survived", "timeout", "broken", "stale"]
"""`broken`: what failed was the mutant's own text, or a catcher that cannot be run. `stale`: not planted."""


class Wrong(ValueError):
    """An entry that cannot be used, and why."""


class Mutant(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One planted bug."""

    name: str
    breaks: str
    """In one line: what it makes the store do."""
    file: str
    old: str
    """Stands exactly once in the file."""
    new: str
    caught_by: tuple[str, ...]
    """Tests by their node ids, or runs of seeds: `short 1..40`, `simulate hostile quorum 1..5`."""
    liveness: bool = False
    """Whether it makes something hang, so that a catcher which does not end has caught it."""
    deadline_s: int = 90
    """For all its catchers together."""


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    mutant: tuple[Mutant, ...]


class Result(Struct, frozen=True, kw_only=True):
    """What became of one mutant."""

    name: str
    breaks: str
    file: str
    fate: Fate
    by: str = ""
    """The catcher that failed, or the test in it."""
    how: str = ""
    """What it said."""
    seconds: float = 0.0


def load(folder: Path = HERE) -> tuple[Mutant, ...]:
    """All entries, by file and place. Raises `Wrong`."""
    found: list[Mutant] = []
    for path in sorted(folder.glob("*.toml")):
        try:
            found += msgspec.toml.decode(path.read_bytes(), type=_File).mutant
        except (msgspec.MsgspecError, ValueError) as error:
            raise Wrong(f"{path.name}: {error}") from error
    names = [mutant.name for mutant in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise Wrong(f"two mutants of one name: {', '.join(twice)}")
    return tuple(found)


def chosen(mutants: Sequence[Mutant], only: Sequence[str]) -> tuple[Mutant, ...]:
    """Those that were named, or all. Raises `Wrong`."""
    names = {mutant.name for mutant in mutants}
    unknown = sorted(set(only) - names)
    if unknown:
        raise Wrong(f"no mutant is called {', '.join(unknown)}; there are {', '.join(sorted(names))}")
    return tuple(mutant for mutant in mutants if not only or mutant.name in only)


def planted(mutant: Mutant, source: str) -> str:
    """The source with this bug in it. Raises `Wrong`."""
    count = source.count(mutant.old)
    if count != 1:
        raise Wrong(f"{mutant.name}: its text stands {count} times in {mutant.file}, not once")
    mutated = source.replace(mutant.old, mutant.new)
    try:
        changed = ast.dump(ast.parse(mutated)) != ast.dump(ast.parse(source))
        compile(mutated, mutant.file, "exec")
    except SyntaxError as error:
        raise Wrong(f"{mutant.name}: {mutant.file} with it is no Python: {error}") from error
    if not changed:
        raise Wrong(f"{mutant.name}: {mutant.file} with it is the same program")
    return mutated


def is_seeds(catcher: str) -> bool:
    """Whether a catcher is a run of seeds; else it is a test."""
    return catcher.split()[0] in SEED_RUNS


def catcher_problem(catcher: str, sources: Mapping[str, str]) -> str:
    """Why this catcher cannot be run; empty when it can. `sources`: the tests' files by their paths."""
    if is_seeds(catcher):
        good = re.fullmatch(r"[a-z-]+( (calm|rough|hostile|eventual|quorum|[0-9]+min))* [0-9]+\.\.[0-9]+", catcher)
        return "" if good else f"{catcher}: a run of seeds ends in its range, as in `short 1..40`"
    path, _, name = catcher.partition("::")
    if path not in sources:
        return f"{catcher}: there is no {path}"
    names = {
        node.name
        for node in ast.walk(ast.parse(sources[path]))
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }
    if name and name.split("::")[-1].partition("[")[0] not in names and name not in sources[path]:
        return f"{catcher}: {path} has no such test"
    return ""


def catchers_of(mutants: Sequence[Mutant]) -> Iterator[str]:
    """Each catcher once, in the order in which it is first named."""
    yield from dict.fromkeys(catcher for mutant in mutants for catcher in mutant.caught_by)


ACCIDENT = re.compile(
    r"\b(NameError|AttributeError|TypeError|ImportError|ModuleNotFoundError|SyntaxError|UnboundLocalError)\b:"
)
TIMED_OUT = re.compile(r"Timeout \(?>\d")
TOLD = re.compile(r"^(?:FAILED|ERROR) (?P<by>.*?)(?: - (?P<how>.*))?$", re.MULTILINE)
FAILED_EXIT = 1
"""Of pytest and of `seeds.py` alike: it ran, and something is wrong. Any other says that it did not run."""


class Ended(Struct, frozen=True):
    """How a catcher ended."""

    code: int | None
    """None: it had to be stopped."""
    said: str


def fate_of(mutant: Mutant, catcher: str, ended: Ended) -> tuple[Fate, str, str]:
    """What a catcher's end says of a mutant: its fate, who noticed, and how."""
    told = TOLD.search(ended.said)
    by, how = (told["by"], told["how"] or "") if told else (catcher, "")
    if ended.code is None or (ended.code == FAILED_EXIT and TIMED_OUT.search(how)):
        return ("caught" if mutant.liveness else "timeout"), by, how or "it did not end"
    if ended.code == 0:
        return "survived", "", ""
    if ended.code != FAILED_EXIT:
        last = ended.said.strip().splitlines()[-1:] or [""]
        return "broken", catcher, f"exit {ended.code}: {last[0]}"
    if ACCIDENT.match(how):
        return "broken", by, how
    return "caught", by, how
