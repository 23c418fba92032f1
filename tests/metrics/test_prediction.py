"""Prediction before training against closed forms: a constant pull, fixed points, and kappa from a pilot."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from harness.metrics.prediction import (
    COMMON,
    COMMON_BY_RULE,
    NOISE,
    Pairs,
    Schedule,
    accuracy,
    calibrate,
    calibration,
    pilot_pairs,
    simulate,
)
from harness.metrics.theory import minimiser, observed_probability
from harness.objectives.foreign_logps import pair_losses
from tests.metrics.planted import records

N = 6
REF = np.linspace(-4, 3, N)


def slopes(objective, **hyperparameters):
    def of(columns):
        found = pair_losses(objective, hyperparameters, columns)
        return found["grad_w"], found["grad_l"]

    return of


def pairs(flip=0.0, spread=1.0, common=COMMON):
    columns = {
        "reference_chosen": REF[None] - 10, "reference_rejected": np.full((1, N), -10.0),
        "chosen_len": np.full((1, N), 5.0), "rejected_len": np.full((1, N), 5.0),
    }  # fmt: skip
    chosen = np.full((1, N), 0.75 * spread)
    share = np.zeros((1, N)) + flip
    return Pairs(columns, chosen, chosen - spread, share, share, np.array([[common]]))


def schedule(rates, batch=16.0):
    return Schedule(np.asarray(rates, dtype=float)[None], *(np.array([[value]]) for value in (0.9, 0.99, batch)))


def test_under_a_constant_pull_every_step_is_kappa_times_the_rate_damped_by_the_batch_noise():
    """Hard labels, no flips, sympo's unhinged form: the pull is beta throughout, and beta cancels in Adam."""
    rates = np.linspace(1e-3, 1e-4, 40)
    for beta, batch in ((0.5, 16.0), (3.0, 16.0), (1.0, 64.0)):
        gain = simulate(
            slopes("sympo", beta=beta, form="unhinged"), pairs(), schedule(rates, batch), np.array([[500.0]])
        )
        assert gain == pytest.approx(500 * rates.sum() / math.sqrt(1 + NOISE / batch) + np.zeros((1, N)), rel=1e-6)


@pytest.mark.parametrize(("objective", "hp"), [("dpo", {"beta": 0.5}), ("ipo", {"beta": 0.2}), ("hypo", {"beta": 1.0})])
@pytest.mark.parametrize("labels", ["bradley_terry", "hard"])
def test_its_fixed_point_is_the_minimiser_of_the_theory(objective, hp, labels):
    """Other gaps or targets in every pair: all must come to rest at their own minimiser, not at a common gain."""
    gap = np.linspace(0.2, 2, N)
    q = observed_probability(gap, 0.2, labels)
    whole = {"length_average": False} if objective == "ipo" else {"rpo_alpha": 0.0} if objective == "dpo" else {}
    rates = 0.05 * np.linspace(1, 0, 6000)
    gain = simulate(slopes(objective, **hp, **whole), pairs(flip=1 - q), schedule(rates, 1e9), np.array([[1.0]]))
    best = minimiser(objective, records(REF + 0.0, REF, gold_margin=gap), q, hp)
    assert REF + gain[0] == pytest.approx(best, abs=0.02)


def test_the_less_is_common_the_more_pairs_move_on_their_own():
    """Targets that differ between pairs: alone a pair goes to its own, together all rise alike."""
    shares = (1.0, COMMON, COMMON_BY_RULE)
    rates, kappa, hypo = schedule(np.full(40, 1e-3)), np.array([[400.0]]), slopes("hypo", beta=1.0)
    apart = [float(np.ptp(simulate(hypo, pairs(common=share), rates, kappa))) for share in shares]
    assert apart[0] == pytest.approx(0, abs=1e-9)
    assert apart[0] < apart[1] < apart[2]


def test_kappa_is_recovered_from_a_pilot_and_flips_slow_it_down():
    rates, dpo = np.full(25, 1e-3), slopes("dpo", beta=0.1, rpo_alpha=0.0)
    kappa = np.array([[420.0]])
    gain = simulate(dpo, pairs(), schedule(rates), kappa)
    assert calibrate(dpo, pairs(), schedule(rates), gain.mean(1, keepdims=True)) == pytest.approx(kappa, rel=1e-3)
    flipped = simulate(dpo, pairs(flip=0.4), schedule(rates), kappa)
    assert 0 < flipped.mean() < 0.4 * gain.mean()


def test_the_pairs_of_a_pilot_move_by_one_on_average_and_one_that_stood_still_is_refused():
    columns = records(REF + np.linspace(0, 2, N), REF)
    found = pilot_pairs(columns, np.zeros(N), 1000)
    assert found is not None
    made, gain = found
    assert gain == pytest.approx(1.0)
    assert made.spread.mean() == pytest.approx(1.0)
    assert np.ptp(made.spread) == pytest.approx(2.0)
    assert pilot_pairs(records(REF, REF), np.zeros(N), 1000) is None
    assert pilot_pairs(records(REF - 0.5, REF), np.zeros(N), 1000) is None


def test_the_band_holds_the_prediction_and_stays_in_bounds():
    middle, low, high = accuracy(pairs(), np.full((1, N), 2.0))
    assert middle[0] == pytest.approx((REF + 2 > 0).mean())
    assert 0 <= low[0] < middle[0] < high[0] <= 1
    assert accuracy(pairs(), np.full((1, N), 50.0))[2][0] == 1


def test_calibration_by_hand():
    fit = calibration([0.2, 0.4, 0.9], [0.3, 0.4, 0.8])
    assert (fit.n, fit.mae, fit.bias) == (3, pytest.approx(0.2 / 3), pytest.approx(0.0))
    assert fit.r2 == pytest.approx(1 - 0.02 / 0.14)
    assert fit.slope == pytest.approx(0.19 / 0.26)
    assert calibration([], []).mae is None
    assert calibration([0.5, 0.5], [0.2, 0.2]).r2 is None


def test_lanes_do_not_see_each_other():
    rates = np.full(30, 2e-3)
    flips = np.array([[0.0], [0.3]]) + np.zeros((2, N))
    both = Pairs(
        {name: np.repeat(values, 2, 0) for name, values in pairs().columns.items()},
        *(np.repeat(getattr(pairs(), part), 2, 0) for part in ("chosen", "rejected")),
        flips,
        flips,
        np.array([[COMMON_BY_RULE], [COMMON]]),
    )
    plan = Schedule(np.stack([rates, rates]), *(np.full((2, 1), value) for value in (0.9, 0.99, 16.0)))
    betas = torch.tensor([[0.5], [2.0]], dtype=torch.float64)
    together = simulate(slopes("dpo", beta=betas, rpo_alpha=0.0), both, plan, np.array([[400.0], [600.0]]))
    alone = simulate(slopes("dpo", beta=2.0, rpo_alpha=0.0), pairs(0.3), schedule(rates), np.array([[600.0]]))
    assert together[1] == pytest.approx(alone[0], rel=1e-9)
