"""Trained reward models in the cache: one file per recipe, shared by every RL run that learns from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from harness.identity import content_hash, plain
from harness.inputs.reference_models import reference_key, weights_path
from harness.metrics.records import Columns
from harness.metrics.reward_model import validation_accuracy
from harness.models.lane_model import LaneModel
from harness.models.logps import pair_rewards
from harness.models.pack import Pack
from harness.objectives.budget import budget, per_nat
from harness.rlhf.rewards import reward_scale
from harness.storage.arrays import load_arrays, save_arrays
from harness.types import RunSpec

CHUNK = 64  # pairs per lane and forward pass: a constant, so a lane's scale does not depend on its neighbours
# Part of the keys of stored reward models: bump when their training changes.
CODE_VERSION = 3


@dataclass(frozen=True, eq=False)
class Reward:
    """A trained reward model: `weights` `(P,)`, or `(P + d,)` with a scalar head, the standard deviation of its rewards
    on its training pairs, and whether its training stopped being finite (`broken`: the weights are the last finite
    ones)."""

    weights: Tensor
    scale: float
    broken: bool


@dataclass
class Stopping:
    """Early stopping of the reward models of a pack: by run key, the step and weights of the evaluation that ranks most
    held-out pairs as their noisy validation labels do, the first of several. `keep` puts those weights back.

    Labels are as noisy as in training, so the choice is; but a model fits the noise of its labels so soon that waiting
    until an earlier evaluation is better beyond chance costs more (docs/world.md).
    """

    wanted: frozenset[str] = frozenset()
    best: dict[str, tuple[float, int, Tensor]] = field(default_factory=dict)
    last: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of_pack(cls, keys: Sequence[str], runs: Sequence[RunSpec]) -> Stopping:
        """Of a pack that starts; nothing is wanted where it is not of reward models."""
        specs = {key: dict(run.objective.hyperparameters) for key, run in zip(keys, runs, strict=True)}
        stopped = (key for key, hyperparameters in specs.items() if hyperparameters.get("stop") == "validation")
        return cls(frozenset(stopped))

    def update(self, key: str, step: int, columns: Columns, weights: Tensor) -> None:
        """Take an evaluation of the held-out pairs with noisy labels; `weights` `(P,)` are those it measured."""
        score = validation_accuracy(columns)
        self.last[key] = step
        if step and (key not in self.best or score > self.best[key][0]):
            self.best[key] = score, step, weights

    @torch.no_grad()
    def keep(self, key: str, model: LaneModel, lane: int) -> int | None:
        """Put the best weights back into the lane; the step that was kept, None for the last."""
        if key not in self.best:
            return None
        _, step, weights = self.best[key]
        if step == self.last[key]:
            return None
        model.flat[lane, : len(weights)] = weights.to(model.flat.device)
        return step


def reward_key(run: RunSpec) -> str:
    """What the model of a `reward_model` run depends on: reference, pairs and their corruption, settings, seed."""
    config = plain(run)
    source = {name: config[name] for name in ("world", "data", "corruption", "objective", "seed", "replica")}
    if source["data"] is not None:
        del source["data"]["path"]
    training = plain(budget(run.objective, run.training))
    if dict(run.objective.hyperparameters)["stop"] == "validation":  # by the evaluations that there are
        source["evaluation"] = {name: config["evaluation"][name] for name in ("checkpoints", "heldout")}
    recipe = {"reference": reference_key(run), "training": training, "code": CODE_VERSION}
    return content_hash({"stage": "reward", **source, **recipe})


def load_reward(cache: Path, run: RunSpec) -> Reward | None:
    """The stored model of a `reward_model` run; None where it is absent or damaged (then the run is trained again)."""
    key = reward_key(run)
    arrays = load_arrays(weights_path(cache, key), key)
    if arrays is None:
        return None
    return Reward(torch.from_numpy(arrays["weights"]), float(arrays["scale"][0]), bool(arrays["broken"][0]))


def save_rewards(cache: Path, runs: Sequence[RunSpec], pack: Pack, model: LaneModel, diverged: list[bool]) -> None:
    """Store the models of a pack of `reward_model` runs, lane by lane."""
    for lane, (run, scale) in enumerate(zip(runs, _scales(pack, model), strict=True)):
        key = reward_key(run)
        arrays = {
            "weights": model.weights(lane).numpy(),
            "scale": np.array([scale], np.float32),
            "broken": np.array([diverged[lane]], np.uint8),
        }
        save_arrays(weights_path(cache, key), arrays, {"key": key, "stage": "reward"})


@torch.no_grad()
def _scales(pack: Pack, model: LaneModel) -> list[float]:
    """The standard deviation of each lane's rewards of all responses that it was trained on."""
    nats = [price for lane in pack.lanes if (price := per_nat(lane.objective)) is not None]
    prices = torch.tensor(nats, device=pack.corpus.ids.device)[:, None] if nats else None
    seen = [torch.unique(lane.batches) for lane in pack.lanes]
    width = -(-max(map(len, seen)) // CHUNK) * CHUNK
    index = torch.stack([torch.cat([rows, rows[:1].expand(width - len(rows))]) for rows in seen])
    index = index.to(pack.corpus.ids.device)
    parts = [pair_rewards(model, pack.corpus, index[:, i : i + CHUNK], prices) for i in range(0, width, CHUNK)]
    chosen, rejected = (torch.cat([getattr(part, side) for part in parts], 1) for side in ("chosen", "rejected"))
    return [
        float(reward_scale(torch.cat([chosen[lane, : len(rows)], rejected[lane, : len(rows)]])[None]))
        for lane, rows in enumerate(seen)
    ]
