"""Identities between objectives (objectives.md 6.3), for any inputs, and their reading of noisy labels."""

from __future__ import annotations

import math

import pytest
import torch

from harness.objectives import OBJECTIVES
from harness.objectives.registry import resolve
from harness.types import PairLogps
from tests.objectives.cases import at, batch, pairs

POLICY, REFERENCE = batch((64,), seed=11)
SWAPPED = [PairLogps(x.rejected, x.chosen, x.rejected_len, x.chosen_len, x.extra) for x in (POLICY, REFERENCE)]
ONES = torch.ones(64, dtype=torch.float64)


def loss(name, policy=POLICY, reference=REFERENCE, state=None, **given):
    return OBJECTIVES[name].loss(policy, reference, state=state, **given).loss


def extra(policy, **values):
    fields = (policy.chosen, policy.rejected, policy.chosen_len, policy.rejected_len)
    return PairLogps(*fields, {**policy.extra, **values})


def close(left, right, tolerance=1e-12):
    torch.testing.assert_close(left, right, rtol=tolerance, atol=tolerance)


EQUAL_DPO = [
    ("cdpo", {"eps": 0.0}), ("robust_dpo", {"eps": 0.0}), ("dpop", {"lam": 0.0}), ("rdpo_length", {"alpha": 0.0}),
    ("dpo_shift", {"f": 1.0}), ("ld_dpo", {"alpha": 1.0}), ("cpo_dual", {}), ("dpo_pro", {"eps": 0.0, "rho": 3.0}),
    ("mixture", {}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "given"), EQUAL_DPO)
@pytest.mark.parametrize("beta", [0.1, 2.0])
def test_these_are_dpo_at_the_end_of_their_range(name, given, beta):
    close(loss(name, beta=beta, **given), loss("dpo", beta=beta))


def test_token_rows_are_dpo_at_neutral_input():
    dpo = loss("dpo", beta=0.3)
    close(loss("wpo", extra(POLICY, chosen_log_weight=0 * ONES, rejected_log_weight=0 * ONES), beta=0.3), dpo)
    same = extra(POLICY, chosen_kl=2 * ONES, rejected_kl=2 * ONES)
    close(loss("tdpo1", same, beta=0.3), dpo)
    close(loss("tdpo2", same, beta=0.3, alpha=0.7), dpo)
    close(loss("mallows_po", POLICY, extra(REFERENCE, entropy_share=ONES / math.e), beta=0.3), dpo)


def test_token_rows_by_hand():
    policy = pairs([-6.0], [-9.0], [2], [3], {
        "chosen_log_weight": torch.tensor([-0.5]), "rejected_log_weight": torch.tensor([-0.2]),
        "chosen_head": torch.tensor([-6.0]), "rejected_head": torch.tensor([-5.0]),
        "chosen_kl": torch.tensor([0.5]), "rejected_kl": torch.tensor([2.0]),
    })  # fmt: skip
    reference = pairs([-7.0], [-8.0], [2], [3], {
        "chosen_head": torch.tensor([-7.0]), "rejected_head": torch.tensor([-6.0]),
        "entropy_share": torch.tensor([0.25]),
    })  # fmt: skip

    def neg_log_sigmoid(u):
        return math.log1p(math.exp(-u))

    # h_w = 1, h_l = -1 (head +1, tail -2), gain 2.
    expected = {
        "wpo": ({}, math.exp(-0.7) * neg_log_sigmoid(0.5 * 2)),
        "ld_dpo": ({"alpha": 0.25}, neg_log_sigmoid(0.5 * (1 - (1 - 0.25 * 2)))),
        "tdpo1": ({}, neg_log_sigmoid(0.5 * (2 - 1.5))),
        "tdpo2": ({"alpha": 0.4}, neg_log_sigmoid(0.5 * (2 - 0.4 * 1.5))),
        "mallows_po": ({}, neg_log_sigmoid(math.log(4) * 0.5 * 2)),
    }
    for name, (given, value) in expected.items():
        assert loss(name, policy, reference, beta=0.5, **given).item() == pytest.approx(value, rel=1e-6), name


def test_robust_dpo_is_unbiased():
    for eps in (0.05, 0.2, 0.4):
        given = {"beta": 0.3, "eps": eps}
        mean = (1 - eps) * loss("robust_dpo", **given) + eps * loss("robust_dpo", *SWAPPED, **given)
        close(mean, loss("dpo", beta=0.3))
    assert not torch.equal(loss("robust_dpo", eps=0.1), loss("dpo"))


def test_limits():
    close(loss("fdpo_alpha", alpha=1e-9), loss("dpo"), 1e-7)
    close(loss("fdpo_alpha", alpha=1.0), loss("fdpo_forward_kl"))
    close(loss("alphapo", alpha=1e-9), loss("simpo"), 1e-7)
    close(loss("dr_dpo", beta_prime=1e8).mean(), loss("dpo").mean(), 1e-7)
    for beta_prime in (0.1, 1.0, 10.0):
        assert loss("dr_dpo", beta_prime=beta_prime)[0] <= loss("dpo").mean()
    close(loss("beta_dpo", alpha=0.0, rho=1.0).mean(), loss("dpo").mean())


def test_simpo_is_contrastive_cpo_on_token_means():
    means = PairLogps(POLICY.chosen / POLICY.chosen_len, POLICY.rejected / POLICY.rejected_len, ONES, ONES)
    close(loss("simpo", beta=2.0, gamma=0.0), loss("contrastive_cpo", means, beta=2.0, lam=0.0))


def test_order_statistics():
    for name in ("aot", "aot_unpaired"):
        for i in range(4):
            one = slice(i, i + 1)
            close(loss(name, at(POLICY, one), at(REFERENCE, one)), loss("dpo")[one])
    # The pairing does not matter to aot: only the two sorted lists do.
    order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
    close(loss("aot", POLICY, at(REFERENCE, order))[0], loss("aot")[0])
    eps = loss("aot", eps=0.2)[0]
    d = (POLICY.chosen - POLICY.rejected).sort().values - (REFERENCE.chosen - REFERENCE.rejected).sort().values
    close(eps, (0.8 * torch.log1p(torch.exp(-0.1 * d)) + 0.2 * torch.log1p(torch.exp(0.1 * d))).mean())


def test_constrained_family():
    right = (REFERENCE.chosen - REFERENCE.rejected) >= 0
    assert 5 < int(right.sum()) < 59
    close(loss("hypo")[right], loss("dpo")[right])
    close(loss("hypo")[~right], loss("contrastive_cpo", lam=0.0)[~right])
    right = REFERENCE.chosen / REFERENCE.chosen_len >= REFERENCE.rejected / REFERENCE.rejected_len
    close(loss("cpo_clip", beta=3.0)[right], loss("ln_dpo", beta=3.0)[right])
    sharp = {"beta": 0.5, "gamma": 0.0, "alpha": 1.0, "tau": 1e7}
    close(loss("cpo_smooth", **sharp, reduction="mean"), loss("cpo_clip", beta=0.5), 1e-6)
    close(loss("cpo_smooth", **sharp, reduction="sum"), loss("hypo", beta=0.5), 1e-6)
    for name in ("cpo_eq17", "ecpo_released"):
        close(loss(name, beta=2.5, gamma=0.0), loss("ln_dpo", beta=2.5))
    lower, middle, higher = loss("ecpo_released", beta=2.5), loss("ln_dpo", beta=2.5), loss("cpo_eq17", beta=2.5)
    assert bool((lower < middle).all()) and bool((middle < higher).all())


def test_small_identities():
    ones = [PairLogps(x.chosen, x.rejected, ONES, ONES) for x in (POLICY, REFERENCE)]
    close(loss("ipo", *ones, length_average=True), loss("ipo", *ones, length_average=False))
    # kto_pair with both batch means below zero has z0 = 0.
    low = PairLogps(REFERENCE.chosen - 5 * POLICY.chosen_len, REFERENCE.rejected - 1, *(2 * [ONES]))
    close(loss("kto_pair", low).mean(), loss("apo_zero", low).mean())
    for form, total in (("sigmoid", 1.0), ("ramp", 1.0), ("unhinged", 2.0)):
        close(loss("sympo", beta=3.0, form=form) + loss("sympo", *SWAPPED, beta=3.0, form=form), total * ONES)
    assert bool((loss("exo", eps=0.2, beta=1.0) >= 0).all())


def test_ropo_weight_peaks_at_one():
    gain = torch.linspace(-8, 8, 16001, dtype=torch.float64, requires_grad=True)
    zero = torch.zeros_like(gain)
    ones = zero.detach() + 1
    total = loss("ropo", PairLogps(gain, zero, ones, ones), PairLogps(zero, zero, ones, ones), beta=1.0, alpha=14.0)
    pull = -torch.autograd.grad(total.sum(), gain)[0]
    assert pull.max().item() == pytest.approx(1.0, abs=1e-6)
    assert torch.sigmoid(gain[pull.argmax()]).item() == pytest.approx(13 / 28, abs=1e-3)


@pytest.mark.parametrize("beta", [0.05, 1.0, 30.0])
def test_dpo_is_a_soft_hinge(beta):
    gain = (POLICY.chosen - POLICY.rejected) - (REFERENCE.chosen - REFERENCE.rejected)
    gap = loss("dpo", beta=beta) / beta - (-gain).clamp(min=0)
    assert bool((gap >= -1e-12).all()) and bool((gap <= math.log(2) / beta + 1e-12).all())


def test_dpo_pro_is_the_worst_label_in_the_ball():
    beta, eps, rho = 1.0, 0.2, 0.5
    q = 1 - eps
    grid = torch.linspace(0, 1, 200_001, dtype=torch.float64)
    inside = grid[(grid - q) ** 2 <= rho * q * (1 - q) + 1e-12]
    right, wrong = loss("dpo", beta=beta), loss("dpo", *SWAPPED, beta=beta)
    worst = (inside[:, None] * right + (1 - inside[:, None]) * wrong).max(0).values
    close(loss("dpo_pro", beta=beta, eps=eps, rho=rho), worst, 1e-4)


def test_identical_responses_pull_nothing_in_losses_of_the_margin():
    same = torch.tensor([-7.0], dtype=torch.float64)
    n = torch.tensor([5.0], dtype=torch.float64)
    for name in ("dpo", "cdpo", "robust_dpo", "ipo", "hinge", "exo", "discopop", "ln_dpo", "sympo", "ropo", "hypo",
                 "cpo_clip", "cpo_smooth", "fdpo_js", "fdpo_alpha", "simpo", "aot"):  # fmt: skip
        shared = same.clone().requires_grad_()
        out = OBJECTIVES[name].loss(PairLogps(shared, shared, n, n), PairLogps(same - 1, same - 1, n, n))
        assert torch.autograd.grad(out.loss.sum(), shared)[0].item() == pytest.approx(0.0, abs=1e-15), name


def test_mixture_is_the_weighted_sum():
    entries = [
        {"name": "dpo", "weight": 0.8},
        {"name": "ipo", "beta": 0.5, "weight": 2},
        {"name": "nll", "weight": 0.1},
    ]
    given = dict(resolve("mixture", {"mixture": entries, "beta": 0.3}).hyperparameters)
    expected = 0.8 * loss("dpo", beta=0.3) + 2 * loss("ipo", beta=0.5) + 0.1 * loss("nll")
    close(loss("mixture", **given), expected)
    column = {**given, "beta": torch.tensor([0.3], dtype=torch.float64)}
    close(loss("mixture", **column), expected)


def test_a_reward_model_takes_rewards():
    scores = pairs([2.0, -1.0], [0.5, 3.0], [1, 1], [1, 1])
    expected = [math.log1p(math.exp(-(1.5 - 0.25))), math.log1p(math.exp(4.25))]
    nothing, given = pairs([0.0, 0.0], [0.0, 0.0], [1, 1], [1, 1]), {"margin": 0.25, "shrink": 0.0}
    assert loss("reward_model", scores, nothing, head="scalar", **given).tolist() == pytest.approx(expected)
    nats = pairs([8.0, -4.0], [4.0, 12.0], [3, 2], [1, 5])  # log-probs of any length: a reward is of the whole response
    reference = pairs([4.0, -2.0], [3.0, 6.0], [3, 2], [1, 5])
    assert loss("reward_model", nats, reference, per_nat=0.5, **given).tolist() == pytest.approx(expected)
    assert loss("nll", pairs([-6.0], [0.0], [4], [0]), None).tolist() == [1.5]
