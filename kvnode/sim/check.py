"""The checker: given what clients were told and what the disks hold in the end, was every promise kept?

Promises: a pure function of its two arguments, of a simulated or a real cluster; each violation names
a claim, a key, and the versions it is about. Never: merges with the code it judges.

    no_lost_write      what was acknowledged or shown is still there, or a writer who had *seen* it
                       (or, writing blind, could have) has written over it, and so on to the end
    no_invention       every version shown or held was written to that key, by an operation that was
                       not told to have failed
    one_dot_one_value  a dot names one version, everywhere and always
    past_is_given      a version covers what its writer's context covered, and nothing else
    told_is_durable    when a client was told of a write, as many nodes as it was told had it on disk
                       (owners only, in mode `quorum`); when it was shown a version, at least one had
    quorum_reads_see   a `quorum` read shows, or has covered, every write acknowledged in that mode before
    merge_is_read      a read of all owners, once all is quiet, shows just the merge of their disks
    replicas_agree     once all is mended and hints and exchanges have run, all owners hold the same

How a version may rightly be gone. Let W's past cover the dot of V. Either W's writer had a context
that came from a record with V in it; or W was written blind, with V already asked for. And W itself
is there in the end, or rightly gone. RELIABILITY 2, "eventual mode", items 1, 2 and 5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from kvnode.protocol.types import Past, Record, Version
from kvnode.sim.history import Dot, Op, Outcome, dot_of

Replicas = Mapping[str, Record]


class Violation(NamedTuple):
    """A promise that was not kept."""

    claim: str
    key: bytes
    text: str


class Known(NamedTuple):
    """A version that someone was told of, or that a disk holds."""

    dot: Dot
    past: Past
    value: bytes | None
    where: str


class KeyStory:
    """All that is known of one key."""

    def __init__(self, key: bytes, ops: Sequence[Op], replicas: Replicas, *, disks_lost: bool) -> None:
        self.disks_lost = disks_lost
        self.key = key
        self.writes = [op for op in ops if not op.reads]
        self.reads = [op for op in ops if op.reads]
        self.replicas = replicas
        self.sightings = list(_sightings(self.writes, self.reads, replicas))
        self.versions: dict[Dot, Known] = {}
        for known in self.sightings:
            self.versions.setdefault(known.dot, known)
        self.final = {dot_of(version) for version in merged(replicas.values())}
        self.acknowledged = {op.dot for op in self.writes if op.dot is not None}
        self._by_dot = {op.dot: op for op in self.writes if op.dot is not None}
        self._by_value: dict[bytes | None, list[Op]] = {}
        for op in self.writes:
            self._by_value.setdefault(op.value, []).append(op)

    def writers(self, known: Known) -> list[Op]:
        """The operations that may have made a version: one where a client was told its dot.

        Otherwise its value names the operation and its retries, and a tombstone may be any delete's:
        an acknowledged one too may have made two dots, for nodes retry on their own (`core.forward`).
        """
        exact = self._by_dot.get(known.dot)
        return [exact] if exact is not None else self._by_value.get(known.value, [])


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
    by_key: dict[bytes, list[Op]] = {}
    for op in history:
        by_key.setdefault(op.key, []).append(op)
    found: list[Violation] = []
    for key in sorted(by_key | dict(final)):
        story = KeyStory(key, by_key.get(key, ()), final.get(key, {}), disks_lost=disks_lost)
        for name, claim in CLAIMS.items():
            found += [Violation(name, key, text) for text in claim(story)]
        if last_reads is not None and key in last_reads:
            found += [Violation("merge_is_read", key, text) for text in _merge_is_read(story, last_reads[key])]
            found += [Violation("replicas_agree", key, text) for text in _replicas_agree(story)]
    return found


def merged(records: Iterable[Record]) -> list[Version]:
    """The versions that no other version's past covers, whoever holds them; by the definition, not by speed."""
    union = {dot_of(version): version for record in records for version in record}
    return [v for dot, v in sorted(union.items()) if not any(_covers(w.past, dot) for w in union.values())]


def _covers(past: Past, dot: Dot) -> bool:
    return past.get(dot.actor, 0) >= dot.time


def _sightings(writes: list[Op], reads: list[Op], replicas: Replicas) -> Iterator[Known]:
    for op in writes:
        if op.dot is not None and op.past is not None:
            yield Known(op.dot, op.past, op.value, f"acknowledged as {op.number}")
    for op in reads:
        for v in op.shown:
            yield Known(dot_of(v), v.past, v.value, f"shown by {op.number}")
    for owner, record in replicas.items():
        for v in record:
            yield Known(dot_of(v), v.past, v.value, f"held by {owner}")


# ---- the claims --------------------------------------------------------------------------------


def _one_dot_one_value(story: KeyStory) -> Iterator[str]:
    for known in story.sightings:
        first = story.versions[known.dot]
        if (known.value, known.past) != (first.value, first.past):
            yield f"{known.dot} is {first.value!r} {first.where}, but {known.value!r} {known.where}"


def _no_invention(story: KeyStory) -> Iterator[str]:
    for known in story.versions.values():
        writers = story.writers(known)
        if not writers:
            yield f"{known.value!r} ({known.dot}), {known.where}, was never written"
        elif all(op.outcome is Outcome.FAILED for op in writers):
            yield f"{known.value!r} is {known.where}, but its writer was told that it failed"
    for read in story.reads:
        for v in read.shown:
            writers = story.writers(Known(dot_of(v), v.past, v.value, ""))
            if writers and read.ended is not None and min(op.invoked for op in writers) > read.ended:
                yield f"{v.value!r} was shown by {read.number} before it was written"


def _past_is_given(story: KeyStory) -> Iterator[str]:
    for known in story.versions.values():
        writers = story.writers(known)
        if writers and not any(_may_cover(op, known.past) for op in writers):
            given = [op.given for op in writers]
            yield f"{known.value!r} ({known.where}) covers {known.past}, but its writer gave {given}"


def _may_cover(op: Op, past: Past) -> bool:
    if op.given is not None:
        return all(op.given.get(actor, 0) >= time for actor, time in past.items())
    return not (op.covers_nothing and past)


def _no_lost_write(story: KeyStory) -> Iterator[str]:
    fine: set[Dot] = set()
    # A dot is above its whole past, so whatever covers a version comes before it in this order.
    for dot, known in sorted(story.versions.items(), key=lambda item: (item[0].time, item[0].actor), reverse=True):
        if dot in story.final or any(
            _covers(story.versions[later].past, dot) and _could_see(story, story.versions[later], known)
            for later in fine
        ):
            fine.add(dot)
        elif not story.disks_lost or dot in story.acknowledged:
            over = [k.value for k in story.versions.values() if _covers(k.past, dot)]
            yield f"{known.value!r} ({dot}), {known.where}, is gone; covered by {over or 'nothing'}"


def _could_see(story: KeyStory, later: Known, earlier: Known) -> bool:
    """Whether the writer of one version may rightly have written over another."""
    writers = story.writers(later)
    if not writers:
        return True  # another claim's violation; do not report it twice
    asked = min((op.invoked for op in story.writers(earlier)), default=0)
    return any(
        earlier.dot in op.saw
        if op.given is not None
        else not op.covers_nothing and (op.ended is None or asked <= op.ended)
        for op in writers
    )


def _told_is_durable(story: KeyStory) -> Iterator[str]:
    for op in (*story.writes, *story.reads):
        if op.held_then is None:
            continue
        told = [dot_of(version) for version in op.shown] if op.reads else [op.dot]
        disks = op.held_then if op.quorum else (*op.held_then, *op.kept_then)
        for dot in told:
            have = sum(_shows(story, record, dot) for record in disks)
            if have < (need := (1 if op.reads else op.acked) - story.disks_lost):
                yield f"operation {op.number} was told of {dot}, which {have} nodes had on disk, not {need}"


def _quorum_reads_see(story: KeyStory) -> Iterator[str]:
    acked = [op for op in story.writes if op.quorum and op.dot is not None]
    for read in story.reads:
        if not read.quorum:
            continue
        before = [op for op in acked if op.ended is not None and op.ended < read.invoked]
        missing = [op for op in before if not _shows(story, read.shown, op.dot)]
        for op in missing:
            yield f"read {read.number} does not see {op.value!r}, acknowledged as {op.number} before it began"


def _shows(story: KeyStory, shown: Record, dot: Dot | None) -> bool:
    """Whether a version is shown, or covered by what is shown: at once, or through versions in between.

    A long past is pruned (Dynamo §4.4), so what covers it at once may have forgotten it.
    """
    assert dot is not None
    if any(dot_of(version) == dot or _covers(version.past, dot) for version in shown):
        return True
    todo = [(dot_of(version), version.past) for version in shown]
    walked = {name for name, _ in todo}
    while todo:
        name, past = todo.pop()
        if name == dot or _covers(past, dot):
            return True
        more = {d: known.past for d, known in story.versions.items() if d not in walked and _covers(past, d)}
        walked.update(more)
        todo += more.items()
    return False


def _merge_is_read(story: KeyStory, shown: Record) -> Iterator[str]:
    dots = {dot_of(version) for version in shown}
    if dots != story.final:
        yield f"all owners together hold {sorted(story.final)}, a read of all showed {sorted(dots)}"


def _replicas_agree(story: KeyStory) -> Iterator[str]:
    held = {owner: {dot_of(version) for version in record} for owner, record in story.replicas.items()}
    if any(dots != story.final for dots in held.values()):
        yield f"its owners hold different versions: { {owner: sorted(dots) for owner, dots in held.items()} }"


CLAIMS: dict[str, Callable[[KeyStory], Iterator[str]]] = {
    "one_dot_one_value": _one_dot_one_value,
    "no_invention": _no_invention,
    "past_is_given": _past_is_given,
    "no_lost_write": _no_lost_write,
    "told_is_durable": _told_is_durable,
    "quorum_reads_see": _quorum_reads_see,
}
