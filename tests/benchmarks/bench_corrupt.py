"""Seconds to corrupt 60,000 pairs, per kind and form, on one core: `python tests/benchmarks/bench_corrupt.py`.

The target is under 2 s each at rate 0.3, the ledger with all its hashes included. Seconds are CPU time of this
single-threaded process (the time on a free core; other load does not count). Prints one line each, best of three;
exits 1 where one misses the target.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "corruptions"))

from corrupt_cases import CASES, NAMES, made, run

PAIRS, TARGET, REPEATS = 60_000, 2.0, 3


def main() -> int:
    pairs, facts = made(PAIRS)
    run("uniform_flip", {}, pairs[:100], facts)  # imports and first-use costs
    slow = 0
    for (kind, params), name in zip(CASES, NAMES, strict=True):
        seconds = []
        for _ in range(REPEATS):
            start = time.process_time()
            _, ledger = run(kind, params, pairs, facts)
            seconds.append(time.process_time() - start)
        slow += min(seconds) >= TARGET
        print(f"{name:45s} {min(seconds):5.2f} CPU s  {len(ledger):6d} touched")
    print(f"{slow} of {len(CASES)} at or above {TARGET} s for {PAIRS:,} pairs")
    return int(slow > 0)


if __name__ == "__main__":
    sys.exit(main())
