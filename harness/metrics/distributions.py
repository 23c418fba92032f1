"""Mean, median and other quantiles, spread and skew of every margin and log-ratio over pairs: families of measures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from harness.metrics import margin_columns as margins
from harness.metrics.records import Array, Columns, Floats, numbers
from harness.metrics.row import INF, LENGTHS, LOGPS, Function, Metric


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


def _percentile(percent: int, values: Floats) -> float:
    return float(np.percentile(values, percent))


# Per-pair quantities (n,) in nats, with what a summary calls them; each has a twin `ln_<name>` on token means.
QUANTITIES: dict[str, tuple[Callable[[Columns], Floats], str]] = {
    "delta": (margins.delta, "delta"),
    "delta_ref": (margins.delta_ref, "delta_ref"),
    "gain": (margins.log_ratio_margin, "the log-ratio margin"),
    "h_w": (margins.chosen_log_ratio, "the chosen response's log-ratio"),
    "h_l": (margins.rejected_log_ratio, "the rejected response's log-ratio"),
}
STATISTICS: dict[str, Callable[[Floats], float]] = {
    "mean": mean,
    "std": lambda x: float(x.std(ddof=1)) if x.size > 1 else math.nan,
    "min": lambda x: float(x.min()),
    "max": lambda x: float(x.max()),
    **{f"q{percent:02d}": partial(_percentile, percent) for percent in (5, 25, 50, 75, 95)},
}


def _spreads(statistic: str) -> Iterator[Metric]:
    """`<quantity>_<statistic>` of the quantities, their `ln_` twins and implicit_margin."""
    reduce, low = STATISTICS[statistic], 0.0 if statistic == "std" else -INF

    def on_sums(quantity: Callable[[Columns], Floats]) -> Function:
        return lambda v: reduce(quantity(v.columns))

    def on_token_means(quantity: Callable[[Columns], Floats]) -> Function:
        return lambda v: reduce(quantity(margins.per_token(v.columns)))

    for name, (quantity, meaning) in QUANTITIES.items():
        text = f"{statistic} of {meaning} over pairs"
        yield Metric(f"{name}_{statistic}", on_sums(quantity), "nats", "none", low, INF, LOGPS, "OCED", text)
        yield Metric(
            f"ln_{name}_{statistic}", on_token_means(quantity), "nats/token", "none", low, INF, LOGPS + LENGTHS, "OCED",
            f"{text} (token means)",
        )  # fmt: skip
    yield Metric(
        f"implicit_margin_{statistic}", lambda v: reduce(margins.implicit_margin(v.columns, v.beta)), "beta * nats",
        "none", low, INF, LOGPS, "OCED", f"{statistic} of beta * log-ratio margin over pairs", ("beta",), False,
    )  # fmt: skip


LOSS = Metric(
    "loss", lambda v: mean(numbers(v.columns, "loss")), "own", "none", -INF, INF, ("loss",), "OCED",
    "mean of what is minimised; never compared across objectives, beta or label sets", beta_neutral=False,
)  # fmt: skip
BASE_LOSS = Metric(
    "base_loss", lambda v: mean(numbers(v.columns, "base_loss")), "own", "none", -INF, INF, ("base_loss",), "OCED",
    "mean per-pair loss; for batch-level objectives the logistic loss of beta * log-ratio margin", beta_neutral=False,
)  # fmt: skip


ROWS = (*(row for statistic in STATISTICS for row in _spreads(statistic)), LOSS, BASE_LOSS)
