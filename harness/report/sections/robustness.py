"""How far each arm (objective with all hyperparameters) holds out under one kind of corruption."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from harness.metrics.robustness import Breakdown, area_under_curve, breakdown_point
from harness.metrics.statistics import NOTHING, Estimate, cell_estimate, paired_share_difference
from harness.report.data.cells import Cell
from harness.report.data.conditions import Condition
from harness.report.data.families import Family

MEASURE = "ranking_accuracy"
BARS = ("reference", "chance")


@dataclass(frozen=True, eq=False)
class Path:
    """One arm along one kind of corruption, clean first, rates ascending (or under every condition of its family);
    only conditions with an outcome."""

    arm: str
    points: tuple[tuple[Condition, Cell], ...]

    @property
    def first(self) -> Cell:
        """The cell at the lowest rate."""
        return self.points[0][1]

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """Seeds with an outcome at every point."""
        found = [set(cell.values(MEASURE)) for _, cell in self.points]
        return tuple(sorted(set.intersection(*found)))

    @cached_property
    def rates(self) -> list[float] | None:
        """The corruption rates, where the points are one curve of several rates."""
        found = [condition.rate for condition, _ in self.points]
        return found if len(found) > 1 and sorted(set(found)) == found else None

    @cached_property
    def by_seed(self) -> dict[int, float]:
        """By seed with an outcome at every point: mean ranking accuracy over the tested rates, by trapezoids (the plain
        mean over conditions, where those are no rates)."""
        found = {}
        for seed in self.seeds:
            values = [cell.values(MEASURE)[seed] for _, cell in self.points]
            area = area_under_curve(self.rates, [[v] for v in values]).mean if self.rates else None
            found[seed] = math.fsum(values) / len(values) if area is None else area
        return found

    @cached_property
    def area(self) -> Estimate:
        """Mean of `by_seed` with its interval."""
        items = [n for _, cell in self.points for n in cell.items() or ()]
        return cell_estimate(list(self.by_seed.values()), items or None, share=True) if self.by_seed else NOTHING

    @property
    def height(self) -> float:
        """A sort key: the area, or the mean over the points where no seed has them all."""
        if self.area.n:
            return self.area.mean
        return math.fsum(cell.estimate(MEASURE).mean for _, cell in self.points) / len(self.points)

    def breakdown(self, bar: str) -> Breakdown | None:
        """The rate at which the arm falls to the untrained `reference` or to `chance`; None below two rates."""
        seeds = [seed for seed in self.seeds if bar == "chance" or all(seed in c.reference for _, c in self.points)]
        if self.rates is None or not seeds:
            return None
        table = [[cell.values(MEASURE)[seed] - _bar(cell, bar, seed) for seed in seeds] for _, cell in self.points]
        floor = [_half_width(cell, bar) for _, cell in self.points]
        return breakdown_point(self.rates, table, floor=floor)


def _bar(cell: Cell, bar: str, seed: int) -> float:
    return 0.5 if bar == "chance" else cell.reference[seed]


def _half_width(cell: Cell, bar: str) -> float:
    """Half the width of the interval of a cell's difference to the bar, item level included; 0 where there is none."""
    found = cell.estimate(MEASURE) if bar == "chance" else against_reference(cell)
    return (found.high - found.low) / 2 if math.isfinite(found.low) else 0.0


def paths(family: Family, kind: str | None, objective: str) -> list[Path]:
    """The paths of an objective's arms along one kind (None: under every condition), betas ascending.

    Arms without any outcome are left out.
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
    return max(found, key=lambda path: (len(path.points) == tested, path.height))


def against_reference(cell: Cell) -> Estimate:
    """Ranking accuracy minus the untrained reference's, paired by seed and by pair."""
    both = {run.seed: facts.kept_right for run, facts in cell.recorded}
    return paired_share_difference(cell.values(MEASURE), cell.reference, cell.items(), both)
