"""What a study found: tuned objectives compared on fresh seeds, and what each way of selecting would have cost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.metrics.not_shown_worse import ALPHA, Pick, not_shown_worse
from harness.metrics.registry import METRICS
from harness.metrics.statistics import (
    NO_DIFFERENCE,
    NOTHING,
    Estimate,
    ItemLevel,
    Pairs,
    cell_estimate,
    corrected_p,
    judge,
    paired_differences,
    practical_margin,
    t_interval,
)
from harness.report.data.sweep import Run
from harness.report.render.text import number, quantity, shown
from harness.report.study.study import Study, StudyTrial

CLEAN, OBSERVED, TEST = "validation_clean", "validation_observed", "test"
GOLD, KL = "gold_reward", "kl"


@dataclass(frozen=True, slots=True)
class TunedDifference:
    """The tuned baseline minus another tuned objective over their common fresh seeds, on pairs that steered nothing.

    Where each is searched several times it is the mean over its searches' winners, and the intervals hold the variation
    between searches as well as that between seeds.
    `plain` is the paired t interval, `corrected` the simultaneous one over all comparisons, `p` Holm-corrected (None
    where no data could make it significant), `mde` the smallest difference found with power .8 (None below 2), `word`
    the verdict on `one`.
    """

    one: str
    other: str
    plain: Estimate
    corrected: Estimate
    p: float | None
    word: str
    mde: float | None


def tuned_differences(study: Study) -> list[TunedDifference]:
    """The tuned baseline against every other arm's winner; arms without common fresh seeds are left out."""
    base = study.by_search(study.baseline)
    by_arm: dict[str, tuple[NDArray[np.float64], ItemLevel | None]] = {}
    for arm in study.objectives:
        scores = study.by_search(arm)
        if arm != study.baseline and base and scores:
            differences = paired_differences(_mean_by_seed(base), _mean_by_seed(scores))
            if differences.size:
                by_arm[arm] = differences, _between_searches(base, scores)
    direction, planned = "up" if study.maximize else "down", len(study.about["fresh_seeds"])
    margin = practical_margin(study.measure in METRICS and METRICS[study.measure].share)
    out = []
    corrected = corrected_p([differences for differences, _ in by_arm.values()])
    for (arm, (differences, searches)), p in zip(by_arm.items(), corrected, strict=True):
        by_seed = dict(enumerate(differences.tolist()))
        found = judge(by_seed, family=len(by_arm), planned=planned, margin=margin, direction=direction, items=searches)
        p = p if searches is None else None  # sign flips over seeds know nothing of the searches
        out.append(TunedDifference(study.baseline, arm, found.plain, found.corrected, p, found.word, found.mde))
    return out


def pick_among(study: Study, objectives: Sequence[str]) -> Pick[str]:
    """Those of the tuned objectives that are not shown worse than the best in the target, by the sweep's own rule."""
    searches = {name: study.by_search(name) for name in objectives}
    sign = 1.0 if study.maximize else -1.0
    values = {name: {seed: sign * v for seed, v in _mean_by_seed(one).items()} for name, one in searches.items() if one}

    def lead(a: str, b: str, family: int) -> Estimate:
        both = {seed: values[a][seed] - values[b][seed] for seed in values[a].keys() & values[b].keys()}
        items = _between_searches(searches[a], searches[b])
        return judge(both, family=family, alpha=2 * ALPHA, items=items).corrected

    return not_shown_worse(values, lead)


def tuned(study: Study, objective: str) -> Estimate:
    """The target of an objective's winners on fresh seeds and untouched pairs; the mean over its searches."""
    scores = study.by_search(objective)
    if len(scores) == 1:
        [label] = scores
        winner = study.winner(label)
        assert winner is not None, "an arm with scores has a winner"
        return study.estimate(winner.fresh, study.measure, study.report_split)
    return t_interval(list(_mean_by_seed(scores).values())) if scores else NOTHING


def _mean_by_seed(scores: Mapping[str, Mapping[int, float]]) -> dict[int, float]:
    """The mean over searches, on the seeds that all of their winners have."""
    seeds = sorted(set.intersection(*(set(by_seed) for by_seed in scores.values())))
    return {seed: math.fsum(by_seed[seed] for by_seed in scores.values()) / len(scores) for seed in seeds}


def _between_searches(*sides: Mapping[str, Mapping[int, float]]) -> ItemLevel | None:
    """What the searches add to t over seeds: the variance of a mean over searches, of both sides together.

    Means over seeds of two searches' winners differ by chance of the seeds as well, so this is rather too much. None
    where no side was searched twice.
    """
    variance, df = 0.0, 0
    for scores in sides:
        means = [math.fsum(by_seed.values()) / len(by_seed) for by_seed in scores.values()]
        if len(means) > 1:
            variance += stdev(means) ** 2 / len(means)
            df += len(means) - 1
    # Searches stand where prompts stand elsewhere: a second component of variance, without pairs of its own.
    return ItemLevel(Pairs(0.0, None, None, math.inf), added=variance, prompts=df + 1) if df else None


@dataclass(frozen=True, slots=True)
class Breach:
    """A bound on a winner's fresh seeds: `kept` where the interval lies within, `broken` where the mean lies beyond,
    else `not shown to be kept`."""

    arm: str
    bound: str
    fresh: Estimate
    word: str


def breaches(study: Study) -> list[Breach]:
    """Every bound of the search on the fresh seeds of every winner; those without a measurement are left out."""
    out = []
    won = [winner for arm in study.arms if (winner := study.winner(arm)) is not None]
    for winner in won:
        for bound in study.about["constraints"]:
            fresh = study.estimate(winner.fresh, bound["measure"], bound["split"])
            if fresh.n:
                upper = bound["at_most"] is not None
                mean, worst = (fresh.mean, fresh.high) if upper else (-fresh.mean, -fresh.low)
                limit = bound["at_most"] if upper else -bound["at_least"]
                word = "broken" if mean > limit else "kept" if worst <= limit else "not shown to be kept"
                out.append(Breach(winner.arm, bound["name"], fresh, word))
    return out


@dataclass(frozen=True, slots=True)
class Selection:
    """What one rule picks among an arm's trials and checkpoints: its score there, on test pairs, and what that costs
    against the best candidate on test pairs (`regret` >= 0, in the measure's unit)."""

    arm: str
    rule: str
    trial: int
    step: int
    seen: float
    test: float
    regret: float


RULES = (
    ("clean validation, any checkpoint", CLEAN, False),
    ("clean validation, last step", CLEAN, True),
    ("noisy validation, any checkpoint", OBSERVED, False),
    ("noisy validation, last step", OBSERVED, True),
)


def selections(study: Study, arm: str) -> list[Selection]:
    """Every rule's pick for an arm, on the search seeds; rules without their labels are left out."""
    sign = 1.0 if study.maximize else -1.0
    candidates = list(_candidates(study, arm))
    if not candidates:
        return []
    best = max(sign * scores[TEST] for _, _, _, scores in candidates)
    out = []
    for rule, split, last in RULES:
        able = [c for c in candidates if split in c[3] and (c[2] or not last)]
        if able:
            trial, step, _, scores = max(able, key=lambda c: (sign * c[3][split], -c[0].number, -c[1]))
            regret = best - sign * scores[TEST]
            out.append(Selection(arm, rule, trial.number, step, scores[split], scores[TEST], regret))
    return out


def _candidates(study: Study, arm: str) -> Iterator[tuple[StudyTrial, int, bool, dict[str, float]]]:
    """(trial, step, whether it is the last, mean over seeds by split) of complete trials, wherever test is known."""
    for trial in study.of(arm):
        if not trial.feasible or not trial.runs:
            continue
        by_split = {
            split: [study.at(key, study.measure, split) for key in trial.runs] for split in (CLEAN, OBSERVED, TEST)
        }
        steps = sorted(set.intersection(*(set(found) for found in by_split[TEST])))
        for step in [step for step in steps if step > 0]:
            scores = {
                split: sum(found[step].value for found in seeds) / len(seeds)
                for split, seeds in by_split.items()
                if all(step in found for found in seeds)
            }
            yield trial, step, step == steps[-1], scores


def fresh_results(study: Study, arm: str, names: Sequence[str]) -> dict[str, Estimate]:
    """Columns of `results.csv` over the fresh seeds of an arm's winner; `n` 0 where nothing is known."""
    winner = study.winner(arm)
    rows = [study.runs[key].result for key in (winner.fresh if winner else ()) if key in study.runs]
    results = [row["results"] for row in rows if row is not None and row["status"] == "done"]
    out = {}
    for name in names:
        values = [float(r[name]) for r in results if isinstance(r.get(name), int | float) and math.isfinite(r[name])]
        share = name in METRICS and METRICS[name].share
        out[name] = cell_estimate(values, share=share)
    return out


def objective_results(study: Study, objective: str, names: Sequence[str]) -> dict[str, Estimate]:
    """Columns of `results.csv` over the fresh seeds, each the mean over the winners of an objective's searches."""
    won = {label: winner for label in study.objectives[objective] if (winner := study.winner(label)) is not None}
    out = {}
    for name in names:
        scores = {
            label: {run.seed: value for run in _done(study, winner) if (value := run.measured(name)) is not None}
            for label, winner in won.items()
        }
        known = {label: by_seed for label, by_seed in scores.items() if by_seed}
        out[name] = t_interval(list(_mean_by_seed(known).values())) if known else NOTHING
    return out


def kl_bound(study: Study) -> Mapping[str, Any] | None:
    """The search's upper bound on KL, None where it had none."""
    return next((b for b in study.about["constraints"] if b["measure"] == KL and b["at_most"] is not None), None)


def distance(study: Study, *arms: str) -> Estimate:
    """KL over the fresh seeds of a search's winner, or its mean over those of several; NOTHING where none is known.

    On the pairs that the search's bound is on, so that a bound's verdict and what is drawn beside it are one number;
    without a bound the KL of `results.csv`.
    """
    bound = kl_bound(study)
    scores = {}
    for arm in arms:
        winner = study.winner(arm)
        if winner is None:
            continue
        if bound is None:
            runs = _done(study, winner)
            by_seed = {run.seed: value for run in runs if (value := run.measured(KL)) is not None}
        else:
            by_seed = {seed: score.value for seed, score in study.last(winner.fresh, KL, bound["split"]).items()}
        if by_seed:
            scores[arm] = by_seed
    return t_interval(list(_mean_by_seed(scores).values())) if scores else NOTHING


def _done(study: Study, winner: StudyTrial) -> list[Run]:
    return [study.runs[key] for key in winner.fresh if key in study.runs and study.runs[key].done]


def reference_gold(study: Study) -> float | None:
    """Mean gold reward of the reference's own answers over the winners' fresh seeds; None where there is none."""
    name = "reference_gold_reward"
    known = [e.mean for arm in study.arms if (e := fresh_results(study, arm, (name,))[name]).n]
    return math.fsum(known) / len(known) if known else None


def price_sentence(study: Study, arms: Sequence[str]) -> str:
    """Says so where the winners of `arms` answer worse than the reference they came from: interval below its mean."""
    level = reference_gold(study)
    if level is None:
        return ""
    results = {arm: fresh_results(study, arm, (GOLD,))[GOLD] for arm in arms}
    worse = {arm: e for arm, e in results.items() if e.n > 1 and e.high < level}
    if not worse:
        return ""
    paid = "; ".join(
        f"{study.called(arm)} {number(e.mean)} at a KL of {number(distance(study, arm).mean)}"
        for arm, e in worse.items()
    )
    reference = f"the reference's {number(level)}"
    return f" The ranking was bought: free answers have less {study.reward} than {reference} ({paid})."


def rescue_sentence(study: Study, differences: list[TunedDifference]) -> str:
    """The answer in a sentence or two: how the tuned baseline stands against the best tuned rival."""
    if not differences:
        return "Nothing to compare yet: no two tuned objectives have runs on common fresh seeds."
    sign = 1.0 if study.maximize else -1.0
    named = next((d for d in differences if d.other == "cpo_smooth"), None)
    chosen = named or min(differences, key=lambda d: sign * d.plain.mean)
    difference = f"{shown(chosen.corrected)} in {study.measure.replace('_', ' ')}"
    trials = sorted({len(study.of(arm)) for arm in (chosen.one, chosen.other)})
    seeds = len(study.about["seeds"])
    equal = "equal budgets" if len(trials) == 1 else "unequal budgets"
    searches = max(len(study.objectives[arm]) for arm in (chosen.one, chosen.other))
    budget = f"{' and '.join(map(str, trials))} trials of {quantity(seeds, 'seed')} each"
    budget += f" in each of {searches} searches" if searches > 1 else ""
    head = (
        f"Tuned {chosen.one} minus tuned {chosen.other}: {difference} on {chosen.plain.n} fresh seeds, "
        f"after {equal} of {budget}."
    )
    broken = [f"{study.called(b.arm)} {b.bound}: {number(b.fresh.mean)}" for b in breaches(study) if b.word == "broken"]
    flag = f" Broken on fresh seeds: {'; '.join(broken)}." if broken else ""
    tails = {
        "worse": f" Tuning does not rescue {chosen.one} here: tuned {chosen.other} is better still.",
        "better": f" Tuned {chosen.one} is even better than tuned {chosen.other} here.",
        NO_DIFFERENCE: f" No difference is shown: tuned {chosen.one} holds up against tuned {chosen.other} as far as "
        f"these seeds can tell (a true difference of {chosen.mde or 0:.3f} would have been found in 4 of 5 studies).",
    }
    price = price_sentence(study, [arm for one in (chosen.one, chosen.other) for arm in study.objectives[one]])
    return head + tails.get(chosen.word, f" Verdict: {chosen.word}.") + price + flag
