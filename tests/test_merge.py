"""Merging siblings: the laws of the built-in merges, and the clients' use of them on real nodes."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvctl import AsyncClient, Client, Conflict, Invalid, Item, NotFound, last_write, union, union_by
from kvctl.merge import Merge, merged
from kvnode.protocol.types import Version, encode_record
from tests.procs import Cluster

commas = union_by(b",")


def item(*values: bytes | None, times: tuple[int, ...] | None = None, key: bytes = b"k") -> Item:
    """An item of concurrent versions, written one after the other unless told."""
    at = times or tuple(range(1, len(values) + 1))
    versions = [Version(100 + i, at[i] << 16, {}, value) for i, value in enumerate(values)]
    return Item(key, encode_record(tuple(sorted(versions, key=lambda v: (v.time, v.actor)))))


def test_two_carts_become_one() -> None:
    """The example: everything anyone put in, each once."""
    assert union(item(b'["milk","eggs"]', b'["milk", "bread"]')) == b'["bread","eggs","milk"]'
    assert commas(item(b"milk,eggs", b"milk,bread")) == b"bread,eggs,milk"
    assert last_write(item(b"milk,eggs", b"milk,bread")) == b"milk,bread"


# ---- laws ----------------------------------------------------------------------------------

element = st.one_of(
    st.integers(), st.text(max_size=5), st.booleans(), st.none(), st.lists(st.integers(), max_size=2)
)
arrays = st.lists(element, max_size=5).map(lambda found: json.dumps(found).encode())
listed = st.lists(st.sampled_from([b"a", b"b", b"c", b"\xff"]), max_size=4).map(b",".join)
SETS = [pytest.param(union, arrays, id="union"), pytest.param(commas, listed, id="union_by")]


@pytest.mark.parametrize(("merge", "values"), SETS)
@given(data=st.data())
def test_a_union_does_not_depend_on_the_order(
    merge: Merge, values: st.SearchStrategy[bytes], data: st.DataObject
) -> None:
    """Two readers who merge at once write equal bytes."""
    a, b, c = (data.draw(values) for _ in range(3))
    assert merge(item(a, b, c)) == merge(item(c, a, b)) == merge(item(b, c, a))


@pytest.mark.parametrize(("merge", "values"), SETS)
@given(data=st.data())
def test_a_union_merged_again_is_the_same(
    merge: Merge, values: st.SearchStrategy[bytes], data: st.DataObject
) -> None:
    """With itself, and with what it was made of; and in whatever steps."""
    a, b, c = (data.draw(values) for _ in range(3))
    if len({a, b}) < 2:
        assert merge(item(a, b)) == a
        return
    once = merge(item(a, b))
    assert merge(item(once)) == merge(item(once, once)) == once
    assert merge(item(once, a)) == once
    if len({a, b, c}) == 3:
        assert merge(item(once, c)) == merge(item(a, merge(item(b, c)))) == merge(item(a, b, c))


@given(st.lists(st.binary(max_size=4), min_size=1, max_size=5, unique=True), st.randoms(use_true_random=False))
def test_the_last_write_is_one_of_them_and_the_same_in_any_order(values: list[bytes], rng: object) -> None:
    """Of those written in one instant one wins, always the same."""
    times = tuple((i // 2) + 1 for i in range(len(values)))
    won = last_write(item(*values, times=times))
    assert won in values
    assert times[values.index(won)] == max(times)
    assert last_write(item(won)) == won


def test_one_sibling_is_its_own_merge_whatever_it_is() -> None:
    """What needs no merge is not rewritten, or refused."""
    for merge in (union, commas, last_write):
        assert merge(item(b"no, JSON")) == b"no, JSON"
        assert merged(item(b"one"), merge) == b"one"
        assert merged(item(None), merge) is None
    assert last_write(item(b"value", None)) == b"value"


@pytest.mark.parametrize("bad", [b"milk", b'{"a":1}', b"\xff", b"[" * 100_000, b"[NaN]", b"1"])
def test_what_is_no_array_is_refused_and_not_guessed(bad: bytes) -> None:
    """The siblings stay, for a merge of your own."""
    with pytest.raises(Invalid):
        union(item(b"[1]", bad))


def test_a_separator_is_not_empty() -> None:
    """Nothing would be separated by it."""
    with pytest.raises(Invalid):
        union_by(b"")


# ---- on real nodes -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(Path(tmp_path_factory.mktemp("merge")), 3) as running:
        yield running


@pytest.fixture
def kv(cluster: Cluster) -> Iterator[Client]:
    with cluster.client() as client:
        yield client


def fork(kv: Client, key: str, *values: bytes) -> None:
    """Make these siblings."""
    base = kv.put(key, b"base").context
    for value in values:
        kv.put(key, value, context=base)


def test_a_merged_read_leaves_one_value(kv: Client) -> None:
    """Built in, or your own; and an absent key is not found."""
    fork(kv, "m:1", b"a,b", b"b,c")
    assert kv.get_merged("m:1", commas) == b"a,b,c"
    assert kv.get("m:1").value == b"a,b,c"

    fork(kv, "m:2", b"7", b"12")
    assert kv.get_merged("m:2", lambda found: max((s.value for s in found.siblings), key=int)) == b"12"
    assert kv.get_merged("m:2") == b"12"
    with pytest.raises(NotFound):
        kv.get_merged("m:3")


def test_an_update_reads_changes_and_writes(kv: Client) -> None:
    """From nothing, over a value, over siblings, and to delete."""
    kv.update("u:1", lambda old: b"%d" % (int(old or 0) + 1))
    kv.update("u:1", lambda old: b"%d" % (int(old or 0) + 1))
    assert kv.get("u:1").value == b"2"

    fork(kv, "u:2", b"a", b"b")
    kv.update("u:2", lambda old: (old or b"") + b",c", commas)
    assert kv.get("u:2").value == b"a,b,c"

    kv.update("u:2", lambda _: None)
    with pytest.raises(NotFound):
        kv.get("u:2")
    kv.update("u:2", lambda old: b"anew" if old is None else old)
    assert kv.get("u:2").value == b"anew"


def test_an_update_begins_anew_when_someone_wrote_meanwhile_and_gives_up_in_the_end(kv: Client) -> None:
    """It never writes what was computed from a value that is not there any more."""
    kv.put("u:3", b"0")
    seen: list[bytes | None] = []

    def meanwhile(old: bytes | None) -> bytes:
        seen.append(old)
        if len(seen) == 1:
            kv.put("u:3", b"41", context=kv.get("u:3").context)
        return b"%d" % (int(old or 0) + 1)

    kv.update("u:3", meanwhile)
    assert seen == [b"0", b"41"]
    assert kv.get("u:3").value == b"42"

    def always(old: bytes | None) -> bytes:
        seen.append(old)
        kv.put("u:3", b"%d" % len(seen), context=kv.get("u:3").context)
        return b"mine"

    with pytest.raises(Conflict):
        kv.update("u:3", always, tries=3)
    assert len(seen) == 5


def test_sets_that_grow_on_two_sides_at_once_lose_nothing(cluster: Cluster) -> None:
    """Best effort leaves siblings now and then; the union finds every element."""

    def add(name: str) -> None:
        with cluster.client() as kv:
            for i in range(10):
                mine = json.dumps(f"{name}{i}").encode()
                kv.update("u:4", lambda old, mine=mine: b"[%s]" % b",".join(  # type: ignore[misc]
                    x for x in ((old or b"[]")[1:-1], mine) if x), union, tries=50)  # fmt: skip

    threads = [threading.Thread(target=add, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    with cluster.client() as kv:
        assert set(json.loads(kv.get_merged("u:4", union))) == {f"{n}{i}" for n in "ab" for i in range(10)}


def test_the_asynchronous_client_merges_alike(cluster: Cluster) -> None:
    """The same two calls, awaited."""

    async def story() -> None:
        async with AsyncClient(cluster.endpoints) as kv:
            base = (await kv.put("a:1", b"base")).context
            for value in (b"x", b"y"):
                await kv.put("a:1", value, context=base)
            assert await kv.get_merged("a:1", commas) == b"x,y"
            await kv.update("a:1", lambda old: (old or b"") + b",z")
            assert (await kv.get("a:1")).value == b"x,y,z"
            await kv.update("a:1", lambda _: None)
            with pytest.raises(NotFound):
                await kv.get_merged("a:1")

    asyncio.run(story())
