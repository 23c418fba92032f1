"""What is measured, as pure functions of stored records; numpy only, scipy on first use.

`METRICS` maps a name to its row; `checkpoint_metrics` and `results_row` are the two selections that a run stores.
"""

from harness.measure.geometry import checkpoint_metrics
from harness.measure.metric import Metric
from harness.measure.results import results_row
from harness.measure.table import METRICS

__all__ = ["METRICS", "Metric", "checkpoint_metrics", "results_row"]
