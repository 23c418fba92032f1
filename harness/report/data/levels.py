"""The recommendation within each learning rate and each budget of a sweep: does it hold at all of them?

Levels of one axis are compared where the rest of the training is the same: learning rates at the budgets that all of
them have, and the other way round.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from harness.identity import canonical_json
from harness.metrics.frontier import Setting
from harness.metrics.levels import Across, Level, across, at_level
from harness.report.data.cells import Cell
from harness.report.data.frontier import Arena
from harness.report.data.recommendation import Recommendation, arm_lead, arm_values

AXES = ("learning_rate", "steps")  # of `training`


@dataclass(frozen=True, eq=False)
class Axis:
    """One axis of training in one arena: the recommendation at each of its levels, ascending, and what they say
    together of the choice of the objective `chosen`."""

    name: str
    arena: Arena
    chosen: str
    levels: Mapping[float, Level[Setting]]

    @property
    def outcome(self) -> Across:
        """Whether the choice is the same at every level."""
        return across(list(self.levels.values()), self.chosen)


def training_axes(found: Recommendation) -> tuple[Axis, ...]:
    """The axes with several levels in the arena of the lowest rate, of those the recommendation is for, that has any.

    Only levels count at which the recommended objective and another one have an outcome.
    """
    chosen = found.lead.first.objective
    for arena in found.bands[0].arenas:
        split = {name: _split(arena, name, chosen, found.measure) for name in AXES}
        several = {name: levels for name, levels in split.items() if len(levels) > 1}
        tested = {tuple(id(cell) for cell in cells) for levels in several.values() for cells in levels.values()}
        judged = partial(arm_lead, arena, found.measure)
        axes = []
        for name, levels in several.items():
            values = {level: arm_values(arena, cells, found.measure) for level, cells in levels.items()}
            made = {level: at_level(own, judged, len(tested)) for level, own in sorted(values.items())}
            axes.append(Axis(name, arena, chosen, made))
        if axes:
            return tuple(axes)
    return ()


def _split(arena: Arena, axis: str, chosen: str, measure: str) -> dict[float, list[Cell]]:
    """Cells by their value of one axis, of the trainings that every value shares."""
    by_value: dict[float, dict[str, list[Cell]]] = {}
    for cell in arena.cells:
        training = dict(cell.first.config["training"])
        value = float(training.pop(axis))
        if cell.values(measure):
            by_value.setdefault(value, {}).setdefault(canonical_json(training), []).append(cell)
    levels: dict[float, list[Cell]] = {}
    shared = set.intersection(*(set(by_rest) for by_rest in by_value.values())) if by_value else set()
    for value, by_rest in by_value.items():
        cells = [cell for rest in sorted(shared) for cell in by_rest[rest]]
        names = {cell.first.objective for cell in cells}
        if chosen in names and len(names) > 1:
            levels[value] = cells
    return levels
