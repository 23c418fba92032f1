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
from harness.metrics.statistics.estimate import MIN_SEEDS, NOTHING, Estimate
from harness.metrics.statistics.intervals import cell_estimate, stratified_t_interval, t_interval, wilson
from harness.metrics.statistics.multiplicity import benjamini_hochberg, holm
from harness.metrics.statistics.paired import (
    EXACT_SIGN_FLIPS,
    bonferroni_interval,
    newcombe_paired,
    paired_difference,
    paired_differences,
    paired_share_difference,
    sign_flip_p,
)
from harness.metrics.statistics.power import item_detectable_effect, minimum_detectable_effect, t_test_power
from harness.metrics.statistics.resampling import bootstrap_interval, interquartile_mean, iqm_interval, mean_interval
from harness.metrics.statistics.treatment import LOST, WAITING, Treated, intention_to_treat, lost_rate, worst_value
from harness.metrics.statistics.two_level import Components, two_level_interval, variance_components
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
    "EXACT_SIGN_FLIPS", "INCOMPLETE", "INTERVAL_ONLY", "LOST", "MIN_SEEDS", "NOTHING", "NO_DIFFERENCE",
    "SHARE_MARGIN", "WAITING", "Components", "Estimate", "Treated", "below_rest_p", "benjamini_hochberg",
    "bonferroni_interval", "bootstrap_interval", "cell_estimate", "clustered_interval", "clustered_p", "holm",
    "independent_difference", "intention_to_treat", "interquartile_mean", "iqm_interval",
    "item_detectable_effect", "lost_rate", "mean_interval", "minimum_detectable_effect", "newcombe_paired",
    "paired_difference", "paired_differences", "paired_share_difference", "practical_margin",
    "sign_flip_p", "stratified_t_interval", "t_interval", "t_test_power",
    "two_level_interval", "variance_components", "verdict", "wilson", "wording", "worst_value",
]  # fmt: skip
