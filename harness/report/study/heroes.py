"""The two figures that head a study's page: the winners on fresh seeds, and what each is worth against KL."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from harness.metrics.statistics import NO_DIFFERENCE, Estimate
from harness.palette import looks
from harness.report.heroes import SIZE
from harness.report.render.figures import Picture, picture, tip
from harness.report.render.text import ascii_visible, number, percents, quantity, shorten, shown
from harness.report.study.cards import amount, target_words, unit
from harness.report.study.findings import (
    GOLD,
    TunedDifference,
    distance,
    fresh_results,
    kl_bound,
    reference_gold,
    tuned,
)
from harness.report.study.study import Study, StudyTrial
from harness.report.study.tables import shown_params

GREY = "#6b7280"


def heroes(study: Study, differences: Sequence[TunedDifference]) -> tuple[Picture, ...]:
    """What there is data for."""
    return tuple(found for found in (_winners(study, differences), _worth(study)) if found is not None)


def _won(study: Study) -> list[tuple[StudyTrial, Estimate]]:
    """Every search's winner with its target on fresh seeds, the best last."""
    won = [winner for arm in study.arms if (winner := study.winner(arm)) is not None]
    found = [(trial, study.estimate(trial.fresh, study.measure, study.report_split)) for trial in won]
    sign = 1 if study.maximize else -1
    return sorted((one for one in found if one[1].n), key=lambda one: sign * one[1].mean)


def _winners(study: Study, differences: Sequence[TunedDifference]) -> Picture | None:
    rows = _won(study)
    if not rows:
        return None
    seen, scale = looks(study.objectives), unit(study)
    axis = f"{target_words(study)}{', %' if scale > 1 else ''}"

    def paint(_: Any, axes: Any) -> None:
        panel = axes[0, 0]
        for y, (trial, value) in enumerate(rows):
            look = seen[study.owner(trial.arm)]
            seeds = [scale * score for score in study.fresh_scores(trial).values()]
            panel.plot(seeds, [y] * len(seeds), ".", color=look.colour, markersize=4, alpha=0.45)
            if math.isfinite(value.low):
                panel.plot([scale * value.low, scale * value.high], [y, y], color=look.colour, linewidth=1.4)
            name = study.called(trial.arm)
            text = f"{name}, {shown_params(trial)}: {amount(study, value)}, {quantity(value.n, 'fresh seed')}"
            panel.plot([scale * value.mean], [y], color=look.colour, marker=look.marker, markersize=7, gid=tip(text))
            panel.plot([scale * trial.values[0]], [y], "o", color=GREY, fillstyle="none", markersize=8,
                       gid=tip(f"{name} in the search: {number(trial.values[0])}"))  # fmt: skip
        panel.set_yticks(range(len(rows)), [ascii_visible(shorten(study.called(t.arm), 32)) for t, _ in rows])
        panel.set_ylim(-0.7, len(rows) - 0.3)
        panel.set_xlabel(ascii_visible(f"{axis} (hollow: what the search promised)"))
        panel.grid(axis="x")

    title = _compared(study, differences)
    return picture(
        "hero-winners",
        title,
        "Each search's winner on fresh seeds and on pairs that steered nothing, with its 95 % interval; small dots are"
        " seeds. The distance to the hollow mark is the luck of the best of many trials.",
        f"{title}. A row per search: the winner's {target_words(study)} on fresh seeds beside its score in the search.",
        (1, 1), SIZE, paint,
    )  # fmt: skip


def _compared(study: Study, differences: Sequence[TunedDifference]) -> str:
    """The comparison that was tested, the largest that is shown first; a lone objective's value where there is none."""
    ranking = study.measure == "ranking_accuracy"
    if not differences:
        name = next(name for name in study.objectives if study.by_search(name))
        value = amount(study, tuned(study, name))
        said = f"ranks {value} right" if ranking else f"has {target_words(study)} {value}"
        return f"Tuned {name} {said} on fresh seeds"
    most = max(differences, key=lambda d: (d.word in ("worse", "better"), abs(d.plain.mean)))
    if most.word == NO_DIFFERENCE:
        return f"Tuned {most.one} is not told apart from tuned {most.other}: {_apart(study, most.corrected, sign=True)}"
    if most.word not in ("worse", "better"):
        return f"Tuned {most.one} against tuned {most.other}: {_apart(study, most.corrected, sign=True)}, {most.word}"
    up, one, other = most.corrected, most.one, most.other
    if up.mean < 0:
        up, one, other = Estimate(up.n, -up.mean, -up.high, -up.low), other, one
    if ranking:
        return f"Tuned {one} ranks {_apart(study, up)} more pairs right than tuned {other}"
    return f"Tuned {one} has {_apart(study, up)} more {target_words(study)} than tuned {other}"


def _apart(study: Study, value: Estimate, sign: bool = False) -> str:
    """A difference of the target, in points where it is a share."""
    text = percents(value, "\u00a0points") if unit(study) > 1 else shown(value)
    return f"+{text}" if sign and value.mean > 0 else text


def _worth(study: Study) -> Picture | None:
    """The reward of answers (the target where there is none) against KL, with the bound that the search had on KL."""
    targets = {trial.arm: value for trial, value in _won(study)}
    rewards = {arm: fresh_results(study, arm, (GOLD,))[GOLD] for arm in targets}
    gold = any(value.n for value in rewards.values())
    values = rewards if gold else targets
    far = {arm: distance(study, arm) for arm in targets}
    marks = {arm: (far[arm], values[arm]) for arm in targets if far[arm].n and values[arm].n}
    if not marks:
        return None
    seen = looks(study.objectives)
    what = study.reward if gold else target_words(study)
    limited = kl_bound(study)
    bound = None if limited is None else limited["at_most"]
    before = reference_gold(study) if gold else None
    reach = max((x for kl, _ in marks.values() for x in (kl.mean, kl.high) if math.isfinite(x)), default=1.0) or 1.0
    drawn = bound is not None and bound <= 1.2 * reach  # a bound far beyond every mark would squeeze them to one

    def paint(_: Any, axes: Any) -> None:
        panel = axes[0, 0]
        for arm, (kl, value) in marks.items():
            look = seen[study.owner(arm)]
            for at in ([(kl.low, value.mean), (kl.high, value.mean)], [(kl.mean, value.low), (kl.mean, value.high)]):
                if all(map(math.isfinite, (*at[0], *at[1]))):
                    panel.plot([x for x, _ in at], [y for _, y in at], color=look.colour, linewidth=0.9, alpha=0.6)
            owner, name = study.owner(arm), study.called(arm)
            text = f"{name}: {what} {shown(value)} at KL {shown(kl)}, n = {value.n}"
            panel.plot([kl.mean], [value.mean], color=look.colour, marker=look.marker, markersize=7, gid=tip(text))
            best = arm == max((a for a in marks if study.owner(a) == owner), key=lambda a: marks[a][1].mean)
            labels = study.objectives[owner]
            search = str(labels.index(arm) + 1)
            label = (f"{owner} search {search}" if len(labels) > 1 else owner) if best else search
            panel.annotate(ascii_visible(shorten(label, 32)), (kl.mean, value.mean), xytext=(6, 5 if best else -12),
                           textcoords="offset points", fontsize=9, fontweight="bold", color=look.ink)  # fmt: skip
        if drawn:
            panel.axvline(bound, color=GREY, linewidth=1.0, linestyle="--")
            panel.annotate(f"bound {bound:g}", (bound, 0.02), xycoords=("data", "axes fraction"), xytext=(4, 0),
                           textcoords="offset points", fontsize=8, color=GREY)  # fmt: skip
        if before is not None:
            panel.plot([0], [before], "o", color=GREY, fillstyle="none", markersize=6,
                       gid=tip(f"before training: {number(before)}"))  # fmt: skip
            panel.annotate("before training", (0, before), xytext=(8, -4), textcoords="offset points", fontsize=8,
                           color=GREY)  # fmt: skip
        panel.set_xlim(-0.03 * reach, 1.2 * reach)
        panel.set_xlabel("how far from the reference: KL, nats")
        panel.set_ylabel(ascii_visible(f"{what} of free answers" if gold else what))

    title = _worth_finding(study, marks, what, bound)
    return picture(
        "hero-worth",
        title,
        f"{what[0].upper()}{what[1:]} against KL to the reference on fresh seeds, bars are 95 % intervals of both;"
        f" higher and further left is better.{_bound_said(limited, drawn)}{_numbers_said(study)}",
        f"{title}. A mark per search's winner, an objective's name at the best of its searches.",
        (1, 1), SIZE, paint,
    )  # fmt: skip


def _bound_said(bound: Mapping[str, Any] | None, drawn: bool) -> str:
    """Where the bound is, and that KL here is what it bounds: other pairs give another KL."""
    if bound is None:
        return ""
    place = " Dashed: the bound of the search" if drawn else f" The search's bound of {bound['at_most']:g} lies beyond"
    return f"{place}; KL is over the pairs it is on ({str(bound['split']).replace('_', ' ')}), as on the cards."


def _numbers_said(study: Study) -> str:
    several = any(len(labels) > 1 for labels in study.objectives.values())
    return " Numbers at the marks: which search." if several else ""


def _worth_finding(
    study: Study, marks: dict[str, tuple[Estimate, Estimate]], what: str, bound: float | None
) -> str:  # fmt: skip
    """Who is worth most at which KL, and how many lie beyond the bound."""
    best = max(marks, key=lambda arm: marks[arm][1].mean)
    kl, value = marks[best]
    text = f"Highest {what}: {study.called(best)}, {number(value.mean, 2)} at KL {number(kl.mean, 1)}"
    beyond = [study.called(arm) for arm, (far, _) in marks.items() if bound is not None and far.mean > bound]
    if not beyond or bound is None:
        return text
    return f"{text}; beyond the bound of {bound:g}: {len(beyond)} of {quantity(len(marks), 'winner')}"
