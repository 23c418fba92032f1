"""Estimates equal the product's own measures; intervals count prompts; slices and comparisons do not cry wolf."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from harness.diagnose.measures import MEASURES, comparisons, estimates, usual_charts
from harness.metrics import METRICS
from harness.metrics.margin_columns import TIE_TOL
from harness.metrics.statistics import clustered_interval, clustered_p, t_interval, wilson
from harness.types import InputError
from tests.diagnose.planted_logps import PAIRS, columns, diagnosed, joined, margins, table


def drawn(seed: int = 0, n: int = PAIRS, **more: Any) -> dict[str, Any]:
    draw = np.random.default_rng(seed)
    return columns(draw.normal(0, 3, n), draw.normal(0.5, 2, n), draw.normal(0, 1, n), **more)


def test_every_estimate_is_the_measure_of_the_same_name() -> None:
    rows = table(drawn()).columns
    found = estimates(rows, 0.1, True, TIE_TOL)
    for name, measure in MEASURES.items():
        if measure.metric:
            assert found[name].mean == pytest.approx(METRICS[measure.metric].compute(rows), rel=1e-12), name


def test_usual_charts_are_trl_s_formulas() -> None:
    rows = table(drawn()).columns
    chosen = 0.3 * (rows["policy_chosen"] - rows["reference_chosen"])
    rejected = 0.3 * (rows["policy_rejected"] - rows["reference_rejected"])
    found = usual_charts(rows, 0.3, True)
    assert found["rewards/margins"] == pytest.approx(np.mean(chosen - rejected))
    assert found["rewards/accuracies"] == np.mean(chosen > rejected)
    assert found["logps/rejected"] == pytest.approx(np.mean(rows["policy_rejected"]))


def sandwich(values: Any, clusters: Any) -> tuple[float, float]:
    """Mean and half-width of an intercept-only regression with CR1 errors, by matrices and one cluster at a time."""
    x, y = np.ones((len(values), 1)), np.asarray(values)
    bread = np.linalg.inv(x.T @ x)
    beta = bread @ x.T @ y
    residual = y - x @ beta
    names = sorted(set(clusters))
    meat = sum(
        np.outer(x[[c == name for c in clusters]].T @ residual[[c == name for c in clusters]],
                 x[[c == name for c in clusters]].T @ residual[[c == name for c in clusters]])
        for name in names
    )  # fmt: skip
    variance = (bread @ meat @ bread)[0, 0] * len(names) / (len(names) - 1)
    return float(beta[0]), float(stats.t.ppf(0.975, len(names) - 1) * np.sqrt(variance))


def test_the_clustered_interval_is_the_cluster_robust_regression_s() -> None:
    draw = np.random.default_rng(3)
    clusters = [f"q{i}" for i in draw.integers(0, 40, 200)]
    effect = {name: draw.normal() for name in set(clusters)}
    values = [effect[name] + draw.normal() for name in clusters]
    mean, half = sandwich(values, clusters)
    found = clustered_interval(values, clusters)
    assert (found.mean, found.low, found.high) == pytest.approx((mean, mean - half, mean + half))
    alone = clustered_interval(values, range(200))
    assert (alone.low, alone.high) == pytest.approx((t_interval(values).low, t_interval(values).high))
    assert found.high - found.low > 1.3 * (alone.high - alone.low)


def test_a_share_s_interval_is_wilson_s_at_the_effective_number_of_pairs() -> None:
    one = np.random.default_rng(4).random(150) < 0.3
    thrice = np.repeat(one, 3)  # pairs of a prompt that say the same are one
    found = clustered_interval(thrice, np.repeat(np.arange(150), 3), share=True)
    plain = wilson(one.sum(), 150)
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=2e-3)
    none = clustered_interval(np.zeros(300), np.arange(300) // 3, share=True)
    assert (none.low, none.high) == (0.0, pytest.approx(wilson(0, 100).high, abs=2e-3))


def categories(spoiled: str | None, seed: int = 0, n: int = 12 * 30) -> dict[str, Any]:
    """12 categories; training turns most wrong pairs, and in the spoiled one wrongs most right ones."""
    draw = np.random.default_rng(seed)
    reference = margins(0.45, n, seed)
    gain = np.where(reference < 0, np.where(draw.random(n) < 0.7, 7.0, 1.0), 1.0)
    names = np.array([f"c{i // 3 % 12}" for i in range(n)])
    bad = (names == spoiled) & (draw.random(n) < 0.6)
    gain = np.where(bad, -7.0, gain)
    return columns(reference, gain) | {"category": names.tolist()}


def test_the_one_spoiled_category_of_twelve_is_named_and_no_other() -> None:
    found = diagnosed(categories("c7")).policies[0].slices
    assert [s.value for s in found if s.named] == ["c7"]
    assert len([s for s in found if s.column == "category"]) == 12
    assert {s.column for s in found} == {"category", "length"}


def test_without_a_spoiled_category_none_is_named() -> None:
    named = [any(s.named for s in diagnosed(categories(None, seed)).policies[0].slices) for seed in range(40)]
    assert sum(named) <= 3


def test_slices_asked_for_by_a_wrong_name_are_refused() -> None:
    with pytest.raises(InputError, match=r"categroy.*category"):
        diagnosed(categories(None), slice_names=["categroy"])


def test_two_seeds_of_one_method_are_not_called_different() -> None:
    """A planted null: both policies move every pair by the same law, prompts in common, 200 draws."""
    different = 0
    for seed in range(200):
        draw = np.random.default_rng(seed)
        n = 240
        reference = draw.normal(-1, 3, n)
        common = draw.normal(1.5, 1, n)

        def policy(name: str) -> dict[str, Any]:
            own = np.repeat(draw.normal(0, 1, n // 3), 3) + draw.normal(0, 1, n)  # noqa: B023
            return table(columns(reference, common + own, policy=name)).columns  # noqa: B023

        found = comparisons({name: policy(name) for name in ("a", "b")}, 0.1, True, TIE_TOL)
        different += any(one.different for one in found)
    assert different <= 12


def test_two_policies_that_differ_are_called_different() -> None:
    reference = margins(0.5)
    rows = joined(
        columns(reference, np.full(PAIRS, 1.0), policy="a"), columns(reference, np.full(PAIRS, 5.0), policy="b")
    )
    found = {one.measure: one for one in diagnosed(rows).comparisons}
    assert found["ranking_accuracy"].different
    assert found["ranking_accuracy"].difference.mean == pytest.approx(-0.5, abs=0.01)


def test_equal_clusters_prove_nothing_in_small_numbers() -> None:
    assert clustered_p([1.0, 1.0, 1.0], ["a", "b", "c"]) > 0.05
    assert clustered_p([0.0, 0.0], ["a", "b"]) == 1.0
