"""Registering: the mechanisms of mode `strong`, wired together. See `consensus.py` for what they agree by.

Promises: an answer to a ballot goes to the mechanism that asked. Never: decides anything itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kvnode.core.acceptor import Acceptor
from kvnode.core.ballots import Ballots
from kvnode.core.local import Local
from kvnode.core.regreaper import RegisterReaper
from kvnode.core.regrepair import RegisterRepair
from kvnode.core.rejoin import Rejoin
from kvnode.core.strong import Strong
from kvnode.core.worlds import Worlds
from kvnode.protocol import messages as m
from kvnode.protocol.types import NodeId

Handler = Callable[[Any, Any], object]


class Registering:
    """What a node needs for registers."""

    def __init__(self, local: Local, ballots: Ballots) -> None:
        self.rejoin = Rejoin(local)
        self.acceptor = Acceptor(local)
        self.strong = Strong(local, ballots)
        self.reaper = RegisterReaper(local)
        self.repair = RegisterRepair(local, ballots)
        self.worlds = Worlds(local)

    def table(self) -> dict[type, Handler]:
        """What a member may say of registers, and who acts on it."""
        return {
            m.Prepare: self.acceptor.on_prepare,
            m.Promised: self._either(self.repair.on_promised, self.strong.on_promised),
            m.Accept: self.acceptor.on_accept,
            m.Accepted: self._either(self.repair.on_accepted, self.strong.on_accepted),
            m.Outbid: self._either(self.repair.on_outbid, self.strong.on_outbid),
            m.ReadRegister: self.acceptor.on_read_register,
            m.RegisterRead: self._either(self.repair.on_register_read, self.strong.on_register_read),
            m.ReapRegister: self.reaper.on_reap_register,
            m.RegisterReapAnswer: self.reaper.on_register_reap_answer,
            m.CopyRegisters: self.acceptor.on_copy_registers,
            m.RegistersCopied: self.rejoin.on_registers_copied,
        }

    def _either(self, repair: Handler, strong: Handler) -> Handler:
        """An answer to a ballot is for the mechanism that asked."""
        return lambda sender, told: (repair if self.repair.of(told.rid) else strong)(sender, told)

    def on_replica_refused(self, sender: NodeId, refused: m.ReplicaRefused) -> bool:
        """Someone would not. False when nobody here asked."""
        return (
            self.strong.on_replica_refused(sender, refused)
            or self.repair.on_replica_refused(sender, refused)
            or self.rejoin.on_replica_refused(sender, refused)
        )

    def on_ring(self, changed: frozenset[int], unproven: set[int]) -> None:
        """Some partitions have other owners. `unproven`: those this node came to own without having them."""
        self.rejoin.on_ring(unproven)
        self.reaper.on_ring(changed)
        self.repair.on_ring(changed)
        self.strong.on_ring(changed)
