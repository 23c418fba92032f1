"""Lemmas of zones and transitions on arbitrary and tie-laden records, step 0, ties, violations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted import SIDES, pairs, records

from harness.metrics import METRICS
from harness.metrics import margin_columns as margins
from harness.metrics import pair_measures as pairs_table
from harness.metrics import records as r

tolerance = st.sampled_from([0.0, 1e-4, 0.05])
ZONES = {"Z1": "zone_z1", "Z2": "zone_z2", "U": "undesirable_zone", "Z4": "zone_z4", "tie": "zone_tie"}


def zones(columns, tie_tol=margins.TIE_TOL):
    """The zone of every pair, each in exactly one."""
    m = margins.margins(columns, tie_tol)
    held = np.array([pairs_table.RATES[rate].holds(m) for rate in ZONES.values()])
    assert (held.sum(axis=0) == 1).all()
    return np.array(list(ZONES))[held.argmax(axis=0)]


@given(pairs(), st.booleans())
def test_sign_lemmas_on_every_pair(columns, mean):
    m = margins.margins(columns, 1e-4, mean)
    assert (m.delta > 0)[m.improved & (m.delta_ref > 0)].all()  # 1
    assert (m.log_ratio_margin > 0)[(m.delta > 0) & (m.delta_ref < 0)].all()  # 2, raw signs
    broken = pairs_table.RATES["broken"].holds(m)
    assert (m.log_ratio_margin < 0)[broken].all()  # 5, raw signs
    zone = pairs_table.RATES["undesirable_zone"].holds(m)
    assert not zone[m.delta_ref >= 0].any() and pairs_table.RATES["kept_wrong"].holds(m)[zone].all()  # 6


@given(pairs(), tolerance, st.booleans())
def test_rate_lemmas(columns, tie_tol, mean):
    prefix = "ln_" if mean else ""
    value = {
        name: METRICS[prefix + name].compute(columns, tie_tol=tie_tol)
        for name in ("ranking_accuracy", "ref_accuracy", "rescued", "broken", "kept_right", "kept_wrong",
                     "undesirable_zone", "zone_z1", "zone_z2", "zone_z4", "zone_tie", "reward_accuracy", "accuracy_gap")
    }  # fmt: skip
    m = margins.margins(columns, tie_tol, mean)
    assert value["ranking_accuracy"] >= (m.improved & (m.delta_ref > 0)).mean()  # 3
    assert value["ranking_accuracy"] == pytest.approx(value["ref_accuracy"] + value["rescued"] - value["broken"])  # 4
    parts = [value[f"zone_{z}"] for z in ("z1", "z2", "z4", "tie")] + [value["undesirable_zone"]]
    assert sum(parts) == pytest.approx(1)  # 7
    assert value["rescued"] + value["broken"] + value["kept_right"] + value["kept_wrong"] == pytest.approx(1)
    assert value["accuracy_gap"] == pytest.approx(value["reward_accuracy"] - value["ranking_accuracy"])
    if m.improved.all():
        assert value["ranking_accuracy"] >= value["ref_accuracy"]  # 8


@given(pairs(), tolerance)
def test_categories_agree_with_their_shares(columns, tie_tol):
    found = zones(columns, tie_tol)
    for name, measure in ZONES.items():
        assert (found == name).mean() == METRICS[measure].compute(columns, tie_tol=tie_tol)


@given(pairs())
def test_swapping_a_pair_negates_its_margins_and_swaps_its_shifts(columns):
    turned = r.turned(columns, np.ones(len(columns["id"]), dtype=bool))
    for quantity in (margins.delta, margins.delta_ref, margins.log_ratio_margin):
        assert np.array_equal(quantity(turned), -quantity(columns))
    assert np.array_equal(margins.chosen_log_ratio(turned), margins.rejected_log_ratio(columns))
    assert np.array_equal(turned["clean_label"], -columns["clean_label"])


@given(pairs())
def test_clean_orientation_is_recovered_from_the_ledger(clean):
    """Flip the rows a ledger names, and turn them back: train_clean from train_observed."""
    flips = clean["clean_label"] < 0
    clean = clean | {"clean_label": np.ones(len(flips), dtype=np.int8)}
    recovered = r.cleaned(r.turned(clean, flips))
    for name in (*SIDES, "chosen_len", "rejected_len", "clean_label"):
        assert np.array_equal(recovered[name], clean[name])


@given(pairs(), st.integers(0, 2**32 - 1))
def test_noise_below_the_tolerance_changes_nothing_at_step_zero(columns, seed):
    start = columns | {"policy_chosen": columns["reference_chosen"], "policy_rejected": columns["reference_rejected"]}
    noise = np.random.default_rng(seed).uniform(-0.4e-4, 0.4e-4, (2, len(columns["id"])))
    settled = np.abs(margins.delta_ref(columns)) > 1e-3  # delta itself ties only at 0: keep clear of its own sign
    noisy = start | {
        "policy_chosen": start["policy_chosen"].astype(float) + noise[0],
        "policy_rejected": start["policy_rejected"].astype(float) + noise[1],
    }
    start, noisy = r.select(start, settled), r.select(noisy, settled)
    for name in [*pairs_table.RATES, "auc", "ln_reward_accuracy", "ln_undesirable_zone"]:
        np.testing.assert_equal(METRICS[name].compute(noisy), METRICS[name].compute(start))


def test_step_zero_values():
    reference = np.array([-3.0, -0.5, 0.0, 0.5, 2.0])
    start = records(reference, reference)
    value = {name: METRICS[name].compute(start) for name in (*pairs_table.RATES, "w1_shift", "auc", "ranking_accuracy")}
    assert value["reward_accuracy"] == 0 and value["tie_rate_gain"] == 1 and value["auc"] == 0.5
    assert value["ranking_accuracy"] == value["ref_accuracy"] == 0.4
    assert value["undesirable_zone"] == value["rescued"] == value["broken"] == value["zone_z1"] == 0
    assert value["disp_rate"] == value["both_down"] == value["w1_shift"] == 0
    assert list(zones(start)) == ["Z4", "Z4", "tie", "Z2", "Z2"]


def test_every_zone_and_transition_by_hand():
    columns = records(delta=[2, 1, -1, -3, 0, 3, -1], delta_ref=[1, 2, -2, -2, -1, -1, 2])
    assert list(zones(columns)) == ["Z1", "Z2", "U", "Z4", "tie", "Z1", "Z4"]
    moved = {"kept_right": 2, "kept_wrong": 3, "rescued": 1, "broken": 1}
    assert {name: METRICS[name].compute(columns) * 7 for name in moved} == pytest.approx(moved)


def test_a_pair_tied_in_gain_is_tied_per_token_too():
    # The two sides moved by less than the tolerance, but their lengths make a per-token gain of either sign.
    columns = records([-1.0], [-1.0]) | {"policy_chosen": np.array([-21.0 + 9e-5]), "chosen_len": np.array([1])}
    assert METRICS["ln_reward_accuracy"].compute(columns) == 0
    assert METRICS["ln_reward_accuracy"].compute(columns, tie_tol=1e-5) == 1


def test_a_gain_of_exactly_the_tolerance_is_a_tie():
    columns = records([-1.0, -1.0], [-1.125, -1.25])
    assert list(zones(columns, tie_tol=0.125)) == ["Z4", "U"]
    assert METRICS["reward_accuracy"].compute(columns, tie_tol=0.125) == 0.5
    assert METRICS["tie_rate_gain"].compute(columns, tie_tol=0.125) == 0.5


def test_zones_of_sums_and_of_token_means_can_differ():
    columns = records([-1.0], [-2.0]) | {"chosen_len": np.array([10]), "rejected_len": np.array([5])}
    assert METRICS["ranking_accuracy"].compute(columns) == 0
    assert METRICS["ln_ranking_accuracy"].compute(columns) == 1  # -21.5 / 10 against -20.5 / 5


def test_nan_has_no_zone():
    assert not any(
        pairs_table.RATES[rate].holds(margins.margins(records([np.nan], [1.0])))[0] for rate in ZONES.values()
    )
    assert np.isnan(METRICS["ranking_accuracy"].compute(records([np.nan, 1.0], [1.0, 1.0])))


SWEEP = {0.05: 0, 0.1: 0, 0.2: 0, 0.3: 0.25, 0.5: 0.25, 0.8: 0.5, 1: 0.5, 2: 0.5, 5: 0.75}


@pytest.mark.parametrize("beta", SWEEP)
def test_violations_at_the_population_optimum(beta):
    """delta_ref (-4, -1.5, -.4, .8), gap 1: at delta* = delta_ref + gap / beta the zone is the violation rate."""
    reference = np.array([-4.0, -1.5, -0.4, 0.8])
    optimum = records(reference + 1 / beta, reference, gold_margin=np.ones(4))
    assert METRICS["violation_rate"].compute(optimum, beta=beta) == SWEEP[beta]
    assert METRICS["undesirable_zone"].compute(optimum) == SWEEP[beta]
    assert METRICS["ranking_accuracy"].compute(optimum) == 1 - SWEEP[beta]
    assert METRICS["idealised_ranking_accuracy"].compute(optimum, beta=beta) == 1 - SWEEP[beta]
    assert METRICS["reward_accuracy"].compute(optimum) == 1


@given(pairs(), st.lists(st.floats(0.01, 100), min_size=2, max_size=2), st.sampled_from([0.0, 0.1, 0.3]))
def test_violations_grow_with_beta_and_with_noise(columns, betas, flips):
    low, high = sorted(betas)
    known = r.select(columns, ~np.isnan(columns["gold_margin"]))
    if not len(known["id"]):
        assert np.isnan(METRICS["violation_rate"].compute(columns, beta=low))
        return
    rate = METRICS["violation_rate"]
    assert rate.compute(columns, beta=low) <= rate.compute(columns, beta=high)
    assert rate.compute(columns, beta=low) <= rate.compute(columns, beta=low, flip_rate=flips)
    assert rate.compute(columns, beta=high) <= METRICS["violation_proxy"].compute(known)
