"""Intervals, tests and verdicts against published values, closed forms and simulated nulls."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.metrics import statistics as s

MDE_TABLE = {  # reliability page, power .8, alpha .05, in sd of the paired difference
    1: [1.68, 1.43, 1.16, 1.00, 0.78, 0.66, 0.53],
    5: [2.63, 2.11, 1.60, 1.33, 1.00, 0.84, 0.66],
    10: [3.16, 2.46, 1.81, 1.48, 1.10, 0.91, 0.72],
    45: [4.65, 3.39, 2.32, 1.84, 1.31, 1.07, 0.83],
}
SEED_COUNTS = [5, 6, 8, 10, 15, 20, 30]

finite = st.floats(-1e3, 1e3, allow_nan=False).map(lambda x: round(x, 3))
several = st.lists(finite, min_size=2, max_size=12)


def test_t_interval_is_students():
    values = [0.1, 0.4, 0.35, 0.8]
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    estimate = s.t_interval(values)
    assert (estimate.n, estimate.mean) == (4, pytest.approx(np.mean(values)))
    assert (estimate.low, estimate.high) == (pytest.approx(low), pytest.approx(high))


def test_one_value_has_no_interval_and_none_has_no_mean():
    one, none = s.t_interval([0.5]), s.t_interval([])
    assert (one.n, one.mean) == (1, 0.5) and math.isnan(one.low) and math.isnan(one.high)
    assert none.n == 0 and math.isnan(none.mean)
    assert not one.excludes(0.0)


def test_equal_values_give_a_point_without_rounding():
    estimate = s.t_interval([0.1] * 7)
    assert (estimate.mean, estimate.low, estimate.high) == (0.1, 0.1, 0.1)


@given(several, st.randoms())
def test_t_interval_does_not_depend_on_row_order(values, random):
    shuffled = list(values)
    random.shuffle(shuffled)
    assert s.t_interval(values) == s.t_interval(shuffled)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_missing_value_is_never_dropped_silently(bad):
    for call in (s.t_interval, s.sign_flip_p, s.holm, lambda v: s.bonferroni_interval(v, 2), s.cell_estimate):
        with pytest.raises(ValueError, match="not finite"):
            call([0.1, bad, 0.2])


@pytest.mark.parametrize(
    ("k", "n", "low", "high"), [(7, 10, 0.396778, 0.892209), (0, 20, 0.0, 0.161125), (5, 5, 0.565518, 1.0)]
)
def test_wilson_known_values(k, n, low, high):
    estimate = s.wilson(k, n)
    assert (estimate.low, estimate.high) == (pytest.approx(low, abs=1e-6), pytest.approx(high, abs=1e-6))
    reference = stats.binomtest(k, n).proportion_ci(method="wilson")
    assert (estimate.low, estimate.high) == (pytest.approx(reference.low), pytest.approx(reference.high))


@given(st.integers(1, 500), st.floats(0, 1))
def test_wilson_holds_its_share_and_mirrors(n, fraction):
    estimate, mirror = s.wilson(fraction * n, n), s.wilson(n - fraction * n, n)
    assert 0 <= estimate.low <= estimate.mean <= estimate.high <= 1
    assert estimate.low == pytest.approx(1 - mirror.high, abs=1e-9)


@pytest.mark.parametrize("arguments", [(-1, 5), (6, 5)])
def test_wilson_refuses_impossible_counts(arguments):
    with pytest.raises(ValueError, match="outside"):
        s.wilson(*arguments)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=25), st.integers(1, 600))
def test_a_cell_of_shares_is_never_narrower_than_seeds_or_items_say(values, items):
    cell = s.cell_estimate(values, items, share=True)
    seeds = s.t_interval(values)
    one_seed = s.wilson(seeds.mean * items, items)
    assert 0 <= cell.low <= max(0.0, seeds.low) + 1e-12 and min(1.0, seeds.high) - 1e-12 <= cell.high <= 1
    assert cell.low <= one_seed.low + 1e-12 and cell.high >= one_seed.high - 1e-12


def test_a_cell_uses_the_smallest_seed_and_clips_only_shares():
    assert s.cell_estimate([1.0, 1.0, 1.0], [256, 100, 256]).low == pytest.approx(s.wilson(100, 100).low)
    assert s.cell_estimate([1.0, 1.0, 1.0], [256, 100, 256]).low < 0.97  # three perfect seeds are not certainty
    assert s.cell_estimate([0.0, 0.9, 0.1]).low == 0.0
    assert s.cell_estimate([0.0, 0.9, 0.1], share=False).low < 0.0
    assert math.isnan(s.cell_estimate([0.7], 256).low)  # items say nothing about other seeds
    with pytest.raises(ValueError, match="share must lie"):
        s.cell_estimate([3.0, 4.0], share=True)


def test_paired_difference_uses_common_seeds_only():
    a, b = {0: 1.0, 1: 2.0, 2: 4.0, 9: 100.0}, {2: 1.0, 1: 1.5, 0: 0.5, 7: -50.0}
    estimate = s.paired_difference(a, b)
    assert estimate == s.t_interval([0.5, 0.5, 3.0])
    assert s.paired_difference(a, {}).n == 0


@given(several)
def test_sign_flip_is_two_sided_and_free_of_scale(values):
    p = s.sign_flip_p(values)
    assert 2 / 2 ** len(values) - 1e-12 <= p <= 1
    assert s.sign_flip_p([-v for v in values]) == p
    assert s.sign_flip_p([4 * v for v in values]) == p


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=8))
def test_sign_flip_counts_every_pattern(values):
    observed = abs(sum(values))
    patterns = list(itertools.product((1, -1), repeat=len(values)))
    hits = sum(abs(sum(a * b for a, b in zip(signs, values, strict=True))) >= observed for signs in patterns)
    assert s.sign_flip_p(values) == pytest.approx(hits / len(patterns))


@pytest.mark.parametrize(("n", "floor"), [(5, 0.0625), (6, 0.03125), (8, 0.0078125), (10, 0.001953125)])
def test_sign_flip_floor(n, floor):
    assert s.sign_flip_p(np.linspace(1, 2, n)) == floor


def test_sign_flip_beyond_sixteen_is_the_t_test():
    values = np.random.default_rng(3).normal(0.3, 1, 25)
    assert s.sign_flip_p(values) == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    assert s.sign_flip_p([1.0] * 20) == 2.0**-19
    assert s.sign_flip_p([0.0] * 20) == 1.0
    with pytest.raises(ValueError, match="no differences"):
        s.sign_flip_p([])


def test_holm_worked_example():
    assert s.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert s.holm([]) == []
    with pytest.raises(ValueError, match="lie in"):
        s.holm([1.2])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_lies_between_plain_and_bonferroni_and_keeps_order(p):
    adjusted = s.holm(p)
    for plain, corrected in zip(p, adjusted, strict=True):
        assert plain <= corrected <= min(1.0, plain * len(p)) + 1e-12
    ranked = [adjusted[i] for i in np.argsort(p, kind="stable")]
    assert ranked == sorted(ranked)


@given(several, st.integers(1, 60))
def test_a_corrected_interval_is_never_narrower(values, comparisons):
    plain, corrected = s.t_interval(values), s.bonferroni_interval(values, comparisons)
    assert corrected.low <= plain.low and corrected.high >= plain.high
    assert s.bonferroni_interval(values, 1) == plain
    assert corrected == s.t_interval(values, level=1 - 0.05 / comparisons)
    with pytest.raises(ValueError, match="at least 1"):
        s.bonferroni_interval(values, 0)


@pytest.mark.parametrize("comparisons", MDE_TABLE)
def test_minimum_detectable_effect_table(comparisons):
    measured = [s.minimum_detectable_effect(1.0, n, comparisons) for n in SEED_COUNTS]
    assert [round(value, 2) for value in measured] == MDE_TABLE[comparisons]


def test_minimum_detectable_effect_scales_and_needs_two():
    assert s.minimum_detectable_effect(0.3, 10) == pytest.approx(0.3 * s.minimum_detectable_effect(1.0, 10))
    assert math.isnan(s.minimum_detectable_effect(1.0, 1))
    assert s.t_test_power(0.0, 10) == pytest.approx(0.05)
    with pytest.raises(ValueError, match="comparisons"):
        s.minimum_detectable_effect(1.0, 10, comparisons=0)


@pytest.mark.parametrize("n", [6, 10, 30])
def test_simulated_power_at_the_mde(n):
    effect = s.minimum_detectable_effect(1.0, n)
    draws = np.random.default_rng(n).normal(effect, 1, (20_000, n))
    power = (stats.ttest_1samp(draws, 0, axis=1).pvalue <= 0.05).mean()
    assert 0.78 <= power <= 0.82


@pytest.mark.parametrize("kind", ["normal", "uniform"])
@pytest.mark.parametrize("n", [5, 10, 30])
def test_interval_coverage(n, kind):
    rng = np.random.default_rng([n, kind == "normal"])
    draws = rng.normal(0, 1, (3000, n)) if kind == "normal" else rng.uniform(-1, 1, (3000, n))
    held = np.mean([not s.t_interval(row).excludes(0.0) for row in draws])
    assert 0.93 <= held <= 0.97


def test_sign_flip_false_positives_under_the_null():
    draws = np.random.default_rng(5).normal(0, 1, (2000, 8))
    assert np.mean([s.sign_flip_p(row) <= 0.05 for row in draws]) <= 0.06


def test_family_wise_error_of_holm_and_of_the_verdict():
    """2,000 sweeps of six true nulls, ten seeds: any "better" or "worse" at all, and any Holm rejection."""
    draws = np.random.default_rng(8).normal(0, 1, (2000, 6, 10))
    p = stats.ttest_1samp(draws, 0, axis=2).pvalue
    assert np.mean([min(s.holm(row)) <= 0.05 for row in p]) <= 0.06
    half = stats.t.isf(0.05 / 6 / 2, 9) * stats.sem(draws, axis=2)
    mean = draws.mean(axis=2)
    assert 0.02 <= np.mean((np.abs(mean) > half).any(axis=1)) <= 0.06
    for sweep, ms, hs in zip(draws[:100], mean, half, strict=False):
        found = [s.judge(dict(enumerate(row)), family=6) for row in sweep]
        assert [(one.word in ("better", "worse")) for one in found] == list(np.abs(ms) > hs)


def verdict_of(mean, half, n=8, **kwargs):
    """The verdict on `n` seeds with this mean and 95 % half-width."""
    sign = np.resize([1.0, -1.0], n // 2 * 2)
    spread = half / stats.t.isf(0.025, n - 1) * math.sqrt(n - 1)
    return s.judge(dict(enumerate(mean + spread * sign)), **kwargs)


def test_verdict_words():
    up, down, none = (0.1, 0.05), (-0.1, 0.05), (0.1, 0.11)
    assert verdict_of(*up).plain.low == pytest.approx(0.05)
    assert verdict_of(*up).word == "better" and verdict_of(*down).word == "worse"
    assert verdict_of(*up, direction="down").word == "worse" and verdict_of(*down, direction="down").word == "better"
    assert verdict_of(*up, direction="none").word == "higher" and verdict_of(*down, direction="none").word == "lower"
    assert verdict_of(*none).word == s.NO_DIFFERENCE
    assert verdict_of(*up, margin=0.2).word == s.NO_DIFFERENCE
    assert verdict_of(*up, planned=10).word == s.INCOMPLETE == s.judge({}, planned=8).word
    with pytest.raises(ValueError, match="direction"):
        verdict_of(*up, direction="sideways")


def test_below_six_seeds_there_is_no_verdict_and_the_interval_is_corrected_all_the_same():
    for n in range(6):
        assert s.judge(dict.fromkeys(range(n), 1.0), planned=n).word == s.INTERVAL_ONLY
    four = [0.1, 0.2, 0.15, 0.12]
    found = s.judge(dict(enumerate(four)), family=17)
    assert found.corrected == s.t_interval(four, 1 - 0.05 / 17) and found.plain == s.t_interval(four)


def test_an_interval_that_touches_zero_is_no_difference():
    assert s.judge(dict.fromkeys(range(9), 0.0)).word == s.NO_DIFFERENCE


def test_detectable_effect_with_a_margin():
    """A margin far above the error is passed half the time by itself, and with power .8 at .84 errors more."""
    assert s.detectable_effect(0.001, 9, margin=0.05) == pytest.approx(0.05 + 0.841621 * 0.001, abs=1e-5)
    assert s.detectable_effect(0.1, 9, margin=1e-9) == pytest.approx(s.detectable_effect(0.1, 9), rel=2e-3)
    assert s.detectable_effect(0.0, 9, margin=0.01) == 0.01
    sd = float(np.std([0.1, 0.2, 0.15, 0.12], ddof=1)) / 0.921318  # c4 of 4 values: the sd of a sample is too small
    stated = s.judge(dict(enumerate([0.1, 0.2, 0.15, 0.12])), family=17).mde
    assert stated == pytest.approx(s.minimum_detectable_effect(sd, 4, 17), rel=1e-5)


@pytest.mark.parametrize(("n", "margin"), [(4, 0.0), (10, 0.0), (10, 0.01), (10, 0.03)])
def test_power_at_the_stated_effect(n, margin):
    """Of 4,000 draws at the effect that the rule states for the true spread, .75 to .87 are called better."""
    effect = s.minimum_detectable_effect(0.02, n, 17, margin=margin)
    draws = np.random.default_rng([n, int(100 * margin)]).normal(effect, 0.02, (4000, n))
    half = stats.t.isf(0.025 / 17, n - 1) * stats.sem(draws, axis=1)
    assert 0.78 <= np.mean((draws.mean(axis=1) > half) & (draws.mean(axis=1) >= margin)) <= 0.82
