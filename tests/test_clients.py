"""Both Python clients against real nodes, as CONTRACT shows them."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvctl import AsyncClient, Client, Conflict, Invalid, Item, KvError, NoEndpoint, NotFound, Unavailable, Written
from tests.procs import Cluster, free_ports


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("clients"), 3) as running:
        yield running


@pytest.fixture
def kv(cluster: Cluster) -> Iterator[Client]:
    with cluster.client() as client:
        yield client


def test_the_example_of_the_contract_runs(kv: Client) -> None:
    """Put, get, put with the context, delete."""
    kv.put("cart:1", b"milk")
    item = kv.get("cart:1", r=2, mode="quorum")
    assert item.value == b"milk"

    receipt = kv.put("cart:1", b"milk,eggs", context=item.context, w="all")
    assert (receipt.acked, receipt.w) == (3, 3)
    kv.delete("cart:1")

    with pytest.raises(NotFound) as gone:
        kv.get("cart:1")
    kv.put("cart:1", b"anew", context=gone.value.item.context)
    assert kv.get("cart:1").value == b"anew"


def test_concurrent_writes_are_siblings_and_value_refuses_to_choose(kv: Client) -> None:
    """Neither write is lost; the merge is the reader's."""
    context = kv.put("siblings", b"base").context
    kv.put("siblings", b"one", context=context)
    kv.put("siblings", b"two", context=context)

    item = kv.get("siblings")
    assert [s.value for s in item.siblings] == [b"one", b"two"]
    with pytest.raises(Conflict):
        _ = item.value

    kv.put("siblings", b"both", context=item.context)
    assert kv.get("siblings").value == b"both"


def test_siblings_of_equal_bytes_show_as_one(kv: Client) -> None:
    """A retried put is one value to a reader."""
    context = kv.put("equal", b"base").context
    kv.put("equal", b"same", context=context)
    kv.put("equal", b"same", context=context)

    assert kv.get("equal").value == b"same"


def test_conditions_are_judged_after_a_read(kv: Client) -> None:
    """Best effort outside strong mode, and the story says so."""
    told = kv.put("once", b"first", if_absent=True, story=True)
    assert told.story is not None
    assert told.story.condition == "best_effort"
    with pytest.raises(Conflict):
        kv.put("once", b"second", if_absent=True)

    context = kv.get("once").context
    kv.put("once", b"third", if_match=context)
    with pytest.raises(Conflict):
        kv.put("once", b"fourth", if_match=context)
    assert kv.get("once").value == b"third"


def test_a_value_with_a_time_to_live_goes_when_it_is_over(kv: Client) -> None:
    """It reads as absent everywhere, without anyone deleting it."""
    kv.put("brief", b"soon gone", ttl=0.3)
    assert kv.get("brief").value == b"soon gone"

    deadline = time.monotonic() + 5
    while kv.fetch("brief").found and time.monotonic() < deadline:
        time.sleep(0.02)

    assert not kv.fetch("brief", r="all").found


def test_many_at_once_come_back_key_by_key(kv: Client) -> None:
    """Pipelined; a bad one fails alone."""
    pairs = {f"many:{i}": b"%d" % i for i in range(1000)} | {"": b"no key", "big": b"x" * 20_000}

    written = kv.put_many(pairs)
    read = kv.get_many([*pairs, "many:absent"])

    assert sum(isinstance(w, Written) for w in written.values()) == 1000
    assert isinstance(written[""], Invalid)
    assert isinstance(written["big"], Invalid)
    assert all(isinstance(read[k], Item) and read[k].value == pairs[k] for k in pairs if k.startswith("many"))  # type: ignore[union-attr]
    assert isinstance(read["many:absent"], Item)
    assert not read["many:absent"].found


def test_a_scan_gives_every_live_key_once_in_byte_order(kv: Client) -> None:
    """Pages, prefix, limit; tombstones are not shown."""
    keys = [b"scan:%04d" % i for i in range(2500)]
    kv.put_many(dict.fromkeys(keys, b"v"))
    kv.delete(keys[7])

    found = [item.key for item in kv.scan(b"scan:")]

    assert found == [k for k in keys if k != keys[7]]
    assert [item.key for item in kv.scan("scan:", limit=3)] == keys[:3]
    assert list(kv.scan("scan:", limit=0)) == []
    assert list(kv.scan("nothing here")) == []


def test_the_limits_are_refused_before_anything_is_stored(kv: Client) -> None:
    """Empty, over-long, over-large: Invalid, and nothing is there afterwards."""
    kv.put(b"k" * 1024, b"")
    assert kv.get(b"k" * 1024).value == b""
    kv.put("fits", b"x" * (10_000 - 4))
    for key, value in ((b"", b"v"), (b"k" * 1025, b"v"), ("over!", b"x" * (10_000 - 4))):
        with pytest.raises(Invalid):
            kv.put(key, value)
    assert not kv.fetch("over!").found
    for context in ("c1.", "c1.AAAA", "nonsense", kv.get("fits").context):
        with pytest.raises(Invalid):
            kv.put("other", b"v", context=context)
    for options in ({"w": 4}, {"w": 0}, {"w": "many"}, {"mode": "firm"}, {"mode": "quorum", "w": 1}):
        with pytest.raises(Invalid):
            kv.put("other", b"v", **options)  # type: ignore[arg-type]
    assert not kv.fetch("other").found


def test_a_request_may_name_the_member_to_ask(kv: Client) -> None:
    """It coordinates what it owns; one that is no member is refused before anything is sent."""
    for node in ("n1", "n2", "n3"):
        assert kv.put("via", b"v", via=node, story=True).story.coordinator == node
        assert kv.fetch("via", via=node, story=True).story.coordinator == node
        assert kv.delete("via", via=node, story=True).story.coordinator == node
        assert not any(isinstance(o, KvError) for o in kv.put_many({"via": b"v"}, via=node).values())
    with pytest.raises(Invalid, match="n9"):
        kv.get("via", via="n9")
    with pytest.raises(Invalid, match="n9"):
        kv.get_many(["via"], via="n9")


def test_keys_are_bytes(kv: Client) -> None:
    """Not UTF-8, control characters, spaces: all of them."""
    for key in (b"\xff\xfe\x00", b"\x1b[31m", b" ", "ключ".encode()):
        kv.put(key, key)
        assert kv.get(key).value == key


def test_no_endpoint_is_said_within_two_seconds() -> None:
    """A dead port never fails in ZeroMQ; the handshake's time does."""
    start = time.monotonic()
    with pytest.raises(NoEndpoint):
        Client(f"127.0.0.1:{free_ports(1)[0]}")
    assert time.monotonic() - start < 4


def test_the_async_client_does_the_same(cluster: Cluster) -> None:
    """The same session on an event loop, pipelined by gather."""

    async def story() -> None:
        async with AsyncClient(cluster.endpoints) as kv:
            await kv.put("async:cart", b"milk")
            item = await kv.get("async:cart")
            assert item.value == b"milk"
            await kv.put("async:cart", b"eggs", context=item.context)
            pairs = {f"async:{i}": b"%d" % i for i in range(500)}
            written = await kv.put_many(pairs)
            assert all(isinstance(w, Written) for w in written.values())
            read = await kv.get_many(pairs)
            assert all(isinstance(r, Item) and r.value == pairs[str(k)] for k, r in read.items())
            assert len([i async for i in kv.scan("async:", limit=10)]) == 10
            await kv.delete("async:cart")
            with pytest.raises(NotFound):
                await kv.get("async:cart")

    asyncio.run(story())


def test_an_async_client_outside_async_with_says_so(cluster: Cluster) -> None:
    """A clear error instead of a hang."""

    async def story() -> None:
        with pytest.raises(RuntimeError, match="async with"):
            await AsyncClient(cluster.endpoints).put("k", b"v")

    asyncio.run(story())


def test_a_killed_node_costs_a_retry_and_not_the_request(tmp_path: Path) -> None:
    """Of three owners any two are enough; writes that need all three are refused, in time."""
    with Cluster(tmp_path, 3) as cluster, cluster.client() as kv:
        kv.put_many({f"k{i}": b"old" for i in range(200)})
        cluster.kill("n2")

        written = kv.put_many({f"k{i}": b"new" for i in range(200)})
        read = kv.get_many([f"k{i}" for i in range(200)], mode="quorum")

        assert all(isinstance(w, Written) for w in written.values())
        assert all(isinstance(r, Item) and b"new" in [s.value for s in r.siblings] for r in read.values())
        start = time.monotonic()
        with pytest.raises(Unavailable):
            kv.put("k1", b"x", w="all")
        assert time.monotonic() - start < 2
        cluster.start("n2")
        cluster.wait_up()
        assert kv.put("k1", b"again", w="all").acked == 3


def test_a_paused_node_costs_its_keys_a_part_of_a_second_once(tmp_path: Path) -> None:
    """SIGSTOP keeps the connection up: the client goes on to the next owner, and remembers."""
    with Cluster(tmp_path, 3) as cluster, cluster.client() as kv:
        kv.put_many({f"k{i}": b"v" for i in range(100)})
        cluster.processes["n2"].send_signal(signal.SIGSTOP)
        try:
            start = time.monotonic()
            for i in range(100):
                kv.put(f"k{i}", b"w")
                assert b"w" in [s.value for s in kv.get(f"k{i}").siblings]
            took = time.monotonic() - start
        finally:
            cluster.processes["n2"].send_signal(signal.SIGCONT)
        assert took < 20, "one wait for n2 each few seconds, not one a key"
