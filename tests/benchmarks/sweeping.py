"""What the product adds to a bare loop: corruption levels that share one reference; journal, records and MLflow."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.config.load import load_sweep
from harness.inputs.encoded import encode_inputs
from harness.inputs.mythworld import mythworld_architecture, mythworld_inputs
from harness.models.architecture import initial_weights
from harness.models.reference_logps import score_responses
from harness.sweep.run import SweepOptions, run_sweep
from harness.types import CorruptionSpec
from harness.worker.datasets import training_set
from tests.benchmarks.cases import CPU

SPEC = """
name: overhead
question: What do journal, records and tracking cost?
world: {kind: mythworld, pretrain_steps: 2, sft_steps: 2}
objectives: [{name: dpo, beta: [0.5, 1, 1.5, 2, 3, 4, 5, 6]}]
corruptions: [{kind: none}]
"""
TRAINING = ("forward", "backward", "optimizer")


def levels() -> list[dict[str, Any]]:
    """CPU seconds to prepare 1, 2, 4 and 8 levels of flips, against scoring the reference anew for each."""
    run = _load().runs[0]
    assert run.world is not None
    weights = initial_weights(mythworld_architecture(run.world), 0)
    inputs = mythworld_inputs(run, weights)
    scored = 0

    def score(own: Any, pairs: Any) -> Any:
        nonlocal scored
        scored += 1
        return score_responses(own.architecture, own.weights, pairs, CPU)

    began = time.process_time()
    encoded = encode_inputs(inputs, score)
    once = time.process_time() - began
    rows = []
    for count in (1, 2, 4, 8):
        began = time.process_time()
        for number in range(count):
            flips = CorruptionSpec("uniform_flip", 0.05 * (number + 1))
            training_set(encoded, flips, run.seed, score)
        shared = once + time.process_time() - began
        rows.append({"levels": count, "seconds": round(shared, 3), "scored_anew_seconds": round(once * count, 3)})
    assert scored == 1, "a flip must cost no forward pass"
    return rows


def overhead() -> dict[str, float]:
    """CPU seconds a run in training, measuring, records, files and tracking, one worker: the difference of sweeps of 24
    and 8 runs of the embedded world, a run. `once` is what tracking costs a first sweep beside (imports, tables).

    `share` is what journal, records, files and MLflow add to training and measuring.
    """
    first, few, many = _spent(1), _spent(1), _spent(3)  # what the first one imports, the others find
    runs = many["runs"] - few["runs"]
    own = {name: (many[name] - few[name]) / runs for name in few if name != "runs"}
    work = sum(own[name] for name in TRAINING)
    measuring = own["evaluation"] + own["sampling"]
    return {
        "training": work,
        "evaluation": measuring,
        "records": own["records"],
        "files": own["I/O"],
        "tracking": own["tracking"],
        "share": (own["records"] + own["I/O"] + own["tracking"]) / (work + measuring),
        "once": first["tracking"] - first["runs"] * own["tracking"],
    }


def _spent(seeds: int) -> dict[str, float]:
    """Seconds by part of a sweep of so many seeds, and its number of runs."""
    with tempfile.TemporaryDirectory() as folder:
        sweep = _load(seeds)
        run_sweep(sweep, Path(folder), 1, Console(quiet=True), SweepOptions(profile=True))
        found = json.loads((Path(folder) / sweep.name / "profile.json").read_text())
    return {**found["seconds"], "tracking": found["tracking_seconds"], "runs": float(len(sweep.runs))}


def _load(seeds: int = 1) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "overhead.yaml"
        path.write_text(f"{SPEC}seeds: {seeds}\n", encoding="utf-8")
        return load_sweep(path)
