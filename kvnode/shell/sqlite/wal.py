"""Tells a WAL file that a crash cut short from one that has rotted.

Promises: damage that would make SQLite drop more than the last transaction is noticed.
Never: repairs, or refuses what a crash can leave behind.

SQLite reads a WAL up to the first frame that fails its checksum, and silently drops the rest: right
for the torn end of a crash, but one flipped bit in the middle drops every acknowledged commit after
it. The two can be told apart. Each commit is synced before the next begins, so a crash leaves at
most one commit beyond the sound part; frames of a WAL's life carry its salt, so later ones are seen.

    header | frame frame COMMIT | frame ✗flip COMMIT | frame COMMIT |     two commits beyond: rotten
             └──── sound ─────┘

What cannot be seen: a flipped bit in the very last commit, and a file cut off at a commit.
"""

from __future__ import annotations

from pathlib import Path
from struct import Struct

from msgspec import Struct as Value

_HEADER = Struct(">8I")
_FRAME = Struct(">4I")
FRAME_HEADER_BYTES = 24
MAGICS = {0x377F0682: "<6I", 0x377F0683: ">6I"}


class WalFrames(Value, frozen=True):
    """What stands in a WAL file, whether or not SQLite would read it."""

    sound: bool
    """Whether the header is one."""
    commits: tuple[int, ...]
    """The numbers, from 1, of the frames of this WAL's life that end a transaction."""

    def rotten(self, read: int) -> bool:
        """Whether damage hides acknowledged commits, when SQLite reads this many frames."""
        return not self.sound or sum(number > read for number in self.commits) > 1


EMPTY = WalFrames(True, ())


def wal_frames(path: Path) -> WalFrames:
    """Look through a WAL file that nobody has open."""
    if not path.exists():
        return EMPTY
    with path.open("rb") as file:
        header = file.read(_HEADER.size)
        if not header:
            return EMPTY
        salts = _salts(header)
        if salts is None:
            return WalFrames(False, ())
        step = FRAME_HEADER_BYTES + _HEADER.unpack(header)[2]
        commits = []
        number = 0
        while len(frame := file.read(_FRAME.size)) == _FRAME.size:
            number += 1
            _, size_after_commit, *its_salts = _FRAME.unpack(frame)
            if tuple(its_salts) == salts and size_after_commit:
                commits.append(number)
            file.seek(_HEADER.size + number * step)
    return WalFrames(True, tuple(commits))


def _salts(header: bytes) -> tuple[int, int] | None:
    """The salts in a sound header."""
    if len(header) < _HEADER.size:
        return None
    magic, _, page_bytes, _, salt_1, salt_2, sum_1, sum_2 = _HEADER.unpack(header)
    if magic not in MAGICS or not 512 <= page_bytes <= 65536:
        return None
    words = Struct(MAGICS[magic]).unpack(header[:24])
    a = b = 0
    for x, y in zip(words[::2], words[1::2], strict=True):
        a = (a + x + b) & 0xFFFFFFFF
        b = (b + y + a) & 0xFFFFFFFF
    return (salt_1, salt_2) if (a, b) == (sum_1, sum_2) else None
