"""The client's side of the protocol, pure: routes requests, pairs replies, retries what is safe.

Promises: a request goes straight to the first owner believed reachable; it ends exactly once, with
a reply or an error; nothing that may have been applied is sent again unless that is safe.
Never: touches a socket or a clock; `links.py` and the clients do.

    ask ─► route by ring ─► take() ──► sockets ──► receive() ─► call.reply
              ▲                                       │ newer epoch: Hello, learn the ring
              └──── lost(), expired: next owner ◄─────┘
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from kvctl.call import BACKOFF_S_MAX, Call, Outcome
from kvctl.errors import Indeterminate, KvError, NoEndpoint, Unavailable, error_of
from kvnode.protocol.messages import (
    CancelMoves,
    CommitPlan,
    Error,
    Failed,
    Get,
    Got,
    Hello,
    Message,
    Put,
    SetFault,
    Welcome,
    Written,
    safe_to_retry,
)
from kvnode.protocol.ring import Ring, hash_slot, shift_of
from kvnode.protocol.types import EVENTUAL, STRONG

AVOID_S = 1.0
"""How long an address that failed is the last choice."""
SILENT_S = 3.0
"""...and one that did not answer: finding out again costs more."""
PATIENCE = 0.3
"""The share of its time that a request waits for one node before it tries the next."""
PATIENCE_S_MIN = 0.05
RING_S = 0.5
"""How long a question for the ring is waited for before another is asked."""
GRACE_S = 0.3
"""How much longer than the node's deadline a client waits for the node to say so."""
FRESH_S = 0.25
"""How old the time in an answer may be."""
KNOCK_S = 0.01
"""How often it is looked whether a node has answered that a request waits for."""
REACH_S = 0.15
"""How long a `strong` request waits for a first word of the owner it would go to. Any other owner can
coordinate it, or say at once that no majority is in reach; dialling one that is gone takes longer."""

__all__ = ["Call", "Outcome", "Session"]


class Session:
    """Requests in flight, and the ring they are routed by."""

    def __init__(self, endpoints: tuple[str, ...], first_rid: int) -> None:
        self._endpoints = endpoints
        self._rid = first_rid
        self._pending: dict[int, Call] = {}
        self._out: dict[str, list[Message]] = {}
        self._later: list[tuple[float, Call]] = []
        self._avoided: dict[str, float] = {}
        self._ring_asked_at = -RING_S
        """When the ring was last asked for, because an answer was of a later epoch."""
        self._asked_time: set[str] = set()
        """Nodes that were asked for the time."""
        self._greeted: dict[int, float] = {}
        """The questions that have no answer yet, and when each was asked."""
        self._reached: set[str] = set()
        """Addresses that have answered since they were last lost."""
        self._knocked: dict[str, float] = {}
        """Those that were asked for a first word and have not given it, and since when."""
        self._clocks: dict[str, float] = {}
        """Address -> how far its wall clock (ms) is ahead of our `now`: what puts are dated by."""
        self.now = 0.0
        self.ring: Ring | None = None
        self.welcome: Welcome | None = None
        self.retried: list[int] = [0, 0]
        """Requests that were tried again: once, and each further time."""
        self._shift = 0
        self._owners: list[tuple[str, ...]] = []

    # ---- asking ----------------------------------------------------------------------------

    def next_rid(self) -> int:
        """A request id not used before in this session."""
        self._rid += 1
        return self._rid

    @property
    def in_flight(self) -> int:
        """Requests that have not ended."""
        return len(self._pending) + len(self._later)

    @property
    def has_mail(self) -> bool:
        """Whether `take` would bring anything."""
        return bool(self._out)

    def greet(self) -> None:
        """Ask every endpoint who it is; the first answer brings the ring."""
        for address in self._endpoints:
            self._knocked[address] = self.now
            self._ask_time(address)

    def start(self, call: Call) -> None:
        """Send a request on its way. Its `ask.rid` must be fresh."""
        ask = call.ask
        if call.pinned:
            address = call.pinned
        elif type(ask) is Get or type(ask) is Put:
            address = self._owners[hash_slot(ask.key) >> self._shift][0]
            if ask.mode == STRONG and (call.tried or address not in self._reached):
                address = self._in_reach(call)
                if not address:
                    return
            elif self._avoided or call.tried:
                address = self._choose(call)
        else:
            address = self._choose(call)
        call.address = address
        call.sent_at = self.now
        if type(ask) is Put or type(ask) is SetFault:
            clock = self._clocks.get(address)
            if clock is not None:
                until = int(call.deadline * 1000 + clock)
                call.ask = ask = msgspec.structs.replace(ask, deadline=until)
            else:
                self.ask_time(address)
        self._pending[ask.rid] = call
        box = self._out.get(address)
        if box is None:
            self._out[address] = [ask]
        else:
            box.append(ask)

    def _places(self, call: Call) -> tuple[str, ...]:
        """Where a request may go. Once no owner can be reached, any member may reach one, or stand in for it."""
        if not isinstance(call.ask, Get | Put):
            return self._addresses()
        owners = self._owners[hash_slot(call.ask.key) >> self._shift]
        if not (call.lost or call.ask.mode == STRONG) or any(self._worth(owner, call) for owner in owners):
            return owners
        return tuple(dict.fromkeys((*owners, *self._addresses())))

    def _worth(self, address: str, call: Call) -> bool:
        """Whether to try an address: not tried, not failing lately, nor silent when mode `strong` knocked."""
        if address in call.tried or self._avoided.get(address, 0.0) > self.now:
            return False
        strong = isinstance(call.ask, Get | Put) and call.ask.mode == STRONG
        return not strong or self.now - self._knocked.get(address, self.now) < REACH_S

    def _choose(self, call: Call) -> str:
        """The first place worth trying; else the least bad."""
        places = self._places(call)
        fresh = [a for a in places if a not in call.tried] or list(places)
        return next((a for a in fresh if self._worth(a, call)), fresh[0])

    def _in_reach(self, call: Call) -> str:
        """Where a `strong` request goes: the first owner, or else member, that answers. Empty if not now.

        Then it waits for a first word, or has ended with what an owner had to say.
        """
        worth = [place for place in self._places(call) if self._worth(place, call)]
        for place in worth:
            if place not in self._reached and place not in self._knocked:
                self._knocked[place] = self.now
                self._ask_time(place)
        if not worth and call.refused is not None:
            self._end(call, call.refused)
        elif worth and worth[0] not in self._reached:
            self._later.append((self.now + KNOCK_S, call))
        else:
            return worth[0] if worth else self._choose(call)
        return ""

    def _addresses(self) -> tuple[str, ...]:
        if self.ring is None:
            return self._endpoints
        return tuple(m.address for m in self.ring.members)

    def _post(self, address: str, message: Message) -> None:
        self._out.setdefault(address, []).append(message)

    def take(self) -> dict[str, list[Message]]:
        """What is to be sent now, by address."""
        out, self._out = self._out, {}
        return out

    # ---- hearing ---------------------------------------------------------------------------

    def receive(self, address: str, messages: list[Message]) -> None:
        """Replies from a node."""
        if self._avoided:
            self._avoided.pop(address, None)
        if self._knocked:
            self._knocked.pop(address, None)
        self._reached.add(address)
        for message in messages:
            kind = type(message)
            if kind is Got or kind is Written:
                self._settle(address, message)  # type: ignore[arg-type]
            elif kind is Welcome:
                self._note_time(address, message)  # type: ignore[arg-type]
                self._learn(message)  # type: ignore[arg-type]
            elif kind is Failed:
                self._failed(address, message)  # type: ignore[arg-type]
            else:
                call = self._pending.pop(getattr(message, "rid", 0), None)
                if call is not None:
                    self._end(call, message)  # type: ignore[arg-type]

    def _settle(self, address: str, reply: Got | Written) -> None:
        call = self._pending.pop(reply.rid, None)
        if self.ring is not None and reply.epoch > self.ring.epoch:
            self._follow(address)
        if call is not None:
            call.outcome = reply
            if call.notify is not None:
                call.notify(call)

    def _follow(self, address: str) -> None:
        """The ring has changed, says this node: ask it for the new one, unless that was done just now."""
        if self.now - self._ring_asked_at >= RING_S:
            self._ring_asked_at = self.now
            self._ask_time(address)

    def knows_time(self, address: str) -> bool:
        """Whether what is sent there can be dated by the clock of who receives it."""
        return address in self._clocks

    def ask_time(self, address: str) -> None:
        """Ask a node what time it is, unless that has been done."""
        if address not in self._asked_time:
            self._ask_time(address)

    def _ask_time(self, address: str) -> int:
        """Ask a node who it is, what the ring is, and what time. The request's id."""
        self._asked_time.add(address)
        rid = self.next_rid()
        self._greeted[rid] = self.now
        self._post(address, Hello(rid))
        return rid

    def _note_time(self, address: str, welcome: Welcome) -> None:
        """What a node's clock says, unless its answer has lain in a socket nobody read: then ask again."""
        sent = self._greeted.pop(welcome.rid, None)
        if sent is not None and self.now - sent <= FRESH_S:
            self._clocks[address] = welcome.wall_ms - self.now * 1000
        else:
            self._asked_time.discard(address)

    def _learn(self, welcome: Welcome) -> None:
        if self.ring is None or welcome.ring.epoch > self.ring.epoch:
            self._ring_asked_at = -RING_S
            self.ring = ring = welcome.ring
            self._shift = shift_of(ring.q)
            addresses = [m.address for m in ring.members]
            self._owners = [tuple(addresses[i] for i in owners) for owners in ring.owners]
        if self.welcome is None or welcome.ring.epoch >= self.welcome.ring.epoch:
            self.welcome = welcome
        call = self._pending.pop(welcome.rid, None)
        if call is not None:
            self._end(call, welcome)

    def _failed(self, address: str, failed: Failed) -> None:
        call = self._pending.pop(failed.rid, None)
        if self.ring is not None and failed.epoch > self.ring.epoch:
            self._follow(address)
        if call is None:
            return
        if failed.error == Error.REFUSED:
            # Perhaps for its clock, which may have jumped: ask for the time anew.
            self._clocks.pop(address, None)
            self._asked_time.discard(address)
        if not failed.maybe_applied and self.now < call.deadline:
            if failed.error == Error.OVERLOADED:
                self._pause(call)
                return
            if failed.error == Error.UNAVAILABLE and getattr(call.ask, "mode", EVENTUAL) == STRONG:
                call.refused = error_of(failed)
            if failed.error in (Error.UNAVAILABLE, Error.REFUSED) and self._again(call, maybe_applied=False):
                return
        if isinstance(call.ask, Put) and call.ask.retry:
            # This try left no trace, but the one before it may have.
            failed = msgspec.structs.replace(failed, maybe_applied=True)
        self._end(call, error_of(failed))

    def _end(self, call: Call, outcome: Outcome) -> None:
        call.outcome = outcome
        if call.notify is not None:
            call.notify(call)

    # ---- what goes wrong -------------------------------------------------------------------

    def lost(self, address: str, unsent: Iterable[Message] = (), *, used: bool = True) -> None:
        """A connection broke, or is down and did not take `unsent`: go on elsewhere where that is safe.

        One that was not `used` took nothing at all.
        """
        self._avoided[address] = self.now + AVOID_S
        self._reached.discard(address)
        self._knocked.pop(address, None)
        self._clocks.pop(address, None)
        self._asked_time.discard(address)
        never = {getattr(message, "rid", 0) for message in (*unsent, *self._out.pop(address, ()))}
        for rid, call in list(self._pending.items()):
            if call.address == address:
                del self._pending[rid]
                call.lost = True
                self._retry_or_end(
                    call, f"the connection to {address} broke", maybe_applied=used and rid not in never
                )

    def tick(self, now: float) -> None:
        """Let time pass: resume what was paused, end what is overdue."""
        self.now = now
        if self._later:
            due = [call for at, call in self._later if at <= now]
            self._later = [(at, call) for at, call in self._later if at > now]
            for call in due:
                self._renew(call)
        for rid, call in list(self._pending.items()):
            if call.deadline + GRACE_S <= now:
                del self._pending[rid]
                self._avoided[call.address] = now + SILENT_S
                self._end(call, self._unknown(call, f"{call.address} did not answer in time"))
            elif now - call.sent_at > max(PATIENCE_S_MIN, (call.deadline - call.sent_at) * PATIENCE):
                self._give_up_waiting(rid, call)

    def _give_up_waiting(self, rid: int, call: Call) -> None:
        """A node is silent, paused perhaps: ask the next one, where that is safe, while there is time."""
        call.sent_at = self.now
        ask = call.ask
        if call.pinned or not isinstance(ask, Get | Put) or not safe_to_retry(ask):
            return
        self._avoided[call.address] = self.now + SILENT_S
        if self._again(call, maybe_applied=True):
            del self._pending[rid]

    def _retry_or_end(self, call: Call, why: str, *, maybe_applied: bool) -> None:
        ask = call.ask
        safe = not maybe_applied or not isinstance(ask, Get | Put) or safe_to_retry(ask)
        repeated = isinstance(ask, Put) and ask.retry
        if safe and self.now < call.deadline:
            if self._again(call, maybe_applied=maybe_applied):
                return
            traceless = isinstance(ask, Get) or not (maybe_applied or repeated)
            if traceless and call.refused is None and not call.pinned and self.ring is not None:
                # It left no trace, and there is time: nodes that restart are back in a moment.
                call.tried = ()
                self._pause(call)
                return
        if maybe_applied or repeated or self.ring is None:
            self._end(call, self._unknown(call, why))
        elif call.refused is not None:
            self._end(call, call.refused)
        elif call.pinned:
            self._end(call, Unavailable(f"{call.pinned} cannot be reached", "kvctl status"))
        else:
            self._end(call, Unavailable("no owner of this key can be reached", "kvctl status"))

    def _again(self, call: Call, *, maybe_applied: bool) -> bool:
        """Send a request to the next address worth trying, if there is one."""
        if call.pinned:
            return False
        ask = call.ask
        call.tried = (*call.tried, call.address)
        if not any(self._worth(place, call) for place in self._places(call)):
            return False
        if isinstance(ask, Put) and maybe_applied:
            if ask.retry:
                return False  # once is all that is promised
            call.ask = msgspec.structs.replace(ask, retry=True)
        self._renew(call)
        return True

    def _pause(self, call: Call) -> None:
        """Try again in a while, each time a longer one."""
        self._later.append((self.now + call.pause, call))
        call.pause = min(2 * call.pause, BACKOFF_S_MAX)

    def _renew(self, call: Call) -> None:
        self.retried[len(call.tried) > 1] += bool(call.tried)
        call.ask = msgspec.structs.replace(call.ask, rid=self.next_rid())
        self.start(call)

    def _unknown(self, call: Call, why: str) -> KvError:
        if self.ring is None:
            return NoEndpoint(why, "kvctl up")
        return Indeterminate(
            why, "kvctl status", maybe_applied=isinstance(call.ask, Put | CommitPlan | CancelMoves)
        )
