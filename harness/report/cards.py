"""The head of a sweep's page: four cards that say what to use, what breaks, how sure that is, what it costs.

They say in a few words what the sections below show with every number; `sweep` and `status` end with the first two.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.metrics.statistics import MIN_SEEDS
from harness.report.data.cells import RANKING, Cell, measured
from harness.report.data.conditions import Condition, noise, said, without_training
from harness.report.data.curves import against_reference
from harness.report.data.frontier import edge_text
from harness.report.data.headline import Failure, largest_failure, starts
from harness.report.data.recommendation import GOLD, Lead, Recommendation, Recommended
from harness.report.data.report_data import ReportData
from harness.report.data.run_facts import DIVERGENCES
from harness.report.render.blocks import Card
from harness.report.render.text import number, percent, percents, plain, points, quantity, shown, visible
from harness.report.sections.costs import cost, quantity_of
from harness.report.sections.damage import damage_sentence, damages, most_costly
from harness.report.sections.levels import levels_sentence
from harness.report.sections.statistics import replica_sentence
from harness.types import RunStatus

NAMED = 3  # objectives of a set that a title names
GOOD = 0.95  # of clean held-out pairs ranked right: nothing left to gain by changing the objective
ASSUMED = ("hp.eps",)  # settings that tell an objective what the others are not told


def cards(data: ReportData) -> tuple[Card, ...]:
    """Use, what breaks, how sure, what it costs and what next; a single card where there is nothing to compare."""
    if not data.sweep.count("done"):
        return (Card("use", "Use", "Nothing to use yet", (_nothing(data),)),)
    if alone := replica_sentence(data):
        return (Card("sure", "How sure", "A test of this page's own rule", (alone,)),)
    return (_use(data), _breaks(data), _sure(data), _next(data))


def _nothing(data: ReportData) -> str:
    if any(run.status is RunStatus.DIVERGED for run in data.sweep.runs) and not data.sweep.count(RunStatus.PENDING):
        return "Every run diverged or failed, so nothing can be ranked: lower the learning rate or look at the data."
    return "No run is finished."


def where(condition: Condition) -> str:
    """`with the reference wrong on 75 % of topics and 40 % flips`."""
    return "with " + said(", ".join(filter(None, [condition.setting, noise(condition)])))


def _span(band: Recommended) -> str:
    names = [noise(arena.first) for arena in band.arenas]
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"


def _names(band: Recommended) -> str:
    """`simpo, beta 2 to 10`, or two of them; beyond that how many are not told apart."""
    texts = [choice.text for choice in band.choices]
    if len(texts) <= NAMED - 1:
        return " or ".join(texts)
    return f"{texts[0]} (one of {sum(len(choice.arms) for choice in band.choices)} settings not told apart)"


def _quality(data: ReportData, cell: Cell, measure: str) -> str:
    ranked = f"ranks {percents(cell.ranking)} of held-out pairs right"
    reward, learnt = cell.estimate(GOLD), data.reward_model(cell)
    beside = f" (the reward model that it learnt from: {percents(learnt)})" if learnt is not None else ""
    worth = f", {data.sweep.reward} of its answers {shown(reward)}" if measure == GOLD and reward.n else ""
    return f"{ranked}{beside}{worth}"


def _use(data: ReportData) -> Card:
    found = data.recommendation
    if found is None:
        return _alone(data)
    first, *later = found.bands
    lines = []
    if len(first.choices) >= NAMED:
        lines.append(f"Not told apart: {'; '.join(choice.text for choice in first.choices)}.")
    lead = found.lead
    text = lead.named if later or len(first.choices) > 1 or len(first.choices[0].arms) > 1 else "It"
    world = said(without_training(found.arenas[0].first.setting, found.arenas[0].axes)[0])
    scope = ", ".join(filter(None, [_span(first), f"with {world}" if world else ""]))
    lines.append(f"{scope[0].upper()}{scope[1:]} ({'; '.join(filter(None, [_seeds(lead), found.shared]))}).")
    here = noise(found.arenas[0].first)
    lines.append(f"{text} {_quality(data, lead, found.measure)}{f' with {here}' if len(first.arenas) > 1 else ''}.")
    if len(first.arenas) > 1:
        end = first.arenas[-1].cell(*first.choices[0].arms[0])
        if end is not None:
            reward = end.estimate(GOLD)
            beside = f", {data.sweep.reward} {shown(reward)}" if found.measure == GOLD and reward.n else ""
            lines.append(f"With {noise(first.arenas[-1].first)}: {percents(end.ranking)}{beside}.")
    lines += [_crossing(data, found, band) for band in later]
    lines += filter(None, [levels_sentence(data)])
    near = first.cheapest
    if near is not None and near is not lead:
        kl = number(near.estimate("kl").mean, 1)
        lines.append(f"Closest to the reference of these: {near.named}, KL {kl} nats.")
    return Card("use", "Use", _names(first), tuple(lines))


def _ranks_most(found: Recommendation) -> list[str]:
    """The arm that ranks most pairs right, where quality is the reward of answers and that arm is shown to be worse."""
    arena, pick = found.arenas[0], found.picks[0]
    best = max((cell for cell in arena.cells if cell.values(RANKING)), key=lambda cell: cell.ranking.mean, default=None)
    if found.measure != GOLD or best is None or (best.first.objective, arena.setting(best)) in pick.arms:
        return []
    kl, reward = number(best.estimate("kl").mean, 1), shown(best.estimate(GOLD))
    return [
        f"Most pairs are ranked right by {best.named}, {percents(best.ranking)}, at KL {kl} nats: there its answers are"
        f" worth {reward}, shown to be less."
    ]


def _crossing(data: ReportData, found: Recommendation, band: Recommended) -> str:
    """What to use in a later band, and whether the first band's choice is shown worse throughout it."""
    first = found.bands[0].choices[0]
    picks = [pick for arena, pick in zip(found.arenas, found.picks, strict=True) if arena in band.arenas]
    worse = f"; {first.text} is shown worse there" if all(set(first.arms) <= set(p.beaten) for p in picks) else ""
    lead = band.choices[0].lead
    return f"Expect {_span(band)}? {_names(band)}: {lead.named} {_quality(data, lead, found.measure)}{worse}."


def _alone(data: ReportData) -> Card:
    """Nothing to choose between: one arm, or no arm with an outcome under every rate."""
    finished = measured(data.headline.cells)
    if not finished:
        return Card("use", "Use", "Nothing to use yet", ("No run of the headline condition is finished.",))
    best = max(finished, key=lambda cell: cell.ranking.mean)
    text = f"It {_quality(data, best, GOLD)} ({where(data.headline)}; {_seeds(best)})."
    only = "Nothing else was finished to compare it with." if len(finished) == 1 else "Not every rate is finished yet."
    return Card("use", "Use", best.named, (text, only))


def _seeds(cell: Cell) -> str:
    ended = len(cell.values(RANKING))
    lost = f", {cell.lost} lost and counted as worst" if cell.lost else ""
    return f"{quantity(ended, 'seed') if not cell.waiting else f'{ended} of {cell.planned} seeds so far'}{lost}"


def _breaks(data: ReportData) -> Card:
    failure = largest_failure([c for f in data.families for c in f.conditions], data.baseline)
    damage = damage_sentence(damages(data.families), data.baseline)
    if failure is None:
        worst = most_costly(damages(data.families), data.baseline)
        title = "" if worst is None else f"{worst.label} costs {visible(data.baseline)} most"
        return Card("breaks", "What breaks", *((title, (damage,)) if damage else _holds(data)))
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
    most = () if data.recommendation is None else _ranks_most(data.recommendation)
    more = (f"I{begins[1:]}." if begins else "", _best_as_it_is(data, failure), _lowest(failure), damage, *most)
    return Card("breaks", "What breaks", title, tuple(filter(None, [text, *types, *more])))


def _best_as_it_is(data: ReportData, failure: Failure) -> str:
    """Says where the failing setting is the recommended one, so that the two cards do not seem to contradict."""
    found = data.recommendation
    if found is None or failure.cell.first.arm != found.lead.first.arm:
        return ""
    return "It is the recommended setting itself: of what was tried none is shown to do better."


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
    text = f"{worst.named} {_quality(data, worst, RANKING)}{beside} ({_seeds(worst)})."
    return f"No failure of {visible(data.baseline)} is shown", (text,)


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
    leads = [found.leads_over(name) for name in rivals]
    parts = [_against(one) for one in leads if one]
    if data.baseline == found.lead.first.objective:
        parts.insert(0, f"{visible(data.baseline)} itself leads.")
    lines = [_lead_line(found, max(one, key=lambda lead: lead.interval.low), data.sweep.reward) for one in leads if one]
    return Card("sure", "How sure", " ".join(parts), (*lines, *notes))


def _against(leads: Sequence[Lead]) -> str:
    """`Against dpo: shown at 20 % flips and 40 % flips, not with clean labels.`"""
    shown_at = [noise(lead.arena.first) for lead in leads if lead.shown]
    name = visible(leads[0].over.first.objective)
    if len(shown_at) in (0, len(leads)):
        return f"Against {name}: {'shown' if shown_at else 'not shown'}."
    return f"Against {name}: shown with {' and '.join(shown_at)} only."


def _lead_line(found: Recommendation, lead: Lead, reward: str) -> str:
    """`+21.5 points [17.7, 25.4] of cpo_smooth at beta 2 on dpo at beta 0.5 (10 seeds, ...)`."""
    value = lead.interval
    what = f"{shown(value)} in {reward}" if found.measure == GOLD else percents(value, "\u00a0points")
    n = f"{quantity(value.n, 'seed')}, paired, corrected for {quantity(lead.family, 'comparison')}"
    sign = "+" if value.mean > 0 else ""
    return f"{lead.by.named} against {lead.over.named} with {noise(lead.arena.first)}: {sign}{what} ({n})."


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
    kl, malformed = cell.estimate("kl"), cell.described("malformed")
    title = ", ".join(
        filter(
            None,
            [
                f"KL {number(kl.mean, 1)} nats" if kl.n else "",
                f"{percent(malformed.mean)} malformed answers" if malformed.n else "",
                quantity_of(cost(cell, "seconds"), "s") + " per run" if cost(cell, "seconds") else "",
            ],
        )
    )
    edges = []
    for name in dict.fromkeys((cell.first.objective, data.baseline)):
        edge = data.arena.edge(name)
        betas = {one.first.beta for one in data.arena.of(name)}
        if edge is not None and (edge.side != "only" or len(betas) == 1):
            edges.append(edge_text(name, edge))
    more = [f"Before you trust it: {'; '.join(edges)}."] if edges else []
    real = all(one.first.misaligned is None for one in data.cells)
    command = "" if real else "harness init mine.yaml --data prefs.jsonl.gz"
    lines = (*filter(None, [good_news(data)]), *more, *([] if real else ["Try it on your own pairs:"]))
    return Card("next", "What it costs, what next", title or "No cost is known", lines, command)


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
