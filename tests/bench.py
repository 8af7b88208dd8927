"""`make bench`: the figures of the README, on three fresh nodes of this machine.

N=3 R=2 W=2, 100-byte values, fsync, the client on the same cores. Absolute figures are this machine's;
what travels is the ratio to the fsync time printed beside them.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from kvctl.bench import Bench, Plan
from tests.procs import Cluster

SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
HEADER = (
    f"{'op':>4} {'in flight':>9} {'ops/s':>8} {'p50 ms':>8} {'p99 ms':>8} {'p99.9':>8} {'commit ms':>9} errors"
)


def main() -> None:
    """Puts, then gets, at 1, 50 and 256 in flight."""
    with tempfile.TemporaryDirectory() as home, Cluster(Path(home), 3) as cluster, cluster.client() as client:
        print(HEADER)
        for op in ("put", "get"):
            for in_flight in (1, 50, 256):
                bench = Bench(client, Plan(op=op, in_flight=in_flight, duration_s=SECONDS))
                bench.load()
                result = bench.run()
                p50, p99, p999 = result.latency.percentiles_ms((50, 99, 99.9))
                commit = "-" if result.fsync_ms is None else f"{result.fsync_ms:.2f}"
                print(
                    f"{op:>4} {in_flight:>9} {result.ops_per_s:>8.0f} {p50:>8.3f} {p99:>8.3f} {p999:>8.3f} "
                    f"{commit:>9} {dict(result.errors) or 'none'}"
                )


if __name__ == "__main__":
    main()
