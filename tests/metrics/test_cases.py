"""Every row of the table of measures has a value known beforehand; a row without one fails here."""

from __future__ import annotations

import numpy as np
import pytest
from cases import CASES, PAIRS

from harness.metrics import METRICS


def test_every_row_has_a_case_and_every_case_a_row():
    assert set(METRICS) - set(CASES) == set(), "measures without a planted or closed-form value"
    assert set(CASES) - set(METRICS) == set(), "cases of measures that are gone"


@pytest.mark.parametrize("name", CASES)
def test_value(name):
    columns, settings, value = CASES[name]
    assert METRICS[name].compute(columns, **settings) == pytest.approx(value, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_value_does_not_depend_on_the_order_of_rows(name):
    columns, settings, value = CASES[name]
    turned = {key: values[::-1] for key, values in columns.items()}
    assert METRICS[name].compute(turned, **settings) == pytest.approx(value, rel=1e-9, abs=1e-12)


def test_what_follows_from_the_loss_is_unknown_without_it_and_never_zero():
    for name in ("target_mean", "slack_mean", "satisfied", "bridge_threshold_mean", "bridge_pass_rate", "clamp_rate"):
        assert np.isnan(METRICS[name].compute(PAIRS, objective="exo", hyperparameters={"beta": 0.5}))


def test_per_token_objectives_are_read_per_token():
    hyperparameters = {"beta": 2.0, "gamma_ratio": 0.5}
    found = {
        name: METRICS[name].compute(PAIRS, objective="simpo", hyperparameters=hyperparameters)
        for name in ("target_mean", "slack_mean", "pull")
    }
    assert found["target_mean"] == 0.5 and found["slack_mean"] == pytest.approx(-1.6 / 4 - 0.5)
    # grad_w x 4 and grad_l x 5, averaged: .45, .9, 1.35, 2.8
    assert found["pull"] == pytest.approx((0.45 + 0.9 + 1.35 + 2.8) / 4)
