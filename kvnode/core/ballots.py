"""Ballots: numbers no proposer has used, each above whatever was heard of.

Promises: every ballot of a boot is above its last one, also where the clock does not follow; two boots never
name the same one (PROTOCOL-CASES 11). Never: below what it is to outbid.
"""

from __future__ import annotations

from kvnode.core.local import Local
from kvnode.protocol.consensus import Ballot
from kvnode.protocol.types import Time


class Ballots:
    """Those of one node and boot."""

    def __init__(self, local: Local) -> None:
        self._local = local
        self._by = 0
        """Tells this boot's ballots from all others: drawn with the first."""
        self._last: Time = 0
        """Of the last ballot. The clock does not follow times far ahead, and would name one twice."""

    def above(self, highest: Ballot) -> Ballot:
        """One that nobody has used, above this one."""
        self._by = self._by or self._local.rng.getrandbits(63) or 1
        self._last = self._local.clock.mint({}, above=max(highest.time, self._last))
        return Ballot(self._last, self._by)
