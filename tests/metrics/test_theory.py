"""The theory panel against the design's worked tables and planted pairs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.metrics.theory import MARGINS, MINIMISERS, Theory, minimiser, observed_probability, theory
from tests.metrics.planted import records

EPS = (0.0, 0.1, 0.2, 0.3, 0.4)
# One pair, delta_ref -4, gap 1, beta .5 (ipo: tau .5), labels flipped at eps: minimisers by objective.
WORKED = {
    ("dpo", ()): [-2, -2.4477, -2.8611, -3.2520, -3.6292],
    ("robust_dpo", (("eps", 0.2),)): [0.0832, -1.1249, -2.0, -2.7263, -3.3789],
    ("cdpo", (("eps", 0.1),)): [-2.4477, -2.7806, -3.0977, -3.4041, -3.7037],
    ("ipo", ()): [-3.5379, -3.6303, -3.7227, -3.8152, -3.9076],
    ("hinge", ()): [-2, -2, -2, -2, -2],
    ("hypo", ()): [1.2951, 0.6519, 0.0104, -0.6435, -1.3152],
}


def one(delta_ref=-4.0, gap=1.0, delta=0.0):
    return records([delta], [delta_ref], gold_margin=[gap])


@pytest.mark.parametrize(("objective", "more"), WORKED)
def test_worked_minimisers(objective, more):
    hp = {"beta": 0.5, **dict(more)}
    found = [minimiser(objective, one(), observed_probability(np.array([1.0]), eps), hp)[0] for eps in EPS]
    assert found == pytest.approx(WORKED[objective, more], abs=6e-5)


def test_matched_robust_dpo_recovers_the_clean_minimiser():
    for eps in EPS:
        q = observed_probability(np.array([1.0]), eps)
        assert minimiser("robust_dpo", one(), q, {"beta": 0.5, "eps": eps})[0] == pytest.approx(-2.0)


def test_observed_probability_of_both_kinds_of_labels():
    gap = np.array([1.0, -1.0, 0.0])
    assert observed_probability(gap, 0.2) == pytest.approx([0.638635, 0.361365, 0.5], abs=1e-6)
    assert observed_probability(gap, 0.2, "hard") == pytest.approx([0.8, 0.2, 0.5])
    for arguments in ((gap, 0.6), (gap, 0.1, "soft")):
        with pytest.raises(ValueError, match=r"outside|must be"):
            observed_probability(*arguments)


def test_hard_labels_have_no_finite_optimum_but_a_direction():
    q = observed_probability(np.array([1.0]), 0.0, "hard")
    assert minimiser("dpo", one(), q, {"beta": 0.5})[0] == math.inf
    assert minimiser("hypo", one(), q, {"beta": 0.5})[0] == math.inf
    assert minimiser("ipo", one(), q, {"beta": 0.5})[0] == -3.0
    assert minimiser("cdpo", one(), q, {"beta": 0.5, "eps": 0.1})[0] == pytest.approx(-4 + math.log(9) / 0.5)


def test_hypo_ranks_right_only_above_its_threshold():
    """delta > 0 iff q' > 2 / (3 + exp(beta delta_ref)): up to 2/3, not 1/2."""
    threshold = 2 / (3 + math.exp(0.5 * -4.0))
    below, above = (minimiser("hypo", one(), np.array([threshold + d]), {"beta": 0.5})[0] for d in (-1e-6, 1e-6))
    assert below < 0 < above


def test_an_added_likelihood_term_has_no_closed_form():
    q = np.array([0.7])
    assert minimiser("dpo", one(), q, {"beta": 0.5, "rpo_alpha": 1.0}) is None
    assert minimiser("contrastive_cpo", one(), q, {"beta": 0.5, "lam": 1.0}) is None
    assert minimiser("contrastive_cpo", one(), q, {"beta": 0.5, "lam": 0.0})[0] == pytest.approx(
        np.log(0.7 / 0.3) / 0.5
    )
    assert minimiser("kto", one(), q, {"beta": 0.5}) is None
    assert not MARGINS & set(MINIMISERS)


def test_violated_share_crosses_where_beta_does():
    """gap 1: pairs with delta_ref -4, -1.5, -.4 are violated from beta .25, .6667 and 2.5 on."""

    def share(beta, eps=0.0):
        rows = records(np.zeros(3), [-4.0, -1.5, -0.4], gold_margin=[1.0, 1.0, 1.0])
        return theory(rows, "dpo", {"beta": beta}, eps).violated

    assert [share(beta) for beta in (0.24, 0.26, 0.66, 0.68, 2.4, 2.6)] == pytest.approx(
        [0, 1 / 3, 1 / 3, 2 / 3, 2 / 3, 1]
    )
    assert [share(beta, 0.2) for beta in (0.142, 0.143, 0.379, 0.380)] == pytest.approx([0, 1 / 3, 1 / 3, 2 / 3])


def test_the_panel_of_planted_pairs():
    """Beta .5, optimum -2, 1, 7 for delta_ref -4, -1, 5 and gap 1; the policy is wrong on the first two."""
    rows = records([-3.0, -0.5, 6.0, 1.0], [-4.0, -1.0, 5.0, 0.0], gold_margin=[1.0, 1.0, 1.0, math.nan])
    assert theory(rows, "dpo", {"beta": 0.5}) == Theory(
        n=3, violated=pytest.approx(1 / 3), wrong=pytest.approx(2 / 3), idealised=pytest.approx(2 / 3),
        achieved=pytest.approx(1 / 3), predicted_right=pytest.approx(2 / 3), agreement=pytest.approx(2 / 3),
    )  # fmt: skip
    without = theory(rows, "orpo", {"lam": 0.1})
    assert (without.violated, without.idealised, without.predicted_right, without.agreement) == (None,) * 4
    assert theory(records([1.0], [1.0]), "dpo", {"beta": 1.0}) is None  # no gap is known


def test_a_policy_at_the_minimiser_agrees_everywhere():
    rng = np.random.default_rng(3)
    reference, gap = rng.normal(-1, 3, 200), rng.uniform(0.5, 3, 200)
    for objective, hp in (("dpo", {"beta": 0.5}), ("hypo", {"beta": 0.5}), ("ipo", {"beta": 0.2})):
        q = observed_probability(gap, 0.2)
        best = minimiser(objective, records(np.zeros(200), reference, gold_margin=gap), q, hp)
        found = theory(records(best, reference, gold_margin=gap), objective, hp, 0.2)
        assert found.agreement == 1.0 and found.predicted_right == found.achieved
