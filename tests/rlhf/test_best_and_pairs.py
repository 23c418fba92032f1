"""Best-of-n against enumeration and its bound; fresh pairs for online DPO."""

from __future__ import annotations

import itertools

import pytest
import torch

from harness.rlhf.algorithms import Forward, minibatch
from harness.rlhf.best_of_n import best_of_n_distribution, kl_bound, select, shares
from harness.rlhf.online_dpo import fresh_pairs
from harness.rlhf.registry import ALGORITHMS
from harness.types import InputError
from tests.rlhf.worlds import REFERENCE, REWARDS, Flat, distance, optimum, several_prompts


def t(values):
    return torch.tensor(values, dtype=torch.float64)


def enumerated(reference, rewards, n):
    """The distribution of what `select` returns over all m^n draws of n samples."""
    out = torch.zeros_like(reference)
    for draws in itertools.product(range(len(reference)), repeat=n):
        chosen = select(rewards[list(draws)][None], n)
        out[draws[int(chosen)]] += reference[list(draws)].prod()
    return out


def test_best_of_two_by_hand():
    """pi_ref (.5, .3, .2), r (1, 0, -.5): the worst needs two of itself, .04; the middle .5^2 - .2^2 = .21; the best
    1 - .5^2 = .75."""
    torch.testing.assert_close(best_of_n_distribution(REFERENCE, REWARDS, 2), t([[0.75, 0.21, 0.04]]))


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_the_distribution_is_what_selection_from_samples_gives(n):
    """Rewards with and without ties, one response the reference never gives."""
    for reference, rewards in (
        (REFERENCE[0], REWARDS[0]),
        (t([0.5, 0.2, 0.1, 0.2]), t([0.0, 1.0, 1.0, -2.0])),
        (t([0.6, 0.4, 0.0]), t([0.0, 0.0, 9.0])),
        (t([0.25, 0.75]), t([1.0, 1.0])),
    ):
        found = best_of_n_distribution(reference, rewards, n)
        torch.testing.assert_close(found, enumerated(reference, rewards, n), rtol=1e-12, atol=1e-15)
        assert float(found.sum()) == pytest.approx(1.0, abs=1e-12)
        if n == 1:
            torch.testing.assert_close(found, reference)


def test_tied_rewards_are_split_as_the_reference_splits_them():
    """Of (.5, .2, .1, .2) the middle two tie at the top: together 1 - .7^2 = .51 for n = 2, in the ratio 2 to 1."""
    found = best_of_n_distribution(t([0.5, 0.2, 0.1, 0.2]), t([0.0, 1.0, 1.0, -2.0]), 2)
    torch.testing.assert_close(found[1:3], t([0.34, 0.17]))


@pytest.mark.parametrize("n", [1, 2, 4, 16, 256])
def test_the_kl_stays_below_its_bound(n):
    """log n - (n - 1)/n, never above; ties and heavy atoms keep well below it."""
    world = several_prompts()
    draw = torch.Generator().manual_seed(n)
    many = torch.rand(20, 200, generator=draw, dtype=torch.float64)
    cases = [
        (world.reference, world.rewards),
        (world.reference, world.rewards.sign()),
        (many / many.sum(-1, keepdim=True), torch.randn(20, 200, generator=draw, dtype=torch.float64)),
    ]
    for reference, rewards in cases:
        best = best_of_n_distribution(reference, rewards, n)
        kl = torch.where(best > 0, best * (best / reference).log(), 0.0).sum(-1)
        assert bool((kl <= kl_bound(n) + 1e-12).all()) and bool((kl > -1e-12).all())


def test_the_bound_is_reached_as_atoms_vanish_and_only_then():
    """n = 4: log 4 - 3/4 = .636294. 10 000 equal atoms come within 1e-3, 3 stay .08 below."""
    assert kl_bound(4) == pytest.approx(0.636294, abs=1e-6) and kl_bound(1) == 0.0
    for m, low, high in ((10_000, 0.0, 1e-3), (3, 0.08, 0.09)):
        fine = torch.full((m,), 1 / m, dtype=torch.float64)
        mass = torch.arange(m, dtype=torch.float64)
        best = ((mass + 1) / m) ** 4 - (mass / m) ** 4
        if m == 3:
            torch.testing.assert_close(best, best_of_n_distribution(fine, mass, 4))
        short = kl_bound(4) - float((best * (best / fine).log()).sum())
        assert low <= short <= high


def test_selection_from_lanes_and_prompts():
    """Two lanes, two prompts of three samples: (0, 2, 1 | 5, 5, 4) and (-1, -1, -1 | 0, 0, 7)."""
    rewards = t([[0.0, 2.0, 1.0, 5.0, 5.0, 4.0], [-1.0, -1.0, -1.0, 0.0, 0.0, 7.0]])
    assert select(rewards, 3).tolist() == [[1, 3], [0, 5]]
    third = 1 / 3
    torch.testing.assert_close(shares(rewards, 3), t([[0, 1, 0, 0.5, 0.5, 0], [third, third, third, 0, 0, 1]]))
    with pytest.raises(InputError, match="n = 4 must be at least 1 and divide the 6"):
        select(rewards, 4)


def test_fresh_pairs_of_best_and_worst():
    """(0, 2, 1 | 5, 5, 5 ): sample 1 over 0 by 2; three equal rewards prefer nothing."""
    found = fresh_pairs(t([[0.0, 2.0, 1.0, 5.0, 5.0, 5.0]]), 3)
    assert found.chosen.tolist()[0][0] == 1 and found.rejected.tolist()[0][0] == 0
    assert found.valid.tolist() == [[True, False]]
    assert found.gap.tolist() == [[2.0, 0.0]]


def test_fresh_pairs_of_neighbours_use_every_sample_once():
    found = fresh_pairs(t([[0.0, 2.0, 7.0, 1.0], [3.0, 3.0, -1.0, float("nan")]]), 4, "adjacent")
    assert found.chosen.tolist()[0] == [1, 2] and found.rejected.tolist()[0] == [0, 3]
    assert found.valid.tolist() == [[True, True], [False, False]]
    assert found.gap.tolist() == [[2.0, 6.0], [0.0, 0.0]]
    for given in ((3, "adjacent"), (1, "best_worst")):
        with pytest.raises(InputError, match="online_dpo: samples"):
            fresh_pairs(t([[0.0, 2.0, 7.0]]), *given)
    with pytest.raises(InputError, match="pairing: expected"):
        fresh_pairs(t([[0.0, 2.0]]), 2, "all")


def online(flat, beta, k, iterations, pairing="best_worst", seed=0):
    """online_dpo's own targets and loss on samples, plain gradient steps: the policy (P, m)."""
    algorithm, draw = ALGORITHMS["online_dpo"], torch.Generator().manual_seed(seed)
    logits = flat.reference.log()[None].clone()
    for _ in range(iterations):
        rollout, responses = flat.rollout(logits, k, draw)
        targets = algorithm.targets(rollout, beta, pairing=pairing)
        batch = minibatch(rollout, targets, torch.arange(rollout.scores.shape[1])[None])
        point = logits.clone().requires_grad_()
        loss = algorithm.loss(Forward(flat.logps(point, responses)), batch, k=k, beta=beta, pairing=pairing).loss
        logits = logits - torch.autograd.grad(loss.sum(), point)[0]
    return logits.softmax(-1)[0]


@pytest.mark.parametrize("pairing", ["best_worst", "adjacent"])
def test_online_dpo_climbs_the_reward_and_loses_its_size(pairing):
    """It ends far above the reference. Labels are hard, so only the order of the rewards is learnt: ten times the
    reward gives the same policy to the bit, where pi* moves a long way."""
    flat = Flat(REFERENCE.flip(-1), REWARDS)  # the reference gives the best response least
    larger = Flat(flat.reference, 10 * flat.rewards)
    ends = [online(world, 0.5, 8, 400, pairing) for world in (flat, larger)]
    assert float((ends[0] * REWARDS).sum()) > float((flat.reference * REWARDS).sum()) + 0.5
    assert torch.equal(*ends)
    assert distance(*(optimum(world.reference, world.rewards, 0.5) for world in (flat, larger))) > 0.05


def test_equal_rewards_teach_online_dpo_nothing():
    flat = Flat(REFERENCE, torch.zeros_like(REWARDS))
    torch.testing.assert_close(online(flat, 0.5, 4, 50), REFERENCE, rtol=0, atol=1e-12)
