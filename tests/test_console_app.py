"""The console as its user meets it: keys, screens, commands, and that nothing happens unasked."""

from __future__ import annotations

import subprocess
import sys

from tests.console_pilot import KILLED, awaited, opened, screen_text


@awaited
async def test_the_first_screen_answers_the_first_question() -> None:
    """Can I read and write now, what is broken, and when does it heal?"""
    async with opened(KILLED) as (app, _):
        text = screen_text(app)
        assert "READ-WRITE" in text
        assert "n3 is down" in text
        assert "until healed" in text
        assert "0.4s old" in text


def test_the_command_line_does_without_textual() -> None:
    """`kvctl get` stays quick: neither it nor the command tree imports the console."""
    code = (
        "import sys, kvctl.cli; kvctl.cli.build(set(kvctl.cli.HOMES.values()));"
        "sys.exit(any(name.split('.')[0] == 'textual' or name == 'kvctl.console' for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
