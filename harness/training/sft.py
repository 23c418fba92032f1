"""Likelihood training (pretraining, SFT) through the one trainer: lanes whose objective is `nll`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from harness.data.rows import TokenisedPair, pack_rows
from harness.models.architecture import Architecture
from harness.models.logps import build_corpus
from harness.models.pack import Lane, Pack
from harness.training.loop import start, train
from harness.types import ObjectiveSpec, TrainingSpec


def likelihood_settings(steps: int, batch_size: int, learning_rate: float) -> TrainingSpec:
    """Settings for likelihood training: AdamW (0.9, 0.99), 10 warm-up steps, linear decay to 1 %, clip 1."""
    return TrainingSpec(
        steps=steps, batch_size=batch_size, learning_rate=learning_rate, warmup_steps=10, final_lr_fraction=0.01
    )


def fit(
    architecture: Architecture,
    starts: Sequence[Tensor],
    rows: Sequence[Sequence[TokenisedPair]],
    settings: TrainingSpec,
    device: torch.device,
    names: Sequence[str],
    tokens: int,
    responses: int,
) -> list[Tensor]:
    """Maximise the likelihood of `rows[k]`'s responses from the weights `starts[k]` `(P,)`; returns the new weights.

    Each lane reads its rows in order, epoch after epoch. Rows are `tokens` wide with `responses` response tokens:
    constants of the recipe, so a lane's result does not depend on its neighbours.
    Raises FloatingPointError where a lane stops being finite.
    """
    needed = settings.steps * settings.batch_size
    packed = [pack_rows(part[:needed], tokens=tokens, responses=responses) for part in rows]
    lanes, offset = [], 0
    for weights, part, name in zip(starts, packed, names, strict=True):
        count = len(part.pair_ids)
        batches = torch.arange(needed).remainder(count).view(settings.steps, settings.batch_size) + offset
        offset += count
        lanes.append(Lane(name, ObjectiveSpec("nll"), settings, weights, batches, torch.zeros_like(batches).bool()))
    run = start(Pack(architecture, build_corpus(packed, None, device), tuple(lanes)), device)
    for _ in train(run):
        raise AssertionError("likelihood training has no evaluation sets")
    if not bool(run.alive.all()):
        broken = [name for name, alive in zip(names, run.alive[:, 0].tolist(), strict=True) if not alive]
        raise FloatingPointError(f"likelihood training stopped being finite: {', '.join(broken)}; lower learning_rate")
    return [run.model.weights(lane) for lane in range(run.model.lanes)]
