"""How far each arm (objective with all hyperparameters) holds out under one kind of corruption."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from harness.metrics.robustness import Breakdown, area_under_curve, breakdown_point
from harness.metrics.statistics import (
    Estimate,
    SeedItems,
    assumed_level,
    cell_estimate,
    item_level,
    joint_interval,
    paired_differences,
    t_interval,
)
from harness.report.data.cells import RANKING, Cell
from harness.report.data.conditions import Condition, Family
from harness.report.data.run_facts import COUNTED
from harness.report.render.text import number, shown


@dataclass(frozen=True, eq=False)
class Curve:
    """One arm along one kind of corruption, clean first, rates ascending (or under every condition of its family);
    only conditions with an outcome."""

    arm: str
    points: tuple[tuple[Condition, Cell], ...]

    @property
    def first(self) -> Cell:
        """The cell at the lowest rate."""
        return self.points[0][1]

    @property
    def lowest(self) -> tuple[Condition, Cell]:
        """The point with the lowest mean ranking accuracy."""
        return min(self.points, key=lambda point: point[1].ranking.mean)

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """Seeds with an outcome at every point."""
        return tuple(sorted(set.intersection(*(set(cell.values(RANKING)) for _, cell in self.points))))

    @cached_property
    def rates(self) -> list[float] | None:
        """The corruption rates, where the points are one curve of several rates."""
        rates = [condition.rate for condition, _ in self.points]
        return rates if len(rates) > 1 and sorted(set(rates)) == rates else None

    @cached_property
    def by_seed(self) -> dict[int, float]:
        """By seed with an outcome at every point: mean ranking accuracy over the tested rates, by trapezoids (the plain
        mean over conditions, where those are no rates)."""
        means = {}
        for seed in self.seeds:
            values = [cell.values(RANKING)[seed] for _, cell in self.points]
            area = area_under_curve(self.rates, [[v] for v in values]).mean if self.rates else None
            means[seed] = math.fsum(values) / len(values) if area is None else area
        return means

    @cached_property
    def area(self) -> Estimate:
        """Mean of `by_seed` with its interval."""
        items = [n for _, cell in self.points for n in cell.items() or ()]
        return cell_estimate(list(self.by_seed.values()), items or None, shared=self.first.shares_pairs)

    @property
    def height(self) -> float:
        """A sort key: the area, or the mean over the points where no seed has them all."""
        if self.area.n:
            return self.area.mean
        return math.fsum(cell.ranking.mean for _, cell in self.points) / len(self.points)

    def breakdown(self, bar: str) -> Breakdown | None:
        """The rate at which the arm falls to the untrained `reference` or to `chance`; None below two rates."""
        above = [against_reference(cell) if bar == "reference" else _above_chance(cell) for _, cell in self.points]
        return None if self.rates is None or not all(one.n for one in above) else breakdown_point(self.rates, above)


def _above_chance(cell: Cell) -> Estimate:
    one = cell.ranking
    return Estimate(one.n, one.mean - 0.5, one.low - 0.5, one.high - 0.5)


def curves(family: Family, kind: str | None, objective: str) -> list[Curve]:
    """The curves of an objective's arms along one kind (None: under every condition), betas ascending.

    Arms without any outcome are left out.
    """
    conditions = family.conditions if kind is None else family.along(kind)
    out = []
    for arm in family.arms(objective):
        cells = [(condition, family.cell(arm, condition)) for condition in conditions]
        points = tuple((c, cell) for c, cell in cells if cell is not None and cell.ranking.n)
        if points:
            out.append(Curve(arm, points))
    return out


def best_curve(candidates: Sequence[Curve]) -> Curve:
    """The arm with the highest mean ranking accuracy over the tested rates, the lower beta among equals."""
    tested = max(len(curve.points) for curve in candidates)
    return max(candidates, key=lambda curve: (len(curve.points) == tested, curve.height))


def against_reference(cell: Cell) -> Estimate:
    """Ranking accuracy minus the untrained reference's, paired by seed and by pair."""
    values, reference = cell.values(RANKING), cell.reference
    right, before = COUNTED[RANKING], COUNTED["ref_accuracy"]
    pairs = {run.seed: SeedItems(one.ids, one.prompts, right(one), before(one)) for run, one in cell.recorded}
    seeds = values.keys() & reference.keys()
    if seeds and pairs.keys() >= seeds:
        level = item_level({seed: pairs[seed] for seed in seeds}, cell.shares_pairs)
    else:
        level = assumed_level(values, reference, cell.items(), cell.shares_pairs)
    return joint_interval(paired_differences(values, reference), level)


def answers_worse(cell: Cell, reward: str) -> str:
    """Says that a cell's answers are worth less than the untrained model's, as far as that is more than chance."""
    before = t_interval(list(cell.finished("reference_gold_reward").values()))
    gain = cell.gain_in_answers()
    how = "answers worse" if gain.high < 0 else "is not shown to answer better"
    return (
        f"{cell.named} {how} than the untrained model: {reward} {number(cell.estimate('gold_reward').mean)},"
        f" before training {number(before.mean)}, difference {shown(gain)}"
    )
