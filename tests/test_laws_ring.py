"""The laws of the ring: where a key lives, and who owns it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kvnode.core.assignment import assign, exact_shares
from kvnode.core.bootstrap import BadBootstrap, found, is_loopback, parse_address, parse_members, valid_name
from kvnode.core.routes import Routes
from kvnode.protocol.ring import SLOTS, Member, Ring, hash_slot, majority, partition_of, shift_of
from kvnode.protocol.types import NodeId
from tests.harness import N1, N2, ring_of

LAWS = settings(max_examples=120, deadline=None, print_blob=True)

# ---- where a key lives -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "slot"),
    [
        (b"123456789", 12739),  # 0x31C3, the check value of CRC16/XMODEM in the Redis Cluster specification
        (b"foo", 12182),
        (b"bar", 5061),
        (b"hello", 866),
        (b"", 0),
        (b"{user1000}.following", 3443),
        (b"{user1000}.followers", 3443),
    ],
)
def test_a_key_has_the_slot_redis_cluster_gives_it(key: bytes, slot: int) -> None:
    """Every Redis Cluster client can find our keys."""
    assert hash_slot(key) == slot


@pytest.mark.parametrize(
    ("key", "tag"),
    [
        (b"{user1000}.following", b"user1000"),
        (b"foo{bar}{zap}", b"bar"),  # the first tag counts
        (b"foo{{bar}}zap", b"{bar"),  # the first { and the first } after it
        (b"foo}{bar}", b"bar"),  # a } before the { is no tag's end
        (b"foo{}{bar}", b"foo{}{bar}"),  # an empty tag is none, and no other is looked for
        (b"{}", b"{}"),
        (b"{", b"{"),
        (b"foo{bar", b"foo{bar"),
        (b"foo}bar", b"foo}bar"),
        (b"{{}", b"{"),
    ],
)
def test_only_the_first_nonempty_hash_tag_counts(key: bytes, tag: bytes) -> None:
    """Keys with the same tag live together, as the Redis Cluster specification says."""
    assert hash_slot(key) == crc16(tag) % SLOTS


def crc16(data: bytes) -> int:
    """CRC16/XMODEM bit by bit, from its definition."""
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


@given(st.binary(max_size=40).filter(lambda key: b"{" not in key))
@LAWS
def test_the_slot_is_crc16_xmodem(key: bytes) -> None:
    """To the bit."""
    assert hash_slot(key) == crc16(key) % SLOTS


@given(st.binary(max_size=30), st.integers(4, 14))
@LAWS
def test_partitions_are_equal_runs_of_slots(key: bytes, power: int) -> None:
    """Any q from 16 to 16384 cuts the same circle: a key keeps its neighbours."""
    q = 1 << power
    assert partition_of(key, q) == hash_slot(key) * q // SLOTS
    assert SLOTS >> shift_of(q) == q


def test_two_majorities_overlap_and_no_fewer_would() -> None:
    """What R+W>N rests on."""
    for owners in range(1, 17):
        assert 2 * majority(owners) > owners >= 2 * (majority(owners) - 1)


# ---- who owns it -------------------------------------------------------------------------------


@st.composite
def memberships(draw: st.DrawFn, *, weights: st.SearchStrategy[int] | None = None) -> list[Member]:
    """Up to twelve members on some hosts in some racks."""
    hosts = draw(st.lists(st.integers(0, 3), min_size=1, max_size=12))
    places = draw(st.lists(st.integers(0, len(hosts) - 1), min_size=1, max_size=12))
    weight = weights if weights is not None else st.one_of(st.just(1), st.integers(0, 4), st.integers(0, 1_000))
    return [
        Member(NodeId(f"n{i}"), f"127.0.0.1:{7000 + i}", f"h{h}", f"r{hosts[h]}", draw(weight))
        for i, h in enumerate(places)
    ]


_q = st.sampled_from([16, 32, 64])
_n = st.integers(1, 5)


def member(name: str, host: str, rack: str, weight: int) -> Member:
    return Member(NodeId(name), f"127.0.0.1:{name}", host, rack, weight)


UNEVEN = [
    member(f"n{i}", f"h{h}", "", w)
    for i, (h, w) in enumerate([(2, 3), (2, 1), (2, 2), (3, 2), (2, 636), (1, 2), (3, 1)])
]
"""One host of very unequal members: rounding hosts first and members after was off by 1.09 here."""
CROWDED = [
    member(f"n{i}", f"h{h}", f"r{r}", w)
    for i, (h, r, w) in enumerate(
        [(6, 2, 1), (4, 1, 1), (2, 2, 1), (6, 2, 1), (4, 1, 718), (5, 3, 3), (7, 3, 1), (4, 1, 1), (3, 0, 1)]
    )
]
"""Four racks for three copies; choosing the neediest host alone put two copies in one rack here."""


@given(memberships(), _q, _n)
@example(UNEVEN, 64, 1)
@example(CROWDED, 16, 3)
@LAWS
def test_owners_are_distinct_and_on_distinct_hosts_where_there_are_enough(
    members: list[Member], q: int, n: int
) -> None:
    """One host lost is one copy lost; with fewer members or hosts than n, there are as many copies as can be."""
    owners = assign(members, q, n)
    copies = min(n, len(members))
    enough = len({m.host for m in members}) >= copies
    assert len(owners) == q
    for places in owners:
        assert len(places) == len(set(places)) == copies
        if enough:
            assert len({members[i].host for i in places}) == copies


@given(memberships(), _q, _n)
@example(UNEVEN, 64, 1)
@LAWS
def test_replicas_and_first_places_are_within_one_of_the_weighted_share(
    members: list[Member], q: int, n: int
) -> None:
    """Load follows weight: not only copies, but also who is asked first."""
    owners = assign(members, q, n)
    copies = min(n, len(members))
    owned = Counter(i for places in owners for i in places)
    first = Counter(places[0] for places in owners)
    for i, exact in enumerate(exact_shares(members, q, copies)):
        assert abs(owned[i] - exact) < 1, f"{members[i]} owns {owned[i]}, its share is {float(exact)}"
        assert abs(first[i] - exact / copies) < 1, (
            f"{members[i]} is first {first[i]} times of {float(exact / copies)}"
        )


@given(memberships(), _q, _n)
@LAWS
def test_the_weighted_share_is_proportional_where_no_member_or_host_is_full(
    members: list[Member], q: int, n: int
) -> None:
    """Nobody's share is above q; below it, twice the weight is twice the share."""
    copies = min(n, len(members))
    shares = exact_shares(members, q, copies)
    assert sum(shares) == q * copies
    assert all(0 <= share <= q for share in shares)
    apart = len({m.host for m in members}) >= copies
    full = {
        m.host
        for m in members
        if apart and sum(s for o, s in zip(members, shares, strict=True) if o.host == m.host) == q
    }
    free = [(m.weight, s) for m, s in zip(members, shares, strict=True) if s < q and m.host not in full]
    for (weight, share), (other, others) in pairwise(free):
        assert share * other == others * weight


@given(memberships(), _q, _n)
@example(CROWDED, 16, 3)
@LAWS
def test_racks_are_spread_as_far_as_balance_allows(members: list[Member], q: int, n: int) -> None:
    """A rack of T places is in min(T, q) partitions: no partition misses a rack that another has twice."""
    owners = assign(members, q, n)
    racks = {m.host: m.rack for m in reversed(members)}
    total = Counter(racks[members[i].host] for places in owners for i in places)
    spread = sum(len({racks[members[i].host] for i in places}) for places in owners)
    assert spread == sum(min(places, q) for places in total.values())


def test_copies_of_two_racks_alternate_and_of_three_equal_ones_are_one_in_each() -> None:
    """What an operator with racks expects to read."""
    three = [member(f"n{i}", f"h{i}", f"r{i % 3}", 1) for i in range(6)]
    assert all({three[i].rack for i in places} == {"r0", "r1", "r2"} for places in assign(three, 64, 3))
    two = [member(f"n{i}", f"h{i}", f"r{i % 2}", 1) for i in range(6)]
    assert all(len({two[i].rack for i in places}) == 2 for places in assign(two, 64, 3))


def test_five_equal_nodes_share_as_the_readme_shows() -> None:
    """256 partitions of 3: 153 or 154 replicas each, 51 or 52 of them first."""
    ring = ring_of("n1 n2 n3 n4 n5", q=256)
    places = [ring.places(m.id) for m in ring.members]
    assert {owned for owned, _ in places} == {153, 154} and sum(owned for owned, _ in places) == 768
    assert {first for _, first in places} == {51, 52} and sum(first for _, first in places) == 256
    assert ring.places(NodeId("stranger")) == (0, 0)
    assert ring.member(NodeId("stranger")) is None
    assert ring.member(N1) == ring.members[0]


def test_members_of_no_weight_own_nothing_unless_they_must() -> None:
    """A node being emptied is weight 0; with n members or fewer there is no choice."""
    members = [member(f"n{i}", f"h{i}", "", int(i > 0)) for i in range(4)]
    assert not any(0 in places for places in assign(members, 32, 3))
    assert all(0 in places for places in assign(members, 32, 4))
    assert all(len(places) == 2 for places in assign([member(f"n{i}", f"h{i}", "", 0) for i in range(4)], 32, 2))


def test_a_host_is_in_one_rack_whatever_its_members_say() -> None:
    """Contradicting labels must not cost the promise about hosts."""
    members = [member("n1", "h1", "a", 1), member("n2", "h1", "b", 1), member("n3", "h2", "b", 1)]
    assert all({members[i].host for i in places} == {"h1", "h2"} for places in assign(members, 16, 2))


_ELSEWHERE = """
from tests.test_laws_ring import CROWDED, UNEVEN
from kvnode.core.assignment import assign
from kvnode.core.bootstrap import found, parse_members
print(hash((assign(CROWDED, 64, 3), assign(UNEVEN, 64, 2))))
print(found("demo", parse_members("a=h1:1,b=h2:1,c=h3:1,d=h3:2"), 3, 64).cluster_id)
"""


def test_every_process_computes_the_same_ring() -> None:
    """Founders agree without talking: the hash seed, and so the order of sets, plays no part."""
    told = set()
    for seed in ("0", "1", "4242"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", _ELSEWHERE], env=environment, capture_output=True, text=True, check=True
        )
        told.add(done.stdout)
    assert len(told) == 1


# ---- the ring as one member sees it ------------------------------------------------------------


def test_routes_name_the_other_owners_where_this_node_owns_and_nothing_elsewhere() -> None:
    """One lookup says both whether I coordinate and whom I ask."""
    ring = ring_of("n1 n2 n3 n4 n5")
    routes = Routes(ring, N2)
    assert routes.others == ("n1", "n3", "n4", "n5")
    for partition, owners in enumerate(routes.owners):
        peers = routes.peers[partition]
        assert owners == ring.owner_ids(partition)
        assert (peers is None) == (N2 not in owners)
        if peers is not None:
            assert set(peers) == set(owners) - {N2}
    assert routes.partition(b"foo") == partition_of(b"foo", ring.q)


# ---- founding ----------------------------------------------------------------------------------

FOUNDERS = "n2=127.0.0.1:7002, n1=127.0.0.1:7001,n3=10.0.0.3:7003"


def test_founders_with_the_same_text_found_the_same_cluster() -> None:
    """Order and spaces do not matter; anything else makes another cluster, with another id."""
    ring = found("demo", parse_members(FOUNDERS), 3, 256)
    again = found("demo", parse_members(",".join(reversed(FOUNDERS.split(",")))), 3, 256)
    assert ring == again
    assert (ring.epoch, ring.n, ring.q, set(ring.since)) == (1, 3, 256, {1})
    assert [m.host for m in ring.members] == ["n1", "n2", "10.0.0.3"]
    others: list[Ring] = [
        found("demo2", parse_members(FOUNDERS), 3, 256),
        found("demo", parse_members(FOUNDERS), 2, 256),
        found("demo", parse_members(FOUNDERS), 3, 128),
        found("demo", parse_members(FOUNDERS.replace("7003", "7004")), 3, 256),
    ]
    assert len({ring.cluster_id, *(o.cluster_id for o in others)}) == 5


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "NAME=HOST:PORT"),
        ("n1", "NAME=HOST:PORT"),
        ("-n=h:1", "NAME=HOST:PORT"),
        ("n1=h", "HOST:PORT"),
        ("n1=:7001", "HOST:PORT"),
        ("n1=h:0", "HOST:PORT"),
        ("n1=h:65536", "HOST:PORT"),
        ("n1=h:x", "HOST:PORT"),
        ("n1=h:1,n1=h:2", "named twice"),
        ("n1=h:1,n2=h:1", "same address"),
    ],
)
def test_a_bad_founding_text_is_refused_with_a_sentence(text: str, why: str) -> None:
    """The operator reads what is wrong."""
    with pytest.raises(BadBootstrap, match=why):
        parse_members(text)


@pytest.mark.parametrize(
    ("cluster", "n", "q"),
    [("a b", 3, 256), ("a", 0, 256), ("a", 17, 256), ("a", 3, 8), ("a", 3, 100), ("a", 3, 32768)],
)
def test_a_cluster_with_impossible_numbers_is_refused(cluster: str, n: int, q: int) -> None:
    """Before anything is written."""
    with pytest.raises(BadBootstrap):
        found(cluster, parse_members("n1=h:1"), n, q)


def test_names_and_loopback() -> None:
    """What CONTRACT says of ids, and which hosts need no --insecure-listen."""
    assert all(map(valid_name, ("n1", "A", "a.b_c-d", "x" * 64)))
    assert not any(map(valid_name, ("", ".a", "a b", "x" * 65, "ä", "a\n")))
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "localhost", "::1", "[::1]")))
    assert not any(
        map(is_loopback, ("10.0.0.1", "example.org", "0.0.0.0", "localhost.example.org", "127.example.org"))
    )
    assert parse_address("[::1]:80") == ("[::1]", 80)
