"""Intervals, tests and verdicts: the one home of the harness's statistics. numpy, scipy on first use, no torch.

The unit of replication is the seed; differences are paired by seed. Fewer than `MIN_SEEDS` seeds give an interval and
never a verdict. Results are equal in every bit for every order of the rows. docs/statistics.md has formulas, sources
and simulated coverage.
"""

from harness.metrics.statistics.clustered import (
    below_rest_p,
    clustered_interval,
    clustered_p,
    independent_difference,
)
from harness.metrics.statistics.intervals import MIN_SEEDS, NOTHING, Estimate, cell_estimate, t_interval, wilson
from harness.metrics.statistics.paired import (
    bonferroni_interval,
    holm,
    newcombe_paired,
    paired_difference,
    paired_differences,
    paired_share_difference,
    sign_flip_p,
)
from harness.metrics.statistics.power import item_detectable_effect, minimum_detectable_effect, t_test_power
from harness.metrics.statistics.treatment import LOST, WAITING, Treated, intention_to_treat, lost_rate, worst_value
from harness.metrics.statistics.verdict import (
    INCOMPLETE,
    INTERVAL_ONLY,
    NO_DIFFERENCE,
    SHARE_MARGIN,
    practical_margin,
    verdict,
    wording,
)

__all__ = [
    "INCOMPLETE", "INTERVAL_ONLY", "LOST", "MIN_SEEDS", "NOTHING", "NO_DIFFERENCE", "SHARE_MARGIN", "WAITING",
    "Estimate", "Treated", "below_rest_p", "bonferroni_interval", "cell_estimate", "clustered_interval", "clustered_p",
    "holm", "independent_difference", "intention_to_treat", "item_detectable_effect", "lost_rate",
    "minimum_detectable_effect", "newcombe_paired", "paired_difference", "paired_differences",
    "paired_share_difference", "practical_margin", "sign_flip_p", "t_interval", "t_test_power", "verdict", "wilson",
    "wording", "worst_value",
]  # fmt: skip
