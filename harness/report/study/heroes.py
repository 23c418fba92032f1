"""The two figures that head a study's page: the winners on fresh seeds, and what each is worth against KL."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from harness.metrics.statistics import Estimate
from harness.palette import looks
from harness.report.heroes import SIZE
from harness.report.render.figures import Picture, picture, tip
from harness.report.render.text import ascii_visible, number, quantity, shorten, shown
from harness.report.study.cards import GOLD, KL, amount, target_words, unit
from harness.report.study.findings import fresh_results, reference_gold
from harness.report.study.study import Study, StudyTrial
from harness.report.study.tables import shown_params

GREY = "#6b7280"


def heroes(study: Study) -> tuple[Picture, ...]:
    """What there is data for."""
    return tuple(found for found in (_winners(study), _worth(study)) if found is not None)


def _won(study: Study) -> list[tuple[StudyTrial, Estimate]]:
    """Every search's winner with its target on fresh seeds, the best last."""
    won = [winner for arm in study.arms if (winner := study.winner(arm)) is not None]
    found = [(trial, study.estimate(trial.fresh, study.measure, study.report_split)) for trial in won]
    sign = 1 if study.maximize else -1
    return sorted((one for one in found if one[1].n), key=lambda one: sign * one[1].mean)


def _winners(study: Study) -> Picture | None:
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
            text = f"{trial.arm}, {shown_params(trial)}: {amount(study, value)}, {quantity(value.n, 'fresh seed')}"
            panel.plot([scale * value.mean], [y], color=look.colour, marker=look.marker, markersize=7, gid=tip(text))
            panel.plot([scale * trial.values[0]], [y], "o", color=GREY, fillstyle="none", markersize=8,
                       gid=tip(f"{trial.arm} in the search: {number(trial.values[0])}"))  # fmt: skip
        panel.set_yticks(range(len(rows)), [ascii_visible(shorten(trial.arm, 24)) for trial, _ in rows])
        panel.set_ylim(-0.7, len(rows) - 0.3)
        panel.set_xlabel(ascii_visible(f"{axis} (hollow: what the search promised)"))
        panel.grid(axis="x")

    (low, lowest), (top, highest) = rows[0], rows[-1]
    verb, right = ("ranks", " right") if study.measure == "ranking_accuracy" else ("has", f" {target_words(study)}")
    title = f"Tuned, {top.arm} {verb} {amount(study, highest)}{right} on fresh seeds"
    if low is not top:
        title += f", {low.arm} {amount(study, lowest)}"
    return picture(
        "hero-winners",
        title,
        "Each search's winner on fresh seeds and on pairs that steered nothing, with its 95 % interval; small dots are"
        " seeds. The distance to the hollow mark is the luck of the best of many trials.",
        f"{title}. A row per search: the winner's {target_words(study)} on fresh seeds beside its score in the search.",
        (1, 1), SIZE, paint,
    )  # fmt: skip


def _worth(study: Study) -> Picture | None:
    """The reward of answers (the target where there is none) against KL, with the bound that the search had on KL."""
    results = {trial.arm: fresh_results(study, trial.arm, (GOLD, KL)) for trial, _ in _won(study)}
    gold = any(found[GOLD].n for found in results.values())
    targets = {trial.arm: value for trial, value in _won(study)}
    marks = {
        arm: (found[KL], found[GOLD] if gold else targets[arm])
        for arm, found in results.items()
        if found[KL].n and (found[GOLD].n if gold else targets[arm].n)
    }
    if not marks:
        return None
    seen = looks(study.objectives)
    what = study.reward if gold else target_words(study)
    bound = next((b["at_most"] for b in study.about["constraints"] if b["measure"] == KL and b["at_most"]), None)
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
            text = f"{arm}: {what} {shown(value)} at KL {shown(kl)}, n = {value.n}"
            panel.plot([kl.mean], [value.mean], color=look.colour, marker=look.marker, markersize=7, gid=tip(text))
            owner = study.owner(arm)
            if arm == max((a for a in marks if study.owner(a) == owner), key=lambda a: marks[a][1].mean):
                panel.annotate(ascii_visible(shorten(owner, 24)), (kl.mean, value.mean), xytext=(7, 5),
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

    title = _worth_finding(marks, what, bound)
    return picture(
        "hero-worth",
        title,
        f"{what[0].upper()}{what[1:]} against KL to the reference on fresh seeds, bars are 95 % intervals of both;"
        f" higher and further left is better.{_bound_said(bound, drawn)}",
        f"{title}. A mark per search's winner, an objective's name at the best of its searches.",
        (1, 1), SIZE, paint,
    )  # fmt: skip


def _bound_said(bound: float | None, drawn: bool) -> str:
    if bound is None:
        return ""
    return " Dashed: the bound of the search." if drawn else f" The search's bound of {bound:g} lies beyond."


def _worth_finding(marks: dict[str, tuple[Estimate, Estimate]], what: str, bound: float | None) -> str:
    """Who is worth most at which KL, and how many lie beyond the bound."""
    best = max(marks, key=lambda arm: marks[arm][1].mean)
    kl, value = marks[best]
    text = f"Highest {what}: {best}, {number(value.mean, 2)} at KL {number(kl.mean, 1)}"
    beyond: Sequence[str] = [arm for arm, (far, _) in marks.items() if bound is not None and far.mean > bound]
    return f"{text}; {' and '.join(beyond[:3])} beyond the bound of {bound:g}" if beyond and bound is not None else text
