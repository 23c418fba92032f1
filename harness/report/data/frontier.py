"""What each objective reaches in one world under one corruption, over everything else that the sweep varies.

Beta, learning rate, steps and every other hyperparameter make the settings of an objective; world (or data), corruption
and evaluation make the arena in which objectives are compared (`harness/metrics/frontier.py` has the mathematics).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from harness.identity import canonical_json
from harness.metrics.frontier import Edge, Frontier, Point, Setting
from harness.metrics.statistics import look_alpha, practical_margin
from harness.report.data.cells import RANKING, Cell, axis_values
from harness.report.data.conditions import Condition, spoken
from harness.report.data.tables import MEASURES, csv_bytes
from harness.report.render.text import plain, visible
from harness.types import SeedRounds

QUALITIES = (RANKING, "gold_reward")  # what is drawn and compared against KL
ALPHA = 0.05
CEILING = "vote_table"  # column of a world's results: what a vote over the training labels ranks right
POINT_COLUMNS = ("objective", "beta", "corruption", "rate", "misaligned", "seed", "kl", *QUALITIES)


@dataclass(frozen=True, eq=False)
class Arena:
    """Conditions that differ in training alone. `axes` are the columns that make a setting, beside beta."""

    title: str
    conditions: tuple[Condition, ...]
    axes: tuple[str, ...]
    rounds: SeedRounds | None = None  # where the seeds came in rounds
    _frontiers: dict[tuple[str, str], Frontier] = field(default_factory=dict, repr=False)  # computed so far

    @property
    def first(self) -> Condition:
        """Any of the conditions: world or data and corruption are the arena's."""
        return self.conditions[0]

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """The cells of all its conditions."""
        return tuple(cell for condition in self.conditions for cell in condition.cells)

    @cached_property
    def objectives(self) -> tuple[str, ...]:
        """Names in the order of the cells."""
        return tuple(dict.fromkeys(cell.first.objective for cell in self.cells))

    def of(self, objective: str) -> tuple[Cell, ...]:
        """The cells of one objective."""
        return tuple(cell for cell in self.cells if cell.first.objective == objective)

    def planned(self, *objectives: str) -> int:
        """Seeds planned for all of these objectives, the most of any cell of each."""
        return min(max(cell.planned for cell in self.of(name)) for name in objectives)

    def alpha(self, seeds: int) -> float:
        """The error that comparisons over `seeds` seeds may make: after each round of seeds a part of it."""
        return ALPHA if self.rounds is None else look_alpha(self.rounds, seeds, ALPHA)

    def setting(self, cell: Cell) -> Setting:
        """The cell's values on every axis of a setting."""
        values: dict[str, Any] = axis_values(cell, self.axes)
        model = cell.first.config.get("reward_model")
        rest = {**values, "reward_model": None if model is None else canonical_json(model)}
        return (("beta", cell.first.beta), *((name, _hashable(value)) for name, value in rest.items()))

    def cell(self, objective: str, setting: Setting | None) -> Cell | None:
        """The cell of a setting."""
        return next((cell for cell in self.of(objective) if self.setting(cell) == setting), None)

    def training(self, cell: Cell) -> str:
        """`steps 200, learning rate 0.001`: of a cell's training what varies within the arena."""
        return ", ".join(f"{spoken(axis)} {visible(axis_values(cell, [axis])[axis])}" for axis in self.trained)

    @cached_property
    def trained(self) -> tuple[str, ...]:
        """The axes of training of which some objective has several values."""
        axes = [axis for axis in self.axes if axis == "steps" or axis.startswith("training.")]
        values = {
            (axis, name): {repr(axis_values(cell, [axis])[axis]) for cell in self.of(name)}
            for axis in axes
            for name in self.objectives
        }
        return tuple(axis for axis in axes if any(len(values[axis, name]) > 1 for name in self.objectives))

    def named(self, cell: Cell) -> str:
        """`dpo at beta 2 (learning rate 0.00025)`: unique among the cells of the arena."""
        training = self.training(cell)
        return f"{cell.named} ({training})" if training else cell.named

    def setting_text(self, objective: str) -> str:
        """Its best setting as `beta 2, learning rate 0.001`: the axes that vary within the objective."""
        frontier = self.frontier(objective)
        parts = []
        for place, (name, value) in enumerate(frontier.best_setting or ()):
            if value is not None and (name == "beta" or len({setting[place] for setting in frontier.settings}) > 1):
                text = plain(float(value)) if isinstance(value, int | float) else visible(value)
                parts.append(f"{spoken(name)} {text}")
        return ", ".join(parts)

    def frontier(self, objective: str, measure: str = RANKING) -> Frontier:
        """The frontier of one objective."""
        if (objective, measure) not in self._frontiers:
            self._frontiers[objective, measure] = self.frontier_of(self.of(objective), measure)
        return self._frontiers[objective, measure]

    def frontier_of(self, cells: Iterable[Cell], measure: str = RANKING) -> Frontier:
        """Points by seed of some cells of one objective; lost runs count at the measure's worst and have no KL."""
        points: dict[int, dict[Setting, Point]] = {}
        for cell in cells:
            setting, kl = self.setting(cell), cell.finished("kl")
            for seed, quality in cell.values(measure).items():
                points.setdefault(seed, {})[setting] = Point(quality, kl.get(seed, math.nan))
        return Frontier(points)

    def edge(self, objective: str, measure: str = RANKING) -> Edge | None:
        """Where its best beta lies at the end of its grid; None where inside."""
        return self.frontier(objective, measure).edge(practical_margin(MEASURES.get(measure, False)))

    @cached_property
    def reference(self) -> dict[int, float]:
        """The untrained reference's ranking accuracy by seed."""
        return {seed: value for cell in self.cells for seed, value in cell.reference.items()}

    @cached_property
    def ceiling(self) -> dict[int, float]:
        """By seed, what a vote over the training labels ranks right; empty where the sweep did not measure it."""
        found = ((run.seed, run.measured(CEILING)) for cell in self.cells for run in cell.runs)
        return {seed: value for seed, value in found if value is not None}


def build_arenas(
    conditions: Iterable[Condition], axes: Sequence[str], rounds: SeedRounds | None = None
) -> tuple[Arena, ...]:
    """Arenas in the order of their first condition; a title that several conditions share leaves out the training."""
    groups: dict[str, list[Condition]] = {}
    for condition in conditions:
        shared = {k: v for k, v in condition.first.config.items() if k not in _OF_A_SETTING}
        groups.setdefault(canonical_json(shared), []).append(condition)
    within = tuple(axis for axis in axes if axis.startswith(("hp.", "training.")) or axis == "steps")
    titles = [_title(group) for group in groups.values()]
    return tuple(
        Arena(title if titles.count(title) == 1 else group[0].title, tuple(group), within, rounds)
        for title, group in zip(titles, groups.values(), strict=True)
    )


_OF_A_SETTING = ("objective", "seed", "device", "reward_model", "training", "replica")


def _title(group: Sequence[Condition]) -> str:
    """The title of the only condition; of several what all of them say, piece by piece."""
    parts = [condition.title.split(", ") for condition in group]
    return ", ".join(part for part in parts[0] if all(part in other for other in parts[1:]))


def edge_text(name: str, edge: Edge) -> str:
    """`extend dpo below beta 0.5`, or that one beta alone was tried."""
    if edge.side == "only":
        return f"{visible(name)}: only beta {plain(edge.beta)} tried"
    return f"extend {visible(name)} {edge.side} beta {plain(edge.beta)}"


def at_kl(kl: float | None) -> str:
    """A KL to three digits: that of an objective with one setting is a mean."""
    return plain(None if kl is None else float(f"{kl:.3g}"))


def points_csv(arenas: Iterable[Arena], axes: Sequence[str]) -> bytes:
    """`frontier.csv`: a row per finished run with its KL and qualities, the untrained reference's accuracy beside."""
    rows = []
    for arena in arenas:
        for cell in arena.cells:
            for run in cell.runs:
                if run.done:
                    first = (run.objective, run.beta, run.corruption, run.rate, run.misaligned, run.seed)
                    numbers = (run.measured("kl"), *(run.measured(name) for name in QUALITIES))
                    row = dict(zip(POINT_COLUMNS, (*first, *numbers), strict=True)) | axis_values(cell, axes)
                    rows.append(row | {"reference": cell.reference.get(run.seed), "ceiling": run.measured(CEILING)})
    return csv_bytes((*POINT_COLUMNS, "reference", "ceiling", *axes), rows)


def _hashable(value: Any) -> Hashable:
    return value if isinstance(value, Hashable) else canonical_json(value)
