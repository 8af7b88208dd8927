"""What is shown of liveness, hints and anti-entropy, and what `check` and `wait` make of it: no node runs."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kvctl.conditions import converged, hints_drained, ring_ready
from kvctl.health import margin, up_of
from kvctl.output import to_json
from kvctl.render_cluster import exit_of, status_view
from kvctl.render_liveness import matrix_view
from kvctl.render_repair import hints_view, repair_view, run_view, walk_lines
from kvctl.rules import REPAIR_FAIL_MS, REPAIR_WARN_MS, findings
from kvnode.protocol.messages import ClusterReport
from tests.reports import (
    N1,
    N2,
    N3,
    THREE,
    WALL,
    cluster,
    exchange,
    hints,
    repair,
    report,
    roots,
    sees,
)


def nodes(told: ClusterReport) -> dict[str, Any]:
    """The nodes of `status -o json`, by id."""
    data = msgspec.json.decode(to_json(status_view(told, {}).data))
    return {node["id"]: node for node in data["nodes"]}


def rule(told: ClusterReport, name: str) -> tuple[str, str]:
    """State and detail of one rule of `check`."""
    return next((f.state, f.detail) for f in findings(told) if f.rule == name)


# ---- status --------------------------------------------------------------------------------


def test_the_state_is_what_the_node_that_was_asked_concludes() -> None:
    """A node that just died is up until the observers agree, and shows as such, without figures."""
    fresh = cluster(report(N1), report(N2))
    assert (nodes(fresh)["n3"]["state"], nodes(fresh)["n3"]["keys"]) == ("up", None)

    concluded = nodes(cluster(report(N1), report(N2), down=(N3,)))
    assert concluded["n3"]["state"] == "down"
    assert concluded["n3"]["suspected_by"] == ["n1", "n2"]
    assert concluded["n3"]["phi"] == 12.0
    assert (concluded["n1"]["state"], concluded["n1"]["phi"]) == ("up", None)


def test_a_suspect_that_answers_counts_as_up_and_one_held_down_does_not() -> None:
    """What the nodes would not use is not counted on."""
    suspect = cluster(report(N1, peers=(sees(N2, "suspect"), sees(N3))), report(N2), report(N3))
    assert nodes(suspect)["n2"]["state"] == "suspect"
    assert up_of(suspect) == {0, 1, 2}
    assert up_of(cluster(*map(report, THREE), down=(N2,))) == {0, 2}
    assert margin(suspect.ring, up_of(cluster(down=(N2,)))) == 0.0


def test_the_table_marks_up_suspect_and_down() -> None:
    """UN, SN, DN, as nodetool does."""
    told = cluster(report(N1, peers=(sees(N2, "suspect"), sees(N3, "down"))), report(N2))
    assert [row[0] for row in status_view(told, {}).table.rows] == ["UN", "SN", "DN"]
    assert all(len(row) == len(status_view(told, {}).table.columns) for row in status_view(told, {}).table.rows)


def test_without_an_opinion_a_node_is_what_it_does() -> None:
    """A node that has no peers to report: who answers is up."""
    told = cluster(report(N1, peers=()), report(N2, peers=()))
    assert [node["state"] for node in nodes(told).values()] == ["up", "up", "down"]


def test_hints_are_summed_by_holder_and_by_owner() -> None:
    """Of a holder that does not answer nothing is known; what is kept for it is."""
    told = cluster(report(N1, hints=(hints(N3, 7), hints(N2, 1))), report(N2, hints=(hints(N3, 5),)), down=(N3,))
    found = nodes(told)
    assert [found[n]["hints_held"] for n in ("n1", "n2", "n3")] == [8, 5, None]
    assert [found[n]["hints_for_it"] for n in ("n1", "n2", "n3")] == [0, 1, 12]


def test_needs_repair_is_summed_over_those_who_know() -> None:
    """Each node knows what it coordinated."""
    assert (
        status_view(cluster(report(N1, needs_repair=2), report(N2, needs_repair=3)), {}).data["needs_repair"] == 5
    )


# ---- the matrix ----------------------------------------------------------------------------


def test_the_matrix_has_a_row_an_observer_and_a_column_a_member() -> None:
    """`-` for itself, `?` for an observer that did not answer, else its own view."""
    view = matrix_view(cluster(report(N1, peers=(sees(N2), sees(N3, "down", 12.34, (N1,)))), report(N2)))

    assert view.table.columns == ("OBSERVER", "n1", "n2", "n3")
    assert view.table.rows == (
        ("n1", "-", "up 0.3", "down 12.3"),
        ("n2", "up 0.3", "-", "up 0.3"),
        ("n3", "?", "?", "-"),
    )
    data = msgspec.json.decode(to_json(view.data))
    assert data["observers"]["n1"]["n3"] == {
        "state": "down", "phi": 12.34, "silent_ms": 120, "suspected_by": ["n1"],
    }  # fmt: skip
    assert data["observers"]["n3"] is None


# ---- hints ---------------------------------------------------------------------------------


def test_hints_show_how_long_they_will_take_at_the_present_rate() -> None:
    """And nothing where nothing moves."""
    told = cluster(report(N1, hints=(hints(N2, 100, 50.0, reachable=True), hints(N3, 7))), report(N2))
    view = hints_view(told)

    assert view.table.rows[0][:8] == ("n1", "n2", "100", "10.0 KB", "9s", "50/s", "2s", "reachable")
    assert view.table.rows[1][:8] == ("n1", "n3", "7", "700 B", "9s", "0/s", "-", "NOT REACHABLE")
    data = msgspec.json.decode(to_json(view.data))
    assert [h["left_s"] for h in data["hints"]] == [2.0, None]
    assert (data["held"], data["count"], data["silent"]) == (107, 2, ["n3"])
    assert "n3 did not answer" in view.table.below[0]


def test_an_owner_without_hints_is_no_row() -> None:
    """A holder that keeps a place for an owner it has served is not listed."""
    assert hints_view(cluster(report(N1, hints=(hints(N2, 0),)))).table.rows == ()


# ---- repair --------------------------------------------------------------------------------


def test_repair_shows_each_node_and_the_exchanges_under_way() -> None:
    """Where in its tree each one is."""
    busy = report(N1, repair=repair(active=(exchange(7, N2),), waiting=12), needs_repair=1, recovering=4)
    view = repair_view(cluster(busy, report(N2, repair=repair(paused=True)), report(N3, repair=None)))

    assert [row[1] for row in view.table.rows] == ["1 active", "paused", "-"]
    assert all(len(row) == len(view.table.columns) for row in view.table.rows)
    assert any("n1 > n2" in line and "leaves" in line for line in view.table.below)
    data = msgspec.json.decode(to_json(view.data))
    assert (data["active"], data["waiting"], data["needs_repair"]) == (1, 12, 1)
    assert data["nodes"][0]["active"][0]["partition"] == 7
    assert data["nodes"][2]["waiting"] is None
    assert not walk_lines(cluster())


def test_repair_run_is_the_contract_s() -> None:
    """Its fields, and one row of them."""
    names = "partitions exchanges nodes_compared keys_compared keys_repaired bytes_sent took_ms failed skipped"
    view = run_view(dict.fromkeys(names.split(), 1000))
    assert set(view.data) == set(names.split())
    assert view.table.rows == (("1000", "1000", "1000", "1000", "1000", "1.0 KB", "1000", "1000", "1.0s"),)


# ---- wait ----------------------------------------------------------------------------------


def test_drained_means_that_everyone_said_so() -> None:
    """A member that did not answer may keep hints; those for strangers do not count."""
    assert hints_drained(cluster()) == ""
    assert "n3 did not answer" in hints_drained(cluster(report(N1), report(N2)))
    assert "10 hints" in hints_drained(cluster(report(N1, hints=(hints(N3),)), report(N2), report(N3)))
    stranger = hints("n9")  # type: ignore[arg-type]
    assert hints_drained(cluster(report(N1, hints=(stranger,)), report(N2), report(N3))) == ""


def test_converged_means_equal_roots_on_owners_that_are_up_and_at_rest() -> None:
    """Each part of the definition, one by one."""
    well = [report(node, roots=roots()) for node in THREE]
    assert ring_ready(cluster(*well)) == ""
    assert converged(cluster(*well)) == ""

    assert "differ" in converged(cluster(*well[:2], report(N3, roots=roots(unlike={5: b"other"}))))
    assert "partition 0" in converged(cluster(*well[:2], report(N3)))
    assert "n2 is down" in converged(cluster(*well, down=(N2,)))
    for busy in (repair(waiting=1), repair(active=(exchange(1, N1),))):
        assert "under way" in converged(cluster(*well[:2], report(N3, roots=roots(), repair=busy)))
    assert "hints" in converged(cluster(*well[:2], report(N3, roots=roots(), hints=(hints(N1),))))
    assert "epoch" in converged(cluster(*well[:2], report(N3, roots=roots(), epoch=2)))


# ---- check ---------------------------------------------------------------------------------


def test_a_healthy_cluster_passes_every_rule() -> None:
    """Also a fresh one, which has compared nothing yet."""
    assert exit_of(findings(cluster())) == 0
    fresh = [report(node, repair=repair(oldest_ms=0, exchanges=0)) for node in THREE]
    assert exit_of(findings(cluster(*fresh))) == 0
    assert exit_of(findings(cluster(*(report(node, repair=None) for node in THREE)))) == 0


def test_hints_are_a_warning_and_say_whether_they_can_be_delivered() -> None:
    """A copy is missing while they are kept."""
    moving = cluster(report(N1, hints=(hints(N2, reachable=True),)), report(N2), report(N3))
    assert rule(moving, "hints") == (
        "WARN",
        "10 hints are kept (1.0 KB, the oldest for 9s); they are being delivered",
    )
    stuck = cluster(report(N1, hints=(hints(N3),)), report(N2), down=(N3,))
    assert "n3 cannot be reached" in rule(stuck, "hints")[1]


def test_suspects_downs_and_the_silent_are_named() -> None:
    """With whose conclusion it is."""
    assert rule(cluster(report(N1, peers=(sees(N2, "suspect"), sees(N3, "down"))), report(N2)), "members") == (
        "WARN", "n3 down; n2 suspect (as n1 concludes)",
    )  # fmt: skip
    assert "n3 did not answer" in rule(cluster(report(N1), report(N2)), "members")[1]


@pytest.mark.parametrize(
    ("age_ms", "state"),
    [(4000, "OK"), (REPAIR_WARN_MS, "WARN"), (REPAIR_FAIL_MS - 1, "WARN"), (REPAIR_FAIL_MS, "FAIL")],
)
def test_the_oldest_comparison_decides_the_repair_age(age_ms: int, state: str) -> None:
    """Past the grace of tombstones it is critical."""
    old = report(N2, repair=repair(oldest_ms=WALL - age_ms))
    assert rule(cluster(report(N1), old, report(N3)), "repair age")[0] == state


def test_a_node_that_never_compared_is_judged_by_its_uptime_and_a_pause_is_told() -> None:
    """Nothing that has stopped looks fine."""
    never = report(N2, repair=repair(oldest_ms=0), uptime_ms=REPAIR_WARN_MS)
    assert rule(cluster(report(N1), never, report(N3)), "repair age")[0] == "WARN"
    changed = report(N2, repair=repair(oldest_ms=0, since_ms=WALL - 5000), uptime_ms=REPAIR_FAIL_MS)
    assert rule(cluster(report(N1), changed, report(N3)), "repair age") == (
        "OK", "n2 has had 5s since its owners changed and has not compared all",
    )  # fmt: skip
    paused = report(N2, repair=repair(paused=True))
    assert rule(cluster(report(N1), paused, report(N3)), "repair age") == ("WARN", "at most 4s (n3); paused on n2")


def test_missed_writes_and_recovering_nodes_are_warnings() -> None:
    """Until the next exchange has mended them."""
    told = cluster(report(N1, needs_repair=4), report(N2, recovering=7), report(N3))
    assert rule(told, "needs repair")[0] == "WARN"
    assert rule(told, "recovering") == ("WARN", "not counted for quorum reads yet: n2 in 7 partitions")
    assert exit_of(findings(told)) == 10


def test_who_casts_no_ballots_is_a_warning_with_the_way_out_and_what_was_given_up_is_told_ever_after() -> None:
    """All copies may count, and yet mode `strong` and scans have no majority."""
    told = cluster(report(N1, voteless=7), report(N2), report(N3))
    state, detail = rule(told, "votes")
    assert state == "WARN" and "n1 in 7 partitions" in detail and "kvctl repair waive" in detail
    assert rule(cluster(report(N1), report(N2), report(N3)), "votes") == ("OK", "every owner casts ballots")
    state, detail = rule(cluster(report(N1), report(N2, waived=3), report(N3)), "votes")
    assert state == "OK" and detail.endswith("given up: n2 in 3 partitions")
