"""KL, shaping, advantages and losses against cases worked out by hand; the arithmetic stands in each docstring."""

from __future__ import annotations

import math

import pytest
import torch

from harness.rlhf import advantage, kl
from harness.rlhf import losses as policy_loss
from harness.rlhf import losses as value_loss
from harness.rlhf import rewards as shaping
from harness.rlhf.algorithms import (
    Forward,
    Minibatch,
    Rollout,
    Targets,
    grpo_targets,
    minibatch,
    ppo_loss,
    ppo_targets,
    reinforce_targets,
    rloo_targets,
)
from harness.types import InputError


def t(values):
    return torch.tensor(values, dtype=torch.float64)


def close(found, expected, tolerance=1e-12):
    torch.testing.assert_close(found, t(expected), rtol=0, atol=tolerance)


# Two responses of one lane, the second one token shorter; what stands in the padding must not matter.
MASK = torch.tensor([[[True, True, True], [True, True, False]]])
POLICY = t([[[-1.0, -2.0, -0.5], [-0.3, -1.1, -77.0]]])
REFERENCE = t([[[-1.5, -1.0, -0.5], [-0.3, -0.1, 55.0]]])


def test_kl_estimates_of_tokens_and_of_responses():
    """Log-ratios (.5, -1, 0) and (0, -1); k2 halves their squares; k3(.5) = e^-.5 - 1 + .5, k3(-1) = e - 2.

    The responses' own ratios are -.5 and -1.
    """
    close(kl.token_kl("k1", POLICY, REFERENCE, MASK), [[[0.5, -1.0, 0.0], [0.0, -1.0, 0.0]]])
    close(kl.token_kl("k2", POLICY, REFERENCE, MASK), [[[0.125, 0.5, 0.0], [0.0, 0.5, 0.0]]])
    third = [math.exp(-0.5) - 0.5, math.e - 2]
    close(kl.token_kl("k3", POLICY, REFERENCE, MASK), [[[third[0], third[1], 0.0], [0.0, third[1], 0.0]]])
    close(kl.sequence_kl("k1", POLICY, REFERENCE, MASK), [[-0.5, -1.0]])
    close(kl.sequence_kl("k3", POLICY, REFERENCE, MASK), [[math.exp(0.5) - 1.5, math.e - 2]])


def test_k3_stays_finite_and_accurate():
    """At a ratio of 1e-4 k3 is 5e-9, lost if exp(-k1) - 1 + k1 were taken as written. Past 80 the exponent is held."""
    ratio = torch.tensor([1e-4, -1e4, 1e4])
    found = kl.k3(ratio, torch.zeros(3))
    assert float(found[0]) == pytest.approx(5e-9, rel=0.2)
    assert bool(torch.isfinite(found).all()) and float(found[2]) == pytest.approx(1e4, rel=1e-3)


def test_the_adaptive_controller():
    """Target 6, gain .1. KL 6.6: error .1, beta 1.01 times; 60: clipped at .2, 1.02 times; 0: -.2, .98 times.

    A lane whose KL is not a number keeps its beta.
    """
    beta, observed = t([[0.2]] * 4), t([[6.6], [60.0], [0.0], [float("nan")]])
    close(kl.adaptive(beta, observed, 6.0, 0.1), [[0.202], [0.204], [0.196], [0.2]])
    moved = kl.next_beta("adaptive", t([[9.0]] * 4), beta, observed, 0.5, target=6.0, gain=0.1)
    close(moved, [[0.202], [0.204], [0.196], [0.2]])


def test_the_adaptive_controller_settles_where_the_kl_is_on_target():
    """A policy that answers at once with KL 3 / beta: beta goes to 3 / 6."""
    beta = t([[0.05], [5.0]])
    for _ in range(600):
        beta = kl.next_beta("adaptive", beta, beta, 3 / beta, 0.0, target=6.0, gain=0.1)
    close(beta, [[0.5], [0.5]], 1e-9)


def test_schedules_of_the_coefficient():
    """From .4 to a quarter of it. Half way linear .25 and cosine .25; a quarter of the way .325, and
    .4 (1 - .75 (1 - cos(pi/4))/2) = .356066."""
    start = t([[0.4]])

    def at(controller, progress):
        return float(kl.next_beta(controller, start, start, start, progress, end=0.25))

    for controller in ("linear", "cosine"):
        assert [at(controller, p) for p in (0.0, 0.5, 1.0, 2.0)] == pytest.approx([0.4, 0.25, 0.1, 0.1])
    assert at("linear", 0.25) == pytest.approx(0.325)
    assert at("cosine", 0.25) == pytest.approx(0.356066, abs=1e-6)
    assert at("fixed", 0.7) == 0.4
    with pytest.raises(InputError, match="kl_controller: expected fixed"):
        at("quadratic", 0.5)


def test_shaping_scales_clips_and_then_takes_penalties():
    """Scores (4, -6, 1) over 2 are (2, -3, .5), clipped at 2.5 (2, -2.5, .5). The second did not end: -1. Lengths 3, 5,
    0 at .1: -.3, -.5, -0; the empty third counts as not ended: -1. So (1.7, -4, -.5)."""
    found = shaping.shaped(
        t([[4.0, -6.0, 1.0]]),
        torch.tensor([[3, 5, 0]]),
        torch.tensor([[True, False, True]]),
        scale=t([[2.0]]),
        clip=2.5,
        missing_eos_penalty=1.0,
        length_penalty=0.1,
    )
    close(found, [[1.7, -4.0, -0.5]])
    plain = shaping.shaped(t([[4.0, -6.0]]), torch.tensor([[3, 5]]), torch.tensor([[True, False]]))
    close(plain, [[4.0, -6.0]])


def test_the_scale_of_a_reward():
    """(1, 3) has sd 1 and (0, 4) sd 2; a constant reward has none and is left as it is, rounding or not."""
    constant = [0.1 + 0.2, 0.3]
    close(shaping.reward_scale(t([[1.0, 3.0], [0.0, 4.0], constant, [0.0, 0.0]])), [[1.0], [2.0], [1.0], [1.0]])


def test_token_rewards_pay_the_kl_as_they_go_and_the_score_at_the_end():
    """beta .2 times (.5, -1, 0) and (0, -1): (-.1, .2, 0 + 3) and (0, .2 - 1); an empty response gets nothing."""
    tokens = kl.token_kl("k1", POLICY, REFERENCE, MASK)
    close(shaping.token_rewards(t([[3.0, -1.0]]), tokens, MASK, t([[0.2]])), [[[-0.1, 0.2, 3.0], [0.0, -0.8, 0.0]]])
    none = torch.zeros_like(MASK)
    close(shaping.token_rewards(t([[3.0, -1.0]]), tokens, none, 0.2), [[[0.0] * 3] * 2])
    close(shaping.sequence_rewards(t([[3.0, -1.0]]), tokens.sum(-1), t([[0.2]])), [[3.1, -0.8]])


def test_gae():
    """R = (1, 0, 2), V = (.5, 1, -1), gamma .9, lam .5. td_3 = 2 + 1 = 3; td_2 = 0 - .9 - 1 = -1.9;
    td_1 = 1 + .9 - .5 = 1.4. A_3 = 3, A_2 = -1.9 + .45 x 3 = -.55, A_1 = 1.4 + .45 x -.55 = 1.1525.

    The second response ends after two tokens: td_2 = -1, td_1 = 2 + .9 x 1 - 1 = 1.9, A_1 = 1.9 - .45 = 1.45. Its
    padding holds nonsense.
    """
    rewards = t([[[1.0, 0.0, 2.0], [2.0, 0.0, 1e9]]])
    values = t([[[0.5, 1.0, -1.0], [1.0, 1.0, float("nan")]]])
    advantages, returns = advantage.gae(rewards, values, MASK, 0.9, 0.5)
    close(advantages, [[[1.1525, -0.55, 3.0], [1.45, -1.0, 0.0]]])
    close(returns, [[[1.6525, 0.45, 2.0], [2.45, 0.0, 0.0]]])


def test_gae_at_its_ends():
    """lam 1: what follows, less V. lam 0: the surprise of one step. Gamma and lam as columns are a lane's own."""
    rewards, values = t([[[1.0, 0.0, 2.0]]]), t([[[0.5, 1.0, -1.0]]])
    full = torch.ones(1, 1, 3, dtype=torch.bool)
    close(advantage.gae(rewards, values, full, 1.0, 1.0)[0], [[[2.5, 1.0, 3.0]]])
    close(advantage.gae(rewards, values, full, 1.0, 0.0)[0], [[[1.5, -2.0, 3.0]]])
    both = advantage.gae(
        rewards.expand(2, -1, -1), values.expand(2, -1, -1), full.expand(2, -1, -1), 1.0, t([[1.0], [0.0]])
    )
    close(both[0], [[[2.5, 1.0, 3.0]], [[1.5, -2.0, 3.0]]])


def test_whitening_over_the_real_tokens_of_a_lane():
    """(1, 2, 3, 4) in two responses: mean 2.5, squared deviations 5, variance 5 / 3. Padding (9) plays no part."""
    x = t([[[1.0, 2.0, 9.0], [3.0, 4.0, 9.0]]])
    mask = torch.tensor([[[True, True, False], [True, True, False]]])
    sd = math.sqrt(5 / 3)
    white = [[[-1.5 / sd, -0.5 / sd, 0.0], [0.5 / sd, 1.5 / sd, 0.0]]]
    close(advantage.whiten(x, mask, eps=0.0), white)
    kept = [[[2.5 - 1.5 / sd, 2.5 - 0.5 / sd, 0.0], [2.5 + 0.5 / sd, 2.5 + 1.5 / sd, 0.0]]]
    close(advantage.whiten(x, mask, shift=False, eps=0.0), kept)
    close(advantage.whiten(t([[[3.0]]]), torch.tensor([[[True]]])), [[[0.0]]])


def test_leave_one_out():
    """(1, 2, 6): others' means 4, 3.5, 1.5. It is k/(k-1) times the distance to the group's mean: 3/2 (-2, -1, 3)."""
    close(advantage.rloo(t([[1.0, 2.0, 6.0, 0.0, 0.0, 3.0]]), 3), [[-3.0, -1.5, 4.5, -1.5, -1.5, 3.0]])
    with pytest.raises(InputError, match="samples = 1 per prompt"):
        advantage.rloo(t([[1.0, 2.0]]), 1)
    with pytest.raises(InputError, match="divide"):
        advantage.rloo(t([[1.0, 2.0, 3.0]]), 2)


def test_group_advantages():
    """(1, 2, 6): mean 3, sd sqrt((4 + 1 + 9) / 2) = sqrt 7. A group of equal rewards has no say, not a NaN."""
    rewards = t([[1.0, 2.0, 6.0, 5.0, 5.0, 5.0]])
    plain = [[-2.0, -1.0, 3.0, 0.0, 0.0, 0.0]]
    close(advantage.grpo(rewards, 3, scale=False), plain)
    close(advantage.grpo(rewards, 3), [[x / (math.sqrt(7) + 1e-4) for x in plain[0]]])


def test_baselines_of_reinforce():
    """(1, 2, 6) against its mean 3; against a running 2, which becomes .9 x 2 + .1 x 3 = 2.1."""
    rewards = t([[1.0, 2.0, 6.0]])
    close(advantage.against_batch(rewards), [[-2.0, -1.0, 3.0]])
    found, baseline = advantage.against_running(rewards, t([[2.0]]), 0.9)
    close(found, [[-1.0, 0.0, 4.0]])
    close(baseline, [[2.1]])


def test_the_clipped_policy_loss():
    """Ratios (1.5, .5, 1.1) with A = (1, 1, -2) and clip .2: min(1.5, 1.2) = 1.2; min(.5, .8) = .5;
    min(-2.2, -2.2) = -2.2. A fourth, ratio .5 with A = -1: min(-.5, -.8) = -.8. Mean (1.2 + .5 - 2.2 - .8) / 4 = -.325.

    Three of four ratios lie outside .2. approx KL is the mean of rho - 1 - log rho.
    """
    ratio = t([[[1.5, 0.5], [1.1, 0.5]]])
    old = t([[[-1.0, -2.0], [-3.0, -0.4]]])
    logps = (old + ratio.log()).requires_grad_()
    advantages = t([[[1.0, 1.0], [-2.0, -1.0]]])
    full = torch.ones(1, 2, 2, dtype=torch.bool)
    found = policy_loss.clipped(logps, old, advantages, full, t([[0.2]]))
    close(found.loss.detach(), [0.325])
    close(found.statistics["clip_fraction"], [0.75])
    close(found.statistics["ratio"], [0.9])
    close(found.statistics["approx_kl"], [-0.1 - math.log(1.5 * 0.5 * 1.1 * 0.5) / 4])
    # Clipped entries have no gradient; the others that of -rho A / 4.
    (slope,) = torch.autograd.grad(found.loss.sum(), logps)
    close(slope, [[[0.0, -0.125], [0.55, 0.0]]])
    padded = torch.tensor([[[True, False], [True, False]]])
    close(policy_loss.clipped(logps, old, advantages, padded, 0.2).loss.detach(), [0.5])


def test_losses_of_whole_responses():
    """log pi = (-3.5, -1.4), A = (2, -1): -(2 x -3.5 + 1.4) / 2 = 2.8. With ratios e^.5 and e^-.5 and clip .2: the
    first is held at 1.2 x 2, the second at .8 x -1: -(2.4 - .8) / 2 = -.8."""
    a = t([[2.0, -1.0]])
    close(policy_loss.sequence_reinforce(POLICY, a, MASK), [2.8])
    old = POLICY - t([[[0.5, 0.0, 0.0], [0.0, -0.5, 0.0]]])
    found = policy_loss.sequence_clipped(POLICY, old, a, MASK, 0.2)
    close(found.loss, [-0.8])
    close(found.statistics["clip_fraction"], [1.0])


def test_on_policy_the_clipped_losses_have_the_slope_of_reinforce():
    a = t([[2.0, -1.0]])
    for surrogate in (
        lambda x: policy_loss.sequence_clipped(x, POLICY, a, MASK).loss,
        lambda x: policy_loss.grpo(x, POLICY, a, MASK, average="constant").loss * 3,  # the sum over T = 3 tokens
    ):
        slopes = []
        for function in (surrogate, lambda x: policy_loss.sequence_reinforce(x, a, MASK)):
            point = POLICY.clone().requires_grad_()
            slopes.append(torch.autograd.grad(function(point).sum(), point)[0])
        torch.testing.assert_close(*slopes, rtol=1e-12, atol=1e-12)


def test_the_three_averages_of_grpo():
    """On policy every token of a response counts -A: A = (2, -1), lengths 3 and 2, limit 3.

    token: -(3 x 2 - 2) / 5 = -.8; sequence: -(2 - 1) / 2 = -.5; constant: -(6 - 2) / (2 x 3) = -2/3.
    With beta .1 and k3 of (.5, -1, 0), (0, -1): token adds .1 (e^-.5 - .5 + 2 (e - 2)) / 5.
    """
    a = t([[2.0, -1.0]])
    for average, expected in (("token", -0.8), ("sequence", -0.5), ("constant", -2 / 3)):
        close(policy_loss.grpo(POLICY, POLICY, a, MASK, average=average).loss, [expected])
    price = 0.1 * (math.exp(-0.5) - 0.5 + 2 * (math.e - 2)) / 5
    found = policy_loss.grpo(POLICY, POLICY, a, MASK, kl_reference=REFERENCE, beta=t([[0.1]]))
    close(found.loss, [-0.8 + price])
    with pytest.raises(InputError, match="average: expected token"):
        policy_loss.grpo(POLICY, POLICY, a, MASK, average="median")


def test_the_entropy_bonus_is_a_mean_over_real_tokens():
    close(policy_loss.entropy_bonus(t([[[1.0, 2.0, 3.0], [4.0, 0.0, 99.0]]]), MASK), [2.0])


def test_the_clipped_value_loss():
    """V_old = 0, clip .2. V = 1, R = .5: (.5)^2 = .25 against (.2 - .5)^2 = .09: .25. V = 1, R = 2: 1 against 1.8^2 =
    3.24: 3.24, so that a value that jumps to its target is held back. Half the mean: .8725."""
    values, old, returns = t([[[1.0, 1.0]]]), t([[[0.0, 0.0]]]), t([[[0.5, 2.0]]])
    full = torch.ones(1, 1, 2, dtype=torch.bool)
    close(value_loss.clipped_value_loss(values, old, returns, full, 0.2), [0.8725])
    close(value_loss.clipped_value_loss(values, old, returns, full, t([[0.2]])), [0.8725])
    close(value_loss.clipped_value_loss(values, old, returns, full, 5.0), [0.3125])


def test_explained_variance():
    """R = (0, 2): variance 1. V = (0, 1): R - V = (0, 1), variance .25, so .75; V = R + 7 explains all; V = -R: 1 - 4.
    Constant returns: 0."""
    full = torch.ones(4, 1, 2, dtype=torch.bool)
    returns = t([[[0.0, 2.0]]] * 3 + [[[3.0, 3.0]]])
    values = t([[[0.0, 1.0]], [[7.0, 9.0]], [[0.0, -2.0]], [[1.0, 2.0]]])
    close(value_loss.explained_variance(values, returns, full), [0.75, 1.0, -3.0, 0.0])


@pytest.mark.parametrize("name", ["clipped", "sequence_clipped", "grpo"])
def test_losses_stay_finite_for_any_log_probs(name):
    """Ratios of e^1e4 either way, and padding that holds what it likes."""
    logps = torch.tensor([[[-1e4, 0.0, float("nan")], [0.0, -1e4, float("-inf")]]], requires_grad=True)
    old = torch.tensor([[[0.0, -1e4, 0.0], [0.0, -1e4, 0.0]]])
    mask = torch.tensor([[[True, True, False]] * 2])
    a = torch.tensor([[1.0, -1.0]])
    a = a[..., None].expand(-1, -1, 3) if name == "clipped" else a
    found = getattr(policy_loss, name)(logps, old, a, mask)
    assert bool(torch.isfinite(found.loss).all())
    assert all(bool(torch.isfinite(x).all()) for x in found.statistics.values())
    (slope,) = torch.autograd.grad(found.loss.sum(), logps)
    assert bool(torch.isfinite(slope[mask]).all())


def test_a_minibatch_picks_the_lanes_own_rows():
    rollout = Rollout(POLICY, REFERENCE, MASK, t([[3.0, -1.0]]), 2, values=POLICY + 1)
    targets = Targets(t([[2.0, -1.0]]), t([[0.0, 0.0]]), returns=POLICY + 2)
    batch = minibatch(rollout, targets, torch.tensor([[1]]))
    assert torch.equal(batch.mask, MASK[:, 1:]) and batch.advantages.tolist() == [[-1.0]]
    assert torch.equal(batch.old, POLICY[:, 1:]) and torch.equal(batch.reference, REFERENCE[:, 1:])
    assert torch.equal(batch.old_values, POLICY[:, 1:] + 1) and torch.equal(batch.returns, POLICY[:, 1:] + 2)


def test_ppo_adds_its_three_terms():
    """On policy the clipped loss is -mean A. A = (1, 1, -2 | 0, 0): 0. Values .5 off their returns: half of .25 is
    .125, times .4 is .05. Entropies all 2, times .01. So 0 + .05 - .02 = .03."""
    a = t([[[1.0, 1.0, -2.0], [0.0, 0.0, 9.0]]])
    batch = Minibatch(POLICY, REFERENCE, MASK, a, torch.zeros_like(a), torch.full_like(a, 0.5))
    now = Forward(POLICY, torch.zeros_like(a), torch.full_like(a, 2.0))
    found = ppo_loss(now, batch, vf_coef=t([[0.4]]), entropy_coef=t([[0.01]]))
    close(found.loss, [0.03])
    close(found.statistics["value_loss"], [0.125])
    close(found.statistics["entropy"], [2.0])
    with pytest.raises(ValueError, match="values"):
        ppo_loss(Forward(POLICY), batch)
    with pytest.raises(ValueError, match="values"):
        ppo_targets(Rollout(POLICY, REFERENCE, MASK, t([[3.0, -1.0]]), 2), 0.1)


def test_targets_put_the_kl_where_the_row_says():
    """Scores (3, -1), sequence k1 (-.5, -1), beta .2: rewards 3.1 and -.8. rloo with k = 2: +-3.9; grpo with the KL in
    the loss compares the scores alone, 4 apart: +-2; REINFORCE against a running baseline of 1: then 1.015.
    """
    rollout = Rollout(POLICY, REFERENCE, MASK, t([[3.0, -1.0]]), 2)
    close(rloo_targets(rollout, t([[0.2]])).advantages, [[3.9, -3.9]])
    close(rloo_targets(rollout, 0.2).kl, [[-0.5, -1.0]])
    close(grpo_targets(rollout, 0.2, scale_rewards="none").advantages, [[2.0, -2.0]])
    close(grpo_targets(rollout, 0.2, scale_rewards="none", kl_in="reward").advantages, [[1.95, -1.95]])
    found = reinforce_targets(rollout, 0.2, {"baseline": t([[1.0]])}, baseline="running")
    close(found.advantages, [[2.1, -1.8]])
    close(found.state["baseline"], [[1.015]])
    close(reinforce_targets(rollout, 0.2, baseline="batch").advantages, [[1.95, -1.95]])
