"""Plants bugs in copies of the source and runs their catchers, each in a process of its own.

Promises: works in a temporary copy, and ends whatever it started, by its own process group; the unmutated
copy must pass every catcher before any failure of one means something. Never: changes the tree.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from tests.mutants.listing import Ended, Fate, Mutant, Result, Wrong, catchers_of, fate_of, is_seeds, planted

ROOT = Path(__file__).parents[2]
LEFT_OUT = shutil.ignore_patterns("__pycache__", ".*", "*.egg-info", "build")
BASELINE_S = 600
TELLS = ("-x", "-q", "-rfE", "--tb=no", "-p", "no:cacheprovider")

Tell = Callable[[Result], None]


class Bench:
    """A temporary folder with a copy of the source in it."""

    def __init__(self, home: Path, root: Path = ROOT) -> None:
        self._home = home
        self._running: set[subprocess.Popen[str]] = set()
        self._stopped = False
        self.base = home / "base"
        shutil.copytree(root, self.base, ignore=LEFT_OUT)
        told = self.run_code("import kvnode, kvctl, tests; print(kvnode.__file__, kvctl.__file__, tests.__file__)")
        if any(not path.startswith(str(self.base)) for path in told.split()):
            raise Wrong(f"not the copy in {self.base} would be tested, but {told}")

    def run_code(self, code: str) -> str:
        """What a piece of code prints in the copy."""
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=self.base, env=_environment(self.base),
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        return done.stdout if not done.returncode else done.stderr

    # ---- the unmutated tree ----------------------------------------------------------------

    def baseline(self, mutants: Sequence[Mutant], jobs: int) -> list[str]:
        """What fails though nothing is planted."""
        catchers = list(catchers_of(mutants))
        tests = [catcher for catcher in catchers if not is_seeds(catcher)]
        groups = [(*tests[place::jobs],) for place in range(jobs) if tests[place::jobs]]
        groups += [(catcher,) for catcher in longest(catchers)]
        with self._workers(jobs) as pool:
            return [wrong for wrong in pool.map(self._sound, groups) if wrong]

    def _sound(self, group: tuple[str, ...]) -> str:
        with _scratch(self._home) as scratch:
            ended = self._catch(group, self.base, scratch, BASELINE_S)
        if ended.code == 0:
            return ""
        return f"{' '.join(group) if len(group) < 3 else 'the tests'}: exit {ended.code}\n{ended.said[-2_000:]}"

    # ---- the mutants -----------------------------------------------------------------------

    def try_all(
        self, mutants: Sequence[Mutant], jobs: int, tell: Tell, catchers: Sequence[str] = ()
    ) -> list[Result]:
        """What becomes of each, in their order. `catchers`: in place of the mutants' own, all of them."""
        with self._workers(jobs) as pool:
            running = {pool.submit(self.try_one, mutant, catchers): mutant.name for mutant in mutants}
            results: dict[str, Result] = {}
            for done in as_completed(running):
                results[running[done]] = done.result()
                tell(results[running[done]])
        return [results[mutant.name] for mutant in mutants]

    def try_one(self, mutant: Mutant, catchers: Sequence[str] = ()) -> Result:
        """Plant one bug, and have its catchers look for it, until one fails."""
        began = time.monotonic()
        with _scratch(self._home) as scratch:
            copy = scratch / "source"
            shutil.copytree(self.base, copy, ignore=shutil.ignore_patterns(".*"))
            try:
                _plant(mutant, copy)
            except (Wrong, OSError) as error:
                return _result(mutant, "stale", "", str(error), 0.0)
            fate: Fate = "survived"
            by = how = ""
            for catcher in catchers or mutant.caught_by:
                left = mutant.deadline_s - (time.monotonic() - began)
                ended = self._catch((catcher,), copy, scratch, left)
                fate, by, how = fate_of(mutant, catcher, ended)
                if fate != "survived":
                    break
        return _result(mutant, fate, by, how, time.monotonic() - began)

    # ---- processes -------------------------------------------------------------------------

    @contextlib.contextmanager
    def _workers(self, jobs: int) -> Iterator[ThreadPoolExecutor]:
        """Threads that wait for processes; whoever interrupts us does not wait for either."""
        with ThreadPoolExecutor(jobs) as pool:
            try:
                yield pool
            except BaseException:
                self._stopped = True
                for running in tuple(self._running):
                    _end(running)
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _catch(self, catchers: Sequence[str], copy: Path, scratch: Path, seconds: float) -> Ended:
        """Run some tests, or one run of seeds, in a copy; stop them when their time is up."""
        if is_seeds(catchers[0]):
            command = [sys.executable, "-m", "tests.mutants.seeds", *catchers[0].split()]
        else:
            limits = ("--timeout", str(max(1, int(seconds))), "--basetemp", str(scratch / "t"))
            command = [sys.executable, "-m", "pytest", *TELLS, *limits, *catchers]
        if self._stopped:
            return Ended(None, "")
        running = subprocess.Popen(
            command, cwd=copy, env=_environment(copy), text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._running.add(running)
        try:
            said, _ = running.communicate(timeout=max(1.0, seconds + 5))
        except subprocess.TimeoutExpired:
            _end(running)
            running.communicate()
            return Ended(None, "")
        finally:
            self._running.discard(running)
        return Ended(running.returncode, said)


def _result(mutant: Mutant, fate: Fate, by: str, how: str, seconds: float) -> Result:
    return Result(
        name=mutant.name,
        breaks=mutant.breaks,
        file=mutant.file,
        fate=fate,
        by=by,
        how=how,
        seconds=round(seconds, 1),
    )


def _plant(mutant: Mutant, copy: Path) -> None:
    path = copy / mutant.file
    path.write_text(planted(mutant, path.read_text()))
    # Compiled code is told from its source by size and second: of a bug of the same length it might be the old.
    Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)


def longest(catchers: Sequence[str]) -> list[str]:
    """Of each kind of seeds the longest run: it passes if all of them do."""
    longest: dict[str, int] = {}
    for catcher in filter(is_seeds, catchers):
        kind, _, span = catcher.rpartition(" ")
        first, last = (int(end) for end in span.split(".."))
        start = f"{kind} {first}.."
        longest[start] = max(longest.get(start, 0), last)
    return [f"{start}{last}" for start, last in longest.items()]


@contextlib.contextmanager
def _scratch(home: Path) -> Iterator[Path]:
    scratch = Path(tempfile.mkdtemp(dir=home))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _environment(copy: Path) -> dict[str, str]:
    """The copy before everything that is installed; lines as long as they are."""
    asked = {name: value for name, value in os.environ.items() if not name.startswith(("KVSIM_", "PYTEST_"))}
    return asked | {"PYTHONPATH": str(copy), "COLUMNS": "400", "PYTHONHASHSEED": "0"}


def _end(running: subprocess.Popen[str]) -> None:
    """End a process and what it started: they are a session of their own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(running.pid, signal.SIGKILL)
