"""The gradient geometry of a pair: what the norms and inner product of its two log-prob gradients say. numpy.

g_w, g_l are the gradients of log pi(chosen), log pi(rejected) over the trainable parameters. Under gradient flow on the
pair's own loss the policy moves along grad_w g_w - grad_l g_l (columns of the records), so the first-order changes of
the two log-probs and of the log-ratio margin follow from three numbers. Token-mean objectives: g / n in place of g.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from harness.metrics.distributions import mean
from harness.metrics.records import Array, numbers
from harness.metrics.row import INF, Function, Metric, View


def gradient_columns(products: ArrayLike, pulls: ArrayLike, lengths: ArrayLike, per_token: bool) -> dict[str, Array]:
    """The columns of `probes.parquet` (n,) from `products` `(n, 3)`, <g_w, g_l>, |g_w|^2, |g_l|^2, `pulls` `(n, 2)`,
    grad_w and grad_l, and token counts `lengths` `(n, 2)`.

    `grad_norm_w`, `grad_norm_l` (1/parameter) and `grad_cos` are of g itself; `chosen_rises`, `rejected_falls`
    (<g_w, g_l> < |g_w|^2, < |g_l|^2) and `gain_rate` (nats, or nats per token, per unit step; with equal pulls
    grad_w |g_w - g_l|^2) are in the objective's reduction. A gradient of zero has cosine NaN.
    """
    inner, chosen, rejected = np.asarray(products, dtype=np.float64).reshape(-1, 3).T
    pull_w, pull_l = np.asarray(pulls, dtype=np.float64).reshape(-1, 2).T
    norm_w, norm_l = np.sqrt(chosen), np.sqrt(rejected)
    scale = norm_w * norm_l
    columns = {
        "grad_norm_w": norm_w,
        "grad_norm_l": norm_l,
        # Rounding of the three products must not carry a cosine beyond 1.
        "grad_cos": np.clip(np.divide(inner, scale, out=np.full_like(scale, np.nan), where=scale > 0), -1.0, 1.0),
    }
    if per_token:
        n_w, n_l = np.asarray(lengths, dtype=np.float64).reshape(-1, 2).T
        inner, chosen, rejected = inner / (n_w * n_l), chosen / n_w**2, rejected / n_l**2
        pull_w, pull_l = pull_w * n_w, pull_l * n_l
    rate = pull_w * (chosen - inner) + pull_l * (rejected - inner)
    floats = {name: values.astype(np.float32) for name, values in (columns | {"gain_rate": rate}).items()}
    return floats | {"chosen_rises": inner < chosen, "rejected_falls": inner < rejected}


def _known(name: str) -> Function:
    """The mean of a column over the rows where it is known: a gradient of zero has no direction."""

    def average(view: View) -> float:
        values = numbers(view.columns, name)
        return mean(values[~np.isnan(values)])

    return average


def _row(name: str, unit: str, direction: str, low: float, high: float, summary: str) -> Metric:
    return Metric(
        name, _known(name), unit, direction, low, high, (name,), "P", summary, beta_neutral=name != "gain_rate"
    )


# Over `probes.parquet`, cut to one step first.
ROWS = (
    _row("grad_norm_w", "1/parameter", "none", 0.0, INF, "mean norm of the chosen log-prob's gradient"),
    _row("grad_norm_l", "1/parameter", "none", 0.0, INF, "mean norm of the rejected log-prob's gradient"),
    _row("grad_cos", "cosine", "none", -1.0, 1.0, "mean cosine of the two: near 1 the two sides move together"),
    _row("chosen_rises", "share", "up", 0.0, 1.0, "pairs whose own step raises the chosen log-prob (first order)"),
    _row("rejected_falls", "share", "up", 0.0, 1.0, "pairs whose own step lowers the rejected log-prob (first order)"),
    _row("gain_rate", "own", "none", -INF, INF, "mean first-order rate of the log-ratio margin on the pair alone"),
)
