"""Verdicts: what became of a run, as JSON and as text.

Promises: the fields of CONTRACT, for a simulated and a real cluster alike; a failing one names its command.
Never: says pass where something could not be judged.
"""

from __future__ import annotations

from msgspec import Struct

from kvctl.output import Json, escape, key_fields
from kvnode.sim.campaign import Report
from kvnode.sim.check import DIVERGED, LOST, RESURRECTED, Judgement, Violation

TOLD_MAX = 10


class Verdict(Struct, frozen=True, kw_only=True):
    """A report, with where it came from."""

    scenario: str
    report: Report
    nodes: int
    keys: int
    took_s: float
    replay: str
    """The one command that runs it again."""
    unmet: tuple[str, ...] = ()
    """Expectations of the scenario that did not come true."""
    on: str = "sim"
    left_in: str = ""
    """Where data and logs of a failing run on a cluster of its own are."""

    @property
    def seed(self) -> int:
        """Of the run."""
        return self.report.seed

    @property
    def judgement(self) -> Judgement:
        """What the checker said."""
        return self.report.judgement

    @property
    def passed(self) -> bool:
        """Whether every promise and expectation was kept."""
        return self.report.passed and not self.unmet

    @property
    def word(self) -> str:
        """`pass` or `fail`."""
        return "pass" if self.passed else "fail"

    def as_json(self) -> dict[str, Json]:
        """As CONTRACT has it; `acked`, `survivors` and `lost` count writes."""
        judged, report = self.judgement, self.report
        claims = LOST | RESURRECTED | DIVERGED
        return {
            "scenario": self.scenario, "on": self.on, "seed": self.seed,
            "verdict": self.word, "took_s": round(self.took_s, 3),
            "ops": judged.operations, "acked": judged.acknowledged, "indeterminate": judged.indeterminate,
            "failed": judged.failed, "survivors": judged.acknowledged - judged.lost,
            "lost": self._told(LOST), "resurrected": self._told(RESURRECTED), "diverged": self._told(DIVERGED),
            "other": [_told(v) for v in judged.violations if v.claim not in claims],
            "unjudged": judged.unjudged[:TOLD_MAX], "unmet": list(self.unmet),
            "stale_reads": judged.stale_reads, "max_siblings": judged.max_siblings,
            "linearizable": judged.linearizable, "trace_hash": report.trace_hash,
            "sim_s": None if report.sim_ms is None else report.sim_ms / 1000, "events": report.events,
            "sides": [{"nodes": list(s.nodes), "puts": s.puts, "acked": s.acked} for s in report.sides],
            "faults": report.faults, "changes": report.changes, "nodes": self.nodes, "keys": self.keys,
            "outcomes": report.outcomes, "replay": None if self.passed else self.replay,
        }  # fmt: skip

    def _told(self, claims: set[str]) -> list[Json]:
        return [_told(v) for v in self.judgement.violations if v.claim in claims]

    def explain(self) -> str:
        """What is wrong, for people, and how to see it again."""
        judged = self.judgement
        lines = [f"{self.scenario}, seed {self.seed}: {len(judged.violations)} violations"]
        lines += [f"  {v.claim} of {v.key!r}: {v.text}" for v in judged.violations[:TOLD_MAX]]
        lines += [f"  not judged: {why}" for why in judged.unjudged[:TOLD_MAX]]
        lines += [f"  expected: {what}" for what in self.unmet]
        lines += [f"  data and logs are in {self.left_in}"] if self.left_in else []
        return "\n".join([*map(escape, lines), f"  again: {self.replay}"])


def _told(violation: Violation) -> Json:
    return {**key_fields(violation.key), "claim": violation.claim, "text": violation.text}
