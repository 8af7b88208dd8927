"""Recordings: written as they come, read by number, however the writing ended."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import msgspec
import pytest

from kvctl.console.record import BLOCK_SAMPLES, GZIP, Recorder, Recording
from kvctl.console.replay import Replay
from kvctl.console.sample import Sample
from kvctl.console.view import ClusterView, advance
from kvctl.errors import Invalid, Refused
from kvctl.render_faults import ACTIVE, Listed
from tests.reports import N1, N2, N3, WALL, report, ring3

RING = ring3()
SAMPLES = 3 * BLOCK_SAMPLES + 7


def made(i: int) -> Sample:
    """The i-th second of a story in which a fault is there from 50 on, and another from 100 to 130."""
    faults = [("f1", i >= 50), ("f2", 100 <= i < 130)]
    listed = tuple(
        Listed(id=name, target="n3", kind="kill", since=WALL, expires=None, state=ACTIVE, nodes=("n3",))
        for name, there in faults
        if there
    )
    reports = tuple(report(n, uptime_ms=1000 * i, counters={"gets": 7 * i}, took=(i * 5,)) for n in (N1, N2, N3))
    return Sample(at_ms=WALL + 1000 * i, asked=N1, reports=reports, faults=listed)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A recording of some three blocks."""
    path = tmp_path / "story.kvrec"
    recorder = Recorder(path)
    for i in range(SAMPLES):
        recorder.take(made(i), RING)
    recorder.close()
    return path


def test_what_was_written_is_read(written: Path) -> None:
    """Every sample, by its number, in any order, with the ring it belongs to."""
    recording = Recording(written)
    assert len(recording) == SAMPLES
    assert recording.notice == ""
    for i in (0, 3, SAMPLES - 1, BLOCK_SAMPLES, BLOCK_SAMPLES - 1, 77):
        assert recording.read(i) == (made(i), RING)


def test_it_is_lines_of_json_for_everyone(written: Path) -> None:
    """`zcat FILE | jq` works, and the first line says what it is."""
    lines = [json.loads(line) for line in gzip.decompress(written.read_bytes()).splitlines()]
    assert lines[0]["recording"] == 1
    assert [line["kind"] for line in lines[1:4]] == ["ring", "sample", "sample"]
    assert sum(line.get("kind") == "sample" for line in lines) == SAMPLES


def test_it_jumps_from_fault_to_fault(written: Path) -> None:
    """To where each begins; beyond the last it stays."""
    recording = Recording(written)
    assert recording.jumps == [50, 100]
    assert [recording.jump(i, 1) for i in (0, 50, 100, 150)] == [50, 100, 100, 150]
    assert [recording.jump(i, -1) for i in (150, 100, 50, 0)] == [100, 50, 50, 0]


def test_it_seeks_by_time(written: Path) -> None:
    """The last sample made by then."""
    recording = Recording(written)
    assert recording.at(WALL + 77_500) == 77
    assert recording.at(0) == 0


@pytest.mark.parametrize("lost", [1, 300, 1500])
def test_a_file_cut_short_is_read_up_to_the_cut(written: Path, lost: int) -> None:
    """With a notice; what is there is right."""
    whole = written.read_bytes()
    written.write_bytes(whole[:-lost])
    recording = Recording(written)
    assert "cut short" in recording.notice
    assert 0 < len(recording) <= SAMPLES
    last = len(recording) - 1
    assert recording.read(last) == (made(last), RING)


def test_what_is_being_written_can_be_read_at_any_time(tmp_path: Path) -> None:
    """Each sample is in the file when `take` returns: a console that dies loses none."""
    recorder = Recorder(tmp_path / "r")
    for i in range(BLOCK_SAMPLES + 5):
        recorder.take(made(i), RING)
        if i in (0, 3, BLOCK_SAMPLES - 1, BLOCK_SAMPLES, BLOCK_SAMPLES + 4):
            recording = Recording(tmp_path / "r")
            assert len(recording) == i + 1
            assert recording.read(i)[0] == made(i)
    recorder.close()


def test_a_damaged_block_ends_it_with_a_notice(written: Path) -> None:
    """What comes before is shown."""
    raw = bytearray(written.read_bytes())
    middle = len(raw) // 2
    raw[middle : middle + 200] = b"\x00" * 200
    written.write_bytes(raw)
    recording = Recording(written)
    assert recording.notice
    assert 0 < len(recording) < SAMPLES
    assert recording.read(5)[0] == made(5)


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    """Text, an empty file, a recording of a later version: a sentence each."""
    path = tmp_path / "f"
    for content in (b"", b"hello\n", gzip.compress(b"hello\n")):
        path.write_bytes(content)
        with pytest.raises(Invalid):
            Recording(path)
    path.write_bytes(gzip.compress(b'{"recording":2,"by":"kvctl 9","at_ms":1}\n'))
    with pytest.raises(Invalid, match=r"version 2; this kvctl reads 1"):
        Recording(path)


def test_a_recording_never_overwrites(tmp_path: Path) -> None:
    """Refused where there is a file."""
    (tmp_path / "f").write_text("precious")
    with pytest.raises(Refused):
        Recorder(tmp_path / "f")
    assert (tmp_path / "f").read_text() == "precious"


def test_a_line_from_the_future_is_passed_over(tmp_path: Path) -> None:
    """Kinds of lines that came later do not keep the rest from being read."""
    text = [b'{"recording":1}', b'{"kind":"weather","at_ms":5,"rain":true}']
    for kind, value in (("ring", RING), ("sample", made(0))):
        text.append(msgspec.json.encode({"kind": kind, "at_ms": WALL, kind: value}))
    (tmp_path / "f").write_bytes(gzip.compress(b"\n".join(text) + b"\n"))
    assert Recording(tmp_path / "f").read(0) == (made(0), RING)
    assert GZIP == 31


def folded(count: int) -> ClusterView:
    """The view after so many samples, from the first on."""
    view = ClusterView()
    for i in range(count):
        view = advance(view, made(i), RING)
    return view


def test_a_view_is_the_same_whichever_way_it_was_reached(written: Path) -> None:
    """By playing, by seeking there, by coming back."""
    played = Replay(Recording(written), playing=False)
    for i in range(71):
        view = played.view_at(i)
    sought = Replay(Recording(written), playing=False)
    sought.view_at(150)
    assert sought.view_at(70) == view == folded(71)


class Held:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_it_plays_at_its_pace_and_stops_when_told(written: Path) -> None:
    """A second a sample at speed 1; ten a second at 10; none while it is paused, or the clock stands."""
    clock = Held()
    replay = Replay(Recording(written), clock)

    def turn() -> int | None:
        wanted, _ = replay._next()
        if wanted is not None:
            replay._wanted = None
            replay.view_at(wanted)
            replay._schedule()
        return wanted

    assert turn() == 0
    assert turn() is None
    clock.now += 1.0
    assert turn() == 1
    assert turn() is None
    for _ in range(3):
        replay.faster(1)
    assert replay.position.speed == 10
    assert turn() == 2
    clock.now += 0.11
    assert turn() == 3
    replay.toggle()
    clock.now += 60
    assert turn() is None
    replay.step(2)
    assert turn() == 5
    replay.jump(1)
    assert turn() == 50
    replay.seek_s(-10)
    assert turn() == 40
    replay.seek(10**9)
    assert turn() == SAMPLES - 1
    assert replay.position.playing is False
