"""What every arm of the benchmark trains: pairs, an untrained decoder or a folder's model, one order of batches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.data.order import batch_ids
from harness.data.rows import TokenisedPair
from harness.models.architecture import Architecture, initial_weights, skeleton
from harness.models.folder import Source
from harness.models.lane_model import parameter_shapes, unflatten
from harness.types import LoraSpec, TrainingSpec

CPU = torch.device("cpu")
# (vocabulary, width, layers, prompt tokens, response tokens)
SIZES = {
    "XS": (128, 32, 2, 16, 16),
    "S": (512, 64, 4, 24, 20),
    "M": (1024, 128, 4, 24, 20),
    "L": (4096, 256, 5, 24, 20),
}
CPU_SIZES = ("XS", "S", "M")
LONG = (64, 32)  # prompt and response tokens of pairs for a folder's model
BETA = 0.1


@dataclass(frozen=True)
class Case:
    """One size: pairs, starting weights, settings and the order of batches. With `ladder` rows have widths of their
    own, as those of a model from a folder have."""

    size: str
    architecture: Architecture
    weights: torch.Tensor
    pairs: list[TokenisedPair]
    settings: TrainingSpec
    order: np.ndarray
    ladder: bool = False


def random_pairs(vocabulary: int, prompt: int, response: int) -> list[TokenisedPair]:
    """128 pairs of random tokens, the longest of these lengths."""
    rng = np.random.default_rng(0)

    def tokens(low: int, high: int) -> np.ndarray:
        return rng.integers(3, vocabulary, rng.integers(low, high + 1)).astype(np.int32)

    return [
        TokenisedPair(str(i), tokens(prompt // 2, prompt), tokens(4, response), tokens(4, response)) for i in range(128)
    ]


def case(size: str, batch: int, steps: int, mode: str = "strict", factor: int = 1) -> Case:
    """Random pairs of a size, its untrained model and settings. The same for every arm."""
    vocabulary, width, layers, prompt, response = SIZES[size]
    prompt, response = prompt * factor, response * factor
    pairs = random_pairs(vocabulary, prompt, response)
    architecture = Architecture(vocabulary, width, layers, max(width // 32, 1), width * 3, 128 * factor)
    settings = TrainingSpec(steps=steps, batch_size=batch, learning_rate=1e-3, warmup_steps=2, mode=mode)
    order = batch_ids([p.id for p in pairs], 0, steps, batch)
    return Case(size, architecture, initial_weights(architecture, 0), pairs, settings, order)


def path_case(folder: Path, name: str, lora: LoraSpec | None, batch: int, steps: int) -> Case:
    """Random pairs for the model of a folder, with fresh adapters (`lora`) or all of it trained."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder)
    own = config.vocab_size, config.hidden_size, config.num_hidden_layers, config.num_attention_heads
    architecture = Architecture(*own, config.intermediate_size, 0, source=Source(str(folder), name, lora=lora))
    pairs = random_pairs(config.vocab_size, *LONG)
    settings = TrainingSpec(steps=steps, batch_size=batch, learning_rate=1e-4 if lora else 1e-5, warmup_steps=2)
    order = batch_ids([p.id for p in pairs], 0, steps, batch)
    return Case(name, architecture, initial_weights(architecture, 0), pairs, settings, order, ladder=True)


def plain(made: Case, weights: torch.Tensor) -> Any:
    """An unmodified model with these weights."""
    model = skeleton(made.architecture)
    values = unflatten(weights, parameter_shapes(model))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(values[name])
    return model
