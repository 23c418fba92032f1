"""The A/A check of a sweep whose axis `replica` varies: how often a difference is called where there is none."""

from __future__ import annotations

from dataclasses import dataclass

from harness.metrics.aa import AACounts, aa_check, spread_of_replicas
from harness.metrics.statistics import MIN_SEEDS, practical_margin
from harness.report.data.context import Material
from harness.report.data.contrasts import DIRECTIONS
from harness.report.data.sweep import Run, Sweep
from harness.report.data.tables import MEASURES
from harness.report.render.blocks import Field, Section, Table
from harness.report.render.text import number, visible


@dataclass(frozen=True, slots=True)
class AARow:
    """One cell (its first run stands for it) on one measure over seeds and replicas.

    `interval`: verdicts of the paired t interval on its own; `reported`: of the report's rule, with margin and item
    level. `spread`: standard deviation between replicas of a seed, in the measure's unit.
    """

    run: Run
    measure: str
    interval: AACounts
    reported: AACounts
    spread: float


def aa_rows(sweep: Sweep) -> tuple[AARow, ...]:
    """Every cell with two finished replicas or more on at least 6 seeds, on every measure it has; in plan order."""
    groups: dict[str, list[Run]] = {}
    for run in sweep.runs:
        groups.setdefault(run.cell_but_replica, []).append(run)
    out = []
    for runs in groups.values():
        for measure, share in MEASURES.items():
            found = {(run.seed, run.replica): run.measured(measure) for run in runs if run.status == "done"}
            values = {key: value for key, value in found.items() if value is not None}
            seeds = [seed for seed, _ in values]
            if sum(seeds.count(seed) > 1 for seed in set(seeds)) >= MIN_SEEDS:
                out.append(_row(runs[0], measure, share, values))
    return tuple(out)


def replicas(m: Material) -> Section | None:
    """The table, where the axis `replica` varies and enough seeds have repetitions."""
    found = aa_rows(m.sweep)
    if not found:
        return None
    rows = tuple(
        (
            Field(visible(f"{row.run.objective}, {row.measure}"), row.run.corruption_text),
            Field(f"{row.interval.share:.3f}", "passes" if row.interval.passed else "fails"),
            Field(f"{row.reported.share:.3f}", "passes" if row.reported.passed else "fails"),
            Field(number(row.spread)),
            Field(f"{row.interval.comparisons} of {row.interval.n} seeds", f"{row.interval.stored} runs"),
        )
        for row in found
    )
    header = ("Cell and measure", "called different by the interval alone", "by the report's rule",
              "sd between replicas", "comparisons")  # fmt: skip
    note = "At most 5 % may be called different: replicas differ by the order of their data alone."
    return Section(
        "A/A check: is a difference seen where there is none?",
        "Replicas of one cell, compared as if they were two objectives.",
        (Table("False alarms among drawn comparisons of replicas", header, rows, note, "stack"),),
    )


def replica_sentence(m: Material) -> str | None:
    """The answer of a sweep that compares nothing but replicas of one cell; None where it compares anything else."""
    found = aa_rows(m.sweep)
    if not found or len({run.cell_but_replica for run in m.sweep.runs}) > 1:
        return None
    worst = max(found, key=lambda row: row.reported.share)
    n, ranking = worst.reported, [row.reported.share for row in found if row.measure == "ranking_accuracy"]
    kept = "at most the 5 % that chance allows" if n.passed else "more than the 5 % that chance allows"
    return (
        f"Of {n.comparisons:,} drawn comparisons of replicas ({n.n} seeds, {n.stored} runs), none of which differ in"
        f" anything but the order of the data, the report's rule calls a difference in {n.share:.1%} on the measure"
        f" where it errs most, {visible(worst.measure)}: {kept}"
        + "".join(f"; in ranking accuracy in {share:.1%}" for share in ranking)
        + "."
    )


def _row(run: Run, measure: str, share: bool, values: dict[tuple[int, int], float]) -> AARow:
    items = int(run.config["evaluation"]["ood" if measure.startswith("ood_") else "heldout"]) if share else None
    direction = DIRECTIONS.get(measure, "none")
    plain = aa_check(values, direction=direction)
    reported = aa_check(values, margin=practical_margin(share), items=items, direction=direction)
    return AARow(run, measure, plain, reported, spread_of_replicas(values))
