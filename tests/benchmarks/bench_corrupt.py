"""Seconds to corrupt 60,000 pairs on one core: `python tests/benchmarks/bench_corrupt.py [NAME ...]`.

In memory per kind and form: the target is under 2 s each at rate 0.3, the ledger with all its hashes included; for
arms that fit models of their own, 30 s. As a file, `harness corrupt` from reading to set, ledger and card: under 60 s
for text and conversations, JSONL and Parquet. Seconds are CPU time of this single-threaded process (the time on a free
core; other load does not count). Prints one line each, the best of three in memory; exits 1 where one misses its
target. NAMEs choose among the lines.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "corruptions"))

from corrupt_cases import CASES, NAMES, made, run

from harness import corrupt_file

PAIRS, TARGET, REPEATS = 60_000, 2.0, 3
FITTED, FILE_TARGET = 30.0, 60.0
FILES = tuple((form, ending) for form in ("text", "turns") for ending in ("jsonl", "parquet"))


def in_memory(wanted: list[str]) -> int:
    """The kinds that miss their target."""
    pairs, facts = made(PAIRS)
    run("uniform_flip", {}, pairs[:100], facts)  # imports and first-use costs
    slow = 0
    for (kind, params), name in zip(CASES, NAMES, strict=True):
        if wanted and name not in wanted:
            continue
        target, seconds = FITTED if kind.startswith("crossfit") else TARGET, []
        for _ in range(REPEATS):
            start = time.process_time()
            _, ledger = run(kind, params, pairs, facts)
            seconds.append(time.process_time() - start)
        slow += min(seconds) >= target
        print(f"{name:45s} {min(seconds):5.2f} CPU s  {len(ledger):6d} touched", flush=True)
    return slow


def as_files(wanted: list[str]) -> int:
    """The files that miss their target."""
    slow = 0
    for form, ending in FILES:
        name = f"file-{form}-{ending}"
        if wanted and name not in wanted:
            continue
        with tempfile.TemporaryDirectory() as folder:
            data, size = Path(folder) / "own.jsonl", 0
            with data.open("w", encoding="utf-8") as file:
                for pair in made(PAIRS)[0]:
                    sides = {"chosen": pair.chosen, "rejected": pair.rejected}
                    row = {"prompt": pair.prompt, **sides}
                    if form == "turns":
                        row = {"prompt": [{"role": "user", "content": pair.prompt}]}
                        row |= {side: [{"role": "assistant", "content": text}] for side, text in sides.items()}
                    size += file.write(json.dumps(row) + "\n")
            start = time.process_time()
            corrupt_file(data, Path(folder) / f"noisy.{ending}", kind="uniform_flip", rate=0.3)
            seconds = time.process_time() - start
        slow += seconds >= FILE_TARGET
        print(f"{name:45s} {seconds:5.2f} CPU s  {size / 1e6:.0f} MB read", flush=True)
    return slow


def main() -> int:
    wanted = sys.argv[1:]
    slow = in_memory(wanted) + as_files(wanted)
    print(f"{slow} above their target for {PAIRS:,} pairs")
    return int(slow > 0)


if __name__ == "__main__":
    sys.exit(main())
