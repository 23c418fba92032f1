"""Steps of a training given in epochs: passes over the clean training pairs of a seed. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from harness.data.pairs import read_pairs, split
from harness.data.splits import folder_render
from harness.identity import stream_seed
from harness.types import DataSpec, ModelSpec, PathModelSpec, PreferencePair, RunSpec, TrainingSpec


def by_epochs(run: RunSpec) -> TrainingSpec:
    """The run's training in steps: its epochs times the pairs, over the batch, rounded up.

    Pairs that only the tokenizer would drop count, and a corruption changes nothing: its runs take as many steps.
    """
    training = run.training
    pairs = run.world.pairs if run.world is not None else _train_pairs(run.data, run.model, run.seed)
    return replace(training, steps=math.ceil(training.epochs * pairs / training.batch_size), epochs=0.0)


@lru_cache(maxsize=64)
def _train_pairs(data: DataSpec | None, model: ModelSpec | PathModelSpec | None, seed: int) -> int:
    """Pairs of a data set that a seed trains on."""
    assert data is not None
    render = folder_render(model) if isinstance(model, PathModelSpec) else None
    pairs: Sequence[PreferencePair] = read_pairs(data, render).pairs
    held = 0.0 if data.heldout_split else data.heldout
    if held:
        pairs = split(pairs, held, stream_seed(seed, "split"))[0]
    return len(split(pairs, data.test / (1 - held), stream_seed(seed, "test"))[0])
