"""The four cards that head a study's page: which tuned objective to use, what breaks, how sure that is, its cost."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.metrics.not_shown_worse import Pick
from harness.metrics.registry import METRICS
from harness.metrics.statistics import MIN_SEEDS, Estimate
from harness.report.data.conditions import dial
from harness.report.render.blocks import Card
from harness.report.render.text import number, percent, percents, points, quantity, shown, visible
from harness.report.study.findings import (
    GOLD,
    KL,
    Breach,
    TunedDifference,
    breaches,
    distance,
    fresh_results,
    objective_results,
    pick_among,
    reference_gold,
    selections,
    tuned,
)
from harness.report.study.study import Study, StudyTrial
from harness.report.study.tables import bound_words, edges, shown_params

DIGITS = 2  # of a setting on a card: no more matter; the table has them all
PER_HOUR, PER_MINUTE = 3600, 60


def cards(study: Study, differences: Sequence[TunedDifference]) -> tuple[Card, ...]:
    """Use, what breaks, how sure, what it cost and what next; one card where no winner was run on fresh seeds."""
    if not any(study.by_search(name) for name in study.objectives):
        nothing = "No winner has a finished run on fresh seeds, so nothing can be compared."
        return (Card("use", "Use", "Nothing to use yet", (nothing,)),)
    bounds = breaches(study)
    broken = [breach for breach in bounds if breach.word == "broken"]
    return (_use(study, bounds, broken), _breaks(study, broken, differences), _sure(study, differences), _next(study))


def amount(study: Study, value: Estimate) -> str:
    """The target of a study: percent where it is a share, else its own unit."""
    return percents(value) if _share(study) else shown(value)


def target_words(study: Study) -> str:
    """What the study was tuned for, in a reader's words."""
    return "ranked right" if study.measure == "ranking_accuracy" else study.measure.replace("_", " ")


def unit(study: Study) -> float:
    """What the target is multiplied by in a figure: 100 for a share."""
    return 100.0 if _share(study) else 1.0


def _share(study: Study) -> bool:
    return study.measure in METRICS and METRICS[study.measure].share


def _won(study: Study, objective: str) -> list[StudyTrial]:
    won = (study.winner(label) for label in study.objectives[objective])
    return [trial for trial in won if trial is not None]


def kept(study: Study, broken: Sequence[Breach]) -> tuple[str, ...]:
    """The objectives with a result on fresh seeds of whose winners no more than half break a bound there."""
    arms = {breach.arm for breach in broken}
    return tuple(
        name
        for name, labels in study.objectives.items()
        if study.by_search(name) and 2 * len(arms.intersection(labels)) <= len(labels)
    )


def named(study: Study, objective: str, broken: Sequence[Breach]) -> int:
    """Which of an objective's searches the page names: the first whose winner keeps the bounds, else the first."""
    arms = {breach.arm for breach in broken}
    won = [index for index, label in enumerate(study.objectives[objective]) if study.winner(label) is not None]
    return next((index for index in won if study.objectives[objective][index] not in arms), won[0])


def _worth(study: Study, target: Estimate, reward: Estimate, kl: Estimate) -> str:
    """`ranks 69 % of held-out pairs right, true reward of its answers -0.3 [...] (before training -0.1), KL 1.9 nats`:
    what a winner reaches, is worth and costs."""
    value = amount(study, target)
    ranking = study.measure == "ranking_accuracy"
    parts = [f"ranks {value} of held-out pairs right" if ranking else f"has {target_words(study)} {value}"]
    if reward.n and study.measure != GOLD:
        level = reference_gold(study)
        before = "" if level is None else f" (before training {number(level)})"
        parts.append(f"{study.reward} of its answers {shown(reward)}{before}")
    if kl.n and study.measure != KL:
        parts.append(f"KL {number(kl.mean, 1)} nats")
    return ", ".join(parts)


def _winner_said(study: Study, winner: StudyTrial) -> str:
    """What one search's winner is worth on its own fresh seeds."""
    target = study.estimate(winner.fresh, study.measure, study.report_split)
    return _worth(study, target, fresh_results(study, winner.arm, (GOLD,))[GOLD], distance(study, winner.arm))


def _said(study: Study, objective: str) -> str:
    """What an objective is worth, on average of its searches where it has several."""
    labels = study.objectives[objective]
    reward = objective_results(study, objective, (GOLD,))[GOLD]
    text = _worth(study, tuned(study, objective), reward, distance(study, *labels))
    return text if len(labels) == 1 else f"{text} (average of its {len(labels)} searches)"


def _use(study: Study, bounds: Sequence[Breach], broken: Sequence[Breach]) -> Card:
    able = kept(study, broken)
    every = tuple(name for name in study.objectives if study.by_search(name))
    pick = pick_among(study, able or every)
    lead = pick.arms[0]
    labels = study.objectives[lead]
    winner = study.winner(labels[named(study, lead, broken)])
    assert winner is not None
    lines = [f"It {_winner_said(study, winner)} ({_seeds(study, winner)}, {_where(study)})."]
    lines += [
        f"Its bound, {bound_words(study, b.bound)}, is {b.word}: {shown(b.fresh)} on fresh seeds."
        for b in bounds
        if b.arm == winner.arm
    ]
    if len(labels) > 1:
        verb = f"rank {amount(study, tuned(study, lead))} right" if study.measure == "ranking_accuracy" else (
            f"have {target_words(study)} {amount(study, tuned(study, lead))}"
        )  # fmt: skip
        beyond = [study.search(arm) for arm in labels if arm in {b.arm for b in broken}]
        rest = f"; the winner of {' and '.join(beyond)} breaks a bound" if beyond and able else ""
        lines.append(f"On average its {len(labels)} searches {verb}{rest}.")
    lines += [f"Not told apart: {name}, {_said(study, name)}." for name in pick.arms[1:3]]
    if len(pick.arms) > 3:
        lines.append(f"Nor {' nor '.join(pick.arms[3:])}.")
    lines += _higher(study, able, pick)
    lines.append(_chosen(study, every, lead))
    title = f"{visible(lead)}, {shown_params(winner, DIGITS)}"
    title += f" ({study.search(winner.arm)})" if len(labels) > 1 else ""
    if len(pick.arms) > 1:
        title += f" (one of {len(pick.arms)} tuned objectives not told apart)"
    if not able:
        title = f"Nothing keeps its bounds; best of what breaks them: {title}"
    return Card("use", "Use", title, tuple(lines))


def _chosen(study: Study, every: Sequence[str], lead: str) -> str:
    """By what the first card chose, and who stands highest by what a sweep's report chooses by."""
    what = "pairs ranked right" if study.measure == "ranking_accuracy" else target_words(study)
    within = ", within the bounds" if study.about["constraints"] else ""
    text = f"Chosen by {what}, the study's target{within}"
    rewards = {name: objective_results(study, name, (GOLD,))[GOLD] for name in every}
    known = {name: value.mean for name, value in rewards.items() if value.n}
    if not known or study.measure == GOLD:
        return f"{text}."
    best = max(known, key=lambda name: (known[name], name == lead))
    stands = "it stands highest, too" if best == lead else f"{visible(best)} stands highest ({number(known[best])})"
    return f"{text}; by {study.reward}, as sweeps choose, {stands}."


def _higher(study: Study, able: Sequence[str], pick: Pick[str]) -> list[str]:
    """Objectives with a better target than the recommended one that broke a bound for it."""
    sign = 1 if study.maximize else -1
    best = sign * tuned(study, pick.arms[0]).mean
    more = [n for n in study.objectives if n not in able and study.by_search(n) and sign * tuned(study, n).mean > best]
    return [f"{visible(name)} {_said(study, name)}, beyond a bound." for name in more] if able else []


def _seeds(study: Study, winner: StudyTrial) -> str:
    return quantity(study.estimate(winner.fresh, study.measure, study.report_split).n, "fresh seed")


def _where(study: Study) -> str:
    """`30 % flips, reference wrong on 50 % of topics`."""
    run = study.sweep.runs[0]
    rate = run.config["corruption"].get("rate")
    kind = "flips" if run.corruption == "uniform_flip" else visible(run.corruption_text)
    noise = "clean labels" if run.corruption == "none" else kind if rate is None else f"{percent(rate)} {kind}"
    return ", ".join([noise, *([] if run.misaligned is None else [dial(run.misaligned)])])


def _breaks(study: Study, broken: Sequence[Breach], differences: Sequence[TunedDifference]) -> Card:
    level = reference_gold(study)
    rewards = {arm: fresh_results(study, arm, (GOLD,))[GOLD] for arm in study.arms}
    bought = [
        f"{visible(study.called(arm))}, {shown(value)}"
        for arm, value in rewards.items()
        if level is not None and value.n > 1 and value.high < level
    ]
    winners = quantity(len(study.arms), "winner")
    beyond = len({breach.arm for breach in broken})
    lines = [
        f"Beyond {bound_words(study, bound)}, on fresh seeds: "
        + "; ".join(f"{visible(study.called(b.arm))}, {shown(b.fresh)}" for b in broken if b.bound == bound)
        + "."
        for bound in dict.fromkeys(breach.bound for breach in broken)
    ]
    if bought:
        what = "ranking" if study.measure == "ranking_accuracy" else target_words(study)
        title = f"The {what} was bought with worse answers in {len(bought)} of {winners}"
        title += f"; {beyond} break{'s' if beyond == 1 else ''} a bound" if broken else ""
        worse = f"Worse than the untrained model's {study.reward} of {number(level)}: {'; '.join(bought)}."
        return Card("breaks", "What breaks", title, (worse, *lines))
    if broken:
        names = " or ".join(dict.fromkeys(bound_words(study, breach.bound) for breach in broken))
        title = f"{beyond} of {winners} break{'s' if beyond == 1 else ''} the bound, {names}"
        return Card("breaks", "What breaks", title, tuple(lines))
    behind = [d for d in differences if d.word == "worse"]
    if behind:
        title = f"Tuning does not rescue {visible(study.baseline)}"
        return Card("breaks", "What breaks", title, tuple(_difference(study, d) for d in behind))
    return Card("breaks", "What breaks", *_fall(study))


def _fall(study: Study) -> tuple[str, tuple[str, ...]]:
    """The winner whose search score came back least: the luck of the best of many trials."""
    sign = 1 if study.maximize else -1
    falls = {
        trial.arm: sign * (trial.values[0] - study.estimate(trial.fresh, study.measure, study.split).mean)
        for name in study.objectives
        for trial in _won(study, name)
    }
    arm = max((name for name in falls if math.isfinite(falls[name])), key=lambda name: falls[name])
    text = f"{points(falls[arm])} points" if _share(study) else number(falls[arm])
    return "Nothing of the winners", (
        "No bound is broken and no winner answers worse than before training. The search promised"
        f" {visible(study.called(arm))}"
        f" {text} more than fresh seeds gave: the best of many trials is partly luck.",
    )


def _sure(study: Study, differences: Sequence[TunedDifference]) -> Card:
    base = visible(study.baseline)
    few = len(study.about["fresh_seeds"])
    notes = [f"With {quantity(few, 'fresh seed')} these are intervals, no verdicts."] if few < MIN_SEEDS else []
    if study.about["sampler_seeds"] == 1:
        notes.append("One search per objective: the luck of the search is not in the intervals.")
    if study.sweep.runs[0].misaligned is not None:
        notes.append("A small world: what fails and why carries over, the betas do not.")
    if not differences:
        return Card("sure", "How sure", "Nothing is compared", tuple(notes))
    words: dict[str, list[str]] = {}
    for one in differences:
        words.setdefault(one.word, []).append(visible(one.other))
    said = {"worse": "worse than", "better": "better than", "no difference shown": "not told apart from"}
    head = f"Tuning does not rescue {base}: " if "worse" in words else f"Tuned {base}: "
    title = head + "; ".join(
        f"{said[word]} tuned {' and '.join(names)}" if word in said else f"{word} against {' and '.join(names)}"
        for word, names in sorted(words.items(), key=lambda one: one[0] != "worse")
    )
    ranked = sorted(differences, key=lambda d: d.word == "no difference shown")
    n = quantity(min(d.plain.n for d in differences), "fresh seed")
    how = f"Over {n}, paired, corrected for {quantity(len(differences), 'comparison')}. {_budget(study)}"
    return Card("sure", "How sure", title, (*(_difference(study, d) for d in ranked[:3]), how, *notes))


def _difference(study: Study, d: TunedDifference) -> str:
    """`Tuned dpo against cpo_smooth: -1.4 points [-2.6, -0.2].`"""
    value = percents(d.corrected, "\u00a0points") if _share(study) else shown(d.corrected)
    sign = "+" if d.corrected.mean > 0 else ""
    hidden = ""
    if d.word == "no difference shown" and d.mde is not None:
        limit = f"{points(d.mde)} points" if _share(study) else number(d.mde)
        hidden = f"; up to {limit} could stay hidden"
    return f"Tuned {visible(d.one)} against {visible(d.other)}: {sign}{value}{hidden}."


def _budget(study: Study) -> str:
    trials = sorted({len(study.of(arm)) for arm in study.arms})
    searches = study.about["sampler_seeds"]
    each = f" in each of {searches} searches" if searches > 1 else ""
    equal = "Equal budgets" if len(trials) == 1 else "Unequal budgets"
    return f"{equal}: {' or '.join(map(str, trials))} trials of {quantity(len(study.about['seeds']), 'seed')}{each}."


def _next(study: Study) -> Card:
    runs, _, seconds = study.cost([key for trial in study.trials for key in (*trial.runs, *trial.fresh)])
    took = f"{seconds / PER_HOUR:.1f} h" if seconds >= PER_HOUR else f"{seconds / PER_MINUTE:.0f} min"
    title = f"{quantity(len(study.trials), 'trial')}, {quantity(runs, 'run')}, {took} of one core"
    won = [trial for name in study.objectives for trial in _won(study, name)]
    ends = [f"{visible(study.called(trial.arm))}: {edge}" for trial in won for edge in edges(study, trial)]
    lines = [f"Before you trust it, widen the search: {'; '.join(ends)}."] if ends else []
    lines += _noisy(study)
    real = study.sweep.runs[0].misaligned is None
    return Card(
        "next", "What it cost, what next", title, (*lines, *([] if real else ["Try the settings on your own pairs:"])),
        "" if real else "harness init mine.yaml --data prefs.jsonl.gz",
    )  # fmt: skip


def _noisy(study: Study) -> list[str]:
    """What choosing by noisy labels, all that a practitioner has, would have cost at most."""
    found = [s for arm in study.arms for s in selections(study, arm) if s.rule == "noisy validation, last step"]
    worst = max(found, key=lambda s: s.regret, default=None)
    if worst is None:
        return []
    if worst.regret <= 0:
        return ["Choosing by noisy labels, all that you have in practice, would have cost nothing here."]
    text = f"{points(worst.regret)} points" if _share(study) else number(worst.regret)
    where = visible(study.called(worst.arm))
    return [f"Choosing by noisy labels, all that you have in practice, costs at most {text} ({where})."]
