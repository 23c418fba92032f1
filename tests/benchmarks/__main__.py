"""What a run costs here and with TRL's DPOTrainer: `nox -s bench` measures all, about 8 minutes on 2 quiet cores.

`nox -s bench -- --sizes S --json FILE` times steps alone. The same pairs, batches, optimizer and schedule; arms
interleaved, medians over rounds of CPU time a step and run, one thread; the final log-probs of every arm are compared
first. `trl-default` computes the reference in every step, `trl-precomputed` (tuned) reads stored reference log-probs;
both without logging, checkpointing and mixed precision. `--write` puts tables and JSON into reports/benchmarks/.

`nox -s bench -- --real --help` measures a real model on pairs of yours instead (`tests/benchmarks/real.py`).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

from harness.worker.train_pack import keep_freed_memory
from tests.benchmarks import bench_memory, end_to_end, real, steps, sweeping
from tests.benchmarks.cases import CPU_SIZES, SIZES
from tests.benchmarks.page import FOLDER, cells, machine, taken_on


def page(found: dict[str, Any], command: str) -> str:
    """The results as Markdown."""
    parts = [
        "# Benchmark",
        f"`{command}` {taken_on(found['machine'])} What each figure means: `tests/benchmarks/`.",
        "## A step",
        "CPU milliseconds an optimizer step and run, one thread, medians of interleaved rounds; parity is the largest "
        "relative difference of final log-probs from TRL's. Runs of a pack differ in nothing but their lane.",
        cells(steps.table(found["steps"])),
    ]
    if "end_to_end" in found:
        parts += [
            "## Eight runs from a cold start",
            f"Wall time of {end_to_end.RUNS} runs of {end_to_end.STEPS} steps, imports and set-up included: "
            f"{end_to_end.PROCESSES} single-threaded processes against TRL's runs one after another with every core.",
            cells(end_to_end.table(found["end_to_end"])),
        ]
    if "curves" in found:
        parts += ["## How it grows", "Runs of 200 steps an hour and core, batch 8, `mode: fast`."]
        for name, rows in found["curves"].items():
            keys = list(rows[0])
            parts.append(f"By {name}:\n\n" + cells([keys, *[[_text(row[key]) for key in keys] for row in rows]]))
        parts.append(
            "By number of corruption levels: CPU seconds of set-up with one reference for all, and with the reference "
            "scored for each.\n\n"
            + cells([list(found["levels"][0]), *[[_text(v) for v in r.values()] for r in found["levels"]]])
        )
    if "overhead" in found:
        parts += [
            "## What the product adds to a bare loop",
            "CPU seconds a run of the embedded world (200 steps of 16 pairs), one worker: the difference of sweeps of "
            "24 and 8 runs. `share` is what records, files and MLflow add to training and measuring; `once` what "
            "tracking costs a sweep beside.",
            cells([list(found["overhead"]), [f"{value:.3f}" for value in found["overhead"].values()]]),
        ]
    if "memory" in found:
        keys = list(found["memory"])
        parts += ["## Memory a lane", cells([keys, [_text(found["memory"][key]) for key in keys]])]
    return "\n\n".join(parts) + "\n"


def _text(value: Any) -> str:
    return (
        f"{value:,.3g}"
        if isinstance(value, float) and value < 1000
        else f"{value:,.0f}"
        if not isinstance(value, str)
        else value
    )


def main() -> None:
    if "--real" in sys.argv:
        real.main([word for word in sys.argv[1:] if word != "--real"])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", choices=sorted(SIZES), help="steps of these sizes alone")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--packs", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="rows of the steps")
    parser.add_argument("--write", action="store_true", help="into reports/benchmarks/")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    device = torch.device(options.device)
    found: dict[str, Any] = {"machine": machine(device), "steps": []}
    for size in options.sizes or CPU_SIZES:
        found["steps"] += steps.measure(size, options.batch, options.steps, options.rounds, options.packs, device)
        if options.json:
            options.json.write_text(json.dumps(found["steps"], indent=1), encoding="utf-8")
    if not options.sizes and device.type == "cpu":
        found["end_to_end"] = end_to_end.measure("S", 1)
        found["curves"] = steps.curves(5, device)
        found["levels"] = sweeping.levels()
        found["overhead"] = sweeping.overhead()
        found["memory"] = bench_memory.measure("M", 8, 16, "strict")
    text = page(found, " ".join(["nox -s bench", *(["--", *sys.argv[1:]] if sys.argv[1:] else [])]))
    print(text)
    if options.write:
        FOLDER.mkdir(parents=True, exist_ok=True)
        name = "cuda" if device.type == "cuda" else "cpu"
        (FOLDER / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        (FOLDER / f"{name}.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
