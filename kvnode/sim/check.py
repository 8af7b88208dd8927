"""The checker: given what clients were told and what the disks hold in the end, was every promise kept?

Promises: a pure function of its arguments, of a simulated or a real cluster; each violation names a
claim, a key, and the versions it is about; time near linear in the operations; what could not be judged
is said, and is no pass. Never: merges with the code it judges.

    claims      one_dot_one_value   no_invention    past_is_given     no_lost_write
                told_is_durable     deletes_stay    siblings_are_concurrent
    visibility  quorum_reads_see    read_your_writes    monotonic_reads    deletes_are_seen
    here        merge_is_read       a read of all owners, once all is quiet, shows just the merge of their disks
                replicas_agree      once all is mended and hints and exchanges have run, all owners hold the same

`deletes_stay`, `merge_is_read` and `replicas_agree` speak of the end, and need `last_reads`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from msgspec import Struct

from kvnode.protocol.types import Record
from kvnode.sim import claims, visibility
from kvnode.sim.history import Op, Outcome, dot_of
from kvnode.sim.story import KeyStory, Replicas, merged

TEXTS_MAX = 20
"""Violations told of one claim and key: a broken store breaks it everywhere, and telling all is quadratic."""
LOST, RESURRECTED, DIVERGED = {"no_lost_write"}, {"deletes_stay", "deletes_are_seen"}, {"replicas_agree"}


class Violation(NamedTuple):
    """A promise that was not kept."""

    claim: str
    key: bytes
    text: str


class Judgement(Struct, frozen=True, kw_only=True):
    """What a checker has to say of a history."""

    violations: list[Violation]
    unjudged: list[str]
    """What could not be judged, and why: not a pass."""
    operations: int
    acknowledged: int
    """Writes that clients were told are done."""
    indeterminate: int
    """Writes whose clients were told nothing, or that nobody can say."""
    failed: int
    """Writes that were refused, and never done; reads without an answer."""
    lost: int
    """Acknowledged writes that are gone without right."""
    stale_reads: int
    max_siblings: int
    linearizable: bool | None = None
    """Of mode `strong`; None where it was not judged."""
    registers: int = 0
    """Registers whose histories were judged..."""
    shortest: int = 0
    """...and the operations of the shortest."""

    @property
    def passed(self) -> bool:
        """Whether every promise was kept, and every one was looked at."""
        return not self.violations and not self.unjudged and self.linearizable is not False


def check(
    history: Sequence[Op],
    final: Mapping[bytes, Replicas],
    last_reads: Mapping[bytes, Record] | None = None,
    *,
    disks_lost: bool = False,
) -> list[Violation]:
    """Every violation there is. `last_reads`: what a read of all owners showed once all was quiet.

    `disks_lost`: one disk at a time was. A version that was shown but never acknowledged may be gone with
    the only disk it was on, and whoever had just acknowledged a write may have lost it again.
    """
    return [
        violation
        for story in stories(history, final, disks_lost=disks_lost)
        for violation in _violations(story, last_reads)
    ]


def judge(
    history: Sequence[Op],
    final: Mapping[bytes, Replicas],
    last_reads: Mapping[bytes, Record],
    *,
    disks_lost: bool = False,
    asked: int = 0,
    silent: int = 0,
    linearizable: bool | None = None,
) -> Judgement:
    """The verdict on a whole run.

    `asked`: how many operations there were; a scan is one, and many reads. `silent`: reads and scans that
    were not answered, so that a history has nothing of them.
    """
    found: list[Violation] = []
    lost = stale = siblings = 0
    unjudged = []
    for story in stories(history, final, disks_lost=disks_lost):
        if story.key not in last_reads:
            unjudged.append(f"{story.key!r} was not read in the end")
        mine = list(_violations(story, last_reads))
        found += mine
        lost += sum(v.claim in LOST for v in mine)
        stale += visibility.stale_reads(story)
        siblings = max(siblings, *(_live(op.shown) for op in story.reads), 0)
    writes = [op for op in history if not op.reads]
    acknowledged = sum(op.outcome is Outcome.OK for op in writes)
    if writes and not acknowledged:
        unjudged.append("no write was acknowledged: there was nothing to keep")
    return Judgement(
        violations=found, unjudged=unjudged, operations=asked or len(history), acknowledged=acknowledged,
        indeterminate=sum(op.outcome is Outcome.UNKNOWN for op in history),
        failed=sum(op.outcome is Outcome.FAILED for op in history) + silent, lost=lost, stale_reads=stale,
        max_siblings=siblings, linearizable=linearizable,
    )  # fmt: skip


def stories(
    history: Sequence[Op], final: Mapping[bytes, Replicas], *, disks_lost: bool = False
) -> Iterator[KeyStory]:
    """The story of each key, in order."""
    by_key: dict[bytes, list[Op]] = {}
    for op in history:
        by_key.setdefault(op.key, []).append(op)
    for key in sorted(by_key | dict(final)):
        yield KeyStory(key, by_key.get(key, ()), final.get(key, {}), disks_lost=disks_lost)


def _violations(story: KeyStory, last_reads: Mapping[bytes, Record] | None) -> Iterator[Violation]:
    for name, claim in CLAIMS.items():
        yield from (Violation(name, story.key, text) for text in islice(claim(story), TEXTS_MAX))
    if last_reads is not None and story.key in last_reads:
        yield from (Violation("merge_is_read", story.key, t) for t in _merge_is_read(story, last_reads[story.key]))
        for name, claim in IN_THE_END.items():
            yield from (Violation(name, story.key, text) for text in islice(claim(story), TEXTS_MAX))


def _live(record: Record) -> int:
    return sum(version.value is not None for version in record)


def _merge_is_read(story: KeyStory, shown: Record) -> Iterator[str]:
    dots = {dot_of(version) for version in shown}
    if dots != story.final:
        yield f"all owners together hold {sorted(story.final)}, a read of all showed {sorted(dots)}"


def _replicas_agree(story: KeyStory) -> Iterator[str]:
    held = {owner: {dot_of(version) for version in record} for owner, record in story.replicas.items()}
    if any(dots != story.final for dots in held.values()):
        yield f"its owners hold different versions: { {owner: sorted(dots) for owner, dots in held.items()} }"


Claim = Callable[[KeyStory], Iterator[str]]
CLAIMS: dict[str, Claim] = {
    claim.__name__: claim
    for claim in (
        claims.one_dot_one_value, claims.no_invention, claims.past_is_given, claims.no_lost_write,
        claims.told_is_durable, claims.siblings_are_concurrent, visibility.quorum_reads_see,
        visibility.read_your_writes, visibility.monotonic_reads, visibility.deletes_are_seen,
    )
}  # fmt: skip
IN_THE_END: dict[str, Claim] = {"deletes_stay": claims.deletes_stay, "replicas_agree": _replicas_agree}
"""Claims on what is left once all is mended and quiet."""

__all__ = ["Judgement", "Violation", "check", "judge", "merged", "stories"]
