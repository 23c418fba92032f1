"""Memory a lane, predicted and measured: `python -m tests.benchmarks.bench_memory [--size M] [--lanes 8 16]`.

Measured is how much the peak resident memory of a process grows from one pack size to the next, each in a process of
its own, three steps long. Exits 1 where the prediction of `harness/sweep/estimates.py` is off by more than 20 %.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

TOLERANCE = 0.2


def peak(size: str, lanes: int, mode: str) -> tuple[int, int]:
    """Peak bytes of this process after three steps of a pack, and the predicted bytes of a lane."""
    import torch

    from harness.data.rows import pack_rows
    from harness.models.logps import build_corpus
    from harness.models.pack import Lane, Pack
    from harness.objectives.registry import resolve
    from harness.sweep.estimates import StepShape, lane_bytes
    from harness.training.loop import start, train
    from harness.worker.train_pack import keep_freed_memory
    from tests.benchmarks.cases import case

    torch.set_num_threads(1)
    keep_freed_memory()
    made = case(size, 8, 3, mode)
    rows = pack_rows(made.pairs)
    corpus = build_corpus([rows], None, torch.device("cpu"))
    batches = torch.from_numpy(made.order)
    lane = Lane("x", resolve("dpo", {"beta": 0.1}), made.settings, made.weights, batches, torch.zeros_like(batches) > 0)
    list(train(start(Pack(made.architecture, corpus, (lane,) * lanes), torch.device("cpu"))))
    a = made.architecture
    shape = StepShape(
        a.hidden_size, a.layers, a.intermediate_size, a.vocab_size,
        made.settings.batch_size, rows.ids.shape[1], rows.target.shape[1], len(made.weights),
    )  # fmt: skip
    return _peak(), lane_bytes(shape)


def _peak() -> int:
    """Peak resident bytes of this process. Not `ru_maxrss`, which begins at what the parent had when it started us."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM:"))) * 1024


def measure(size: str, low: int, high: int, mode: str) -> dict[str, float]:
    """Predicted and measured bytes a lane between two pack sizes."""
    found = []
    for lanes in (low, high):
        command = [sys.executable, "-m", "tests.benchmarks.bench_memory", "--child", size, str(lanes), mode]
        found.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    measured = (found[1][0] - found[0][0]) / (high - low)
    return {"size": size, "lanes": high, "mode": mode, "predicted": found[0][1], "measured": measured}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", nargs=3)
    parser.add_argument("--size", default="M")
    parser.add_argument("--lanes", type=int, nargs=2, default=[8, 16])
    given = parser.parse_args()
    if given.child:
        print(json.dumps(peak(given.child[0], int(given.child[1]), given.child[2])))
        return 0
    row = measure(given.size, *given.lanes, "strict")
    off = row["predicted"] / row["measured"] - 1
    told, found = row["predicted"] / 2**20, row["measured"] / 2**20
    print(f"size {given.size}, {given.lanes} lanes: predicted {told:.1f} MiB a lane, measured {found:.1f}, {off:+.0%}")
    return int(abs(off) > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
