"""The laws of versions: what merge, mint and pruning may never do.

Records are not made up: a small world of nodes puts, replicates, forgets and restarts, and the laws
are checked on what that left behind. `test_model_versions.py` checks the steps of such a world.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from unittest.mock import patch

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvnode import config
from kvnode.core import versions
from kvnode.core.clock import HybridClock
from kvnode.core.versions import (
    FAMILY_BITS,
    NO_ACTOR,
    Held,
    Minter,
    covers,
    digest_of,
    held_of,
    live,
    merge,
    merge_held,
)
from kvnode.protocol.context import join
from kvnode.protocol.types import Actor, Past, Record, Version, decode_record, encode_record

KEY = b"k"
WALL = 1_790_000_000_000
LAWS = settings(max_examples=150, deadline=None, print_blob=True)

Dot = tuple[int, int]


def dot(version: Version) -> Dot:
    return version.actor, version.time


def dots(record: Iterable[Version]) -> set[Dot]:
    return {dot(v) for v in record}


def minter(seed: object = 1, wall: int = WALL) -> Minter:
    clock = HybridClock()
    clock.wall = wall
    return Minter(clock, Random(str(seed)))


# ---- an example --------------------------------------------------------------------------------


def test_two_writers_who_read_the_same_value_become_siblings_and_the_next_writer_covers_both() -> None:
    """The picture at the top of versions.py: nothing is lost, and nothing is asked of the clock."""
    a, b, c = minter("a"), minter("b"), minter("c")
    x = a.mint(None, {}, b"x").held
    seen = join(x.record())

    y = b.mint(merge_held(None, x.blob), seen, b"y")
    z = c.mint(merge_held(None, x.blob), seen, b"z")
    both = merge(y.held.record(), z.held.record())

    assert {v.value for v in both} == {b"y", b"z"}
    after = a.mint(held_of(both), join(both), b"w").held.record()
    assert [v.value for v in after] == [b"w"]
    assert merge(after, both) == after


# ---- worlds ------------------------------------------------------------------------------------


class World:
    """Three nodes and one key, driven by small numbers."""

    def __init__(self) -> None:
        self.boots = [0, 0, 0]
        self.minters = [minter(f"{node}/0", WALL - node) for node in range(3)]
        self.held: list[Held | None] = [None, None, None]
        self.contexts: list[Past] = [{}]
        self.records: list[Record] = [()]

    def step(self, action: int, node: int, other: int) -> None:
        held = self.held[node]
        match action:
            case 0:  # a put over all this node holds
                past = join(held.record()) if held else {}
                self._keep(node, self.minters[node].mint(held, past, b"blind").held)
            case 1:  # a put with somebody's context
                past = self.contexts[other % len(self.contexts)]
                self._keep(node, self.minters[node].mint(held, past, b"seen").held)
            case 2:  # a retry, or --siblings
                self._keep(node, self.minters[node].mint(held, {}, None).held)
            case 3 | 4 if held is not None:  # replication
                self._keep(other % 3, merge_held(self.held[other % 3], held.blob))
            case 5:  # a reader
                self.contexts.append(join(held.record()) if held else {})
            case 6:  # hand-off or drop
                self.held[node] = None
            case 7:  # a restart
                self.boots[node] += 1
                self.minters[node] = minter(f"{node}/{self.boots[node]}", WALL - node)
                if held is not None:
                    self.held[node] = held_of(held.record())
            case _:
                pass

    def _keep(self, node: int, held: Held) -> None:
        self.held[node] = held
        self.records.append(held.record())


_steps = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 2), st.integers(0, 8)), min_size=1, max_size=25)


@st.composite
def records(draw: st.DrawFn, count: int) -> tuple[Record, ...]:
    """Records that nodes of one world held at one time or another."""
    world = World()
    for step in draw(_steps):
        world.step(*step)
    return tuple(draw(st.sampled_from(world.records)) for _ in range(count))


def plainly_merged(*many: Record) -> set[Dot]:
    """Merge as the definition has it: every dot that no version's past covers."""
    union = {v for record in many for v in ((v.actor, v.time, tuple(sorted(v.past.items()))) for v in record)}
    return {(a, t) for a, t, _ in union if not any(dict(past).get(a, 0) >= t for _, _, past in union)}


# ---- merge -------------------------------------------------------------------------------------


@given(records(2))
@LAWS
def test_merge_is_commutative(pair: tuple[Record, Record]) -> None:
    """Replicas that exchange in either direction end up equal."""
    a, b = pair
    assert merge(a, b) == merge(b, a)


@given(records(3))
@LAWS
def test_merge_is_associative(three: tuple[Record, Record, Record]) -> None:
    """The order in which copies meet does not matter."""
    a, b, c = three
    assert merge(merge(a, b), c) == merge(a, merge(b, c))


@given(records(1))
@LAWS
def test_merge_is_idempotent(one: tuple[Record]) -> None:
    """Hearing the same thing twice changes nothing."""
    (a,) = one
    assert merge(a, a) == a
    assert merge(a, ()) == a == merge((), a)


@given(records(2))
@LAWS
def test_merge_keeps_exactly_what_no_past_covers(pair: tuple[Record, Record]) -> None:
    """Nothing undominated is lost, and no dominated sibling stays."""
    a, b = pair
    assert dots(merge(a, b)) == plainly_merged(a, b)


@given(records(2))
@LAWS
def test_merge_leaves_versions_as_they_were_minted_in_the_order_of_their_dots(pair: tuple[Record, Record]) -> None:
    """A version never changes after it is minted, whatever it is merged with."""
    a, b = pair
    merged = merge(a, b)
    assert all(v in a or v in b for v in merged)
    assert list(merged) == sorted(merged, key=lambda v: (v.time, v.actor))


@given(records(2))
@LAWS
def test_merging_encoded_records_is_merging_records(pair: tuple[Record, Record]) -> None:
    """`merge_held` is `merge`, and hands back the very object held when there is nothing new."""
    a, b = pair
    mine = held_of(a) if a else None

    merged = merge_held(mine, encode_record(b))

    assert merged.record() == merge(a, b)
    assert merged.digest == digest_of(merge(a, b))
    assert merged == held_of(merged.record())
    if mine is not None and merge(a, b) == a:
        assert merged is mine


@given(records(2))
@LAWS
def test_digests_are_equal_just_when_the_dots_are(pair: tuple[Record, Record]) -> None:
    """A replica that answers `Same` holds the same."""
    a, b = pair
    assert (digest_of(a) == digest_of(b)) == (dots(a) == dots(b))
    assert len(digest_of(a)) == (16 if a else 0)


@given(records(2))
@LAWS
def test_a_context_covers_just_what_its_reader_saw_or_what_that_covered(pair: tuple[Record, Record]) -> None:
    """The context of a read covers every version it returned, and each it covers is one that read replaced."""
    a, b = pair
    seen = join(a)
    assert all(covers(seen, v) for v in a)
    for version in b:
        if covers(seen, version) and version not in a:
            assert dot(version) not in dots(merge(a, b))


def test_malformed_records_are_not_merged() -> None:
    """A damaged or foreign record raises the one error its callers expect, and changes nothing."""
    good = held_of(minter().mint(None, {}, b"v").held.record())
    deep = b"\x91\x96\x01\x01\x80\xc0\x00" + b"\x91" * 100_000
    for bad in (b"", b"\xc1", b"\x91", good.blob[:-1], good.blob + b"\0", deep):
        with pytest.raises(msgspec.MsgspecError):
            merge_held(good, bad)


# ---- the actor ---------------------------------------------------------------------------------


def test_a_node_mints_one_key_under_one_actor_until_something_breaks_it() -> None:
    """Pasts stay short: a key written a thousand times by one node names one actor."""
    source = minter()
    first = source.mint(None, {}, b"1").held
    second = source.mint(first, join(first.record()), b"2").held

    assert first.actor == second.actor != NO_ACTOR
    assert merge_held(second, first.blob) is second
    (only,) = second.record()
    assert list(only.past) == [first.actor]


def test_a_record_that_names_our_actor_beyond_what_we_minted_burns_it() -> None:
    """A copy restored from a backup meets its own future: it must not reuse those dots."""
    source = minter()
    old = source.mint(None, {}, b"1").held
    new = source.mint(old, join(old.record()), b"2").held

    met = merge_held(old, new.blob)

    assert met.record() == new.record()
    assert met.actor == NO_ACTOR
    assert source.mint(met, None, b"3").version.actor != old.actor


def test_a_context_that_names_our_actor_beyond_what_we_minted_burns_it() -> None:
    """The same by way of a client: the new dot never falls under its own past."""
    source = minter()
    held = source.mint(None, {}, b"1").held
    ahead = {held.actor: join(held.record())[held.actor] + (5_000 << 16)}

    made = source.mint(held, ahead, b"2")

    assert made.version.actor != held.actor
    assert not covers(made.version.past, made.version)


@pytest.mark.parametrize("ahead_ms", [0, 1, 30_000, 100_000])
def test_two_puts_with_one_context_get_two_dots_also_where_that_context_is_ahead(ahead_ms: int) -> None:
    """Two clients read the same value, written by a node whose clock is ahead, and both write: siblings.

    With one dot for both values, whoever merged the two records kept either, and lost the other.
    """
    read = minter("ahead", WALL + ahead_ms).mint(None, {}, b"read").held
    here, context = minter("here"), join(read.record())
    first = here.mint(merge_held(None, read.blob), context, b"first")

    second = here.mint(first.held, context, b"second")

    assert {v.value for v in second.held.record()} == {b"first", b"second"}
    assert dot(first.version) != dot(second.version)
    assert second.version.time > first.version.time


def test_an_actor_whose_last_time_was_pruned_is_not_used_again() -> None:
    """Without that time nothing would say where its dots must go on from."""
    source = minter()
    ours = source.mint(None, {}, b"1").held
    theirs = encode_record((Version(9, (WALL + 5) << 16, {}, b"2"),))
    held = msgspec.structs.replace(merge_held(None, theirs), actor=ours.actor)
    assert source.mint(held, None, b"3").version.actor not in (9, ours.actor)


def test_the_actor_stays_with_the_node_and_is_not_sent() -> None:
    """What the wire carries has no actor of ours beside it."""
    held = minter().mint(None, {}, b"1").held
    assert merge_held(None, held.blob).actor == NO_ACTOR


# ---- mint --------------------------------------------------------------------------------------


@given(records(2), st.booleans())
@LAWS
def test_a_put_replaces_just_what_its_past_covers(pair: tuple[Record, Record], known: bool) -> None:
    """Siblings the writer had not seen stay; those it had seen go; the new version is there."""
    ours, theirs = pair
    past = join(theirs)
    held = held_of(ours, ours[0].actor if known else NO_ACTOR) if ours else None

    made = minter("mint").mint(held, past, b"new")

    after = made.held.record()
    assert dots(after) == {dot(v) for v in ours if not covers(past, v)} | {dot(made.version)}
    assert made.version in after
    assert made.siblings == len(after)
    assert made.version.past == past
    assert dots(after) == plainly_merged(after)
    # Kept is the last of the family; a branch may go on under an earlier one.
    assert made.held == held_of(after, made.held.actor)
    assert made.held.actor >> FAMILY_BITS == made.version.actor >> FAMILY_BITS
    assert made.held.actor >= made.version.actor


@given(records(1))
@LAWS
def test_a_put_that_covers_all_is_a_put_with_the_context_of_all(one: tuple[Record]) -> None:
    """`past=None` is a short cut, not another rule."""
    (ours,) = one
    held = held_of(ours) if ours else None
    assert minter().mint(held, None, b"new") == minter().mint(held, join(ours), b"new")


@given(records(1), st.integers(-120_000, 120_000))
@LAWS
def test_a_new_dot_is_above_every_time_in_its_past(one: tuple[Record], skew: int) -> None:
    """Also on a node whose clock is two minutes behind: last-writer-wins never prefers what was replaced."""
    (ours,) = one
    made = minter(wall=WALL + skew).mint(held_of(ours), None, b"new")
    assert all(made.version.time > time for time in made.version.past.values())


# ---- pruning -----------------------------------------------------------------------------------


def many_pasts(count: int) -> Past:
    return {Actor(1_000 + i): (WALL - 1_000 + i) << 16 for i in range(count)}


def test_a_past_of_more_than_the_limit_loses_its_oldest_entries_and_says_so() -> None:
    """Clocks stay bounded (Dynamo §4.4), and the counter tells how often that may show as a sibling."""
    source = minter()
    past = many_pasts(config.CLOCK_ENTRIES_MAX + 7)

    made = source.mint(None, past, b"v")

    assert len(made.version.past) == config.CLOCK_ENTRIES_MAX
    assert set(past) - set(made.version.past) == set(sorted(past, key=lambda a: past[a])[:7])
    assert source.pruned == 7
    assert source.mint(None, many_pasts(config.CLOCK_ENTRIES_MAX), b"v") and source.pruned == 7


def test_a_past_that_is_long_loses_what_is_over_a_day_old() -> None:
    """Down to the lower limit; what is younger stays until the upper one."""
    source, day = minter(), config.CLOCK_ENTRY_OLD_MS
    young = many_pasts(config.CLOCK_ENTRIES_YOUNG - 1)
    old = {Actor(i + 1): (WALL - day - 3 + i) << 16 for i in range(4)}

    made = source.mint(None, {**old, **young}, b"v")

    assert set(made.version.past) == {*young, Actor(4)}, "a day to the millisecond is not over a day"
    assert source.pruned == 3
    few = {**young, Actor(9): (WALL - day - 2) << 16}
    assert set(source.mint(None, few, b"v").version.past) == set(few), "nothing is over the limit"


@given(records(2), st.integers(0, 3), st.booleans())
@LAWS
def test_pruning_never_brings_back_a_version_that_is_held(
    pair: tuple[Record, Record], limit: int, blind: bool
) -> None:
    """An entry that covers a held version stays, however old: the put replaces what it had seen."""
    ours, theirs = pair
    past = join(ours) if blind else join(merge(ours, theirs))
    source = minter("prune")

    with patch.multiple(config, CLOCK_ENTRIES_MAX=limit, CLOCK_ENTRIES_YOUNG=limit, CLOCK_ENTRIES_FREE=limit):
        made = source.mint(held_of(ours), None if blind else past, b"new")

    assert all(covers(made.version.past, v) for v in ours if covers(past, v))
    assert dots(made.held.record()) == {dot(v) for v in ours if not covers(past, v)} | {dot(made.version)}
    assert source.pruned == len(past) - len(made.version.past)
    assert len(made.version.past) <= max(limit, len(ours))


def test_a_past_loses_what_is_settled_once_all_that_is_held_is_settled_too() -> None:
    """All owners hold just that: nothing an older entry covers is anywhere any more. It counts as no loss."""
    source = minter()
    old = source.mint(None, many_pasts(30), b"old").held
    (version,) = old.record()

    settled = source.mint(old, None, b"new", settled=lambda: WALL + 1)

    assert settled.version.past == {version.actor: version.time}
    assert source.pruned == 0
    assert settled.siblings == 1


def test_a_past_keeps_everything_while_a_version_held_is_younger_than_what_is_settled() -> None:
    """An owner may still hold what that one covered: without the entry it would come back beside the new one."""
    source = minter()
    old = source.mint(None, many_pasts(30), b"old").held

    made = source.mint(old, None, b"new", settled=lambda: WALL - 1)

    assert len(made.version.past) == 31


# ---- what a reader gets ------------------------------------------------------------------------


def test_an_expired_value_reads_as_a_tombstone_with_the_same_dot_and_past() -> None:
    """A TTL ends a value for readers; contexts, and so repair, do not notice."""
    source = minter()
    mixed = source.mint(source.mint(None, {}, b"short", WALL + 100).held, {}, b"long", WALL + 900).held
    record = mixed.record()
    assert versions.as_read(mixed, WALL + 99) is mixed.blob
    later = decode_record(versions.as_read(mixed, WALL + 100))
    assert [v.value for v in later] == [None, b"long"]
    assert join(later) == join(record)
    assert [v.value for v in live(record, WALL + 100)] == [b"long"]
    assert live(record, WALL + 900) == ()
    assert versions.as_read(None, WALL) == versions.ABSENT


def test_a_held_record_knows_its_live_bytes_and_its_earliest_expiry() -> None:
    """What status counts as keys and bytes: tombstones are none, an empty value is one."""
    source = minter()
    tombstone = source.mint(None, {}, None).held
    assert (tombstone.live_bytes, tombstone.expires_at) == (0, 0)

    empty = source.mint(tombstone, {}, b"", WALL + 500).held
    assert empty.live_bytes == 1
    both = source.mint(empty, {}, b"four", WALL + 200).held
    assert (both.live_bytes, both.expires_at) == (5, WALL + 200)
