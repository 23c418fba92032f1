"""What a run cost in tokens and arithmetic: training alone, evaluation left out; 2 flops a parameter and token forward.

A backward pass counts twice its forward. Padding counts: it is computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.objectives.table_budget import budget, family
from harness.rlhf.lanes import RlTraining
from harness.training.loop import Training
from harness.types import ObjectiveSpec, TrainingSpec


def work_done(
    objective: ObjectiveSpec,
    training: TrainingSpec,
    reward_model: ObjectiveSpec | None,
    run: Training | RlTraining,
    parameters: int,
) -> dict[str, Any]:
    """`tokens` (trained and generated), `generated_tokens`, `flops`, and `reward_flops`: those of training the reward
    model that the run learns from, which are in no other number of it and are shared by all that learn from it.
    `training` is what the spec gives every run.
    """
    width = int(run.pack.corpus.ids.shape[1])
    own = dict(objective.hyperparameters)
    real = budget(objective, training)
    rewards = 0 if reward_model is None else _steps(budget(reward_model, training)) * width * 6 * parameters
    if family(objective) != "rl" or not isinstance(run, RlTraining):
        tokens = _steps(real) * width
        return {"tokens": tokens, "generated_tokens": 0, "flops": 6 * parameters * tokens, "reward_flops": rewards}
    scored, trained = _rows(own, real, run, width)
    generated = run.generated + run.asked * run.sampling.width
    frozen = 1 + (run.scorer is not None)
    if objective.name == "best_of_n":
        frozen -= 1  # no KL is paid: the reference only samples
    flops = 2 * generated + 2 * frozen * scored + 6 * trained
    return {
        "tokens": trained + run.generated,
        "generated_tokens": run.generated,
        "flops": parameters * flops,
        "reward_flops": rewards,
    }


def _steps(training: TrainingSpec) -> int:
    return training.steps * training.batch_size


def _rows(own: Mapping[str, Any], training: TrainingSpec, run: RlTraining, width: int) -> tuple[int, int]:
    """Tokens that a frozen model scored, and tokens that the policy was trained on."""
    scored = run.asked * run.sampling.width + run.generated
    trained = scored * int(own.get("epochs", 1)) if training.steps else 0
    return scored, trained + training.steps * int(own.get("pairs", 0)) * width
