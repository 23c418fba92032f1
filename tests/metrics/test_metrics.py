"""Laws over the whole table of measures, and a planted or closed-form value for every kind of row."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import pairs, records

from harness.laws import metrics as laws
from harness.metrics import METRICS, distributions
from harness.metrics.margin_columns import log_ratio_margin

every_row = pytest.mark.parametrize("row", METRICS.values(), ids=METRICS.keys())


@every_row
@pytest.mark.parametrize("law", laws.LAWS, ids=lambda law: law.__name__)
def test_every_row_keeps_every_law(law, row):
    law(row)


@settings(deadline=None)  # over two hundred measures an example
@given(pairs())
def test_every_value_lies_in_its_range(columns):
    for row in METRICS.values():
        laws.stays_in_range(row, columns)


@settings(deadline=None)
@given(pairs(), st.floats(1e-3, 1e3))
def test_rescaling_beta_leaves_neutral_measures_unchanged(columns, beta):
    for row in METRICS.values():
        laws.neutral_of_beta(row, columns, beta)


def test_measures_that_are_not_neutral_do_change():
    columns = records([1.0, -0.4, 2.0], [-1.0, -2.0, 0.5], gold_margin=[1.0, 1.0, 2.0])
    changing = [row for row in METRICS.values() if "beta" in row.settings]
    assert changing and not any(row.beta_neutral for row in changing)
    for row in changing:
        assert row.compute(columns, beta=0.3) != row.compute(columns, beta=3.0), row.name


@pytest.mark.parametrize("bad", [math.inf, -math.inf])
@every_row
def test_an_infinite_log_prob_makes_no_number(row, bad):
    laws.no_number_of_a_diverged_policy(row, bad)


def test_a_row_and_a_table_of_rows_stay_as_they_are():
    with pytest.raises(TypeError):
        METRICS["mine"] = METRICS["kl"]  # type: ignore[index]
    assert all(name == row.name for name, row in METRICS.items())


PLANTED = records([4.0, 1.0, -1.0, -2.0], [2.0, 2.0, -3.0, 1.0], gold_margin=[2.0, 1.0, 2.0, np.nan],
                  clean_label=[1, -1, 1, -1])  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ranking_accuracy", 0.5), ("reward_accuracy", 0.5), ("ref_accuracy", 0.75), ("undesirable_zone", 0.25),
        ("accuracy_gap", 0.0), ("broken", 0.25), ("rescued", 0.0), ("kept_right", 0.5), ("kept_wrong", 0.25),
        ("violation_proxy", 0.25), ("delta_mean", 0.5), ("delta_ref_mean", 0.5), ("gain_mean", 0.0),
        ("gain_min", -3.0), ("gain_max", 2.0), ("gain_q50", 0.5), ("delta_std", math.sqrt(21 / 3)),
        ("h_w_mean", 0.0), ("h_l_mean", 0.0), ("chosen_displacement", 0.0), ("rejected_displacement", 0.0),
        ("logratio_on_data", 0.0), ("disp_rate", 0.5), ("both_down", 0.0), ("w1_shift", 1.5),
        ("memorised_flip_rate", 0.5), ("clean_ranking_accuracy", 0.5), ("observed_clean_gap", 0.0),
        ("flip_auroc", 1.0), ("auc", 0.5), ("implicit_margin_max", 1.0), ("violation_rate", 0.0),
    ],
)  # fmt: skip
def test_planted_values(name, value):
    assert METRICS[name].compute(PLANTED, beta=0.5) == pytest.approx(value)


def test_planted_values_of_the_rest():
    columns = PLANTED | {"rejected_len": PLANTED["chosen_len"]}
    assert METRICS["violation_rate"].compute(PLANTED, beta=0.7) == pytest.approx(1 / 3)  # -3 <= -2 / .7; NaN left out
    assert METRICS["violation_rate"].compute(PLANTED, beta=0.5) == 0.0  # threshold -4
    assert METRICS["ln_delta_mean"].compute(columns) == pytest.approx(0.5 / 4)
    assert METRICS["frac_ref_below_gamma"].compute(columns, gamma=0.4) == 0.5  # -3/4 and 1/4
    reference, moved = np.array([2.0, 2.0, -3.0, 1.0]), np.array([2.0, -1.0, 2.0, -3.0])
    assert METRICS["corr_ref_gain"].compute(PLANTED) == pytest.approx(np.corrcoef(reference, moved)[0, 1])
    assert METRICS["vacuous_rate"].compute({"vacuous": np.array([True, False])}) == 0.5
    assert METRICS["loss"].compute({"loss": np.array([-3.0, 1.0])}) == -1.0


def test_calibration_is_zero_where_beta_gain_is_the_true_gap():
    gaps = np.array([0.5, 1.0, 2.0, 3.0])
    columns = records(gaps / 0.5, np.zeros(4), gold_margin=gaps)
    assert METRICS["ece"].compute(columns, beta=0.5) == pytest.approx(0, abs=1e-12)
    assert METRICS["ece"].compute(columns, beta=50) > 0.05
    # Sure of the wrong side: every pair has probability ~0 of its label, in both orientations.
    assert METRICS["ece_label"].compute(records([-9.0] * 3, [0.0] * 3), beta=10) == pytest.approx(1, abs=1e-9)
    assert METRICS["ece_label"].compute(records([9.0] * 3, [0.0] * 3), beta=10) == pytest.approx(0, abs=1e-9)


def test_memorisation_of_planted_scorers():
    """A scorer that follows the observed labels memorises every flip, one that follows the truth finds every flip."""
    labels = np.where(np.arange(100) % 4 == 0, -1, 1)
    follows, resists = records(np.full(100, 2.0), np.zeros(100)), records(2.0 * labels, np.zeros(100))
    for columns, memorised, auroc, clean in ((follows, 1.0, 0.5, 0.75), (resists, 0.0, 1.0, 1.0)):
        columns = columns | {"clean_label": labels}
        assert METRICS["memorised_flip_rate"].compute(columns) == memorised
        assert METRICS["flip_auroc"].compute(columns) == auroc
        assert METRICS["clean_ranking_accuracy"].compute(columns) == clean
    assert METRICS["observed_clean_gap"].compute(follows | {"clean_label": labels}) == 0.25
    none = follows | {"clean_label": np.ones(100)}
    assert math.isnan(METRICS["memorised_flip_rate"].compute(none)) and math.isnan(METRICS["flip_auroc"].compute(none))


@given(pairs(), st.integers(0, 99))
def test_auc_counts_pairs_of_scores(columns, seed):
    scores = log_ratio_margin(columns)
    positive = np.random.default_rng(seed).random(scores.size) < 0.5
    area = distributions.auc(scores, positive)
    if positive.all() or not positive.any():
        assert math.isnan(area)
        return
    above = scores[positive][:, None] - scores[~positive][None, :]
    assert area == pytest.approx(((above > 0) + 0.5 * (above == 0)).mean())


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=30), st.floats(-10, 10))
def test_w1_of_a_shift_is_the_shift(values, shift):
    first = np.array(values)
    assert distributions.w1(first + shift, first[::-1]) == pytest.approx(abs(shift), abs=1e-9)


def test_kl_of_samples_is_that_of_a_finite_world():
    policy, reference = np.array([0.6, 0.3, 0.1]), np.array([0.2, 0.3, 0.5])
    exact = float(policy @ np.log(policy / reference))
    k1 = np.log(policy / reference)
    k3 = np.expm1(-k1) + k1
    assert policy @ k3 == pytest.approx(exact)  # unbiased
    draws = np.random.default_rng(0).choice(3, 20_000, p=policy)
    assert METRICS["kl"].compute({"k3": k3[draws]}) == pytest.approx(exact, rel=0.05)


@pytest.mark.parametrize("beta", [0.1, 0.5, 2.0, 10.0])
def test_idealised_accuracy_is_that_of_the_tabular_optimum(beta):
    """Three answers a prompt, pi* proportional to pi_ref exp(r / beta): its ranking accuracy is the idealised one."""
    rng = np.random.default_rng(7)
    reward = np.sort(rng.normal(0, 1, (200, 3)), axis=1)[:, ::-1]  # answer 0 is the best
    log_ref = np.log(rng.dirichlet([1, 1, 1], 200))
    log_opt = log_ref + reward / beta - np.log(np.exp(log_ref + reward / beta).sum(1, keepdims=True))
    columns = {
        "policy_chosen": log_opt[:, 0], "policy_rejected": log_opt[:, 2],
        "reference_chosen": log_ref[:, 0], "reference_rejected": log_ref[:, 2],
        "gold_margin": reward[:, 0] - reward[:, 2],
    }  # fmt: skip
    ideal = METRICS["idealised_ranking_accuracy"].compute(columns, beta=beta)
    assert METRICS["ranking_accuracy"].compute(columns) == pytest.approx(ideal)
    assert METRICS["ece"].compute(columns, beta=beta) == pytest.approx(0, abs=1e-9)  # beta gain = gap at the optimum
