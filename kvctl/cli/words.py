"""Words of the command line: formats, times, counts. Each is judged here, once.

Promises: what is not a word of ours is a usage error that names those that are.
Never: guesses a unit.
"""

from __future__ import annotations

import re

from kvctl.errors import Invalid, KvError
from kvctl.output import FORMATS
from kvnode.config import HINTS_PER_S_CEILING

_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
SECONDS_MAX = 100 * 365 * 86400
_TIME = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|)")


class Usage(KvError):
    """The command line itself is wrong."""

    exit = 2


def form(text: str) -> str:
    """An output format. Raises `Usage`."""
    if text not in FORMATS:
        raise Usage(f"-o must be one of {', '.join(FORMATS)}; not {text!r}")
    return text


def seconds(text: str) -> float:
    """`250ms`, `30s`, `5m`, `3h`, `1d` or plain seconds. Raises `Usage`."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise Usage(f"{text!r} is no time: write 250ms, 30s, 5m, 3h, 1d or plain seconds")
    found = float(match[1]) * _UNITS[match[2]]
    if found > SECONDS_MAX:
        raise Usage(f"{text!r} is more than a hundred years")
    return found


def some_seconds(text: str | None) -> float | None:
    """A time that may be left out. Raises `Usage`."""
    return None if text is None else seconds(text)


def signed_seconds(text: str) -> float:
    """A time that may be back: `5s`, `+5s`, `-5s`. Raises `Usage`."""
    return -seconds(text[1:]) if text.startswith("-") else seconds(text.removeprefix("+"))


def share(text: str) -> float:
    """`30%` or `0.3`. Raises `Usage`; whether it is a share at all is for others to say."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)(%?)", text)
    if match is None:
        raise Usage(f"{text!r} is no share: write 30% or 0.3")
    return float(match[1]) / (100 if match[2] else 1)


def count(text: str | None, letter: str) -> str | None:
    """`-r` or `-w`: a word or a number. Raises `Usage` for neither, `Invalid` for a number below 1."""
    if text is None or text in ("one", "quorum", "all"):
        return text
    if not re.fullmatch(r"-?\d{1,9}", text):
        raise Usage(f"-{letter} must be a number or one, quorum, all; not {text!r}")
    if int(text) < 1:
        raise Invalid(f"{letter} must be at least 1, not {text}")
    return text


def byte_count(text: str) -> int:
    """`20MB`, `500KB`, `1GB` or plain bytes. Raises `Usage`."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,6})?) ?([kKMGT]?)B?", text)
    if match is None:
        raise Usage(f"{text!r} is no size: write 20MB, 500KB, 1GB or plain bytes")
    return round(float(match[1]) * _BYTES[match[2].upper()])


def byte_rate(text: str) -> int:
    """`10MB/s`, `10MB`, or `none` (0) for no bound. Raises `Usage`."""
    return 0 if text == "none" else byte_count(text.removesuffix("/s"))


def per_second(text: str) -> int:
    """`500` or `500/s`. Raises `Usage` for neither, `Invalid` for a rate no node takes."""
    match = re.fullmatch(r"(\d{1,9})(?:/s)?", text)
    if match is None:
        raise Usage(f"{text!r} is no rate: write 500 or 500/s")
    if not 1 <= int(match[1]) <= HINTS_PER_S_CEILING:
        raise Invalid(f"a rate is 1..{HINTS_PER_S_CEILING} a second, not {match[1]}")
    return int(match[1])
