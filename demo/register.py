"""Register: a counter that several clients raise at once, while an owner dies: none is lost or counted twice."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from kvctl import Client, Conflict, KvError
from kvnode.sim.linear import ANY, FOREVER, RegisterOp, linearizable

from .stage import Stage

TITLE = "Register: compare-and-set that holds, whoever dies"
KEY = "counter"
CLIENTS, RAISES = 4, 30
PATIENCE_S = 20.0
AGAIN_S = 0.02


def tell(stage: Stage) -> None:
    """Two raises that count once in mode eventual; then mode strong, with an owner killed in the middle."""
    stage.title(TITLE)
    stage.say("Two clients read a counter and raise it by one. In mode eventual both are told that it worked:")
    with stage.client() as client:
        client.put("sheep", b"0")
        seen = client.fetch("sheep")
        for by in (b"Ann", b"Bob"):
            client.put("sheep", b"1, says " + by, context=seen.context)
        stage.kvctl("get", "sheep", "--siblings")
        there = [number_in(sibling.value) for sibling in client.fetch("sheep").siblings]
        stage.claim("eventual: two raises, and nobody reads a 2: two siblings say 1", there == [1, 1])

        stage.say("\nIn mode strong the second is told that what it read is no longer there:")
        client.put(KEY, name(0, 0, 0), mode="strong")
        seen = client.fetch(KEY, mode="strong")
        client.put(KEY, name(1, 0, 1), mode="strong", if_match=seen.context)
        late = stage.kvctl("put", KEY, "late", "--mode", "strong", "--if-match", seen.context)
        stage.claim("strong: the second raise is refused (exit 7)", late.exit == 7)

        victim = stage.owners(KEY)[0]
        stage.say(
            f"\n{CLIENTS} clients raise it {RAISES} times each; {victim}, its first owner, is killed meanwhile:"
        )
        began = time.monotonic_ns()
        with ThreadPoolExecutor(CLIENTS) as pool:
            running = [pool.submit(Counting(stage.client(), number).run) for number in range(1, CLIENTS + 1)]
            stage.kvctl("fault", "kill", victim, "--yes")
            time.sleep(2.0)
            stage.kvctl("fault", "restart", victim)
            history = [op for one in running for op in one.result()]
        stage.claim("it is back", stage.wait("all nodes up", stage.all_up))
        stage.kvctl("get", KEY, "--mode", "strong")
        judge(stage, history, began, client)


def judge(stage: Stage, history: list[RegisterOp], began: int, client: Client) -> None:
    """What the counter says, against what clients were told; then the checker on every answer."""
    last = client.fetch(KEY, mode="strong").value
    now = time.monotonic_ns()
    first = RegisterOp(number=0, client="c0", reads=False, value=name(1, 0, 1), invoked=began - 2, ended=began - 1)
    end = RegisterOp(number=1, client="c0", reads=True, value=last, invoked=now, ended=now + 1)
    acked = sum(op.sure and not op.failed for op in history if not op.reads)
    unknown = sum(not op.sure for op in history)
    refused = sum(op.failed for op in history)
    reached = number_in(last or b"0")
    stage.say(f"{acked} raises acknowledged, {refused} came too late, {unknown} unknown; it says {reached}")
    stage.claim(
        f"all {CLIENTS * RAISES} raises were acknowledged, while a node was down", acked == CLIENTS * RAISES
    )
    stage.claim(
        "the counter is what was acknowledged, give or take the unknown: nothing lost, nothing counted twice",
        acked + 1 <= reached <= acked + 1 + unknown,
    )
    everything = [first, *history, end]
    stage.claim(
        f"linearizable: one order explains all {len(everything)} answers of {CLIENTS} clients",
        linearizable(everything) is True,
    )


def name(number: int, client: int, raised: int) -> bytes:
    """A value of the counter that nobody else writes."""
    return b"%d, by client %d as its %d" % (number, client, raised)


def number_in(value: bytes) -> int:
    """What the counter says."""
    return int(value.split(b",")[0])


class Counting:
    """A client that raises the counter, and writes down what it was told."""

    def __init__(self, client: Client, number: int) -> None:
        self._client = client
        self._number = number
        self._tries = 0
        self.ops: list[RegisterOp] = []

    def run(self) -> list[RegisterOp]:
        """Raise it so often, or as often as patience allows."""
        deadline = time.monotonic() + PATIENCE_S
        raised = 0
        with self._client:
            while raised < RAISES and time.monotonic() < deadline:
                try:
                    raised += self._raise()
                except KvError:
                    time.sleep(AGAIN_S)
        return self.ops

    def _raise(self) -> bool:
        began = time.monotonic_ns()
        seen = self._client.fetch(KEY, mode="strong")
        self._note(began, reads=True, value=seen.value)
        assert seen.value is not None
        self._tries += 1
        value = name(number_in(seen.value) + 1, self._number, self._tries)
        began = time.monotonic_ns()
        try:
            self._client.put(KEY, value, mode="strong", if_match=seen.context)
        except Conflict:
            self._note(began, value=value, expects=seen.value, failed=True)
            return False
        except KvError as error:
            if error.applied == "maybe":
                self._note(began, value=value, expects=seen.value, sure=False)
            raise
        self._note(began, value=value, expects=seen.value)
        return True

    def _note(
        self, began: int, *, value: bytes | None, reads: bool = False, expects: bytes | None = ANY,
        failed: bool = False, sure: bool = True,
    ) -> None:  # fmt: skip
        op = RegisterOp(
            number=1_000 * self._number + len(self.ops), client=f"c{self._number}", reads=reads, value=value,
            expects=expects, failed=failed, sure=sure, invoked=began,
            ended=time.monotonic_ns() if sure else FOREVER,
        )  # fmt: skip
        self.ops.append(op)
