"""What every section is made from: the sweep, its cells, conditions and families, read once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from harness.metrics.records import Columns
from harness.metrics.statistics import Estimate
from harness.palette import Look, looks
from harness.report.data.cells import RANKING, Cell, baseline, build_cells
from harness.report.data.conditions import Condition, Family, build_conditions, build_families
from harness.report.data.contrasts import Contrast, build_contrasts
from harness.report.data.dominance import Dominance, dominances
from harness.report.data.frontier import Arena, build_arenas
from harness.report.data.headline import clearest_condition, largest_failure, sampled_cells
from harness.report.data.levels import Axis, training_axes
from harness.report.data.published import public_sweep
from harness.report.data.recommendation import Case, Recommendation, cases, recommend
from harness.report.data.run_facts import REWARD_MODEL, divergence_types, read_all
from harness.report.data.samples import read_samples
from harness.report.data.slices import CellSlice, cell_slices
from harness.report.data.sweep import Sweep, read_sweep
from harness.report.render.blocks import Field
from harness.report.texts import Texts
from harness.storage.prediction_file import read_prediction
from harness.types import default_texts

PER_EXAMPLE_RUNS = 2000  # above this many runs no per-example record is read: minutes, for figures nobody could take in


@dataclass(frozen=True, eq=False)
class ReportData:
    """Everything that a page is made from, as it was read from the folder of a sweep."""

    sweep: Sweep
    cells: tuple[Cell, ...]
    conditions: tuple[Condition, ...]
    families: tuple[Family, ...]
    headline: Condition  # what the answer and the figures speak of
    baseline: str  # the objective that others are compared with
    problems: tuple[str, ...]  # sentences about records that could not be read
    looks: Mapping[str, Look]  # colour, marker and line by objective
    types: Mapping[str, tuple[str, ...]]  # divergence types by run key
    sampled: tuple[Cell, ...]  # the cells whose answers were read
    samples: Mapping[str, Columns]  # free-running samples by run key
    texts: Texts  # what the page shows of texts
    prediction: Mapping[str, Any] | None = None  # what was predicted of the runs, and when

    @cached_property
    def family(self) -> Family:
        """The family of the headline."""
        return next(family for family in self.families if self.headline in family.conditions)

    @cached_property
    def arenas(self) -> tuple[Arena, ...]:
        """What objectives are compared in: world or data and corruption, over every training that was swept."""
        conditions = (c for family in self.families for c in family.conditions)
        return build_arenas(conditions, self.sweep.axes, self.sweep.rounds)

    @property
    def arena(self) -> Arena:
        """The arena of the headline."""
        return next(arena for arena in self.arenas if self.headline in arena.conditions)

    @cached_property
    def contrasts(self) -> list[Contrast]:
        """Every objective against the baseline in ranking accuracy, at matched KL and at the best of each."""
        return build_contrasts(self.arenas, self.baseline, RANKING)

    @cached_property
    def dominances(self) -> list[Dominance]:
        """Where each objective ranks better or worse than the baseline at every matched KL."""
        return dominances(self.arenas, self.baseline)

    @cached_property
    def recommendation(self) -> Recommendation | None:
        """Which arms are not shown worse than the best, by range of the corruption rate."""
        return recommend(self.arenas, self.arena)

    @cached_property
    def cases(self) -> tuple[Case, ...]:
        """What is recommended in each world under each corruption, the headline's world first."""
        return cases(self.arenas, self.arena, self.recommendation, self.baseline)

    def tags(self, condition: Condition) -> str:
        """What a page's filter knows a condition by: its world and its labels."""
        return next(" ".join(case.tags) for case in self.cases if condition in case.arena.conditions)

    @cached_property
    def levels(self) -> tuple[Axis, ...]:
        """The recommendation at each learning rate and each budget, where there are several."""
        return () if self.recommendation is None else training_axes(self.recommendation)

    @cached_property
    def slices(self) -> tuple[CellSlice, ...]:
        """Every slice of every cell; empty where the data has no slice columns."""
        return cell_slices(self.conditions)

    @cached_property
    def noisiest(self) -> Condition | None:
        """The headline where its labels are corrupted, else the condition of its setting with the most wrong labels.

        None where no such condition left records.
        """
        noisy = [c for c in self.family.conditions if not c.clean and any(cell.has_wrong_labels for cell in c.cells)]
        return self.headline if self.headline in noisy else max(noisy, key=_wrong_share, default=None)

    @property
    def recorded(self) -> bool:
        """Whether any per-example record was read."""
        return any(cell.recorded for cell in self.cells)

    def reward_model(self, cell: Cell) -> Estimate | None:
        """How often the reward model that a cell's runs learnt from scores the better response of a clean held-out pair
        higher; None of runs that learnt from none, and where it was not measured."""
        recipe = cell.first.config.get("reward_model")
        if recipe is None:
            return None
        of = (c for c in self.cells if c.first.condition == cell.first.condition)
        found = (c.estimate("reward_accuracy") for c in of if c.first.config["objective"] == recipe)
        return next((accuracy for accuracy in found if accuracy.n), None)

    def head(self, cell: Cell, sub: str = "") -> Field:
        """The field that heads a cell's row: its name and the colour of its objective."""
        return Field(cell.named, sub, mark=self.looks[cell.first.objective].colour)


def _wrong_share(condition: Condition) -> float:
    """Mean share of wrong labels in the training probes."""
    probes = [facts.probe for cell in condition.cells for _, facts in cell.recorded if facts.probe is not None]
    return float(np.mean([probe.wrong.mean() for probe in probes])) if probes else 0.0


def read_contrasts(sweep: Sweep) -> list[Contrast]:
    """`ReportData.contrasts` from results alone, without per-example records."""
    _, first = _conditions(build_cells(sweep, {}), sweep)
    return build_contrasts(build_arenas(first, sweep.axes, sweep.rounds), baseline(sweep), RANKING)


def _conditions(cells: Sequence[Cell], sweep: Sweep) -> tuple[tuple[Condition, ...], list[Condition]]:
    """All conditions, and those of one replica: replicas differ by the order of their data alone, so one of them stands
    for all, and the A/A check compares them."""
    policies = tuple(cell for cell in cells if cell.first.objective != REWARD_MODEL)
    conditions = build_conditions(policies or cells, sweep.axes)
    return conditions, [c for c in conditions if c.first.replica == conditions[0].first.replica]


def read_report_data(folder: Path, limit: int = PER_EXAMPLE_RUNS, texts: str = "", public: bool = False) -> ReportData:
    """Reads a sweep folder; above `limit` runs without per-example records. InputError where there is no plan.

    `texts`, one of `TEXTS`, stands for what the sweep's spec says of them. `public`: without whereabouts of any kind.
    """
    sweep = public_sweep(read_sweep(folder)) if public else read_sweep(folder)
    facts, problems = read_all(sweep.runs, limit)
    cells = build_cells(sweep, facts)
    conditions, first = _conditions(cells, sweep)
    base = baseline(sweep)
    failure = largest_failure(first, base)
    headline = clearest_condition(first) if failure is None else failure.condition
    sampled = sampled_cells(headline, base)
    samples, more = read_samples(sampled)
    return ReportData(
        sweep=sweep,
        cells=cells,
        conditions=conditions,
        families=build_families(first),
        headline=headline,
        baseline=base,
        problems=(*problems, *more),
        looks=looks(run.objective for run in sweep.runs),
        types=divergence_types(facts),
        sampled=sampled,
        samples=samples,
        texts=Texts(texts or sweep.texts or default_texts(sweep.private), sweep.private),
        prediction=read_prediction(folder),
    )
