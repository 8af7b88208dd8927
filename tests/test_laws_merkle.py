"""Laws of the hash tree: contents decide, history does not."""

from __future__ import annotations

from itertools import pairwise
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from kvnode.core.merkle import LEAVES, NOTHING, HashTree, Span, leaf_hash, leaf_of, span_of
from kvnode.protocol.ring import Partition, partition_of

KEYS = st.binary(min_size=1, max_size=8)
DIGESTS = st.binary(min_size=16, max_size=16)
WHOLE = Span(0, LEAVES)
QS = st.sampled_from([16, 32, 256, 2048, 16384])
LAWS = settings(max_examples=80, deadline=None)


def tree_of(contents: dict[bytes, bytes]) -> HashTree:
    tree = HashTree()
    for key, digest in contents.items():
        tree.change(key, b"", digest)
    return tree


def differing(one: HashTree, other: HashTree, span: Span) -> list[int]:
    """The leaves that an exchange finds, walking down from a root."""
    if one.hash(span) == other.hash(span):
        return []
    if span.size == 1:
        return [span.start]
    return [leaf for part in span.parts() for leaf in differing(one, other, part)]


def test_a_write_changes_its_leaf_and_every_span_above_it_and_no_other() -> None:
    """The newcomer's example: what an exchange walks down."""
    before, after = HashTree(), tree_of({b"cart:1": b"d" * 16})
    assert differing(before, after, WHOLE) == [leaf_of(b"cart:1")]
    partition = partition_of(b"cart:1", 256)
    for p in range(256):
        root = span_of(Partition(p), 256)
        assert (before.hash(root) != after.hash(root)) == (p == partition)


@given(st.dictionaries(KEYS, DIGESTS, max_size=30), st.randoms(use_true_random=False))
@LAWS
def test_the_order_of_writes_does_not_matter(contents: dict[bytes, bytes], rng: Random) -> None:
    """Two replicas that hold the same have the same root."""
    items = list(contents.items())
    rng.shuffle(items)
    assert tree_of(dict(items)).hash(WHOLE) == tree_of(contents).hash(WHOLE)


@given(st.lists(st.tuples(KEYS, DIGESTS | st.just(b"")), max_size=60))
@LAWS
def test_only_the_last_state_of_each_key_counts(history: list[tuple[bytes, bytes]]) -> None:
    """However a key got where it is, also by being dropped; roots asked for in between stay right."""
    tree, state = HashTree(), {}
    for key, digest in history:
        tree.change(key, state.get(key, b""), digest)
        state[key] = digest
        assert len(tree.hash(WHOLE)) == 16
    assert tree.hash(WHOLE) == tree_of({k: d for k, d in state.items() if d}).hash(WHOLE)
    if not any(state.values()):
        assert tree.hash(WHOLE) == NOTHING


@given(st.dictionaries(KEYS, DIGESTS, max_size=40), st.dictionaries(KEYS, DIGESTS, max_size=5), QS)
@LAWS
def test_a_walk_finds_the_leaves_of_every_key_that_differs(
    contents: dict[bytes, bytes], changes: dict[bytes, bytes], q: int
) -> None:
    """A key more, a key less, another version: by way of the partitions' roots, whatever Q."""
    one, other = tree_of(contents), tree_of(contents | changes)
    different = {leaf_of(key) for key, digest in changes.items() if contents.get(key) != digest}
    found = [leaf for p in range(q) for leaf in differing(one, other, span_of(Partition(p), q))]
    assert found == sorted(different)


@given(st.dictionaries(KEYS, DIGESTS | st.just(b""), max_size=40), QS, st.booleans())
@LAWS
def test_what_is_held_is_found_where_it_is(contents: dict[bytes, bytes], q: int, hashed: bool) -> None:
    """The leaves of keys that were not dropped, and their partitions; whether roots were asked for or not."""
    tree = tree_of(dict.fromkeys(contents, b"d" * 16))
    if hashed:
        tree.hash(WHOLE)
    for key, digest in contents.items():
        tree.change(key, b"d" * 16, digest)
    held = {key for key, digest in contents.items() if digest}
    assert list(tree.held_from(0, LEAVES)) == sorted({leaf_of(key) for key in held})
    partitions = {partition_of(key, q) for key in contents}
    found = {p for p in partitions if tree.holds(span_of(p, q))}
    assert found == {partition_of(key, q) for key in held}
    assert found == {p for p in partitions if tree.held_in(span_of(p, q))}


@given(st.dictionaries(KEYS, DIGESTS, min_size=1, max_size=7), st.sampled_from([16, 256, 2048]))
@LAWS
def test_a_span_hashes_alike_in_a_tree_with_little_and_in_one_with_much_elsewhere(
    contents: dict[bytes, bytes], q: int
) -> None:
    """Two owners share some partitions: slots that hold nothing are nothing, whether they ever did."""
    little, much = tree_of(contents), tree_of(contents)
    for number in range(400):
        much.change(b"elsewhere:%d" % number, b"", b"d" * 16)
    for number in range(400):
        much.change(b"elsewhere:%d" % number, b"d" * 16, b"")
    assert len(little.slots()) < 8 < 300 < len(much.slots())
    for partition in range(q):
        span = span_of(Partition(partition), q)
        assert little.hash(span) == much.hash(span)
        assert little.holds(span) == much.holds(span)


@given(KEYS, QS)
@LAWS
def test_a_key_is_in_the_span_of_its_partition(key: bytes, q: int) -> None:
    """Leaves depend on the slot, so they never cross a partition's edge."""
    root = span_of(partition_of(key, q), q)
    assert root.start <= leaf_of(key) < root.start + root.size


@given(
    st.integers(0, 20).flatmap(
        lambda bits: st.integers(0, (1 << 20 - bits) - 1).map(lambda i: (i << bits, 1 << bits))
    )
)
@LAWS
def test_the_parts_of_a_span_are_the_span(where: tuple[int, int]) -> None:
    """In order, without gap or overlap, sixteen at most."""
    span = Span(*where)
    if span.size > 1:
        parts = span.parts()
        assert [leaf for part in parts for leaf in (part.start,)] == sorted(part.start for part in parts)
        assert parts[0].start == span.start and sum(part.size for part in parts) == span.size
        assert all(a.start + a.size == b.start for a, b in pairwise(parts))
        assert len(parts) == min(16, span.size)


@given(st.dictionaries(KEYS, DIGESTS, max_size=20))
@LAWS
def test_saved_pages_give_the_same_tree(contents: dict[bytes, bytes]) -> None:
    """What the flush keeps is all there is."""
    tree, again = tree_of(contents), HashTree()
    for slot in tree.slots():
        again.load(slot, tree.page(slot))
    assert again.hash(WHOLE) == tree.hash(WHOLE)


@given(st.dictionaries(KEYS, DIGESTS, min_size=1, max_size=20), DIGESTS)
@LAWS
def test_a_leaf_that_went_wrong_is_replaced_by_what_its_keys_give(
    contents: dict[bytes, bytes], ghost: bytes
) -> None:
    """And one that is right is left alone."""
    tree = tree_of(contents)
    key = min(contents)
    leaf = leaf_of(key)
    entries = [(k, d) for k, d in contents.items() if leaf_of(k) == leaf]
    assert not tree.replace(leaf, entries)
    tree.change(key, b"", ghost)
    assert tree.replace(leaf, entries)
    assert tree.hash(Span(leaf, 1)) == leaf_hash(entries)
    assert tree.hash(WHOLE) == tree_of(contents).hash(WHOLE)
