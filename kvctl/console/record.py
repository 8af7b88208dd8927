"""Recordings: samples as lines of JSON in a gzip file, written as they come, read by seeking.

Promises: what was written can be read up to the last whole line, however the writing ended (`zcat FILE` does
too); reading one sample costs one block, whatever the length. Never: overwrites a file.

    head line                             {"recording": 1, "by": ..., "at_ms": ...}
    a block (a gzip member), some 60 samples:
        {"kind": "ring", "ring": ...}     first, and again when it changes
        {"kind": "sample", "marks": [fault ids], "sample": ...}
"""

from __future__ import annotations

import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from kvctl.console.sample import Sample
from kvctl.errors import Invalid, Refused
from kvnode import __version__
from kvnode.protocol.ring import Ring

VERSION = 1
BLOCK_SAMPLES = 60
CHUNK_BYTES = 1 << 16
GZIP = 31
"""zlib's `wbits` for a gzip member."""
LINE_BYTES_MAX = 64 << 20


class Head(Struct, kw_only=True):
    """The first line."""

    recording: int
    by: str = ""
    at_ms: int = 0


class Line(Struct, kw_only=True, omit_defaults=True):
    """Any other one."""

    kind: str
    at_ms: int
    marks: tuple[str, ...] = ()
    ring: Ring | None = None
    sample: Sample | None = None


class Glance(Struct):
    """What the index needs of a line; the rest is skipped, not decoded."""

    kind: str
    at_ms: int
    marks: tuple[str, ...] = ()


class Recorder:
    """Writes samples to a new file."""

    def __init__(self, path: Path) -> None:
        """Raises `Refused` where there is a file already, and `OSError`."""
        try:
            self._file = path.open("xb")
        except FileExistsError:
            raise Refused(f"{path} exists, and a recording never overwrites", "name another file") from None
        self._block = zlib.compressobj(wbits=GZIP)
        self._in_block = 0
        self._ring: Ring | None = None
        self._begun = False

    def take(self, sample: Sample, ring: Ring | None) -> None:
        """Write one sample; it is in the file when this returns."""
        if not self._begun:
            self._begun = True
            self._write(Head(recording=VERSION, by=f"kvctl {__version__}", at_ms=sample.at_ms))
        if self._in_block >= BLOCK_SAMPLES:
            self._file.write(self._block.flush())
            self._block, self._in_block = zlib.compressobj(wbits=GZIP), 0
        if ring is not None and (self._in_block == 0 or ring != self._ring):
            self._ring = ring
            self._write(Line(kind="ring", at_ms=sample.at_ms, ring=ring))
        marks = {fault.id for fault in sample.faults} | {
            fault.id for report in sample.reports if report is not None for fault in report.faults
        }
        self._write(Line(kind="sample", at_ms=sample.at_ms, marks=tuple(sorted(marks)), sample=sample))
        self._in_block += 1
        self._file.write(self._block.flush(zlib.Z_SYNC_FLUSH))
        self._file.flush()

    def _write(self, line: Head | Line) -> None:
        self._file.write(self._block.compress(msgspec.json.encode(line) + b"\n"))

    def close(self) -> None:
        """End the last block."""
        if not self._file.closed:
            self._file.write(self._block.flush())
            self._file.close()


class Place(Struct, frozen=True, array_like=True, gc=False):
    """Where a sample is."""

    at_ms: int
    block: int
    line: int
    """Its number in the block."""


class Recording:
    """A file of samples, by number."""

    def __init__(self, path: Path) -> None:
        """Raises `Invalid` for what is no recording, or one of another version, and `OSError`."""
        self.path = path
        self.notice = ""
        """What is wrong with the file, as a sentence; empty when it is whole."""
        self._offsets: list[int] = []
        self._places: list[Place] = []
        self.jumps: list[int] = []
        """The samples in which a fault is seen that was not in the one before."""
        self._cached: tuple[int, list[bytes]] = (-1, [])
        self._scan()

    def __len__(self) -> int:
        return len(self._places)

    def at_ms(self, index: int) -> int:
        """When a sample was made."""
        return self._places[index].at_ms

    def at(self, at_ms: int) -> int:
        """The number of the last sample made by then; the first if there is none."""
        return max(0, bisect_right(self._places, at_ms, key=lambda place: place.at_ms) - 1)

    def jump(self, index: int, step: int) -> int:
        """The sample in which the next fault after this one begins, or the one before; else this one."""
        if step > 0:
            i = bisect_right(self.jumps, index)
            return self.jumps[i] if i < len(self.jumps) else index
        i = bisect_left(self.jumps, index) - 1
        return self.jumps[i] if i >= 0 else index

    def read(self, index: int) -> tuple[Sample, Ring | None]:
        """A sample, and the ring it belongs to."""
        place = self._places[index]
        lines = self._lines(place.block)
        ring = None
        for raw in reversed(lines[: place.line]):
            line = _decode(raw)
            if line is not None and line.ring is not None:
                ring = line.ring
                break
        line = _decode(lines[place.line])
        sample = line.sample if line is not None else None
        return sample or Sample(at_ms=place.at_ms, problem="this sample of the recording cannot be read"), ring

    # ---- inside ----------------------------------------------------------------------------

    def _scan(self) -> None:
        """Find the blocks, and the samples in each."""
        before: frozenset[str] = frozenset()
        for offset, lines in self._blocks():
            if not self._offsets:
                self._check_head(lines)
            self._offsets.append(offset)
            for number, raw in enumerate(lines):
                try:
                    seen = msgspec.json.decode(raw, type=Glance)
                except msgspec.MsgspecError:
                    continue  # the head, or a line of a kind that came later than this program
                if seen.kind == "sample":
                    marks = frozenset(seen.marks)
                    if marks - before:
                        self.jumps.append(len(self._places))
                    before = marks
                    self._places.append(Place(seen.at_ms, len(self._offsets) - 1, number))
        if not self._places:
            raise Invalid(f"{self.path} holds no samples{': ' + self.notice if self.notice else ''}")

    def _check_head(self, lines: list[bytes]) -> None:
        try:
            head = msgspec.json.decode(lines[0] if lines else b"", type=Head)
        except msgspec.MsgspecError:
            raise Invalid(f"{self.path} is no recording of kvctl dashboard --record") from None
        if head.recording != VERSION:
            raise Invalid(f"{self.path} is a recording of version {head.recording}; this kvctl reads {VERSION}")

    def _blocks(self) -> Iterator[tuple[int, list[bytes]]]:
        """(Offset, lines) of every block, up to where the file is cut short or damaged."""
        with self.path.open("rb") as file:
            offset = 0
            while True:
                file.seek(offset)
                lines, size, problem = _inflate(file)
                if not lines and not size:
                    if problem:
                        self.notice = problem
                    return
                yield offset, lines
                if problem:
                    self.notice = problem
                    return
                offset += size

    def _lines(self, block: int) -> list[bytes]:
        if self._cached[0] != block:
            with self.path.open("rb") as file:
                file.seek(self._offsets[block])
                self._cached = (block, _inflate(file)[0])
        return self._cached[1]


def _inflate(file: object) -> tuple[list[bytes], int, str]:
    """One gzip member from here on: its lines, its compressed size, and what is wrong with it."""
    stream = zlib.decompressobj(wbits=GZIP)
    parts: list[bytes] = []
    size, problem = 0, ""
    while not stream.eof:
        chunk = file.read(CHUNK_BYTES)  # type: ignore[attr-defined]
        if not chunk:
            problem = "it is cut short: shown up to there" if size else ""
            break
        try:
            parts.append(stream.decompress(chunk))
        except zlib.error:
            problem = "it is damaged from here on: shown up to there"
            size += len(chunk)
            break
        size += len(chunk)
        if sum(map(len, parts)) > LINE_BYTES_MAX * BLOCK_SAMPLES:
            problem = "a block of it is too large"
            break
    size -= len(stream.unused_data)
    text = b"".join(parts)
    return text[: text.rfind(b"\n") + 1].splitlines(), size, problem


def _decode(raw: bytes) -> Line | None:
    try:
        return msgspec.json.decode(raw, type=Line)
    except msgspec.MsgspecError:
        return None
