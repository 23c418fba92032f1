"""Mean, spread and quantiles of every per-pair quantity over the pairs of a split."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from harness.measure import margins
from harness.measure.distributions import mean
from harness.measure.metric import INF, LENGTHS, LOGPS, Function, Metric, View
from harness.measure.records import Columns, Floats, numbers

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
