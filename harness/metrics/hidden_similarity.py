"""CHES: how alike the two responses of a pair look to the reference, which foretells likelihood displacement. numpy.

Razin et al., arXiv 2410.08847: with H the sum of the last layer's hidden states (after the final norm, before the
head) at the positions that predict a response's tokens, CHES = <H_w, H_l> - |H_w|^2. Higher (less negative): more of
the chosen response's probability is expected to be lost. `ln_ches`, <H_w, H_l> / (n_w n_l) - |H_w|^2 / n_w^2, does not
grow with length and is the one to rank pairs by.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from harness.metrics.distributions import correlation, mean
from harness.metrics.margin_columns import chosen_log_ratio
from harness.metrics.records import Array, numbers
from harness.metrics.row import INF, LOGPS, Metric, View


def ches_columns(products: ArrayLike, lengths: ArrayLike) -> dict[str, Array]:
    """The four record columns `(n,)` float32 from `products` `(n, 3)`, <H_w, H_l>, |H_w|^2, |H_l|^2, and token counts
    `lengths` `(n, 2)`, chosen and rejected.

    `ches_turned`, `ln_ches_turned` are those of the pair labelled the other way round, for rows that are turned.
    """
    inner, chosen, rejected = np.asarray(products, dtype=np.float64).reshape(-1, 3).T
    n_w, n_l = np.asarray(lengths, dtype=np.float64).reshape(-1, 2).T
    columns = {
        "ches": inner - chosen,
        "ln_ches": inner / (n_w * n_l) - chosen / n_w**2,
        "ches_turned": inner - rejected,
        "ln_ches_turned": inner / (n_w * n_l) - rejected / n_l**2,
    }
    return {name: values.astype(np.float32) for name, values in columns.items()}


CHES = Metric(
    "ches", lambda v: mean(numbers(v.columns, "ches")), "hidden^2", "none", -INF, INF, ("ches",), "OCED",
    "mean CHES under the reference: higher (less negative) foretells more displacement; grows with length",
)  # fmt: skip
LN_CHES = Metric(
    "ln_ches", lambda v: mean(numbers(v.columns, "ln_ches")), "hidden^2", "none", -INF, INF, ("ln_ches",), "OCED",
    "mean length-free CHES under the reference: the one to rank pairs and data sets by",
)  # fmt: skip


def corr_ches_displacement(view: View) -> float:
    """Correlation of ln_ches with the chosen response's log-ratio, over pairs."""
    return correlation(numbers(view.columns, "ln_ches"), chosen_log_ratio(view.columns))


CORR_CHES_DISPLACEMENT = Metric(
    "corr_ches_displacement", corr_ches_displacement, "correlation", "none", -1, 1, (*LOGPS, "ln_ches"), "OCED",
    "correlation of ln_ches with the chosen log-ratio: below 0 where CHES foretold which chosen responses lose",
)  # fmt: skip


ROWS = (CHES, LN_CHES, CORR_CHES_DISPLACEMENT)
