"""What a report must state about itself: the axes, what is missing, the statistics, what it does not show."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.metrics.statistics import MIN_SEEDS, practical_margin, wording
from harness.plugins import installed, short
from harness.report.data.cells import Cell, axis_values
from harness.report.data.conditions import Condition
from harness.report.data.context import Material
from harness.report.data.contrasts import Contrast
from harness.report.data.sweep import STATUSES, Sweep, ordered
from harness.report.render.blocks import Lines, Section, Table, Terms, fields, given
from harness.report.render.text import DASH, interval, number, plain, quantity, shown, visible

DEFINITIONS = (
    (
        "ranking accuracy",
        "share of pairs whose chosen response has the higher log-prob; ties count as wrong",
    ),
    ("reward accuracy", "share of pairs whose margin grew over the reference's (TRL's rewards/accuracies)"),
    ("undesirable zone", "share of pairs with a better margin than the reference's and still ranked wrong"),
    ("chosen, rejected displacement", "mean change of a side's log-prob since the reference, in nats"),
    ("training loss", "mean on one fixed probe set of training pairs with the labels the optimiser saw"),
    (
        "reference margin",
        "log-prob of chosen minus rejected under the reference, in nats; below 0 it is wrong",
    ),
    ("misaligned", "share of the world's topics whose reference prefers the bad answer"),
    ("gold reward", "mean true reward of free-running samples, known in the embedded world"),
    ("KL", "mean over free-running samples of the sequence-level k3 estimate against the reference, in nats"),
)


def asked(sweep: Sweep, cells: Sequence[Cell]) -> tuple[tuple[str, str], ...]:
    """The axes of the sweep with their values, in canonical order."""
    runs = [cell.first for cell in cells]
    base = runs[0].objective if runs else ""
    betas = sorted({run.beta for run in runs if run.beta is not None})
    corruptions = {
        (r.corruption != "none", r.corruption, r.config["corruption"].get("rate") or 0.0, r.corruption_text)
        for r in runs
    }
    kinds = ["clean" if not dirty else visible(text) for dirty, _, _, text in sorted(corruptions)]
    out = [
        ("objectives", ", ".join(visible(name) for name in ordered({run.objective for run in runs}, base))),
        ("betas", ", ".join(map(plain, betas))),
        ("corruption", ", ".join(kinds)),
        ("misaligned", ", ".join(plain(v) for v in sorted({r.misaligned for r in runs if r.misaligned is not None}))),
        ("seeds", f"{len(sweep.seeds)}, paired"),
    ]
    for axis in sweep.axes:
        if axis == "corruption.steps":  # told step by step above
            continue
        values = {repr(v): v for cell in cells if (v := axis_values(cell, [axis])[axis]) is not None}
        out.append((axis, ", ".join(visible(values[k]) for k in sorted(values))))
    return tuple((name, values) for name, values in out if values)


def warnings(m: Material) -> tuple[str, ...]:
    """What makes a page say less than it should, in its first lines: nothing finished, records or gold missing."""
    done, total = m.sweep.count("done"), len(m.sweep.runs)
    out = []
    if not done:
        states = ", ".join(f"{m.sweep.count(word)} {word}" for word in STATUSES[1:] if m.sweep.count(word))
        out.append(f"0 of {quantity(total, 'run')} finished ({states}): there is nothing to compare yet")
    out += m.problems
    out += [
        f"{what} came from plug-in {short(plugin)}, which is not installed here: shown from its stored results"
        for what, plugin in m.sweep.plugins
        if not installed(plugin)
    ]
    if done and not any(cell.estimate("gold_reward").n for cell in m.cells):
        real = all(cell.first.misaligned is None for cell in m.cells)
        why = "real data have no known true reward" if real else "no run measured it"
        out.append(f"no gold reward: {why}; answers are judged by ranking accuracy and KL alone")
    return tuple(visible(text) for text in out)


def status_line(sweep: Sweep) -> str:
    """`444 runs: 440 done, 2 diverged, 2 pending`."""
    parts = [f"{sweep.count(word)} {word}" for word in STATUSES if sweep.count(word) or word == "done"]
    return f"{quantity(len(sweep.runs), 'run')}: {', '.join(parts)}"


def flags(sweep: Sweep, cells: Sequence[Cell]) -> tuple[str, ...]:
    """What a reader must know before any number: missing seeds, too few seeds."""
    out = []
    short = [cell for cell in cells if cell.waiting]
    if short:
        least = min(short, key=lambda cell: (cell.planned - cell.waiting) / cell.planned)
        out.append(
            f"incomplete: {quantity(len(short), 'cell')} of {len(cells)}; the least has"
            f" {least.planned - least.waiting} of {quantity(least.planned, 'seed')}"
        )
    lost = sweep.count("diverged") + sweep.count("failed")
    if lost:
        out.append(f"{quantity(lost, 'run')} diverged or failed: counted as worst")
    if len(sweep.seeds) == 1:
        out.append("one seed: no intervals")
    elif len(sweep.seeds) < MIN_SEEDS:
        out.append(f"fewer than {MIN_SEEDS} seeds: intervals, no verdicts")
    return tuple(out)


def statistics(m: Material) -> Section:
    """Differences to the baseline, the statements of method, and what the words mean."""
    return Section(
        "Statistics",
        "",
        given(_contrast_table(m.contrasts, m.headline), Lines(_methods(m.sweep, m.cells, m.contrasts, m.baseline))),
        (Terms(DEFINITIONS),),
        "What the words mean",
    )


def _contrast_table(contrasts: Sequence[Contrast], condition: Condition) -> Table | None:
    """Ranking accuracy against the baseline in the headline condition."""
    rows = tuple(
        fields(
            f"{c.cell.named} \u2212 {c.base.named}",
            str(c.plain.n),
            shown(c.plain),
            interval(c.corrected.low, c.corrected.high) or DASH,
            DASH if c.p is None else number(c.p),
            wording(c.word, c.mde),
        )
        for c in contrasts
        if c.cell in condition.cells
    )
    if not rows:
        return None
    corrected = f"corrected for {contrasts[0].family}"
    header = ("Difference", "seeds", "ranking accuracy, 95 %", corrected, "p (Holm)", "verdict")
    note = f"Other conditions and measures: contrasts.csv. Below {MIN_SEEDS} seeds no p-value and no verdict is given."
    return Table(f"Against the baseline, paired by seed, under {condition.title}", header, rows, note)


def _methods(sweep: Sweep, cells: Sequence[Cell], contrasts: Sequence[Contrast], baseline: str) -> tuple[str, ...]:
    """The statements of method, each with this sweep's own numbers."""
    margin = practical_margin(share=True)
    detectable = sorted(c.mde for c in contrasts if c.mde is not None and math.isfinite(c.mde))
    items = sorted({n for cell in cells for n in cell.items() or ()})
    pairs = " to ".join(dict.fromkeys(map(str, (items[0], items[-1])))) if items else ""
    lines = [
        f"Unit of replication: the seed ({quantity(len(sweep.seeds), 'seed')}). A seed sets world, split, corruption,"
        " starting weights and order of the data and leaves out objective and beta, so every difference is paired.",
        "Intervals: 95 %, Student t over seeds; for accuracies and shares never narrower than Wilson's interval over"
        f" the pairs of one seed ({pairs} held-out pairs)."
        if items
        else "Intervals: 95 %, Student t over seeds.",
        "Measures are taken on clean held-out pairs, never on corrupted ones; no checkpoint is selected: the last step"
        " counts. Headline, best and worst beta are chosen after seeing the data, and said to be.",
    ]
    if contrasts:
        lines.append(
            f"Contrasts: every objective against {visible(baseline)} under the same condition at the beta of the same"
            f" rank, {quantity(contrasts[0].family, 'comparison')} in the family; intervals by Bonferroni, p-values by"
            f" exact sign flips and Holm from {MIN_SEEDS} seeds on, alpha .05; \u201cbetter\u201d also needs a"
            f" difference of at least {margin:g} in a share. Losses are never compared across objectives."
        )
    if detectable:
        lines.append(
            "Smallest true difference in ranking accuracy found with power .8 in that family, by the spread of each"
            f" contrast: {number(detectable[0])} to {number(detectable[-1])},"
            f" median {number(detectable[len(detectable) // 2])}."
        )
    counts = ", ".join(f"{sweep.count(word)} {word}" for word in ("diverged", "failed", "stopped", "pending"))
    lines.append(
        f"Not finished: {counts} of {quantity(len(sweep.runs), 'run')}. Diverged and failed runs count as the worst a"
        " share can be; measures without a worst value (rewards, nats) then have no mean. Stopped and pending runs are"
        " neither counted nor imputed: their cells are marked incomplete and get no verdict."
    )
    return tuple(lines)


def limits(m: Material) -> Section:
    """What a reader must not take from this page."""
    world = any(cell.first.misaligned is not None for cell in m.cells)
    hard = any(cell.first.labels == "hard" for cell in m.cells)
    lines = [
        "Losses and reward margins of two objectives, or of two betas, are on different scales and are not compared.",
        "A best beta is an oracle's choice: it was found on the clean held-out pairs that it is judged by."
        " On noisy validation labels another might be chosen.",
        "\u201cNo difference shown\u201d is not \u201cequal\u201d: it may hide differences up to those stated.",
    ]
    if world:
        lines.append(
            "The embedded world is tiny. What carries over is the geometry, beta x |delta_ref|, not the betas, nor a"
            " ranking of objectives on a large model."
        )
    if hard:
        lines.append(
            "With hard labels there is no finite optimum: where DPO stands is how far this budget got, and more steps"
            " soften it. Only Bradley-Terry labels show the optimum itself."
        )
    if len(m.sweep.seeds) < MIN_SEEDS:
        lines.append(f"{quantity(len(m.sweep.seeds), 'seed')} cannot show that one objective is better than another.")
    return Section("What this does not show", "", (Lines(tuple(lines)),))
