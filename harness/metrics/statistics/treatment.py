"""Lost runs in a comparison (intention to treat): a failed run counts as the worst, an unfinished one prevents it.

A method that collapses on hard seeds must not look good on the easy ones that are left.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from harness.metrics.statistics.intervals import Estimate, wilson
from harness.types import RunStatus

LOST = (RunStatus.DIVERGED, RunStatus.FAILED)
WAITING = (RunStatus.PENDING, RunStatus.STOPPED)


@dataclass(frozen=True, slots=True)
class Treated:
    """The runs of one cell on one measure, by seed, lost ones counted.

    `values`: finished seeds as measured, lost ones (diverged, failed) at the measure's worst. `seeds` are both: every
    seed with an outcome, and `n`, their number, is the n of the estimate. `lost`: how many of them were lost.
    `waiting`: pending or stopped seeds, neither counted nor imputed: while there are any, the cell is incomplete and
    gets no verdict. Where a seed was lost and the measure has no worst value (nats, rewards), no mean is honest:
    `values` is empty, `available` False, and `n` still counts.
    """

    values: Mapping[int, float]
    seeds: tuple[int, ...]
    lost: int
    waiting: int

    @property
    def n(self) -> int:
        """Seeds counted."""
        return len(self.seeds)

    @property
    def available(self) -> bool:
        """Whether `values` speak for all `n` seeds."""
        return bool(self.values) and len(self.values) == self.n


def worst_value(direction: str, low: float, high: float) -> float | None:
    """The worst a measure can be: its low end where larger is better, its high end where smaller is; None if unbounded
    or without a direction."""
    end = {"up": low, "down": high}.get(direction, math.nan)
    return end if math.isfinite(end) else None


def intention_to_treat(statuses: Mapping[int, str], values: Mapping[int, float], worst: float | None = None) -> Treated:
    """`statuses` (done, diverged, failed, stopped, pending) and measured `values` by seed, lost seeds set to `worst`.

    What a lost run measured before it was lost is not used. A finished seed without a value (a measure that does not
    apply) is left out of `values` and of `n`. Raises ValueError on a status that is none of the five.
    """
    unknown = sorted(set(statuses.values()) - set(RunStatus))
    if unknown:
        raise ValueError(f"unknown status {unknown[0]!r}; expected done, {', '.join((*LOST, *WAITING))}")
    kept = {seed: values[seed] for seed in sorted(statuses) if statuses[seed] == RunStatus.DONE and seed in values}
    lost = [seed for seed in sorted(statuses) if statuses[seed] in LOST]
    waiting = sum(status in WAITING for status in statuses.values())
    seeds = tuple(sorted([*kept, *lost]))
    if not kept and RunStatus.DONE in statuses.values():  # the measure does not apply here: nothing to be worst at
        return Treated({}, (), len(lost), waiting)
    if not lost:
        return Treated(kept, seeds, 0, waiting)
    if worst is None:
        return Treated({}, seeds, len(lost), waiting)
    imputed = kept | dict.fromkeys(lost, worst)
    return Treated({seed: imputed[seed] for seed in seeds}, seeds, len(lost), waiting)


def lost_rate(statuses: Mapping[int, str], level: float = 0.95) -> Estimate:
    """Share of runs with an outcome that diverged or failed, with Wilson's interval; n = 0 while all are waiting."""
    ended = [status for status in statuses.values() if status not in WAITING]
    return wilson(sum(status in LOST for status in ended), len(ended), level)
