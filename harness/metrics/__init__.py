"""What is measured, as pure functions of stored records; numpy only, scipy on first use.

`METRICS` maps a name to its row; `checkpoint_metrics` and `results_row` are the two selections that a run stores.
"""

from harness.metrics.geometry import checkpoint_metrics
from harness.metrics.registry import METRICS
from harness.metrics.results import results_row
from harness.metrics.row import Metric

__all__ = ["METRICS", "Metric", "checkpoint_metrics", "results_row"]
