"""Deletes on real disks, the beginning: a cluster that ages while the other tests run.

A tombstone may go after two minutes at the least, so `test_zz_aged.py`, the last file, looks at the end.
"""

from __future__ import annotations

from tests.aging import Aging, live
from tests.test_failure import until


def test_a_cluster_begins_to_age_with_deleted_expired_and_living_keys(aging: Aging) -> None:
    """Every tombstone is on all three disks now, and counts toward no key."""
    with aging.cluster.client() as client:
        until(lambda: live(client) == set(aging.living), "what expires has expired")
        told = client.explain(next(iter(aging.deleted)))
        assert [state.state for state in told.replicas] == ["present"] * 3
        assert all("younger than the grace" in state.grave for state in told.replicas)
