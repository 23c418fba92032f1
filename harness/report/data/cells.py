"""`report/cells.csv`: a cell is every axis but the seed; its numbers are means over seeds with their intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.metrics.statistics import LOST, NOTHING, WAITING, Estimate, Treated, cell_estimate, t_interval
from harness.report.data.outcomes import treated
from harness.report.data.run_facts import REWARD_MODEL, Facts
from harness.report.data.sweep import Run, Sweep, ordered
from harness.report.data.tables import MEASURES, csv_bytes, result_row
from harness.report.render.text import plain, visible

BASELINE = "dpo"
CELL_COLUMNS = ("objective", "beta", "corruption", "rate", "misaligned")


@dataclass(frozen=True, eq=False)
class Cell:
    """The runs that differ in their seed only, in the order of the seeds, and their facts by run key.

    `extra` names the hyperparameters beyond beta that vary within the objective: `eps 0.2`. `reference` is the
    untrained reference's ranking accuracy by seed, the same for every cell of a setting.
    """

    runs: tuple[Run, ...]
    facts: Mapping[str, Facts]
    extra: str = ""
    reference: Mapping[int, float] = field(default_factory=dict)
    _known: dict[str, Estimate] = field(default_factory=dict, repr=False)  # estimates made so far
    _treated: dict[str, Treated] = field(default_factory=dict, repr=False)

    @property
    def first(self) -> Run:
        """Any of the runs: every setting but the seed is the cell's."""
        return self.runs[0]

    @property
    def planned(self) -> int:
        """Seeds planned."""
        return len(self.runs)

    @property
    def done(self) -> int:
        """Seeds finished with a result."""
        return sum(run.status == "done" for run in self.runs)

    @property
    def named(self) -> str:
        """`dpo at beta 5`, `robust_dpo at beta 2, eps 0.2`: unique among the cells of one condition."""
        beta = self.first.beta
        parts = [] if beta is None else [f"beta {plain(beta)}"]
        return " at ".join(
            filter(None, [visible(self.first.objective), ", ".join([*parts, *filter(None, [self.extra])])])
        )

    @property
    def rate(self) -> float | None:
        """The corruption rate; for derived-rate kinds the mean of the realised ones."""
        rates = [run.rate for run in self.runs if run.rate is not None]
        return math.fsum(rates) / len(rates) if rates and len(set(rates)) > 1 else rates[0] if rates else None

    def values(self, measure: str) -> Mapping[int, float]:
        """By seed, by intention to treat: diverged and failed runs at the measure's worst, unfinished ones left out."""
        return self.treated(measure).values

    def treated(self, measure: str) -> Treated:
        """The runs on one column of `results.csv`, with what is lost and what is still awaited."""
        if measure not in self._treated:
            self._treated[measure] = treated(self.runs, measure)
        return self._treated[measure]

    def finished(self, measure: str) -> dict[int, float]:
        """By seed, of finished runs alone: for what describes a run and has no worst value (losses, displacement)."""
        found = {run.seed: run.measured(measure) for run in self.runs if run.status == "done"}
        return {seed: value for seed, value in found.items() if value is not None}

    @property
    def waiting(self) -> int:
        """Seeds without an outcome."""
        return sum(run.status in WAITING for run in self.runs)

    @property
    def lost(self) -> int:
        """Seeds that diverged or failed."""
        return sum(run.status in LOST for run in self.runs)

    @property
    def recorded(self) -> list[tuple[Run, Facts]]:
        """The runs whose per-example records were read, with what they hold."""
        return [(run, self.facts[run.key]) for run in self.runs if run.key in self.facts]

    def fact_values(self, name: str) -> dict[int, float]:
        """A number of `Facts` by seed, for the runs that have it."""
        found = {run.seed: getattr(facts, name) for run, facts in self.recorded}
        return {seed: float(value) for seed, value in found.items() if value is not None}

    def items(self, measure: str = "") -> list[int] | None:
        """Pairs behind each seed's value of a share: counted in the records, planned where none were read."""
        name, planned = ("ood_items", "ood") if measure.startswith("ood_") else ("items", "heldout")
        counts = [getattr(facts, name) for _, facts in self.recorded]
        if not counts:
            counts = [int((self.first.config.get("evaluation") or {}).get(planned) or 0)]
        return counts if counts and min(counts) > 0 else None

    def estimate(self, measure: str) -> Estimate:
        """Mean and interval of a column of `results.csv` (shares: never narrower than over one seed's pairs)."""
        if measure not in self._known:
            self._known[measure] = self._estimate(measure)
        return self._known[measure]

    def _estimate(self, measure: str) -> Estimate:
        values = list(self.values(measure).values())
        if not values:
            return NOTHING
        share = MEASURES.get(measure, False)
        return cell_estimate(values, self.items(measure) if share else None, share=share)

    def described(self, measure: str) -> Estimate:
        """Mean and interval over finished runs alone, with their n."""
        key = f"finished {measure}"
        if key not in self._known:
            values = list(self.finished(measure).values())
            self._known[key] = t_interval(values) if values else NOTHING
        return self._known[key]

    def reference_accuracy(self) -> Estimate:
        """Ranking accuracy of the untrained reference over the seeds of this cell."""
        values = [self.reference[run.seed] for run in self.runs if run.seed in self.reference]
        return cell_estimate(values, self.items(), share=True) if values else NOTHING

    def theory_values(self, name: str) -> dict[int, float]:
        """A number of `Theory` by seed, for the runs that have it."""
        found = {run.seed: getattr(facts.theory, name, None) for run, facts in self.recorded}
        return {seed: float(value) for seed, value in found.items() if value is not None}

    def theory_estimate(self, name: str) -> Estimate:
        """Mean and interval of a share of `Theory`."""
        values = list(self.theory_values(name).values())
        return cell_estimate(values, self.items(), share=True) if values else NOTHING

    def fact_estimate(self, name: str) -> Estimate:
        """Mean and interval of a share of `Facts`."""
        key = f"fact {name}"
        if key not in self._known:
            values = list(self.fact_values(name).values())
            self._known[key] = cell_estimate(values, self.items(), share=True) if values else NOTHING
        return self._known[key]

    def memorised(self) -> Estimate:
        """Share of wrongly labelled training probe pairs that the policy ranks as their label says."""
        values = list(self.fact_values("memorised").values())
        counts = [int(f.probe.wrong.sum()) for _, f in self.recorded if f.probe is not None and f.probe.wrong.any()]
        return cell_estimate(values, counts, share=True) if values else NOTHING


def build_cells(sweep: Sweep, facts: Mapping[str, Facts]) -> tuple[Cell, ...]:
    """Every cell of the sweep in one canonical order, whatever the order of the runs."""
    groups: dict[str, list[Run]] = {}
    for run in sweep.runs:
        groups.setdefault(run.cell, []).append(run)
    varied = [axis for axis in sweep.axes if axis.startswith("hp.")]
    references = _references(sweep.runs, facts)
    cells = []
    for runs in groups.values():
        ordered_runs = tuple(sorted(runs, key=lambda run: run.seed))
        cells.append(Cell(ordered_runs, facts, _extra(runs[0], varied), references[runs[0].setting]))
    rank = {name: i for i, name in enumerate(ordered({run.objective for run in sweep.runs}, baseline(sweep)))}
    return tuple(
        sorted(cells, key=lambda cell: (*condition_order(cell.first), rank[cell.first.objective], *_own(cell)))
    )


def _references(runs: Iterable[Run], facts: Mapping[str, Facts]) -> dict[str, dict[int, float]]:
    """The reference's ranking accuracy by setting and seed, from whichever run of that seed says it."""
    found: dict[str, dict[int, float]] = {}
    for run in runs:
        own = found.setdefault(run.setting, {})
        value = run.measured("ref_accuracy")
        if value is None and run.key in facts:
            value = facts[run.key].reference_accuracy
        if value is not None:
            own.setdefault(run.seed, value)
    return found


def _extra(run: Run, axes: Iterable[str]) -> str:
    own = run.settings()
    return ", ".join(f"{axis[3:]} {visible(own[axis])}" for axis in axes if own.get(axis) is not None)


def condition_order(run: Run) -> tuple[Any, ...]:
    """Sort key of a condition: hard labels first, then dial, corruption (clean first), rate, everything else."""
    labels = "" if run.labels in (None, "hard") else run.labels
    kind = "" if run.corruption == "none" else run.corruption
    planned = run.config["corruption"].get("rate")
    return labels, run.misaligned or 0.0, kind, planned or 0.0, run.condition


def _own(cell: Cell) -> tuple[Any, ...]:
    beta = cell.first.beta
    return (-math.inf if beta is None else beta, cell.first.cell)


def baseline(sweep: Sweep) -> str:
    """The objective that others are compared with: dpo, or the first of the spec where the sweep has no dpo."""
    names = [run.objective for run in sweep.runs if run.objective != REWARD_MODEL] or [sweep.runs[0].objective]
    return BASELINE if BASELINE in names else names[0]


def axis_values(cell: Cell, axes: Iterable[str]) -> dict[str, Any]:
    """The cell's value on each further axis, by column name (`steps`: the planned ones)."""
    row = result_row(cell.first) | {"steps": cell.first.planned_steps}
    return {name: row.get(name) for name in axes}


def identity(cell: Cell) -> dict[str, Any]:
    """The five columns that every cell has."""
    first = cell.first
    return dict(
        zip(CELL_COLUMNS, (first.objective, first.beta, first.corruption, cell.rate, first.misaligned), strict=True)
    )


def cells_csv(cells: Iterable[Cell], axes: tuple[str, ...]) -> bytes:
    """`cells.csv`: a row per cell and measure with an outcome; `planned` counts seeds asked for, `n` those that ended.

    Diverged and failed runs count in `n` at the measure's worst; where it has none, no mean is honest and it is empty.
    A cell without any finished run keeps one row for `ranking_accuracy` with n = 0, so that nothing planned is lost.
    """
    rows = []
    for cell in cells:
        own = identity(cell) | axis_values(cell, axes)
        for measure in MEASURES:
            n = cell.treated(measure).n
            found = cell.estimate(measure)
            if n or (measure == "ranking_accuracy" and not cell.done):
                numbers = {"n": n, "mean": found.mean, "low": found.low, "high": found.high}
                rows.append(own | {"measure": measure, **numbers, "planned": cell.planned})
    return csv_bytes((*CELL_COLUMNS, "measure", "n", "mean", "low", "high", *axes, "planned"), rows)
