"""Seconds and memory of a report over a large sweep: `python tests/benchmarks/bench_report.py [folder]`.

Targets, on one free core: 500 runs of 512 held-out pairs at 12 checkpoints in under 20 s and 1 GB, 10,000 runs at
summary level (no per-example records read) in under 60 s. The folders are synthetic and made first, in a temporary
folder unless one is given; each report is written by a process of its own. Prints a line each; exits 1 on a miss.
Seconds are CPU time of that single-threaded process: other load on the machine does not count.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from harness.types import RunSpec  # noqa: E402
from tests.report import fixture  # noqa: E402

STEPS = (0, 2, 4, 8, 13, 20, 32, 50, 76, 110, 150, 200)
CASES = (("full", 500, 20.0), ("summary", 10_000, 60.0))
CHILD = """
import json, resource, sys, time
from pathlib import Path
from harness.report.page import write_report
page = write_report(Path(sys.argv[1]))
assert "torch" not in sys.modules
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"seconds": time.process_time(), "peak": peak, "page": page.stat().st_size}))
"""


def specs(count: int, items: int) -> list[RunSpec]:
    """`count` runs of 10 seeds: objectives x betas x rates x dials, in as many copies of the training as it takes."""

    def endless() -> Iterator[RunSpec]:
        objectives = ("dpo", "ipo", "robust_dpo", "simpo", "hypo", "cpo_smooth")
        rates = (0.0, 0.1, 0.2, 0.3, 0.4)
        for copy in range(1000):
            for run in fixture.grid(objectives, betas=2, rates=rates, seeds=10, items=items):
                yield replace(run, training=replace(run.training, steps=200 + copy))

    stream = endless()
    return [next(stream) for _ in range(count)]


def make(folder: Path, count: int, items: int, records: bool) -> None:
    """Writes the sweep; without `records` the per-example tables are removed again."""
    fixture.STEPS = STEPS if records else (0, 200)
    fixture.write_sweep(folder, specs(count, items), samples=records)
    if not records:
        for path in folder.glob("*/examples.parquet"):
            path.unlink()


def main(parent: Path) -> int:
    missed = 0
    for name, count, target in CASES:
        folder = parent / f"{name}-{count}"
        if not folder.exists():
            make(folder, count, 512 if name == "full" else 8, records=name == "full")
        command = [sys.executable, "-c", CHILD, str(folder)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout)
        miss = found["seconds"] >= target or found["peak"] >= 2**30
        missed += miss
        print(
            f"{name:8s} {count:6,d} runs  {found['seconds']:6.1f} CPU s (target {target:g})"
            f"  {found['peak'] / 2**20:6.0f} MiB  page {found['page'] / 2**10:.0f} KiB{'  MISSED' if miss else ''}",
            flush=True,
        )
    return int(missed > 0)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(main(Path(sys.argv[1])))
    with tempfile.TemporaryDirectory() as scratch:
        sys.exit(main(Path(scratch)))
