"""Clients: they say Get, Put and Scan straight to a chosen node, and write down what became of it.

Promises: every operation ends: answered, or given up a moment after its deadline. What is given up
stays unknown, whatever comes later. Never: retries, routes or merges; that is the real client's work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from kvnode.protocol.codec import CLIENT, PROTOCOL_VERSION, Greeting, Reader, encode_batches, encode_greeting
from kvnode.protocol.context import decode_context, encode_context, join
from kvnode.protocol.messages import (
    ClientReply,
    ClientRequest,
    Committed,
    Condition,
    Done,
    Failed,
    Get,
    Got,
    Message,
    Planned,
    Put,
    Scan,
    Scanned,
    StagedNow,
    Written,
)
from kvnode.protocol.types import QUORUM, STRONG, Address, NodeId, Past, Record, decode_record
from kvnode.sim.clock import Tenths, tenths
from kvnode.sim.events import Timeline, Trace
from kvnode.sim.history import Dot, Op, Outcome, dot_of
from kvnode.sim.linear import ANY
from kvnode.sim.network import Network

PATIENCE_MS = 200
"""How long after its deadline an operation is given up."""
Ask = Get | Put | Scan
Look = Callable[[bytes], tuple[tuple[Record, ...], tuple[Record, ...]]]
"""What each owner of a key durably holds now. Only a fake world has such a thing."""


class Context(NamedTuple):
    """What a client has seen of a key: the token it was given, and the versions that token stands for."""

    token: bytes
    saw: frozenset[Dot]


class Call:
    """One operation: under way, answered, or given up."""

    __slots__ = (
        "ask",
        "client",
        "expects",
        "held_then",
        "invoked",
        "kept_then",
        "node",
        "on_done",
        "replied",
        "result",
        "saw",
    )

    def __init__(self, client: bytes, node: NodeId, ask: Ask, invoked: Tenths, saw: frozenset[Dot]) -> None:
        self.client = client
        self.node = node
        self.ask = ask
        self.invoked = invoked
        self.saw = saw
        self.replied: Tenths | None = None
        """When it was answered or given up."""
        self.result: ClientReply | None = None
        """None while it is under way, and when it was given up."""
        self.held_then: tuple[Record, ...] | None = None
        self.kept_then: tuple[Record, ...] = ()
        """What each owner durably held at that moment."""
        self.on_done: Callable[[Call], None] | None = None
        self.expects: bytes | None = ANY
        """In mode `strong`: the value that must be there for a put to be done."""

    def done(self) -> bool:
        """Whether it is over."""
        return self.replied is not None

    # ---- what came of it -------------------------------------------------------------------

    @property
    def written(self) -> Written:
        """The acknowledgement of a write; fails if there is none."""
        assert isinstance(self.result, Written), f"{self.ask} ended with {self.result}"
        return self.result

    @property
    def failed(self) -> Failed:
        """The refusal; fails if there is none."""
        assert isinstance(self.result, Failed), f"{self.ask} ended with {self.result}"
        return self.result

    @property
    def record(self) -> Record:
        """What a get was shown; fails if it was not answered."""
        assert isinstance(self.result, Got), f"{self.ask} ended with {self.result}"
        return decode_record(self.result.record) if self.result.record else ()

    @property
    def values(self) -> list[bytes]:
        """The live values shown, in order."""
        return sorted(version.value for version in self.record if version.value is not None)

    @property
    def context(self) -> Context:
        """For the next write of this key: covers what this operation saw or wrote."""
        if isinstance(self.result, Written):
            told = self.result
            saw = frozenset({Dot(told.actor, told.time)})
            past: Past = told.past | {told.actor: told.time}
        else:
            saw = frozenset(map(dot_of, self.record))
            past = join(self.record)
        return Context(encode_context(self._key, past).encode(), saw)

    @property
    def written_key(self) -> bytes:
        """The key of a write, or of a get."""
        return self._key

    @property
    def _key(self) -> bytes:
        assert not isinstance(self.ask, Scan)
        return self.ask.key

    # ---- as history ------------------------------------------------------------------------

    def ops(self) -> list[Op]:
        """What a checker of versions is told of it; registers have another (`linear`)."""
        if not isinstance(self.ask, Scan) and self.ask.mode == STRONG:
            return []
        match self.ask:
            case Put():
                return [self._write(self.ask)]
            case Get() if isinstance(self.result, Got):
                return [self._read(self.ask.key, self.record, quorum=self.ask.mode == QUORUM)]
            case Scan() if isinstance(self.result, Scanned):
                return [self._read(row.key, decode_record(row.record)) for row in self.result.rows]
        return []

    def _read(self, key: bytes, shown: Record, *, quorum: bool = False) -> Op:
        return Op(
            number=self.ask.rid, client=self.client.decode(), key=key, reads=True, quorum=quorum,
            invoked=self.invoked, ended=self.replied, outcome=Outcome.OK, shown=shown, held_then=self.held_then,
            kept_then=self.kept_then,
        )  # fmt: skip

    def _write(self, ask: Put) -> Op:
        told = self.result
        outcome, ended, dot, past = Outcome.UNKNOWN, None, None, None
        if isinstance(told, Written):
            outcome, ended = Outcome.OK, self.replied
            dot, past = Dot(told.actor, told.time), told.past
        elif isinstance(told, Failed) and not told.maybe_applied:
            outcome, ended = Outcome.FAILED, self.replied
        contextual = bool(ask.context) and ask.condition != Condition.ABSENT
        return Op(
            number=ask.rid, client=self.client.decode(), key=ask.key, reads=False, value=ask.value,
            quorum=ask.mode == QUORUM, given=decode_context(ask.key, ask.context) if contextual else None,
            saw=self.saw, covers_nothing=not contextual and (ask.siblings or ask.retry),
            invoked=self.invoked, ended=ended, outcome=outcome, dot=dot, past=past,
            acked=told.acked if isinstance(told, Written) else 0, held_then=self.held_then,
            kept_then=self.kept_then,
        )  # fmt: skip


class SimClients:
    """All clients of a world; each is a connection of its own."""

    up = True
    boot = 0

    def __init__(self, timeline: Timeline, trace: Trace, network: Network, look: Look) -> None:
        self._timeline = timeline
        self._trace = trace
        self._network = network
        self._look = look
        self._reader = Reader()
        self._greeting = encode_greeting(Greeting(PROTOCOL_VERSION, 0, CLIENT, "", 0))
        self._attached: dict[bytes, None] = {}
        self._pending: dict[int, Call] = {}
        self._questions: dict[int, Callable[[Message], None]] = {}
        self._number = 0
        self.calls: list[Call] = []
        """Every operation there was, in the order they began."""

    @property
    def waiting(self) -> int:
        """Operations under way."""
        return len(self._pending)

    def next_number(self) -> int:
        """A request id."""
        self._number += 1
        return self._number

    def order(self, client: bytes, node: NodeId, ask: ClientRequest) -> None:
        """Say this to a node; its answer is nobody's concern."""
        self._attach(client)
        self._network.send(client, node, encode_batches(self._greeting, [ask]), once=True)

    def question(self, client: bytes, node: NodeId, ask: ClientRequest, then: Callable[[Message], None]) -> None:
        """Say this to a node; `then` is told the answer, if one comes."""
        self._questions[ask.rid] = then
        self.order(client, node, ask)

    def _attach(self, client: bytes) -> None:
        if client not in self._attached:
            self._attached[client] = None
            self._network.attach(client, self)

    def call(self, client: bytes, node: NodeId, ask: Ask, saw: frozenset[Dot] = frozenset()) -> Call:
        """Say this to a node."""
        self._attach(client)
        call = Call(client, node, ask, self._timeline.now, saw)
        self.calls.append(call)
        self._pending[ask.rid] = call
        messages: list[Message] = [ask]
        self._network.send(client, node, encode_batches(self._greeting, messages), once=True)
        self._timeline.after(tenths(ask.timeout_ms + PATIENCE_MS), self._give_up, ask.rid)
        return call

    def arrive(self, sender: Address, frame: bytes | bytearray) -> None:
        """Replies came back."""
        read = self._reader.read(bytes(frame))
        assert read is not None, "the network never damages a frame"
        if self._trace.reads_along:
            self._trace.line(f"{sender!r} > client: {read.messages}")
        for message in read.messages:
            then = self._questions.pop(getattr(message, "rid", -1), None)
            if then is not None:
                then(message)
                continue
            if isinstance(message, Done | StagedNow | Planned | Committed):
                continue  # to an operator, who has heard it before, or does not listen
            assert isinstance(message, Got | Written | Failed | Scanned), f"{message} is no reply"
            call = self._pending.pop(message.rid, None)
            if call is not None:
                call.result = message
                if isinstance(message, Got | Written) and not isinstance(call.ask, Scan):
                    call.held_then, call.kept_then = self._look(call.ask.key)
                self._over(call)

    def _give_up(self, number: int) -> None:
        call = self._pending.pop(number, None)
        if call is not None:
            self._trace.note("given_up", call.client.decode(), str(number))
            self._over(call)

    def _over(self, call: Call) -> None:
        call.replied = self._timeline.now
        if call.on_done is not None:
            call.on_done(call)
