"""`repair run` seen from outside: when it is done, and what it cost. No node runs."""

from __future__ import annotations

from kvctl.errors import Indeterminate, KvError, Refused, Unavailable
from kvctl.orders import obeyed, obeyed_view
from kvctl.repair import Run
from kvnode.protocol.messages import Done
from tests.reports import N1, N2, N3, THREE, cluster, exchange, repair, report


def test_it_is_done_when_what_waited_was_begun_and_what_was_active_then_has_ended() -> None:
    """The example: two exchanges wait, then one is active, then none."""
    run = Run(cluster(), {N1: 2})
    assert run.open == [N1]

    run.see(cluster(report(N1, repair=repair(waiting=2)), report(N2), report(N3)))
    assert run.open == [N1]
    run.see(cluster(report(N1, repair=repair(active=(exchange(1, N2),), exchanges=101)), report(N2), report(N3)))
    assert run.open == [N1]
    last = repair(exchanges=102, nodes_compared=150, keys_compared=7, keys_repaired=3, bytes_sent=6000)
    run.see(cluster(report(N1, repair=last), report(N2), report(N3)))

    assert (run.open, run.lost) == ([], set())
    assert run.totals(16, 9) == {
        "partitions": 16, "exchanges": 2, "nodes_compared": 50, "keys_compared": 7, "keys_repaired": 3,
        "bytes_sent": 1000, "failed": 0, "skipped": 0, "took_ms": 9,
    }  # fmt: skip


def test_exchanges_that_a_node_begins_of_itself_are_not_waited_for() -> None:
    """There is always one: nodes compare partitions round the clock."""
    run = Run(cluster(), {N1: 1})
    for partition in range(3):
        if partition < 2:
            assert run.open == ([N1])
        run.see(cluster(report(N1, repair=repair(active=(exchange(partition, N2),))), report(N2), report(N3)))
    assert run.open == []


def test_a_node_that_restarts_or_goes_down_is_lost_and_one_that_is_slow_is_waited_for() -> None:
    """What it had still to do is not done, and nobody pretends it was."""
    run = Run(cluster(), dict.fromkeys(THREE, 1))
    busy = repair(waiting=3)

    run.see(cluster(report(N1, repair=busy), report(N2, boot=2)))
    assert (run.open, run.lost) == ([N1, N3], {N2})
    run.see(cluster(report(N1, repair=busy), report(N2, boot=2), down=(N3,)))
    assert (run.open, run.lost) == ([N1], {N2, N3})


def test_a_node_that_did_not_report_before_cannot_be_counted() -> None:
    """Its counters have no beginning."""
    run = Run(cluster(report(N1)), {N1: 1, N2: 1})
    assert (run.open, run.lost) == ([N1], {N2})
    assert run.progress()[0] == "0 exchanges done, 0 active, 0 waiting, 0 failed"


def test_what_a_node_did_not_begin_is_told() -> None:
    """An owner that is not reached just then is left out: that is no full repair."""
    run = Run(cluster(), {N1: 5})
    run.see(cluster(report(N1, repair=repair(exchanges=103, failed=1)), report(N2), report(N3)))
    assert run.open == []
    assert run.totals(1, 1)["skipped"] == 1


def test_nothing_ordered_is_done_at_once() -> None:
    """Where no node took the order."""
    assert Run(cluster(), {}).open == []


def test_an_order_names_the_members_that_did_not_take_it() -> None:
    """The class of the error is the one that leaves most open."""
    result = obeyed({N1: Done(1, 5), N2: Unavailable("no way"), N3: Done(2, 0)})
    assert result.total == 5
    problem = result.problem("the drop", "kvctl hints ls")
    assert isinstance(problem, Unavailable)
    assert "n2: no way" in problem.message

    unknown = obeyed({N1: Unavailable("no way"), N2: Indeterminate("silent")}).problem("it", "")
    assert isinstance(unknown, Indeterminate)
    assert unknown.applied == "maybe"
    assert isinstance(obeyed({N1: Refused("not now")}).problem("it", ""), Refused)
    assert obeyed({N1: Done(1, 5)}).problem("it", "") is None


def test_an_order_is_shown_a_row_a_member() -> None:
    """With what each counted."""
    view = obeyed_view("hints.drop", obeyed({N1: Done(1, 5), N2: KvError("no")}), "hints", owner="n3")
    assert view.table.rows == (("n1", "done", "5"), ("n2", "NOT DONE", "-"))
    assert (view.data["hints"], view.data["owner"]) == (5, "n3")
