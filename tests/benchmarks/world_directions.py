"""Directions in which a reference has to move: `python -m tests.benchmarks.world_directions --cache DIR`.

For both versions of the embedded world at `misaligned` 0.75: the gradients of the log-ratio margin of the 256 wrongly
ranked training pairs at the reference, each of length 1. Printed are the share of their squared length along the mean
direction and along the first principal direction, and the participation ratio (sum s^2)^2 / sum s^4 of their singular
values s, the number of directions that they occupy: 1 where one update undoes all.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from harness.data.rows import pack_rows
from harness.inputs.mythworld import mythworld_inputs
from harness.inputs.reference_models import build_models, builds, start_weights
from harness.models.architecture import skeleton
from harness.models.lane_model import build_lanes
from harness.models.logps import build_corpus, pair_logps
from harness.types import CorruptionSpec, EvaluationSpec, ObjectiveSpec, RunSpec, TrainingSpec, WorldSpec

CPU, PAIRS = torch.device("cpu"), 256


def directions(version: int, seed: int, cache: Path) -> tuple[float, float, float]:
    """Share along the mean, share along the first principal direction, participation ratio."""
    world = WorldSpec(version=version)
    run = RunSpec(ObjectiveSpec("dpo"), CorruptionSpec(), TrainingSpec(), EvaluationSpec(), seed, world=world)
    for stage in builds([run]):
        build_models(cache, stage, CPU)
    inputs = mythworld_inputs(run, start_weights(cache, run))
    rows = pack_rows([inputs.encode(pair) for pair in inputs.train], tokens=inputs.tokens, responses=inputs.responses)
    corpus = build_corpus([rows], None, CPU)
    model = build_lanes(skeleton(inputs.architecture), [inputs.weights], CPU)
    gradients: list[torch.Tensor] = []
    for row in range(len(inputs.train)):
        logps = pair_logps(model, corpus, torch.tensor([[row]]))
        margin = (logps.chosen - logps.rejected).sum()
        if margin < 0:
            gradient = model.gradient(margin)[0]
            gradients.append(gradient / gradient.norm())
        if len(gradients) == PAIRS:
            break
    matrix = torch.stack(gradients)
    squares = torch.linalg.eigvalsh(matrix @ matrix.T).clamp(min=0)
    mean = matrix.mean(0)
    return float(mean.norm() ** 2), float(squares[-1] / squares.sum()), float(squares.sum() ** 2 / (squares**2).sum())


def main() -> None:
    """Print a line per version and seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=2)
    given = parser.parse_args()
    for version in (1, 2):
        for seed in range(given.seeds):
            mean, first, ratio = directions(version, seed, given.cache)
            print(f"version {version}, seed {seed}: mean {mean:.3f}, first {first:.3f}, directions {ratio:.1f}")


if __name__ == "__main__":
    main()
