"""The sampler on real nodes: from any one that answers, in bounded time, whatever the others do."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from kvctl.console.sample import GONE, RUNS, Sample
from kvctl.console.sampler import Looker, Sampler
from kvctl.console.troubles import verdict_of
from kvctl.console.view import ClusterView, advance
from kvctl.local import load
from kvnode.protocol.ring import Ring
from tests.conftest import Kvctl, eventually
from tests.procs import free_ports

LOOK_S_MAX = 3.0


def view_of(looker: Looker) -> ClusterView:
    """The view of one look."""
    begun = time.monotonic()
    sample, ring = looker.look()
    assert time.monotonic() - begun < LOOK_S_MAX
    return advance(ClusterView(), sample, ring)


@pytest.fixture
def local(three: Kvctl, monkeypatch: pytest.MonkeyPatch) -> Kvctl:
    """A running cluster of three, found by this process too."""
    monkeypatch.setenv("KVCTL_HOME", str(three.home))
    three("fault", "heal", "--all")
    return three


def test_one_look_tells_all_of_a_cluster(local: Kvctl) -> None:
    """Every node, its process, the ring, and what happened; from one address."""
    cluster = load("local")
    looker = Looker(cluster.addresses[:1], cluster)
    view = view_of(looker)
    assert verdict_of(view).word == "READ-WRITE"
    assert [row.id for row in view.rows] == ["n1", "n2", "n3"]
    assert all(row.fresh and row.process is not None and row.process.state == RUNS for row in view.rows)
    assert {event.node for event in view.events} <= {"n1", "n2", "n3"}
    sample, _ = looker.look()
    again = {(event.node, event.number) for event in sample.events}
    assert not again & {(event.node, event.number) for event in view.events}, "an event is told once"
    looker.close()


def test_it_goes_on_when_the_node_it_is_connected_to_dies(local: Kvctl) -> None:
    """Members are learnt from the ring: any of them will do."""
    cluster = load("local")
    looker = Looker(cluster.addresses[:1], cluster)
    assert view_of(looker).sample.asked == "n1"
    assert local("fault", "kill", "n1", "--yes").code == 0
    assert eventually(lambda: looker.look()[0].asked in ("n2", "n3"))
    view = view_of(looker)
    row = view.row("n1")
    assert row is not None
    assert not row.fresh
    assert row.process is not None
    assert row.process.state == GONE
    assert [fault.kind for fault in view.faults] == ["kill"]
    looker.close()


def test_no_look_is_lost_when_the_node_it_asks_stands_still(local: Kvctl) -> None:
    """It is paused in the midst of it: others are asked in the same look, and first from then on."""
    cluster = load("local")
    looker = Looker(cluster.addresses[:1], cluster)
    assert view_of(looker).sample.asked == "n1"
    victim = cluster.process("n1")
    assert victim is not None
    os.kill(victim.pid, signal.SIGSTOP)
    try:
        view = view_of(looker)
        assert view.sample.asked in ("n2", "n3")
        assert not view.sample.problem
        assert [row.fresh for row in view.rows] == [False, True, True]
        assert view_of(looker).sample.asked in ("n2", "n3")
        assert looker._addresses[-1] == cluster.addresses[0], "n1 is asked last from now on"
    finally:
        os.kill(victim.pid, signal.SIGCONT)
    assert eventually(lambda: all(report is not None for report in looker.look()[0].reports))
    looker.close()


def test_those_cut_off_from_the_node_asked_are_asked_directly(local: Kvctl) -> None:
    """A partition hides no node that we can reach ourselves: both sides are shown, each with its view."""
    cluster = load("local")
    looker = Looker(cluster.addresses[:1], cluster)
    assert local("fault", "partition", "n1", "n2,n3", "--for", "20s", "--yes").code == 0
    assert eventually(lambda: set(looker.look()[0].direct) == {"n2", "n3"})

    def split() -> bool:
        view = view_of(looker)
        return all(row.fresh for row in view.rows) and verdict_of(view).word == "SPLIT"

    assert eventually(split)
    looker.close()


@contextmanager
def rude(answer: bytes) -> Iterator[str]:
    """A listener that is no node: it says this to all who come, and nothing more. Its address."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    each, _ = server.accept()
                except OSError:
                    return
                held.append(each)
                each.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        for each in held:
            each.close()


@pytest.mark.parametrize("answer", [b"", b"\xff" * 200], ids=["nothing", "noise"])
def test_who_answers_nonsense_or_nothing_costs_bounded_time(answer: bytes) -> None:
    """The look ends, and says why there is nothing to see."""
    with rude(answer) as address:
        view = view_of(looker := Looker([address]))
        looker.close()
    assert verdict_of(view).word == "CANNOT SEE"
    assert address in verdict_of(view).text


def test_without_any_node_it_goes_on_looking_and_finds_them_when_they_come(kvctl: Kvctl) -> None:
    """Every node down is a thing to show, not the end."""
    (port,) = free_ports(1)
    looker = Looker([f"127.0.0.1:{port}"])
    got: list[tuple[Sample, Ring | None]] = []
    sampler = Sampler(looker, 0.1)
    sampler.start(lambda sample, ring: got.append((sample, ring)))
    try:
        assert eventually(lambda: bool(got))
        assert got[0][0].problem
        assert kvctl("up", "--nodes", "1", "-n", "1", "--base-port", str(port)).code == 0
        assert eventually(lambda: got[-1][0].asked == "n1")
    finally:
        sampler.stop()
