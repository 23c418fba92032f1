"""Bootstrap, strata, interquartile means, seeds and items: against closed forms, scipy, and by simulation."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from harness.metrics import statistics as s
from tests.measure.simulate_coverage import KINDS, SIZES, coverage

METHODS = ("studentised", "bca", "percentile")


@pytest.mark.parametrize("method", METHODS)
def test_a_bootstrap_of_many_normal_values_is_the_normal_interval(method):
    values = np.random.default_rng(1).normal(2, 3, 400)
    found, normal = s.bootstrap_interval(values, method=method, draws=8000), s.t_interval(values)
    assert found.mean == pytest.approx(normal.mean)
    assert found.low == pytest.approx(normal.low, abs=0.03) and found.high == pytest.approx(normal.high, abs=0.03)


def test_bca_is_scipys():
    values = np.random.default_rng(2).exponential(size=40)
    reference = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(3))
    found = s.bootstrap_interval(values, method="bca", draws=20_000)
    assert found.low == pytest.approx(reference.confidence_interval.low, abs=0.012)
    assert found.high == pytest.approx(reference.confidence_interval.high, abs=0.012)
    assert found.high - found.mean > found.mean - found.low  # skewed to the right, and so is the interval


@pytest.mark.parametrize(("method", "n"), [("studentised", 4), ("bca", 19), ("percentile", 19)])
def test_too_few_units_are_refused(method, n):
    with pytest.raises(ValueError, match="needs at least"):
        s.bootstrap_interval(np.arange(n), method=method)
    assert s.bootstrap_interval(np.arange(n + 1.0), method=method).n == n + 1


def test_other_misuse_is_refused():
    values = np.arange(25.0)
    with pytest.raises(ValueError, match="unknown bootstrap"):
        s.bootstrap_interval(values, method="basic")
    with pytest.raises(ValueError, match="take more draws"):
        s.bootstrap_interval(values, draws=300)
    with pytest.raises(ValueError, match="single unit"):
        s.bootstrap_interval(values, strata=["a"] + ["b"] * 24)
    with pytest.raises(ValueError, match="one stratum a value"):
        s.bootstrap_interval(values, strata=["a"] * 24)


@pytest.mark.parametrize("method", METHODS)
def test_rows_in_any_order_and_again_give_the_same_bits(method):
    rng = np.random.default_rng(4)
    values, strata = rng.normal(size=30), rng.integers(0, 3, 30)
    order = rng.permutation(30)
    first = s.bootstrap_interval(values, strata, method)
    assert (
        first
        == s.bootstrap_interval(values[order], strata[order], method)
        == s.bootstrap_interval(values, strata, method)
    )
    assert s.mean_interval(values, strata) == s.mean_interval(values[order], strata[order])


@pytest.mark.parametrize("method", METHODS)
def test_equal_values_are_a_point(method):
    found = s.bootstrap_interval([0.1] * 25, method=method)
    assert found.low == found.high == found.mean == pytest.approx(0.1)


def test_stratified_t_by_hand():
    """Strata (1, 3) and (10, 14): errors 1 and 2, weights 1/2; variance 1.25 on 1.25^2 / (.25^2 + 1^2) df."""
    found = s.stratified_t_interval([1, 10, 3, 14], ["a", "b", "a", "b"])
    half = stats.t.isf(0.025, 1.25**2 / (0.25**2 + 1)) * math.sqrt(1.25)
    assert (found.n, found.mean) == (4, 7.0) and found.high - 7.0 == pytest.approx(half)


@pytest.mark.parametrize("n", [5, 30])
def test_what_lies_between_strata_adds_no_width(n):
    """Three tasks 100 apart, spread 1 within: below 20 units by t, from there by the bootstrap."""
    rng = np.random.default_rng(n)
    values = np.concatenate([rng.normal(100 * task, 1, n) for task in range(3)])
    found = s.mean_interval(values, np.repeat([0, 1, 2], n))
    assert found.high - found.low < 3 and found.mean == pytest.approx(100, abs=1)
    assert s.t_interval(values).high - s.t_interval(values).low > 30
    assert s.mean_interval(values) == s.t_interval(values) == s.mean_interval(values, ["all"] * (3 * n))


def test_interquartile_mean_cuts_a_quarter_at_each_end():
    values = np.random.default_rng(5).normal(size=41)
    assert s.interquartile_mean(np.arange(8.0)) == pytest.approx(3.5)
    assert s.interquartile_mean(values) == pytest.approx(stats.trim_mean(values, 0.25))


def test_interquartile_mean_is_for_pooled_tasks_only():
    rng = np.random.default_rng(6)
    values, tasks = rng.normal(1, 1, 40), np.repeat(["a", "b", "c", "d"], 10)
    found, order = s.iqm_interval(values, tasks), rng.permutation(40)
    assert found.low < found.mean < found.high and found.mean == pytest.approx(stats.trim_mean(values, 0.25))
    assert found == s.iqm_interval(values[order], tasks[order])
    with pytest.raises(ValueError, match="at least 3 tasks"):
        s.iqm_interval(values, np.repeat(["a", "b"], 20))
    with pytest.raises(ValueError, match="needs at least 20"):
        s.iqm_interval(values[:15], np.repeat(["a", "b", "c"], 5))


@pytest.mark.parametrize(("kind", "n", "low", "high"), [
    ("normal", 5, 0.93, 0.97), ("normal", 10, 0.93, 0.97), ("normal", 30, 0.93, 0.97), ("t, 5 df", 30, 0.92, 0.97),
])  # fmt: skip
def test_studentised_coverage(kind, n, low, high):
    found = coverage("studentised", kind, n, repeats=800)
    assert found is not None and low <= found <= high


def _table(rng, n, m, seed_sd, item_sd, rest_sd, layout):
    items = rng.normal(0, item_sd, m if layout == "shared" else (n, m))
    return rng.normal(0, seed_sd, (n, 1)) + items + rng.normal(0, rest_sd, (n, m))


def test_components_by_hand():
    """Seeds (1, 3) and (5, 7): MS_seed 16, MS_rest 2 nested; shared: items 1 apart twice, nothing is left over."""
    nested = s.variance_components([[1, 3], [5, 7]])
    assert (nested.seeds, nested.items, nested.rest) == (7.0, 0.0, 2.0)
    assert (nested.mean_variance, nested.item_variance, nested.df) == (4.0, 0.5, 1)
    shared = s.variance_components([[1, 3], [5, 7]], "shared")
    assert (shared.seeds, shared.items, shared.rest, shared.mean_variance) == (8.0, 2.0, 0.0, 5.0)  # 8 / 2 + 2 / 2


@pytest.mark.parametrize("layout", ["nested", "shared"])
def test_components_are_recovered(layout):
    table = _table(np.random.default_rng(7), 300, 200, 0.3, 0.5 if layout == "shared" else 0.0, 1.0, layout)
    found = s.variance_components(table, layout)
    assert found.rest == pytest.approx(1.0, rel=0.05) and found.seeds == pytest.approx(0.09, rel=0.25)
    assert found.items == pytest.approx(0.25 if layout == "shared" else 0.0, abs=0.06)


def two_level_bootstrap(table, layout="nested", draws=2000):
    """`(draws,)` means of resamples of seeds and items of a table (n seeds, m items): the check on the closed form.

    shared: rows and columns are drawn with replacement, each on its own (the pigeonhole bootstrap, Owen 2007); its
    variance is (n-1)/n MS_seed / (nm) + (m-1)/m MS_item / (nm) + a term of order MS_rest / (n m).
    nested: seeds are drawn and then the items of each drawn seed (Davison and Hinkley 1997, sec. 3.8); item noise is
    already in a seed's mean, so this counts it twice: variance (n-1)/n MS_seed / (nm) + (m-1)/m MS_rest / (nm),
    a conservative one.
    """
    n, m = table.shape
    rng = np.random.default_rng(12)
    out = np.empty(draws)
    for draw in range(draws):
        rows = table[rng.integers(0, n, n)]
        if layout == "nested":
            out[draw] = rows[np.arange(n)[:, None], rng.integers(0, m, (n, m))].mean()
        else:
            out[draw] = rows[:, rng.integers(0, m, m)].mean()
    return out


def test_two_level_bootstrap_has_the_variance_of_its_closed_form():
    """nested: (n-1)/n MS_seed / nm + (m-1)/m MS_rest / nm, exactly; shared: the sum of both ways plus a small rest."""
    n, m = 12, 40
    rng = np.random.default_rng(8)
    table = (rng.random((n, m)) < rng.beta(7, 3, (n, 1))).astype(float)
    found = s.variance_components(table)
    expected = (n - 1) / n * (m * found.seeds + found.rest) / (n * m) + (m - 1) / m * found.rest / (n * m)
    assert two_level_bootstrap(table, draws=8000).var() == pytest.approx(expected, rel=0.06)
    crossed = _table(rng, n, m, 0.3, 0.5, 0.2, "shared")
    found = s.variance_components(crossed, "shared")
    ms_seed, ms_item = m * found.seeds + found.rest, n * found.items + found.rest
    expected = ((n - 1) / n * ms_seed + (m - 1) / m * ms_item + (n - 1) * (m - 1) / n / m * found.rest) / (n * m)
    assert two_level_bootstrap(crossed, "shared", draws=8000).var() == pytest.approx(expected, rel=0.06)


@pytest.mark.parametrize("layout", ["nested", "shared"])
def test_two_level_coverage(layout):
    """10 seeds x 50 items, both redrawn each time: the interval is about new seeds and new items."""
    rng = np.random.default_rng(9)
    held = [
        not s.two_level_interval(_table(rng, 10, 50, 0.2, 0.4, 0.5, layout), layout).excludes(0.0) for _ in range(1000)
    ]
    assert 0.93 <= np.mean(held) <= 0.975


def test_shared_items_are_not_counted_once_a_seed():
    """Seeds that agree item by item know no more than one of them: the interval must not shrink with their number."""
    right = (np.random.default_rng(10).random(100) < 0.7).astype(float)
    few, many = (s.two_level_interval(np.tile(right, (n, 1)), "shared") for n in (2, 50))
    assert many.high - many.low == pytest.approx(few.high - few.low, rel=0.02)
    assert s.t_interval(np.tile(right, (50, 1)).mean(axis=1)).high == pytest.approx(right.mean())  # what t would say


def test_two_level_order_and_misuse():
    rng = np.random.default_rng(11)
    table = _table(rng, 6, 20, 1, 1, 1, "shared")
    rows, columns = rng.permutation(6), rng.permutation(20)
    for layout in ("nested", "shared"):
        assert s.two_level_interval(table, layout) == s.two_level_interval(table[rows][:, columns], layout)
    with pytest.raises(ValueError, match="unknown layout"):
        s.two_level_interval(table, "crossed")
    with pytest.raises(ValueError, match="2 seeds and 2 items"):
        s.two_level_interval(table[:1])


def test_the_coverage_in_the_documentation_is_what_the_simulation_gives():
    """The t columns; the bootstrap's take a minute and are printed by the same command."""
    page = (Path(__file__).parents[2] / "docs" / "statistics.md").read_text("utf-8")
    for kind in KINDS:
        (row,) = (line for line in page.splitlines() if line.startswith(f"| {kind} |"))
        stated = [float(cell) for cell in row.split("|")[2:5]]
        assert stated == pytest.approx([coverage("t", kind, n) for n in SIZES], abs=0.0006)
