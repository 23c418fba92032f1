"""The head of a sweep's page: four cards that say what to use, what breaks, how sure that is, what it costs.

They say in a few words what the sections below show with every number; `sweep` and `status` end with the first two.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from harness.metrics.records import flags
from harness.metrics.samples import of_evaluation
from harness.metrics.statistics import MIN_SEEDS, NO_DIFFERENCE
from harness.report.answer import why_not
from harness.report.data.cells import RANKING, measured
from harness.report.data.conditions import noise, said, without_training
from harness.report.data.contrasts import AT_BEST, AT_KL, Contrast
from harness.report.data.curves import against_reference
from harness.report.data.frontier import at_kl, edge_text
from harness.report.data.headline import Failure, starts
from harness.report.data.recommendation import GOLD, Lead, Recommendation
from harness.report.data.report_data import ReportData
from harness.report.data.run_facts import DIVERGENCES
from harness.report.render.blocks import Card
from harness.report.render.text import number, percent, percents, plain, points, quantity, shown, visible
from harness.report.sections.costs import cost, quantity_of
from harness.report.sections.damage import POINTS, damage_sentence, damages, most_costly
from harness.report.sections.statistics import replica_sentence
from harness.report.use_card import NAMED, RANKED, named, quality, recommended_in, seeds_text, use
from harness.types import RunStatus

GOOD = 0.95  # of clean held-out pairs ranked right: nothing left to gain by changing the objective
ASSUMED = ("hp.eps",)  # settings that tell an objective what the others are not told
HOW = {AT_KL: "at the same KL", AT_BEST: "each at its best"}


def cards(data: ReportData) -> tuple[Card, ...]:
    """Use, what breaks, how sure, what it costs and what next; a single card where there is nothing to compare."""
    if not data.sweep.count("done"):
        return (Card("use", "Use", "Nothing to use yet", (_nothing(data),)),)
    if alone := replica_sentence(data):
        return (Card("sure", "How sure", "A test of this page's own rule", (alone,)),)
    return (use(data), _breaks(data), _sure(data), _next(data))


def _nothing(data: ReportData) -> str:
    if any(run.status is RunStatus.DIVERGED for run in data.sweep.runs) and not data.sweep.count(RunStatus.PENDING):
        return "Every run diverged or failed, so nothing can be ranked: lower the learning rate or look at the data."
    return "No run is finished."


def _breaks(data: ReportData) -> Card:
    label = f"What breaks, judged by {RANKED}"
    failure = data.failure
    damage = damage_sentence(damages(data.families), data.baseline)
    if failure is None:
        worst = most_costly(damages(data.families), data.baseline)
        title = "" if worst is None else f"For {visible(data.baseline)} the costliest damage is {worst.label}"
        return Card("breaks", label, *((title, (damage,)) if damage else _holds(data)))
    cell = failure.cell
    title = f"{cell.named} with {noise(failure.condition)}"
    world, training = without_training(failure.condition.setting, data.arena.axes)
    here = f"With {said(world)}{f' ({training})' if training else ''}, its" if world else "Its"
    first, last = (cell.described(f"train_loss_{end}").mean for end in ("first", "last"))
    loss = f"{here} training loss falls from {number(first)} to {number(last, 4 if last < 0.01 else 3)}"
    if failure.falls:
        change = against_reference(cell)
        text = (
            f"{loss}. It ranks {percents(cell.ranking)} of held-out pairs right, where the untrained reference ranks"
            f" {percent(cell.reference_accuracy().mean)}: {points(change.mean)} points."
        )
    else:
        text = (
            f"{loss} and its reward accuracy reaches {percent(cell.estimate('reward_accuracy').mean)}: all looks well."
            f" It ranks {percents(cell.ranking)} of held-out pairs right;"
            f" {percent(cell.estimate('undesirable_zone').mean)} are stuck wrong."
        )
    total, kinds = len(cell.recorded), cell.divergences(data.types)
    types = [f"{DIVERGENCES[kind].capitalize()} in {n} of {quantity(total, 'seed')}." for kind, n in kinds.items()]
    begins = starts(data.families, data.baseline, failure)
    more = (
        f"{begins[:1].upper()}{begins[1:]}." if begins else "",
        _recommended_itself(data, failure),
        _lowest(failure),
        damage,
    )
    return Card("breaks", label, title, tuple(filter(None, [text, *types, *more])))


def _recommended_itself(data: ReportData, failure: Failure) -> str:
    """Says where the failing setting is a recommended one, so that the two cards do not seem to contradict."""
    found = data.recommendation
    if found is None or recommended_in(found, failure.cell) is None:
        return ""
    if found.measure == GOLD:
        return f"By {data.sweep.reward} of its answers it is among the recommended settings."
    return "It is a recommended setting itself: of what was tried none is shown to do better."


def _lowest(failure: Failure) -> str:
    """The setting of another objective that ranks fewer pairs right than the failing one, under the same condition."""
    lowest = min(measured(failure.condition.cells), key=lambda cell: cell.ranking.mean)
    if lowest.first.objective == failure.cell.first.objective:
        return ""
    return f"Lowest of all there: {lowest.named}, {percents(lowest.ranking)}."


def _holds(data: ReportData) -> tuple[str, tuple[str, ...]]:
    cells = [cell for cell in measured(data.headline.cells) if cell.first.objective == data.baseline]
    if not cells:
        return f"No finished run of {visible(data.baseline)}", ()
    worst = min(cells, key=lambda cell: cell.ranking.mean)
    before = worst.reference_accuracy()
    beside = f"; the untrained reference {percent(before.mean)}" if before.n else ""
    text = f"{worst.named} {quality(data, worst, RANKING)}{beside} ({seeds_text(worst)})."
    every = [(k, c) for k in data.family.conditions for c in measured(k.by_objective.get(data.baseline, ()))]
    condition, low = min(every, key=lambda one: one[1].ranking.mean)
    least = [] if low is worst else [f"Lowest with {noise(condition)}: {low.named}, {percents(low.ranking)}."]
    return f"No failure of {visible(data.baseline)} is shown", (text, *least)


def _sure(data: ReportData) -> Card:
    found = data.recommendation
    seeds = len(data.sweep.seeds)
    few = f"With {quantity(seeds, 'seed')} these are intervals, no verdicts: {MIN_SEEDS} seeds or more give one."
    notes = [*([few] if seeds < MIN_SEEDS else []), *_assumed(data)]
    if any(cell.first.misaligned is not None for cell in data.cells):
        notes.append("A small world: what fails and why carries over, the betas do not.")
    if found is None:
        return Card("sure", "How sure", "Nothing is compared", tuple(notes))
    rivals = [name for name in dict.fromkeys((data.baseline, found.runner_up)) if name is not None]
    leads = [one for name in rivals if (one := found.leads_over(name))]
    own = visible(found.lead.first.objective)
    title = f"By {_measure(data, found)}, {_against(leads[0])}" if leads else ""
    if not leads:
        title = f"Only {own} was compared"
    elif seeds < MIN_SEEDS:
        title = f"No verdict: {quantity(seeds, 'seed')}"
    lines = [_lead_line(data, found, max(one, key=lambda lead: lead.interval.low)) for one in leads]
    if leads and found.measure == GOLD:
        ranked = _ranked_against(data, found)
        verdict = _ranking_verdict(ranked) if ranked else "By ranking, nothing is compared"
        title += "" if seeds < MIN_SEEDS else f". {verdict}"
        names = (found.lead.first.objective, found.runner_up)
        why = why_not([c for c in data.contrasts if c.arena is data.arena and c.objective in names])
        lines += [_ranking_line(c) for c in ranked[:2]] or [f"By ranking nothing is compared yet: {why}."]
    return Card("sure", "How sure", title, (*lines, *notes))


def _measure(data: ReportData, found: Recommendation) -> str:
    return data.sweep.reward if found.measure == GOLD else "ranking"


def _against(leads: Sequence[Lead]) -> str:
    """`cpo_smooth ahead of dpo: shown with 20 % flips and 40 % flips only`."""
    first = leads[0]
    name = f"{visible(first.by.first.objective)} ahead of {visible(first.over.first.objective)}"
    words = {lead.word for lead in leads}
    if len(words) == 1:
        return f"{name}: {first.word}"
    at = [noise(lead.arena.first) for lead in leads if lead.shown]
    word = next(lead.word for lead in leads if lead.shown)
    if len(at) > NAMED - 1:
        return f"{name}: {word} in {len(at)} of {len(leads)} cases"
    return f"{name}: {word} with {' and '.join(at)} only"


def _lead_line(data: ReportData, found: Recommendation, lead: Lead) -> str:
    """`+21.5 points [17.7, 25.4] of cpo_smooth at beta 2 on dpo at beta 0.5 (10 seeds, ...)`."""
    value = lead.interval
    what = f"{shown(value)} in {data.sweep.reward}" if found.measure == GOLD else percents(value, POINTS)
    n = f"{quantity(value.n, 'seed')}, paired, corrected for {quantity(lead.family, 'comparison')}): {lead.word}"
    sign = "+" if value.mean > 0 else ""
    names = [named(found, lead.arena, cell) for cell in (lead.by, lead.over)]
    return f"{names[0]} against {names[1]} with {noise(lead.arena.first)}: {sign}{what} ({n}."


def _ranked_against(data: ReportData, found: Recommendation) -> list[Contrast]:
    """The comparisons with the baseline in ranking that the section Frontier makes: those with a verdict, the most
    certain first; where none has one those of the same objectives."""
    here = [c for c in data.contrasts if c.arena is data.arena and c.made]
    decided = [c for c in here if c.word in ("better", "worse")]
    names = {found.lead.first.objective, found.runner_up}
    certain = sorted(decided, key=lambda c: -max(c.corrected.low, -c.corrected.high))
    return certain or [c for c in here if c.objective in names]


def _ranking_verdict(contrasts: Sequence[Contrast]) -> str:
    """`By ranking, cpo_smooth better than dpo, each at its best`; a verdict at the same KL or at the best of each."""
    base = visible(contrasts[0].baseline)
    by_name: dict[str, list[Contrast]] = {}
    for c in contrasts:
        by_name.setdefault(visible(c.objective), []).append(c)
    texts = []
    for name, found in by_name.items():
        shown_ = [f"{c.word} than {base}, {HOW[c.on]}" for c in found if c.word in ("better", "worse")]
        open_ = NO_DIFFERENCE if any(c.word == NO_DIFFERENCE for c in found) else "no verdict"
        texts.append(f"{name} {' and '.join(shown_)}" if shown_ else f"{name} and {base}: {open_}")
    more = f"; {len(texts) - NAMED} more" if len(texts) > NAMED else ""
    return f"By ranking, {'; '.join(texts[:NAMED])}{more}"


def _ranking_line(c: Contrast) -> str:
    """`In ranking at the same KL of 1.5 nats, cpo_smooth against dpo: +3.6 points [1.2, 6.0] (6 seeds, ...)`."""
    where = HOW[c.on] + (f" of {at_kl(c.at)} nats" if c.at is not None else "")
    sign = "+" if c.corrected.mean > 0 else ""
    n = f"{quantity(c.n, 'seed')}, paired, corrected for {quantity(c.family, 'comparison')}"
    cells = [c.objective, c.baseline] if c.cell is None or c.base is None else map(c.arena.named, (c.cell, c.base))
    names = " against ".join(map(visible, cells))
    return f"In ranking {where}, {names}: {sign}{percents(c.corrected, POINTS)} ({n}): {c.word}."


def _assumed(data: ReportData) -> Iterable[str]:
    """Settings that decide how fair a comparison is: an assumed flip rate that is the same at every true rate."""
    values: dict[str, set[str]] = {}
    for cell in data.cells:
        for name in ASSUMED:
            value = cell.first.settings().get(name)
            if value is not None:
                values.setdefault(cell.first.objective, set()).add(plain(float(value)))
    for name, told in values.items():
        if len(told) == 1:
            yield f"{visible(name)} is told a flip rate of {percent(float(next(iter(told))))}, whatever the true one."


def _next(data: ReportData) -> Card:
    found = data.recommendation
    cell = found.lead if found is not None else max(data.headline.cells, key=lambda c: (c.ranking.n, c.ranking.mean))
    condition = found.bands[0].arenas[0].first if found is not None else data.headline
    kl, malformed = cell.estimate("kl"), cell.described("malformed")
    title = ", ".join(
        filter(
            None,
            [
                f"KL {number(kl.mean, 1)} nats" if kl.n else "",
                f"{percent(malformed.mean)} malformed answers{_malformed_before(data)}" if malformed.n else "",
                quantity_of(cost(cell, "seconds"), "s") + " per run" if cost(cell, "seconds") else "",
            ],
        )
    )
    if title:
        title += f" with {noise(condition)}"
    edges = []
    for name in dict.fromkeys((cell.first.objective, data.baseline)):
        edge = data.arena.edge(name)
        betas = {one.first.beta for one in data.arena.of(name)}
        if edge is not None and (edge.side != "only" or len(betas) == 1):
            edges.append(edge_text(name, edge))
    more = [f"Before you trust it: {'; '.join(edges)}."] if edges else []
    near = None if found is None else found.bands[0].cheapest
    if found is not None and near is not None and near is not cell:
        kl_near = number(near.estimate("kl").mean, 1)
        more.insert(0, f"Closest to the reference of the recommended settings: {near.named}, KL {kl_near} nats.")
    real = all(one.first.misaligned is None for one in data.cells)
    command = "" if real else "harness init mine.yaml --data prefs.jsonl.gz"
    lines = (*filter(None, [good_news(data)]), *more, *([] if real else ["Try it on your own pairs:"]))
    return Card("next", "What it costs, what next", title or "No cost is known", lines, command)


def _malformed_before(data: ReportData) -> str:
    """` (untrained 1 %)`, where answers of the untrained model were read."""
    runs = (data.samples[run.key] for cell in data.sampled for run in cell.runs if run.key in data.samples)
    drawn = [of_evaluation(samples) for samples in runs]
    before = [flags(samples, "reference_malformed").mean() for samples in drawn if "reference_malformed" in samples]
    return f" (untrained {percent(math.fsum(before) / len(before))})" if before else ""


def good_news(data: ReportData) -> str | None:
    """Where the reference is right and labels are clean: that every setting ranks nearly all pairs right, if so."""
    right = [c for f in data.families for c in f.conditions if c.clean and c.first.misaligned == 0]
    cells = [cell for condition in right for cell in measured(condition.cells)]
    if len(cells) < 2 or min(cell.ranking.mean for cell in cells) < GOOD:
        return None
    least = percent(min(cell.ranking.mean for cell in cells))
    return (
        f"Is your reference right? Then all {len(cells)} settings rank at least {least} of held-out pairs right on"
        f" clean labels: stay with {visible(data.baseline)}."
    )
