"""Intervals, tests and verdicts: the one home of the harness's statistics. numpy, scipy on first use, no torch.

The unit of replication is the seed; differences are paired by seed; `judge` gives the verdict on a difference. Fewer
than `MIN_SEEDS` seeds give an interval and never a verdict. Results are equal in every bit for every order of the rows.
docs/statistics.md has formulas, sources and simulated coverage, error rates and power.
"""

from harness.metrics.statistics.clustered import (
    below_rest_p,
    clustered_interval,
    clustered_p,
    independent_difference,
)
from harness.metrics.statistics.independent import independent_contrast
from harness.metrics.statistics.intervals import MIN_SEEDS, NOTHING, Estimate, t_interval, wilson
from harness.metrics.statistics.items import (
    FEW,
    ItemLevel,
    Pairs,
    SeedItems,
    assumed_level,
    cell_estimate,
    item_level,
    joint_interval,
    seeds_share,
)
from harness.metrics.statistics.paired import (
    bonferroni_interval,
    corrected_p,
    holm,
    newcombe_paired,
    paired_difference,
    paired_differences,
    sign_flip_p,
)
from harness.metrics.statistics.power import (
    detectable_effect,
    item_detectable_effect,
    minimum_detectable_effect,
    t_test_power,
)
from harness.metrics.statistics.sequential import is_settled, look_alpha
from harness.metrics.statistics.treatment import LOST, WAITING, Treated, intention_to_treat, lost_rate, worst_value
from harness.metrics.statistics.verdict import (
    INCOMPLETE,
    INTERVAL_ONLY,
    NO_DIFFERENCE,
    SHARE_MARGIN,
    Verdict,
    judge,
    practical_margin,
    word_of,
    wording,
)

__all__ = [
    "FEW", "INCOMPLETE", "INTERVAL_ONLY", "LOST", "MIN_SEEDS", "NOTHING", "NO_DIFFERENCE", "SHARE_MARGIN",
    "WAITING", "Estimate", "ItemLevel", "Pairs", "SeedItems", "Treated", "Verdict", "assumed_level", "below_rest_p",
    "bonferroni_interval", "cell_estimate", "clustered_interval", "clustered_p", "corrected_p", "detectable_effect",
    "holm", "independent_contrast", "independent_difference", "intention_to_treat", "is_settled",
    "item_detectable_effect", "item_level", "joint_interval", "judge",
    "look_alpha", "lost_rate", "minimum_detectable_effect", "newcombe_paired",
    "paired_difference", "paired_differences", "practical_margin", "seeds_share", "sign_flip_p", "t_interval",
    "t_test_power", "wilson", "word_of", "wording", "worst_value",
]  # fmt: skip
