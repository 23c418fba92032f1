"""`report/cells.csv`: a cell is every axis but the seed; its numbers are means over seeds with their intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from harness.metrics.registry import METRICS
from harness.metrics.statistics import (
    LOST,
    WAITING,
    Estimate,
    ItemLevel,
    SeedItems,
    Treated,
    assumed_level,
    cell_estimate,
    intention_to_treat,
    item_level,
    paired_difference,
    seeds_share,
    t_interval,
    worst_value,
)
from harness.report.data.run_facts import COUNTED, DIVERGENCES, REWARD_MODEL, Facts
from harness.report.data.sweep import Run, Sweep, ordered
from harness.report.data.tables import MEASURES, csv_bytes, result_row
from harness.report.render.text import plain, visible

BASELINE = "dpo"
RANKING = "ranking_accuracy"
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
    _estimates: dict[str, Estimate] = field(default_factory=dict, repr=False)  # computed so far
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
        return len(self._seeds("done"))

    @property
    def waiting(self) -> int:
        """Seeds without an outcome."""
        return len(self._seeds(*WAITING))

    @property
    def lost(self) -> int:
        """Seeds that diverged or failed."""
        return len(self._seeds(*LOST))

    def _seeds(self, *statuses: str) -> list[int]:
        return [run.seed for run in self.runs if run.status in statuses]

    @property
    def settings(self) -> str:
        """`beta 2, eps 0.2`: what tells the cells of one objective apart; empty where nothing does."""
        beta = "" if self.first.beta is None else f"beta {plain(self.first.beta)}"
        return ", ".join(filter(None, [beta, self.extra]))

    @property
    def named(self) -> str:
        """`dpo at beta 5`, `robust_dpo at beta 2, eps 0.2`: unique among the cells of one condition."""
        return " at ".join(filter(None, [visible(self.first.objective), self.settings]))

    @property
    def panel_title(self) -> str:
        """`dpo, beta 5`."""
        beta = self.first.beta
        return self.first.objective if beta is None else f"{self.first.objective}, beta {plain(beta)}"

    @property
    def rate(self) -> float | None:
        """The corruption rate; for derived-rate kinds the mean of the realised ones."""
        rates = [run.rate for run in self.runs if run.rate is not None]
        return math.fsum(rates) / len(rates) if rates and len(set(rates)) > 1 else rates[0] if rates else None

    @property
    def recorded(self) -> list[tuple[Run, Facts]]:
        """The runs whose per-example records were read, with what they hold."""
        return [(run, self.facts[run.key]) for run in self.runs if run.key in self.facts]

    @property
    def has_wrong_labels(self) -> bool:
        """Whether the training probe of any recorded run holds wrongly labelled pairs."""
        return any(facts.probe is not None and facts.probe.wrong.any() for _, facts in self.recorded)

    def values(self, measure: str) -> Mapping[int, float]:
        """By seed, by intention to treat: diverged and failed runs at the measure's worst, unfinished ones left out."""
        return self.treated(measure).values

    def treated(self, measure: str) -> Treated:
        """The runs on one column of `results.csv`, with what is lost and what is still awaited."""
        if measure not in self._treated:
            values = {run.seed: value for run in self.runs if (value := run.measured(measure)) is not None}
            statuses = {run.seed: run.status for run in self.runs}
            self._treated[measure] = intention_to_treat(statuses, values, worst_of(measure))
        return self._treated[measure]

    def finished(self, measure: str) -> dict[int, float]:
        """By seed, of finished runs alone: for what describes a run and has no worst value (losses, displacement)."""
        done = {run.seed: run.measured(measure) for run in self.runs if run.done}
        return {seed: value for seed, value in done.items() if value is not None}

    def fact_values(self, name: str) -> dict[int, float]:
        """A number of `Facts`, or of its `theory` (`theory.achieved`), by seed, for the runs that have it."""
        part, _, name = name.rpartition(".")
        facts = {run.seed: getattr(one, part) if part else one for run, one in self.recorded}
        values = {seed: getattr(one, name, None) for seed, one in facts.items()}
        return {seed: float(value) for seed, value in values.items() if value is not None}

    def items(self, measure: str = "") -> list[int] | None:
        """Pairs behind each seed's value of a share: counted in the records, planned where none were read."""
        name, planned = ("ood_items", "ood") if measure.startswith("ood_") else ("items", "heldout")
        counts = [getattr(facts, name) for _, facts in self.recorded]
        if not counts:
            counts = [run.pairs[planned] for run in self.runs]
        return counts if counts and min(counts) > 0 else None

    @cached_property
    def shares_pairs(self) -> bool:
        """Whether seeds share held-out pairs. Where fewer than two were recorded: on real data they may, while every
        seed of the embedded world has a world of its own."""
        ids = [facts.ids for _, facts in self.recorded]
        return seeds_share(ids) if len(ids) > 1 else self.first.config.get("world") is None

    def item_level(self, measure: str, base: Cell | None = None) -> ItemLevel | None:
        """What single pairs add to t over the seeds of a share, or of its difference to `base`: pair by pair where
        every seed was recorded, by their number elsewhere; None of measures that are no shares."""
        if not MEASURES.get(measure, False):
            return None
        values, others = self.values(measure), None if base is None else base.values(measure)
        seeds = values.keys() if others is None else values.keys() & others.keys()
        pairs = self._pairs(measure, base)
        if seeds and pairs.keys() >= seeds:
            return item_level({seed: pairs[seed] for seed in seeds}, self.shares_pairs)
        counts = [n for one in (self, base) if one is not None for n in one.items(measure) or ()]
        return assumed_level(values, others, counts, self.shares_pairs)

    def _pairs(self, measure: str, base: Cell | None) -> dict[int, SeedItems]:
        """By recorded seed, the held-out pairs and which of them count."""
        counted = COUNTED.get(measure)
        if counted is None:
            return {}
        others = {} if base is None else {run.seed: facts for run, facts in base.recorded}
        out = {}
        for run, facts in self.recorded:
            other = others.get(run.seed)
            if base is None or (other is not None and other.ids.size == facts.ids.size):
                against = None if other is None else counted(other)
                out[run.seed] = SeedItems(facts.ids, facts.prompts, counted(facts), against)
        return out

    def estimate(self, measure: str) -> Estimate:
        """Mean and interval of a column of `results.csv`."""
        if measure not in self._estimates:
            share, values = MEASURES.get(measure, False), list(self.values(measure).values())
            self._estimates[measure] = cell_estimate(values, self.item_level(measure), share)
        return self._estimates[measure]

    @property
    def ranking(self) -> Estimate:
        """Ranking accuracy on clean held-out pairs."""
        return self.estimate(RANKING)

    def described(self, measure: str) -> Estimate:
        """Mean and interval over finished runs alone, with their n."""
        return t_interval(list(self.finished(measure).values()))

    def fact_estimate(self, name: str) -> Estimate:
        """Mean and interval of a share among `fact_values`."""
        return self._of_pairs(self.fact_values(name).values(), self.items())

    def reference_accuracy(self) -> Estimate:
        """Ranking accuracy of the untrained reference over the seeds of this cell."""
        return self._of_pairs([self.reference[r.seed] for r in self.runs if r.seed in self.reference], self.items())

    def gain_in_answers(self) -> Estimate:
        """True reward of its answers minus that of the untrained model's, paired by seed."""
        return paired_difference(self.values("gold_reward"), self.finished("reference_gold_reward"))

    def vote_table(self) -> Estimate:
        """What a table of the training labels ranks right, the same for every objective of a condition."""
        return self.described("vote_table")

    def memorised(self) -> Estimate:
        """Share of wrongly labelled training probe pairs that the policy ranks as their label says."""
        counts = [int(f.probe.wrong.sum()) for _, f in self.recorded if f.probe is not None and f.probe.wrong.any()]
        return self._of_pairs(self.fact_values("memorised").values(), counts)

    def _of_pairs(self, values: Iterable[float], counts: list[int] | None) -> Estimate:
        """Mean and interval of a share of which only the number of pairs behind each value is known."""
        return cell_estimate(list(values), counts, shared=self.shares_pairs)

    def spread(self) -> float:
        """Standard deviation of ranking accuracy over seeds, NaN below 2."""
        values = list(self.values(RANKING).values())
        if len(values) < 2:
            return math.nan
        mean = math.fsum(values) / len(values)
        return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))

    def over_steps(self, split: str, name: str) -> dict[int, Estimate]:
        """Mean and t interval over seeds by step, at the steps that every recorded run has; `split`: heldout, train."""
        tracks = [track for _, facts in self.recorded if name in (track := getattr(facts, split)).means]
        steps = sorted(set.intersection(*(set(track.steps) for track in tracks))) if tracks else []
        values = {step: [float(track.means[name][track.steps.index(step)]) for track in tracks] for step in steps}
        return {step: t_interval(by_run) for step, by_run in values.items() if np.isfinite(by_run).all()}

    def divergences(self, types: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
        """Number of recorded runs that show each divergence type, types without any left out; `types` by run key."""
        counts = {kind: sum(kind in types[run.key] for run, _ in self.recorded) for kind in DIVERGENCES}
        return {kind: count for kind, count in counts.items() if count}


def worst_of(measure: str) -> float | None:
    """The worst value of a share among the columns of `results.csv`: 0 of an accuracy, 1 of a zone; None for others."""
    row = METRICS.get(measure.removeprefix("ood_"))
    return worst_value(row.direction, row.low, row.high) if row is not None and row.share else None


def measured(cells: Iterable[Cell], measure: str = RANKING) -> list[Cell]:
    """The cells of which at least one run has the measure."""
    return [cell for cell in cells if cell.estimate(measure).n]


def by_condition(cells: Iterable[Cell]) -> dict[str, list[Cell]]:
    """The cells under each condition, in their order."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.first.condition, []).append(cell)
    return groups


def build_cells(sweep: Sweep, facts: Mapping[str, Facts]) -> tuple[Cell, ...]:
    """Every cell of the sweep in one canonical order, whatever the order of the runs."""
    groups: dict[str, list[Run]] = {}
    for run in sweep.runs:
        groups.setdefault(run.cell, []).append(run)
    varied = [axis for axis in sweep.axes if axis.startswith("hp.")]
    references = _references(sweep.runs, facts)
    named = {name: _beyond_beta(sweep.runs, name, varied) for name in {run.objective for run in sweep.runs}}
    cells = [
        Cell(
            tuple(sorted(runs, key=lambda run: run.seed)), facts, _extra(runs[0], named[runs[0].objective]),
            references[runs[0].setting],
        )
        for runs in groups.values()
    ]  # fmt: skip
    rank = {name: i for i, name in enumerate(ordered({run.objective for run in sweep.runs}, baseline(sweep)))}

    def place(cell: Cell) -> tuple[Any, ...]:
        beta = -math.inf if cell.first.beta is None else cell.first.beta
        return (*condition_order(cell.first), rank[cell.first.objective], beta, cell.first.cell)

    return tuple(sorted(cells, key=place))


def _references(runs: Iterable[Run], facts: Mapping[str, Facts]) -> dict[str, dict[int, float]]:
    """The reference's ranking accuracy by setting and seed, from whichever run of that seed says it."""
    references: dict[str, dict[int, float]] = {}
    for run in runs:
        by_seed = references.setdefault(run.setting, {})
        value = run.measured("ref_accuracy")
        if value is None and run.key in facts:
            value = facts[run.key].reference_accuracy
        if value is not None:
            by_seed.setdefault(run.seed, value)
    return references


def _beyond_beta(runs: Iterable[Run], objective: str, axes: Iterable[str]) -> list[str]:
    """The axes that an objective's beta does not decide alone: those that must be named beside it."""
    own = {run.cell: (run.beta, run.settings()) for run in runs if run.objective == objective}.values()
    betas = len({beta for beta, _ in own})
    return [axis for axis in axes if len({(beta, repr(settings.get(axis))) for beta, settings in own}) > betas]


def _extra(run: Run, axes: Iterable[str]) -> str:
    settings = run.settings()
    return ", ".join(f"{axis[3:]} {visible(settings[axis])}" for axis in axes if settings.get(axis) is not None)


def condition_order(run: Run) -> tuple[Any, ...]:
    """Sort key of a condition: hard labels first, then dial, corruption (clean first), rate, everything else."""
    labels = "" if run.labels in (None, "hard") else run.labels
    kind = "" if run.corruption == "none" else run.corruption
    planned = run.config["corruption"].get("rate")
    return labels, run.misaligned or 0.0, kind, planned or 0.0, run.condition


def baseline(sweep: Sweep) -> str:
    """The objective that others are compared with: dpo, or the first of the spec where the sweep has no dpo."""
    names = [run.objective for run in sweep.runs if run.objective != REWARD_MODEL] or [sweep.runs[0].objective]
    return BASELINE if BASELINE in names else names[0]


def axis_values(cell: Cell, axes: Iterable[str]) -> dict[str, Any]:
    """The cell's value on each further axis, by column name (`steps`: the planned ones)."""
    row = result_row(cell.first) | {"steps": cell.first.planned_steps}
    return {name: row.get(name) for name in axes}


def cell_columns(cell: Cell, axes: Iterable[str]) -> dict[str, Any]:
    """What the rows of a cell begin with: the five columns that every cell has, and further axes."""
    first = cell.first
    values = (first.objective, first.beta, first.corruption, cell.rate, first.misaligned)
    return dict(zip(CELL_COLUMNS, values, strict=True)) | axis_values(cell, axes)


def cells_csv(cells: Iterable[Cell], axes: tuple[str, ...]) -> bytes:
    """`cells.csv`: a row per cell and measure with an outcome; `planned` counts seeds asked for, `n` those that ended.

    Diverged and failed runs count in `n` at the measure's worst; where it has none, no mean is honest and it is empty.
    A cell without any finished run keeps one row for `ranking_accuracy` with n = 0, so that nothing planned is lost.
    """
    rows = []
    for cell in cells:
        columns = cell_columns(cell, axes)
        for measure in MEASURES:
            n = cell.treated(measure).n
            one = cell.estimate(measure)
            if n or (measure == RANKING and not cell.done):
                numbers = {"n": n, "mean": one.mean, "low": one.low, "high": one.high}
                rows.append(columns | {"measure": measure, **numbers, "planned": cell.planned})
    return csv_bytes((*CELL_COLUMNS, "measure", "n", "mean", "low", "high", *axes, "planned"), rows)
