"""The folded sentences below a page's cards (and in `report.md`): who wins at equal KL, what goes wrong and where.

The first compares objectives at the same KL and each at its best setting; the second says what goes wrong and where it
starts; a third, in sweeps of several learning rates or budgets, whether the choice is the same at all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.metrics.statistics import INTERVAL_ONLY, MIN_SEEDS
from harness.report.data.cells import RANKING, Cell
from harness.report.data.conditions import Condition, said
from harness.report.data.contrasts import AT_BEST, AT_KL, NO_SHARED_KL, Contrast
from harness.report.data.curves import against_reference
from harness.report.data.frontier import at_kl
from harness.report.data.headline import starts
from harness.report.data.report_data import ReportData
from harness.report.data.run_facts import DIVERGENCES
from harness.report.render.text import number, quantity, shown, visible
from harness.report.sections.damage import damage_sentence, damages
from harness.report.sections.levels import levels_sentence
from harness.report.sections.statistics import replica_sentence
from harness.types import RunStatus


def answer(data: ReportData) -> tuple[str, ...]:
    """One to three sentences: what is compared, what fails, and whether the choice holds at every learning rate and
    budget; what cannot be said is left out."""
    if not data.sweep.count("done"):
        return (_nothing(data),)
    if alone := replica_sentence(data):
        return (alone,)
    failing = damage_sentence(damages(data.families), data.baseline) or _what_fails(data)
    return tuple(filter(None, (comparison(data), failing, levels_sentence(data))))


def _nothing(data: ReportData) -> str:
    if any(run.status is RunStatus.DIVERGED for run in data.sweep.runs) and not data.sweep.count(RunStatus.PENDING):
        return "Every run diverged or failed, so nothing can be ranked: lower the learning rate or look at the data."
    return "No run is finished, so there is no answer yet."


def _with(condition: Condition) -> str:
    """`With the reference wrong on 75 % of topics and clean labels`."""
    return "With " + said(condition.title)


def _what_fails(data: ReportData) -> str:
    """The widest gap of the baseline under the headline, or its deepest fall under any condition, or a difference."""
    failure = data.failure
    if failure is not None:
        begins = starts(data.families, data.baseline, failure)
        sentence = _fall_sentence if failure.falls else _gap_sentence
        return sentence(data, failure.cell, failure.condition, f"; {begins}" if begins else "")
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


def _gap_sentence(data: ReportData, cell: Cell, condition: Condition, begins: str) -> str:
    betas = [c for c in condition.by_objective[data.baseline] if c.values(RANKING)]
    widest = f"; the widest such gap of {len(betas)} betas" if len(betas) > 1 else ""
    return (
        f"{_with(condition)}, {cell.named} brings its training loss from {_loss(cell)} and its reward accuracy to"
        f" {shown(cell.estimate('reward_accuracy'))}, yet it ranks only {shown(cell.ranking)} of held-out pairs right,"
        f" and {shown(cell.estimate('undesirable_zone'))} of them are stuck wrong"
        f" ({_types(data, cell)}{_seeds(cell)}{widest}{begins})."
    )


def _fall_sentence(data: ReportData, cell: Cell, condition: Condition, begins: str) -> str:
    return (
        f"{_with(condition)}, {cell.named} brings its training loss from {_loss(cell)} while the share of held-out"
        f" pairs that it ranks right falls from the reference's {number(cell.reference_accuracy().mean)} to"
        f" {shown(cell.ranking)}, a change of {shown(against_reference(cell))} ({_types(data, cell)}{_seeds(cell)};"
        f" the deepest such fall of {visible(data.baseline)}{begins})."
    )


def _loss(cell: Cell) -> str:
    return f"{number(cell.described('train_loss_first').mean)} down to {shown(cell.described('train_loss_last'))}"


def _types(data: ReportData, cell: Cell) -> str:
    """`satisfied too early in 4 of 4 seeds; `, or nothing."""
    total, counts = len(cell.recorded), cell.divergences(data.types)
    return "".join(f"{DIVERGENCES[kind]} in {n} of {total} seeds; " for kind, n in counts.items())


def _seeds(cell: Cell) -> str:
    """`4 seeds, 95 % intervals`; seeds that were lost are counted as worst, and said to be."""
    ended = len(cell.values(RANKING))
    text = quantity(ended, "seed") + (", no interval" if ended == 1 else ", 95 % intervals")
    lost = f", {cell.lost} diverged or failed and counted as worst" if cell.lost else ""
    return f"{text}{lost}" if not cell.waiting else f"incomplete: {ended} of {cell.planned} seeds{lost}"


def comparison(data: ReportData) -> str | None:
    """The rival that differs most from the baseline in the headline's arena: at the same KL, then each at its best."""
    here = [c for c in data.contrasts if c.arena is data.arena]
    made = [c for c in here if c.made and c.plain.n]
    if not here:
        return None
    where = "With " + said(data.arena.title) if data.arena.title else "Here"
    on_kl = [c for c in made if c.on == AT_KL]
    # What every seed reaches counts before what a few do.
    largest = max(on_kl or made, key=lambda c: (c.n, abs(c.plain.mean)), default=None)
    if largest is None:
        return f"{where}, {visible(data.baseline)} and its rivals cannot be compared yet: {why_not(here)}."
    at_best = next(c for c in here if c.objective == largest.objective and c.on == AT_BEST)
    if largest.on == AT_BEST:
        return f"{where}, {_at_best(largest, len(made))}; no KL is shared, so nothing is compared at equal movement."
    best = _at_best(at_best) if at_best.made else f"there is no best to compare yet ({at_best.note})"
    return f"{where}, {_at_kl(data, largest, len(on_kl))}; {best}."


def why_not(here: Sequence[Contrast]) -> str:
    """Why comparisons cannot be made: which grids to extend, that no KL is shared."""
    notes = dict.fromkeys(part for c in here for part in c.note.split("; ") if part)
    return "; ".join([*notes, *(["no KL is reached by both"] if any(c.word == NO_SHARED_KL for c in here) else [])])


def _at_kl(data: ReportData, c: Contrast, count: int) -> str:
    """`at KL 1.5 cpo_smooth ranks more held-out pairs right than dpo, by ... (10 seeds, paired)`."""
    over = next((d for d in data.dominances if d.arena is c.arena and d.objective == c.objective), None)
    whole = ""
    if over is not None and over.everywhere and over.whole is not None and over.whole[0] < over.whole[1]:
        low, high = over.whole
        whole = f", and {over.everywhere} at every KL compared from {at_kl(low)} to {at_kl(high)} nats"
    return f"at the same KL of {at_kl(c.at)} nats, {_difference(c, count)}{whole}"


def _at_best(c: Contrast, count: int = 1) -> str:
    tried = f" ({c.note})" if c.note else ""
    assert c.cell is not None and c.base is not None, "a best comparison has its cells"
    settings = f"{c.cell.named} against {c.base.named}{tried}"
    return f"each at its best, {settings}, {_difference(c, count)}"


def _difference(c: Contrast, count: int) -> str:
    """`cpo_smooth ranks 0.13 [0.09, 0.17] more pairs right than dpo (10 seeds, ...)`, as far as that is shown."""
    of = f", the largest of {count} differences" if count > 1 else ""
    n = quantity(c.n, "seed")
    name, base = visible(c.objective), visible(c.baseline)
    if c.plain.n < 2:
        return f"{name} less {base} is {number(c.plain.mean)} in ranking accuracy (one seed, which shows nothing)"
    corrected = f"{shown(c.corrected)} ({n}, paired, corrected for {c.family}{of})"
    if c.word in ("better", "worse"):
        return f"{name} ranks {'more' if c.plain.mean > 0 else 'fewer'} held-out pairs right than {base}: {corrected}"
    hidden = "" if c.mde is None else f"; a true difference up to {number(c.mde)} could stay hidden"
    if c.word == INTERVAL_ONLY and c.corrected.excludes(0.0):
        few = f"with fewer than {MIN_SEEDS} seeds that is an interval and no verdict"
        return f"{name} less {base} is {corrected} in ranking accuracy: {few}"
    return f"no difference of {name} to {base} in ranking accuracy is shown: {corrected}{hidden}"
