"""Which condition a page speaks of, where the baseline fails most, and which cells its figures have room for."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from harness.metrics.statistics import Estimate, paired_difference
from harness.report.data.cells import RANKING, Cell
from harness.report.data.conditions import Condition, Family, noise
from harness.report.data.curves import against_reference
from harness.report.render.text import plain

MIN_EFFECT = 0.05  # a gap or a fall below this is not worth a headline, whatever its interval
MAX_PANELS = 8  # panels that a reader takes in; the rest stands in the tables


@dataclass(frozen=True, eq=False)
class Failure:
    """The baseline cell that fails most: by its gap between the two accuracies, or (`falls`) by its fall below the
    reference."""

    condition: Condition
    cell: Cell
    falls: bool


def main_grid(conditions: Sequence[Condition]) -> list[Condition]:
    """The conditions of the settings (world or data, training) that the sweep has under most corruptions.

    The other settings ask whether what is found there holds elsewhere.
    """
    corruptions = Counter(condition.first.setting for condition in conditions)
    most = max(corruptions.values(), default=0)
    return [condition for condition in conditions if corruptions[condition.first.setting] == most]


def clearest_condition(conditions: Sequence[Condition]) -> Condition:
    """In the main grid hard labels, clean, highest misaligned; the nearest to that, the first among equals."""
    return max(
        main_grid(conditions), key=lambda c: (c.first.labels != "bradley_terry", c.clean, c.first.misaligned or 0.0)
    )


def largest_failure(conditions: Sequence[Condition], baseline: str) -> Failure | None:
    """In the main grid the larger of the widest gap under the clearest condition and the deepest fall under any."""
    conditions = main_grid(conditions)
    clearest = clearest_condition(conditions)
    cells = [c for c in clearest.by_objective.get(baseline, ()) if c.values(RANKING)]
    widest = max((cell for cell in cells if has_gap(cell)), key=gap_size, default=None)
    falls = [(k, c) for k in conditions for c in k.by_objective.get(baseline, ()) if falls_below_reference(c)]
    deepest = min(falls, key=lambda pair: against_reference(pair[1]).mean, default=None)
    if deepest and (widest is None or -against_reference(deepest[1]).mean > gap_size(widest)):
        return Failure(*deepest, falls=True)
    return None if widest is None else Failure(clearest, widest, falls=False)


def starts(families: Sequence[Family], baseline: str, failure: Failure) -> str:
    """`reward accuracy and ranking part from beta 0.1 on`: the lowest beta with the gap, or the lowest rate of the
    fall; empty where only one was tried."""
    if not failure.falls:
        betas = [cell for cell in failure.condition.by_objective[baseline] if cell.values(RANKING)]
        failing = [cell for cell in betas if cell.first.beta is not None and has_gap(cell)]
        if len(betas) < 2 or not failing:
            return ""
        return f"reward accuracy and ranking part from beta {plain(failing[0].first.beta)} on"
    family = next(one for one in families if failure.condition in one.conditions)
    rates = [c for same in family.kinds.values() if failure.condition in same for c in same]
    arm = failure.cell.first.arm
    falling = [c for c in rates if (one := family.cell(arm, c)) is not None and falls_below_reference(one)]
    return f"the fall below the reference starts at {noise(falling[0])}" if len(rates) > 1 and falling else ""


def gap(cell: Cell) -> Estimate:
    """Reward accuracy minus ranking accuracy, paired by seed."""
    return paired_difference(cell.values("reward_accuracy"), cell.values(RANKING))


def gap_size(cell: Cell) -> float:
    """`gap`'s mean, minus infinity where it is unknown: a sort key."""
    mean = gap(cell).mean
    return mean if math.isfinite(mean) else -math.inf


def has_gap(cell: Cell) -> bool:
    """Loss down, pairs moved the right way, and yet clearly fewer are ranked right."""
    wide, fell = gap(cell), _loss_change(cell)
    return wide.mean >= MIN_EFFECT and fell.mean < 0 and (wide.n == 1 or (wide.low > 0 and fell.high < 0))


def falls_below_reference(cell: Cell) -> bool:
    """Loss down while clearly fewer pairs are ranked right than by the untrained reference."""
    change, fell = against_reference(cell), _loss_change(cell)
    if not (change.n and fell.n):
        return False
    return change.mean <= -MIN_EFFECT and fell.mean < 0 and (change.n == 1 or (change.high < 0 and fell.high < 0))


def _loss_change(cell: Cell) -> Estimate:
    return paired_difference(cell.finished("train_loss_last"), cell.finished("train_loss_first"))


def lowest_ranking(cells: Sequence[Cell]) -> Cell | None:
    """The recorded cell with the lowest mean ranking accuracy; None where none is recorded."""
    return min((c for c in cells if c.recorded and c.ranking.n), key=lambda cell: cell.ranking.mean, default=None)


def evenly_spaced(cells: Sequence[Cell], count: int) -> list[Cell]:
    """At most `count` of the cells (at least 2 where there are as many), the ends among them, evenly spread."""
    if len(cells) <= count:
        return list(cells)
    return [cells[round(i * (len(cells) - 1) / (count - 1))] for i in range(count)]


def figure_cells(condition: Condition, baseline: str) -> tuple[list[Cell], str]:
    """The baseline's cells and every other objective's worst beta, in the order of the cells, with what was left out.

    Where there is no room for all, the baseline keeps its lowest and highest beta and as many between, and of the
    others those stay that rank worst and best, turn by turn.
    """
    base = [cell for cell in condition.by_objective.get(baseline, ()) if cell.recorded]
    worst = [lowest_ranking(cells) for name, cells in condition.by_objective.items() if name != baseline]
    others = [cell for cell in worst if cell is not None]
    total = len(base) + len(others)
    if total > MAX_PANELS and len(base) > 2:
        base = evenly_spaced(base, max(2, MAX_PANELS - len(others)))
    ranked = sorted(others, key=lambda cell: cell.ranking.mean)
    kept: list[Cell] = []
    while ranked and len(kept) < MAX_PANELS - len(base):
        kept.append(ranked.pop(-1 if len(kept) % 2 else 0))
    shown = [*base, *(cell for cell in others if cell in kept)]
    return shown, f" {len(shown)} of {total} shown." if len(shown) < total else ""


def sampled_cells(headline: Condition, baseline: str) -> tuple[Cell, ...]:
    """The cells of the figures, and the best beta of each of their objectives: those whose answers are read."""
    shown = figure_cells(headline, baseline)[0]
    best = []
    for name in dict.fromkeys(cell.first.objective for cell in shown):
        cells = [c for c in headline.by_objective[name] if c.recorded and c.ranking.n]
        best += [max(cells, key=lambda cell: cell.ranking.mean)] if cells else []
    return tuple(cell for cell in headline.cells if cell in shown or cell in best)
