"""The RL loop: lanes that never see each other, a step 0 that is the reference, and what may go wrong."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from harness.rlhf import best_of_n as choose
from harness.rlhf.best_of_n import answer_divergence, kl_bound, log_density_ratio
from harness.rlhf.loop import train
from tests.rlhf.packs import ITERATIONS, rl_lane, training

CASES = {
    "rloo": [({"beta": 0.05}, 0), ({"beta": 0.5, "reward_clip": 0.5}, 1), ({"beta": 1.0, "length_penalty": 0.01}, 0)],
    "ppo": [({"beta": 0.05}, 0), ({"beta": 0.5, "vf_coef": 0.5}, 1), ({"beta": 1.0}, 0)],
    "ppo in minibatches": [
        ({"epochs": 2, "minibatches": 2, "entropy_coef": 0.01}, 0), ({"epochs": 2, "minibatches": 2, "beta": 1.0}, 1),
    ],
    "reinforce": [({"baseline": "running"}, 0), ({"baseline": "batch"}, 1), ({"baseline": "none", "whiten": True}, 0)],
    "grpo": [({}, 0), ({"kl_in": "reward", "scale_rewards": "none", "average": "sequence"}, 1)],
    "online_dpo": [({"beta": 0.1}, 0), ({"beta": 1.0, "pairing": "adjacent"}, 1)],
    "constrained_rlhf": [({"margin": 0.5}, 0), ({"beta": 1.0, "eta": 0.2}, 1)],
    "rloo on log-ratios": [({"beta": 0.05}, 0), ({"beta": 0.5}, 1), ({"beta": 0.05}, 0)],
    "rloo on gold": [({"reward": "gold"}, 0), ({"reward": "gold", "kl_controller": "adaptive", "kl_target": 0.1}, 1)],
}  # fmt: skip


def run(case: str, numbers: list[int]) -> dict[int, tuple[torch.Tensor, list[np.ndarray], list[dict[str, float]]]]:
    """Train these lanes of a case as one pack: weights, every record column and everything watched, by lane."""
    prices = [0.1 * (n + 1) if case.endswith("log-ratios") else None for n in numbers]
    lanes = [
        rl_lane(str(n), case.split()[0], *CASES[case][n], per_nat=price)
        for n, price in zip(numbers, prices, strict=True)
    ]
    state = training(lanes)
    columns: dict[str, list[np.ndarray]] = {str(n): [] for n in numbers}
    watched: dict[str, list[dict[str, float]]] = {str(n): [] for n in numbers}
    for record in train(state):
        columns[record.run_key] += [record.columns[name] for name in sorted(record.columns)]
        watched[record.run_key].append(dict(record.scalars))
    assert (state.diverged_at < 0).all()
    return {n: (state.model.flat[i].detach().clone(), columns[str(n)], watched[str(n)]) for i, n in enumerate(numbers)}


@pytest.mark.parametrize("case", CASES)
def test_a_lane_equals_its_lone_run_bit_for_bit(case):
    everyone = list(range(len(CASES[case])))
    together, turned = run(case, everyone), run(case, everyone[::-1])
    for n in everyone:
        alone = run(case, [n])[n]
        for other in (together[n], turned[n]):
            assert torch.equal(other[0], alone[0])
            assert all(np.array_equal(a, b) for a, b in zip(other[1], alone[1], strict=True))
            assert other[2] == alone[2]
    assert len({tuple(weights[:50].tolist()) for weights, _, _ in together.values()}) == len(everyone)


def test_step_zero_is_the_reference_and_the_reward_beta_times_the_log_ratio():
    state = training([rl_lane("a", "rloo", {"beta": 0.5})])
    records = list(train(state))
    assert [record.step for record in records] == [0, 2, ITERATIONS]
    for record in records:
        moved = record.columns["policy_chosen"] - record.columns["reference_chosen"]
        rounding = 8 * np.finfo(np.float32).eps * np.abs(record.columns["reference_chosen"]).max()
        assert np.allclose(record.columns["chosen_reward"], 0.5 * moved, atol=rounding)
        assert "loss" not in record.columns
    assert np.abs(records[0].columns["chosen_reward"]).max() <= 1e-4
    assert records[0].scalars["rlhf/heldout_kl"] < 1e-6 and "objective/kl" not in records[0].scalars
    assert records[-1].scalars["objective/kl"] != 0


def test_reward_goes_up_when_it_is_all_that_counts():
    """The reward of the true judge is minus the length: rising reward means shorter answers."""
    lane = rl_lane("a", "rloo", {"beta": 1e-3, "reward": "gold", "iterations": 25, "learning_rate": 1e-2})
    state = training([lane], checkpoints=(0, 25))
    first, last = (record.scalars["rlhf/heldout_reward"] for record in train(state))
    assert last > first + 1.0


def test_a_constant_reward_teaches_nothing():
    """No advantage and, at the reference, no KL: nothing is undefined, and the policy stays near the reference.

    Not on it: Adam takes steps of full size whatever the size of the gradient, until the KL price pulls back.
    """
    for name in ("rloo", "grpo", "online_dpo", "ppo"):
        lane = rl_lane("a", name, {"epochs": 1} if name != "online_dpo" else {}, head=0.0)
        state = training([lane])
        watched = [record.scalars for record in train(state)]
        assert watched[-1]["frac_reward_zero_std"] == 1.0
        assert all(np.isfinite(value) for one in watched for value in one.values())
        assert watched[-1]["rlhf/heldout_kl"] < 0.3 and (state.diverged_at < 0).all()
        if name == "online_dpo":  # no pair that prefers anything: no gradient at all
            assert torch.equal(state.model.weights(0), lane.lane.weights)


def test_a_diverging_lane_is_contained():
    bad = rl_lane("bad", "rloo", {"beta": 0.05})
    bad = replace(bad, lane=replace(bad.lane, training=replace(bad.lane.training, learning_rate=float("inf"))))
    state = training([bad, rl_lane("0", "rloo", {"beta": 0.05})])
    records = list(train(state))
    assert state.diverged_at[0, 0] >= 0 and state.diverged_at[1, 0] == -1
    alone = training([rl_lane("0", "rloo", {"beta": 0.05})])
    list(train(alone))
    assert torch.equal(state.model.flat[1].detach(), alone.model.flat[0].detach())
    assert all(np.isfinite(value) for record in records for value in record.scalars.values())


def test_a_run_whose_reward_model_broke_counts_as_diverged():
    lane = replace(rl_lane("a", "rloo", {}), broken=True)
    state = training([lane])
    list(train(state))
    assert state.diverged_at[0, 0] == 0 and torch.equal(state.model.weights(0), lane.lane.weights)


def test_the_kl_controller_moves_beta():
    state = training([rl_lane("a", "rloo", {"kl_controller": "linear", "kl_end": 0.5, "beta": 0.4})])
    list(train(state))
    assert state.beta.item() == pytest.approx(0.2)


def test_the_density_ratio_of_best_of_n_in_a_finite_world():
    """Three responses with probabilities .2, .5, .3 in order of reward: F^n - F-^n over each atom, and its limit."""
    reference = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    below = torch.tensor([1e-12, 0.2, 0.7], dtype=torch.float64)
    for n in (1, 2, 5):
        policy = reference * log_density_ratio(below, reference, n).exp()
        assert policy.tolist() == pytest.approx([0.2**n, 0.7**n - 0.2**n, 1 - 0.7**n], rel=1e-9)
    small = log_density_ratio(torch.tensor([0.4]), torch.tensor([1e-9]), 8)
    assert small.exp().item() == pytest.approx(8 * 0.4**7, rel=1e-5)


@pytest.mark.parametrize("n", [1, 2, 4, 16])
def test_the_divergence_of_answers_is_the_bound_on_average(n):
    """Over the ranks of answers among 9 samples (beta-binomial, F from Beta(n, 1)) k1 and k3 average to it."""
    count = np.arange(10)
    weight = np.array(
        [math.comb(9, c) * n * math.gamma(c + n) * math.gamma(10 - c) / math.gamma(10 + n) for c in count]
    )
    assert weight.sum() == pytest.approx(1)
    k1, k3 = answer_divergence(count, 9, n)
    assert (weight @ k1, weight @ k3) == (pytest.approx(kl_bound(n), abs=1e-12), pytest.approx(kl_bound(n), abs=1e-12))
    assert (k3 >= -1e-12).all()


@pytest.mark.parametrize(("reward", "per_nat"), [("model", None), ("model", 0.1), ("gold", None)])
def test_best_of_n_answers_with_the_best_and_stays_under_its_bound(reward, per_nat):
    given = {"n": 4, "estimate": 16, "reward": reward}
    lanes = [rl_lane("a", "best_of_n", given, 0, per_nat=per_nat), rl_lane("b", "best_of_n", given, 1, per_nat=per_nat)]
    state = training(lanes, checkpoints=(0,))
    choice = choose.start(state)
    records = list(choice.records())
    answers = choice.answers("eval_clean", range(12))
    assert [record.step for record in records] == [0, 0] and len(answers[0].responses) == 12
    alone = choose.start(training(lanes[1:], checkpoints=(0,)))
    [record] = alone.records()
    for name, column in record.columns.items():
        assert np.array_equal(column, records[1].columns[name]), name
    assert np.array_equal(alone.answers("eval_clean", range(12))[0].k1, answers[1].k1)
    if reward == "gold":  # the shorter, the better: of four samples the shortest
        one = choose.start(training([rl_lane("a", "best_of_n", {**given, "n": 1}, 0)], checkpoints=(0,)))
        list(one.records())
        assert answers[0].length.mean() < one.answers("eval_clean", range(12))[0].length.mean()
        assert np.abs(one.answers("eval_clean", range(12))[0].k1).max() < 1e-6  # the best of one is the reference
