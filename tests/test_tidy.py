"""The shape of the source, kept by test: who may import whom, how long things get, what never appears.

Each rule is a sentence of ARCHITECTURE or STYLE. What breaks one today stands in `OWED`, with a
reason; paying a debt makes its test fail until the entry is taken out, so the list only shrinks.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(str(p.relative_to(ROOT)) for top in ("kvnode", "kvctl") for p in (ROOT / top).rglob("*.py"))
NODE = [path for path in SOURCES if path.startswith("kvnode/")]
CORE = [path for path in SOURCES if path.startswith("kvnode/core/") and not path.endswith("__init__.py")]

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70
PARAMETERS_MAX = 8

OWED: dict[tuple[str, str], str] = {}
"""(rule, file) -> why it is not paid yet."""


def owing(rule: str, paths: list[str]) -> list[object]:
    """The files a rule is checked on; those that owe it must still fail."""
    return [
        pytest.param(path, marks=pytest.mark.xfail(strict=True, reason=OWED[rule, path]))
        if (rule, path) in OWED
        else path
        for path in paths
    ]


@cache
def tree(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text(), path)


def imports(path: str) -> Iterator[tuple[int, str]]:
    """Every module a file imports, wherever in it, with the line."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute here"
            module = node.module or ""
            for alias in node.names:
                full = f"{module}.{alias.name}"
                is_module = (ROOT / (full.replace(".", "/") + ".py")).exists() or (
                    ROOT / full.replace(".", "/")
                ).is_dir()
                yield node.lineno, full if is_module else module


def ours(path: str) -> list[tuple[int, str]]:
    """The imports of our own modules, the packages' version strings apart."""
    return [(line, name) for line, name in imports(path) if re.match(r"(kvnode|kvctl)\.", name)]


def foreign(path: str) -> list[tuple[int, str]]:
    return [(line, name) for line, name in imports(path) if not re.match(r"(kvnode|kvctl)(\.|$)", name)]


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def dotted(node: ast.expr) -> str:
    """`a.b.c` of an expression, empty if it is not one."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


def calls(path: str) -> Iterator[tuple[int, str, ast.Call]]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            yield node.lineno, dotted(node.func), node


# ---- layers ------------------------------------------------------------------------------------


def allowed_in(path: str) -> tuple[str, ...]:
    """The packages of ours that a file may import."""
    match path.split("/"):
        case ["kvnode", "config.py"]:
            return ()
        case ["kvnode", "protocol", *_]:
            return ("kvnode.config", "kvnode.protocol")
        case ["kvnode", "core", *_]:
            return ("kvnode.config", "kvnode.protocol", "kvnode.core")
        case ["kvnode", "shell" | "sim" as side, *_]:
            return ("kvnode.config", "kvnode.protocol", "kvnode.core", f"kvnode.{side}")
        case ["kvnode", *_]:
            return ("kvnode",)
        case ["kvctl", "scenarios", *_] | ["kvctl", "scenarios.py"] | ["kvctl", "cli", "simulate.py"]:
            return ("kvctl", "kvnode.config", "kvnode.protocol", "kvnode.sim")
        case _:
            return ("kvctl", "kvnode.config", "kvnode.protocol")


@pytest.mark.parametrize("path", SOURCES)
def test_imports_go_down_the_layers_only(path: str) -> None:
    """protocol <- core <- shell | sim <- kvnode.__main__; kvctl sees the protocol and config, no more."""
    wrong = [f"{path}:{line} imports {name}" for line, name in ours(path) if not within(name, *allowed_in(path))]
    assert not wrong, f"only {', '.join(allowed_in(path)) or 'nothing of ours'} may be imported here: {wrong}"


DATA = {
    "assignment", "ballots", "bootstrap", "clock", "consensus", "deadlines", "detector", "events", "exchanges",
    "floors", "hintstore", "holding", "kept", "lanes", "ledger", "local", "merkle", "outbox", "pace", "pages",
    "peers", "places", "plan", "ports", "proposal", "quorum", "reassignment", "registers", "routes", "rules",
    "shape", "sides", "versions",
}  # fmt: skip
"""Modules of core that hold values and structures; all others but `WIRING` are mechanisms."""
WIRING = {"node", "registering", "rerouting", "shaping"}
"""Where mechanisms meet: all of them, and those that change the shape of a cluster."""


@pytest.mark.parametrize("path", [path for path in CORE if Path(path).stem not in WIRING])
def test_in_core_only_wiring_wires_mechanisms(path: str) -> None:
    """Data structures import no mechanism, and mechanisms never each other."""
    wrong = [
        f"{path}:{line} imports {name}"
        for line, name in ours(path)
        if within(name, "kvnode.core") and name.removeprefix("kvnode.core.") not in DATA
    ]
    assert not wrong, f"only {WIRING} may: {wrong}"


IMPURE = (
    "asyncio", "concurrent", "datetime", "logging", "multiprocessing", "os", "pathlib", "secrets", "select",
    "signal", "socket", "sqlite3", "sqlitedict", "subprocess", "tempfile", "threading", "time", "uuid", "zmq",
)  # fmt: skip


@pytest.mark.parametrize("path", [path for path in NODE if path.startswith(("kvnode/core/", "kvnode/protocol/"))])
def test_the_core_and_the_protocol_are_pure(path: str) -> None:
    """No clock, socket, file, thread, asyncio or logging: the simulator could not replay them."""
    wrong = [f"{path}:{line} imports {name}" for line, name in foreign(path) if within(name, *IMPURE)]
    assert not wrong, wrong
    doors = {"open", "print", "input", "hash", "id"}
    wrong = [f"{path}:{line} calls {name}()" for line, name, _ in calls(path) if name in doors]
    assert not wrong, f"files, terminals and the hash seed are not for the core: {wrong}"


@pytest.mark.parametrize("path", CORE)
def test_randomness_is_handed_in(path: str) -> None:
    """The type `Random` may be named; the module with its global state may not."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            assert "random" not in {alias.name for alias in node.names}, f"{path}:{node.lineno}: import random"
        if isinstance(node, ast.ImportFrom) and node.module == "random":
            assert {alias.name for alias in node.names} == {"Random"}, f"{path}:{node.lineno}: only `Random`"
        if isinstance(node, ast.Call):
            assert dotted(node.func) != "Random", f"{path}:{node.lineno} makes a Random: it is injected"


# ---- what never appears ------------------------------------------------------------------------


@pytest.mark.parametrize("path", SOURCES)
def test_click_is_not_imported(path: str) -> None:
    """Typer vendors it: the module may not be there at all."""
    wrong = [f"{path}:{line}" for line, name in foreign(path) if within(name, "click")]
    assert not wrong, wrong


@pytest.mark.parametrize("path", SOURCES)
def test_nothing_turns_bytes_or_text_into_code(path: str) -> None:
    """No pickle, eval, exec, yaml.load or shell: bytes of a peer stay bytes."""
    unsafe = ("pickle", "marshal", "shelve", "dill", "cloudpickle")
    wrong = [f"{path}:{line} imports {name}" for line, name in foreign(path) if within(name, *unsafe)]
    for line, name, call in calls(path):
        if name in {"eval", "exec", "compile", "yaml.load", "os.system", "os.popen", "__import__"}:
            wrong.append(f"{path}:{line} calls {name}")
        for keyword in call.keywords:
            if keyword.arg == "shell" and not (
                isinstance(keyword.value, ast.Constant) and keyword.value.value is False
            ):
                wrong.append(f"{path}:{line} runs a shell")
    assert not wrong, wrong


@pytest.mark.parametrize("path", owing("sleep", NODE))
def test_a_node_never_sleeps(path: str) -> None:
    """It polls; a sleep anywhere is a stall everywhere."""
    wrong = [f"{path}:{line}" for line, name, _ in calls(path) if name in {"time.sleep", "sleep"}]
    wrong += [
        f"{path}:{node.lineno}"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ImportFrom) and node.module == "time" and "sleep" in {a.name for a in node.names}
    ]
    assert not wrong, f"wait on a descriptor or an event instead: {wrong}"


@pytest.mark.parametrize("path", owing("swallow", SOURCES))
def test_no_exception_is_swallowed(path: str) -> None:
    """No bare `except`, and none whose body does nothing: handle it, or let it go."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{path}:{node.lineno}: bare except"
            empty = all(
                isinstance(s, ast.Pass) or (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))
                for s in node.body
            )
            assert not empty, f"{path}:{node.lineno}: this except swallows what it catches"
        if isinstance(node, ast.Call) and dotted(node.func) in {"suppress", "contextlib.suppress"}:
            assert node.args, f"{path}:{node.lineno}: suppresses nothing"


# ---- headers and lengths -----------------------------------------------------------------------


@pytest.mark.parametrize("path", SOURCES)
def test_every_module_says_what_it_is(path: str) -> None:
    """A docstring of at least one sentence."""
    told = ast.get_docstring(tree(path)) or ""
    assert len(told) > 10, f"{path} has no header"


@pytest.mark.parametrize(
    "path",
    [
        p
        for p in NODE
        if p.startswith(("kvnode/core/", "kvnode/shell/", "kvnode/protocol/")) and "__init__" not in p
    ],
)
def test_every_part_of_a_node_promises_and_refuses(path: str) -> None:
    """Header says promise and refusal: what it keeps, and what it never does."""
    told = ast.get_docstring(tree(path)) or ""
    missing = [word for word in ("Promises", "Never") if not re.search(rf"\b{word}\b", told)]
    assert not missing, f"the header of {path} does not say: {', '.join(missing)}"


@pytest.mark.parametrize("path", owing("long_file", SOURCES))
def test_files_are_short(path: str) -> None:
    """At most 400 lines."""
    lines = len((ROOT / path).read_text().splitlines())
    assert lines <= FILE_LINES_MAX, f"{path} has {lines} lines: cut it along its mechanisms"


def is_command(path: str, node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a function is a command of the command line: its parameters are its flags."""
    if path == "kvnode/__main__.py":
        return bool(node.decorator_list)
    first = node.args.args[0].annotation if node.args.args else None
    return path.startswith("kvctl/cli/") and first is not None and dotted(first) == "Ctl"


@pytest.mark.parametrize("path", owing("functions", SOURCES))
def test_functions_are_short_and_take_few_things(path: str) -> None:
    """At most 70 lines, and at most 8 positional parameters beside `self` (aim: 40 and 5)."""
    wrong = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            names = [a.arg for a in (*node.args.posonlyargs, *node.args.args) if a.arg not in ("self", "cls")]
            if length > FUNCTION_LINES_MAX:
                wrong.append(f"{path}:{node.lineno} {node.name} has {length} lines")
            if len(names) > PARAMETERS_MAX and not is_command(path, node):
                wrong.append(f"{path}:{node.lineno} {node.name} takes {len(names)} parameters")
    assert not wrong, wrong


# ---- what is committed -------------------------------------------------------------------------

MACHINE = re.compile(r"(?<![\w.])/(?:wor" + r"k|roo" + r"t)/")
"""Paths of the machine this was written on."""


def committed() -> list[str]:
    """Tracked files and those that would be; none outside a git checkout."""
    asked = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False)
    return [path for path in done.stdout.splitlines() if (ROOT / path).is_file()]


def test_nothing_committed_knows_the_machine_it_was_written_on() -> None:
    """No absolute path of a developer's box in any file."""
    wrong = []
    for path in committed():
        text = (ROOT / path).read_bytes().decode("utf-8", "replace")
        wrong += [f"{path}:{n}" for n, line in enumerate(text.splitlines(), 1) if MACHINE.search(line)]
    assert not wrong, f"these name a path of one machine: {wrong}"


def test_every_debt_is_a_debt_of_a_file_there_is() -> None:
    """A list of exceptions that nobody reads grows."""
    assert all(path in SOURCES for _, path in OWED)
