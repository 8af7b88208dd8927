"""Deletes on real disks: what was deleted is gone from every disk after its grace, what was not is there.

A tombstone may go after two minutes at the least, and this file waits for that. It costs the run little: it
comes first, and other files have the machine meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from kvctl import Client, Item
from tests.aging import Aging, aging_cluster, live
from tests.test_failure import reports, until, whole

GRACE_AND_MORE_S = 240.0


@pytest.fixture(scope="module")
def aging(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aging]:
    """A cluster whose keys live, were deleted or expired when it began."""
    yield from aging_cluster(tmp_path_factory.mktemp("aging"))


def test_a_cluster_begins_to_age_with_deleted_expired_and_living_keys(aging: Aging) -> None:
    """Every tombstone is on all three disks now, and counts toward no key."""
    with aging.cluster.client() as client:
        until(lambda: live(client) == set(aging.living), "what expires has expired")
        told = client.explain(next(iter(aging.deleted)))
        assert [state.state for state in told.replicas] == ["present"] * 3
        assert all("younger than the grace" in state.grave for state in told.replicas)


@pytest.mark.timeout(300)
def test_tombstones_and_expired_values_leave_every_disk_and_nothing_else_does(aging: Aging) -> None:
    """Reaped on all owners, roots equal, and still so when every node has been killed and has come back."""
    with aging.cluster.client() as client:
        gone = aging.deleted | aging.expired
        begun = time.monotonic()
        until(lambda: reaped(client) >= 3 * len(gone), "all reaped on all owners", GRACE_AND_MORE_S, 0.5)
        print(f"waited {time.monotonic() - begun:.0f} s")
        for name in aging.cluster.names:
            aging.cluster.kill(name)
        for name in aging.cluster.names:
            aging.cluster.start(name)
        aging.cluster.wait_up()
        until(lambda: whole(client, 3), "roots equal")
        for key in sorted(gone)[:20]:
            assert [state.state for state in client.explain(key).replicas] == ["absent"] * 3
        until(lambda: not_found(client, gone), "a quorum that says of each that it is not found")
        assert live(client) == set(aging.living)


def not_found(client: Client, keys: frozenset[bytes]) -> bool:
    """Whether a quorum answers for each key; that it has no value must then be the answer."""
    answers = [item for item in client.get_many(sorted(keys), mode="quorum").values() if isinstance(item, Item)]
    assert not any(item.found for item in answers)
    return len(answers) == len(keys)


def reaped(client: Client) -> int:
    """Records dropped so far, by all."""
    return sum(report.counters.get("reaped", 0) for report in reports(client).values())
