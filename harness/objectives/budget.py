"""Steps, batch size and learning rate of an objective's training; some rows set their own. Imports no torch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from harness.objectives.registry import OBJECTIVES
from harness.types import ObjectiveSpec, TrainingSpec

REWARD_MODEL = "reward_model"


def family(objective: ObjectiveSpec) -> str:
    """The family of an objective's row; `reward` for the reward model."""
    return "reward" if objective.name == REWARD_MODEL else OBJECTIVES[objective.name].family


def learns_from_model(objective: ObjectiveSpec) -> bool:
    """Whether it is an RL objective whose reward is a trained model (and not the world's own reward)."""
    return family(objective) == "rl" and dict(objective.hyperparameters)["reward"] == "model"


def per_nat(model: ObjectiveSpec) -> float | None:
    """The reward per nat of log-ratio of a reward model that is read so; None for one with a scalar head."""
    settings = dict(model.hyperparameters)
    return None if settings["head"] == "scalar" else float(settings["per_nat"])


def scalar_head(objective: ObjectiveSpec) -> bool:
    """Whether it is a reward model with a scalar head."""
    return family(objective) == "reward" and per_nat(objective) is None


def budget(objective: ObjectiveSpec, training: TrainingSpec) -> TrainingSpec:
    """`training` with the objective's own steps, batch and rate in the place of the sweep's.

    For RL a step is an iteration (one rollout and the updates on it) and the batch its prompts; best-of-n trains
    nothing: 0 steps. What a row leaves empty, and everything else (warm-up, decay, clipping, Adam), is `training`'s.
    """
    settings = dict(objective.hyperparameters)
    kind = family(objective)
    if objective.name == "best_of_n":
        return replace(training, steps=0)
    if kind not in ("rl", "reward"):
        return training
    names = {"steps": "iterations", "batch_size": "prompts"} if kind == "rl" else {}
    fields = ("steps", "batch_size", "learning_rate", "weight_decay")
    replaced: dict[str, Any] = {field: settings.get(names.get(field, field)) for field in fields}
    return replace(training, **{field: value for field, value in replaced.items() if value is not None})
