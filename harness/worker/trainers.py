"""Which trainer a pack runs in: that of labelled pairs (preference objectives, reward models), or the RL loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from harness.config.load import reward_run
from harness.identity import run_stream
from harness.inputs.run_inputs import RunInputs
from harness.models.architecture import Architecture, with_score
from harness.models.pack import Lane, Pack
from harness.objectives.budget import budget, family, learns_from_model, per_nat
from harness.rlhf import best_of_n
from harness.rlhf.lanes import Gold, RlLane, RlTraining, Sampling
from harness.rlhf.lanes import lane_state as rl_lane_state
from harness.rlhf.lanes import start as start_rl
from harness.rlhf.loop import train as train_rl
from harness.training.loop import Training, start, state_of, train
from harness.training.state import LaneState
from harness.types import Record, RunSpec
from harness.worker.reward_models import Reward, load_reward
from harness.worker.samples import Answers


@dataclass(frozen=True, slots=True, eq=False)
class Trainer:
    """A pack in training: `train` advances the live state `run` to a step (None: to the end, with the last records),
    `state` is that of one run between two steps; `answers` samples where that is not done from a trained model."""

    run: Training | RlTraining
    train: Callable[[int | None], Iterator[Record]]
    state: Callable[[str], LaneState]  # by run key
    answers: Answers | None = None


def as_trained(run: RunSpec) -> RunSpec:
    """The run with the steps, batch and rate that it really trains with."""
    return replace(run, training=budget(run.objective, run.training))


def with_reward_heads(architecture: Architecture, lanes: Sequence[Lane]) -> tuple[Architecture, tuple[Lane, ...]]:
    """Architecture and lanes of reward models with a scalar head: one on the reference, which starts at 0."""
    headed = [with_score(architecture, lane.weights) for lane in lanes]
    return headed[0][0], tuple(replace(lane, weights=row) for lane, (_, row) in zip(lanes, headed, strict=True))


def build_trainer(
    pack: Pack,
    runs: Sequence[RunSpec],
    inputs: Sequence[RunInputs],
    cache: Path,
    device: torch.device,
    states: Sequence[LaneState | None] = (),
) -> Trainer:
    """A pack on its device. Lanes continue from their `states` or start anew (None), RL lanes all alike."""
    if family(runs[0].objective) != "rl":
        training = start(pack, device, states)
        return Trainer(training, partial(train, training), partial(state_of, training))
    lanes = [_rl_lane(lane, run, shared, cache) for lane, run, shared in zip(pack.lanes, runs, inputs, strict=True)]
    first = inputs[0]
    sampling = Sampling(first.eos, first.prompt_width, first.max_new_tokens)
    rollouts = start_rl(pack, lanes, sampling, device, [state for state in states if state is not None])
    numbers = {lane.key: number for number, lane in enumerate(pack.lanes)}

    def state(key: str) -> LaneState:
        return rl_lane_state(rollouts, numbers[key])

    if runs[0].objective.name == "best_of_n":  # no step to stop between
        choice = best_of_n.start(rollouts)
        return Trainer(rollouts, lambda _: choice.records(), state, choice.answers)
    return Trainer(rollouts, partial(train_rl, rollouts), state)


def _rl_lane(lane: Lane, run: RunSpec, inputs: RunInputs, cache: Path) -> RlLane:
    knobs = dict(run.objective.hyperparameters)
    scaled = knobs.get("reward_scale", False)
    common = RlLane(lane, run_stream(run, "rollouts"), 1.0, None, _gold(inputs))
    if "pairs" in knobs:
        pairs, flipped = (_with_next(table, knobs["pairs"]) for table in (lane.batches, lane.flipped))
        common = replace(common, pairs=pairs, flipped=flipped)
    if not learns_from_model(run.objective):
        return replace(common, scale=_gold_scale(inputs) if scaled else 1.0)
    reward: Reward | None = load_reward(cache, reward_run(run))
    if reward is None:
        raise RuntimeError(
            "the reward model of this run is missing: its run failed, or the cache lost it; run the command again"
        )
    assert run.reward_model is not None
    return replace(
        common,
        scale=reward.scale if scaled else 1.0,
        reward=reward.weights,
        per_nat=per_nat(run.reward_model),
        broken=reward.broken,
    )


def _with_next(batches: torch.Tensor, count: int) -> torch.Tensor:
    """`(steps, count)`: at each step its batch and the next ones, so a pair comes again soon."""
    times = -(-count // batches.shape[1])
    return torch.cat([batches.roll(-shift, 0) for shift in range(times)], 1)[:, :count]


def _gold(inputs: RunInputs) -> Gold:
    """The source's judgement of responses, by the prompt's tokens."""
    texts: dict[bytes, str] = {}
    for pairs in (inputs.train, *inputs.evals.values()):
        for pair in pairs:
            texts.setdefault(inputs.encode(pair).prompt.astype(np.int64).tobytes(), pair.prompt)

    def judge(prompts: Sequence[np.ndarray], responses: Sequence[np.ndarray]) -> np.ndarray:
        judged = inputs.judge([texts[ids.astype(np.int64).tobytes()] for ids in prompts], responses)
        return np.asarray(judged["gold_reward"], np.float32)

    return judge


def _gold_scale(inputs: RunInputs) -> float:
    """The standard deviation of the true reward over the responses of the training pairs."""
    scores = [pair.meta[f"score_{side}"] for pair in inputs.train for side in ("chosen", "rejected")]
    return float(np.std(scores)) or 1.0
