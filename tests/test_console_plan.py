"""The plan screen: what would move is shown before it does, and a commit is of the plan that was shown."""

from __future__ import annotations

from kvctl.console.actions import Preview
from kvctl.console.app import Console
from kvctl.console.screens.plan import Asked, change_of, strip_lines
from kvctl.console.widgets.dialogs import Confirm
from kvctl.shape import Cost, Progress, Transfer
from kvnode.protocol.messages import Change, ChangeKind, Plan
from kvnode.protocol.types import NodeId
from tests.console_pilot import Noted, Still, awaited, screen_text, settled, table
from tests.reports import N1, N2, N3, cluster, report, ring3
from tests.test_console_hostile import Told
from tests.test_console_view import look, seen

N4 = NodeId("n4")
COST = Cost(
    (Transfer(0, N1, N4), Transfer(3, N2, N4)), 2_000_000, 4.0, {N1: 16, N2: 16, N3: 16},
    {N1: 15, N2: 15, N3: 16, N4: 2}, 1.0, 1.0, ("n4 has little room",),
)  # fmt: skip
AT_REST = Progress(0, None, 0.0, None, {}, 0)


def planned(*changes: Change, problem: str = "") -> Asked:
    """A plan as the nodes tell it."""
    return Asked(Plan("abc123", 1, changes, ring3(), 2, (), problem), COST, AT_REST, cluster())


@awaited
async def test_a_plan_is_shown_asked_about_and_committed_by_its_id() -> None:
    """What moves, by node; the commit names the very plan that was on the screen."""
    runner = Noted(Preview("commit abc123"))
    app = Console(
        Still(seen(look(*map(report, (N1, N2, N3))))),
        runner=runner,
        asker=Told(planned(Change(ChangeKind.JOIN, N4))),
    )
    async with app.run_test(size=(120, 36)) as pilot:
        await settled(pilot)
        await pilot.press("0")
        await settled(pilot)
        text = screen_text(app)
        assert "staged: join n4" in text
        assert "2 replicas move (at least 2 must), about 2.0 MB" in text
        assert "! n4 has little room" in text
        assert "kvctl cluster commit abc123" in text
        nodes = table(app, "members")
        assert nodes.cell("n4", 1) == "outside"
        assert [nodes.cell("n4", i) for i in (3, 4)] == ["2", "+2"]
        assert [nodes.cell("n1", i) for i in (2, 3, 5)] == ["16", "15", "-1"]
        await pilot.press("C")
        await settled(pilot)
        assert isinstance(app.screen, Confirm)
        assert runner.lines == []
        await pilot.press("right", "enter")
        await settled(pilot)
        assert runner.lines == ["kvctl cluster commit abc123"]


@awaited
async def test_a_plan_that_cannot_be_committed_is_not() -> None:
    """It says why, and the key does nothing."""
    runner = Noted()
    asked = planned(Change(ChangeKind.LEAVE, N3), problem="too few nodes would be left")
    app = Console(Still(seen(look(*map(report, (N1, N2, N3))))), runner=runner, asker=Told(asked))
    async with app.run_test(size=(120, 36)) as pilot:
        await settled(pilot)
        await pilot.press("0")
        await settled(pilot)
        assert "it cannot be committed: too few nodes would be left" in screen_text(app)
        await pilot.press("C")
        await settled(pilot)
        assert runner.lines == []
        assert "there is nothing to commit" in screen_text(app)


def test_the_strip_shows_the_first_owners_before_and_after() -> None:
    """A mark under each partition of which a replica moves."""
    before, after, moves, _ = strip_lines(ring3(), COST, 80)
    assert before[1] == "A" * 16
    assert after[1] == "D" + "A" * 15, "only partition 0 gets another first owner"
    assert moves[1] == ("^  ^" + " " * 12, "warn")


def test_a_form_that_makes_no_sense_says_what_is_missing() -> None:
    """Before anything is asked of a node."""
    assert "no change" in str(change_of({"change": "fly", "node": "n4", "new": ""}))
    assert "replace names two" in str(change_of({"change": "replace", "node": "n4", "new": ""}))
    assert "replace names two" in str(change_of({"change": "join", "node": "n4", "new": "n5"}))
