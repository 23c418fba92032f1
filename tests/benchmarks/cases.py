"""What every arm of the benchmark trains: random pairs, an untrained decoder of one of three sizes, one order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from harness.data.order import batch_ids
from harness.data.rows import TokenisedPair
from harness.models.architecture import Architecture, initial_weights, skeleton
from harness.models.lane_model import parameter_shapes, unflatten
from harness.types import TrainingSpec

CPU = torch.device("cpu")
# (vocabulary, width, layers, prompt tokens, response tokens)
SIZES = {"XS": (128, 32, 2, 16, 16), "S": (512, 64, 4, 24, 20), "M": (1024, 128, 4, 24, 20)}
BETA = 0.1


@dataclass(frozen=True)
class Case:
    """One size: pairs, starting weights, settings and the order of batches."""

    size: str
    architecture: Architecture
    weights: torch.Tensor
    pairs: list[TokenisedPair]
    settings: TrainingSpec
    order: np.ndarray


def case(size: str, batch: int, steps: int, mode: str = "strict", factor: int = 1) -> Case:
    """Random pairs of a size, its untrained model and settings. The same for every arm."""
    vocabulary, width, layers, prompt, response = SIZES[size]
    prompt, response = prompt * factor, response * factor
    rng = np.random.default_rng(0)

    def tokens(low: int, high: int) -> np.ndarray:
        return rng.integers(3, vocabulary, rng.integers(low, high + 1)).astype(np.int32)

    pairs = [
        TokenisedPair(str(i), tokens(prompt // 2, prompt), tokens(4, response), tokens(4, response)) for i in range(128)
    ]
    architecture = Architecture(vocabulary, width, layers, max(width // 32, 1), width * 3, 128 * factor)
    settings = TrainingSpec(steps=steps, batch_size=batch, learning_rate=1e-3, warmup_steps=2, mode=mode)
    order = batch_ids([p.id for p in pairs], 0, steps, batch)
    return Case(size, architecture, initial_weights(architecture, 0), pairs, settings, order)


def plain(made: Case, weights: torch.Tensor) -> Any:
    """An unmodified model with these weights."""
    model = skeleton(made.architecture)
    values = unflatten(weights, parameter_shapes(model))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(values[name])
    return model
