"""Runs of seeds as a catcher: exit 1 at the first that breaks a promise, 0 if none does.

python -m tests.mutants.seeds short 1..40
python -m tests.mutants.seeds simulate hostile quorum 2min 1..5
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from kvnode.sim import campaign, registers, workload
from kvnode.sim.check import Violation
from kvnode.sim.profiles import PROFILES, draw
from tests import test_sim_seeds, test_strong_seeds

SHORT = {"short": None, "short-loud": test_sim_seeds.LOUD}
STRONG = {
    "strong": None, "strong-slow": test_strong_seeds.SLOW, "strong-split": test_strong_seeds.SPLIT,
    "strong-crowd": test_strong_seeds.CROWD, "strong-wiped": test_strong_seeds.WIPED,
}  # fmt: skip


def runner(words: list[str]) -> Callable[[int], list[Violation]]:
    """What a seed of this kind is, and what it breaks."""
    kind, *how = words
    if kind in SHORT:
        return lambda seed: workload.run(seed, SHORT[kind]).violations
    if kind in STRONG:
        return lambda seed: registers.run_strong(seed, STRONG[kind]).violations
    assert kind == "simulate", words
    profile = next((word for word in how if word in PROFILES), "hostile")
    mode = "quorum" if "quorum" in how else "eventual"
    minutes = next((int(word.removesuffix("min")) for word in how if word.endswith("min")), 1)

    def simulate(seed: int) -> list[Violation]:
        judged = campaign.run(draw(seed, profile, minutes=minutes, mode=mode)).judgement
        return [
            *judged.violations,
            *(Violation("unjudged", key, "nobody could read it") for key in judged.unjudged),
        ]

    return simulate


def main(words: list[str]) -> int:
    """The exit code."""
    *kind, span = words
    first, last = (int(end) for end in span.split(".."))
    run = runner(kind)
    for seed in range(first, last + 1):
        name = f"{' '.join(kind)} {seed}"
        try:
            violations = run(seed)
        except AssertionError as error:  # the store's own, or the simulator's: it never came true
            print(f"FAILED {name} - AssertionError: {error}".replace("\n", " "))
            return 1
        if violations:
            print(f"FAILED {name} - {violations[0].claim} of {violations[0].key!r}: {violations[0].text}"[:400])
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
