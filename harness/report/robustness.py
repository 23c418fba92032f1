"""How far each arm (objective with all hyperparameters) holds out under one kind of corruption."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from harness.measure.statistics import Estimate, paired_difference
from harness.report.cells import Cell
from harness.report.conditions import Condition
from harness.report.families import Family

MEASURE = "ranking_accuracy"


@dataclass(frozen=True, eq=False)
class Path:
    """One arm along one kind of corruption, clean first, rates ascending (or under every condition of its family);
    only conditions with a finished run."""

    arm: str
    points: tuple[tuple[Condition, Cell], ...]

    @property
    def mean(self) -> float:
        """Mean ranking accuracy over the tested rates."""
        return math.fsum(cell.estimate(MEASURE).mean for _, cell in self.points) / len(self.points)

    @property
    def first(self) -> Cell:
        """The cell at the lowest rate."""
        return self.points[0][1]

    @property
    def last(self) -> Cell:
        """The cell at the highest rate."""
        return self.points[-1][1]


def paths(family: Family, kind: str | None, objective: str) -> list[Path]:
    """The paths of an objective's arms along one kind (None: under every condition), betas ascending.

    Arms without any finished run are left out.
    """
    conditions = family.conditions if kind is None else family.along(kind)
    found = []
    for arm in family.arms(objective):
        cells = [(condition, family.cell(arm, condition)) for condition in conditions]
        points = tuple((c, cell) for c, cell in cells if cell is not None and cell.estimate(MEASURE).n)
        if points:
            found.append(Path(arm, points))
    return found


def best_path(found: Sequence[Path]) -> Path:
    """The arm with the highest mean ranking accuracy over the tested rates, the lower beta among equals."""
    tested = max(len(path.points) for path in found)
    return max(found, key=lambda path: (len(path.points) == tested, path.mean))


def over_conditions(family: Family, arm: str) -> Mapping[int, float]:
    """Mean ranking accuracy by seed over every condition of the family, for seeds that finished all of them."""
    cells = [cell for condition in family.conditions if (cell := family.cell(arm, condition)) is not None]
    values = [cell.values(MEASURE) for cell in cells]
    seeds = set.intersection(*map(set, values)) if values else set()
    return {seed: math.fsum(one[seed] for one in values) / len(values) for seed in sorted(seeds)}


def against_reference(cell: Cell) -> Estimate:
    """Ranking accuracy minus the untrained reference's, paired by seed."""
    return paired_difference(cell.values(MEASURE), cell.fact_values("reference_accuracy"))


def beats_reference(cell: Cell) -> bool | None:
    """Whether the paired interval of the difference to the reference lies above 0; None without an interval."""
    low = against_reference(cell).low
    return low > 0 if math.isfinite(low) else None


def above_chance(cell: Cell) -> bool | None:
    """Whether the interval of ranking accuracy lies above one half; None without an interval."""
    low = cell.estimate(MEASURE).low
    return low > 0.5 if math.isfinite(low) else None


def survived(path: Path, clears: Callable[[Cell], bool | None]) -> tuple[float | None, bool]:
    """(largest rate up to which, as at all lower ones, the arm clears the bar; whether those are all tested rates).

    The rate is None where it never does; NaN where no interval exists at the first point.
    """
    reached: float | None = None
    for condition, cell in path.points:
        cleared = clears(cell)
        if cleared is None:
            return (math.nan if reached is None else reached), False
        if not cleared:
            return reached, False
        reached = condition.rate
    return reached, True
