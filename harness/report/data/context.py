"""What every section is made from: the sweep, its cells, conditions and families, read once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from harness.metrics.records import Columns
from harness.palette import Look, looks
from harness.report.data.cells import Cell, baseline, build_cells
from harness.report.data.conditions import Condition, build_conditions, telling
from harness.report.data.contrasts import Contrast, build_contrasts
from harness.report.data.divergence_counts import Types, fired
from harness.report.data.families import Family, build_families
from harness.report.data.focus import headline_story
from harness.report.data.run_facts import REWARD_MODEL, read_all
from harness.report.data.samples import read_samples
from harness.report.data.series import telling_cells
from harness.report.data.sweep import Sweep, read_sweep
from harness.report.texts import Texts
from harness.types import default_texts

PER_EXAMPLE_RUNS = 2000  # above this many runs no per-example record is read: minutes, for figures nobody could take in


@dataclass(frozen=True, eq=False)
class Material:
    """`headline` is the condition that the answer speaks of, `family` the setting it belongs to. `problems` are
    sentences about records that could not be read. `looks` are the objectives' colours, markers and lines.
    `types` are the divergence types by run key. `samples`
    are the free-running samples of the cells `sampled`, by run key. `texts` says what the page shows of texts."""

    sweep: Sweep
    cells: tuple[Cell, ...]
    conditions: tuple[Condition, ...]
    families: tuple[Family, ...]
    headline: Condition
    baseline: str
    problems: tuple[str, ...]
    looks: Mapping[str, Look]
    types: Types
    sampled: tuple[Cell, ...]
    samples: Mapping[str, Columns]
    texts: Texts

    @cached_property
    def family(self) -> Family:
        """The family of the headline."""
        return next(family for family in self.families if self.headline in family.conditions)

    @cached_property
    def contrasts(self) -> list[Contrast]:
        """Every objective against the baseline in ranking accuracy."""
        return build_contrasts(self.cells, self.baseline, "ranking_accuracy")

    @property
    def recorded(self) -> bool:
        """Whether any per-example record was read."""
        return any(cell.recorded for cell in self.cells)


def read_material(folder: Path, limit: int = PER_EXAMPLE_RUNS, texts: str = "") -> Material:
    """Reads a sweep folder; above `limit` runs without per-example records. InputError where there is no plan.

    `texts`, one of `TEXTS`, stands for what the sweep's spec says of them.
    """
    sweep = read_sweep(folder)
    facts, problems = read_all(sweep.runs, limit)
    cells = build_cells(sweep, facts)
    policies = tuple(cell for cell in cells if cell.first.objective != REWARD_MODEL)
    conditions = build_conditions(policies or cells, sweep.axes)
    # Replicas differ by the order of their data alone: one of them stands for all, the A/A check compares them.
    first = [c for c in conditions if c.cells[0].first.replica == conditions[0].cells[0].first.replica]
    base, families = baseline(sweep), build_families(first)
    story = headline_story(first, base)
    headline = telling(first) if story is None else story.condition
    sampled = _sampled(headline, base)
    samples, more = read_samples(sampled)
    names = looks(run.objective for run in sweep.runs)
    told = (*problems, *more)
    policy = Texts(texts or sweep.texts or default_texts(sweep.private), sweep.private)
    return Material(
        sweep, cells, conditions, families, headline, base, told, names, fired(facts), sampled, samples, policy
    )


def _sampled(headline: Condition, base: str) -> tuple[Cell, ...]:
    """The cells of the figures, and each of their objectives' best beta."""
    shown = telling_cells(headline, base)[0]
    names = dict.fromkeys(cell.first.objective for cell in shown)
    best = []
    for name in names:
        own = [c for c in headline.by_objective[name] if c.recorded and c.estimate("ranking_accuracy").n]
        best += [max(own, key=lambda cell: cell.estimate("ranking_accuracy").mean)] if own else []
    return tuple(cell for cell in headline.cells if cell in shown or cell in best)


def measured(cells: Sequence[Cell], measure: str = "ranking_accuracy") -> list[Cell]:
    """The cells of which at least one finished run has the measure."""
    return [cell for cell in cells if cell.estimate(measure).n]
