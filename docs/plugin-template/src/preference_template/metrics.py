"""A metric: how many pairs the policy all but ties."""

from __future__ import annotations

import numpy as np

from harness.metrics.row import LOGPS, Metric, View


def near_tie_rate(view: View) -> float:
    """Share of pairs whose two log-probs are within one nat."""
    gap = view.columns["policy_chosen"] - view.columns["policy_rejected"]
    return float((np.abs(gap) < 1.0).mean())


NEAR_TIE = Metric(
    name="near_tie_rate",
    function=near_tie_rate,
    unit="share",
    direction="none",
    low=0,
    high=1,
    needs=LOGPS,
    splits="OCED",
    summary="pairs within 1 nat of a tie",
)
