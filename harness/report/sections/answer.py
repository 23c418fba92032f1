"""The answer in two sentences, their form chosen by the data and their numbers taken from the cells.

The first says what goes wrong and where it starts; the second what survives and whether that is shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.metrics.statistics import MIN_SEEDS
from harness.report.data.cells import Cell
from harness.report.data.conditions import Condition
from harness.report.data.context import Material
from harness.report.data.contrasts import Contrast
from harness.report.data.divergence_counts import signs_text
from harness.report.data.focus import falls_below_reference, headline_story, splits
from harness.report.data.recommendation import pick_sentence
from harness.report.render.text import number, plain, quantity, shown, visible
from harness.report.sections.damage import damage_sentence, damages
from harness.report.sections.replicas import replica_sentence
from harness.report.sections.robustness import against_reference


def answer(m: Material) -> tuple[str, ...]:
    """One or two sentences; the second is left out where nothing is finished or there is nothing to pick from."""
    if not m.sweep.count("done"):
        return (_nothing(m),)
    if alone := replica_sentence(m):
        return (alone,)
    first = damage_sentence(damages(m.families), m.baseline) or _what_fails(m)
    second = pick_sentence(m)
    return (first, second) if second else (first,)


def _nothing(m: Material) -> str:
    if any(run.status == "diverged" for run in m.sweep.runs) and not m.sweep.count("pending"):
        return "Every run diverged or failed, so nothing can be ranked: lower the learning rate or look at the data."
    return "No run is finished, so there is no answer yet."


def with_condition(condition: Condition) -> str:
    """`With misaligned 0.75 and clean labels`."""
    return "With " + condition.title.replace(", ", " and ")


def _what_fails(m: Material) -> str:
    """The widest gap of the baseline under the headline, or its deepest fall under any condition, or a difference."""
    story = headline_story([c for f in m.families for c in f.conditions], m.baseline)
    if story is not None and story.falls:
        return _fall_sentence(m, story.cell, story.condition)
    if story is not None:
        own = [c for c in story.condition.by_objective[m.baseline] if c.values("ranking_accuracy")]
        return _gap_sentence(m, story.cell, own)
    here = [c for c in m.contrasts if c.cell in m.headline.cells]
    if here:
        return _difference_sentence(m.headline, here, m.baseline)
    return _state_sentence(m)


def _state_sentence(m: Material) -> str:
    measured = [cell for cell in m.headline.cells if cell.values("ranking_accuracy")]
    if not measured:
        return "No run of the headline condition is finished, so there is no answer yet."
    best = max(measured, key=lambda cell: cell.estimate("ranking_accuracy").mean)
    reference = best.reference_accuracy()
    beside = f"; the reference ranks {shown(reference)} right" if reference.n else ""
    return (
        f"{with_condition(m.headline)}, {best.named} ranks {shown(best.estimate('ranking_accuracy'))} of held-out pairs"
        f" right{beside} ({seeds(best)})."
    )


def _gap_sentence(m: Material, cell: Cell, own: Sequence[Cell]) -> str:
    value = {name: shown(cell.estimate(name)) for name in ("reward_accuracy", "ranking_accuracy", "undesirable_zone")}
    first, last = number(cell.described("train_loss_first").mean), shown(cell.described("train_loss_last"))
    betas = [c for c in own if c.first.beta is not None and splits(c)]
    starts = f"; it starts at beta {plain(betas[0].first.beta)}" if len(own) > 1 and betas else ""
    widest = f"; the widest such gap of {len(own)} betas" if len(own) > 1 else ""
    return (
        f"{with_condition(m.headline)}, {cell.named} brings its training loss from {first} down to"
        f" {last} and its reward accuracy to {value['reward_accuracy']}, yet it ranks only"
        f" {value['ranking_accuracy']} of held-out pairs right, and {value['undesirable_zone']} of them sit in the"
        f" undesirable zone ({signs_text(cell, m.types)}{seeds(cell)}{widest}{starts})."
    )


def _fall_sentence(m: Material, cell: Cell, condition: Condition) -> str:
    family = next(f for f in m.families if condition in f.conditions)
    path = [c for k in family.kinds.values() if condition in k for c in k]
    falling = [c for c in path if (one := family.cell(cell.first.arm, c)) is not None and falls_below_reference(one)]
    first, last = number(cell.described("train_loss_first").mean), shown(cell.described("train_loss_last"))
    starts = f"; it starts at {falling[0].damage}" if len(path) > 1 and falling else ""
    return (
        f"{with_condition(condition)}, {cell.named} brings its training loss from"
        f" {first} down to {last} while"
        f" the share of held-out pairs that it ranks right falls from the reference's"
        f" {number(cell.reference_accuracy().mean)} to {shown(cell.estimate('ranking_accuracy'))}, a"
        f" change of {shown(against_reference(cell))} ({signs_text(cell, m.types)}{seeds(cell)}; the deepest such fall"
        f" of {visible(m.baseline)}{starts})."
    )


def _difference_sentence(condition: Condition, here: Sequence[Contrast], baseline: str) -> str:
    largest = max(here, key=lambda c: abs(c.plain.mean))
    n, others = largest.plain.n, f"the largest of {len(here)} differences" if len(here) > 1 else "the difference"
    what = (
        f"{largest.cell.named} minus {largest.base.named},"
        f" {shown(largest.corrected if n >= MIN_SEEDS else largest.plain)} ({quantity(n, 'common seed')}, paired"
    )
    hidden = "" if largest.mde is None else f"; a true difference up to {number(largest.mde)} could stay hidden"
    where = with_condition(condition)
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


def seeds(cell: Cell) -> str:
    """`4 seeds, 95 % intervals`; seeds that were lost are counted as worst, and said to be."""
    ended = len(cell.values("ranking_accuracy"))
    text = quantity(ended, "seed") + (", no interval" if ended == 1 else ", 95 % intervals")
    lost = f", {cell.lost} diverged or failed and counted as worst" if cell.lost else ""
    return f"{text}{lost}" if not cell.waiting else f"incomplete: {ended} of {cell.planned} seeds{lost}"


def spread(cell: Cell) -> float:
    """Standard deviation of ranking accuracy over seeds, NaN below 2."""
    values = list(cell.values("ranking_accuracy").values())
    if len(values) < 2:
        return math.nan
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
