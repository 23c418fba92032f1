"""Dual ascent on pi_w >= e^m pi_l: the known optimum and multiplier, and why reward + lambda delta is no substitute."""

from __future__ import annotations

import math

import pytest
import torch

from harness.rlhf.algorithms import Forward, minibatch
from harness.rlhf.constrained import constraint, constraint_scale, lagrangian_loss, multiplier_step, violation, visit
from harness.rlhf.kl import sequence_kl
from harness.rlhf.losses import sequence_reinforce
from harness.rlhf.registry import ALGORITHMS
from harness.rlhf.rewards import sequence_rewards
from harness.types import PairLogps
from tests.rlhf.worlds import REFERENCE, REWARDS, Flat, distance, objective, optimum


def expected_loss(flat, point, beta):
    """Minus the RLHF objective's gradient, every response enumerated: a loss (1,) that sums over prompts."""
    prompts, m = flat.reference.shape
    everything = torch.arange(m).expand(1, prompts, m)
    rollout = flat.of(point, everything)
    kl = sequence_kl("k1", rollout.logps, rollout.reference, rollout.mask)
    weights = point.detach().softmax(-1).flatten(1) * m * prompts
    rewards = sequence_rewards(rollout.scores, kl, beta) * weights
    return sequence_reinforce(flat.logps(point, everything), rewards, rollout.mask)


def solve(flat, beta, margin=0.0, scaled=False, eta=0.02, rate=1.0, steps=1000):
    """Gradient steps on the Lagrangian and dual steps in turn: policy (P, m) and multipliers (P,).

    The pair of every prompt is its first response, preferred, against its last.
    """
    logits = flat.reference.log()[None].clone()
    multiplier = torch.zeros(1, flat.reference.shape[0], dtype=torch.float64)
    start = flat.reference.log()[None]
    scale = constraint_scale(start[..., 0], start[..., -1], margin) if scaled else 0.0
    for _ in range(steps):
        point = logits.clone().requires_grad_()
        now = point.log_softmax(-1)
        chosen, rejected = now[..., 0], now[..., -1]
        loss = expected_loss(flat, point, beta) + lagrangian_loss(chosen, rejected, multiplier, margin, scale).sum(-1)
        (slope,) = torch.autograd.grad(loss.sum(), point)
        logits = logits - rate / beta * slope
        multiplier = multiplier_step(multiplier, violation(chosen, rejected, margin), eta)
    return logits.softmax(-1)[0], multiplier[0]


def pairs(delta_ref, gap=1.0):
    logits = torch.tensor([[d, 0.0] for d in delta_ref], dtype=torch.float64)
    return Flat(logits.softmax(-1), torch.tensor([[gap, 0.0]] * len(delta_ref), dtype=torch.float64))


def delta(policy):
    return (policy[:, 0] / policy[:, -1]).log()


@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_the_known_multiplier(margin):
    """beta = .5, gap 1. delta_ref = -4: delta* = -2 < m, so delta = m and the multiplier is (2 + m/2 - 1)/(1 + e^m):
    .5 at m = 0, half of what the loss form's margin needs (1.0). delta_ref = -1: delta* = 1 > m, nothing to enforce.
    """
    flat = pairs([-4.0, -1.0])
    policy, multiplier = solve(flat, 0.5, margin)
    wanted = (0.5 * (margin + 4) - 1) / (1 + math.exp(margin))
    torch.testing.assert_close(delta(policy), torch.tensor([margin, 1.0], dtype=torch.float64), rtol=0, atol=1e-3)
    torch.testing.assert_close(multiplier, torch.tensor([wanted, 0.0], dtype=torch.float64), rtol=0, atol=1e-3)
    if margin == 0:
        assert wanted == 0.5
    # It costs what it costs: the constrained value is below the free one exactly where the constraint binds.
    free = optimum(flat.reference, flat.rewards, 0.5)
    values = [objective(p, flat.reference, flat.rewards, 0.5) for p in (policy, free)]
    assert float(values[0][0]) < float(values[1][0]) - 0.01
    assert float(values[0][1]) == pytest.approx(float(values[1][1]), abs=1e-6)


@pytest.mark.parametrize("scaled", [False, True])
def test_the_whole_distribution_is_the_closed_form(scaled):
    """Three responses, the last one preferred by the reference: pi_c ~ pi_ref exp{(r + lambda(1[w] - e^m 1[l]))/beta}.

    With beta = 2: delta_ref = log(.2/.5) = -.916291 and gap .1 - 0, so lambda = (2 (.3 + .916291) - .1)/(1 + e^.3).
    A constraint divided by pi_ref(w) + e^m pi_ref(l) has its multiplier times that.
    """
    reference = REFERENCE.flip(-1)
    flat = Flat(reference, torch.tensor([[0.1, -0.4, 0.0]], dtype=torch.float64))
    policy, multiplier = solve(flat, 2.0, 0.3, scaled=scaled, eta=0.05)
    lam = (2 * (0.3 - math.log(0.4)) - 0.1) / (1 + math.exp(0.3))
    factor = 0.2 + math.exp(0.3) * 0.5 if scaled else 1.0
    assert float(multiplier) == pytest.approx(lam * factor, abs=1e-4)
    bonus = torch.tensor([[lam, 0.0, -math.exp(0.3) * lam]], dtype=torch.float64)
    assert distance(policy, optimum(reference, flat.rewards + bonus, 2.0)) < 1e-5
    assert float(delta(policy)) == pytest.approx(0.3, abs=1e-4)


@pytest.mark.parametrize(("eta", "settles"), [(0.45, True), (0.55, False)])
def test_the_dual_step_has_to_stay_below_two_beta_over_one_plus_e_to_the_m(eta, settles):
    """The policy at its optimum before each visit: delta = delta_ref + (gap + 2 lambda)/beta, beta .5, m 0, so the
    limit is 2 x .5 / 2 = .5 and the fixed point lambda = .5."""
    multiplier = torch.tensor([[0.499]], dtype=torch.float64)
    for _ in range(300):
        best = -4 + (1 + 2 * multiplier) / 0.5
        multiplier = multiplier_step(multiplier, violation(best, torch.zeros_like(best)), eta)
    assert (abs(float(multiplier) - 0.5) < 1e-9) == settles


def test_constraint_and_violation_agree_in_sign():
    draw = torch.Generator().manual_seed(0)
    chosen, rejected = (-20 * torch.rand(2, 500, generator=draw, dtype=torch.float64) for _ in range(2))
    margin = torch.tensor([[0.0], [1.5]], dtype=torch.float64)
    for scale in (0.0, constraint_scale(chosen, rejected, margin)):
        linear = constraint(chosen, rejected, margin, scale)
        assert torch.equal(linear > 0, violation(chosen, rejected, margin) < 0)
    assert bool((linear.abs() <= 1).all())  # against its own scale the constraint is a number between -1 and 1
    even = chosen[:1] - 0.25  # delta = m: both are 0
    assert float(constraint(even + 0.25, even, 0.25).abs().max()) < 1e-15
    assert float(violation(even + 0.25, even, 0.25).abs().max()) < 1e-14


def test_the_gradient_of_the_lagrangian_is_that_of_probabilities():
    """d/d log pi_w of -lambda (pi_w - e^m pi_l) is -lambda pi_w; of log pi_l it is lambda e^m pi_l. lambda is data."""
    chosen, rejected = (torch.tensor([[x]], dtype=torch.float64, requires_grad=True) for x in (-1.0, -2.0))
    multiplier = torch.tensor([[0.7]], dtype=torch.float64, requires_grad=True)
    loss = lagrangian_loss(chosen, rejected, multiplier, 0.3)
    assert loss.item() == pytest.approx(-0.7 * (math.exp(-1) - math.exp(0.3 - 2)))
    slopes = torch.autograd.grad(loss.sum(), [chosen, rejected, multiplier], allow_unused=True)
    assert float(slopes[0]) == pytest.approx(-0.7 * math.exp(-1))
    assert float(slopes[1]) == pytest.approx(0.7 * math.exp(0.3 - 2))
    assert slopes[2] is None


def test_finite_for_any_log_probs():
    for chosen, rejected in ((-1e4, 0.0), (0.0, -1e4)):
        sides = torch.tensor([[chosen]]), torch.tensor([[rejected]])
        scale = constraint_scale(sides[1], sides[0])  # of a reference that holds the opposite
        assert bool(torch.isfinite(constraint(*sides, 0.0, -1e4)).all())
        assert bool(torch.isfinite(lagrangian_loss(*sides, torch.tensor([[3.0]]), 0.0, scale)).all())


def test_reward_plus_lambda_delta_has_no_maximum_and_the_linear_form_has_one():
    """pi_l = 10^-k: E r - beta KL tends to a constant, delta grows by log 10 with every k, so the sum has no bound for
    any lambda > 0, however small. The linear form never exceeds max r + lambda."""
    tails = 10.0 ** -torch.arange(1, 300, dtype=torch.float64)
    rejected = tails / (1 + tails)
    policies = torch.stack([1 / (1 + tails), rejected], -1)
    reference, rewards = torch.tensor([0.1, 0.9], dtype=torch.float64), torch.tensor([1.0, 0.0], dtype=torch.float64)
    value = objective(policies, reference, rewards, 0.5)
    gaps = policies[:, 0].log() - policies[:, 1].log()
    assert float(value[-1] - value[40]) == pytest.approx(0.0, abs=1e-12)
    for lam in (1e-3, 1.0):
        summed = value + lam * gaps
        step = summed.diff()[20:]
        torch.testing.assert_close(step, torch.full_like(step, lam * math.log(10)), rtol=1e-6, atol=0)
        linear = value + lam * constraint(policies[:, 0].log(), policies[:, 1].log())
        assert float(linear.max()) <= float(rewards.max()) + lam
        assert float(linear.diff()[40:].abs().max()) < 1e-12


def test_ascent_on_reward_plus_lambda_delta_runs_away():
    """Far out its slope in delta is lambda, not 0: every stretch of steps adds as much. The linear form comes to rest.

    (A smaller lambda has a point of rest on the way, where the KL still pulls; it is no maximum.)
    """
    flat, beta, lam = pairs([-4.0]), 0.5, 0.5
    paths = {"delta": [], "linear": []}
    for name, path in paths.items():
        logits = flat.reference.log()[None].clone()
        for _ in range(1000):
            point = logits.clone().requires_grad_()
            now = point.log_softmax(-1)
            gap = now[..., 0] - now[..., 1]
            term = (
                lam * gap if name == "delta" else -lagrangian_loss(now[..., 0], now[..., 1], torch.full_like(gap, lam))
            )
            (slope,) = torch.autograd.grad(expected_loss(flat, point, beta).sum() - term.sum(), point)
            logits = logits - slope
            path.append(gap.item())
    away = paths["delta"]
    assert away[499] > 250 and away[999] - away[499] == pytest.approx(500 * 2 * lam, rel=1e-3)
    assert paths["linear"][-1] == pytest.approx(-4 + (1 + 2 * lam) / beta, abs=1e-6)


def test_a_visit_by_hand():
    """Policy (-4, -2), reference (-5, -3), m = .5, beta = .4, so eta = .2. delta = -2, violated by 2.5: the multiplier
    .1 becomes .6. Scale log(e^-5 + e^(.5 - 3)); the loss is -.6 (e^-4 - e^(.5 - 2)) / (e^-5 + e^-2.5).

    The second pair holds by 1.5: its multiplier .1 - .2 x 1.5 is cut at 0, and so is its pull.
    """
    ones = torch.ones(1, 2, dtype=torch.float64)

    def pair(chosen, rejected):
        return PairLogps(*(torch.tensor([x], dtype=torch.float64) for x in (chosen, rejected)), ones, ones)

    start = torch.full((1, 2), 0.1, dtype=torch.float64)
    loss, kept = visit(pair([-4.0, -2.0], [-2.0, -4.0]), pair([-5.0, -5.0], [-3.0, -3.0]), start, beta=0.4, margin=0.5)
    expected = -0.6 * (math.exp(-4) - math.exp(-1.5)) / (math.exp(-5) + math.exp(-2.5))
    torch.testing.assert_close(kept, torch.tensor([[0.6, 0.0]], dtype=torch.float64))
    torch.testing.assert_close(loss, torch.tensor([[expected, 0.0]], dtype=torch.float64))
    slower = visit(pair([-4.0, -2.0], [-2.0, -4.0]), pair([-5.0, -5.0], [-3.0, -3.0]), start, beta=0.4, eta=0.05)[1]
    torch.testing.assert_close(slower, torch.tensor([[0.2, 0.0]], dtype=torch.float64))


@pytest.mark.parametrize("eta", [None, 0.02])
def test_sampled_rollouts_with_dual_steps_hold_the_constraint(eta):
    """RLOO on samples for the reward, the pair's own log-probs for the constraint: delta comes to m = 0."""
    flat = Flat(REFERENCE.flip(-1), REWARDS.flip(-1).mul(0.2))  # the reference likes the last response, its reward too
    algorithm, beta = ALGORITHMS["rloo"], 0.5
    draw = torch.Generator().manual_seed(0)
    start = flat.reference.log().expand(3, 1, -1)  # three replicates
    logits, multiplier, ones = start.clone(), torch.zeros(3, 1, dtype=torch.float64), torch.ones(3, 1)
    for _ in range(1200):
        rollout, responses = flat.rollout(logits, 16, draw)
        targets = algorithm.targets(rollout, beta)
        batch = minibatch(rollout, targets, torch.arange(16).expand(3, -1))
        point = logits.clone().requires_grad_()
        policy, reference = (
            PairLogps(x[..., 0], x[..., -1], ones, ones) for x in (point.log_softmax(-1), start.log_softmax(-1))
        )
        extra, multiplier = visit(policy, reference, multiplier, beta=beta, eta=eta)
        loss = algorithm.loss(Forward(flat.logps(point, responses)), batch).loss + extra.sum(-1)
        logits = logits - 0.2 * torch.autograd.grad(loss.sum(), point)[0]
    policy = logits.softmax(-1)[:, 0]
    # delta_ref = log(.2/.5), gap -.1 - .2: lambda = (beta (0 - delta_ref) - gap)/2, times pi_ref(w) + pi_ref(l) = .7.
    wanted = (beta * math.log(0.5 / 0.2) + 0.3) / 2
    assert bool(((policy[:, 0] / policy[:, -1]).log().abs() < 0.1).all())
    torch.testing.assert_close(multiplier, torch.full_like(multiplier, 0.7 * wanted), rtol=0, atol=0.05)
    bonus = torch.tensor([wanted, 0.0, -wanted], dtype=torch.float64)
    assert distance(policy, optimum(flat.reference, flat.rewards + bonus, beta)) < 0.02
