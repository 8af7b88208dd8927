"""The console in a real terminal (tmux), on real nodes: break one from it, watch it, heal it from it.

Everything is read off the screen, as a person would.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvctl import Client, KvError
from tests.conftest import Kvctl, eventually

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
PAINT_S = 60.0


class Terminal:
    """A tmux session of its own server, with one program in it."""

    def __init__(self, socket: Path, command: list[str], env: dict[str, str], size: tuple[int, int]) -> None:
        self._tmux = ["tmux", "-S", str(socket), "-f", "/dev/null"]
        wanted = {k: v for k, v in env.items() if k in ("PATH", "HOME", "KVCTL_HOME", "LANG", "NO_COLOR")}
        words = ["env", *(f"{k}={v}" for k, v in wanted.items()), "LC_ALL=C.UTF-8", *command]
        line = f"{shlex.join(words)}; echo ended with $?; sleep 60"
        self._run("new-session", "-d", "-x", str(size[0]), "-y", str(size[1]), line)

    def _run(self, *args: str) -> str:
        done = subprocess.run([*self._tmux, *args], capture_output=True, text=True, timeout=20, check=True)
        return done.stdout

    def screen(self) -> str:
        """What is on it."""
        return self._run("capture-pane", "-p")

    def press(self, *keys: str) -> None:
        """Keys, one after another."""
        for key in keys:
            self._run("send-keys", key)

    def wait(self, pattern: str, seconds: float = PAINT_S) -> str:
        """Until this is on the screen. The screen then."""
        seen = ""

        def there() -> bool:
            nonlocal seen
            seen = self.screen()
            return re.search(pattern, seen) is not None

        assert eventually(there, seconds), f"no {pattern!r} on:\n{seen}"
        return seen

    def close(self) -> None:
        """End the server, and all that runs in it."""
        subprocess.run([*self._tmux, "kill-server"], capture_output=True, timeout=20, check=False)


@pytest.fixture
def loaded(kvctl: Kvctl, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kvctl]:
    """Five nodes under some load."""
    monkeypatch.setenv("KVCTL_HOME", str(kvctl.home))
    kvctl.up(5)
    end = threading.Event()

    def write() -> None:
        number = 0
        with Client() as client:
            while not end.wait(0.03):
                number += 1
                try:
                    client.put_many({f"key:{(number * 7 + i) % 400}": b"%d" % number for i in range(8)})
                except KvError:
                    pass  # the checker of other tests judges writes; this one needs hints

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield kvctl
    finally:
        end.set()
        thread.join()


@pytest.mark.timeout(300)
def test_a_story_is_told_while_the_console_shows_it(kvctl: Kvctl, tmp_path: Path) -> None:
    """What it says is on the screen; what it proved is printed at the end, and its exit code is ours."""
    command = [sys.executable, "-m", "kvctl", "demo", "quorum", "--dashboard"]
    terminal = Terminal(tmp_path / "tmux", command, kvctl.env, (120, 36))
    try:
        terminal.wait("story .*demo", 40)
        terminal.wait("READ-ONLY")
        terminal.press("q")
        terminal.wait(r"(\d+) of \1 claims held[^$]*ended with 0", 60)
    finally:
        terminal.close()


def hints(screen: str) -> int:
    """The figure on the second line."""
    found = re.search(r"hints ([\d,]+)", screen)
    return int(found[1].replace(",", "")) if found else -1


@pytest.mark.timeout(300)
def test_a_node_is_killed_watched_and_healed_from_the_console(loaded: Kvctl, tmp_path: Path) -> None:
    """Kill by the form on the faults screen; DOWN; hints rise; heal; hints fall; all on the screen; then quit."""
    recording = tmp_path / "seen.kvrec"
    command = [sys.executable, "-m", "kvctl", "dashboard", "--record", str(recording)]
    terminal = Terminal(tmp_path / "tmux", command, loaded.env, (120, 36))
    try:
        terminal.wait("5 up .*READ-WRITE")
        terminal.press("6")
        terminal.wait("Faults in force")
        terminal.press("n")
        terminal.wait("Break something")
        terminal.press("Tab", "n3", "Tab", "Tab")
        terminal.wait(r"target: +n3")
        terminal.press("Enter")
        terminal.wait(r"n3 is killed \(SIGKILL\)")
        terminal.press("Right", "Enter")
        terminal.wait(r"f1 +kill +n3")
        terminal.press("1")
        terminal.wait(r"DN +n3")
        terminal.wait("n3 is down")
        some = hints(terminal.wait(r"hints [1-9]"))
        terminal.wait("hints for n3")
        assert eventually(lambda: hints(terminal.screen()) > some, 30), "hints rise"
        terminal.press("H")
        terminal.wait(r"UN +n3", 30)
        terminal.wait(r"5 up .*READ-WRITE")
        terminal.wait(r"hints 0 .*no faults", 40)
        terminal.press("q")
        terminal.wait("ended with 0")
    finally:
        terminal.close()
    replay = [sys.executable, "-m", "kvctl", "dashboard", "--replay", str(recording)]
    terminal = Terminal(tmp_path / "tmux2", replay, loaded.env, (80, 24))
    try:
        terminal.wait("REPLAY 1/")
        terminal.press("]")
        terminal.press("space")
        terminal.wait("f1 kill n3|n3 is")
        terminal.press("q")
        terminal.wait("ended with 0")
    finally:
        terminal.close()
