"""Every algorithm with the KL in its reward reaches pi* = pi_ref exp(r/beta)/Z in worlds small enough to enumerate.

At pi* the regularised reward r - beta log(pi/pi_ref) is the same for every response of a prompt, so an advantage that
compares responses of one prompt is exactly 0 there: the noise of sampling dies out and a constant step suffices.
"""

from __future__ import annotations

import math

import pytest
import torch

from harness.objectives import OBJECTIVES
from harness.rlhf.algorithms import Forward, Rollout, minibatch
from harness.rlhf.kl import sequence_kl
from harness.rlhf.losses import sequence_reinforce
from harness.rlhf.registry import ALGORITHMS
from harness.rlhf.rewards import sequence_rewards
from tests.rlhf.worlds import OPTIMUM, REFERENCE, REWARDS, Flat, Tree, distance, objective, optimum, several_prompts

CASE_A = Flat(REFERENCE, REWARDS)
CLOSE = 0.01  # total variation


def test_the_reference_values_of_the_case_where_the_assumption_holds():
    """Three responses, r = (1, 0, -.5), pi_ref = (.5, .3, .2), beta = .5: Z = .5 e^2 + .3 + .2 e^-1 = 4.06810393."""
    best = optimum(REFERENCE, REWARDS, 0.5)
    assert distance(best, OPTIMUM) < 1e-8
    partition = 0.5 * math.exp(2) + 0.3 + 0.2 * math.exp(-1)
    assert float(objective(best, REFERENCE, REWARDS, 0.5)) == pytest.approx(0.5 * math.log(partition), abs=1e-12)
    assert float(objective(best, REFERENCE, REWARDS, 0.5)) == pytest.approx(0.7015885139667837, abs=1e-12)
    assert float((best * REWARDS).sum()) == pytest.approx(0.8991265123, abs=1e-9)
    assert float((best * (best / REFERENCE).log()).sum()) == pytest.approx(0.3950759968, abs=1e-9)
    gaps = [float((best[0, i] / best[0, j]).log()) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert gaps == pytest.approx([2.5108256238, 3.9162907319, 1.4054651081], abs=1e-9)


@pytest.mark.parametrize("beta", [0.1, 0.5, 2.0])
def test_the_value_of_the_optimum_is_beta_log_z(beta):
    """J(pi*) = beta log sum_y pi_ref exp(r/beta), and nothing else comes near it."""
    world = several_prompts()
    best = optimum(world.reference, world.rewards, beta)
    value = objective(best, world.reference, world.rewards, beta)
    log_z = (world.reference.log() + world.rewards / beta).logsumexp(-1)
    torch.testing.assert_close(value, beta * log_z, rtol=1e-12, atol=1e-12)
    draw = torch.Generator().manual_seed(0)
    others = (best.log() + 0.1 * torch.randn(50, *best.shape, generator=draw, dtype=torch.float64)).softmax(-1)
    assert bool((objective(others, world.reference, world.rewards, beta) < value).all())


def exactly(flat, beta, rate, iterations):
    """Policy gradient without sampling: every response once, its regularised reward weighted by its probability."""
    column = torch.as_tensor(beta, dtype=torch.float64).reshape(-1, 1)
    prompts, m = flat.reference.shape
    everything = torch.arange(m).expand(len(column), prompts, m)
    logits = flat.reference.log().expand(len(column), -1, -1).clone()
    for _ in range(iterations):
        point = logits.clone().requires_grad_()
        rollout = flat.of(point, everything)
        kl = sequence_kl("k1", rollout.logps, rollout.reference, rollout.mask)
        weights = point.detach().softmax(-1).flatten(1) * m
        rewards = sequence_rewards(rollout.scores, kl, column) * weights
        loss = sequence_reinforce(flat.logps(point, everything), rewards, rollout.mask)
        (slope,) = torch.autograd.grad(loss.sum(), point)
        logits = logits - rate * prompts / column[..., None] * slope
    return logits.softmax(-1)


@pytest.mark.parametrize("flat", [CASE_A, several_prompts()], ids=["three responses", "five responses"])
def test_the_exact_policy_gradient_reaches_the_optimum(flat):
    policy = exactly(flat, [0.5, 2.0], rate=3.0, iterations=1200)
    for lane, beta in enumerate((0.5, 2.0)):
        assert distance(policy[lane], optimum(flat.reference, flat.rewards, beta)) < 1e-6
        assert distance(policy[lane], flat.reference) > 0.1  # there was some way to go


def run(name, flat, beta, *, k, iterations, rate, seed=0, **hyperparameters):
    """The row's own targets and loss on sampled responses, plain gradient steps: policy (K, P, m) and values (K, P)."""
    row = OBJECTIVES[name]
    algorithm, hp = ALGORITHMS[name], {key: p.default for key, p in row.hyperparameters.items()}
    hp |= hyperparameters
    epochs, column = hp["epochs"], torch.as_tensor(beta, dtype=torch.float64).reshape(-1, 1)
    draw, state, lanes = torch.Generator().manual_seed(seed), None, len(column)
    logits = flat.reference.log().expand(lanes, -1, -1).clone()
    values = torch.zeros(lanes, flat.reference.shape[0], dtype=torch.float64)
    for _ in range(iterations):
        rollout, chosen = flat.rollout(logits, k, draw)
        before = values[..., None].expand(-1, -1, k).flatten(1)[..., None]
        rollout = Rollout(
            rollout.logps,
            rollout.reference,
            rollout.mask,
            rollout.scores,
            k,
            before if algorithm.needs_values else None,
        )
        known = {key: value for key, value in hp.items() if key not in ("beta", "state")}
        targets = algorithm.targets(rollout, column, state, **known)
        state = targets.state
        rows = torch.arange(rollout.scores.shape[1]).expand(lanes, -1)
        batch = minibatch(rollout, targets, rows)
        for _ in range(epochs):
            point, level = logits.clone().requires_grad_(), values.clone().requires_grad_()
            now = Forward(flat.logps(point, chosen), level[..., None].expand(-1, -1, k).flatten(1)[..., None])
            loss = algorithm.loss(now, batch, beta=column, **known).loss.sum()
            slopes = torch.autograd.grad(loss, [point, level], allow_unused=True)
            logits = logits - rate * slopes[0]
            if slopes[1] is not None:
                values = values - rate * slopes[1]
    return logits.softmax(-1), values


def test_rloo_on_samples_reaches_the_optimum():
    """Five lanes are five replicates: each draws its own responses."""
    policy, _ = run("rloo", CASE_A, [0.5] * 5, k=8, iterations=500, rate=0.5)
    assert distance(policy, OPTIMUM) < CLOSE
    assert not torch.equal(policy[0], policy[1])


def test_rloo_on_several_prompts_and_lanes_of_different_beta():
    world = several_prompts()
    policy, _ = run("rloo", world, [0.5, 1.0], k=8, iterations=800, rate=2.0)
    for lane, beta in enumerate((0.5, 1.0)):
        assert distance(policy[lane], optimum(world.reference, world.rewards, beta)) < CLOSE


# Whitening rescales beta along with the reward, so it is off; a value may move as far as it likes.
PPO = {"whiten": False, "epochs": 3, "vf_coef": 1.0, "value_clip": 10.0}


def test_ppo_on_samples_reaches_the_optimum():
    policy, values = run("ppo", CASE_A, [0.5] * 5, k=16, iterations=300, rate=0.3, **PPO)
    assert distance(policy, OPTIMUM) < CLOSE
    # At the optimum every response is worth beta log Z, and the value has learnt it.
    torch.testing.assert_close(values, torch.full_like(values, 0.7015885139667837), rtol=0, atol=0.005)


def test_ppo_on_several_prompts():
    world = several_prompts()
    policy, values = run("ppo", world, [0.5], k=16, iterations=400, rate=1.5, **PPO)
    assert distance(policy[0], optimum(world.reference, world.rewards, 0.5)) < CLOSE
    log_z = (world.reference.log() + world.rewards / 0.5).logsumexp(-1)
    torch.testing.assert_close(values[0], 0.5 * log_z, rtol=0, atol=0.01)


@pytest.mark.parametrize("baseline", ["batch", "running", "none"])
def test_reinforce_with_any_baseline_is_unbiased(baseline):
    """One prompt, so that a baseline can know its value: batch and running end exactly, `none` keeps its noise."""
    noisy = baseline == "none"
    rate, k = (0.02, 64) if noisy else (0.5, 8)
    policy, _ = run(
        "reinforce", CASE_A, [0.5] * 3, k=k, iterations=2500 if noisy else 600, rate=rate, baseline=baseline
    )
    assert distance(policy, OPTIMUM) < (0.02 if noisy else CLOSE)


def test_whitened_advantages_never_die_out():
    """At pi* leave-one-out advantages are 0; whitened, the rounding that is left has sd 1 and the policy wanders."""
    policy, _ = run("rloo", CASE_A, [0.5] * 5, k=8, iterations=500, rate=0.5, whiten=True)
    assert distance(policy, OPTIMUM) > CLOSE


# --- responses of several tokens ------------------------------------------------------------------------------------

TREE = Tree(
    rewards=torch.tensor([0.3, 1.0, -0.5, 0.0, 0.8], dtype=torch.float64),
    reference=torch.tensor([0.5, 0.0, -0.3, 0.4, 0.0, 0.0, 0.7], dtype=torch.float64),
)


def test_ppo_with_token_rewards_and_a_value_for_every_prefix():
    """Five responses of one or two tokens: the KL is paid token by token, GAE carries the reward back to the first.

    The values that make every advantage 0 are the soft ones: beta log sum over continuations.
    """
    algorithm, beta, n, lanes = ALGORITHMS["ppo"], 0.5, 24, 3
    draw = torch.Generator().manual_seed(0)
    reference, mask = TREE.tokens(TREE.reference)
    logits = TREE.reference.expand(lanes, -1).clone()
    values = torch.zeros(lanes, 3, dtype=torch.float64)  # before the first token, after token 1, after token 2
    prefix = torch.tensor([[0, 0], [0, 1], [0, 1], [0, 2], [0, 2]])
    for _ in range(500):
        drawn = torch.multinomial(TREE.distribution(logits), n, replacement=True, generator=draw)

        def of(x, drawn=drawn):
            return x[torch.arange(lanes)[:, None], drawn]

        rollout = Rollout(
            of(TREE.tokens(logits)[0]), reference[drawn], mask[drawn], TREE.rewards[drawn], n, of(values[:, prefix])
        )
        targets = algorithm.targets(rollout, beta, whiten=False)
        batch = minibatch(rollout, targets, torch.arange(n).expand(lanes, -1))
        for _ in range(2):
            point, level = logits.clone().requires_grad_(), values.clone().requires_grad_()
            now = Forward(of(TREE.tokens(point)[0]), of(level[:, prefix]))
            loss = algorithm.loss(now, batch, vf_coef=1.0, value_clip=10.0).loss.sum()
            slopes = torch.autograd.grad(loss, [point, level])
            logits, values = logits - slopes[0], values - slopes[1]
    start = TREE.distribution(TREE.reference)
    best = optimum(start, TREE.rewards, beta)
    assert distance(TREE.distribution(logits), best) < CLOSE < distance(start, best)
    weights = (start.log() + TREE.rewards / beta).exp()
    soft = [weights.sum(), weights[1:3].sum() / start[1:3].sum(), weights[3:].sum() / start[3:].sum()]
    expected = beta * torch.stack(soft).log()
    torch.testing.assert_close(values, expected.expand(lanes, -1), rtol=0, atol=0.02)


# --- agreement with RLHF is not alignment ---------------------------------------------------------------------------


def pairs_world(delta_ref: list[float], gap: float = 1.0) -> Flat:
    """One prompt a pair: two responses with the given reference gap, rewards `gap` and 0."""
    logits = torch.tensor([[d, 0.0] for d in delta_ref], dtype=torch.float64)
    return Flat(logits.softmax(-1), torch.tensor([[gap, 0.0]] * len(delta_ref), dtype=torch.float64))


def deltas(policy):
    return policy[..., 0].log() - policy[..., 1].log()


def test_rlhf_itself_ends_in_the_undesirable_zone_where_the_assumption_is_violated():
    """delta_ref = -4, gap 1, beta = .5: delta* = -4 + 1 / .5 = -2, above the reference and still wrong."""
    policy, _ = run("rloo", pairs_world([-4.0]), [0.5] * 3, k=8, iterations=800, rate=2.0)
    ends = deltas(policy)
    assert bool(((ends < 0) & (ends > -4)).all())
    torch.testing.assert_close(ends, torch.full_like(ends, -2.0), rtol=0, atol=0.1)
    torch.testing.assert_close(policy[..., 0], torch.full_like(ends, 0.119203), rtol=0, atol=0.01)


# Shares of four pairs with delta_ref = (-4, -1.5, -.4, .8), gap 1, ranked right by the RLHF optimum at each beta.
SWEEP = {0.05: 1.0, 0.1: 1.0, 0.2: 1.0, 0.3: 0.75, 0.5: 0.75, 0.8: 0.5, 1.0: 0.5, 2.0: 0.5, 5.0: 0.25}


def test_ranking_accuracy_of_rlhf_falls_with_beta_and_its_reward_accuracy_does_not():
    """A pair leaves the zone iff gap / beta > |delta_ref|: beta below .25, .6667, 2.5 for the first three pairs."""
    reference = torch.tensor([-4.0, -1.5, -0.4, 0.8], dtype=torch.float64)
    betas = torch.tensor(list(SWEEP), dtype=torch.float64)
    ends = deltas(exactly(pairs_world(reference.tolist()), betas, rate=3.0, iterations=600))
    assert (ends > 0).double().mean(-1).tolist() == list(SWEEP.values())
    assert bool((ends > reference).all())
    leaves = 1 / betas[:, None] > -reference
    assert torch.equal(ends > 0, leaves)
    zone = (ends < 0) & (ends > reference)
    assert torch.equal(zone, ~leaves & (reference < 0))
    # Where the probabilities are not too small to move in so few steps, the gap itself is delta_ref + gap / beta.
    torch.testing.assert_close(ends[3:], (reference + 1 / betas[:, None])[3:], rtol=0, atol=0.02)
