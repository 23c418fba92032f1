"""The answer in one sentence, its form chosen by the data and its numbers taken from the cells."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.measure.statistics import MIN_SEEDS, Estimate, cell_estimate, paired_difference
from harness.report.cells import Cell
from harness.report.conditions import Condition
from harness.report.contrasts import Contrast, baseline_pairs
from harness.report.text import estimate, number, plain, quantity, visible

# A gap between the two accuracies below this is not worth a headline, whatever its interval.
WORTH_TELLING = 0.05


def shown(value: Estimate) -> str:
    """`mean [low, high]`, with a fourth decimal for what is near 0."""
    return estimate(value.mean, value.low, value.high, 4 if 0 < abs(value.mean) < 0.01 else 3)


def _with(condition: Condition) -> str:
    return "With " + condition.title.replace(", ", " and ")


def named(cell: Cell) -> str:
    """`dpo at beta 5`."""
    beta = cell.first.beta
    return visible(cell.first.objective) + ("" if beta is None else f" at beta {plain(beta)}")


def gap(cell: Cell) -> Estimate:
    """Reward accuracy minus ranking accuracy, paired by seed."""
    return paired_difference(cell.values("reward_accuracy"), cell.values("ranking_accuracy"))


def answer(condition: Condition, cells: Sequence[Cell], contrasts: Sequence[Contrast], baseline: str) -> str:
    """One sentence about `condition`; `contrasts` are those of ranking accuracy over the whole sweep."""
    own = [cell for cell in condition.by_objective.get(baseline, ()) if cell.values("ranking_accuracy")]
    widest = max(own, key=gap_size, default=None)
    if widest is not None and _splits(widest):
        return _gap_sentence(condition, widest, own, cells, baseline)
    here = [c for c in contrasts if c.cell in condition.cells]
    if here:
        return _difference_sentence(condition, here, baseline)
    measured = [cell for cell in condition.cells if cell.values("ranking_accuracy")]
    if not measured:
        return "No run of the headline condition is finished, so there is no answer yet."
    best = max(measured, key=lambda cell: cell.estimate("ranking_accuracy").mean)
    return (
        f"{_with(condition)}, {named(best)} ranks {shown(best.estimate('ranking_accuracy'))} of held-out pairs right;"
        f" the reference ranks {shown(best.fact_estimate('reference_accuracy'))} right ({_seeds(best)})."
    )


def gap_size(cell: Cell) -> float:
    """`gap`'s mean, minus infinity where it is unknown: a sort key."""
    mean = gap(cell).mean
    return mean if math.isfinite(mean) else -math.inf


def _splits(cell: Cell) -> bool:
    """Loss down, pairs moved the right way, and yet clearly fewer are ranked right."""
    found, fell = gap(cell), paired_difference(cell.values("train_loss_last"), cell.values("train_loss_first"))
    return found.mean >= WORTH_TELLING and fell.mean < 0 and (found.n == 1 or (found.low > 0 and fell.high < 0))


def _gap_sentence(condition: Condition, cell: Cell, own: Sequence[Cell], cells: Sequence[Cell], baseline: str) -> str:
    names = ("train_loss_last", "reward_accuracy", "ranking_accuracy", "undesirable_zone")
    value = {name: shown(cell.estimate(name)) for name in names}
    first = number(cell.estimate("train_loss_first").mean)
    text = (
        f"{_with(condition)}, {named(cell)} brings its training loss from {first} down to"
        f" {value['train_loss_last']} and its reward accuracy to {value['reward_accuracy']}, yet it ranks only"
        f" {value['ranking_accuracy']} of held-out pairs right, and {value['undesirable_zone']} of them sit in the"
        " undesirable zone"
    )
    others = rivals(condition, cell, cells, baseline)
    if others:
        best = max(others, key=lambda c: c.estimate("ranking_accuracy").mean)
        ranks = best.estimate("ranking_accuracy")
        if ranks.mean > cell.estimate("ranking_accuracy").mean:
            text += f"; {named(best)} ranks {shown(ranks)} right"
            text += f", the most of {len(others)} others" if len(others) > 1 else ""
        else:
            text += f"; none of {quantity(len(others), 'other')} ranks more right"
    widest = f"; the widest such gap of {len(own)} betas" if len(own) > 1 else ""
    return f"{text} ({_seeds(cell)}{widest})."


def rivals(condition: Condition, cell: Cell, cells: Sequence[Cell], baseline: str) -> list[Cell]:
    """Finished cells of other objectives that are compared with this baseline cell; all of them where none is."""
    finished = [c for c in condition.cells if c.first.objective != baseline and c.values("ranking_accuracy")]
    partners = {id(c): base for c, base in baseline_pairs(cells, baseline)}
    return [c for c in finished if partners.get(id(c)) is cell] or finished


def _difference_sentence(condition: Condition, here: Sequence[Contrast], baseline: str) -> str:
    largest = max(here, key=lambda c: abs(c.plain.mean))
    n, others = largest.plain.n, f"the largest of {len(here)} differences" if len(here) > 1 else "the difference"
    what = (
        f"{named(largest.cell)} minus {named(largest.base)},"
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
    done = len(cell.values("ranking_accuracy"))
    text = quantity(done, "seed") + (", no interval" if done == 1 else ", 95 % intervals")
    return text if done == cell.planned else f"incomplete: {done} of {cell.planned} seeds"


def spread(cell: Cell) -> float:
    """Standard deviation of ranking accuracy over seeds, NaN below 2."""
    values = list(cell.values("ranking_accuracy").values())
    if len(values) < 2:
        return math.nan
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def survives(cell: Cell, against: str) -> bool:
    """Whether ranking accuracy lies clearly above chance (`half`) or the reference's own, paired (`reference`)."""
    values = cell.values("ranking_accuracy")
    if against == "half":
        found = cell_estimate(list(values.values()), cell.items(), share=True)
        return found.low > 0.5
    return paired_difference(values, cell.fact_values("reference_accuracy")).low > 0
