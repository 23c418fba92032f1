"""The answer in two sentences, their form chosen by the data and their numbers taken from the cells.

The first says what goes wrong and where it starts; the second what survives and whether that is shown.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.metrics.statistics import MIN_SEEDS, Estimate, bonferroni_interval, paired_differences, t_interval
from harness.report.data.cells import RANKING, Cell
from harness.report.data.conditions import Condition
from harness.report.data.contrasts import Contrast
from harness.report.data.curves import Curve, against_reference, standings
from harness.report.data.headline import falls_below_reference, has_gap, largest_failure
from harness.report.data.report_data import ReportData
from harness.report.data.run_facts import DIVERGENCES
from harness.report.render.text import number, plain, quantity, shown, visible
from harness.report.sections.damage import damage_sentence, damages
from harness.report.sections.statistics import replica_sentence
from harness.types import RunStatus


def answer(data: ReportData) -> tuple[str, ...]:
    """One or two sentences; the second is left out where nothing is finished or there is nothing to choose from."""
    if not data.sweep.count("done"):
        return (_nothing(data),)
    if alone := replica_sentence(data):
        return (alone,)
    first = damage_sentence(damages(data.families), data.baseline) or _what_fails(data)
    return tuple(filter(None, (first, recommendation(data))))


def _nothing(data: ReportData) -> str:
    if any(run.status is RunStatus.DIVERGED for run in data.sweep.runs) and not data.sweep.count(RunStatus.PENDING):
        return "Every run diverged or failed, so nothing can be ranked: lower the learning rate or look at the data."
    return "No run is finished, so there is no answer yet."


def _with(condition: Condition) -> str:
    """`With misaligned 0.75 and clean labels`."""
    return "With " + condition.title.replace(", ", " and ")


def _what_fails(data: ReportData) -> str:
    """The widest gap of the baseline under the headline, or its deepest fall under any condition, or a difference."""
    failure = largest_failure([c for f in data.families for c in f.conditions], data.baseline)
    if failure is not None:
        sentence = _fall_sentence if failure.falls else _gap_sentence
        return sentence(data, failure.cell, failure.condition)
    here = [c for c in data.contrasts if c.cell in data.headline.cells]
    if here:
        return _difference_sentence(data.headline, here, data.baseline)
    return _state_sentence(data)


def _state_sentence(data: ReportData) -> str:
    finished = [cell for cell in data.headline.cells if cell.values(RANKING)]
    if not finished:
        return "No run of the headline condition is finished, so there is no answer yet."
    best = max(finished, key=lambda cell: cell.ranking.mean)
    reference = best.reference_accuracy()
    beside = f"; the reference ranks {shown(reference)} right" if reference.n else ""
    return (
        f"{_with(data.headline)}, {best.named} ranks {shown(best.ranking)} of held-out pairs right{beside}"
        f" ({_seeds(best)})."
    )


def _gap_sentence(data: ReportData, cell: Cell, condition: Condition) -> str:
    betas = [c for c in condition.by_objective[data.baseline] if c.values(RANKING)]
    failing = [c for c in betas if c.first.beta is not None and has_gap(c)]
    starts = f"; it starts at beta {plain(failing[0].first.beta)}" if len(betas) > 1 and failing else ""
    widest = f"; the widest such gap of {len(betas)} betas" if len(betas) > 1 else ""
    return (
        f"{_with(condition)}, {cell.named} brings its training loss from {_loss(cell)} and its reward accuracy to"
        f" {shown(cell.estimate('reward_accuracy'))}, yet it ranks only {shown(cell.ranking)} of held-out pairs right,"
        f" and {shown(cell.estimate('undesirable_zone'))} of them sit in the undesirable zone"
        f" ({_types(data, cell)}{_seeds(cell)}{widest}{starts})."
    )


def _fall_sentence(data: ReportData, cell: Cell, condition: Condition) -> str:
    family = next(f for f in data.families if condition in f.conditions)
    rates = [c for same in family.kinds.values() if condition in same for c in same]
    falling = [c for c in rates if (one := family.cell(cell.first.arm, c)) is not None and falls_below_reference(one)]
    starts = f"; it starts at {falling[0].damage}" if len(rates) > 1 and falling else ""
    return (
        f"{_with(condition)}, {cell.named} brings its training loss from {_loss(cell)} while the share of held-out"
        f" pairs that it ranks right falls from the reference's {number(cell.reference_accuracy().mean)} to"
        f" {shown(cell.ranking)}, a change of {shown(against_reference(cell))} ({_types(data, cell)}{_seeds(cell)};"
        f" the deepest such fall of {visible(data.baseline)}{starts})."
    )


def _loss(cell: Cell) -> str:
    return f"{number(cell.described('train_loss_first').mean)} down to {shown(cell.described('train_loss_last'))}"


def _types(data: ReportData, cell: Cell) -> str:
    """`premature convergence, D1, in 4 of 4 seeds; `, or nothing."""
    total, counts = len(cell.recorded), cell.divergences(data.types)
    return "".join(f"{DIVERGENCES[kind]}, {kind}, in {n} of {total} seeds; " for kind, n in counts.items())


def _difference_sentence(condition: Condition, here: Sequence[Contrast], baseline: str) -> str:
    largest = max(here, key=lambda c: abs(c.plain.mean))
    n, others = largest.plain.n, f"the largest of {len(here)} differences" if len(here) > 1 else "the difference"
    what = (
        f"{largest.cell.named} minus {largest.base.named},"
        f" {shown(largest.corrected if n >= MIN_SEEDS else largest.plain)} ({quantity(n, 'common seed')}, paired"
    )
    hidden = "" if largest.mde is None else f"; a true difference up to {number(largest.mde)} could stay hidden"
    where = _with(condition)
    if largest.word in ("better", "worse"):
        rank = "more" if largest.plain.mean > 0 else "fewer"
        return (
            f"{where}, {visible(largest.cell.first.objective)} ranks {rank} held-out pairs right than"
            f" {visible(baseline)}: {others} is {what}, interval corrected for {largest.family} comparisons)."
        )
    if n < 2:
        return f"{where}, one seed shows no more than that {others} in ranking accuracy is {what}, no interval)."
    if n < MIN_SEEDS and largest.plain.excludes(0.0):
        return (
            f"{where}, {others} in ranking accuracy is {what}, interval of this one comparison): with fewer than"
            f" {MIN_SEEDS} seeds that is an interval and no verdict{hidden}."
        )
    return f"{where}, no difference to {visible(baseline)} in ranking accuracy is shown: {others} is {what}{hidden})."


def _seeds(cell: Cell) -> str:
    """`4 seeds, 95 % intervals`; seeds that were lost are counted as worst, and said to be."""
    ended = len(cell.values(RANKING))
    text = quantity(ended, "seed") + (", no interval" if ended == 1 else ", 95 % intervals")
    lost = f", {cell.lost} diverged or failed and counted as worst" if cell.lost else ""
    return f"{text}{lost}" if not cell.waiting else f"incomplete: {ended} of {cell.planned} seeds{lost}"


def recommendation(data: ReportData) -> str | None:
    """What ranks most pairs right in the headline's setting, against the baseline at its own best beta."""
    ranked = standings(data.family)
    if len(ranked) < 2:
        return None
    best, count = ranked[0], len(data.family.conditions)
    base = next((curve for curve in ranked if curve.first.first.objective == data.baseline), None)
    over = f"over {count} conditions" if count > 1 else "there"
    where = f" with {data.family.title}" if data.family.title and count > 1 else ""
    text = f"{best.first.named} ranks most pairs right {over}{where}, {shown(best.area)}{_lowest(best)}"
    if base is None:
        return f"Of {len(ranked)} settings tested, {text} ({quantity(len(best.by_seed), 'seed')})."
    if base is best:
        lead = _lead(best, ranked[1], len(ranked) - 1)
        return (
            f"Nothing tested is shown to beat {visible(data.baseline)}: {text}, {shown(lead)} more than the next,"
            f" {ranked[1].first.named} ({quantity(lead.n, 'seed')}, paired)."
        )
    return _against(f"{base.first.named}, the best {visible(data.baseline)},", text, best, base, len(ranked))


def _lowest(best: Curve) -> str:
    """Where it stands worst, if there are several conditions."""
    if len(best.points) < 2:
        return ""
    condition, cell = best.lowest
    return f" (lowest under {condition.damage}: {shown(cell.ranking)})"


def _lead(one: Curve, other: Curve, comparisons: int) -> Estimate:
    differences = paired_differences(one.by_seed, other.by_seed)
    return bonferroni_interval(differences, comparisons) if differences.size >= MIN_SEEDS else t_interval(differences)


def _against(base: str, text: str, best: Curve, other: Curve, count: int) -> str:
    # The winner is the best of many, so its lead is read against all it could have been.
    lead = _lead(best, other, count - 1)
    if lead.n < 2:
        return f"To look at next: {text}; it is {number(lead.mean)} ahead of {base} on one seed, which shows nothing."
    if lead.n < MIN_SEEDS:
        return (
            f"To look at next: {text}; its lead on {base} is {shown(lead)} ({lead.n} seeds, paired: an interval, no"
            f" verdict below {MIN_SEEDS} seeds)."
        )
    corrected = f"{lead.n} seeds, paired, corrected for choosing among {count}"
    if lead.low > 0:
        return f"To pick: {text}; it beats {base} by {shown(lead)} ({corrected})."
    return f"Nothing is shown to beat {base} overall: {text}, a lead of {shown(lead)} ({corrected})."
