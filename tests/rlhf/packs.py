"""RL packs on the tiny worlds of the trainer tests: random reference, a reward model with a random head."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from harness.data.mythworld import tokens as mythtokens
from harness.data.mythworld.language import PROMPT_TOKENS
from harness.models.architecture import with_score
from harness.models.pack import Pack
from harness.objectives.budget import budget
from harness.objectives.registry import resolve
from harness.rlhf.lanes import RlLane, RlTraining, Sampling, start
from harness.types import TrainingSpec
from tests.training.worlds import ARCHITECTURE, CPU, PAIRS, corpus, lane, world

SAMPLING = Sampling(mythtokens.EOS, PROMPT_TOKENS, 9)
ITERATIONS = 3
SMALL = {"iterations": ITERATIONS, "prompts": 8, "learning_rate": 2e-3}


def length(prompts, responses):
    """A reward of its own: the shorter, the better."""
    return np.array([-float(len(response)) for response in responses], np.float32)


def rl_lane(
    name: str,
    objective: str,
    given: dict[str, object],
    seed: int = 0,
    head: float = 1.0,
    per_nat: float | None = None,
) -> RlLane:
    """A lane on the world of `seed`; `head` scales its reward model's random head. With `per_nat` the model of the
    other world is its reward model, read by log-ratios."""
    spec = resolve(objective, given if objective == "best_of_n" else {**SMALL, **given})
    training = budget(spec, TrainingSpec(steps=ITERATIONS, batch_size=8, learning_rate=2e-3, warmup_steps=2))
    plain = lane(name, "dpo", {}, seed=seed, offset=PAIRS * seed, training=training)
    plain = replace(plain, objective=spec)
    reward = with_score(ARCHITECTURE, plain.weights)[1]
    width = ARCHITECTURE.hidden_size
    reward[-width:] = head * torch.randn(width, generator=torch.Generator().manual_seed(seed))
    own = RlLane(plain, seed + 5, 1.0, None if dict(spec.hyperparameters)["reward"] == "gold" else reward, length)
    if per_nat is not None:
        own = replace(own, reward=world(1 - seed)[0], per_nat=per_nat)
    if objective == "constrained_rlhf":
        own = replace(own, pairs=plain.batches, flipped=plain.flipped)
    return own


def training(lanes: list[RlLane], checkpoints: tuple[int, ...] = (0, 2, ITERATIONS)) -> RlTraining:
    pack = Pack(ARCHITECTURE, corpus((0, 1)), tuple(own.lane for own in lanes), checkpoints)
    return start(pack, lanes, SAMPLING, CPU)
