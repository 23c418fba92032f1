"""The reward model's loss: on Bradley-Terry labels its gaps are the gold gaps, its levels are nobody's business."""

from __future__ import annotations

import itertools

import pytest
import torch

from harness.objectives import OBJECTIVES
from harness.types import PairLogps
from tests.rlhf.test_finite_world import deltas, exactly, run
from tests.rlhf.worlds import REWARDS, Flat, distance, several_prompts


def pairs_of(scores, order):
    """Every pair of responses of every prompt: scores (P, m) -> PairLogps (P, pairs)."""
    sides = [scores[:, [pair[side] for pair in order]] for side in (0, 1)]
    ones = torch.ones_like(sides[0])
    return PairLogps(*sides, ones, ones)


def swapped(pairs):
    return PairLogps(pairs.rejected, pairs.chosen, pairs.rejected_len, pairs.chosen_len)


def fitted(rewards, start, flips=0.0, hard=False, steps=400, rate=2.0, order=None, **given):
    """Scores (P, m) that minimise the mean loss over labels, each pair labelled either way with its probability."""
    row = OBJECTIVES["reward_model"]
    order = list(itertools.combinations(range(rewards.shape[-1]), 2)) if order is None else order
    gold = pairs_of(rewards, order)
    share = torch.sigmoid(gold.chosen - gold.rejected) * (1 - 2 * flips) + flips
    share = torch.ones_like(share) if hard else share
    scores = start.clone()
    for _ in range(steps):
        point = scores.clone().requires_grad_()
        pairs = pairs_of(point, order)
        zero = pairs_of(torch.zeros_like(point), order)
        right, wrong = (row.loss(side, zero, head="scalar", **given).loss for side in (pairs, swapped(pairs)))
        (slope,) = torch.autograd.grad((share * right + (1 - share) * wrong).sum(), point)
        scores = scores - rate * slope
    return scores


def gaps(scores):
    return scores - scores[:, :1]


@pytest.mark.parametrize("rewards", [REWARDS, several_prompts().rewards], ids=["three responses", "five responses"])
def test_gaps_are_recovered_and_levels_are_not(rewards):
    """Two starts that differ by a constant of the prompt end at the same gaps, still that constant apart."""
    start = torch.zeros_like(rewards)
    shift = torch.arange(len(rewards), dtype=torch.float64)[:, None] + 2.5
    found = [fitted(rewards, first, shrink=0.0, rate=1.0) for first in (start, start + shift)]
    for scores in found:
        torch.testing.assert_close(gaps(scores), gaps(rewards), rtol=0, atol=1e-9)
    torch.testing.assert_close(found[1] - found[0], shift.expand_as(start), rtol=0, atol=1e-9)


def test_a_level_of_the_prompt_changes_no_policy():
    """Advantages compare responses of one prompt: scores + c(x) give the same policy, sample for sample."""
    world = several_prompts()
    raised = Flat(world.reference, world.rewards + torch.arange(4, dtype=torch.float64)[:, None])
    policies = [run("rloo", flat, [0.5], k=4, iterations=200, rate=2.0)[0] for flat in (world, raised)]
    assert distance(*policies) < 1e-9


def test_centring_fixes_the_level_of_a_pair_and_leaves_its_gap():
    start = torch.tensor([[5.0, 3.0]], dtype=torch.float64)
    found = fitted(torch.tensor([[1.0, 0.0]], dtype=torch.float64), start, center=0.05, shrink=0.0)
    torch.testing.assert_close(found, torch.tensor([[0.5, -0.5]], dtype=torch.float64), rtol=0, atol=1e-9)


def test_a_margin_is_added_to_the_gap():
    """ell(gap - m) on hard orientation ties m to the label: gap g with q sigma(m - g) = (1 - q) sigma(m + g)."""
    rewards, margin = torch.tensor([[1.0, 0.0]], dtype=torch.float64), 0.7
    found = fitted(rewards, torch.zeros_like(rewards), margin=margin, shrink=0.0)
    gap, share = found[0, 0] - found[0, 1], torch.sigmoid(torch.tensor(1.0, dtype=torch.float64))
    balance = share * torch.sigmoid(margin - gap) - (1 - share) * torch.sigmoid(margin + gap)
    assert float(balance) == pytest.approx(0.0, abs=1e-12) and float(gap) > 1.0


def test_shrinking_keeps_the_gap_of_hard_labels_finite():
    """r = +-g/2: the loss is ell(g) + shrink g^2 / 4, least where sigma(-g) = shrink g / 2; at 1e-3, g = 5.83.

    Without it the gap has no limit.
    """
    rewards = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    found = fitted(rewards, torch.zeros_like(rewards), hard=True, shrink=1e-3, steps=1500, rate=10.0)
    gap = found[0, 0] - found[0, 1]
    assert float(torch.sigmoid(-gap)) == pytest.approx(1e-3 * float(gap) / 2, rel=1e-3)
    assert float(gap) == pytest.approx(5.83, abs=0.01)
    free = [
        fitted(rewards, torch.zeros_like(rewards), hard=True, shrink=0.0, steps=s, rate=10.0)[0] for s in (200, 800)
    ]
    assert float(free[1][0] - free[1][1]) > float(free[0][0] - free[0][1]) + 0.3 > 7.0


def test_rlhf_on_a_reward_model_of_flipped_labels_ends_where_dpo_on_those_labels_does():
    """delta_ref = -4, gap 1, beta = .5, labels flipped at eps: the model learns logit(q'), the policy delta_ref plus
    that over beta, which is dpo's own minimiser on the same labels. A reward model is no protection from noise."""
    flips = torch.tensor([[0.0], [0.1], [0.2], [0.3], [0.4]], dtype=torch.float64)
    gold = torch.tensor([[1.0, 0.0]] * 5, dtype=torch.float64)
    scores = fitted(gold, torch.zeros_like(gold), flips, shrink=0.0)
    reference = torch.tensor([[-4.0, 0.0]] * 5, dtype=torch.float64).softmax(-1)
    ends = deltas(exactly(Flat(reference, scores), [0.5], rate=3.0, iterations=400))[0]
    dpo = torch.tensor([-2.0, -2.4477, -2.8611, -3.2520, -3.6292], dtype=torch.float64)
    torch.testing.assert_close(ends, dpo, rtol=0, atol=1e-4)


def test_a_disconnected_comparison_graph_leaves_gaps_between_its_parts_free():
    """Pairs (0, 1) and (2, 3) only: gaps within are gold, gaps across are where they started."""
    rewards = torch.tensor([[1.0, 0.0, -0.5, 0.3]], dtype=torch.float64)
    start = torch.tensor([[0.0, 0.0, 7.0, 7.0]], dtype=torch.float64)
    found = fitted(rewards, start, order=[(0, 1), (2, 3)], shrink=0.0)
    assert float(found[0, 0] - found[0, 1]) == pytest.approx(1.0, abs=1e-9)
    assert float(found[0, 2] - found[0, 3]) == pytest.approx(-0.8, abs=1e-9)
    assert float(found[0, 2:].mean() - found[0, :2].mean()) == pytest.approx(7.0, abs=1e-9)
