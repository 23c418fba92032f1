"""The algorithms of the RL objectives, by the name of the objective's row. best_of_n trains nothing and has none."""

from __future__ import annotations

from collections.abc import Mapping

from harness.rlhf import algorithms
from harness.rlhf.algorithms import Algorithm
from harness.rlhf.online_dpo import online_dpo

ALGORITHMS: Mapping[str, Algorithm] = {
    "ppo": algorithms.ppo,
    "rloo": algorithms.rloo,
    "reinforce": algorithms.reinforce,
    "grpo": algorithms.grpo,
    "online_dpo": online_dpo,
    "constrained_rlhf": algorithms.constrained_rlhf,
}
