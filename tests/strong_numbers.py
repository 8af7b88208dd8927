"""`make strong`: 500 registers on real processes, killed, paused, cut off and slowed; is each one linearizable?

python -m tests.strong_numbers [ROUNDS] [SEED]
"""

from __future__ import annotations

import random
import sys
import time

from kvctl.scenarios.machines import Machines, own_cluster
from kvctl.scenarios.running import run_live
from kvnode.sim.scenario import case_of, parse

NODES, REGISTERS = 5, 50
SCENARIO = f"""
about = "Registers under load while processes and links fail."
nodes = {NODES}
seconds = 50
[workload]
mode = "strong"
keys = {REGISTERS}
clients = 8
rate = 500
gets = 50
puts = 45
deletes = 5
scans = 0
via = "owner"
[[fault]]
every = "6s..10s"
kind = "kill"
node = "any"
for = "500ms..2s"
[[fault]]
every = "8s..14s"
kind = "pause"
node = "any"
for = "300ms..2s"
[[fault]]
every = "8s..14s"
kind = "partition"
from = "any 2"
for = "1s..3s"
[[fault]]
every = "6s..12s"
kind = "delay"
node = "any"
amount = "30ms"
for = "1s..3s"
[[fault]]
every = "6s..12s"
kind = "drop"
node = "any"
amount = "5%"
for = "1s..3s"
"""


def main(rounds: int, seed: int) -> int:
    """Rounds of fifty registers each. How many were not linearizable, or could not be judged."""
    scenario = parse(SCENARIO)
    began, registers, wrong, operations, unknown, acked = time.monotonic(), 0, 0, 0, 0, 0
    shortest = 1 << 30
    print(f"seed {seed}", flush=True)
    for number in range(seed, seed + rounds):
        case = case_of(scenario, "registers", number)
        with own_cluster(case.nodes, case.n, "") as (cluster, _):
            report = run_live(case, cluster, Machines(cluster))
        judged = report.judgement
        registers += judged.registers
        operations += judged.operations
        unknown += judged.indeterminate
        acked += judged.acknowledged
        shortest = min(shortest, judged.shortest)
        wrong += not judged.passed
        print(
            f"round {number - seed + 1}: {judged.registers} registers of {judged.shortest} operations or more, "
            f"{judged.acknowledged} writes acknowledged, {judged.indeterminate} unknown, {judged.failed} refused; "
            f"linearizable: {judged.linearizable}; faults {report.faults}",
            flush=True,
        )
        for violation in judged.violations:
            print(f"  {violation.claim} of {violation.key!r}: {violation.text}")
    print(
        f"{registers} registers, {operations} operations, the shortest history {shortest}; "
        f"{acked} writes acknowledged, {unknown} unknown ({100 * unknown / max(1, operations):.2f} %), "
        f"{wrong} rounds wrong, {time.monotonic() - began:.0f} s",
        flush=True,
    )
    return wrong


if __name__ == "__main__":
    asked = [int(word) for word in sys.argv[1:]]
    anew = random.SystemRandom().randrange(1 << 30)
    sys.exit(bool(main(asked[0] if asked else 10, asked[1] if len(asked) > 1 else anew)))
