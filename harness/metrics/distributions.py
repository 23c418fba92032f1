"""Measures of whole distributions: shift, area under the curve, calibration, KL of finite distributions."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from harness.metrics import margins
from harness.metrics.records import Array, Columns, Floats, numbers
from harness.metrics.row import INF, LENGTHS, LOGPS, Function, Metric, View


def mean(values: Floats) -> float:
    """Mean of (n,); NaN for none."""
    return float(values.mean()) if values.size else math.nan


def w1(first: Floats, second: Floats) -> float:
    """Wasserstein-1 distance of two samples of equal size: mean |difference of order statistics|, in their unit."""
    return float(np.abs(np.sort(first) - np.sort(second)).mean()) if first.size else math.nan


def auc(scores: Floats, positive: Array) -> float:
    """P(score of a positive > score of a negative) + half the ties, in [0, 1]; NaN where one class is empty."""
    positive = np.asarray(positive, dtype=bool)
    hits, misses = int(positive.sum()), int((~positive).sum())
    if not hits or not misses:
        return math.nan
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2.0)[inverse]
    return float((ranks[positive].sum() - hits * (hits + 1) / 2) / (hits * misses))


def both_ways_auc(margin: Floats) -> float:
    """AUC over pairs in both orientations: a pair scores `margin` as labelled and -margin the other way round."""
    labels = np.concatenate([np.ones(margin.size), np.zeros(margin.size)])
    return auc(np.concatenate([margin, -margin]), labels)


def calibration_error(probability: Floats, target: Floats, bins: int = 10) -> float:
    """Expected calibration error: sum over equal bins of share * |mean probability - mean target|, in [0, 1]."""
    if not probability.size:
        return math.nan
    index = np.minimum((probability * bins).astype(int), bins - 1)
    gaps = np.bincount(index, weights=probability - target, minlength=bins)
    return float(np.abs(gaps).sum() / probability.size)


def correlation(first: Floats, second: Floats) -> float:
    """Pearson correlation in [-1, 1]; NaN below two pairs or where one side is constant."""
    if first.size < 2 or first.min() == first.max() or second.min() == second.max():
        return math.nan
    return float(np.clip(np.corrcoef(first, second)[0, 1], -1.0, 1.0))


def sigmoid(values: ArrayLike) -> Floats:
    """1 / (1 + exp(-x)), without overflow."""
    x = np.asarray(values, dtype=np.float64)
    decay = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, decay) / (1.0 + decay)


# Per-pair quantities (n,) in nats; each has a twin `ln_<name>` on token means.
QUANTITIES: dict[str, Callable[[Columns], Floats]] = {
    "delta": margins.delta,
    "delta_ref": margins.delta_ref,
    "gain": margins.gain,
    "h_w": margins.chosen_shift,
    "h_l": margins.rejected_shift,
}


def _quantile(percent: int) -> Callable[[Floats], float]:
    return lambda x: float(np.percentile(x, percent))


STATISTICS: dict[str, Callable[[Floats], float]] = {
    "mean": mean,
    "std": lambda x: float(x.std(ddof=1)) if x.size > 1 else math.nan,
    "min": lambda x: float(x.min()),
    "max": lambda x: float(x.max()),
    **{f"q{percent:02d}": _quantile(percent) for percent in (5, 25, 50, 75, 95)},
}


def _of(quantity: Callable[[View], Floats], statistic: Callable[[Floats], float]) -> Function:
    return lambda v: statistic(quantity(v))


def _sum(function: Callable[[Columns], Floats]) -> Callable[[View], Floats]:
    return lambda v: function(v.columns)


def _token_mean(function: Callable[[Columns], Floats]) -> Callable[[View], Floats]:
    return lambda v: function(margins.per_token(v.columns))


def _loss(name: str) -> Function:
    return lambda v: mean(numbers(v.columns, name))


def spreads() -> list[Metric]:
    """`<quantity>_<statistic>` of the quantities, their `ln_` twins and implicit_margin; and the losses."""
    rows = []
    for statistic, reduce in STATISTICS.items():
        low = 0.0 if statistic == "std" else -INF
        for name, function in QUANTITIES.items():
            text = f"{statistic} of {name} over pairs"
            sums, means = _of(_sum(function), reduce), _of(_token_mean(function), reduce)
            rows.append(Metric(f"{name}_{statistic}", sums, "nats", "none", low, INF, LOGPS, "OCED", text))
            rows.append(
                Metric(f"ln_{name}_{statistic}", means, "nats/token", "none", low, INF, LOGPS + LENGTHS, "OCED",
                       f"{text} (token means)")
            )  # fmt: skip
        rows.append(
            Metric(f"implicit_margin_{statistic}",
                   _of(lambda v: margins.implicit_margin(v.columns, v.beta), reduce),
                   "beta * nats", "none", low, INF, LOGPS, "OCED", f"{statistic} of beta * gain over pairs",
                   ("beta",), False)
        )  # fmt: skip
    texts = {
        "loss": "mean of what is minimised; never compared across objectives, beta or label sets",
        "base_loss": "mean per-pair loss; for batch-level objectives the logistic loss of beta * gain",
    }
    for name, text in texts.items():
        row = Metric(name, _loss(name), "own", "none", -INF, INF, (name,), "OCED", text, beta_neutral=False)
        rows.append(row)
    return rows
