"""Eight runs from a cold start: two processes of ours against one of TRL's that trains them one after another.

Wall time of fresh processes, imports and all set-up included. TRL's process may use every core for its threads; ours
are single-threaded, and score the reference themselves. `trl-precomputed` is given its reference log-probs.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from typing import Any

RUNS, PROCESSES, STEPS = 8, 2, 200  # steps: as many as a run of the default sweep
ARMS = ("trl-default", "trl-precomputed", "harness", "harness-fast")


def child(arm: str, size: str, lanes: int, steps: int) -> None:
    """One process of an arm, start to end."""
    import torch

    from harness.worker.train_pack import keep_freed_memory
    from tests.benchmarks.arms import ours, theirs
    from tests.benchmarks.cases import case
    from tests.benchmarks.steps import quietly

    if arm.startswith("trl"):
        torch.set_num_threads(os.cpu_count() or 1)
        for _ in range(RUNS):
            quietly(theirs(case(size, 8, steps), arm == "trl-precomputed"))
        return
    torch.set_num_threads(1)
    keep_freed_memory()
    quietly(ours(case(size, 8, steps, "fast" if arm == "harness-fast" else "strict"), lanes))


def wall(arm: str, size: str, steps: int) -> float:
    """Seconds from starting an arm's processes to the end of the last."""
    count = 1 if arm.startswith("trl") else PROCESSES
    command = [sys.executable, "-m", "tests.benchmarks.end_to_end", arm, size, str(RUNS // count), str(steps)]
    threads = {"OMP_NUM_THREADS": str(os.cpu_count() or 1) if count == 1 else "1"}
    environment = {name: text for name, text in os.environ.items() if name != "MKL_NUM_THREADS"} | threads
    began = time.monotonic()
    running = [subprocess.Popen(command, env=environment) for _ in range(count)]
    for process in running:
        if process.wait() != 0:
            raise RuntimeError(f"{arm} failed")
    return time.monotonic() - began


def measure(size: str, rounds: int, steps: int = STEPS) -> list[dict[str, Any]]:
    """Median seconds and runs an hour of each arm, interleaved, and how many times TRL's they are."""
    seconds: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for _ in range(rounds):
        for arm in ARMS:
            seconds[arm].append(wall(arm, size, steps))
    median = {arm: statistics.median(found) for arm, found in seconds.items()}
    return [
        {
            "arm": arm,
            "size": size,
            "runs": RUNS,
            "steps": steps,
            "seconds": round(spent, 2),
            "runs_per_hour": round(3600 * RUNS / spent),
            "against_default": median["trl-default"] / spent,
            "against_tuned": median["trl-precomputed"] / spent,
        }
        for arm, spent in median.items()
    ]


def table(rows: list[dict[str, Any]]) -> list[list[str]]:
    """Rows as cells of a table, head first."""
    head = ["size", "arm", "seconds", "runs an hour", "x TRL default", "x TRL tuned"]
    body = [
        [
            r["size"], r["arm"], f"{r['seconds']:.1f}", str(r["runs_per_hour"]), f"{r['against_default']:.2f}",
            f"{r['against_tuned']:.2f}",
        ]
        for r in rows
    ]  # fmt: skip
    return [head, *body]


if __name__ == "__main__":
    child(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
