"""Statistics, the A/A check of replicas, and what the page does not show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.metrics.aa import AACounts, aa_check, spread_of_replicas
from harness.metrics.statistics import FEW, MIN_SEEDS, practical_margin, wording
from harness.report.data.cells import RANKING, Cell
from harness.report.data.contrasts import AT_BEST, DIRECTIONS, Contrast
from harness.report.data.frontier import Arena
from harness.report.data.report_data import ReportData
from harness.report.data.sweep import UNFINISHED, Run, Sweep
from harness.report.data.tables import MEASURES
from harness.report.render.blocks import Content, Field, Lines, Table, Terms, fields, present
from harness.report.render.text import DASH, interval, number, quantity, shown, visible
from harness.report.sections.row import Section

DEFINITIONS = (
    ("ranking accuracy", "share of pairs whose chosen response has the higher log-prob; ties count as wrong"),
    ("reward accuracy", "share of pairs whose margin grew over the reference's (TRL's rewards/accuracies)"),
    (
        "stuck wrong (undesirable zone)",
        "share of pairs with a better margin than the reference's and still ranked wrong",
    ),
    ("chosen, rejected displacement", "mean change of a side's log-prob since the reference, in nats"),
    ("training loss", "mean on one fixed probe set of training pairs with the labels the optimiser saw"),
    ("reference margin", "log-prob of chosen minus rejected under the reference, in nats; below 0 it is wrong"),
    ("reference wrong on", "share of the world's topics whose reference prefers the bad answer (misaligned in a spec)"),
    ("true reward", "mean reward of free-running samples (gold_reward), known in the embedded world"),
    ("gold reward", "mean score of free-running samples by a reward model, where one stands for the true reward"),
    ("KL", "mean over free-running samples of the sequence-level k3 estimate against the reference, in nats"),
)


def statistics(data: ReportData) -> Content:
    """Differences to the baseline, the statements of method, and what the words mean."""
    return Content(
        "Statistics",
        "",
        present(
            _contrast_table(data.contrasts, data.arena),
            Lines(_methods(data.sweep, data.cells, data.contrasts, data.baseline)),
        ),
        (Terms(DEFINITIONS),),
        "What the words mean",
    )


def _contrast_table(contrasts: Sequence[Contrast], arena: Arena) -> Table | None:
    """Ranking accuracy against the baseline in the headline's arena; p-values only where they could be small."""
    here = [c for c in contrasts if c.arena is arena]
    if not here:
        return None
    tested = any(c.p is not None for c in contrasts)
    rows = tuple(
        (
            Field(c.named, "each at its best setting" if c.on == AT_BEST else "at the same KL"),
            *fields(str(c.n), shown(c.plain) if c.made else DASH, interval(c.corrected.low, c.corrected.high) or DASH),
            *(fields(DASH if c.p is None else number(c.p)) if tested else ()),
            Field(wording(c.word, c.mde), c.note),
        )
        for c in here
    )
    family = len([c for c in contrasts if c.made])
    header = ("Difference", "seeds", "ranking accuracy, 95 %", "corrected", *(["p (Holm)"] if tested else []),
              "verdict")  # fmt: skip
    note = (
        f"Corrected for {quantity(family, 'comparison')} and for the settings that each objective was chosen among."
        f" Other conditions and measures: contrasts.csv. Below {MIN_SEEDS} seeds no verdict is given."
    )
    most = max(c.n for c in contrasts)
    if not tested and most >= MIN_SEEDS:
        note += (
            f" No p-values: with {most} seeds the smallest possible sign-flip p, corrected for {family} comparisons,"
            f" is {number(min(1.0, family * 2 / 2**most))}, so none could fall below .05."
        )
    return Table(f"Against the baseline, paired by seed, under {arena.title}", header, rows, note)


def _methods(sweep: Sweep, cells: Sequence[Cell], contrasts: Sequence[Contrast], baseline: str) -> tuple[str, ...]:
    """The statements of method, each with this sweep's own numbers."""
    margin = practical_margin(share=True)
    detectable = sorted(c.mde for c in contrasts if c.mde is not None and math.isfinite(c.mde))
    items = sorted({n for cell in cells for n in cell.items() or ()})
    pairs = " to ".join(dict.fromkeys(map(str, (items[0], items[-1])))) if items else ""
    of_pairs = (
        (
            f" ({pairs} held-out pairs each); seeds share pairs, whose noise t over seeds cannot see, so it is added"
            if any(cell.shares_pairs for cell in cells)
            else f", each with {pairs} held-out pairs of its own; where fewer than {FEW} pairs in all disagree, never"
            " narrower than Wilson's or Newcombe's interval over all pairs"
        )
        if items
        else ""
    )
    lines = [
        f"Unit of replication: the seed ({quantity(len(sweep.seeds), 'seed')}). A seed sets world, split, corruption,"
        " starting weights and order of the data and leaves out objective and beta, so every difference is paired.",
        f"Intervals: 95 %, Student t over seeds{of_pairs}.",
        "Measures are taken on clean held-out pairs, never on corrupted ones; no checkpoint is selected: the last step"
        " counts. Headline, best and worst beta are chosen after seeing the data, and are labelled as such.",
    ]
    if contrasts:
        lines.append(
            f"Contrasts: every objective against {visible(baseline)} in the same world under the same corruption, at"
            " the same KL (straight in log KL between the settings of one seed, never beyond) and each at the setting"
            f" with the highest mean ranking accuracy, {quantity(len([c for c in contrasts if c.made]), 'comparison')}"
            " in the family; intervals by Bonferroni at alpha .05, over the settings not shown worse than the chosen"
            f" one as well; verdicts from {MIN_SEEDS} seeds on; \u201cbetter\u201d also needs a difference of at least"
            f" {margin:g} in a share. Losses and equal betas are never compared across objectives."
        )
    if detectable:
        lines.append(
            "Smallest true difference in ranking accuracy found with power .8 in that family, by the spread of each"
            f" contrast: {number(detectable[0])} to {number(detectable[-1])},"
            f" median {number(detectable[len(detectable) // 2])}."
        )
    counts = ", ".join(f"{sweep.count(status)} {status}" for status in UNFINISHED)
    lines.append(
        f"Not finished: {counts} of {quantity(len(sweep.runs), 'run')}. Diverged and failed runs count as the worst a"
        " share can be; measures without a worst value (rewards, nats) then have no mean. Stopped and pending runs are"
        " neither counted nor imputed: their cells are marked incomplete and get no verdict."
    )
    return tuple(lines)


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
        done = [run for run in runs if run.done]
        for measure, share in MEASURES.items():
            values = {(r.seed, r.replica): value for r in done if (value := r.measured(measure)) is not None}
            seeds = [seed for seed, _ in values]
            if sum(seeds.count(seed) > 1 for seed in set(seeds)) >= MIN_SEEDS:
                out.append(_aa_row(runs[0], measure, share, values))
    return tuple(out)


def replicas(data: ReportData) -> Content | None:
    """The table, where the axis `replica` varies and enough seeds have repetitions."""
    checks = aa_rows(data.sweep)
    if not checks:
        return None
    rows = tuple(
        (
            Field(visible(f"{row.run.objective}, {row.measure}"), row.run.corruption_text),
            Field(f"{row.interval.share:.3f}", "passes" if row.interval.passed else "fails"),
            Field(f"{row.reported.share:.3f}", "passes" if row.reported.passed else "fails"),
            Field(number(row.spread)),
            Field(f"{row.interval.comparisons} of {row.interval.n} seeds", f"{row.interval.stored} runs"),
        )
        for row in checks
    )
    header = ("Cell and measure", "called different by the interval alone", "by the report's rule",
              "sd between replicas", "comparisons")  # fmt: skip
    note = "At most 5 % may be called different: replicas differ by the order of their data alone."
    return Content(
        "A/A check: is a difference seen where there is none?",
        "Replicas of one cell, compared as if they were two objectives.",
        (Table("False alarms among drawn comparisons of replicas", header, rows, note, "stack"),),
    )


def replica_sentence(data: ReportData) -> str | None:
    """The answer of a sweep that compares nothing but replicas of one cell; None where it compares anything else."""
    checks = aa_rows(data.sweep)
    if not checks or len({run.cell_but_replica for run in data.sweep.runs}) > 1:
        return None
    worst = max(checks, key=lambda row: row.reported.share)
    n, ranking = worst.reported, [row.reported.share for row in checks if row.measure == RANKING]
    kept = "at most the 5 % that chance allows" if n.passed else "more than the 5 % that chance allows"
    return (
        f"Of {n.comparisons:,} drawn comparisons of replicas ({n.n} seeds, {n.stored} runs), none of which differ in"
        f" anything but the order of the data, the report's rule calls a difference in {n.share:.1%} on the measure"
        f" where it errs most, {visible(worst.measure)}: {kept}"
        + "".join(f"; in ranking accuracy in {share:.1%}" for share in ranking)
        + "."
    )


def _aa_row(run: Run, measure: str, share: bool, values: dict[tuple[int, int], float]) -> AARow:
    items = int(run.config["evaluation"]["ood" if measure.startswith("ood_") else "heldout"]) if share else None
    direction = DIRECTIONS.get(measure, "none")
    plain = aa_check(values, direction=direction)
    margin, shared = practical_margin(share), run.config.get("world") is None
    reported = aa_check(values, margin=margin, items=items, shared=shared, direction=direction)
    return AARow(run, measure, plain, reported, spread_of_replicas(values))


def limits(data: ReportData) -> Content:
    """What a reader must not take from this page."""
    world = any(cell.first.misaligned is not None for cell in data.cells)
    hard = any(cell.first.labels == "hard" for cell in data.cells)
    lines = [
        "Losses and reward margins of two objectives, or of two betas, are on different scales and are not compared.",
        "A best beta is an oracle's choice: it was found on the clean held-out pairs that it is judged by."
        " On noisy validation labels another might be chosen.",
        "\u201cNo difference shown\u201d is not \u201cequal\u201d: it may hide differences up to those stated.",
    ]
    if world:
        lines.append(
            "The embedded world is tiny. Neither its betas nor a ranking of objectives carry over to a large model;"
            " the product beta x |delta_ref| does with Bradley-Terry labels alone. With hard labels learning rate and"
            " number of steps matter as much."
        )
    if hard:
        lines.append(
            "With hard labels there is no finite optimum: where DPO stands is how far this budget got, and more steps"
            " soften it. Only Bradley-Terry labels show the optimum itself."
        )
    if len(data.sweep.seeds) < MIN_SEEDS:
        lines.append(
            f"{quantity(len(data.sweep.seeds), 'seed')} cannot show that one objective is better than another."
        )
    return Content("What this does not show", "", (Lines(tuple(lines)),))


ROWS = (
    Section("statistics", "Statistics", statistics),
    Section("replicas", "A/A check", replicas),
    Section("limits", "Limits", limits),
)
