"""Breakdown points, areas and exchange rates on curves whose answer is known, and their coverage by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.metrics.robustness import area_under_curve, breakdown_point
from harness.metrics.statistics import t_interval

RATES = (0.0, 0.1, 0.2, 0.3, 0.4)


def curves(rng, n, crossing, slope=1.0, noise=0.05, shared=0.05):
    """Differences `(rates, n)` that fall in a straight line through 0 at `crossing`; seeds shift whole curves."""
    mean = slope * (crossing - np.array(RATES))
    return mean[:, None] + rng.normal(0, shared, n) + rng.normal(0, noise, (len(RATES), n))


def test_a_noiseless_line_is_known_exactly():
    found = breakdown_point(RATES, np.repeat([[0.25], [0.15], [0.05], [-0.05], [-0.15]], 4, axis=1))
    assert (found.rate, found.low, found.high) == (pytest.approx(0.25), pytest.approx(0.25), pytest.approx(0.25))
    assert not found.beats_all and not found.beats_none and found.n == 4


def test_a_bend_is_followed_and_the_first_fall_counts():
    bent = np.repeat([[0.2], [0.1], [-0.1], [0.3], [0.3]], 3, axis=1)
    assert breakdown_point(RATES, bent).rate == pytest.approx(0.15)
    assert breakdown_point(RATES, bent).low == pytest.approx(0.15)  # what recovers later is not a climb
    assert math.isnan(breakdown_point(RATES, bent).high)


def test_beyond_the_last_rate_and_before_the_first():
    always, never = np.full((5, 6), 0.1), np.full((5, 6), -0.1)
    above, below = breakdown_point(RATES, always), breakdown_point(RATES, never)
    assert above.beats_all and math.isnan(above.rate) and above.low == 0.4 and math.isnan(above.high)
    assert below.beats_none and math.isnan(below.rate) and math.isnan(below.low) and below.high == 0.0
    one = breakdown_point(RATES, always[:, :1])
    assert one.beats_all and math.isnan(one.low) and one.n == 1  # a single seed bounds nothing


@pytest.mark.parametrize("n", [5, 10, 30])
def test_coverage_of_a_known_crossing(n):
    """.22 lies between two rates; a set with an open end reaches to the end of the line."""
    rng = np.random.default_rng([n, 1])
    held = 0
    for _ in range(1500):
        found = breakdown_point(RATES, curves(rng, n, 0.22))
        held += not (found.low > 0.22 or found.high < 0.22)
    assert 0.93 <= held / 1500 <= 0.97


def test_a_claim_beyond_the_breakdown_is_rare_whatever_lies_between():
    """The curve touches 0 at .2 and rises again: `low` must not pass .2 more often than a one-sided 2.5 % test."""
    rng = np.random.default_rng(7)
    mean = np.array([0.1, 0.05, 0.0, 0.05, 0.1])[:, None]
    passed = [breakdown_point(RATES, mean + rng.normal(0, 0.05, (5, 10))).low > 0.2 for _ in range(1500)]
    assert np.mean(passed) <= 0.035


def test_an_item_level_floor_only_widens():
    rng = np.random.default_rng(3)
    table = curves(rng, 10, 0.22, noise=0.01, shared=0.01)
    plain, floored = breakdown_point(RATES, table), breakdown_point(RATES, table, floor=[0.05] * 5)
    assert floored.low < plain.low < plain.rate < plain.high < floored.high
    assert floored.low == pytest.approx(plain.rate - 0.05, abs=0.01)


def test_rows_of_seeds_in_any_order_are_equal_in_every_bit():
    table = curves(np.random.default_rng(5), 9, 0.2)
    shuffled = table[:, np.random.default_rng(6).permutation(9)]
    assert breakdown_point(RATES, table) == breakdown_point(RATES, shuffled)
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
    with pytest.raises(ValueError, match=match):
        breakdown_point(rates, table)
