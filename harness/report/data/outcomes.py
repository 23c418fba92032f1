"""A cell's values by intention to treat: lost runs count as the worst there is, unfinished ones block the cell."""

from __future__ import annotations

from collections.abc import Sequence

from harness.metrics.registry import METRICS
from harness.metrics.statistics import Treated, intention_to_treat, worst_value
from harness.report.data.sweep import Run


def worst(measure: str) -> float | None:
    """The worst value of a share among the columns of `results.csv`: 0 of an accuracy, 1 of a zone; None for others."""
    row = METRICS.get(measure.removeprefix("ood_"))
    return worst_value(row.direction, row.low, row.high) if row is not None and row.share else None


def treated(runs: Sequence[Run], measure: str) -> Treated:
    """The runs of one cell (one a seed) on one column of `results.csv`, diverged and failed ones at their worst."""
    found = {run.seed: run.measured(measure) for run in runs}
    values = {seed: value for seed, value in found.items() if value is not None}
    return intention_to_treat({run.seed: run.status for run in runs}, values, worst(measure))
