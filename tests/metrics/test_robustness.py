"""Breakdown points, areas and exchange rates on curves whose answer is known, and their coverage by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.metrics.robustness import area_under_curve, breakdown_point, breakdown_text
from harness.metrics.statistics import t_interval
from tests.metrics.simulate_coverage import BREAKDOWN_N, BREAKDOWN_RATES, CURVES, breakdown_coverage

RATES = (0.0, 0.1, 0.2, 0.3, 0.4)


def point(table, rates=RATES):
    """The breakdown point of differences `(rates, seeds)`."""
    return breakdown_point(rates, [t_interval(row) for row in table])


def test_a_noiseless_line_is_known_exactly():
    found = point(np.repeat([[0.25], [0.15], [0.05], [-0.05], [-0.15]], 4, axis=1))
    assert (found.rate, found.low, found.high) == (pytest.approx(0.25), 0.2, 0.3)
    assert (found.last_above, found.first_below, found.n) == (0.2, 0.3, 4)
    assert breakdown_text(found) == "between 0.2 and 0.3 (mean: about 0.25)"


def test_below_five_rates_there_is_a_bracket_and_no_point():
    found = point(np.repeat([[0.25], [0.15], [-0.05]], 4, axis=1), (0.0, 0.2, 0.4))
    assert math.isnan(found.rate) and breakdown_text(found) == "between 0.2 and 0.4"
    unsure = np.array([[0.2, 0.3, 0.25], [0.1, -0.05, 0.1], [-0.1, -0.2, -0.15]])
    assert breakdown_text(point(unsure, (0.0, 0.2, 0.4))) == "between 0 and 0.4 (mean: between 0.2 and 0.4)"
    assert breakdown_text(point(unsure[:, :1], (0.0, 0.2, 0.4))) == "between 0.2 and 0.4 (one seed)"


def test_a_bend_is_followed_and_the_first_fall_counts():
    bent = point(np.repeat([[0.2], [0.1], [-0.1], [0.3], [0.3]], 3, axis=1))
    assert bent.rate == pytest.approx(0.15) and bent.low == 0.1  # what recovers later is not a climb
    assert math.isnan(bent.high)


def test_beyond_the_last_rate_and_before_the_first():
    always, never = point(np.full((5, 6), 0.1)), point(np.full((5, 6), -0.1))
    assert breakdown_text(always) == "above 0.4" and breakdown_text(never) == "below 0"
    assert math.isnan(always.rate) and math.isnan(always.high) and math.isnan(never.low)
    wide = np.array([[0.2, -0.1], [0.2, -0.1]])
    assert breakdown_text(point(wide, (0.0, 0.4))) == "not shown (mean: above 0.4)"


@pytest.mark.parametrize("n", [BREAKDOWN_N[0], BREAKDOWN_N[2], BREAKDOWN_N[-1]])
@pytest.mark.parametrize("curve", CURVES)
def test_coverage_of_a_known_crossing(curve, n):
    """Whatever bends between the rates: an open end reaches to the end of the line."""
    for rates in BREAKDOWN_RATES:
        assert breakdown_coverage(curve, rates, n, repeats=1000) >= 0.93


def test_a_claim_beyond_the_breakdown_is_rare_whatever_lies_between():
    """The curve touches 0 at .2 and rises again: `low` must not pass .2 more often than a one-sided 2.5 % test."""
    rng = np.random.default_rng(7)
    mean = np.array([0.1, 0.05, 0.0, 0.05, 0.1])[:, None]
    passed = [point(mean + rng.normal(0, 0.05, (5, 10))).low >= 0.2 for _ in range(1500)]
    assert 0.005 <= np.mean(passed) <= 0.035


def test_rows_of_seeds_in_any_order_are_equal_in_every_bit():
    table = 0.2 - np.array(RATES)[:, None] + np.random.default_rng(5).normal(0, 0.05, (5, 9))
    shuffled = table[:, np.random.default_rng(6).permutation(9)]
    assert point(table) == point(shuffled)
    assert area_under_curve(RATES, table, share=False) == area_under_curve(RATES, shuffled, share=False)


def test_area_of_a_line_is_its_middle_and_its_spread_is_over_seeds():
    heights = np.array([0.6, 0.7, 0.8])
    table = heights[None, :] - 0.5 * np.array(RATES)[:, None]
    found, middles = area_under_curve(RATES, table), t_interval(heights - 0.1)
    assert (found.n, found.mean) == (3, pytest.approx(0.6))
    assert (found.low, found.high) == (pytest.approx(middles.low), pytest.approx(middles.high))
    uneven = area_under_curve((0.0, 0.1, 0.5), [[1.0, 1.0], [0.5, 0.5], [0.5, 0.5]])
    assert uneven.mean == pytest.approx((0.075 + 0.2) / 0.5)
    assert area_under_curve(RATES, np.full((5, 3), 1.0), items=100).low < 0.97  # items, where seeds agree


@pytest.mark.parametrize(
    ("rates", "table", "match"),
    [
        ((0.1, 0.0), np.zeros((2, 3)), "ascend"),
        ((0.0, 0.1), np.zeros((3, 3)), "rates"),
        ((0.0,), np.zeros((1, 3)), "2 rates"),
        ((0.0, 0.1), np.full((2, 3), np.nan), "not finite"),
    ],
)
def test_bad_curves_are_refused(rates, table, match):
    for call in (point, lambda values, x: area_under_curve(x, values)):
        with pytest.raises(ValueError, match=match):
            call(table, rates)
