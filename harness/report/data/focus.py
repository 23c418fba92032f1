"""Which condition a page is about: where the baseline's loss falls and its ranking does not follow, if anywhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.metrics.statistics import Estimate, paired_difference
from harness.report.data.cells import Cell
from harness.report.data.conditions import Condition, telling
from harness.report.sections.robustness import against_reference

# A gap or a fall below this is not worth a headline, whatever its interval.
WORTH_TELLING = 0.05


@dataclass(frozen=True, eq=False)
class Story:
    """The baseline cell that tells most: by its gap between the two accuracies, or (`falls`) by its fall below the
    reference."""

    condition: Condition
    cell: Cell
    falls: bool


def headline_story(conditions: Sequence[Condition], baseline: str) -> Story | None:
    """The larger of the widest gap under the telling condition and the deepest fall under any; None without either."""
    told = telling(conditions)
    own = [c for c in told.by_objective.get(baseline, ()) if c.values("ranking_accuracy")]
    widest = max((c for c in own if splits(c)), key=gap_size, default=None)
    falls = [(k, c) for k in conditions for c in k.by_objective.get(baseline, ()) if falls_below_reference(c)]
    deepest = min(falls, key=lambda pair: against_reference(pair[1]).mean, default=None)
    if deepest and (widest is None or -against_reference(deepest[1]).mean > gap_size(widest)):
        return Story(*deepest, falls=True)
    return None if widest is None else Story(told, widest, falls=False)


def gap(cell: Cell) -> Estimate:
    """Reward accuracy minus ranking accuracy, paired by seed."""
    return paired_difference(cell.values("reward_accuracy"), cell.values("ranking_accuracy"))


def gap_size(cell: Cell) -> float:
    """`gap`'s mean, minus infinity where it is unknown: a sort key."""
    mean = gap(cell).mean
    return mean if math.isfinite(mean) else -math.inf


def splits(cell: Cell) -> bool:
    """Loss down, pairs moved the right way, and yet clearly fewer are ranked right."""
    found, fell = gap(cell), _loss_change(cell)
    return found.mean >= WORTH_TELLING and fell.mean < 0 and (found.n == 1 or (found.low > 0 and fell.high < 0))


def falls_below_reference(cell: Cell) -> bool:
    """Loss down while clearly fewer pairs are ranked right than by the untrained reference."""
    change, fell = against_reference(cell), _loss_change(cell)
    if not (change.n and fell.n):
        return False
    return change.mean <= -WORTH_TELLING and fell.mean < 0 and (change.n == 1 or (change.high < 0 and fell.high < 0))


def _loss_change(cell: Cell) -> Estimate:
    return paired_difference(cell.finished("train_loss_last"), cell.finished("train_loss_first"))
