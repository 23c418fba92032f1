"""What moves the optimum off pi*, in exact expectation: KL as a loss, and dividing by the group's deviation.

Every group of k samples is a lane of its own, weighted by its probability, so nothing here is random.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from harness.objectives import OBJECTIVES
from harness.rlhf.algorithms import Forward, minibatch
from harness.rlhf.kl import ESTIMATORS, token_kl
from harness.rlhf.losses import sequence_reinforce
from harness.rlhf.registry import ALGORITHMS
from harness.rlhf.rewards import sequence_rewards
from tests.rlhf.worlds import OPTIMUM, REFERENCE, REWARDS, Flat, distance, optimum

CASE_A = Flat(REFERENCE, REWARDS)
POLICY = torch.tensor([0.2, 0.7, 0.1], dtype=torch.float64).log()


def reverse_kl(logits):
    policy = logits.softmax(-1)
    return (policy * (policy.log() - REFERENCE[0].log())).sum()


def forward_kl(logits):
    return (REFERENCE[0] * (REFERENCE[0].log() - logits.log_softmax(-1))).sum()


def slope(function, logits=POLICY):
    point = logits.clone().requires_grad_()
    return torch.autograd.grad(function(point), point)[0]


def as_loss(estimator):
    """Expected gradient of an estimator that is minimised on the policy's own samples, which are held fixed."""

    def expectation(logits):
        policy = logits.log_softmax(-1)[None, :, None]
        kl = token_kl(estimator, policy, REFERENCE[0].log()[None, :, None], torch.ones(1, 3, 1, dtype=torch.bool))
        return (logits.detach().softmax(-1) * kl[0, :, 0]).sum()

    return slope(expectation)


def in_the_reward(estimator):
    """Expected gradient of the same estimator taken from the reward, as a loss."""

    def expectation(logits):
        everything = torch.arange(3)[None, None]
        rollout = CASE_A.of(logits[None, None], everything)
        kl = token_kl(estimator, rollout.logps, rollout.reference, rollout.mask).sum(-1)
        price = sequence_rewards(torch.zeros_like(kl), kl, 1.0) * logits.detach().softmax(-1) * 3
        return sequence_reinforce(CASE_A.logps(logits[None, None], everything), price, rollout.mask).sum()

    return slope(expectation)


def test_k1_in_the_reward_is_the_kl_and_k3_as_a_loss_is_the_other_kl():
    """k3 = u - 1 - log u with u = pi_ref/pi has slope (1 - u) grad log pi; its mean over pi is -E_ref grad log pi."""
    torch.testing.assert_close(in_the_reward("k1"), slope(reverse_kl), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(as_loss("k3"), slope(forward_kl), rtol=1e-12, atol=1e-14)
    assert float((in_the_reward("k1") - as_loss("k3")).abs().max()) > 0.04
    # k2 as a loss has the right slope, k1 as a loss none at all: E grad log pi = 0.
    torch.testing.assert_close(as_loss("k2"), slope(reverse_kl), rtol=1e-12, atol=1e-14)
    assert float(as_loss("k1").abs().max()) < 1e-15


def test_every_estimator_is_right_on_average_but_k2():
    """(.2, .7, .1) against (.5, .3, .2): KL = .2 log .4 + .7 log(7/3) + .1 log .5 = 0.340536."""
    policy, reference = POLICY.exp(), REFERENCE[0]
    exact = 0.2 * math.log(0.4) + 0.7 * math.log(7 / 3) + 0.1 * math.log(0.5)
    mean = {name: float((policy * k(POLICY, reference.log())).sum()) for name, k in ESTIMATORS.items()}
    assert mean["k1"] == pytest.approx(exact, abs=1e-14) == pytest.approx(0.340536, abs=1e-6)
    assert mean["k3"] == pytest.approx(exact, abs=1e-14)
    assert abs(mean["k2"] - exact) > 0.01
    assert bool((ESTIMATORS["k3"](POLICY, reference.log()) >= 0).all())


def mean_slope(worlds, logits, beta, k=2, name="grpo", **given):
    """Gradient (m,) of the exact mean loss over all groups of k samples, for one policy shared by one-prompt worlds."""
    row = OBJECTIVES[name]
    hp = {key: p.default for key, p in row.hyperparameters.items() if key != "beta"} | given
    groups = torch.tensor(list(itertools.product(range(len(logits)), repeat=k)))[:, None]
    point = logits.clone().requires_grad_()
    spread = point.expand(len(groups), 1, -1)
    chance = logits.log_softmax(-1)[groups[:, 0]].sum(-1).exp()
    total = torch.zeros((), dtype=torch.float64)
    for world in worlds:
        rollout = world.of(spread, groups)
        targets = ALGORITHMS[name].targets(rollout, beta, **hp)
        batch = minibatch(rollout, targets, torch.arange(k).expand(len(groups), -1))
        loss = ALGORITHMS[name].loss(Forward(world.logps(spread, groups)), batch, beta=beta, **hp).loss
        total = total + (chance * loss).sum() / len(worlds)
    return torch.autograd.grad(total, point)[0]


def settled(beta, world=CASE_A, rate=4.0, **given):
    """Where the policy (1, m) of one prompt ends."""
    logits = world.reference[0].log().clone()
    for _ in range(2000):
        gradient = mean_slope([world], logits, beta, **given)
        logits = logits - rate * gradient
        if float(gradient.abs().max()) < 1e-9:
            return logits.softmax(-1)[None]
    raise AssertionError(f"not settled: {gradient.tolist()}")


def forward_optimum(reference, rewards, beta):
    """The maximum of E r - beta KL(pi_ref || pi): pi = beta pi_ref / (level - r), level by bisection."""
    low, high = float(rewards.max()) + 1e-12, float(rewards.max()) + 100 * beta
    for _ in range(200):
        level = 0.5 * (low + high)
        low, high = (level, high) if float((beta * reference / (level - rewards)).sum()) > 1 else (low, level)
    return beta * reference / (level - rewards)


def test_dr_grpo_with_the_kl_in_the_reward_keeps_the_optimum():
    assert distance(settled(0.5, scale_rewards="none", kl_in="reward"), OPTIMUM) < 1e-6
    assert distance(settled(0.5, name="rloo"), OPTIMUM) < 1e-6


def test_kl_as_a_loss_has_the_optimum_of_the_other_kl():
    """And the group mean, which contains the sample itself, shrinks the reward by (k - 1)/k: beta acts as 2 beta."""
    found = settled(0.5, scale_rewards="none", kl_in="loss")
    assert distance(found, forward_optimum(REFERENCE, REWARDS, 0.5 * 2 / (2 - 1))) < 1e-6
    assert distance(found, OPTIMUM) > 0.1
    assert distance(found, optimum(REFERENCE, REWARDS, 1.0)) > 0.01


def test_dividing_by_the_groups_deviation_changes_the_optimum():
    """With k = 2 every group of unlike rewards has advantages +-1/sqrt 2: the size of a reward gap is lost.

    So a reward ten times as large has the same optimum, where pi* of a tenfold reward is far from that of r.
    """
    larger = Flat(REFERENCE, 10 * REWARDS)
    scaled = [settled(0.5, world, scale_rewards="group", kl_in="loss") for world in (CASE_A, larger)]
    assert distance(*scaled) < 1e-3
    plain = [settled(0.5, world, scale_rewards="none", kl_in="loss", rate=1.0) for world in (CASE_A, larger)]
    assert distance(*plain) > 0.1
    assert distance(scaled[0], plain[0]) > 0.02


def test_dividing_by_the_groups_deviation_turns_stakes_into_votes():
    """Three prompts share one policy; the best compromise is pi_ref exp(mean r / beta) / Z, and nothing pulls there.

    Divided by its deviation every prompt pulls alike, however much it has at stake, even with the KL in the reward:
    two prompts of small rewards, which rank response 1 first, outvote one of large rewards.
    """
    small = Flat(REFERENCE, torch.tensor([[-0.1, 0.1, 0.0]], dtype=torch.float64))
    worlds = [CASE_A, small, small]
    best = optimum(REFERENCE, (REWARDS + 2 * small.rewards) / 3, 0.5)[0].log()
    plain = mean_slope(worlds, best, 0.5, k=4, scale_rewards="none", kl_in="reward")
    assert float(plain.abs().max()) < 1e-14
    scaled = mean_slope(worlds, best, 0.5, k=4, scale_rewards="group", kl_in="reward")
    assert float(scaled[1]) < -0.05 and float(scaled[0]) > 0.05  # a step down the slope raises response 1
